"""Where agents keep their conversations, and what else of theirs holds code, from the home (Launch.private).
What a person installs, configures or logs in to is none of it, and stays all sessions'."""

from __future__ import annotations

# Claude Code 2.1.329: beside conversations their files before each change, plans, lists of tasks, what was
# pasted, shells' functions and variables, what lets one process of Claude speak to another, and logs of MCP
# servers.
CLAUDE = (
    ".cache/claude-cli-nodejs",
    *(".claude/agent-memory", ".claude/debug", ".claude/dump-prompts", ".claude/feedback-bundles"),
    *(".claude/file-history", ".claude/image-cache", ".claude/jobs", ".claude/paste-cache", ".claude/plans"),
    *(".claude/projects", ".claude/session-env", ".claude/sessions", ".claude/shell-snapshots"),
    *(".claude/tasks", ".claude/teams", ".claude/todos", ".claude/traces", ".claude/uploads"),
    ".claude/usage-data",
)

# Codex 0.159: its databases have what was said, too. They would lie beside its configuration.
CODEX_DATABASES = ".codex/databases"
CODEX = (
    *(".codex/archived_sessions", ".codex/attachments", ".codex/generated_images", ".codex/log"),
    *(".codex/memories", ".codex/sessions", ".codex/shell_snapshots", CODEX_DATABASES),
)

# OpenCode 1.18.33: its database would lie beside its logins.
_OPENCODE = ".local/share/opencode"
OPENCODE_DATABASE = "conversations/opencode.db"  # from there
OPENCODE = (
    *(f"{_OPENCODE}/conversations", f"{_OPENCODE}/log", f"{_OPENCODE}/plans", f"{_OPENCODE}/repos"),
    *(f"{_OPENCODE}/snapshot", f"{_OPENCODE}/storage", f"{_OPENCODE}/tool-output", f"{_OPENCODE}/worktree"),
    ".local/state/opencode",
)

ALL = (*CLAUDE, *CODEX, *OPENCODE)
