"""Runs a short program on this machine to its end, with its input, its output and its time bounded."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Callable
from typing import BinaryIO

from bot.errors import SandboxError, SandboxUnreachable
from bot.models import ExecResult
from sandbox.bubblewrap import Command
from sandbox.process import HANDOVER_FD

CLIP = 8 << 20  # bytes kept of each output; the rest is read and dropped
DRAIN = 5.0  # seconds for the last output after the end


async def execute(
    build: Callable[[int, int], Command],
    *,
    stdin: bytes | BinaryIO,
    timeout: float,
    stdout: BinaryIO | None = None,
    started: Callable[[asyncio.subprocess.Process], None] = lambda _: None,
) -> ExecResult:
    """Run the command that `build` makes for the numbers of two descriptors: one with its handover, and one
    that ends when we do, whatever ends us.

    The program and its whole group are gone when this returns, raises or is cancelled. Raises
    SandboxUnreachable when it takes too long, SandboxError when it cannot be started.
    """
    # Input comes from a file and output goes to pipes of our own, for asyncio waits with the end of a
    # process until its own pipes are closed, and what a program leaves running may hold them.
    outlets = [Outlet() for _ in range(2 if stdout is None else 1)]
    life_end, life = os.pipe()
    try:
        with _out_of_the_way(_memory(b"")) as handover, contextlib.ExitStack() as stack:
            life_end = _moved_up(life_end)
            command = build(handover.fileno(), life_end)
            handover.write((command.handover or "").encode())
            handover.seek(0)
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *command.argv,
                    env=dict(command.env),
                    cwd=command.cwd,
                    stdin=stack.enter_context(_memory(stdin)) if isinstance(stdin, bytes) else stdin,
                    stdout=stdout or outlets[-1].write_end,
                    stderr=outlets[0].write_end,
                    pass_fds=[handover.fileno(), life_end],
                    start_new_session=True,
                )
            )
            try:
                process = await asyncio.shield(starting)
            except asyncio.CancelledError:
                # Carried through, for asyncio would kill the program alone, and not its group.
                with contextlib.suppress(OSError):
                    process = await starting
                    _kill_group(process.pid)
                    await process.wait()
                raise
    except BaseException as error:
        os.close(life)
        for outlet in outlets:
            outlet.close()
        if isinstance(error, OSError | ValueError):  # the latter of a NUL, or half a character
            raise SandboxError(f"A program in the sandbox cannot be started: {error}.") from error
        raise
    finally:
        os.close(life_end)
        for outlet in outlets:
            os.close(outlet.write_end)
    started(process)
    collecting = [asyncio.ensure_future(outlet.collect()) for outlet in outlets]
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
        _kill_group(process.pid)
        async with asyncio.timeout(DRAIN):
            collected = await asyncio.gather(*collecting)
        return ExecResult(code, b"" if stdout else collected[-1], collected[0])
    except TimeoutError as error:
        raise SandboxUnreachable(f"A program in the sandbox took longer than {timeout:g} s.") from error
    finally:
        _kill_group(process.pid)
        os.close(life)
        for task in collecting:
            task.cancel()
        await asyncio.gather(*collecting, return_exceptions=True)
        await process.wait()


class Outlet:
    """One output of a program: read to its end, kept up to CLIP."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()

    def close(self) -> None:
        """Where nothing is to be collected."""
        os.close(self._read_end)

    async def collect(self) -> bytes:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_end, "rb")
        )
        kept = bytearray()
        try:
            while data := await reader.read(1 << 16):
                kept += data[: CLIP - len(kept)]
        finally:
            transport.close()
        return bytes(kept)


def _memory(data: bytes) -> BinaryIO:
    """An open file with this content that stands on no disk, where the system can do so."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = os.fdopen(os.memfd_create("sandpiper"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
    file.write(data)
    file.seek(0)
    return file


def _out_of_the_way(file: BinaryIO) -> BinaryIO:
    """The same file on a high descriptor: low ones are those that a box opens by their numbers."""
    with file:
        return os.fdopen(_moved_up(os.dup(file.fileno())), "w+b")


def _moved_up(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HANDOVER_FD)
    finally:
        os.close(fd)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
