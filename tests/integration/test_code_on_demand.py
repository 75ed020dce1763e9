"""Code on demand at its door: real git against the Lender, and what its grants do not give."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from bot.models import Lent
from bot.redact import HIDDEN, redact, redact_tokens
from handlers.github.git import git
from handlers.github.grants import Grant, Grants, kept_key
from handlers.github.lender import LARGEST_REQUEST, MOST_WAITING, READ_ONLY, REFUSED, TOO_MUCH, TOO_OLD
from tests.contracts.forge.suite import showing
from tests.contracts.forge.workshop import ENVIRONMENT
from tests.github_stage import WEB, Stage, github_stage

V2 = {"Git-Protocol": "version=2"}
REFS = "info/refs?service=git-upload-pack"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with github_stage(tmp_path, on_demand_from=1) as stage:
        yield stage


async def lent(stage: Stage, name: str = WEB, turn: int = 1) -> Lent:
    repository = await stage.forge.repository(name)
    code = await stage.forge.bundle(repository, [], stage.data / "none.bundle", turn=turn)
    assert code.empty and code.lent and not (stage.data / "none.bundle").exists()
    return code.lent


async def said(lent: Lent, *words: str, cwd: Path) -> tuple[int, str]:
    """git's exit code and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *("git", *showing(lent), *words),
        cwd=cwd,
        env={**ENVIRONMENT, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def asked(
    lent: Lent,
    what: str = REFS,
    *,
    method: str = "GET",
    content: bytes | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> httpx.Response:
    shown = {**V2, "Authorization": f"Bearer {lent.grant}".strip(), **headers}
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(method, f"{lent.url}/{what}", headers=shown, content=content)


# What it gives


async def test_git_clones_without_contents_and_fetches_them_when_they_are_looked_at(
    stage: Stage, tmp_path: Path
) -> None:
    it = await lent(stage)
    clone = tmp_path / "clone"
    code, told = await said(
        it, "clone", "-q", "--filter=blob:none", "--no-checkout", it.url, "clone", cwd=tmp_path
    )
    assert (code, told) == (0, "")
    missing = ("rev-list", "--objects", "--all", "--missing=print")
    assert "\n?" in (await said(it, *missing, cwd=clone))[1]
    assert (await said(it, "show", "origin/main:README.md", cwd=clone)) == (0, "hello\n")
    assert (await said(it, "checkout", "-q", "main", cwd=clone))[0] == 0
    assert "\n?" not in (await said(it, *missing, cwd=clone))[1]


async def test_a_small_repository_comes_as_a_bundle(tmp_path: Path) -> None:
    async with github_stage(tmp_path) as stage:
        repository = await stage.forge.repository(WEB)
        code = await stage.forge.bundle(repository, [], tmp_path / "x.bundle", turn=1)
        assert not code.lent and (tmp_path / "x.bundle").exists()


# What it does not give


async def test_only_the_grant_as_it_is_opens_only_its_own_repository(stage: Stage) -> None:
    await stage.github.add_repository("acme/secret", {"keys.txt": "s\n"})
    secret = await lent(stage, "acme/secret")
    it = await lent(stage)
    (ours, theirs) = (int(each.url.rpartition("/")[2].removesuffix(".git")) for each in (it, secret))
    for turned in (
        replace(it, url=secret.url),
        replace(it, grant=it.grant.replace(f"_{ours}_", f"_{theirs}_"), url=secret.url),
        replace(it, grant=it.grant.replace("_1_", "_2_")),
        replace(it, grant=it.grant[:-1]),
        replace(it, grant=it.grant[:-2]),
        replace(it, grant=f"{it.grant}A"),
        replace(it, grant=it.grant.upper()),
        replace(secret, grant=Grants(b"x" * 32).written(Grant(theirs, 1))),
        replace(it, grant=f"spc_{ours}_1_"),
        replace(it, grant=""),
    ):
        answer = await asked(turned)
        assert (answer.status_code, answer.text.strip()) == (403, REFUSED), turned
    for good in (it, secret):
        assert (await asked(good)).status_code == 200
        assert (await said(good, "ls-remote", good.url, cwd=stage.data))[0] == 0


async def test_it_ends_with_its_turn_and_git_says_why(stage: Stage, tmp_path: Path) -> None:
    it = await lent(stage)
    stage.open.clear()
    code, told = await said(it, "ls-remote", it.url, cwd=tmp_path)
    assert code != 0 and f"remote: {REFUSED}" in told
    answer = await asked(it, "git-upload-pack", method="POST", content=b"0000")
    assert (answer.status_code, answer.text.strip()) == (403, REFUSED)


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("GET", ""),
        ("GET", "HEAD"),
        ("GET", "objects/info/packs"),
        ("GET", "info/refs"),
        ("GET", "config"),
        ("GET", "../1.git/info/refs?service=git-upload-pack"),
        ("GET", "..%2f1.git/info/refs?service=git-upload-pack"),
        ("GET", "%2e%2e/%2e%2e/code.key"),
        ("GET", "git-upload-pack"),
        ("POST", "info/refs?service=git-upload-pack"),
        ("POST", "git-upload-pack?x=1"),
        ("POST", "git-upload-archive"),
        ("PUT", "git-upload-pack"),
        ("PROPFIND", "info/refs?service=git-upload-pack"),
        ("GET", "info/refs?service=git-upload-archive"),
    ],
)
async def test_nothing_else_is_there(stage: Stage, method: str, what: str) -> None:
    it = await lent(stage)
    answer = await asked(it, what, method=method)
    assert answer.status_code == 403 and answer.text.strip() == REFUSED


async def test_nothing_can_be_pushed(stage: Stage, tmp_path: Path) -> None:
    it = await lent(stage)
    before = await stage.github.branches(WEB)
    assert (await said(it, "clone", "-q", it.url, "clone", cwd=tmp_path))[0] == 0
    clone = tmp_path / "clone"
    for words in (("commit", "-q", "--allow-empty", "-m", "Mine"), ("branch", "evil")):
        await said(it, *words, cwd=clone)
    code, told = await said(it, "push", "-q", "origin", "evil", cwd=clone)
    assert code != 0 and READ_ONLY in told
    answer = await asked(it, "git-receive-pack", method="POST", content=b"0000")
    assert (answer.status_code, answer.text.strip()) == (403, READ_ONLY)
    mirror = stage.mirrors.path(stage.repository_id)
    heads = await git("for-each-ref", "--format=%(refname:short)", cwd=mirror)
    assert set(heads.lines) == set(before) == set(await stage.github.branches(WEB))


async def test_names_other_than_branches_are_not_told(stage: Stage, tmp_path: Path) -> None:
    it = await lent(stage)
    mirror = stage.mirrors.path(stage.repository_id)
    for hidden in ("refs/pull/1/head", "refs/sandpiper/kept/turn-1", "refs/quarantine/head", "refs/tags/v1"):
        await git("update-ref", hidden, "refs/heads/main", cwd=mirror)
    code, told = await said(it, "ls-remote", it.url, cwd=tmp_path)
    assert code == 0
    assert {line.split("\t")[1] for line in told.splitlines()} - {"HEAD"} == {"refs/heads/main"}


async def test_what_is_not_in_the_repository_is_refused_by_git(stage: Stage, tmp_path: Path) -> None:
    it = await lent(stage)
    await said(it, "init", "-q", "clone", cwd=tmp_path)
    code, told = await said(it, "fetch", "-q", it.url, "1" * 40, cwd=tmp_path / "clone")
    assert code != 0 and "not our ref" in told


async def test_older_protocols_are_not_spoken(stage: Stage, tmp_path: Path) -> None:
    it = await lent(stage)
    for version in ("0", "1"):
        code, told = await said(it, "-c", f"protocol.version={version}", "ls-remote", it.url, cwd=tmp_path)
        assert code != 0 and f"remote: {TOO_OLD}" in told


# Too much of it


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b"0" * (LARGEST_REQUEST + 1)), 413),
        (b"no gzip at all", 400),
    ],
)
async def test_requests_are_bounded_when_they_are_unpacked(stage: Stage, body: bytes, status: int) -> None:
    it = await lent(stage)
    headers = {"Content-Encoding": "gzip"}
    answer = await asked(it, "git-upload-pack", method="POST", content=body, headers=headers)
    assert answer.status_code == status
    assert (await asked(it)).status_code == 200


async def test_who_asks_for_too_much_at_once_keeps_nobody_else_waiting(stage: Stage) -> None:
    """Requests that do not go on take the places of their own turn."""
    stage.open.add(2)
    it = await lent(stage)
    other = await lent(stage, turn=2)
    path = it.url.split("/", 3)[3]
    head = f"POST /{path}/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\n"
    head += f"Authorization: Bearer {it.grant}\r\n"
    writers = []
    for _ in range(MOST_WAITING):
        _, writer = await asyncio.open_connection("127.0.0.1", stage.lending)
        writer.write(f"{head}Content-Length: 9\r\n\r\n".encode())
        await writer.drain()
        writers.append(writer)
    async with asyncio.timeout(20):
        while (answer := await asked(other)).status_code == 200:
            full = await asyncio.wait_for(asked(it), 5)
            if full.status_code == 503:
                break
    assert answer.status_code == 200 and full.text.strip() == TOO_MUCH
    for writer in writers:
        writer.close()
    async with asyncio.timeout(20):
        while (await asked(it)).status_code != 200:
            pass


async def test_who_goes_away_leaves_no_git_behind(stage: Stage, tmp_path: Path) -> None:
    """The answer is larger than all buffers between."""
    noise = "".join(f"{number * 7919 % 1_000_003:07}" for number in range(2_000_000))
    await stage.github.push_commit(WEB, "main", {"noise.txt": noise}, "ada")
    it = await lent(stage)
    head = (await stage.github.branches(WEB))["main"]
    lines = [b"command=fetch", b"0001", b"no-progress", f"want {head}".encode(), b"done"]
    body = (
        b"".join(line if line == b"0001" else b"%04x%s" % (len(line) + 4, line) for line in lines) + b"0000"
    )
    shown = {**V2, "Authorization": f"Bearer {it.grant}"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=20) as client,
        client.stream("POST", f"{it.url}/git-upload-pack", content=body, headers=shown) as answer,
    ):
        assert answer.status_code == 200
        await anext(answer.aiter_raw())
        assert await serving(stage)
    async with asyncio.timeout(20):
        while await serving(stage):  # noqa: ASYNC110 processes ring no bell
            await asyncio.sleep(0.02)


async def serving(stage: Stage) -> list[Path]:
    """The git processes that work in the mirror."""
    mirror = stage.mirrors.path(stage.repository_id)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == mirror:
                found.append(process)
        except OSError:  # ended, or not ours
            continue
    return found


# The grant itself


def test_a_grant_is_the_same_in_the_next_life_of_the_bot(tmp_path: Path) -> None:
    key = tmp_path / "code.key"
    written = Grants(kept_key(key)).written(Grant(7, 9))
    assert Grants(kept_key(key)).read(written) == Grant(7, 9)
    assert key.stat().st_mode & 0o077 == 0
    key.write_bytes(b"half")
    assert Grants(kept_key(key)).read(written) is None


def test_a_grant_is_hidden_in_what_is_shown() -> None:
    shown = f"extraHeader = Authorization: Bearer {Grants(b'k' * 32).written(Grant(7, 9))}"
    assert redact(shown) == f"extraHeader = Authorization: Bearer {HIDDEN}"
    assert redact_tokens(shown) == redact(shown)
