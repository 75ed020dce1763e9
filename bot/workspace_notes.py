"""What the scripts in a sandbox tell of a workspace that was opened, in words (workspace_scripts.OPEN)."""

from __future__ import annotations

TOLD_ONCE = ("submodules", "lfs", "demand")  # in a session's first turn only


def note_of(line: str, branch: str, base: str) -> str:
    """What OPEN tells of, for the agent and for people."""
    word, _, about = line.partition(" ")
    match word:
        case "diverged":
            return (
                f"The branch {branch} on GitHub and the one here have diverged. Merge origin/{branch} "
                "before you change anything else."
            )
        case "moved":
            return f"The worktree was not as I had left it, and is made anew. Its files are in {about}."
        case "operation":
            return f"A {about} is in progress in the worktree. Finish or abort it first."
        case "elsewhere":
            return (
                f"The worktree is at {about}, with changes, and not on {branch}. Check {branch} out first: "
                "only that is published."
            )
        case "away":
            return (
                f"The worktree had been put away, and {branch} was moved since. What was not committed then "
                f"is on {about}."
            )
        case "submodules":
            return (
                "This repository has submodules. Their files are not brought in: their directories are empty "
                "here, and stay as they are."
            )
        case "demand":
            return (
                "This repository is large. What is in files that are not checked out, git fetches when it is "
                "asked for, by itself, as long as a turn runs: name the paths that you look for in the "
                "history, and it takes less time."
            )
        case "lfs":
            return (
                "This repository keeps files in Git LFS. Only their pointers are brought in: leave them as "
                "they are. A file that is added here is committed as it is, without LFS."
            )
    return ""
