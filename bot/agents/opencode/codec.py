"""OpenCode: its loopback HTTP server, behind a bridge that says it as JSON lines on stdin and stdout.

Written for and run against 1.18.33, on the v1 paths of its server: the v2 ones (/api/…) do not take
providers from the configuration. Configuration and credential reach it by its environment, none is written.

permissions: AUTO allows everything. ASK asks before commands, changes of files, fetches, and tools of MCP
servers; then OpenCode's configuration in the repository and in the home is not read, which could allow or run
something, but the repository's AGENTS.md is. PLAN gives the prompt to OpenCode's `plan` agent, whose edits
are refused and whose commands ask; its last words are put to people as the plan. Once they allow it, the
`build` agent carries it out without asking again; a no (with its reason) makes it plan again. The agent could
find its server's password in its own environment: nothing here holds back a program that people allowed to
run.

Steering: OpenCode takes a message in at its next call of the model, in the same run. While a sub-agent works
it would hold it until that ends; so the sub-agent is stopped, people are told so, and OpenCode goes on with
the message in the same run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bot.agents.apart import GIT
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
    Prompt,
    Steer,
    Step,
    Task,
)
from bot.agents.codec import State as CodecState
from bot.agents.conversations import OPENCODE
from bot.agents.loopback import loopback_ports
from bot.agents.mcp import SERVER, SHELL
from bot.agents.opencode import asks
from bot.agents.opencode.frames import Reading
from bot.agents.opencode.state import Said, State
from bot.agents.opencode.turn import Turn
from bot.agents.steps import StepBuilder
from bot.agents.vendors import OPENCODE_APART, OPENCODE_ASKS, OPENCODE_KEEPS, OPENCODE_KEEPS_ENV
from bot.models import Launch

KEY = "SANDPIPER_OPENCODE_KEY"

QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    # Who the client is decides whether the question tool is offered.
    "OPENCODE_CLIENT": "cli",
    "OPENCODE_ENABLE_QUESTION_TOOL": "1",
}

# With a title of ours OpenCode does not ask a model for one.
TITLE = "Sandpiper"

# Providers whose own API OpenCode knows; at another address they still speak it.
NATIVE = frozenset({"anthropic", "google", "openai", "openrouter", "opencode", "mistral", "xai", "groq"})

ALLOW = {"*": "allow"}
LOOK = {**OPENCODE_ASKS, "edit": "deny"}


class OpenCodeCodec:
    """OpenCode in a sandbox.

    bridge: how the bridge's program is called in the sandbox; command: how OpenCode is. model:
    "provider/model", used where a task names none. base_url: another endpoint for its provider, of the
    OpenAI chat completions API unless the provider is one that OpenCode knows; when it is on loopback, its
    port on the bot's host is made reachable. models: what is known of models behind base_url that OpenCode
    does not know, in the words of its configuration (limit, cost, …), by their names without the provider.
    patience: how long a model's API may keep failing, in seconds. visible: the bridge's directory, where the
    sandbox would hide it.
    """

    name = "opencode"
    capabilities = Capabilities(
        images=True,
        plan=True,
        cost=True,
        approvals=True,
        questions=True,
        side_tools=True,
        listing=Listing.ALL,
    )

    def __init__(
        self,
        bridge: Sequence[str] = ("opencode_bridge.py",),
        *,
        api_key: str = "",
        base_url: str = "",
        model: str = "",
        command: Sequence[str] = ("opencode",),
        models: Mapping[str, Mapping[str, object]] | None = None,
        patience: float = 120.0,
        visible: Sequence[str] = (),
    ) -> None:
        self._bridge = tuple(bridge)
        self._api_key = api_key
        self._base_url = base_url
        self._model = model
        self._command = tuple(command)
        self._models = dict(models or {})
        self._patience = patience
        self._visible = tuple(visible)

    def launch(self, task: Task) -> Launch:
        env = {**QUIET, **OPENCODE_KEEPS_ENV, "OPENCODE_CONFIG_CONTENT": json.dumps(self._config(task))}
        argv = (*OPENCODE_KEEPS, *self._bridge, *(task.command or self._command))
        if task.permissions is not Permissions.AUTO:
            env |= {"OPENCODE_DISABLE_PROJECT_CONFIG": "1", "OPENCODE_PURE": "1"}
            env |= GIT
            argv = (*OPENCODE_APART, *argv)
        return Launch(
            argv,
            task.cwd,
            env,
            {KEY: self._api_key} if self._api_key else {},
            visible=(*task.visible, *self._visible),
            loopback=loopback_ports(self._base_url),
            private=OPENCODE,
        )

    def _config(self, task: Task) -> Mapping[str, object]:
        may = ALLOW if task.permissions is Permissions.AUTO else OPENCODE_ASKS
        config: dict[str, object] = {
            "autoupdate": False,
            "share": "disabled",
            "snapshot": False,  # git commits of its own for an undo that nobody asks for
            "permission": may,
            # A refusal is an answer to the model, not the end of the run.
            "experimental": {"continue_loop_on_deny": True},
        }
        if task.permissions is Permissions.ASK:
            config["agent"] = {"build": {"permission": OPENCODE_ASKS}}
        elif task.permissions is Permissions.PLAN:
            config["agent"] = {"plan": {"permission": LOOK}}
        if task.side_tools:
            config["mcp"] = {SERVER: {"type": "local", "command": [SHELL, task.side_tools]}}
        model = task.model or self._model
        provider, _, name = model.partition("/")
        if name:
            config |= {"model": model, "small_model": model, "enabled_providers": [provider]}
            config["provider"] = {provider: self._provider(provider, name)}
        return config

    def _provider(self, provider: str, name: str) -> Mapping[str, object]:
        options: dict[str, object] = {}
        if self._api_key:
            options["apiKey"] = f"{{env:{KEY}}}"
        if self._base_url:
            options["baseURL"] = self._base_url
        found: dict[str, object] = {"options": options}
        if self._defines(f"{provider}/{name}"):
            known = {"reasoning": True, "attachment": True, "tool_call": True, **self._models.get(name, {})}
            known.setdefault("modalities", {"input": ["text", "image"], "output": ["text"]})
            found |= {"npm": "@ai-sdk/openai-compatible", "name": provider, "models": {name: known}}
        elif name in self._models:
            found["models"] = {name: self._models[name]}
        return found

    def _defines(self, model: str) -> bool:
        """Is this model one that OpenCode is told of by us, whatever its name?"""
        return bool(self._base_url) and model.partition("/")[0] not in NATIVE

    def begin(self, task: Task) -> Step:
        state = State(
            first=task.prompt.key,
            cwd=task.cwd,
            model=task.model or self._model,
            effort=task.effort,
            permissions=task.permissions,
            answerable=task.answerable,
            agent="plan" if task.permissions is Permissions.PLAN else "build",
            defines=bool(self._models) or self._defines(task.model or self._model),
        )
        turn = self._turn(state)
        if task.effort and state.model:
            turn.ask_for_models("efforts")
        if task.resume_token:
            state.session = task.resume_token
            turn.request("resume", "GET", turn.path())
            state.session = ""  # until it is seen to be there
        else:
            turn.request("new", "POST", "/session", {"title": TITLE})
        return self._say(turn, task.prompt)

    def on(self, state: CodecState, happening: Happening) -> Step:
        turn = self._turn(State.from_json(state))
        match happening:
            case Lines(lines=lines):
                reading = Reading(turn, self._patience, bool(self._api_key))
                for line in lines:
                    reading.read(line)
            case Steer(prompt=prompt):
                return self._say(turn, prompt)
            case Interrupt():
                turn.stop()
            case Decided():
                asks.decided(happening, turn)
            case Answered():
                asks.answered(happening, turn)
            case Exited():  # the driver's to tell
                pass
        return turn.out.step(turn.state.to_json())

    def _turn(self, state: State) -> Turn:
        return Turn(state, StepBuilder((self._api_key,)))

    def _say(self, turn: Turn, prompt: Prompt) -> Step:
        # The words may wait here for a conversation to exist.
        turn.say(prompt.key, Said(prompt.text, list(prompt.inputs), list(prompt.images)))
        return turn.out.step(turn.state.to_json(), written=prompt.inputs)
