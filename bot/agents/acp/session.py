"""An ACP conversation: handshake, setup, prompts, steering, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bot.agents.acp.asks import GO_ON, decided, withdraw
from bot.agents.acp.errors import cause_of, words_of
from bot.agents.acp.setup import Profile, Setup, call
from bot.agents.acp.state import Ask, Injected, State, Words, Written
from bot.agents.acp.telling import close_tools, flush, show_tools
from bot.agents.codec import Permissions, Steering
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    TEXT_BYTES,
    Frame,
    number,
    part,
    string,
    to_line,
)
from bot.events import ApprovalAsked, Cause, Completed, StopReason, Usage

PLAN_FIRST = (
    "Before you change anything, lay out a plan of what you are going to do, and wait for the permissions "
    "that you ask for."
)
STOPPED_FOR = "I stopped your work for this message. Take it in, then go on with what you were doing."
REFUSED = "You were not allowed to do this: {}\nGo on without it, or say in your final message what you need."

GO_AHEAD = "Your plan is approved. Go on, and do it."
PLAN_AGAIN = "Your plan is not approved: {}\nPlan again."

# How often an agent that gives up when it is refused something is set going again in one process.
MOST_RETOLD = 3

# Stop reasons that are no end of the work.
UNFINISHED = {
    "max_tokens": "The model reached its limit of tokens before it was done.",
    "max_turn_requests": "The agent reached its limit of model calls before it was done.",
    "refusal": "The model refused to go on.",
}


@dataclass(slots=True)
class Conversation:
    state: State
    out: StepBuilder
    profile: Profile

    def answered(self, purpose: str, id: str, result: Frame, error: Frame) -> None:
        """The answer to a request of ours."""
        state = self.state
        match purpose:
            case "session/prompt":
                self._prompt_ended(result, error)
            case "_session/steering":
                self._steer_answered(id, result, error)
            case _:
                Setup(state, self.out, self.profile).answered(purpose, result, error)
                if state.stage == "ready":
                    self.go_on()
                elif state.stage == "failed":
                    self._complete(StopReason.ERROR, state.failure, Cause(state.cause))

    # prompts

    def say(self, words: Words) -> None:
        """Words of the bot: a prompt, or a steer when one runs."""
        state = self.state
        if words.key in self._known_keys():
            return
        if state.stage == "failed":
            self.out.deferred += words.inputs
            self._complete(StopReason.ERROR, state.failure, Cause(state.cause))
        elif state.stage != "ready" or not state.prompt:
            state.waiting.append(words)
            self.go_on()
        elif state.steers:
            self._inject(words)
        else:
            self._fall_back(words)

    def _known_keys(self) -> set[str]:
        state = self.state
        known = [*state.waiting, *state.running, *(steer.words for steer in state.injected)]
        return {words.key for words in known}

    def _inject(self, words: Words) -> None:
        params = {
            "sessionId": self.state.session,
            "prompt": _blocks([words]),
            "_meta": {"steering": {"idleBehavior": "promptRequired"}},
        }
        request = call(self.state, self.out, "_session/steering", params)
        self.state.injected.append(Injected(words, request, self.state.message))

    def _fall_back(self, words: Words) -> None:
        """For an agent that takes nothing while it works."""
        state = self.state
        if self.profile.steering is Steering.QUEUE:
            self.out.deferred += words.inputs
            return
        state.waiting.append(words)
        if not state.cancelling:
            self.cancel()
            self.out.notice(
                f"{state.title} takes no messages while it works: I stopped it, and it goes on with this one."
            )

    def cancel(self) -> None:
        self.state.cancelling = True
        params = {"sessionId": self.state.session}
        self.out.send({"jsonrpc": "2.0", "method": "session/cancel", "params": params})
        withdraw(self.state, self.out)

    def stop(self) -> None:
        """Stop means stop: what the agent has not taken is handed back."""
        state = self.state
        state.stopping = True
        self._hand_back(state.waiting)
        if not state.prompt:
            withdraw(state, self.out)
            self._hand_back([steer.words for steer in state.injected])
            state.injected.clear()
            self._complete(StopReason.CANCELLED)
        elif not state.cancelling:
            self.cancel()

    def go_on(self) -> None:
        """Prompt with what waits, if it can be now; or the turn is over when nothing is left to say."""
        state = self.state
        if state.stage != "ready" or state.prompt or not state.waiting:
            return
        words, state.waiting = state.waiting, []
        state.running = list(words)
        state.speech = Written()
        self._from_here()
        withdraw(state, self.out)
        blocks = _blocks(words)
        if state.cancelling:
            blocks = [{"type": "text", "text": STOPPED_FOR}, *blocks]
        if state.plans_by_words and not state.resumable:
            blocks.append({"type": "text", "text": PLAN_FIRST})
        state.cancelling = False
        params = {"sessionId": state.session, "prompt": blocks}
        state.prompt = call(state, self.out, "session/prompt", params)

    # what is taken

    def heard(self, message: str, *, tool: bool = False) -> None:
        """The model has put something out. It was given what it was prompted with; and what was injected,
        when this output is of a call that began after that was acknowledged."""
        state = self.state
        state.message = message or state.message
        if not state.prompt:
            return
        if not state.resumable:
            # Not before: a session without an answer may not be on disk yet.
            state.resumable, self.out.resume_token = True, state.session
        state.refused.clear()
        for words in state.running:
            self.out.consume(words.inputs)
            # Their text is needed no more, and the state is stored with every step.
            words.inputs, words.text = [], ""
        for steer in list(state.injected):
            begins = steer.tool_ended if tool else message != steer.message or not message
            if not steer.request and begins:
                self.out.consume(steer.words.inputs)
                state.injected.remove(steer)

    def _steer_answered(self, id: str, result: Frame, error: Frame) -> None:
        state = self.state
        steer = next((steer for steer in state.injected if steer.request == id), None)
        if steer is None:
            return  # it was handed back when its turn ended
        outcome = string(result, "outcome")
        if outcome == "injected" and state.prompt:
            steer.request = ""
            return
        state.injected.remove(steer)
        if state.prompt and outcome != "promptRequired":
            # It can steer, it says, and yet does not: as if it had not said so.
            state.steers = False
            self._fall_back(steer.words)
            return
        state.waiting.append(steer.words)
        self.go_on()

    # the end

    def _prompt_ended(self, result: Frame, error: Frame) -> None:
        state = self.state
        flush(state, self.out)
        close_tools(state, self.out)
        withdraw(state, self.out)
        state.prompt = ""
        stop = string(result, "stopReason")
        self._count_round(result)
        if stop == "end_turn":
            state.cancelling = False  # it was done before it heard of that
        if not error and stop not in (*UNFINISHED, "cancelled", "end_turn"):
            self.out.unknown(f"stop reason {stop or 'missing'}", to_line(result))
        if not error and stop not in ("cancelled", *UNFINISHED):
            for words in state.running:
                self.out.consume(words.inputs)
        elif state.cancelling and not state.stopping and not error:  # it was cancelled for what waits
            state.waiting = [*(words for words in state.running if words.text), *state.waiting]
        else:
            self._hand_back(state.running)
        state.running = []
        if state.stopping or (error and not state.cancelling) or stop in UNFINISHED:
            self._hand_back([steer.words for steer in state.injected])
            self._hand_back(state.waiting)
            state.injected.clear()
            self._ended_as(stop, error)
            return
        # Accepted, and yet nothing came after it: it was too late for this prompt.
        late = [steer for steer in state.injected if not steer.request]
        state.injected = [steer for steer in state.injected if steer.request]
        state.waiting = [*(steer.words for steer in late), *state.waiting]
        if state.refused and state.retold < MOST_RETOLD:
            state.retold += 1
            text = REFUSED.format("\n".join(state.refused))
            state.waiting.insert(0, Words(f"refused-{state.rounds}", text))
        state.refused = []
        if state.waiting:
            self.go_on()
        elif not state.injected:
            self._ended_as(stop, error)

    def _ended_as(self, stop: str, error: Frame) -> None:
        stopped = self.state.stopping and (error or stop != "end_turn")
        if stopped or stop == "cancelled":
            self._complete(StopReason.CANCELLED)
        elif error:
            words = self.out.clean(words_of(error), TEXT_BYTES)
            self._complete(StopReason.ERROR, words, cause_of(error))
        elif stop in UNFINISHED:
            self._complete(StopReason.ERROR, UNFINISHED[stop], Cause.MODEL)
        elif self.state.planning and self.state.answerable and self.state.speech.text.strip():
            self._ask_about_plan()
        else:
            self._complete(StopReason.END)

    # a plan that an agent has laid out, and then ended its prompt; others ask by themselves

    def _ask_about_plan(self) -> None:
        state = self.state
        state.asked += 1
        id = f"{state.first}:{state.asked}"
        state.asks[id] = Ask("", plan=True)
        words = self.out.exact(state.speech.text.strip())
        self.out.events.append(ApprovalAsked(id, GO_ON, words))

    def decide(self, id: str, *, allowed: bool, reason: str) -> None:
        state = self.state
        ask = state.asks.get(id)
        if ask is None or ask.rpc:
            refused = decided(id, allowed, reason, state, self.out)
            show_tools(state, self.out)
            self._tell_refused(refused)
            return
        del state.asks[id]
        if allowed:
            state.planning, state.permissions = False, Permissions.AUTO.value
            state.waiting.append(Words(f"plan-{state.rounds}", GO_AHEAD))
            Setup(state, self.out, self.profile).choose_mode()
            self.go_on()
        elif reason:
            state.waiting.append(Words(f"plan-{state.rounds}", PLAN_AGAIN.format(reason)))
            self.go_on()
        else:
            self._complete(StopReason.END)

    def _tell_refused(self, refused: str) -> None:
        """ACP has no place for a reason. An agent that goes on without it, and cannot be steered, is not
        told; one that gives up is prompted again with it."""
        state = self.state
        if refused and state.steers and state.prompt:
            self.say(Words(f"refused-{state.first}-{state.requests}", REFUSED.format(refused)))
        elif refused:
            state.refused.append(refused)

    def _hand_back(self, words: list[Words]) -> None:
        for one in words:
            self.out.deferred += one.inputs
        words.clear()

    def _complete(self, reason: StopReason, error: str = "", cause: Cause = Cause.UNKNOWN) -> None:
        state = self.state
        self._hand_back(state.waiting)
        text = self.out.clean(state.speech.text, TEXT_BYTES) if reason is StopReason.END else ""
        state.stopping, state.cancelling = False, False
        self.out.complete(Completed(reason, text.strip(), error, cause))

    def _count_round(self, result: Frame) -> None:
        state, usage = self.state, part(result, "usage")
        quota = part(result, "_meta", "quota", "token_count")
        given = number(usage, "inputTokens") + number(usage, "cachedWriteTokens") or number(
            quota, "input_tokens"
        )
        made = number(usage, "outputTokens") or number(quota, "output_tokens")
        cached = number(usage, "cachedReadTokens")
        spent = self.spent()
        if given or made or cached or spent:
            self.out.events.append(Usage(f"{state.first}:{state.rounds}", given, made, cached, spent))
        state.rounds += 1
        self._from_here()

    def _from_here(self) -> None:
        """What is spent from now on is counted anew."""
        if self.state.rounds and self.state.cost >= 0:
            self.state.cost_before = self.state.cost

    def spent(self) -> int | None:
        """What this round cost: agents tell the sum of their session."""
        state = self.state
        if state.cost < 0 or state.cost_before < 0:
            return None
        return max(state.cost - state.cost_before, 0)


def _blocks(words: Sequence[Words]) -> list[Frame]:
    """ACP's images are their bytes, which a codec does not have: agents are told where they are."""
    blocks: list[Frame] = []
    for one in words:
        # Many agents take a message that begins with a slash for a command of theirs, some trim it first.
        text = f"Words, not a command: {one.text}" if one.text.lstrip().startswith("/") else one.text
        blocks.append({"type": "text", "text": text})
        blocks += [
            {"type": "resource_link", "name": path.rpartition("/")[2], "uri": f"file://{path}"}
            for path in one.images
        ]
    return blocks
