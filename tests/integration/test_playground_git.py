"""The loopback GitHub's git over HTTP, used by the real git with a token in a header, as the bot does it."""

import asyncio
import base64
import gzip
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.playground.git_records import NOTHING
from handlers.playground.github import GitHubPlayground
from handlers.playground.github_demo import REPOSITORY, seed_demo
from tests.integration.test_playground_github import (
    FILES,
    WEB,
    Receiver,
    github,
    http,
    receiver,
    token_for,
)

__all__ = ["github", "receiver"]  # fixtures


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


class Client:
    """The real git in a directory of its own, with a token in its environment only."""

    def __init__(self, home: Path, token: str) -> None:
        self.home = home
        self.token = token

    async def git(self, *args: str, cwd: Path | None = None, **more: str) -> Ran:
        secret = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Bot",
            "GIT_AUTHOR_EMAIL": "bot@example.com",
            "GIT_COMMITTER_NAME": "Bot",
            "GIT_COMMITTER_EMAIL": "bot@example.com",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {secret}" if self.token else "X-Nobody: yes",
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            "git",
            *args,
            cwd=cwd or self.home,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def clone(self, github: GitHubPlayground, full_name: str = WEB) -> Path:
        ran = await self.git("clone", "--quiet", f"{github.base_url}/{full_name}.git", "work")
        assert ran.code == 0, ran.err
        return self.home / "work"

    async def commit(self, work: Path, files: Mapping[str, str | bytes], message: str = "Change") -> str:
        for name, content in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        await self.git("add", "--all", cwd=work)
        ran = await self.git("commit", "--quiet", "-m", message, cwd=work)
        assert ran.code == 0, ran.err
        return (await self.git("rev-parse", "HEAD", cwd=work)).out.strip()


async def a_client(github: GitHubPlayground, home: Path, **wanted: Any) -> Client:
    home.mkdir(exist_ok=True)
    return Client(home, await token_for(github, **wanted))


@pytest.fixture
async def client(github: GitHubPlayground, tmp_path: Path) -> AsyncIterator[Client]:
    yield await a_client(github, tmp_path / "client", permissions={"contents": "write"})


async def test_clone_and_push_with_a_token_in_the_environment(
    github: GitHubPlayground, receiver: Receiver, client: Client
) -> None:
    work = await client.clone(github)
    assert (work / "README.md").read_text() == "# web\n"
    await client.git("checkout", "--quiet", "-b", "topic", cwd=work)
    made = await client.commit(work, {"new.txt": "new\n"}, "Add a file")
    pushed = await client.git("push", "origin", "topic", cwd=work)
    assert pushed.code == 0, pushed.err
    assert (await github.branches(WEB))["topic"] == made
    (push,) = await github.wait_for(lambda: receiver.payloads("push"))
    assert (push["ref"], push["before"], push["after"]) == ("refs/heads/topic", NOTHING, made)
    assert (push["sender"]["login"], push["pusher"]["name"]) == ("sandpiper[bot]", "sandpiper[bot]")
    assert [(c["message"], c["added"]) for c in push["commits"]] == [("Add a file", ["new.txt"])]
    assert push["head_commit"]["id"] == made


async def test_a_push_brings_its_pull_request_up_to_date_at_once(
    github: GitHubPlayground, receiver: Receiver, client: Client
) -> None:
    await github.push_commit(WEB, "topic", {"a.txt": "a\n"}, "ben")
    number = await github.open_pull_request(WEB, "ben", "topic", "A file")
    work = await client.clone(github)
    await client.git("checkout", "--quiet", "topic", cwd=work)
    made = await client.commit(work, {"b.txt": "b\n"})
    assert (await client.git("push", "--quiet", "origin", "topic", cwd=work)).code == 0
    pull = github.issue(WEB, number).pull
    assert pull is not None
    assert (pull.head_sha, pull.commits, pull.changed_files) == (made, 2, 2)
    fetched = await client.git("ls-remote", "origin", f"refs/pull/{number}/head", cwd=work)
    assert fetched.out.split() == [made, f"refs/pull/{number}/head"]
    (moved,) = await github.wait_for(lambda: receiver.payloads("pull_request", "synchronize"))
    assert moved["after"] == made


async def test_history_can_be_replaced_with_a_lease_and_that_shows(
    github: GitHubPlayground, receiver: Receiver, client: Client
) -> None:
    await github.push_commit(WEB, "topic", {"a.txt": "a\n"}, "ben")
    work = await client.clone(github)
    await client.git("checkout", "--quiet", "-b", "topic", "origin/main", cwd=work)
    await client.commit(work, {"a.txt": "mine\n"})
    stale = await client.git("push", "--force-with-lease=topic:" + "1" * 40, "origin", "topic", cwd=work)
    assert stale.code != 0
    assert "stale info" in stale.err
    assert (await client.git("push", "--force-with-lease", "origin", "topic", cwd=work)).code == 0
    forced = await github.wait_for(lambda: [p for p in receiver.payloads("push") if p["forced"]])
    assert forced[0]["ref"] == "refs/heads/topic"


async def test_an_expired_token_makes_git_ask_and_fail(
    github: GitHubPlayground, client: Client, tmp_path: Path
) -> None:
    work = await client.clone(github)
    await client.commit(work, {"a.txt": "a\n"})
    github.expire_tokens()
    refused = await client.git("push", "origin", "HEAD:topic", cwd=work)
    assert refused.code == 128
    assert "could not read Username" in refused.err
    async with http(github) as web:
        url = f"/{WEB}.git/info/refs?service=git-receive-pack"
        answer = await web.get(url, auth=("x-access-token", client.token))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="GitHub"')
        assert answer.text.startswith("Invalid username or token.")
    nobody = await Client(tmp_path, "").git("ls-remote", f"{github.base_url}/{WEB}.git")
    assert nobody.code == 128
    assert "could not read Username" in nobody.err
    assert list(await github.branches(WEB)) == ["main"]


async def test_a_push_needs_contents_write(github: GitHubPlayground, tmp_path: Path) -> None:
    reader = await a_client(github, tmp_path / "reader", permissions={"contents": "read"})
    work = await reader.clone(github)
    await reader.commit(work, {"a.txt": "a\n"})
    refused = await reader.git("push", "origin", "HEAD:topic", cwd=work)
    assert refused.code == 128
    assert "Permission to acme/web.git denied to sandpiper[bot]." in refused.err
    assert "403" in refused.err


async def test_a_repository_out_of_reach_is_not_there(github: GitHubPlayground, tmp_path: Path) -> None:
    await github.add_repository("acme/secret", FILES, private=True)
    await github.add_repository("acme/closed", FILES, private=True)
    client = await a_client(
        github, tmp_path / "client", repositories=["web", "closed"], permissions={"issues": "write"}
    )
    for name, message in (
        ("secret", "Repository not found."),
        ("nowhere", "Repository not found."),
        ("closed", "Write access to repository not granted."),
    ):
        refused = await client.git("ls-remote", f"{github.base_url}/acme/{name}.git")
        assert refused.code == 128
        assert message in refused.err


async def test_a_ruleset_can_refuse_a_push(github: GitHubPlayground, client: Client) -> None:
    work = await client.clone(github)
    await client.commit(work, {"a.txt": "a\n"})
    github.refuse_push_next("error: GH013: Repository rule violations found for refs/heads/topic.")
    refused = await client.git("push", "origin", "HEAD:topic", cwd=work)
    assert refused.code == 1
    assert "remote: error: GH013" in refused.err
    assert "pre-receive hook declined" in refused.err
    assert (await client.git("push", "origin", "HEAD:topic", cwd=work)).code == 0


async def test_workflows_need_a_permission_of_their_own(
    github: GitHubPlayground, client: Client, tmp_path: Path
) -> None:
    work = await client.clone(github)
    await client.commit(work, {".github/workflows/ci.yml": "on: push\n"})
    refused = await client.git("push", "origin", "HEAD:topic", cwd=work)
    assert refused.code == 1
    assert "without `workflows` permission" in refused.err


async def test_pull_requests_refs_and_the_dumb_protocol_are_closed(
    github: GitHubPlayground, client: Client
) -> None:
    work = await client.clone(github)
    await client.commit(work, {"a.txt": "a\n"})
    refused = await client.git("push", "origin", "HEAD:refs/pull/7/head", cwd=work)
    assert refused.code == 1
    assert "deny updating a hidden ref" in refused.err
    async with http(github) as web:
        dumb = await web.get(f"/{WEB}.git/info/refs", auth=("x-access-token", client.token))
        no_object = await web.get(f"/{WEB}.git/HEAD", auth=("x-access-token", client.token))
    assert (dumb.status_code, no_object.status_code) == (403, 404)


async def test_large_pushes_and_clones_stream(
    github: GitHubPlayground, client: Client, tmp_path: Path
) -> None:
    work = await client.clone(github)
    blob = os.urandom(8 * 1024 * 1024)
    made = await client.commit(work, {"big.bin": blob})
    # More than http.postBuffer, so git sends it in chunks of unknown total length.
    pushed = await client.git("push", "--quiet", "origin", "HEAD:big", cwd=work)
    assert pushed.code == 0, pushed.err
    assert (await github.branches(WEB))["big"] == made
    other = Client(tmp_path / "other", client.token)
    other.home.mkdir()
    url = f"{github.base_url}/{WEB}.git"
    cloned = await other.git("clone", "--quiet", "--depth=1", "--branch=big", url, "work")
    assert cloned.code == 0, cloned.err
    assert (other.home / "work" / "big.bin").read_bytes() == blob


async def test_protocol_2_and_compressed_requests_are_understood(
    github: GitHubPlayground, client: Client
) -> None:
    traced = await client.git("ls-remote", f"{github.base_url}/{WEB}.git", GIT_TRACE_PACKET="1")
    assert "version 2" in traced.err
    body = b"0014command=ls-refs\n0000"
    async with http(github) as web:
        answer = await web.post(
            f"/{WEB}.git/git-upload-pack",
            content=gzip.compress(body),
            headers={
                "Content-Encoding": "gzip",
                "Content-Type": "application/x-git-upload-pack-request",
                "Git-Protocol": "version=2",
            },
            auth=("x-access-token", client.token),
        )
    assert answer.status_code == 200
    assert b"refs/heads/main" in answer.content


async def test_a_push_whose_answer_is_lost_has_happened(github: GitHubPlayground, client: Client) -> None:
    work = await client.clone(github)
    made = await client.commit(work, {"a.txt": "a\n"})
    github.lose_answer_next("POST", "git-receive-pack$")
    lost = await client.git("push", "origin", "HEAD:topic", cwd=work)
    assert lost.code != 0
    assert (await github.branches(WEB))["topic"] == made
    again = await client.git("push", "origin", "HEAD:topic", cwd=work)
    assert (again.code, "Everything up-to-date" in again.err) == (0, True)


async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing_behind(
    github: GitHubPlayground, client: Client
) -> None:
    url = httpx.URL(github.base_url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    secret = base64.b64encode(f"x:{client.token}".encode()).decode()
    writer.write(
        f"POST /{WEB}.git/git-receive-pack HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 1000\r\n"
        "Content-Type: application/x-git-receive-pack-request\r\n"
        f"Authorization: Basic {secret}\r\n\r\n0094".encode()
    )
    await writer.drain()
    await github.wait_for(lambda: github.calls_to("POST", "git-receive-pack$"))
    writer.close()
    await writer.wait_closed()
    assert (await client.git("ls-remote", f"{github.base_url}/{WEB}.git")).code == 0
    assert list(await github.branches(WEB)) == ["main"]


async def test_the_demo_is_a_project_whose_tests_pass(tmp_path: Path) -> None:
    demo = GitHubPlayground(tmp_path / "github")
    async with demo.serve():
        await seed_demo(demo)
        client = await a_client(demo, tmp_path / "client", permissions={"contents": "read"})
        work = await client.clone(demo, REPOSITORY)
    assert len(demo.issues(REPOSITORY)) == 2
    roles = [demo.repository(REPOSITORY).role_of(login) for login in ("ana", "ben", "eve")]
    assert roles == ["admin", "write", "read"]
    tests = await asyncio.create_subprocess_exec(
        "python3", "-m", "unittest", "--quiet", cwd=work, stderr=asyncio.subprocess.PIPE
    )
    _, said = await tests.communicate()
    assert tests.returncode == 0, said
    assert b"Ran 2 tests" in said
