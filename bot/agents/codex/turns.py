"""The course of a turn with Codex: what is sent when, and when it is over.

A turn of ours can be several of Codex's: words that came too late for one start the next, a plan is
carried out after its approval, and what still runs at the end is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.agents.codec import Permissions, Prompt, Task
from bot.agents.codex.asks import Asks
from bot.agents.codex.errors import describe
from bot.agents.codex.items import Items
from bot.agents.codex.state import Result, State, Words
from bot.agents.steps import StepBuilder
from bot.agents.wire import TEXT_BYTES, Frame, frames, part, plain, string, token
from bot.events import AgentStarted, Cause, Completed, StopReason, Text

INSTRUCTIONS = (
    "A command or a sub-agent of yours that still runs when you end your turn is ended with it. Wait for "
    "those whose result matters."
)
# What Codex reads by itself of a repository that it may trust.
READ_FIRST = "If there is an AGENTS.md at the root of the repository, read it first and keep to it."
STILL_RUNNING = (
    "You have ended your turn, but this still runs:\n{what}\nIt is ended with the turn, so wait for it if "
    "its result matters, or end it yourself. Then give your final answer again, complete and up to date."
)
APPROVED = "The plan is approved. Carry it out."
NOT_APPROVED = "The plan is not approved: {why}\nRefine it and present it again."
GIVES_WAY = (
    "Codex waited for a sub-agent, and hears nothing meanwhile: it was stopped, so that it takes these "
    "words in now. The sub-agent works on."
)


@dataclass(slots=True)
class Turns:
    state: State
    out: StepBuilder
    written: list[int] = field(default_factory=list)

    # what we send

    def hello(self, task: Task) -> None:
        client = {"name": "sandpiper", "title": "Sandpiper", "version": "1"}
        self._request(
            "hello", "initialize", {"clientInfo": client, "capabilities": {"experimentalApi": True}}
        )
        self.out.send({"method": "initialized"})
        settings: dict[str, object] = {
            "cwd": task.cwd,
            "approvalPolicy": self._policy(),
            "developerInstructions": f"{INSTRUCTIONS} {READ_FIRST}" if self.state.asks else INSTRUCTIONS,
        }
        if self.state.model:
            settings["model"] = self.state.model
        if task.resume_token:
            settings |= {"threadId": task.resume_token, "excludeTurns": True}
            self._request("thread", "thread/resume", settings)
        else:
            self._request("thread", "thread/start", settings)

    def say(self, prompt: Prompt) -> None:
        state = self.state
        self.written += prompt.inputs
        state.words[prompt.key] = Words(prompt.text, list(prompt.inputs), list(prompt.images))
        state.over = False
        if state.thread or state.waits_for("thread"):
            self.go_on()
        else:
            self._finish(Result(StopReason.ERROR, "", "Codex has no conversation to go on with."))

    def interrupt(self) -> None:
        state = self.state
        state.stopping, state.over = True, False
        Asks(state, self.out).withdraw()
        self._quit_agents()
        if state.turn:
            self._stop()
        elif not state.thread:
            self._finish(Result(StopReason.CANCELLED))  # nothing has begun
        self.go_on()

    def plan_decided(self, *, allowed: bool, reason: str) -> None:
        self.state.plan = ""
        self.state.free = self.state.free or allowed
        why = plain(reason) or "the people who were asked said no"
        self._say_ourselves("plan", APPROVED if allowed else NOT_APPROVED.format(why=why))

    # what Codex says to it

    def answer(self, id: str, told: Frame) -> bool:
        """The answer to a request of ours. False: there is no such request."""
        key = self.state.requests.pop(id, None)
        if key is None:
            return False
        way, result, error = id.partition("-")[0], part(told, "result"), part(told, "error")
        message = string(error, "message")
        match way:
            case "hello" if error:
                self._failed(message)
            case "thread" if error:
                self._failed(message)
            case "thread":
                self._joined(result)
            case "turn" if error:
                self._failed(message)
            case "turn":
                self.began(token(part(result, "turn"), "id"))
                if not self.state.ended:  # the first one is under way: now there is time for it
                    self._ask("models", "model/list", {})
            case "models":
                self._offered(frames(result, "data"))
            case "steer" if words := self.state.words.get(key):
                # It may have ended its turn meanwhile; then the words start the next.
                refused = "held" if self.state.turn else ""
                words.way = refused if error else "taken"
        self.go_on()
        return True

    def began(self, turn: str) -> None:
        state = self.state
        if turn and turn != state.ended and not state.over:
            begins = turn != state.turn
            state.turn = turn
            if begins and state.stopping:
                self._stop()
            self.go_on()

    def took(self, key: str) -> None:
        """A message of ours is in the conversation; the next call of the model has it."""
        if words := self.state.words.pop(key, None):
            self.out.consume(words.inputs)

    def waits(self) -> None:
        """Codex waits for a sub-agent, and hears nothing until that is done."""
        if not self.state.giving_way and any(words.way == "taken" for words in self.state.words.values()):
            self._give_way()

    def refuse(self, why: str) -> None:
        """The credential is refused: that will not change, however often Codex tries."""
        if self.state.turn and not self.state.stopping:
            self.state.refused = self.out.clean(why, TEXT_BYTES)
            self._stop()

    def ended(self, turn: Frame) -> None:
        """A turn of Codex is over."""
        state = self.state
        status = string(turn, "status")
        Asks(state, self.out).withdraw()
        Items(state, self.out).close(state.thread)
        state.ended, state.turn = token(turn, "id") or state.turn, ""
        state.failures = 0
        if state.over:
            return
        if status == "completed":
            said = [string(item, "text") for item in frames(turn, "items")]
            state.result = Result(StopReason.END, self.out.clean(said[-1] if said else "", TEXT_BYTES))
        elif status == "failed" or part(turn, "error"):
            error, cause = describe(part(turn, "error"))
            state.result = Result(StopReason.ERROR, "", self.out.clean(error, TEXT_BYTES), cause)
        else:
            state.result = Result(StopReason.CANCELLED)
        if state.refused and not state.stopping:
            state.result = Result(StopReason.ERROR, "", state.refused, Cause.LOGIN)
        state.refused = ""
        self._keep_words(began=status == "completed")
        state.giving_way = False
        self.go_on()

    def go_on(self) -> None:
        """Do what is next, now that something has changed: send what waits, or end."""
        state = self.state
        if state.over or not state.thread or state.waits_for("thread", "turn", "clean", "quit"):
            return
        if state.turn:
            if not state.stopping and not state.giving_way:
                self._steer()
            return
        if state.waits_for("steer", "stop"):
            return
        if state.stopping:
            self._clear_and_finish(Result(StopReason.CANCELLED))
        elif state.words and (state.result is None or state.result.reason is not StopReason.ERROR):
            self._start()
        elif state.result is not None and not state.asked:
            self._end(state.result)

    # inside

    def _end(self, result: Result) -> None:
        state = self.state
        if result.reason is not StopReason.END or state.clearing:
            self._clear_and_finish(result)
        elif state.plan and state.planning:
            self._present(result)
        elif (what := Items(state, self.out).running()) and not state.asked_back:
            state.asked_back = True
            self._say_ourselves("ending", STILL_RUNNING.format(what="\n".join(f"- {one}" for one in what)))
        else:
            self._clear_and_finish(result)

    def _present(self, result: Result) -> None:
        state = self.state
        if state.answerable:
            Asks(state, self.out).plan(f"{state.ended}-plan", state.plan)
            return
        plan = self.out.clean(state.plan, TEXT_BYTES)
        self.out.events.append(Text(plan))
        self._clear_and_finish(Result(StopReason.END, plan or result.text))

    def _clear_and_finish(self, result: Result) -> None:
        """Nothing that Codex started goes on after the end. An interrupt alone lets commands run."""
        state = self.state
        running = Items(state, self.out).running()
        if not state.clearing and (running or state.stopping):
            state.clearing, state.result = True, result
            if running and not state.stopping:
                self.out.notice(f"Ended with the turn: {', '.join(running)}")
            self._quit_agents()
            for thread in (state.thread, *state.agents):
                self._request("clean", "thread/backgroundTerminals/clean", {"threadId": thread})
            return
        self._finish(result)

    def _finish(self, result: Result) -> None:
        state = self.state
        for words in state.words.values():
            self.out.deferred += words.inputs
        state.words.clear()
        Asks(state, self.out).withdraw()
        Items(state, self.out).close_all()
        for agent in state.agents.values():
            agent.turn = ""
        state.result, state.plan = None, ""
        state.stopping = state.giving_way = state.asked_back = state.clearing = False
        state.over = True
        self.out.complete(Completed(result.reason, result.text, result.error, result.cause))

    def _failed(self, message: str) -> None:
        """A request was refused without which there is no turn."""
        state = self.state
        error, cause = describe({"message": message}, resuming=state.resumed and not state.thread)
        state.turn = ""
        if not state.over:
            state.result = Result(StopReason.ERROR, "", self.out.clean(error, TEXT_BYTES), cause)
            self._clear_and_finish(state.result)

    def _joined(self, told: Frame) -> None:
        state = self.state
        thread = part(told, "thread")
        state.thread = token(thread, "id")
        if not state.thread:
            self._failed("Codex did not say which conversation it began.")
            return
        model, version = (
            self.out.clean(text, 80) for text in (string(told, "model"), string(thread, "cliVersion"))
        )
        state.model = model or state.model
        self.out.events.append(AgentStarted("codex", state.thread, version, model))

    def _keep_words(self, *, began: bool) -> None:
        """Words that a turn has not taken start the next one. began: what it was started with, it has
        had, though that line of it was lost."""
        for key, words in list(self.state.words.items()):
            if began and words.way == "turn":
                self.took(key)
            elif words.way != "steer":  # of that the answer is still to come
                words.way = ""

    def _say_ourselves(self, what: str, text: str) -> None:
        self.state.count += 1
        self.state.words[f"{self.state.first}-{what}-{self.state.count}"] = Words(text)
        self.go_on()

    def _start(self) -> None:
        state = self.state
        key, words = next(iter(state.words.items()))
        Asks(state, self.out).withdraw()
        state.result, state.plan, state.clearing = None, "", False
        words.way = "turn"
        settings: dict[str, object] = {"approvalPolicy": self._policy()}
        if state.permissions is Permissions.PLAN or state.resumed:
            # A conversation keeps its mode; an earlier one may have been left planning.
            effort = state.effort or None
            mode = {"model": state.model, "reasoning_effort": effort, "developer_instructions": None}
            settings["collaborationMode"] = {
                "mode": "plan" if state.planning else "default",
                "settings": mode,
            }
        self._send("turn", "turn/start", key, words, settings)

    def _steer(self) -> None:
        waiting = [(key, words) for key, words in self.state.words.items() if not words.way]
        if waiting and Items(self.state, self.out).waits_for_agent:
            self._give_way()
            return
        for key, words in waiting:
            words.way = "steer"
            self._send("steer", "turn/steer", key, words, {"expectedTurnId": self.state.turn})

    def _give_way(self) -> None:
        self.state.giving_way = True
        self.out.notice(GIVES_WAY)
        self._stop()

    def _stop(self) -> None:
        state = self.state
        self._request("stop", "turn/interrupt", {"threadId": state.thread, "turnId": state.turn})

    def _quit_agents(self) -> None:
        for thread, agent in self.state.agents.items():
            if agent.turn:
                params = {"threadId": thread, "turnId": agent.turn}
                self._request("quit", "turn/interrupt", params)

    def _send(self, way: str, method: str, key: str, words: Words, more: Frame) -> None:
        said: list[Frame] = [{"type": "text", "text": words.text}]
        said += [{"type": "localImage", "path": path} for path in words.images]
        params = {"threadId": self.state.thread, "clientUserMessageId": key, "input": said, **more}
        self._request(way, method, params, key)

    def _offered(self, models: Sequence[Frame]) -> None:
        """Codex's catalogue, as it is shown to people who choose: it has more models than these, and takes
        any name that the model's API knows, so nothing is complete."""
        self.out.offer(
            (name, [string(effort, "reasoningEffort") for effort in frames(one, "supportedReasoningEfforts")])
            for one in models
            if (name := string(one, "model"))
        )

    def _request(self, way: str, method: str, params: Frame, key: str = "") -> None:
        self.state.count += 1
        self._ask(f"{way}-{self.state.count}", method, params, key)

    def _ask(self, id: str, method: str, params: Frame, key: str = "") -> None:
        self.state.requests[id] = key
        self.out.send({"id": id, "method": method, "params": params})

    def _policy(self) -> str:
        # The only policy with which an ordinary command is asked about, when Codex has no sandbox.
        return "untrusted" if self.state.asks else "never"
