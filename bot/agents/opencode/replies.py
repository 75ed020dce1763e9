"""The answers of OpenCode's server to our requests. What each was for stands in its id."""

from __future__ import annotations

from bot.agents.opencode.failures import patience_ended
from bot.agents.opencode.turn import MARK, Turn
from bot.agents.wire import RESULT_BYTES, Frame, each, frame_of, frames, items, number, part, string, token
from bot.events import AgentStarted, Cause


def purpose_of(told: Frame) -> tuple[str, str]:
    _, _, purpose = string(told, "id").partition("/")
    name, _, about = purpose.partition("/")
    return name, about


def is_fine(told: Frame) -> bool:
    return 200 <= number(told, "status") < 300


def take_reply(told: Frame, turn: Turn) -> bool:
    """False: it is not the answer to anything of ours."""
    state = turn.state
    purpose, about = purpose_of(told)
    fine, code = is_fine(told), number(told, "status")
    match purpose:
        case "new" | "resume":
            _begun(told, turn, resumed=purpose == "resume")
        case "unread":
            _drop_unread(told, turn)
            turn.post_ready()
        case "post":
            if fine or not code:  # whether it was taken in, when no answer came, is seen later
                turn.look_if_idle()
            else:
                turn.refused(about, turn.out.clean(refusal(told), RESULT_BYTES * 2), Cause.UNKNOWN)
        case "abort":
            if state.stopping == "asked":
                state.stopping = "answered"
                turn.settle()
        case "look":
            turn.look()
        case "gone":
            turn.gone(about)
        case "lost":
            turn.lost(about, fine)
        case "patience":
            patience_ended(about, turn)
        case "efforts":
            _efforts(part(told, "body"), turn)
            _offered(part(told, "body"), turn)
        case "models":
            _offered(part(told, "body"), turn)
        case "give-up" | "yield" | "drop" | "permission" | "question":
            pass
        case _:
            return False
    return True


def _begun(told: Frame, turn: Turn, *, resumed: bool) -> None:
    state, body, clean = turn.state, part(told, "body"), turn.out.clean
    session = token(body, "id")
    if state.session:
        return
    if not is_fine(told) or not session:
        gone = resumed and number(told, "status") == 404
        turn.cannot_begin(clean(refusal(told), RESULT_BYTES * 2), Cause.RESUME if gone else Cause.UNKNOWN)
        return
    state.session = session
    turn.out.resume_token = session
    model = state.model or string(part(body, "model"), "id")
    turn.out.events.append(
        AgentStarted("opencode", session, clean(string(body, "version"), 80), clean(model, 80))
    )
    if resumed:
        turn.request("unread", "GET", turn.path("/message?limit=20"))
    else:
        turn.post_ready()


def _drop_unread(told: Frame, turn: Turn) -> None:
    """What an earlier process stored and nobody read is given to us again: the model would hear it twice."""
    messages = [frame_of(item) for item in items(told, "body")]
    read = max((token(part(message, "info"), "parentID") for message in messages), default="")
    for message in messages:
        keys = {string(part(one, "metadata"), MARK) for one in frames(message, "parts")} - {""}
        id = token(part(message, "info"), "id")
        if keys and not keys & set(turn.state.prompts) and id > read:
            turn.drop(id)


def _efforts(body: Frame, turn: Turn) -> None:
    """Which variants the model has. One that it has not is passed over by OpenCode without a word."""
    state = turn.state
    provider, _, model = state.model.partition("/")
    for one in frames(body, "providers"):
        known = part(one, "models", model)
        if string(one, "id") == provider and known and state.effort not in part(known, "variants"):
            turn.out.notice(
                f"{state.model} has no effort '{state.effort}': it thinks as much as it does by itself."
            )
            state.effort = ""


def _offered(body: Frame, turn: Turn) -> None:
    """All models of the providers that are switched on, with their variants. OpenCode has no others of these
    providers, unless we tell it of them."""
    providers = [one for one in frames(body, "providers") if string(one, "id")]
    turn.out.offer(
        (
            (f"{string(provider, 'id')}/{name}", list(part(model, "variants")))
            for provider in providers
            for name, model in each(provider, "models")
        ),
        () if turn.state.defines else tuple(f"{string(one, 'id')}/" for one in providers),
    )


def refusal(told: Frame) -> str:
    """The words of an answer that is no success; they come in several shapes."""
    body = part(told, "body")
    words = (
        string(told, "error")
        or string(part(body, "data"), "message")
        or string(body, "message")
        or string(told, "body")
        or string(body, "name")
    )
    code = number(told, "status")
    return f"OpenCode's server refused ({code}): {words}" if code else f"OpenCode's server: {words}"
