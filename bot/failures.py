"""Why an agent failed, and who can mend it how. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.agents.codec import Capabilities
from bot.agents.registry import instead
from bot.errors import AgentMissing, SandpiperError
from bot.events import Cause

KILLED = (-9, 137)  # by the kernel too, when there is no memory left
LAST_LINES = 12  # V8 prints a stack after its word
LESS_AT_ONCE = (
    "Ask for less at once (fewer tests or compilers side by side); "
    "an operator can raise SANDPIPER_SANDBOX_MEMORY, where that is set."
)

_MISSING = re.compile(r"sandpiper: .{1,4096} cannot be started: ")
# V8 (and so Node and what is written in it), Python, glibc and Go, and Linux for a program that cannot start.
_NO_MEMORY = re.compile(
    r"heap out of memory|^MemoryError|Cannot allocate memory|std::bad_alloc|\bout of memory\b|ENOMEM",
    re.IGNORECASE | re.MULTILINE,
)


class AgentFailed(SandpiperError):
    """The agent itself says that it could not do it (its model failed, its login expired …)."""

    def __init__(self, what: str, cause: Cause = Cause.UNKNOWN, mend: str = "") -> None:
        super().__init__(what, mend)
        self.cause = cause


class AgentDied(SandpiperError):
    """The agent's process ended before its work was done. starved: the sandbox's kernel has said that it
    killed for memory meanwhile."""

    def __init__(self, code: int | None, tail: str, *, starved: bool = False) -> None:
        how = "its exit code is not known" if code is None else f"exit code {code}"
        last = "\n".join(tail.splitlines()[-LAST_LINES:])
        # What a tool of its own said before that may have been endured.
        short = (starved and code in KILLED) or (code != 0 and _NO_MEMORY.search(last) is not None)
        if short:
            how += ", out of memory"
        elif code in KILLED:  # not by us: whom we kill we do not ask why
            how += ", killed: perhaps the sandbox ran out of memory"
        mend = LESS_AT_ONCE if short else ""
        super().__init__(f"The agent ended before it was done ({how}).{_saying(tail)}", mend)
        self.code = code
        self.tail = tail


def mend_of(cause: Cause, can: Capabilities, model: str = "", known: Sequence[str] = ()) -> str:
    """What to do about an agent that says that it failed. model: what it was asked for, "": its own choice.
    known: the models that it is known to have."""
    match cause:
        case Cause.LOGIN:
            where = f" ({can.credential})" if can.credential else ""
            return f"An operator has to renew its key or login{where}, and start me again."
        case Cause.LIMIT:
            return "Its account may not spend more for now: wait, or an operator can raise the limit."
        case Cause.NO_MODEL:
            return f"Choose another with `model=`. {instead(model, known) if known else ''}".strip()
        case Cause.MODEL:
            return "Write here to try again."
    return ""


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
