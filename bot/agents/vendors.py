"""Settings of programs that are spoken to in two protocols: their own, and ACP."""

from __future__ import annotations

from collections.abc import Mapping

from bot.agents.apart import GIT, STORES, apart
from bot.agents.conversations import OPENCODE_DATABASE
from bot.agents.inside import program
from bot.agents.mcp import SERVER, TOOLS

# Tools of Claude Code that would outlive the turn or wake it again after its end (the process ends with the
# turn), leave the session's worktree, or reach other sessions of the same person in the same sandbox.
CLAUDE_NOT_OFFERED = (
    *("CronCreate", "CronDelete", "CronList", "ScheduleWakeup", "Monitor", "Workflow"),
    *("EnterWorktree", "ExitWorktree", "ListAgents", "SendMessage"),
)

# Without it Claude Code's sub-agents run in the background by default: the result comes before their work is
# done, and a process with a background command does not end when its stdin is closed.
CLAUDE_WAITS = {"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1"}

# How much of a command's output Claude reads, from its beginning on; 150,000 characters is the most it takes,
# 30,000 is usual. Its model is shown as little of it as before; what is told of it has the true end, where
# test runners sum up.
CLAUDE_READS = {"BASH_MAX_OUTPUT_LENGTH": "150000"}

# Where people are asked, settings of a repository or of the home must not answer for them, nor run anything:
# beside rules and hooks they can name helpers that are run at once, an environment for every command, a
# sandbox whose commands are not asked about, skills that bring permissions. So none of their files are read.
# That would leave out the repository's CLAUDE.md, but not that of a directory that is named besides.
# Claude takes git for harmless when it reads; but git runs what the clone's configuration names, which is the
# agent's. So people are asked about git, and Claude does not look at the repository by itself.
CLAUDE_ONLY_PEOPLE_ALLOW = {
    "allowManagedPermissionRulesOnly": True,
    "allowManagedHooksOnly": True,
    "permissions": {"ask": ["Bash(git)", "Bash(git:*)"]},
}
CLAUDE_ASK_ENV = {
    **GIT,
    "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
    "CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS": "1",
}
CLAUDE_APART = apart(".claude/projects")

_HARMLESS = ("read", "list", "glob", "grep", "lsp", "task", "skill", "todowrite", "question", "doom_loop")
_OURS = tuple(f"{SERVER}_{name}" for name in TOOLS)

# OpenCode's database is put where there is nothing else, for which OpenCode makes no directory.
OPENCODE_KEEPS_ENV = {"OPENCODE_DB": OPENCODE_DATABASE}
_KEEPS = f"""
mkdir -p "${{XDG_DATA_HOME:-$HOME/.local/share}}/opencode/{OPENCODE_DATABASE.partition("/")[0]}"
exec "$@"
"""
OPENCODE_KEEPS = ("/bin/sh", "-c", _KEEPS, "opencode")

# In its cache OpenCode has programs that it runs unasked.
OPENCODE_APART = (
    *apart(".local/share/opencode", [store for store in STORES if store != ".cache"]),
    *program("opencode_alone"),
)

# OpenCode's rules where people are asked.
OPENCODE_ASKS: Mapping[str, str] = {
    "*": "ask",
    "external_directory": "allow",
    **dict.fromkeys((*_HARMLESS, *_OURS), "allow"),
}
