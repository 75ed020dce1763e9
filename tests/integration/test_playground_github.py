"""The loopback GitHub, as the real PyGithub and httpx see it. Git over HTTP: test_playground_git.py."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jwt
import pytest
from github import Auth, Github, GithubException, GithubIntegration, UnknownObjectException
from github.InstallationAuthorization import InstallationAuthorization
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.playground.github import GitHubPlayground
from handlers.playground.github_errors import Refusal
from handlers.playground.github_limits import Limits
from handlers.playground.server import LoopbackServer

WEB = "acme/web"
FILES: dict[str, str | bytes] = {"README.md": "# web\n", "web.py": "def greet():\n    return 'hi'\n"}
T = TypeVar("T")
Json = dict[str, Any]


class ScopedAuth(Auth.AppInstallationAuth):
    """An installation token for some repositories and permissions only; PyGithub's own asks for all."""

    def __init__(
        self, app: Auth.AppAuth, installation: int, repositories: list[int], permissions: dict[str, str]
    ):
        super().__init__(app, installation, permissions)
        self._repositories = repositories

    def _get_installation_authorization(self) -> InstallationAuthorization:
        wanted = {"repository_ids": self._repositories, "permissions": self.token_permissions}
        headers, data = self.requester.requestJsonAndCheck(
            "POST", f"/app/installations/{self.installation_id}/access_tokens", input=wanted
        )
        return InstallationAuthorization(self.requester, headers, data)


class Receiver:
    """The App's side: keeps the webhooks that arrive and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        await asyncio.sleep(self.delay)
        return Response(status_code=self.status)

    def payloads(self, event: str, action: str | None = None) -> list[Json]:
        found = [json.loads(body) for headers, body in self.got if headers["x-github-event"] == event]
        return [payload for payload in found if action in (None, payload.get("action"))]


@pytest.fixture
async def github(tmp_path: Path) -> AsyncIterator[GitHubPlayground]:
    playground = GitHubPlayground(tmp_path)
    async with playground.serve():
        await playground.add_repository(WEB, FILES)
        playground.add_user("ana", {WEB: "admin"})
        playground.add_user("ben", {WEB: "write"})
        playground.add_user("eve")
        yield playground


@pytest.fixture
async def receiver(github: GitHubPlayground) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with LoopbackServer(receiver.app) as server:
        github.webhook_url = f"{server.url}/hook"
        yield receiver


def app_jwt(github: GitHubPlayground, **claims: Any) -> str:
    now = int(time.time())
    standard = {"iss": str(github.app_id), "iat": now - 60, "exp": now + 300}
    return jwt.encode(standard | claims, github.private_key_pem, algorithm="RS256")


def http(github: GitHubPlayground, authorization: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": authorization or f"Bearer {app_jwt(github)}"}
    # Nothing here speaks TLS, and loading its certificates is slow.
    return httpx.AsyncClient(base_url=github.base_url, headers=headers, trust_env=False, verify=False)


async def token_for(github: GitHubPlayground, **wanted: Any) -> str:
    """An installation token for acme/web, or for what `wanted` says."""
    async with http(github) as client:
        installation = (await client.get(f"/repos/{WEB}/installation")).json()["id"]
        answer = await client.post(f"/app/installations/{installation}/access_tokens", json=wanted or None)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


async def as_installation(github: GitHubPlayground, **wanted: Any) -> httpx.AsyncClient:
    return http(github, f"Bearer {await token_for(github, **wanted)}")


async def with_pygithub(
    github: GitHubPlayground, use: Callable[[Github], T], permissions: dict[str, str] | None = None
) -> T:
    """Run `use` in a thread with a PyGithub client that may reach acme/web only."""
    repository_id = github.repository(WEB).id

    def work() -> T:
        app = Auth.AppAuth(github.app_id, github.private_key_pem)
        with GithubIntegration(auth=app, base_url=github.base_url, retry=None) as integration:
            installation = integration.get_repo_installation("acme", "web").id
        granted = permissions or {"contents": "write", "issues": "write", "pull_requests": "write"}
        auth = ScopedAuth(app, installation, [repository_id], granted)
        quick: dict[str, Any] = {"seconds_between_requests": None, "seconds_between_writes": None}
        with Github(auth=auth, base_url=github.base_url, retry=None, **quick) as client:
            return use(client)

    return await asyncio.to_thread(work)


# Tokens


async def test_an_app_finds_itself_and_its_installation(github: GitHubPlayground) -> None:
    def look() -> tuple[str, int, str, list[str]]:
        app = Auth.AppAuth(github.app_id, github.private_key_pem)
        with GithubIntegration(auth=app, base_url=github.base_url, retry=None) as integration:
            installation = integration.get_repo_installation("acme", "web")
            repositories = [repository.full_name for repository in installation.get_repos()]
            return (
                integration.get_app().slug,
                integration.get_app().id,
                installation.account.login,
                repositories,
            )

    assert await asyncio.to_thread(look) == ("sandpiper", github.app_id, "acme", [WEB])


@pytest.mark.parametrize(
    ("claim", "seconds_from_now", "says"),
    [
        ("exp", 900, "too far in the future"),
        ("exp", -1, "must be a numeric value"),
        ("iat", 600, "'Issued at' claim"),
    ],
)
async def test_a_jwt_out_of_bounds_is_refused(
    github: GitHubPlayground, claim: str, seconds_from_now: int, says: str
) -> None:
    claims = {claim: int(time.time()) + seconds_from_now}
    async with http(github, f"Bearer {app_jwt(github, **claims)}") as client:
        answer = await client.get("/app")
    assert answer.status_code == 401
    assert says in answer.json()["message"]


async def test_a_jwt_of_another_app_is_refused(github: GitHubPlayground) -> None:
    async with http(github, f"Bearer {app_jwt(github, iss='1')}") as client:
        answer = await client.get("/app")
    assert (answer.status_code, answer.json()["message"]) == (404, "Integration not found")


async def test_a_jwt_of_another_key_is_refused(github: GitHubPlayground) -> None:
    good = app_jwt(github)
    forged = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB")
    async with http(github, f"Bearer {forged}") as client:
        answer = await client.get("/app")
    assert (answer.status_code, answer.json()["message"]) == (401, "A JSON web token could not be decoded")


async def test_a_token_has_the_new_long_form_and_lives_an_hour(github: GitHubPlayground) -> None:
    async with http(github) as client:
        installation = (await client.get(f"/repos/{WEB}/installation")).json()["id"]
        url = f"/app/installations/{installation}/access_tokens"
        minted = (await client.post(url, json={"repositories": ["web"]})).json()
        old_form = await client.post(url, headers={"X-GitHub-Stateless-S2S-Token": "disabled"})
    assert minted["token"].startswith(f"ghs_{github.app_id}_")
    assert 500 < len(minted["token"]) < 560
    assert minted["token"].count(".") == 2
    assert [repository["full_name"] for repository in minted["repositories"]] == [WEB]
    expires_at = time.mktime(time.strptime(minted["expires_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 3590 < expires_at - time.time() <= 3600
    assert len(old_form.json()["token"]) == 40


async def test_a_token_ends_with_its_hour(tmp_path: Path) -> None:
    now = [time.time()]
    github = GitHubPlayground(tmp_path, clock=lambda: now[0])
    async with github.serve():
        await github.add_repository(WEB, FILES)
        async with await as_installation(github) as client:
            now[0] += 3599
            assert (await client.get(f"/repos/{WEB}")).status_code == 200
            now[0] += 1
            answer = await client.get(f"/repos/{WEB}")
    assert (answer.status_code, answer.json()["message"]) == (401, "Bad credentials")


async def test_pygithub_is_told_when_its_token_was_ended(github: GitHubPlayground) -> None:
    def use(client: Github) -> int:
        repository = client.get_repo(WEB)
        github.expire_tokens()
        with pytest.raises(GithubException) as refused:
            repository.get_issues().totalCount  # noqa: B018 - asking for it makes the call
        return refused.value.status

    assert await with_pygithub(github, use) == 401


async def test_nobody_gets_in_without_credentials(github: GitHubPlayground) -> None:
    async with http(github, "Bearer ghs_guessed") as client:
        wrong = await client.get(f"/repos/{WEB}")
        del client.headers["authorization"]
        assert (await client.get(f"/repos/{WEB}")).status_code == 401
    assert (wrong.status_code, wrong.json()["message"]) == (401, "Bad credentials")


async def test_a_token_reaches_its_repositories_only(github: GitHubPlayground) -> None:
    await github.add_repository("acme/secret", FILES, private=True)
    await github.add_repository("acme/open", FILES)
    async with await as_installation(github, repository_ids=[github.repository(WEB).id]) as client:
        assert (await client.get("/repos/acme/secret")).status_code == 404
        assert (await client.get("/repos/acme/open")).status_code == 200
        written = await client.post("/repos/acme/open/issues", json={"title": "hello"})
        reached = (await client.get("/installation/repositories")).json()
    assert (written.status_code, written.json()["message"]) == (403, "Resource not accessible by integration")
    assert [repository["full_name"] for repository in reached["repositories"]] == [WEB]


async def test_a_token_does_what_its_permissions_say(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    async with await as_installation(github, permissions={"issues": "read"}) as client:
        assert (await client.get(f"/repos/{WEB}/issues/{number}")).status_code == 200
        answer = await client.post(f"/repos/{WEB}/issues/{number}/comments", json={"body": "hello"})
    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")
    assert "issues=write" in answer.headers["x-accepted-github-permissions"]
    assert github.comments(WEB, number) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"repositories": ["nowhere"]},
        {"repository_ids": [1]},
        {"permissions": {"administration": "write"}},
        {"permissions": {"metadata": "write"}},
    ],
)
async def test_a_token_for_too_much_is_not_minted(github: GitHubPlayground, wanted: Json) -> None:
    async with http(github) as client:
        installation = (await client.get(f"/repos/{WEB}/installation")).json()["id"]
        answer = await client.post(f"/app/installations/{installation}/access_tokens", json=wanted)
    assert answer.status_code == 422


async def test_an_app_not_installed_there_finds_nothing(github: GitHubPlayground) -> None:
    await github.add_repository("other/site", FILES, private=True, installed=False)
    async with http(github) as client:
        assert (await client.get("/repos/other/site/installation")).status_code == 404
    token = await token_for(github)
    github.uninstall(WEB)
    async with http(github, f"token {token}") as client:
        answer = await client.post(f"/repos/{WEB}/issues", json={"title": "hello"})
    assert answer.status_code == 403


# Issues


async def test_pygithub_reads_and_comments(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "eve", "greet() is rude", "Say more.")

    def use(client: Github) -> int:
        issue = client.get_repo(WEB).get_issue(number)
        assert (issue.title, issue.body, issue.user.login) == ("greet() is rude", "Say more.", "eve")
        comment = issue.create_comment("On it")
        comment.edit("Done")
        comment.create_reaction("rocket")
        issue.create_reaction("eyes")
        issue.add_to_labels("agent:working")
        issue.remove_from_labels("agent:working")
        other = issue.create_comment("gone soon")
        other.delete()
        assert [found.body for found in issue.get_comments()] == ["Done"]
        assert issue.get_comment(comment.id).user.type == "Bot"
        return comment.id

    comment_id = await with_pygithub(github, use)
    (comment,) = github.comments(WEB, number)
    assert (comment.id, comment.user.login, comment.body) == (comment_id, "sandpiper[bot]", "Done")
    assert [reaction.content for reaction in comment.reactions] == ["rocket"]
    assert [reaction.content for reaction in github.issue(WEB, number).reactions] == ["eyes"]
    assert github.issue(WEB, number).labels == []


async def test_pygithub_opens_lists_and_closes_issues(github: GitHubPlayground) -> None:
    def use(client: Github) -> tuple[list[str], list[str]]:
        repository = client.get_repo(github.repository(WEB).id)
        first = repository.create_issue("one", "body", labels=["bug"])
        for name in ("two", "three"):
            repository.create_issue(name)
        first.edit(state="closed")
        repository.requester.per_page = 1
        opened = [issue.title for issue in repository.get_issues()]
        return opened, [issue.title for issue in repository.get_issues(state="closed", labels=["bug"])]

    assert await with_pygithub(github, use) == (["three", "two"], ["one"])


async def test_a_comment_may_have_65536_characters(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")

    def use(client: Github) -> tuple[int, str]:
        issue = client.get_repo(WEB).get_issue(number)
        issue.create_comment("ü" * 65_536)
        with pytest.raises(GithubException) as refused:
            issue.create_comment("x" * 65_537)
        return refused.value.status, refused.value.data["errors"][0]["message"]

    assert await with_pygithub(github, use) == (422, "Body is too long (maximum is 65536 characters)")
    assert len(github.comments(WEB, number)) == 1


async def test_what_is_malformed_is_answered_with_a_reason(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    issue = f"/repos/{WEB}/issues/{number}"
    async with await as_installation(github) as client:
        for request, status, message in (
            (client.post(f"{issue}/comments", json={"body": " "}), 422, "Validation Failed"),
            (client.post(f"{issue}/comments", json={"body": 5}), 422, "Validation Failed"),
            (client.post(f"{issue}/comments", content=b"{"), 400, "Problems parsing JSON"),
            (client.post(f"{issue}/reactions", json={"content": "thumbsup"}), 422, "Validation Failed"),
            (client.post(f"{issue}/labels", json={"labels": []}), 422, "Validation Failed"),
            (client.delete(f"{issue}/labels/none"), 404, "Label does not exist"),
            (client.get(f"/repos/{WEB}/issues/99"), 404, "Not Found"),
            (client.get(f"/repos/{WEB}/issues/comments/99"), 404, "Not Found"),
            (client.patch(issue, json={"state": "asleep"}), 422, "Validation Failed"),
            (client.post(f"/repos/{WEB}/issues", json={}), 422, "Validation Failed"),
            (client.get("/repos/acme/nowhere"), 404, "Not Found"),
            (client.put("/no/such/thing"), 404, "Not Found"),
        ):
            answer = await request
            assert (answer.status_code, answer.json()["message"]) == (status, message)
            assert answer.json()["status"] == str(status)


async def test_a_second_reaction_of_one_kind_is_the_first(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    async with await as_installation(github) as client:
        url = f"/repos/{WEB}/issues/{number}/reactions"
        first = await client.post(url, json={"content": "eyes"})
        second = await client.post(url, json={"content": "eyes"})
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["id"] == second.json()["id"]
        assert (await client.delete(f"{url}/{first.json()['id']}")).status_code == 204
    assert github.issue(WEB, number).reactions == []


@pytest.mark.parametrize(
    ("role", "permission"),
    [("admin", "admin"), ("maintain", "write"), ("write", "write"), ("triage", "read"), ("read", "read")],
)
async def test_a_collaborators_permission_is_coarse_and_the_role_is_not(
    github: GitHubPlayground, role: Any, permission: str
) -> None:
    github.add_user("cyd", {WEB: role})

    def use(client: Github) -> tuple[str, str]:
        repository = client.get_repo(WEB)
        return repository.get_collaborator_permission("cyd"), repository.get_collaborator_role_name("cyd")

    assert await with_pygithub(github, use) == (permission, role)


async def test_strangers_read_what_is_public_and_have_no_permission_elsewhere(
    github: GitHubPlayground,
) -> None:
    await github.add_repository("acme/secret", FILES, private=True)
    async with await as_installation(github) as client:
        public = (await client.get(f"/repos/{WEB}/collaborators/eve/permission")).json()
        private = (await client.get("/repos/acme/secret/collaborators/eve/permission")).json()
        nobody = await client.get(f"/repos/{WEB}/collaborators/nobody/permission")
    assert (public["permission"], private["permission"], nobody.status_code) == ("read", "none", 404)


async def test_people_are_held_to_their_roles(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "eve", "mine")
    for forbidden in (
        lambda: github.label(WEB, number, "agent", by="eve"),
        lambda: github.open_issue(WEB, "eve", "labelled", labels=["agent"]),
    ):
        with pytest.raises(Refusal, match="triage"):
            forbidden()
    with pytest.raises(Refusal, match="write"):
        await github.push_commit(WEB, "main", {"a": "b"}, by="eve")
    github.close_issue(WEB, number, "eve")
    assert github.issue(WEB, number).state == "closed"


async def test_the_bots_account_is_not_the_app(github: GitHubPlayground) -> None:
    async with http(github) as client:
        bot = (await client.get("/users/sandpiper[bot]")).json()
        assert (bot["login"], bot["type"], bot["id"]) == ("sandpiper[bot]", "Bot", github.bot.id)
        assert (await client.get("/users/ana")).json()["type"] == "User"
        assert (await client.get("/users/nobody")).status_code == 404
    assert bot["id"] != github.app_id


# Pull requests


async def test_pygithub_opens_follows_and_edits_a_pull_request(github: GitHubPlayground) -> None:
    first = await github.push_commit(WEB, "polite", {"web.py": "def greet():\n    return 'hello'\n"}, "ben")

    def use(client: Github) -> int:
        repository = client.get_repo(WEB)
        pull = repository.create_pull(
            base="main", head="polite", title="Be polite", body="Please", draft=True
        )
        assert (pull.draft, pull.user.login, pull.head.sha, pull.base.ref) == (
            True, "sandpiper[bot]", first, "main",
        )  # fmt: skip
        assert (pull.commits, pull.changed_files, pull.additions, pull.deletions) == (1, 1, 1, 1)
        assert [commit.sha for commit in pull.get_commits()] == [first]
        (file,) = pull.get_files()
        assert (file.filename, file.status) == ("web.py", "modified")
        assert "+    return 'hello'" in file.patch
        pull.mark_ready_for_review()
        pull.create_review_request(["ana"])
        pull.edit(body="Fixes the manners")
        (found,) = repository.get_pulls(state="open", head="acme:polite")
        assert found.number == pull.number
        assert repository.get_pulls(head="acme:other").totalCount == 0
        again = repository.get_pull(pull.number)
        assert (again.draft, again.body, again.mergeable) == (False, "Fixes the manners", True)
        again.as_issue().create_comment("Ready")
        return pull.number

    number = await with_pygithub(github, use)
    second = await github.push_commit(WEB, "polite", {"new.txt": "new\n"}, "ben")
    (pull,) = github.pull_requests(WEB)
    assert pull.pull is not None
    assert (pull.number, pull.pull.head_sha, pull.pull.commits) == (number, second, 2)
    assert [comment.body for comment in github.comments(WEB, number)] == ["Ready"]
    assert "+    return 'hello'" in await github.diff(WEB, number)


async def test_a_pull_request_that_cannot_be_is_refused_as_github_does(github: GitHubPlayground) -> None:
    await github.push_commit(WEB, "polite", {"a.txt": "a\n"}, "ben")
    await github.push_commit(WEB, "same", {}, "ben")
    async with await as_installation(github) as client:

        async def refusal(**wanted: str) -> Json:
            answer = await client.post(f"/repos/{WEB}/pulls", json={"title": "t", "base": "main"} | wanted)
            assert answer.status_code == 422
            error: Json = answer.json()["errors"][0]
            return error

        wanted = {"title": "t", "base": "main", "head": "polite"}
        assert (await client.post(f"/repos/{WEB}/pulls", json=wanted)).status_code == 201
        twice = await refusal(head="acme:polite")
        assert twice["message"] == "A pull request already exists for acme:polite."
        nothing = await refusal(head="main")
        assert nothing["message"] == "No commits between main and main"
        assert await refusal(head="polite", base="gone") == {
            "resource": "PullRequest", "field": "base", "code": "invalid",
        }  # fmt: skip
        assert (await refusal(head="gone"))["field"] == "head"
        assert (await refusal(head="stranger:polite"))["field"] == "head"
        assert (await refusal(head="same", title=""))["field"] == "title"
    assert len(github.pull_requests(WEB)) == 1


async def test_renamed_binary_and_oddly_named_files_are_told_apart(github: GitHubPlayground) -> None:
    text = FILES["web.py"]
    await github.push_commit(
        WEB,
        "odd",
        {"web.py": None, "site.py": text, "logo.png": b"\x89PNG\x00\xff", "grüße.txt": "ü\n"},
        "ben",
    )
    number = await github.open_pull_request(WEB, "ben", "odd", "Odd files")

    def use(client: Github) -> list[tuple[str, str, str | None, int, bool]]:
        files = client.get_repo(WEB).get_pull(number).get_files()
        return [(f.filename, f.status, f.previous_filename, f.changes, f.patch is None) for f in files]

    assert sorted(await with_pygithub(github, use)) == [
        ("grüße.txt", "added", None, 1, False),
        ("logo.png", "added", None, 0, True),
        ("site.py", "renamed", "web.py", 0, True),
    ]


async def test_a_branch_brought_up_to_its_base_counts_its_own_commits(github: GitHubPlayground) -> None:
    await github.push_commit(WEB, "topic", {"a.txt": "a\n"}, "ben")
    number = await github.open_pull_request(WEB, "ben", "topic", "A file")
    await github.push_commit(WEB, "main", {"b.txt": "b\n"}, "ben")
    sync = await github.open_pull_request(WEB, "ben", "main", "Sync", base="topic")
    await github.merge(WEB, sync, "ben")
    pull = github.issue(WEB, number).pull
    assert pull is not None
    assert (pull.commits, pull.changed_files) == (2, 1)


async def test_lists_ignore_a_head_without_its_owner(github: GitHubPlayground) -> None:
    await github.push_commit(WEB, "polite", {"a.txt": "a\n"}, "ben")
    await github.open_pull_request(WEB, "ben", "polite", "Be polite")
    async with await as_installation(github) as client:
        everything = await client.get(f"/repos/{WEB}/pulls", params={"head": "other"})
        nothing = await client.get(f"/repos/{WEB}/pulls", params={"head": "acme:other"})
    assert (len(everything.json()), nothing.json()) == (1, [])


async def test_merging_really_merges_and_closes_what_it_fixes(
    github: GitHubPlayground, receiver: Receiver
) -> None:
    issue = github.open_issue(WEB, "ana", "rude")
    await github.push_commit(WEB, "polite", {"polite.txt": "please\n"}, "ben")
    number = await github.open_pull_request(WEB, "ben", "polite", "Be polite", f"Fixes #{issue}")
    merged = await github.merge(WEB, number, by="ana")
    assert (await github.branches(WEB))["main"] == merged
    assert await github.read_file(WEB, "main", "polite.txt") == "please\n"
    assert github.issue(WEB, issue).state == "closed"
    await github.wait_for(lambda: receiver.payloads("issues", "closed"))
    (closed,) = await github.wait_for(lambda: receiver.payloads("pull_request", "closed"))
    assert closed["pull_request"]["merged"] is True
    assert closed["pull_request"]["merge_commit_sha"] == merged
    with pytest.raises(Refusal, match="not mergeable"):
        await github.merge(WEB, number, by="ana")


async def test_a_conflict_shows_and_does_not_merge(github: GitHubPlayground) -> None:
    await github.push_commit(WEB, "polite", {"web.py": "def greet():\n    return 'hello'\n"}, "ben")
    number = await github.open_pull_request(WEB, "ben", "polite", "Be polite")
    await github.push_commit(WEB, "main", {"web.py": "def greet():\n    return 'yo'\n"}, "ben")
    async with await as_installation(github) as client:
        pull = (await client.get(f"/repos/{WEB}/pulls/{number}")).json()
    assert (pull["mergeable"], pull["mergeable_state"]) == (False, "dirty")


async def test_pygithub_reads_branches_refs_files_and_differences(github: GitHubPlayground) -> None:
    base = (await github.branches(WEB))["main"]
    head = await github.push_commit(WEB, "more/files", {"docs/a b.md": "A\n", "README.md": None}, "ben")

    def use(client: Github) -> None:
        repository = client.get_repo(WEB)
        assert repository.default_branch == "main"
        assert repository.get_branch("more/files").commit.sha == head
        assert sorted(branch.name for branch in repository.get_branches()) == ["main", "more/files"]
        assert repository.get_git_ref("heads/main").object.sha == base
        with pytest.raises(UnknownObjectException):
            repository.get_git_ref("heads/gone").object  # noqa: B018 - reading it makes the call
        text = repository.get_contents("docs/a b.md", ref=head)
        assert not isinstance(text, list)
        assert text.decoded_content == b"A\n"
        listing = repository.get_contents("", ref="main")
        assert isinstance(listing, list)
        assert sorted(entry.path for entry in listing) == ["README.md", "web.py"]
        comparison = repository.compare("main", "more/files")
        assert (comparison.status, comparison.ahead_by, comparison.behind_by) == ("ahead", 1, 0)
        assert {file.filename: file.status for file in comparison.files} == {
            "docs/a b.md": "added", "README.md": "removed",
        }  # fmt: skip
        commit = repository.get_commit(head)
        assert (commit.author.login, commit.stats.total) == ("ben", 2)
        assert [file.filename for file in repository.get_commit(base).files] == ["README.md", "web.py"]
        assert repository.compare(head, base).status == "behind"
        assert repository.compare(base, base).status == "identical"

    await with_pygithub(github, use)


# Webhooks


async def test_a_webhook_is_signed_and_says_for_whom_it_is(
    github: GitHubPlayground, receiver: Receiver
) -> None:
    number = github.open_issue(WEB, "eve", "grüße", "ü")
    await github.wait_for(lambda: receiver.payloads("issues", "opened"))
    headers, body = receiver.got[0]
    expected = hmac.new(github.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={expected}"
    assert headers["x-github-event"] == "issues"
    assert headers["x-github-hook-installation-target-id"] == str(github.app_id)
    payload = json.loads(body)
    assert payload["issue"]["number"] == number
    assert payload["sender"]["login"] == "eve"
    assert payload["repository"]["id"] == github.repository(WEB).id
    assert payload["repository"]["default_branch"] == "main"
    assert payload["installation"]["id"] == github.install(WEB)
    assert github.deliveries[0].guid == headers["x-github-delivery"]


async def test_every_change_has_its_event(github: GitHubPlayground, receiver: Receiver) -> None:
    number = github.open_issue(WEB, "ana", "one", labels=["bug"])
    github.label(WEB, number, "agent", by="ben")
    github.label(WEB, number, "Agent", by="ben")
    github.unlabel(WEB, number, "agent", by="ben")
    github.edit_issue(WEB, number, "ana", title="uno", body="new")
    comment = github.comment(WEB, number, "ben", "first")
    github.edit_comment(WEB, comment, "ben", "second")
    github.delete_comment(WEB, comment, "ben")
    github.close_issue(WEB, number, "ana")
    github.reopen_issue(WEB, number, "ana")
    await github.push_commit(WEB, "topic", {"a.txt": "a\n"}, "ben")
    pull = await github.open_pull_request(WEB, "ben", "topic", "A pull request")
    await github.push_commit(WEB, "topic", {"a.txt": "b\n"}, "ben")
    github.close_issue(WEB, pull, "ben")
    github.reopen_issue(WEB, pull, "ben")
    await github.delete_branch(WEB, "topic", "ben")
    seen = [
        ("issues", "opened"), ("issues", "labeled"), ("issues", "labeled"), ("issues", "unlabeled"),
        ("issues", "edited"), ("issue_comment", "created"), ("issue_comment", "edited"),
        ("issue_comment", "deleted"), ("issues", "closed"), ("issues", "reopened"), ("push", None),
        ("pull_request", "opened"), ("push", None), ("pull_request", "synchronize"),
        ("pull_request", "closed"), ("pull_request", "reopened"), ("push", None), ("pull_request", "closed"),
    ]  # fmt: skip
    await github.wait_for(lambda: len(github.deliveries) >= len(seen))
    assert [(delivery.event, delivery.action) for delivery in github.deliveries] == seen
    (edited,) = receiver.payloads("issues", "edited")
    assert edited["changes"] == {"title": {"from": "one"}, "body": {"from": ""}}
    assert receiver.payloads("issues", "labeled")[1]["label"]["name"] == "agent"
    assert receiver.payloads("issue_comment", "edited")[0]["changes"] == {"body": {"from": "first"}}
    moved = receiver.payloads("pull_request", "synchronize")[0]
    pushes = receiver.payloads("push")
    assert (moved["before"], moved["after"]) == (pushes[1]["before"], pushes[1]["after"])
    assert (pushes[0]["created"], pushes[2]["deleted"]) == (True, True)
    assert pushes[1]["commits"][0]["modified"] == ["a.txt"]


async def test_the_bot_hears_itself(github: GitHubPlayground, receiver: Receiver) -> None:
    number = github.open_issue(WEB, "ana", "one")
    async with await as_installation(github) as client:
        await client.post(f"/repos/{WEB}/issues/{number}/comments", json={"body": "hello"})
        await client.post(f"/repos/{WEB}/issues/{number}/labels", json=["agent:working"])
    (labeled,) = await github.wait_for(lambda: receiver.payloads("issues", "labeled"))
    (commented,) = receiver.payloads("issue_comment")
    assert [event["sender"]["type"] for event in (labeled, commented)] == ["Bot", "Bot"]
    assert commented["comment"]["performed_via_github_app"]["id"] == github.app_id


async def test_nothing_is_told_of_repositories_without_the_app(
    github: GitHubPlayground, receiver: Receiver
) -> None:
    await github.add_repository("acme/other", FILES, installed=False)
    github.open_issue("acme/other", "eve", "unheard")
    github.install("acme/other")
    github.open_issue("acme/other", "eve", "heard")
    await github.wait_for(lambda: len(github.deliveries) == 2)
    (added,) = receiver.payloads("installation_repositories", "added")
    assert [repository["full_name"] for repository in added["repositories_added"]] == ["acme/other"]
    assert [payload["issue"]["title"] for payload in receiver.payloads("issues")] == ["heard"]


async def test_a_failed_delivery_is_not_repeated_until_asked_for(
    github: GitHubPlayground, receiver: Receiver
) -> None:
    receiver.status = 503
    github.open_issue(WEB, "ana", "one")
    await github.wait_for(lambda: github.deliveries)
    async with http(github) as client:
        (failed,) = (await client.get("/app/hook/deliveries", params={"status": "failure"})).json()
        assert (failed["status_code"], failed["event"], failed["action"]) == (503, "issues", "opened")
        receiver.status = 200
        again = await client.post(f"/app/hook/deliveries/{failed['id']}/attempts")
        assert again.status_code == 202
        await github.wait_for(lambda: len(github.deliveries) == 2)
        newest, oldest = (await client.get("/app/hook/deliveries")).json()
        whole = (await client.get(f"/app/hook/deliveries/{newest['id']}")).json()
        first_page = await client.get("/app/hook/deliveries", params={"per_page": 1})
        second_page = await client.get(first_page.links["next"]["url"])
    assert (newest["redelivery"], newest["status"], newest["guid"]) == (True, "OK", failed["guid"])
    assert oldest["id"] == failed["id"] == second_page.json()[0]["id"]
    assert "next" not in second_page.links
    assert whole["request"]["payload"]["issue"]["title"] == "one"
    assert receiver.got[0][1] == receiver.got[1][1]
    assert receiver.got[0][0]["x-github-delivery"] == receiver.got[1][0]["x-github-delivery"]


async def test_a_receiver_that_is_late_or_away_is_written_down(
    github: GitHubPlayground, receiver: Receiver
) -> None:
    receiver.delay = 1
    github.webhook_timeout = 0.05
    github.open_issue(WEB, "ana", "late")
    await github.wait_for(lambda: len(github.deliveries) == 1)
    github.webhook_url = "http://127.0.0.1:1/hook"
    github.open_issue(WEB, "ana", "away")
    await github.wait_for(lambda: len(github.deliveries) == 2)
    assert [(delivery.status, delivery.status_code) for delivery in github.deliveries] == [
        ("timed out", 0), ("failed to connect to host", 0),
    ]  # fmt: skip


# Limits and faults


async def test_content_is_limited_when_limits_are_on(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    github.limits = Limits(content_per_minute=2, status=429)
    async with await as_installation(github) as client:
        url = f"/repos/{WEB}/issues/{number}/comments"
        answers = [await client.post(url, json={"body": str(i)}) for i in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert 0 < int(answers[2].headers["retry-after"]) <= 60
        assert "secondary rate limit" in answers[2].json()["message"]
        assert (await client.get(url)).status_code == 200


async def test_requests_are_limited_by_the_hour_and_by_points(tmp_path: Path) -> None:
    now = [time.time()]
    limits = Limits(requests_per_hour=20, points_per_minute=12)
    github = GitHubPlayground(tmp_path, clock=lambda: now[0], limits=limits)
    async with github.serve():
        await github.add_repository(WEB, FILES)
        async with await as_installation(github) as client:
            first = await client.get(f"/repos/{WEB}")
            assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == (
                "20",
                "19",
            )
            writes = [await client.post(f"/repos/{WEB}/labels", json={"name": str(i)}) for i in range(3)]
            assert [answer.status_code for answer in writes] == [201, 201, 403]
            now[0] += 61
            statuses = []
            for _ in range(18):
                statuses.append((await client.get("/rate_limit")).status_code)
                now[0] += 6
            last = await client.get(f"/repos/{WEB}")
    assert statuses == [200] * 17 + [403]
    assert last.json()["message"].startswith("API rate limit exceeded for installation ID")
    assert last.headers["x-ratelimit-remaining"] == "0"
    assert "retry-after" not in last.headers


async def test_a_call_can_be_made_to_fail(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    github.fail_next("POST", r"/comments$", 502, times=2)
    async with await as_installation(github) as client:
        url = f"/repos/{WEB}/issues/{number}/comments"
        statuses = [(await client.post(url, json={"body": "x"})).status_code for _ in range(3)]
    assert statuses == [502, 502, 201]
    assert len(github.comments(WEB, number)) == 1
    assert [call.status for call in github.calls_to("POST", "/comments$")] == statuses
    assert github.calls[-1].body == {"body": "x"}


async def test_an_answer_can_be_lost_after_the_act(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    github.lose_answer_next("POST", r"/comments$")
    async with await as_installation(github) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"/repos/{WEB}/issues/{number}/comments", json={"body": "x"})
        found = (await client.get(f"/repos/{WEB}/issues/{number}/comments")).json()
    assert [comment["body"] for comment in found] == ["x"]


async def test_waiting_in_vain_tells_what_was_seen(github: GitHubPlayground) -> None:
    async with await as_installation(github) as client:
        await client.get(f"/repos/{WEB}")
    with pytest.raises(TimeoutError, match=f"GET /repos/{WEB} 200"):
        await github.wait_for(lambda: github.pull_requests(WEB), timeout=0.01)
