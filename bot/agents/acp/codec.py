"""Any agent that speaks the Agent Client Protocol, version 1, on stdin and stdout.

Written against the schema of version 1 that @agentclientprotocol/sdk 2.4.0 has; run against
claude-agent-acp 0.100.0 and OpenCode 1.18.33.
What agents differ in is read from what they say of themselves at the start, never tried out:

- Steering. ACP has none. An agent that names `_session/steering` in the `_meta` of its `initialize`
  answer is steered with it; its "injected" means accepted, so that an input counts as consumed with the
  next message that the model begins after that. Any other agent gets the stated fallback of its
  capabilities: INTERRUPT (the default) cancels the prompt and prompts again in the same conversation and
  turn, and says so; QUEUE leaves it to the next turn. A second prompt during the first is never sent:
  agents fold it in, queue it, or cancel the first for it, each as it likes.
- Going on. `session/resume` where it is offered, else `session/load`, whose replayed history is not news.
- Refusals. ACP has no place for a reason. An agent whose turn ends with a refusal (OpenCode, codex-acp)
  is prompted again with it; one that can be steered is told by a steer.
- ASK: the agent's mode is set to one that asks, and what it asks is put to people unless it changes nothing.
  Whether it asks at all is its own: OpenCode, for one, only where its configuration says "ask".
- PLAN needs a mode of that name. The plan is put to people when the agent asks to leave that mode, or when
  its prompt ends in it; after a yes it works without asking. Without such a mode PLAN is ASK, with a request
  in the prompt to plan first.
- Models and efforts are those that it lists with the session: another name is never asked for (it goes on
  with what it has, and people are told), so its list is complete. Efforts are those of the model that it has.
- Images are sent as links to their files: ACP wants their bytes, and a codec reads no files.

Known of agents: codex-acp reports a failed model as an ordinary answer (`end_turn`, with the API's error
as its text), which cannot be told from a model that says so. Gemini CLI 0.61 asks for permissions of calls
that it never announced, and sends a cancelled call's last update after the end of its prompt.
claude-agent-acp moves a running command to the background when it is steered, and ends its turn though
the command still runs, where background tasks are not switched off. What is set for such programs is in
bot/agents/acp/known.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.agents.acp.asks import answered, forget_asks
from bot.agents.acp.frames import Reading
from bot.agents.acp.known import known
from bot.agents.acp.session import Conversation
from bot.agents.acp.setup import Profile, Setup
from bot.agents.acp.state import State, Words
from bot.agents.acp.telling import flush
from bot.agents.codec import (
    Answered,
    Capabilities,
    Decided,
    Exited,
    Happening,
    Interrupt,
    Lines,
    Permissions,
    Prompt,
    Steer,
    Step,
    Task,
)
from bot.agents.codec import State as CodecState
from bot.agents.loopback import loopback_ports
from bot.agents.steps import StepBuilder
from bot.models import Launch


class AcpCodec:
    """An agent that is started by a command line.

    name: what it is called in settings. command: how it is called in the sandbox, with what makes it
    speak ACP ("gemini --acp"). env, secrets: its environment; what of `env` is a URL on loopback is made
    reachable; it counts before ours, but for what makes it ask. model: used where a task names none.
    capabilities: where they are not those that are known of the program; `steering` is the fallback for an
    agent that does not say that it can be steered. modes: the
    id of its mode for a Permissions, where its name is none of the usual ones. auth_method: the id of the
    authentication to ask for at the start, for agents that want that even with a key in the environment.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        model: str = "",
        capabilities: Capabilities | None = None,
        modes: Mapping[Permissions, str] | None = None,
        auth_method: str = "",
    ) -> None:
        self.name = name
        self._known = known(command)
        self.capabilities = capabilities or self._known.capabilities
        self._command = tuple(command)
        self._env = dict(env or {})
        self._secrets = {key: value for key, value in (secrets or {}).items() if value}
        self._model = model
        self._profile = Profile(
            name, self.capabilities.steering, dict(modes or {}), auth_method, self._known.opening
        )

    def launch(self, task: Task) -> Launch:
        ports = [port for value in self._env.values() for port in loopback_ports(value)]
        return Launch(
            self._known.argv(task.command or self._command, task.permissions),
            task.cwd,
            self._known.environment(self._env, task.permissions),
            dict(self._secrets),
            visible=task.visible,
            loopback=tuple(dict.fromkeys(ports)),
            private=self._known.private,
        )

    def begin(self, task: Task) -> Step:
        """The first prompt is written when the agent is ready for it; until then the state has it."""
        state = State(
            cwd=task.cwd,
            first=task.prompt.key,
            resume=task.resume_token,
            model=task.model or self._model,
            effort=task.effort,
            permissions=task.permissions.value,
            answerable=task.answerable,
            side_tools=task.side_tools,
            title=self.name,
        )
        talk = self._talk(state)
        Setup(state, talk.out, self._profile).hello()
        state.waiting.append(_words(task.prompt))
        return talk.out.step(state.to_json(), task.prompt.inputs)

    def on(self, state: CodecState, happening: Happening) -> Step:
        now = State.from_json(state)
        talk = self._talk(now)
        written: tuple[int, ...] = ()
        match happening:
            case Lines(lines=lines):
                reading = Reading(talk)
                for line in lines:
                    reading.read(line)
            case Steer(prompt=prompt):
                written = prompt.inputs
                talk.say(_words(prompt))
            case Interrupt():
                talk.stop()
            case Decided(id=id, allowed=allowed, reason=reason):
                talk.decide(id, allowed=allowed, reason=reason)
            case Answered(id=id, text=text, reason=reason):
                answered(id, text, reason, now, talk.out)
            case Exited():
                flush(now, talk.out)
                forget_asks(now, talk.out)
        return talk.out.step(now.to_json(), written)

    def _talk(self, state: State) -> Conversation:
        return Conversation(state, StepBuilder(tuple(self._secrets.values())), self._profile)


def _words(prompt: Prompt) -> Words:
    return Words(prompt.key, prompt.text, list(prompt.inputs), list(prompt.images))
