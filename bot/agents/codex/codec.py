"""Codex: its app-server protocol, JSON-RPC lines on stdin and stdout.

Written for and run against codex-cli 0.169.0. What it needs of the program: `clientUserMessageId` of
`turn/start` and `turn/steer` coming back as the `clientId` of an item, `turn/steer`,
`thread/backgroundTerminals/clean`, and the experimental API (collaboration modes, questions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bot.agents.apart import GIT, apart
from bot.agents.codec import (
    Answered,
    Capabilities,
    Decided,
    Exited,
    Happening,
    Interrupt,
    Lines,
    Listing,
    Permissions,
    Steer,
    Step,
    Task,
)
from bot.agents.codec import State as CodecState
from bot.agents.codex.asks import Asks
from bot.agents.codex.frames import Reading
from bot.agents.codex.state import State
from bot.agents.codex.turns import Turns
from bot.agents.conversations import CODEX, CODEX_DATABASES
from bot.agents.loopback import loopback_ports
from bot.agents.mcp import LONGEST_CALL, SERVER, SHELL
from bot.agents.steps import StepBuilder
from bot.models import Launch

OPENAI = "https://api.openai.com/v1"
KEY = "CODEX_MODEL_API_KEY"  # the variable, of a name that commands of others don't look for

# Codex's words for it; which of them a model takes, the model's API says.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")

# How long a wait for a running command may last, in milliseconds (Codex's own: five minutes): Codex hears
# nothing meanwhile. For the command's own first wait it has 30 seconds at most, too.
LONGEST_WAIT = 30_000

CONFIG: Mapping[str, object] = {
    "model_provider": "sandpiper",
    "model_providers.sandpiper.name": "Sandpiper",
    "model_providers.sandpiper.env_key": KEY,
    "model_providers.sandpiper.wire_api": "responses",
    "model_providers.sandpiper.supports_websockets": False,
    # The key is Codex's alone: the commands that it runs do not get it.
    "shell_environment_policy.exclude": [KEY],
    # The sandbox around Codex is the boundary; its own does not work inside of ours.
    "sandbox_mode": "danger-full-access",
    "approval_policy": "never",
    "background_terminal_max_timeout": LONGEST_WAIT,
    "tools.update_plan.enabled": True,
    "features.default_mode_request_user_input": True,
    "suppress_unstable_features_warning": True,
    # With goals Codex begins turns by itself.
    "features.goals": False,
    # What calls home.
    "check_for_update_on_startup": False,
    "analytics.enabled": False,
    "feedback.enabled": False,
    "features.plugins": False,
    "features.apps": False,
}


# Beside conversations, the home's `~/.codex` may hold what answers for people or is started unasked (rules,
# hooks, MCP servers), written by an earlier turn.
CONVERSATIONS = ".codex/sessions"


class CodexCodec:
    """Codex in a sandbox.

    command: how it is called in the sandbox. base_url: another endpoint of the OpenAI API, with its
    `/v1`; when it is on loopback, its port on the bot's host is made reachable. model: used where a task
    names none. env: more of its environment (no secrets). All configuration is in its arguments, and the
    key in its environment: no file is needed. Conversations are kept under `~/.codex/sessions`.

    Permissions: AUTO asks nothing (`never`). ASK is Codex's `untrusted`: it asks before each command and
    each change of files; plain commands that only read are allowed without asking people. Settings, rules and
    hooks count in AUTO only, those of the repository's `.codex` and those of the home's. PLAN is its plan
    mode: the plan is put to people as an approval; a yes lets it work without asking again, a no (with its
    reason) sends it back to plan; commands before that are asked for one by one.

    Steering: Codex takes words in at its next call of the model, in the same turn; those that come too
    late start another turn of Codex in the same process. While it waits for a sub-agent it would hold
    them until that is done; so it is interrupted, and goes on with the words while the sub-agent works
    on. While it waits for a running command it takes them in after 30 seconds at most.

    The end: a command or a sub-agent can outlive the turn that started it. Codex is asked about it once,
    and what runs after that is ended.
    """

    name = "codex"
    capabilities = Capabilities(
        images=True,
        plan=True,
        approvals=True,
        questions=True,
        side_tools=True,
        efforts=EFFORTS,
        listing=Listing.SOME,
    )

    def __init__(
        self,
        *,
        api_key: str = "",
        base_url: str = "",
        model: str = "",
        command: Sequence[str] = ("codex",),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._secrets = {KEY: api_key} if api_key else {}
        self._base_url = base_url or OPENAI
        self._model = model
        self._command = tuple(command)
        self._env = dict(env or {})

    def launch(self, task: Task) -> Launch:
        config = {**CONFIG, "model_providers.sandpiper.base_url": self._base_url}
        if model := task.model or self._model:
            config["model"] = model
        if task.effort:
            config["model_reasoning_effort"] = task.effort
        if task.permissions is Permissions.AUTO:
            config["sqlite_home"] = f"{task.home}/{CODEX_DATABASES}"
        else:  # then the databases go with the turn
            # Codex does not ask what it may type into a terminal that it may have.
            config["features.unified_exec_tty"] = False
        if task.side_tools:
            config |= _server(task.side_tools)
        settings = [f"{name}={json.dumps(value)}" for name, value in config.items()]
        # Where people are asked, a repository's own `.codex` (rules that allow commands, servers that are
        # started) must not answer for them. Without a word on it Codex trusts it, and writes that down.
        trust = "trusted" if task.permissions is Permissions.AUTO else "untrusted"
        settings.append(f'projects={{{json.dumps(task.cwd)}={{trust_level="{trust}"}}}}')
        flags = [word for setting in settings for word in ("-c", setting)]
        argv = (*(task.command or self._command), *flags, "app-server")
        env = self._env
        if task.permissions is not Permissions.AUTO:
            argv = (*apart(CONVERSATIONS), *argv)
            env = {**GIT, **env}
        return Launch(
            argv,
            task.cwd,
            env,
            dict(self._secrets),
            visible=task.visible,
            loopback=loopback_ports(self._base_url),
            private=CODEX,
        )

    def begin(self, task: Task) -> Step:
        state = State(
            cwd=task.cwd,
            first=task.prompt.key,
            permissions=task.permissions,
            answerable=task.answerable,
            effort=task.effort,
            model=task.model or self._model,
            resumed=bool(task.resume_token),
        )
        turns = Turns(state, self._builder())
        turns.hello(task)
        turns.say(task.prompt)
        return turns.out.step(state.to_json(), tuple(turns.written))

    def on(self, state: CodecState, happening: Happening) -> Step:
        now = State.from_json(state)
        reading = Reading(now, self._builder())
        turns, asks = reading.turns, Asks(now, reading.out)
        match happening:
            case Lines(lines=lines):
                for line in lines:
                    reading.read(line)
            case Steer(prompt=prompt):
                turns.say(prompt)
            case Interrupt():
                turns.interrupt()
            case Decided(allowed=allowed, reason=reason):
                asked = asks.decided(happening)
                if asked and asked.way == "plan":
                    turns.plan_decided(allowed=allowed, reason=reason)
            case Answered():
                asks.answered(happening)
            case Exited():
                asks.withdraw()
        return reading.out.step(now.to_json(), tuple(turns.written))

    def _builder(self) -> StepBuilder:
        return StepBuilder(tuple(self._secrets.values()))


def _server(side_tools: str) -> Mapping[str, object]:
    settings = {
        "command": SHELL,
        "args": [side_tools],
        "tool_timeout_sec": LONGEST_CALL,
        "default_tools_approval_mode": "approve",
    }
    return {f"mcp_servers.{SERVER}.{name}": value for name, value in settings.items()}
