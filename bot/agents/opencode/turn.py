"""OpenCode's turn: which prompts are read, when a run is over, and what is asked of its server.

How it works (v1 paths of the server, 1.18.33): a prompt becomes a message, and a run answers messages until
none is newer than the last answer. A prompt during a run joins it; one that comes while a run is ending is
stored and never read. After a `session.error` a run tells `session.idle` twice, and only at the second it is
gone, with its tools. Which message is ours is told by the metadata of its text part, where our key is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from bot.agents.codec import Permissions
from bot.agents.opencode.state import Failure, Said, State
from bot.agents.opencode.tools import kind_of
from bot.agents.steps import StepBuilder
from bot.agents.wire import Frame, plain
from bot.events import (
    ApprovalAsked,
    Cause,
    Completed,
    StopReason,
    ToolCall,
    ToolStatus,
    Withdrawn,
)

MARK = "sandpiper"  # where our key stands in a part's metadata

# Seconds: how long we wait for the second idle of a run that failed (0.1 s were measured, 0.8 s on a busy
# machine), before a prompt that a run may not have read is lost, and before we look again for one that has no
# message yet.
GONE, LOOK, LOOK_AGAIN = 5.0, 0.5, 2.0
MOST_LOOKS = 60
# What of a provider may hold its credential. What the bridge says is written to a file.
PRIVATE = ("options", "key", "headers", "env")
MOST_TRIES = 1

APPROVED = "The plan is approved. Carry it out now."
NOT_APPROVED = "The plan is not approved: {why}\nRefine it and present it again."
NOT_TAKEN = "OpenCode did not take a message in."

_MIMES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


@dataclass(slots=True)
class Turn:
    state: State
    out: StepBuilder

    # what is asked of the server

    def request(
        self, purpose: str, method: str, path: str, body: Frame | None = None, without: Sequence[str] = ()
    ) -> None:
        """purpose: comes back with the reply, so that nothing has to be kept for it. without: names of what
        the bridge is to leave out of it."""
        self.state.requests += 1
        given: Frame = {} if body is None else {"body": body}
        given = {**given, "without": list(without)} if without else given
        self.out.send({"id": f"{self.state.requests}/{purpose}", "method": method, "path": path, **given})

    def ask_for_models(self, purpose: str) -> None:
        """All providers that are switched on, without what holds their credentials. While they are still
        loaded, the answer and all requests behind it take a second or two."""
        self.request(purpose, "GET", "/config/providers", without=PRIVATE)

    def wait(self, purpose: str, seconds: float) -> None:
        self.state.requests += 1
        self.out.send({"id": f"{self.state.requests}/{purpose}", "method": "WAIT", "seconds": seconds})

    def path(self, rest: str = "") -> str:
        return f"/session/{quote(self.state.session, safe='')}{rest}"

    def post_ready(self) -> None:
        """Post the prompts that wait for a session, or for a failed run to be gone."""
        state = self.state
        if not state.session or state.stopping or state.run == "ending":
            return
        for key, said in state.prompts.items():
            if not said.posted:
                said.posted, said.message, said.during, said.rounds = True, "", False, 0
                self.request(f"post/{key}", "POST", self.path("/prompt_async"), self._prompt(key, said))

    def _prompt(self, key: str, said: Said) -> Frame:
        files = [
            {
                "type": "file",
                "mime": mime,
                "url": f"file://{quote(path)}",
                "filename": PurePosixPath(path).name,
            }
            for path in said.images
            if (mime := _MIMES.get(PurePosixPath(path).suffix.lower()))
        ]
        body: dict[str, object] = {
            "parts": [{"type": "text", "text": said.text, "metadata": {MARK: key}}, *files],
            "agent": self.state.agent,
        }
        provider, _, model = self.state.model.partition("/")
        if model:
            # Named each time: a conversation that is resumed would go on with the model it had.
            body["model"] = {"providerID": provider, "modelID": model}
        if self.state.effort:
            body["variant"] = self.state.effort
        return body

    # prompts and runs

    def say(self, key: str, said: Said) -> None:
        state = self.state
        state.prompts[key] = said
        state.over = False
        self.withdraw_plan()
        self.post_ready()

    def stop(self) -> None:
        """Stop means stop: what was not read yet goes too, and is handed back."""
        state = self.state
        state.over = False
        self.withdraw_plan()
        if not state.session:
            self._hand_back()
            self._complete(Completed(StopReason.CANCELLED))
            return
        state.stopping = "asked"
        self.request("abort", "POST", self.path("/abort"))

    def seen(self, key: str, message: str) -> None:
        """Our prompt has become this message."""
        state = self.state
        said = state.prompts.get(key)
        if said is None or not message:
            return
        said.message, said.during = message, bool(state.run)
        if message <= state.parent:  # its answer was told first
            self.given(state.parent)

    def given(self, parent: str) -> None:
        """The model is asked with everything up to this message. OpenCode's ids are in order."""
        state = self.state
        if parent and not state.parent and not state.effort:  # else it was asked before
            self.ask_for_models("models")
        state.parent = max(state.parent, parent)
        for key, said in list(state.prompts.items()):
            if said.message and said.message <= state.parent:
                del state.prompts[key]
                self.out.consume(said.inputs)

    def busy(self) -> None:
        state = self.state
        if state.run != "busy":
            state.run, state.runs = "busy", state.runs + 1
            state.failed = None if not state.gave_up else state.failed
            for said in state.prompts.values():
                said.during = said.during or bool(said.message)
            if state.stopping == "answered":  # it began after all: the stop came before its message
                state.stopping = "asked"
                self.request("abort", "POST", self.path("/abort"))

    def idle(self) -> None:
        state = self.state
        if state.run == "failing":
            state.run = "ending"
            self.wait(f"gone/{state.runs}", GONE)
            return
        if state.run:
            state.run = ""
            self._close()
        self.settle()

    def gone(self, run: str) -> None:
        if self.state.run == "ending" and run == str(self.state.runs):
            self.idle()

    def fail(self, error: str, cause: Cause) -> None:
        self.state.failed = Failure(error, cause)

    def run_failed(self, error: str, cause: Cause) -> None:
        state = self.state
        if state.failed is None:  # else we broke it off, and know why
            self.fail(error, cause)
        if state.run == "ending":  # one that could not even begin is gone at once, and its error told again
            self.idle()
        else:
            state.run = "failing"

    def give_up(self, error: str, cause: Cause) -> None:
        """End a run that would go on failing."""
        if self.state.gave_up or self.state.stopping:
            return
        self.state.gave_up = True
        self.fail(error, cause)
        self.request("give-up", "POST", self.path("/abort"))

    # the end

    def settle(self) -> None:
        """What is to be done while nothing runs: the turn is over when nothing is."""
        state = self.state
        if state.run or state.over or state.stopping == "asked" or not state.session:
            return
        if state.stopping or state.gave_up:
            if any(said.posted and not said.during for said in state.prompts.values()):
                self._look_later()  # it may yet begin a run
                return
            self._hand_back()
        self.post_ready()
        if state.prompts:
            self._look_later()
        elif state.stopping:
            self._complete(Completed(StopReason.CANCELLED))
        elif state.failed is not None:
            self._complete(Completed(StopReason.ERROR, "", state.failed.error, state.failed.cause))
        elif not state.plan and not self._ask_for_the_plan():
            self._complete(Completed(StopReason.END, state.answer))

    def look(self) -> None:
        """Look for prompts that no run has read, and post them again: in place of what was stored, or the
        model would hear it twice."""
        state = self.state
        state.checking = False
        if state.run or state.over:
            return
        for key, said in list(state.prompts.items()):
            if said.posted and not said.during:
                said.rounds += 1
                if said.rounds > MOST_LOOKS:
                    self.refused(key, NOT_TAKEN, Cause.UNKNOWN)
            elif said.posted and not state.stopping and not state.gave_up:
                said.during = False
                self.request(f"lost/{key}", "DELETE", self.path(f"/message/{quote(said.message, safe='')}"))
        self.settle()

    def lost(self, key: str, deleted: bool) -> None:
        said = self.state.prompts.get(key)
        if said is None:
            return
        said.tries += 1
        if said.tries > MOST_TRIES:
            self.refused(key, NOT_TAKEN, Cause.UNKNOWN)
        elif deleted:
            said.posted, said.message = False, ""
            self.post_ready()
        else:  # a run has begun after all, or the next look tries again
            said.during = True

    def refused(self, key: str, error: str, cause: Cause) -> None:
        """A prompt that will not be read: the next turn gets it."""
        said = self.state.prompts.pop(key, None)
        if said is not None:
            self.out.deferred += said.inputs
            if said.message:
                self.drop(said.message)
            if self.state.failed is None:
                self.fail(error, cause)
            self.settle()

    def _look_later(self) -> None:
        if not self.state.checking:
            self.state.checking = True
            passed_by = any(said.during for said in self.state.prompts.values())
            self.wait("look", LOOK if passed_by else LOOK_AGAIN)

    def look_if_idle(self) -> None:
        if not self.state.run and self.state.prompts:
            self._look_later()

    def _hand_back(self) -> None:
        for said in self.state.prompts.values():
            self.out.deferred += said.inputs
            if said.message:
                self.drop(said.message)
        self.state.prompts.clear()

    def drop(self, message: str) -> None:
        """Forget a message that the model was not given."""
        self.request("drop", "DELETE", self.path(f"/message/{quote(message, safe='')}"))

    def _complete(self, completed: Completed) -> None:
        state = self.state
        state.stopping, state.failed, state.gave_up, state.over = "", None, False, True
        state.retrying, state.answer = None, ""
        self.out.complete(completed)

    def cannot_begin(self, error: str, cause: Cause) -> None:
        """There is no conversation to speak of."""
        self._hand_back()
        if not self.state.over:
            self._complete(Completed(StopReason.ERROR, "", error, cause))

    def _close(self) -> None:
        """A run is over: a call without a result will never get one, and nobody waits for an answer."""
        state = self.state
        for id, tool in state.tools.items():
            result = "Stopped." if state.stopping else "It did not run to its end."
            self.out.events.append(
                ToolCall(id, kind_of(tool.name), tool.done, ToolStatus.FAILED, result=result)
            )
        self.withdraw([*state.allows, *state.questions])
        for left in (state.tools, state.children, state.working, state.yielding, state.askers):
            left.clear()
        state.retrying = None

    def withdraw(self, asked: list[str]) -> None:
        """Nobody waits for an answer to these requests of OpenCode's any more."""
        state = self.state
        for id in asked:
            state.askers.pop(id, None)
            if id in state.allows:
                state.allows.remove(id)
                self.out.events.append(Withdrawn(id))
            answers = state.questions.pop(id, None) or []
            for one, answer in zip(question_ids(id, len(answers)), answers, strict=True):
                if answer is None:
                    self.out.events.append(Withdrawn(one))

    # the plan

    def _ask_for_the_plan(self) -> bool:
        """OpenCode's plan agent only reads, and ends with its plan; people say whether the other agent,
        which may write, goes on with it."""
        state = self.state
        if state.permissions is not Permissions.PLAN or state.agent != "plan":
            return False
        if not state.answerable or not state.answer:
            return False
        state.plans += 1
        state.plan = f"{state.first}-plan-{state.plans}"
        self.out.events.append(
            ApprovalAsked(state.plan, "Carry out this plan", state.answer)  # spelt out when it was heard
        )
        return True

    def decide_plan(self, *, allowed: bool, reason: str) -> None:
        state = self.state
        key, state.plan = state.plan, ""
        if allowed:
            state.agent = "build"
        why = plain(reason) or "the people who were asked said no"
        self.say(key, Said(APPROVED if allowed else NOT_APPROVED.format(why=why), []))

    def withdraw_plan(self) -> None:
        if self.state.plan:
            self.out.events.append(Withdrawn(self.state.plan))
            self.state.plan = ""


def question_ids(id: str, count: int) -> list[str]:
    """Each of several questions that are asked at once is one for people."""
    return [id if index == 0 else f"{id}/{index}" for index in range(count)]
