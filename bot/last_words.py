"""What a program said last, for people who wonder why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bot.agents.wire import plain
from bot.errors import AgentMissing, SandpiperError
from bot.redact import redact

# Far more is kept than is shown: a secret is known by its beginning, so that has to be there when it is
# looked for, and what is shown is cut only then.
KEPT_BYTES = 64 * 1024
SHOWN_CHARS = 1500

KILLED = (-9, 137)

_MISSING = re.compile(r"sandpiper: .{1,4096} cannot be started: ")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"\A(?:[ \t]*[A-Za-z0-9+/=]{16,}[ \t]*(?:\n|\Z))+")


class LastWords:
    """The end of an output. secrets: what the program was given. cut: what is heard first may be the rest
    of something."""

    def __init__(self, secrets: Iterable[str] = (), *, cut: bool = False) -> None:
        self._secrets = tuple(secrets)
        self._cut = cut
        self._heard = bytearray()

    def hear(self, data: bytes) -> None:
        self._heard += data
        if len(self._heard) > KEPT_BYTES:
            del self._heard[:-KEPT_BYTES]
            self._cut = True

    def hear_line(self, data: bytes) -> None:
        """A line by itself, of another output."""
        between = b"" if not self._heard or self._heard.endswith(b"\n") else b"\n"
        self.hear(between + data + b"\n")

    def text(self) -> str:
        """Whole lines, without secrets or pieces of them."""
        heard = plain(self._heard.decode(errors="replace"))
        clean = redact(_whole(heard) if self._cut else heard, self._secrets).strip()
        if len(clean) <= SHOWN_CHARS:
            return clean
        shown = clean[-SHOWN_CHARS:]
        return shown.partition("\n")[2].strip() or shown


def _whole(heard: str) -> str:
    """Without what was cut off at its beginning: a line, and a private key of which this is the rest."""
    heard = heard.partition("\n")[2]
    end = _KEY_END.search(heard)
    if end and "-----BEGIN " not in heard[: end.start()]:
        heard = heard[end.end() :]
    return _KEY_BODY.sub("", heard)


class AgentDied(SandpiperError):
    """The agent's process ended before its work was done."""

    def __init__(self, code: int | None, tail: str) -> None:
        how = "its exit code is not known" if code is None else f"exit code {code}"
        if code in KILLED:  # not by us: whom we kill we do not ask why
            how += ", killed: perhaps the sandbox ran out of memory"
        super().__init__(f"The agent ended before it was done ({how}).{_saying(tail)}")
        self.code = code
        self.tail = tail


def not_started(agent: str, tail: str) -> AgentMissing:
    """Exit code 127 before a word: is the agent's program missing, or something that it needs? The one is
    said by our own programs that start it (sandbox/inside/), the other by a shell, env or the program."""
    setting = "SANDPIPER_AGENT_CLAUDE" if agent == "claude" else "SANDPIPER_AGENTS"
    last = tail.rpartition("\n")[2]
    if not last or _MISSING.match(last):
        return AgentMissing(
            f"The agent '{agent}' is not installed in the sandbox.",
            f"Install it there, or name its path with {setting}.",
        )
    what = f"The agent '{agent}' could not start: something that it needs is missing in the sandbox."
    return AgentMissing(
        f"{what}{_saying(tail)}",
        "Have that there too (SANDPIPER_SANDBOX_TOOLS names directories that sandboxes see), "
        f"or name another program with {setting}.",
    )


def _saying(tail: str) -> str:
    return f" Its last lines:\n{tail}" if tail else ""
