"""git, run in a clean environment: no configuration but ours, no hooks, no questions, nothing left over."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bot.errors import ForgeError
from bot.redact import redact

TIMEOUT = 600.0
GRACE = 2.0

_endings: set[asyncio.Task[None]] = set()  # so that they are not collected before they are done

# How this host reaches the network is the operator's business; the rest of the environment is not git's.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_PASSED_ON = (
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
)

# $1 kibibytes, the rest is a command
_WITHIN = 'ulimit -d "$1" && shift && exec "$@"'

_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "false",  # asked for where it matters: on what comes out of a sandbox
    "gc.autoDetach": "false",  # a collection must not go on behind our lock
    "maintenance.autoDetach": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.file.allow": "always",
    "push.followTags": "false",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
}


class GitFailed(ForgeError):
    """git ended with an error. `code` is its exit code, None when it was stopped after its timeout.

    lines: what it said on stderr, redacted.
    """

    def __init__(self, command: str, code: int | None, said: str) -> None:
        lines = [line for line in redact(said).splitlines() if line.strip()]
        how = "took too long" if code is None else f"ended with {code}"
        what = f"git {command} {how}: {' / '.join(lines[-6:]) or 'it said nothing'}"
        super().__init__(what, retryable=code is None)
        self.code = code
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def with_token(git_url: str, token: str) -> dict[str, str]:
    """The configuration that shows a token to `git_url` and to no other host."""
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {f"http.{git_url}/.extraHeader": f"Authorization: Basic {basic}"}


async def git(
    *args: str,
    cwd: Path,
    config: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    fails_with: Sequence[int] = (),
    timeout: float = TIMEOUT,
    memory: int = 0,
) -> Result:
    """Run git to its end. `config` is on top of ours and, like it, in the environment only: argv can
    be read by everybody on the host. Exit codes in `fails_with` are results. memory: bytes that git may
    take besides the files that it maps; 0: as many as there are.

    Raises GitFailed. Cancelled or too late, git and its helpers are killed.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *(("/bin/sh", "-c", _WITHIN, "sh", str(memory // 1024)) if memory else ()),
            "git",
            *args,
            cwd=cwd,
            env=_environment({**_CONFIG, **(config or {})}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Carried through, for asyncio would kill git alone and then wait for its helpers.
        with contextlib.suppress(OSError):
            await _ended(await starting)
        raise
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise GitFailed(args[0], None, f"stopped after {timeout:g} s") from None
    finally:
        if process.returncode is None:
            await _ended(process)
    code = process.returncode or 0
    if code != 0 and code not in fails_with:
        raise GitFailed(args[0], code, err.decode(errors="replace"))
    return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))


@contextlib.asynccontextmanager
async def reading(
    *args: str, cwd: Path, config: Mapping[str, str], stdin: IO[bytes], protocol: str
) -> AsyncIterator[asyncio.StreamReader]:
    """What git says, as it says it. git and its helpers are ended when nobody reads on. protocol: as the
    other side asks for it (GIT_PROTOCOL)."""
    process = await asyncio.create_subprocess_exec(
        "git",
        *args,
        cwd=cwd,
        env={**_environment({**_CONFIG, **config}), "GIT_PROTOCOL": protocol},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        yield process.stdout
    finally:
        # What nobody has read keeps asyncio from seeing that the process has ended.
        rest = asyncio.create_task(_forgotten(process.stdout))
        _endings.add(rest)
        rest.add_done_callback(_endings.discard)
        await _ended(process)


async def _forgotten(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def _environment(config: Mapping[str, str]) -> dict[str, str]:
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {
        "HOME": "/nonexistent",  # curl would look for a .netrc there
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for index, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    return env


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End git and its helpers. On SIGTERM it takes its lock files away; then the rest is killed."""
    ending = asyncio.create_task(_end(process))
    _endings.add(ending)
    ending.add_done_callback(_endings.discard)
    await asyncio.shield(ending)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
