"""Claude Code's rounds: when our prompts are settled, what a round has cost, when a turn is over and why.

A turn of ours may be several rounds of Claude's: a message that came during its last words begins
another one. Each round ends with a `result`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot.agents.claude.asks import Asks
from bot.agents.claude.calls import Calls
from bot.agents.claude.state import Result, State, Tokens
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    SUBJECT_CHARS,
    TEXT_BYTES,
    Frame,
    frame_of,
    frames,
    items,
    money,
    number,
    part,
    string,
    strings,
    token,
)
from bot.events import Cause, Completed, StopReason, Usage

SETTLED = frozenset({"completed", "cancelled", "discarded", "refused"})

# `error` of Claude's own messages and of `api_retry`.
_CAUSES = {
    "authentication_failed": Cause.LOGIN,
    "oauth_org_not_allowed": Cause.LOGIN,
    "account_on_hold": Cause.LOGIN,
    "verification_required": Cause.LOGIN,
    "cloud_credential_error": Cause.LOGIN,
    "billing_error": Cause.LIMIT,
    "rate_limit": Cause.LIMIT,
    "overloaded": Cause.MODEL,
    "invalid_request": Cause.MODEL,
    "max_output_tokens": Cause.MODEL,
    "model_not_found": Cause.NO_MODEL,
    "server_error": Cause.MODEL,
    "unknown": Cause.MODEL,
}

# What Claude Code says where no message of its own tells the kind.
_NO_CREDENTIAL = re.compile(r"/login\b|\bAPI key\b|\bOAuth token\b|authentication_error", re.IGNORECASE)
_NO_CONVERSATION = re.compile(r"No conversation found|--resume requires")

# A key that was refused twice will be refused eight times more, which takes minutes.
REFUSALS = 2
UNAUTHORISED = 401


@dataclass(slots=True)
class Rounds:
    state: State
    out: StepBuilder

    def lifecycle(self, told: Frame) -> bool:
        uuid, step = string(told, "command_uuid"), string(told, "state")
        prompt = self.state.open.get(uuid)
        if prompt is None:
            return True
        if step == "started" and not prompt.started:
            prompt.started = True
            self.out.consume(prompt.inputs)
        elif step in SETTLED:
            if step == "completed" and not prompt.started:
                self.out.consume(prompt.inputs)
            elif not prompt.started:
                self.out.deferred += prompt.inputs
            del self.state.open[uuid]
            self._complete_if_over()
        return step in SETTLED or step in ("queued", "started")

    def failing(self, kind: str) -> None:
        """Claude tells of a call of the model that failed; the result comes later, without the kind."""
        if kind:
            self.state.failing = kind if kind in _CAUSES else "unknown"

    def retry(self, told: Frame) -> None:
        kind, attempt, code = string(told, "error"), number(told, "attempt"), number(told, "error_status")
        if attempt != REFUSALS:  # one failure is nothing to tell, ten lines neither
            return
        if code == UNAUTHORISED or _CAUSES.get(kind) is Cause.LOGIN:
            self.state.refused = f"The model's API refuses the credential ({code or 'no status'})."
            self.interrupt(cancel_queued=True)
            return
        why = self.out.clean(kind, SUBJECT_CHARS) or "no answer"
        self.out.notice(f"The model's API fails ({code or 'no status'}: {why}). Claude keeps trying.")

    def result(self, told: Frame) -> bool:
        """A round is over. `subtype` says "success" even for a refused API call, so it is not read."""
        state = self.state
        Asks(state, self.out).withdraw()
        Calls(state, self.out).close_all()
        state.helpers.clear()
        state.giving_way = False
        self._count_round(part(told, "model_usage_since_last_result"))
        failed = told.get("is_error") is True
        texts = [string(told, "result"), *(text for text in items(told, "errors") if isinstance(text, str))]
        text = self.out.clean(next(filter(None, texts), ""), TEXT_BYTES)
        if state.over:
            return True  # of a round that Claude began by itself: nobody waits for it
        if state.refused:
            state.result = Result(StopReason.ERROR, "", state.refused, Cause.LOGIN)
        elif string(told, "terminal_reason").startswith("aborted"):
            state.result = Result(StopReason.CANCELLED, "", "")
        elif failed:
            reason = text or token(told, "terminal_reason") or "Claude failed without saying why."
            state.result = Result(StopReason.ERROR, "", reason, self._cause(reason))
        else:
            state.result = Result(StopReason.END, text, "")
        state.failing = ""
        if failed:
            # A round that failed by throwing never settles its prompts itself, and one that never
            # began (a conversation that cannot be resumed) has not even taken them.
            never_began = not state.session
            for uuid in list(state.open) if never_began else items(told, "user_message_uuids"):
                if isinstance(uuid, str):
                    self.lifecycle({"command_uuid": uuid, "state": "cancelled"})
        self._complete_if_over()
        return True

    def interrupt(self, *, cancel_queued: bool) -> None:
        self.state.requests += 1
        request = {"subtype": "interrupt", "cancel_queued": cancel_queued}
        id = f"sandpiper-stop-{self.state.requests}"
        self.out.send({"type": "control_request", "request_id": id, "request": request})

    def control_response(self, response: Frame) -> bool:
        """The answer to a request of ours."""
        id = string(response, "request_id")
        # A sub-agent that is to be stopped may have just ended.
        if string(response, "subtype") == "error" and id.startswith(("sandpiper-stop-", "sandpiper-hello")):
            self.out.notice(f"Claude refused a request of mine: {string(response, 'error')}")
        if id.startswith("sandpiper-stop-") and self.state.stopping:
            self.state.stopping = "answered"
            self._complete_if_over()
        if id == "sandpiper-hello":
            self._offered(frames(part(response, "response"), "models"))
        return True

    def _offered(self, models: Sequence[Frame]) -> None:
        """Short names, and the models that they stand for now. Claude takes more than it lists (older models'
        ids, `sonnet[1m]`, whatever another endpoint has), so nothing is complete."""
        names = [(string(one, name), one) for name in ("value", "resolvedModel") for one in models]
        self.out.offer(
            (name, strings(one, "supportedEffortLevels") if "supportedEffortLevels" in one else None)
            for name, one in names
            if name
        )

    def usage(self, micro_usd: int | None) -> None:
        state = self.state
        key = f"{state.first}:{state.rounds}"
        tokens = state.tokens
        self.out.events.append(Usage(key, tokens.given, tokens.made, tokens.cached, micro_usd))

    def _cause(self, reason: str) -> Cause:
        if not self.state.session and _NO_CONVERSATION.search(reason):
            return Cause.RESUME
        known = _CAUSES.get(self.state.failing, Cause.UNKNOWN)
        if known in (Cause.UNKNOWN, Cause.MODEL) and _NO_CREDENTIAL.search(reason):
            return Cause.LOGIN
        return known

    def _complete_if_over(self) -> None:
        """The turn is over when a result came and every prompt of ours is settled; or when a stop was
        taken before anything began, which yields no result."""
        state = self.state
        if state.open or state.over:
            return
        if (end := state.result) is not None:
            self._complete(Completed(end.reason, end.text, end.error, end.cause))
        elif state.stopping == "answered":
            self._complete(Completed(StopReason.CANCELLED))

    def _complete(self, completed: Completed) -> None:
        self.state.result, self.state.stopping, self.state.over = None, "", True
        self.state.refused = ""
        self.out.complete(completed)

    def _count_round(self, models: Frame) -> None:
        """The round's own sums replace what was counted call by call: they have sub-agents, money and
        Claude's own calls. `total_cost_usd` is no use: a resumed session starts at its old total."""
        state = self.state
        spent: int | None = None
        used = [frame_of(model) for model in models.values()]
        if used:
            state.tokens.given = sum(
                number(model, "inputTokens") + number(model, "cacheCreationInputTokens") for model in used
            )
            state.tokens.made = sum(number(model, "outputTokens") for model in used)
            state.tokens.cached = sum(number(model, "cacheReadInputTokens") for model in used)
            # For a model that it does not know, Claude guesses a price; a guess is not a cost.
            costs = [None if string(m, "costBasis") == "unknown" else money(m, "costUSD") for m in used]
            known = [cost for cost in costs if cost is not None]
            spent = sum(known) if len(known) == len(costs) else None
        if state.tokens.given or state.tokens.made or state.tokens.cached:
            self.usage(spent)
        state.rounds += 1
        state.tokens = Tokens()
        state.calls.clear()
