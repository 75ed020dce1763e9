"""A bare git repository on disk, worked on by the real git in subprocesses with a clean environment."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from handlers.playground.git_records import (
    COMMIT_FORMAT,
    Commit,
    FileChange,
    RefUpdate,
    Signature,
    Touched,
    TreeEntry,
    read_changes,
    read_commits,
    read_touched,
    read_tree,
)

# git knows this object without having it.
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

# Pull requests' refs can be fetched but not pushed, as on GitHub.
_CONFIG = """\
[http]
	receivepack = true
[receive]
	hideRefs = refs/pull
[uploadpack]
	allowFilter = true
	allowReachableSHA1InWant = true
[gc]
	auto = 0
"""

# Refuses a push when told so, and workflow files without the right to them, as GitHub does for Apps.
_PRE_RECEIVE = """\
#!/bin/sh
if [ -n "$PLAYGROUND_REFUSAL" ]; then printf '%s\\n' "$PLAYGROUND_REFUSAL" >&2; exit 1; fi
[ -z "$PLAYGROUND_NO_WORKFLOWS" ] && exit 0
while read -r old new ref; do
  case "$new" in *[!0]*) ;; *) continue ;; esac
  if [ -n "$(git rev-list --max-count=1 "$new" --not --all -- .github/workflows)" ]; then
    printf '%s\\n' "refusing to allow a GitHub App to create or update workflow" \\
      "in .github/workflows on $ref without \\`workflows\\` permission" >&2
    exit 1
  fi
done
"""
_POST_RECEIVE = '#!/bin/sh\nif [ -n "$PLAYGROUND_PUSHED" ]; then cat > "$PLAYGROUND_PUSHED"; fi\n'


class GitFailed(RuntimeError):
    """git ended with an error that was not expected; its words are in the message."""

    def __init__(self, args: Sequence[str], code: int, stderr: str) -> None:
        super().__init__(f"git {' '.join(args)} ended with {code}: {stderr.strip()}")


class MergeConflict(RuntimeError):
    """The two sides changed the same lines."""


def clean_environment(home: Path) -> dict[str, str]:
    """An environment in which no configuration of this machine or its user reaches git, and nothing asks."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


class GitRepository:
    """Reads and writes one bare repository.

    Methods that take commits want them resolved: what a caller of the API names goes through `resolve` first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = clean_environment(path.parent)

    async def create(self, default_branch: str) -> None:
        self.path.mkdir(parents=True)
        await self.git("init", "--quiet", "--bare", "--template=", f"--initial-branch={default_branch}", ".")
        with (self.path / "config").open("a") as config:
            config.write(_CONFIG)
        (self.path / "hooks").mkdir()
        for name, script in (("pre-receive", _PRE_RECEIVE), ("post-receive", _POST_RECEIVE)):
            hook = self.path / "hooks" / name
            hook.write_text(script)
            hook.chmod(0o755)

    async def git(
        self,
        *args: str,
        stdin: bytes = b"",
        fails_with: Iterable[int] = (),
        settings: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Run git here, with `settings` added to its environment; returns its exit code and output.

        Raises GitFailed for an exit code that is neither 0 nor in `fails_with`.
        """
        process = await asyncio.create_subprocess_exec(
            "git",
            *args,
            cwd=self.path,
            env={**self.environment, **(settings or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        code = process.returncode or 0
        if code != 0 and code not in fails_with:
            raise GitFailed(args, code, err.decode(errors="replace"))
        return code, out

    async def text(self, *args: str) -> str:
        return (await self.git(*args))[1].decode(errors="replace")

    async def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag or (abbreviated) sha names, or None."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            found = await self.resolve_ref(name)
            if found is not None:
                return found
        return None

    async def resolve_ref(self, name: str) -> str | None:
        """The commit that a full ref or a sha points at, or None."""
        if not name or name.startswith("-") or any(c in name for c in "^~:{}\x00\n "):
            return None
        code, out = await self.git(
            "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", fails_with=[1, 128]
        )
        return out.decode().strip() if code == 0 else None

    async def refs(self, prefix: str) -> dict[str, str]:
        lines = (await self.text("for-each-ref", "--format=%(refname) %(objectname)", prefix)).splitlines()
        return {name: sha for name, _, sha in (line.partition(" ") for line in lines)}

    async def update_ref(self, ref: str, new: str, old: str | None = None) -> None:
        await self.git("update-ref", ref, new, *([] if old is None else [old]))

    async def commits(self, *revisions: str, limit: int = 250) -> list[Commit]:
        """Newest first."""
        return read_commits(
            await self.text("log", f"--max-count={limit}", f"--format={COMMIT_FORMAT}", *revisions)
        )

    async def count(self, *revisions: str) -> int:
        return int(await self.text("rev-list", "--count", *revisions))

    async def merge_base(self, one: str, other: str) -> str | None:
        code, out = await self.git("merge-base", one, other, fails_with=[1])
        return out.decode().strip() if code == 0 else None

    async def is_ancestor(self, older: str, newer: str) -> bool:
        code, _ = await self.git("merge-base", "--is-ancestor", older, newer, fails_with=[1])
        return code == 0

    async def diff(self, base: str, head: str) -> str:
        """The unified diff of `head` against where it left `base` (three dots)."""
        return await self.text("diff", "--no-ext-diff", "-M", f"{base}...{head}")

    async def changed_files(self, base: str | None, head: str) -> list[FileChange]:
        """What `head` changed since it left `base` (None: everything in it), file by file, with hunks."""
        span = [_EMPTY_TREE, head] if base is None else [f"{base}...{head}"]
        raw, counts, patches = await asyncio.gather(
            self.text("diff", "--raw", "--no-abbrev", "-z", "-M", *span),
            self.text("diff", "--numstat", "-z", "-M", *span),
            self.text("diff", "--no-ext-diff", "-M", *span),
        )
        return read_changes(raw, counts, patches)

    async def touched(self, shas: Sequence[str]) -> dict[str, Touched]:
        """The paths that each of the commits added, removed and modified; merges touch nothing."""
        _, out = await self.git(
            "-c", "core.quotePath=false",
            "diff-tree", "--stdin", "-r", "--root", "--name-status", "--no-renames",
            stdin="".join(f"{sha}\n" for sha in shas).encode(),
        )  # fmt: skip
        return {sha: Touched() for sha in shas} | read_touched(out.decode(errors="replace"))

    async def entries(self, commit: str, path: str) -> list[TreeEntry]:
        """What a directory of a commit holds, or the one entry of a file; empty when there is neither."""
        spec = f"{path.strip('/')}/" if path.strip("/") else ""
        inside = await self._ls_tree(commit, spec)
        return inside or (await self._ls_tree(commit, path.strip("/")) if spec else [])

    async def _ls_tree(self, commit: str, spec: str) -> list[TreeEntry]:
        return read_tree(await self.text("ls-tree", "--long", "-z", commit, *(["--", spec] if spec else [])))

    async def blob(self, sha: str) -> bytes:
        return (await self.git("cat-file", "blob", sha))[1]

    async def commit_files(
        self,
        branch: str,
        files: Mapping[str, str | bytes | None],
        message: str,
        by: Signature,
        parent: str | None,
    ) -> str:
        """Commit `files` (None removes one) on `branch`; returns the commit. No `parent` starts history."""
        who = f"{by.name} <{by.email}> {int(by.at.timestamp())} +0000\n"
        stream = bytearray(f"commit refs/heads/{branch}\nauthor {who}committer {who}".encode())
        stream += _data(message.encode())
        if parent is not None:
            stream += f"from {parent}\n".encode()
        for path, content in files.items():
            if content is None:
                stream += f"D {path}\n".encode()
            else:
                stream += f"M 100644 inline {path}\n".encode()
                stream += _data(content.encode() if isinstance(content, str) else content)
        stream += b"done\n"
        await self.git("fast-import", "--quiet", "--done", stdin=bytes(stream))
        made = await self.resolve_ref(f"refs/heads/{branch}")
        assert made is not None  # noqa: S101 - fast-import succeeded, so the branch is there
        return made

    async def merges_cleanly(self, base: str, head: str) -> bool:
        code, _ = await self.git("merge-tree", "--write-tree", base, head, fails_with=[1])
        return code == 0

    async def merge(self, branch: str, head: str, message: str, by: Signature) -> RefUpdate:
        """Make a merge commit of `head` on `branch`. Raises MergeConflict, changing nothing."""
        ref = f"refs/heads/{branch}"
        base = (await self.text("rev-parse", "--verify", ref)).strip()
        code, out = await self.git("merge-tree", "--write-tree", base, head, fails_with=[1])
        if code != 0:
            raise MergeConflict(f"{head[:7]} does not merge cleanly into {branch}")
        tree = out.decode().splitlines()[0]
        identity = {"NAME": by.name, "EMAIL": by.email, "DATE": f"{int(by.at.timestamp())} +0000"}
        roles = ("GIT_AUTHOR", "GIT_COMMITTER")
        _, made = await self.git(
            *("commit-tree", tree, "-p", base, "-p", head),
            stdin=message.encode(),
            settings={f"{role}_{key}": text for role in roles for key, text in identity.items()},
        )
        after = made.decode().strip()
        await self.update_ref(ref, after, base)
        return RefUpdate(ref, base, after)


def _data(content: bytes) -> bytes:
    return b"data %d\n" % len(content) + content + b"\n"
