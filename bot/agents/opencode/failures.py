"""What goes wrong in OpenCode's runs, and why."""

from __future__ import annotations

import re

from bot.agents.causes import NO_MODEL
from bot.agents.opencode.state import Failure
from bot.agents.opencode.turn import Turn
from bot.agents.wire import RESULT_BYTES, SUBJECT_CHARS, Frame, number, one_line, part, string
from bot.events import Cause

MOST_RETRIES = 5

_NO_CREDENTIAL = re.compile(
    r"\bAPI key\b|api_key|authentication|unauthorized|not logged in|\blog ?in\b", re.IGNORECASE
)
_SPENT = re.compile(r"quota|billing|credit balance|usage limit|payment required", re.IGNORECASE)
_RATE = re.compile(r"rate.?limit|too many requests|tokens per min", re.IGNORECASE)
_NOT_HAD = re.compile(r"ModelNotFound|Model not found|ProviderNotFound", re.IGNORECASE)
_NO_PROVIDER = re.compile(rf"{_NOT_HAD.pattern}|ProviderInitError", re.IGNORECASE)
_STACK = "\n    at "


def retrying(status: Frame, turn: Turn, patience: float) -> None:
    """The model's API failed, and OpenCode tries again: five times, and as late as that API asks it to."""
    state, attempt = turn.state, number(status, "attempt")
    why = turn.out.clean(string(status, "message"), RESULT_BYTES) or "no reason given"
    first = state.retrying is None
    spent = bool(part(status, "action") or _SPENT.search(why))
    cause = Cause.LIMIT if spent or _RATE.search(why) else Cause.MODEL
    state.retrying = Failure(f"The model's API keeps failing: {why}", cause)
    if spent:  # it would wait until somebody pays
        turn.give_up(why, cause)
    elif attempt > MOST_RETRIES:
        turn.give_up(state.retrying.error, cause)
    elif first:
        turn.wait(f"patience/{state.runs}/{state.speaking}", patience)
    if attempt == 2:  # one failure is nothing to tell, ten lines neither
        turn.out.notice(f"The model's API fails ({one_line(why, SUBJECT_CHARS)}). OpenCode keeps trying.")


def patience_ended(about: str, turn: Turn) -> None:
    """The time for a call to succeed is over: it is still the same one, or it went well."""
    state = turn.state
    if state.retrying is not None and about == f"{state.runs}/{state.speaking}":
        turn.give_up(state.retrying.error, state.retrying.cause)


def session_failed(error: Frame, turn: Turn, *, has_key: bool) -> None:
    state = turn.state
    text, cause = reason(error, has_key=has_key)
    text = turn.out.clean(text, RESULT_BYTES * 4)
    if state.run:
        turn.run_failed(text, cause)
    elif string(error, "name") != "MessageAbortedError":
        # Not of a run: a prompt could not be taken in, such as one with a picture that is not there.
        for key, said in state.prompts.items():
            if said.posted and not said.message:
                _not_taken(key, text, cause, turn)
                return


def _not_taken(key: str, error: str, cause: Cause, turn: Turn) -> None:
    said = turn.state.prompts[key]
    if not said.images:
        turn.refused(key, error, cause)
        return
    turn.out.notice("OpenCode could not open a picture; the agent is told where it should be instead.")
    said.text += "".join(f"\n(A picture: {path})" for path in said.images)
    said.images, said.posted = [], False
    turn.post_ready()


def reason(error: Frame, *, has_key: bool) -> tuple[str, Cause]:
    """The words of OpenCode's error, and what they tell about the cause. has_key: a credential was given."""
    name, data = string(error, "name"), part(error, "data")
    code = number(data, "statusCode")
    text = string(data, "message").partition(_STACK)[0].strip() or name or "OpenCode did not say why."
    no_provider = bool(_NO_PROVIDER.search(text))
    if name == "ProviderAuthError" or code in (401, 403) or (not code and _NO_CREDENTIAL.search(text)):
        cause = Cause.LOGIN
    elif code in (402, 429) or (name == "APIError" and (_SPENT.search(text) or _RATE.search(text))):
        cause = Cause.LIMIT
    elif no_provider and not has_key:  # without a credential its provider is not there at all
        cause = Cause.LOGIN
    elif _NOT_HAD.search(text) or NO_MODEL.search(text):
        cause = Cause.NO_MODEL
    elif name in ("UnknownError", "MessageAbortedError", "") and not no_provider:
        cause = Cause.UNKNOWN
    else:
        cause = Cause.MODEL
    return (f"{code} {text}" if code and str(code) not in text else text), cause
