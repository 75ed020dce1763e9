"""What is known of programs that speak ACP, beside what they say of themselves at their start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from bot.agents.apart import GIT
from bot.agents.codec import Capabilities, Listing, Permissions, Steering
from bot.agents.conversations import CLAUDE, OPENCODE
from bot.agents.vendors import (
    CLAUDE_APART,
    CLAUDE_ASK_ENV,
    CLAUDE_NOT_OFFERED,
    CLAUDE_ONLY_PEOPLE_ALLOW,
    CLAUDE_READS,
    CLAUDE_WAITS,
    OPENCODE_APART,
    OPENCODE_ASKS,
    OPENCODE_KEEPS,
    OPENCODE_KEEPS_ENV,
)
from bot.agents.wire import Frame, frame

GENERIC = Capabilities(
    steering=Steering.INTERRUPT,
    plan=True,
    cost=True,
    approvals=True,
    questions=True,
    side_tools=True,
    listing=Listing.ALL,
    varies=True,
)

# For every agent, since nothing else reads it, and Claude Code's adapter may stand behind any command:
# without it the adapter can end a turn while a command or a sub-agent still works.
QUIET: Mapping[str, str] = CLAUDE_WAITS

WORKSPACE = "the workspace"


@dataclass(frozen=True, slots=True)
class Known:
    """env: of its environment; ask_env: more of it where people are asked. meta: `_meta` of the request that
    opens its session, with WORKSPACE in the place of its path; ask_meta: the same where people are asked.
    by: what starts it; its command follows. ask_by: what comes before that where people are asked. settings:
    of variables that hold JSON, what is in them beside what an operator has set. private: as Launch's."""

    capabilities: Capabilities = GENERIC
    env: Mapping[str, str] = field(default_factory=dict)
    ask_env: Mapping[str, str] = field(default_factory=dict)
    meta: Frame = field(default_factory=dict)
    ask_meta: Frame = field(default_factory=dict)
    by: tuple[str, ...] = ()
    ask_by: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    settings: Mapping[str, Frame] = field(default_factory=dict)

    def environment(self, given: Mapping[str, str], permissions: Permissions) -> Mapping[str, str]:
        """given: what an operator has set. It counts before ours, but for what makes it ask."""
        asks = permissions is not Permissions.AUTO
        settings = {name: _with(given.get(name, "{}"), ours, asks) for name, ours in self.settings.items()}
        return {**QUIET, **self.env, **given, **settings, **({**GIT, **self.ask_env} if asks else {})}

    def opening(self, permissions: Permissions, cwd: str) -> Frame:
        meta = self.meta if permissions is Permissions.AUTO else self.ask_meta
        found: Frame = json.loads(json.dumps(meta).replace(json.dumps(WORKSPACE), json.dumps(cwd)))
        return found

    def argv(self, command: Sequence[str], permissions: Permissions) -> tuple[str, ...]:
        return (*(() if permissions is Permissions.AUTO else self.ask_by), *self.by, *command)


def _with(given: str, ours: Frame, first: bool) -> str:
    """What an operator has written is left as it is where it is no JSON."""
    settings = frame(given.encode())
    if settings is None:
        return given
    return json.dumps({**settings, **ours} if first else {**ours, **settings})


def _claude(**more: object) -> Frame:
    """The adapter hands these on to Claude Code as they are."""
    return {"claudeCode": {"options": {"disallowedTools": list(CLAUDE_NOT_OFFERED), **more}}}


# Over ACP OpenCode tells nothing of a sub-agent, and a sub-agent that asks waits for ever.
_NO_SUB_AGENTS = {"task": "deny"}

KNOWN: Mapping[str, Known] = {
    "claude-agent-acp": Known(
        replace(GENERIC, steering=Steering.NATIVE, varies=False),
        env=CLAUDE_READS,
        meta=_claude(),
        ask_meta=_claude(
            managedSettings=CLAUDE_ONLY_PEOPLE_ALLOW,
            settingSources=[],
            additionalDirectories=[WORKSPACE],
            strictMcpConfig=True,
        ),
        ask_env=CLAUDE_ASK_ENV,
        ask_by=CLAUDE_APART,
        private=CLAUDE,
    ),
    "opencode": Known(
        replace(GENERIC, questions=False, sub_agents=False, varies=False),
        # An edit is shown with its lines where it is asked for; in `auto` that is allowed at once.
        env={"OPENCODE_PERMISSION": json.dumps({"edit": "ask", **_NO_SUB_AGENTS}), **OPENCODE_KEEPS_ENV},
        ask_env={
            "OPENCODE_PERMISSION": json.dumps({**OPENCODE_ASKS, **_NO_SUB_AGENTS}),
            "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
            "OPENCODE_PURE": "1",
        },
        by=OPENCODE_KEEPS,
        ask_by=OPENCODE_APART,
        private=OPENCODE,
        # Commits of its own for an undo that nobody asks for: git runs the filters of whatever repository
        # lies in the worktree, before anybody is asked.
        settings={"OPENCODE_CONFIG_CONTENT": {"snapshot": False}},
    ),
}

# Packages of another name than their program's.
_NAMES = {"opencode-ai": "opencode"}


def known(command: Sequence[str]) -> Known:
    """By the words of its command: a program's path, or a package with its version, as for npx. Of one that
    is not known, what holds for all."""
    words = (PurePosixPath(word).name.partition("@")[0] for word in command)
    names = (_NAMES.get(word, word) for word in words)
    return next((KNOWN[name] for name in names if name in KNOWN), Known())
