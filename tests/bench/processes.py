"""Kept programs: how soon one is there, a steer's round trip at each provider, and more output than the spool
holds. Providers in the cloud are reached by their real SDKs over loopback, so their figures are what we and
the SDK add to the way there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from bot.errors import ProviderUnavailable
from bot.models import Launch
from bot.ports import Process, Provider, Sandbox
from sandbox.bubblewrap import Options
from sandbox.container import Engine
from sandbox.daytona import DaytonaProvider
from sandbox.daytona_account import Account
from sandbox.docker import DockerProvider
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.bench.bare import BOX
from tests.bench.table import Row, Skipped, spread
from tests.daytona_server import KEY, DaytonaServer
from tests.docker_engine import IMAGE, DockerEngine
from tests.e2b_server import E2BServer, NearE2B
from tests.remote_boxes import DirectoryProvider

STARTS = 50
STEERS = 50
OUTPUT = 2 << 30  # bytes
PIECE = 4 << 20
PATIENCE = 60.0
SPAWNED = "A kept program: the same in a bubblewrap that hides nothing, until its first line has come."
STEERED = "A steer's round trip: a line through pipes to `cat` in a bare bubblewrap, and back."
SPOOLED = "2 GB of output: through a pipe out of a bare bubblewrap. A ratio below 1 is slower."


async def measure(directory: Path) -> Sequence[Row]:
    try:
        await _local(directory / "check").check()
    except ProviderUnavailable as error:
        raise Skipped(str(error)) from error
    async with _box(_at(_local(directory / "sandboxes"))) as sandbox:
        rows = [*await _spawned(sandbox), await _spooled(sandbox)]
    floor = await _bare_steers()
    for name, provider in PROVIDERS.items():
        try:
            async with _box(provider(directory / name.replace(" ", "-"))) as sandbox:
                rows += spread(f"a steer's round trip, {name}", await _steers(sandbox), floor, STEERED)
        except ProviderUnavailable as error:
            print(f"a steer's round trip, {name}: skipped. {error}")
    return rows


# A program's start


async def _spawned(sandbox: Sandbox) -> Sequence[Row]:
    ours, floor = [], []
    for number in range(STARTS + 1):
        began = time.perf_counter()
        bare = await _bare("echo", "ready")
        assert bare.stdout
        await bare.stdout.readline()
        floor.append(time.perf_counter() - began)
        await bare.wait()
        launch = Launch(("echo", "ready"), sandbox.home)
        began = time.perf_counter()
        process = await sandbox.spawn(f"start-{number}", launch, fence=1, orphan_after=60)
        await _hears(process, 0, b"ready\n")
        ours.append(time.perf_counter() - began)
        await _ended(process)
    # The first one makes what all share: the sandbox is not warm yet.
    return spread("a kept program, spawned → its first line", ours[1:], floor[1:], SPAWNED)


async def _ended(process: Process) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await process.status()).running:  # noqa: ASYNC110 another process ends
            await asyncio.sleep(0.005)
    await process.forget()


# A steer


async def _steers(sandbox: Sandbox) -> Sequence[float]:
    process = await sandbox.spawn("cat", Launch(("cat",), sandbox.home), fence=1, orphan_after=600)
    took, offset = [], 0
    for line in _lines():
        began = time.perf_counter()
        await asyncio.gather(process.write(offset, line), _hears(process, offset, line))
        took.append(time.perf_counter() - began)
        offset += len(line)
    await process.write(offset, b"", eof=True)
    await _ended(process)
    return took[1:]


async def _hears(process: Process, offset: int, words: bytes) -> None:
    heard = b""
    async with asyncio.timeout(PATIENCE):
        while heard != words:
            chunk = await process.read(1, offset + len(heard), ack=offset, wait=20)
            heard += chunk.data
            if not words.startswith(heard) or (chunk.eof and heard != words):
                raise RuntimeError(f"it said {heard!r} for {words!r}")


async def _bare_steers() -> Sequence[float]:
    process = await _bare("cat")
    assert process.stdin and process.stdout
    took = []
    for line in _lines():
        began = time.perf_counter()
        process.stdin.write(line)
        if await process.stdout.readline() != line:
            raise RuntimeError("the bare `cat` has ended")
        took.append(time.perf_counter() - began)
    process.stdin.close()
    await process.wait()
    return took[1:]


def _lines() -> Sequence[bytes]:
    return [f"steer {number}\n".encode() for number in range(STEERS + 1)]


# Output


async def _spooled(sandbox: Sandbox) -> Row:
    """The spool has its usual 64 MB, so most of it waits for its reader."""
    command = ("head", "-c", str(OUTPUT), "/dev/zero")
    began = time.perf_counter()
    bare = await _bare(*command)
    assert bare.stdout
    size = 0
    while data := await bare.stdout.read(PIECE):
        size += len(data)
    floor = size / (time.perf_counter() - began)
    await bare.wait()
    _whole(size)
    began = time.perf_counter()
    process = await sandbox.spawn("zeros", Launch(command, sandbox.home), fence=1, orphan_after=600)
    size = 0
    while True:
        chunk = await process.read(1, size, ack=size, wait=20, limit=PIECE)
        size = chunk.next
        if chunk.eof:
            break
    ours = size / (time.perf_counter() - began)
    _whole(size)
    await _ended(process)
    return Row("2 GB through the spool of 64 MB", "MB/s", ours / 1e6, floor / 1e6, SPOOLED)


def _whole(size: int) -> None:
    if size != OUTPUT:
        raise RuntimeError(f"{size} of {OUTPUT} bytes came")


async def _bare(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *BOX, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


# Where


def _local(directory: Path) -> LocalProvider:
    return LocalProvider(directory, Bubblewrap(Options(), allow=()))


@asynccontextmanager
async def _at(provider: Provider) -> AsyncIterator[Provider]:
    try:
        yield provider
    finally:
        await provider.close()


@asynccontextmanager
async def _daytona(directory: Path) -> AsyncIterator[Provider]:
    server = DaytonaServer(directory)
    await server.start()
    async with AsyncExitStack() as closing:
        closing.push_async_callback(server.close)
        yield await closing.enter_async_context(_at(DaytonaProvider(Account(KEY, f"{server.url}/api"))))


@asynccontextmanager
async def _e2b(directory: Path) -> AsyncIterator[Provider]:
    server = E2BServer(directory)
    await server.start()
    async with AsyncExitStack() as closing:
        closing.push_async_callback(server.close)
        yield await closing.enter_async_context(_at(NearE2B(server.account())))


@asynccontextmanager
async def _docker(directory: Path) -> AsyncIterator[Provider]:
    engine = DockerEngine(directory / "engine")
    await engine.start()
    async with AsyncExitStack() as closing:
        closing.push_async_callback(engine.close)
        provider = DockerProvider(directory / "docker", Engine(engine.url, IMAGE), allow=())
        yield await closing.enter_async_context(_at(provider))


PROVIDERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Provider]]] = {
    "local": lambda directory: _at(_local(directory)),
    "remote by its door": lambda directory: _at(DirectoryProvider(directory)),
    "remote by commands": lambda directory: _at(DirectoryProvider(directory, door=False)),
    "docker": _docker,
    "daytona": _daytona,
    "e2b": _e2b,
}


@asynccontextmanager
async def _box(provider: AbstractAsyncContextManager[Provider]) -> AsyncIterator[Sandbox]:
    async with provider as made:
        sandbox = await made.create({})
        try:
            await sandbox.enter()
            yield sandbox
        finally:
            await sandbox.delete()
