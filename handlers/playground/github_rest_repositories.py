"""Endpoints of a repository: itself, branches, refs, commits, comparison, contents, who may what."""

from handlers.playground.git_records import Commit
from handlers.playground.git_repository import GitRepository
from handlers.playground.github_errors import Refusal, not_found
from handlers.playground.github_git_shapes import GitShapes
from handlers.playground.github_rest import Answer, Call, Endpoint, page
from handlers.playground.github_shapes import Json, Shapes
from handlers.playground.github_state import Repository

_METADATA = {"metadata": "read"}
_CONTENTS = {"contents": "read"}
_LARGEST_FILE = 1024 * 1024
_MOST_COMPARED = 10_000


class RepositoryEndpoints:
    def __init__(self, shapes: Shapes, git_shapes: GitShapes) -> None:
        self._shapes = shapes
        self._git_shapes = git_shapes

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "", self._repository, _METADATA),
            Endpoint("GET", "collaborators/{login}/permission", self._permission, _METADATA),
            Endpoint("GET", "branches", self._branches, _CONTENTS),
            Endpoint("GET", "branches/{branch:path}", self._branch, _CONTENTS),
            Endpoint("GET", "git/ref/{ref:path}", self._ref, _CONTENTS),
            Endpoint("GET", "git/matching-refs/{ref:path}", self._matching_refs, _CONTENTS),
            Endpoint("GET", "commits", self._commits, _CONTENTS),
            Endpoint("GET", "commits/{ref:path}", self._commit, _CONTENTS),
            Endpoint("GET", "compare/{span:path}", self._compare, _CONTENTS),
            Endpoint("GET", "contents", self._contents, _CONTENTS),
            Endpoint("GET", "contents/{path:path}", self._contents, _CONTENTS),
        ]

    async def _repository(self, call: Call) -> Answer:
        # These are a person's roles; a token of an App has none, whatever it may do.
        flags = dict.fromkeys(("admin", "maintain", "push", "triage", "pull"), False)
        return Answer(self._shapes.full_repository(call.repository, flags))

    async def _permission(self, call: Call) -> Answer:
        user = call.state.users.get(call.path("login").lower())
        if user is None:
            raise not_found()
        return Answer(self._shapes.permission(call.repository, user))

    async def _branches(self, call: Call) -> Answer:
        refs = await GitRepository(call.repository.path).refs("refs/heads/")
        names = sorted(refs)

        def short(name: str) -> Json:
            url = self._shapes.of_repository(call.repository, f"/commits/{refs[name]}")
            commit = {"sha": refs[name], "url": url}
            return self._git_shapes.branch(call.repository, name.removeprefix("refs/heads/"), commit)

        return page(call, names, short)

    async def _branch(self, call: Call) -> Answer:
        name = call.path("branch")
        git = GitRepository(call.repository.path)
        sha = await git.resolve_ref(f"refs/heads/{name}")
        if sha is None:
            raise Refusal(404, "Branch not found")
        commit = self._git_shapes.commit(call.repository, (await git.commits(sha, limit=1))[0])
        return Answer(self._git_shapes.branch(call.repository, name, commit))

    async def _ref(self, call: Call) -> Answer:
        name = f"refs/{call.path('ref')}"
        sha = await GitRepository(call.repository.path).resolve_ref(name)
        if sha is None:
            raise not_found()
        return Answer(self._git_shapes.ref(call.repository, name, sha))

    async def _matching_refs(self, call: Call) -> Answer:
        prefix = f"refs/{call.path('ref')}"
        refs = await GitRepository(call.repository.path).refs("refs/")
        found = sorted((name, sha) for name, sha in refs.items() if name.startswith(prefix))
        return page(call, found, lambda ref: self._git_shapes.ref(call.repository, *ref))

    async def _commits(self, call: Call) -> Answer:
        git = GitRepository(call.repository.path)
        sha = await git.resolve(call.query("sha") or call.repository.default_branch)
        if sha is None:
            raise not_found()
        found = await git.commits(sha)
        return page(call, found, lambda commit: self._git_shapes.commit(call.repository, commit))

    async def _commit(self, call: Call) -> Answer:
        git = GitRepository(call.repository.path)
        sha = await git.resolve(call.path("ref"))
        if sha is None:
            raise Refusal(422, f"No commit found for SHA: {call.path('ref')}")
        found = (await git.commits(sha, limit=1))[0]
        shape = self._git_shapes.commit(call.repository, found)
        changes = await git.changed_files(found.parents[0] if found.parents else None, sha)
        shape["files"] = [self._git_shapes.file(call.repository, change, sha) for change in changes]
        added, removed = sum(c.additions for c in changes), sum(c.deletions for c in changes)
        shape["stats"] = {"additions": added, "deletions": removed, "total": added + removed}
        return Answer(shape)

    async def _compare(self, call: Call) -> Answer:
        base_name, dots, head_name = call.path("span").partition("...")
        git = GitRepository(call.repository.path)
        base, head = await _side(call, git, base_name), await _side(call, git, head_name)
        if not dots or base is None or head is None:
            raise not_found()
        fork = await git.merge_base(base, head)
        if fork is None:
            raise Refusal(404, f"No common ancestor between {base_name} and {head_name}.")
        ahead = await git.commits(head, f"^{base}", limit=_MOST_COMPARED)
        total, behind = await git.count(f"{base}..{head}"), await git.count(f"{head}..{base}")
        status = {(True, False): "ahead", (False, True): "behind", (True, True): "diverged"}
        changes = await git.changed_files(base, head)
        commits = list(reversed(ahead))
        url = self._shapes.of_repository(call.repository, f"/compare/{call.path('span')}")
        web = self._shapes.web(f"/{call.repository.full_name}/compare/{call.path('span')}")
        shown = page(call, commits, lambda commit: self._git_shapes.commit(call.repository, commit))
        return Answer(
            {
                "url": url,
                "html_url": web,
                "permalink_url": web,
                "diff_url": f"{web}.diff",
                "patch_url": f"{web}.patch",
                "base_commit": await self._commit_shape(call.repository, git, base),
                "merge_base_commit": await self._commit_shape(call.repository, git, fork),
                "status": status.get((total > 0, behind > 0), "identical"),
                "ahead_by": total,
                "behind_by": behind,
                "total_commits": total,
                "commits": shown.body,
                "files": [self._git_shapes.file(call.repository, change, head) for change in changes],
            },
            headers=shown.headers,
        )

    async def _contents(self, call: Call) -> Answer:
        git = GitRepository(call.repository.path)
        commit = await git.resolve(call.query("ref") or call.repository.default_branch)
        if commit is None:
            raise Refusal(404, f"No commit found for the ref {call.query('ref')}")
        path = call.request.path_params.get("path", "").strip("/")
        entries = await git.entries(commit, path)
        if not entries:
            raise not_found()
        if len(entries) == 1 and entries[0].path == path:
            if entries[0].size > _LARGEST_FILE:
                raise Refusal(
                    403, "This API returns blobs up to 1 MB in size. The requested blob is too large."
                )
            text = await git.blob(entries[0].sha)
            return Answer(self._git_shapes.content(call.repository, entries[0], commit, text))
        shapes = [self._git_shapes.content(call.repository, entry, commit, None) for entry in entries]
        return Answer(shapes)

    async def _commit_shape(self, repository: Repository, git: GitRepository, sha: str) -> Json:
        found: Commit = (await git.commits(sha, limit=1))[0]
        return self._git_shapes.commit(repository, found)


async def _side(call: Call, git: GitRepository, name: str) -> str | None:
    """One side of a comparison: a revision, or `owner:branch` of this repository."""
    owner, colon, branch = name.partition(":")
    if colon and owner.lower() != call.repository.owner.login.lower():
        return None
    return await git.resolve(branch if colon else name)
