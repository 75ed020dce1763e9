"""What an agent can leave in the home and in the clone for later turns to run."""

from __future__ import annotations

from tests.agents.playing import Place

_SHELLS = (
    ".bashrc",
    ".profile",
    ".bash_profile",
    ".bash_login",
    ".zshrc",
    ".zshenv",
    ".config/fish/config.fish",
)
_PROGRAMS = ("ls", "cat", "git", "rg", "bash", "sh", "uname", "node", "python3")
_HOOKS = ("post-index-change", "post-checkout", "pre-commit")


def leave(place: Place) -> None:
    """Whatever of it is run leaves a file `…-ran` in the home."""
    for name in _SHELLS:
        file = place.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"touch {place.home}/shell{name.replace('/', '-')}-ran\n")
    for name in _PROGRAMS:
        _program(place, f".local/bin/{name}", f"path-{name}", f'PATH=/usr/bin:/bin exec {name} "$@"')
    for name in _HOOKS:
        _program(place, f"hooks/{name}", f"hook-{name}")
    _nested(place)
    (place.work / ".gitattributes").write_text("*.md diff=left filter=left\n")
    (place.work / "README.md").write_text("# web!\n")
    _configure(place, "home", place.home / ".gitconfig")
    _configure(place, "clone", place.work / ".git/config")
    _configure(place, "nested", place.work / "nested/.git/config")


def _nested(place: Place) -> None:
    """Another repository in the worktree."""
    place.git("init", "-q", "nested")
    (place.work / "nested/a.txt").write_text("one\n")
    place.git("-C", "nested", "add", "-A")
    place.git("-C", "nested", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "One")
    (place.work / "nested/a.txt").write_text("two\n")
    (place.work / "nested/.git/info/attributes").write_text("* diff=left filter=left\n")


def _configure(place: Place, of: str, file: object) -> None:
    programs = {
        "core.fsmonitor": "",
        "core.pager": "cat",
        "core.sshCommand": "",
        "diff.external": "",
        "diff.left.textconv": 'cat "$1"',
        "filter.left.clean": "cat",
        "gpg.program": "",
        "man.left.cmd": "",
    }
    for key, rest in programs.items():
        program = _program(place, f"programs/{of}-{key}", f"{of}-{key}", rest)
        place.git("config", "--file", str(file), key, program)
    settings = {
        "core.hooksPath": str(place.home / "hooks"),
        "log.showSignature": "true",
        "man.viewer": "left",
        "remote.origin.url": "host:/x",
    }
    for key, value in settings.items():
        place.git("config", "--file", str(file), key, value)


def _program(place: Place, path: str, name: str, rest: str = "") -> str:
    program = place.home / path
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n/usr/bin/touch {place.home}/{name}-ran\n{rest}\n")
    program.chmod(0o755)
    return str(program)
