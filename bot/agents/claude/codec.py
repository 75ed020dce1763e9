"""Claude Code: its stream-json protocol on stdin and stdout.

Written for and run against 2.1.329. What it needs of the program: `command_lifecycle` frames for the
UUIDs of our messages, `cancel_queued` of the interrupt request, `stop_task`, and
`model_usage_since_last_result` in results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bot.agents.claude.asks import Asks
from bot.agents.claude.calls import Calls
from bot.agents.claude.frames import Reading
from bot.agents.claude.rounds import Rounds
from bot.agents.claude.state import State, Written
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
from bot.agents.conversations import CLAUDE
from bot.agents.loopback import loopback_ports
from bot.agents.mcp import LONGEST_CALL, SERVER, SHELL
from bot.agents.steps import StepBuilder
from bot.agents.vendors import (
    CLAUDE_APART,
    CLAUDE_ASK_ENV,
    CLAUDE_NOT_OFFERED,
    CLAUDE_ONLY_PEOPLE_ALLOW,
    CLAUDE_READS,
    CLAUDE_WAITS,
)
from bot.agents.wire import Frame, to_line
from bot.models import Launch

QUIET = {
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false",
    **CLAUDE_WAITS,
    "MCP_TOOL_TIMEOUT": str(LONGEST_CALL * 1000),
    **CLAUDE_READS,
    # Lets bypassPermissions work for root, which a container's user often is.
    "IS_SANDBOX": "1",
}

MODES = {
    Permissions.AUTO: "bypassPermissions",
    Permissions.ASK: "default",
    Permissions.PLAN: "plan",
}

# Where people are asked: see CLAUDE_ONLY_PEOPLE_ALLOW.
NO_SETTINGS = "--setting-sources="
INSTRUCTIONS_OF = "--add-dir"

# Claude's words for models, as 2.1.329 has them (November 2026). Anthropic's own names all have a digit.
ALIASES = ("default", "best", "opus", "sonnet", "haiku", "fable", "opusplan")

EFFORTS = ("low", "medium", "high", "xhigh", "max")


class ClaudeCodec:
    """Claude Code in a sandbox.

    command: how it is called in the sandbox. base_url: another endpoint of the Anthropic API; when it
    is on loopback, its port on the bot's host is made reachable. model: used where a task names none.
    env: more of its environment (no secrets).

    Permissions: AUTO is Claude's bypassPermissions. ASK is its default mode: it asks before it runs,
    changes or fetches something, but not for commands that it knows to only read (`ls`, `git status`).
    PLAN is its plan mode: the plan is put to people as an approval; a yes lets it work without asking
    again, a no (with its reason) sends it back to plan; what would change something before that is asked
    for one by one.

    images: a message could carry pictures, but only as their bytes, and a codec reads no files. Their
    paths are written under the words; Claude's Read tool shows them to the model.

    Steering: Claude takes a message in at its next call of the model, in the same round. While a
    sub-agent works it would hold it until that ends; so the sub-agent is stopped (`stop_task`), people are
    told so, and Claude goes on with the message in the same round.
    """

    name = "claude"
    capabilities = Capabilities(
        plan=True,
        cost=True,
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
        oauth_token: str = "",
        base_url: str = "",
        model: str = "",
        command: Sequence[str] = ("claude",),
        env: Mapping[str, str] | None = None,
    ) -> None:
        given = {"ANTHROPIC_API_KEY": api_key, "CLAUDE_CODE_OAUTH_TOKEN": oauth_token}
        self._secrets = {name: value for name, value in given.items() if value}
        self._base_url = base_url
        if not base_url:  # behind another endpoint, models may have any names
            self.capabilities = replace(self.capabilities, aliases=ALIASES)
        self._model = model
        self._command = tuple(command)
        self._env = dict(env or {})

    def launch(self, task: Task) -> Launch:
        argv = [
            *(task.command or self._command),
            "-p",
            *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
            # Long answers are heard while they are written, so that silence means silence.
            "--include-partial-messages",
            "--replay-user-messages",
            # Where Claude asks, it asks us on stdin; in any mode, as it does for questions.
            *("--permission-mode", MODES[task.permissions], "--permission-prompt-tool", "stdio"),
            *("--disallowedTools", ",".join(CLAUDE_NOT_OFFERED)),
        ]
        if task.side_tools:
            argv += ["--mcp-config", json.dumps(_servers(task.side_tools))]
        if task.permissions is not Permissions.AUTO:
            argv.append("--strict-mcp-config")  # a repository's servers would be started unasked
            argv += [NO_SETTINGS, INSTRUCTIONS_OF, task.cwd]
            argv += ["--managed-settings", json.dumps(CLAUDE_ONLY_PEOPLE_ALLOW)]
        if task.permissions is Permissions.PLAN:
            # Not the permission to skip them: that there is such a mode to go to once a plan is approved.
            argv.append("--allow-dangerously-skip-permissions")
        if task.effort:
            argv += ["--effort", task.effort]
        if model := task.model or self._model:
            argv += ["--model", model]
        if task.resume_token:
            argv += ["--resume", task.resume_token]
        elif task.session_uuid:
            argv += ["--session-id", task.session_uuid]
        env = QUIET | self._env
        if task.permissions is not Permissions.AUTO:
            env |= CLAUDE_ASK_ENV
            argv = [*CLAUDE_APART, *argv]
        if self._base_url:
            env["ANTHROPIC_BASE_URL"] = self._base_url
        return Launch(
            tuple(argv),
            task.cwd,
            env,
            dict(self._secrets),
            visible=task.visible,
            loopback=loopback_ports(self._base_url),
            private=CLAUDE,
        )

    def begin(self, task: Task) -> Step:
        state = State(
            cwd=task.cwd,
            first=task.prompt.key,
            permissions=task.permissions,
            answerable=task.answerable,
        )
        hello = {
            "type": "control_request",
            "request_id": "sandpiper-hello",
            "request": {"subtype": "initialize"},
        }
        return self._say(state, task.prompt, before=to_line(hello))

    def on(self, state: CodecState, happening: Happening) -> Step:
        now = State.from_json(state)
        out = StepBuilder(tuple(self._secrets.values()))
        match happening:
            case Lines(lines=lines):
                reading = Reading(now, out)
                for line in lines:
                    reading.read(line)
            case Steer(prompt=prompt):
                return self._say(now, prompt)
            case Interrupt():
                # Stop means stop: what Claude has queued goes too, and is handed back.
                now.stopping, now.over = "asked", False
                Rounds(now, out).interrupt(cancel_queued=True)
            case Decided():
                Asks(now, out).decided(happening)
            case Answered():
                Asks(now, out).answered(happening)
            case Exited():
                Asks(now, out).withdraw()
        return out.step(now.to_json())

    def _say(self, state: State, prompt: Prompt, before: bytes = b"") -> Step:
        out = StepBuilder()
        state.open[prompt.key] = Written(list(prompt.inputs))
        state.over = False
        out.write.append(before + to_line(_user_message(prompt)))
        Calls(state, out).give_way()
        return out.step(state.to_json(), written=prompt.inputs)


def _servers(side_tools: str) -> Frame:
    return {"mcpServers": {SERVER: {"type": "stdio", "command": SHELL, "args": [side_tools]}}}


def _user_message(prompt: Prompt) -> Frame:
    # Claude takes a message that begins with a slash for a command of its own.
    text = f" {prompt.text}" if prompt.text.startswith("/") else prompt.text
    if prompt.images:
        text += "\n\nPictures that came with this; open them with your Read tool:\n" + "\n".join(
            prompt.images
        )
    return {
        "type": "user",
        "uuid": prompt.key,
        "session_id": "",
        "parent_tool_use_id": None,
        "message": {"role": "user", "content": [{"type": "text", "text": text}]},
    }
