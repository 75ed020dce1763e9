"""What a provider of remote boxes has to offer of one of them. Everything else stands on it, in remote.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bot.models import SandboxState


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a shell command. In `output` stderr may stand between stdout."""

    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Address:
    """Where a port of a box is reached by HTTP(S), and the headers without which it is not."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """A provider's link to a port, for whoever has it. token: by which it is taken back."""

    url: str = field(repr=False)
    port: int
    token: str = field(repr=False)


class Signer(Protocol):
    """What makes links to ports of one box."""

    async def sign(self, port: int, seconds: float) -> Signed:
        """One that ends after `seconds`. Raises SandboxError."""
        ...

    async def revoke(self, signed: Signed) -> None:
        """It leads nowhere any more. Raises SandboxError."""
        ...


class Box(Protocol):
    """One box at its provider. No verb keeps anything in memory, so many may stand for the same box.

    Every verb may raise SandboxUnreachable (a dropped connection, a limit, the provider is down: it is
    tried again, so a verb must bear being done twice), SandboxNotRunning and SandboxGone. The last two
    only when the provider says so: what it answers about the port of a stopped box is no such word.
    """

    id: str
    labels: Mapping[str, str]  # as it was made with

    @property
    def reserved(self) -> Collection[int]:
        """Ports of its provider's own programs in it, which are nobody's to look at."""
        ...

    @property
    def signer(self) -> Signer | None:
        """None: its provider makes no links to ports."""
        ...

    async def state(self) -> SandboxState: ...

    async def start(self) -> None:
        """Returns when it runs; also when it ran already."""
        ...

    async def stop(self) -> None:
        """Returns when nothing runs in it any more; also when it was stopped already. Its home stays."""
        ...

    async def delete(self) -> None: ...

    async def touch(self, idle_stop: float) -> None:
        """It is in use; it may stop itself after `idle_stop` seconds without a further touch."""
        ...

    async def run(self, command: str, *, timeout: float) -> Said:
        """Run a short command of POSIX sh as the box's ordinary user, in any directory; `timeout` in
        seconds. It reads no stdin, and says a few hundred KB at most."""
        ...

    async def upload(self, content: bytes | Path, path: str) -> None:
        """Write a file, whole or not at all, making directories as needed. Raises SandboxFull."""
        ...

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        """Copy a file to ours, and no more than limit + 1 bytes of it. Raises SandboxError."""
        ...

    async def door(self, port: int) -> Address | None:
        """Where a TCP port of the box is reached now, asked afresh; None: nowhere, there is only `run`."""
        ...
