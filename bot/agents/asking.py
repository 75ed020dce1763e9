"""What codecs have in common when an agent asks people: the words where nobody can answer, and questions
with options, which agents write alike."""

from __future__ import annotations

from bot.agents.wire import Frame, frames, string

NOBODY = (
    "Nobody can answer inside this turn. Decide by yourself where you can; "
    "what you must know, ask in your final message."
)
NOBODY_MAY = (
    "Nobody can be asked inside this turn, so this was not allowed. Do not try it in another way: go on "
    "without it, and say in your final message what you would do and why."
)
UNSUPPORTED = "This client does not support that request."
UNANSWERED = "(nobody answered)"


def numbered(request: str, number: int) -> str:
    """The id of one of several questions in a request."""
    return f"{request}/{number + 1}" if number else request


def question(asked: Frame) -> str:
    """A question for people, with what the agent says about its options."""
    about = [
        f"• {string(option, 'label')}: {string(option, 'description')}"
        for option in frames(asked, "options")
        if string(option, "description")
    ]
    several = ["(More than one may be chosen.)"] if asked.get("multiSelect") is True else []
    return "\n".join([string(asked, "question"), *about, *several])


def options(asked: Frame) -> list[str]:
    return [string(option, "label") for option in frames(asked, "options")]
