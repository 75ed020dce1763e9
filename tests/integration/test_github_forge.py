"""Our GitHub App at work, beyond what every forge keeps to: tokens, limits, git and its surroundings."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bot.clock import SystemClock
from bot.errors import ForgeError, RepositoryUnknown, SettingsError
from bot.models import Repository
from handlers.github.accounts import Accounts
from handlers.github.auth import GitHubApp
from handlers.github.forge import GitHubForge
from handlers.github.git import GitFailed, git
from handlers.github.mirrors import Mirrors
from tests.contracts.forge.workshop import Workshop
from tests.github_stage import WEB, Stage, github_stage

BRANCH = "sandpiper/7-fix-0123abcd"
MINTS = r"/access_tokens$"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with github_stage(tmp_path) as stage:
        yield stage


async def test_a_fetch_that_takes_too_long_is_said_to_have(tmp_path: Path) -> None:
    """Of a server that takes the request and does not answer."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        mirrors = Mirrors(tmp_path / "mirrors", f"http://127.0.0.1:{port}", patience=0.5)
        with pytest.raises(ForgeError, match=r"stopped after 0\.5 s") as failed:
            async with mirrors.fresh(Repository(1, WEB, "main", False, 1), "token"):
                pass
    assert failed.value.retryable


async def at_work(stage: Stage, tmp_path: Path) -> tuple[Repository, Workshop]:
    """A sandbox with one commit to publish."""
    repository = await stage.forge.repository(WEB)
    workshop = await Workshop.made(tmp_path / "box")
    await workshop.bring_in(stage.forge, repository)
    await workshop.start(BRANCH)
    await workshop.commit({"a.txt": "1"})
    return repository, workshop


async def publish(stage: Stage, repository: Repository, workshop: Workshop) -> None:
    work = await workshop.work(BRANCH)
    await stage.forge.publish_branch(repository, await workshop.bundle(work.base_sha), work, "")


# tokens


async def test_every_token_is_for_one_repository_and_no_more_than_is_needed(
    stage: Stage, tmp_path: Path
) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    await stage.forge.permission(repository, stage.account("ada"))
    await stage.forge.pull_request(repository, await workshop.work(BRANCH), "Fix", "Done.", "m")
    minted = [call.body for call in stage.github.calls_to("POST", MINTS)]
    only = {"repository_ids": [repository.id]}
    assert minted == [
        {"permissions": {"metadata": "read"}},  # to learn the repository's id
        {"permissions": {"contents": "read"}} | only,
        {"permissions": {"contents": "write"}} | only,
        {"permissions": {"metadata": "read"}} | only,
        {"permissions": {"contents": "read", "pull_requests": "write"}} | only,
    ]


async def test_many_who_ask_at_once_share_one_token(stage: Stage) -> None:
    repository = await stage.forge.repository(WEB)
    before = len(stage.github.calls_to("POST", MINTS))
    roles = await asyncio.gather(
        *(stage.forge.permission(repository, stage.account("ada")) for _ in range(10))
    )
    assert roles == ["admin"] * 10
    assert len(stage.github.calls_to("POST", MINTS)) == before + 1


async def test_calls_at_the_same_time_do_not_get_each_others_answers(stage: Stage) -> None:
    repository = await stage.forge.repository(WEB)
    logins = ["ada", "mallory"] * 10
    roles = await asyncio.gather(
        *(stage.forge.permission(repository, stage.account(login)) for login in logins)
    )
    assert roles == ["admin", "read"] * 10


async def test_tokens_that_end_early_are_replaced(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    stage.github.expire_tokens()
    await workshop.bring_in(stage.forge, repository)
    await stage.forge.permission(repository, stage.account("ada"))
    stage.github.expire_tokens()
    assert await stage.forge.permission(repository, stage.account("ada")) == "admin"
    stage.github.expire_tokens()
    await publish(stage, repository, workshop)
    assert BRANCH in await stage.github.branches(WEB)


async def test_tokens_are_renewed_before_they_end(tmp_path: Path) -> None:
    async with github_stage(tmp_path, token_life=2.0) as stage:
        repository = await stage.forge.repository(WEB)
        until = asyncio.get_running_loop().time() + 3.0
        while asyncio.get_running_loop().time() < until:
            assert await stage.forge.permission(repository, stage.account("ada")) == "admin"
        assert not [call for call in stage.github.calls if call.status == 401]


async def test_no_token_is_in_gits_arguments_nor_on_disk(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("git")
    seen = tmp_path / "arguments"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    assert "push" in seen.read_text()
    kept = [path for path in stage.data.rglob("*") if path.is_file()]
    assert kept
    for path in (seen, *kept):
        content = path.read_bytes().lower()
        assert b"ghs_" not in content
        assert b"authorization" not in content


async def test_a_key_that_cannot_sign_is_told_at_once() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    encoded = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for key in ("-----BEGIN RSA PRIVATE KEY-----\nnonsense\n", encoded):
        with pytest.raises(SettingsError, match="SANDPIPER_GITHUB_PRIVATE_KEY"):
            GitHubApp(1, key, SystemClock())


async def test_a_key_of_another_app_is_told_by_name(stage: Stage) -> None:
    url = stage.github.base_url
    stranger = GitHubApp(
        stage.github.app_id + 1, stage.github.private_key_pem, SystemClock(), api_url=url, web_url=url
    )
    with pytest.raises(ForgeError) as wrong:
        await stranger.introduce("sandpiper")
    await stranger.close()
    assert "SANDPIPER_GITHUB_APP_ID" in wrong.value.mend
    assert not wrong.value.retryable


async def test_we_know_who_we_are(stage: Stage) -> None:
    assert stage.ourselves.slug == stage.github.slug
    assert stage.ourselves.login == stage.github.bot.login


# where we are not wanted


async def test_a_repository_without_the_app_tells_where_to_install_it(stage: Stage) -> None:
    await stage.github.add_repository("acme/other", {"a": "b"}, installed=False)
    with pytest.raises(RepositoryUnknown) as unknown:
        await stage.forge.repository("acme/other")
    assert "/apps/sandpiper/installations/new" in unknown.value.mend
    assert "acme/other" in unknown.value.mend


async def test_what_is_known_already_is_asked_for_in_one_round(stage: Stage) -> None:
    await stage.forge.repository(WEB)
    before = len(stage.github.calls_to("GET", f"/repos/{WEB}$"))
    with stage.github.holding("GET", "/installation$"):
        asking = asyncio.create_task(stage.forge.repository(WEB))
        await stage.github.wait_for(lambda: len(stage.github.calls_to("GET", f"/repos/{WEB}$")) > before)
        assert not asking.done(), "whether we are still installed there is asked all the same"
    assert (await asking).full_name == WEB


async def test_an_app_that_was_taken_away_is_noticed(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    stage.github.uninstall(WEB)
    with pytest.raises(RepositoryUnknown) as unknown:
        await stage.forge.bundle(repository, [], tmp_path / "x.bundle")
    assert unknown.value.mend


async def test_an_empty_repository_is_told_apart(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    await stage.github.delete_branch(WEB, "main", "ada")
    with pytest.raises(ForgeError, match="no commits yet") as empty:
        await stage.forge.bundle(repository, [], tmp_path / "x.bundle")
    assert empty.value.mend


# when GitHub has a bad day


async def test_a_read_is_tried_again(stage: Stage) -> None:
    repository = await stage.forge.repository(WEB)
    stage.github.fail_next("GET", "/permission$", 502, times=2)
    assert await stage.forge.permission(repository, stage.account("ada")) == "admin"


async def test_a_read_is_not_tried_for_ever(stage: Stage) -> None:
    repository = await stage.forge.repository(WEB)
    stage.github.fail_next("GET", "/permission$", 502, times=3)
    with pytest.raises(ForgeError) as failed:
        await stage.forge.permission(repository, stage.account("ada"))
    assert failed.value.retryable


async def test_a_write_is_never_repeated_by_itself(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    work = await workshop.work(BRANCH)
    stage.github.lose_answer_next("POST", "/pulls$")
    with pytest.raises(ForgeError):
        await stage.forge.pull_request(repository, work, "Fix", "Done.", "m")
    assert len(stage.github.calls_to("POST", "/pulls$")) == 1
    assert len(stage.github.pull_requests(WEB)) == 1


async def test_a_pull_request_that_the_list_does_not_show_yet_is_found(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    work = await workshop.work(BRANCH)
    first, second = await asyncio.gather(
        stage.forge.pull_request(repository, work, "Fix", "Done.", "m"),
        stage.forge.pull_request(repository, work, "Fix", "Done.", "m"),
    )
    assert first.number == second.number
    assert len(stage.github.pull_requests(WEB)) == 1


# people


async def test_who_takes_over_a_login_does_not_get_its_role(stage: Stage) -> None:
    repository = await stage.forge.repository(WEB)
    ada = stage.account("ada")
    assert await stage.forge.permission(repository, ada) == "admin"
    stage.github.rename_user("ada", "ada-lovelace")
    taker = str(stage.github.add_user("ada", {WEB: "write"}))
    assert taker != ada
    assert await stage.forge.permission(repository, ada) == "admin"
    stage.github.add_user("ada-lovelace", {WEB: "read"})
    assert await stage.forge.permission(repository, ada) == "read"
    assert await stage.forge.permission(repository, taker) == "write"


# what the agent writes into a pull request


async def test_a_pull_request_calls_nobody_but_who_asked(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    body = (
        "Look @mallory <img src=x> ghs_" + "a1" * 20 + "\n\nFixes #7\n\nAsked for by @ada through Sandpiper."
    )
    pull = await stage.forge.pull_request(
        repository, await workshop.work(BRANCH), "Fix", body, "m", issue="7"
    )
    shown = stage.github.issue(WEB, pull.number).body or ""
    assert "@mallory" not in shown
    assert "<img" not in shown
    assert "ghs_" not in shown
    assert "\n\nFixes #7\n\nAsked for by @ada through Sandpiper.\n\n<!-- m -->" in shown


async def test_a_merge_closes_the_issue_that_it_is_about_and_no_other(stage: Stage, tmp_path: Path) -> None:
    own, other, third = (stage.github.open_issue(WEB, "ada", title) for title in ("own", "other", "third"))
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    work = await workshop.work(BRANCH)
    body = f"Closes: #{other}\n\nFixes #{own}\n\nAsked for by @ada through Sandpiper."
    title = f"Resolve #{third}"
    pull = await stage.forge.pull_request(repository, work, title, body, "m", issue=str(own))
    await stage.github.merge(WEB, pull.number, by="ada")
    states = [stage.github.issue(WEB, number).state for number in (own, other, third)]
    assert states == ["closed", "open", "open"]


async def test_a_body_of_any_length_is_taken(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    work = await workshop.work(BRANCH)
    pull = await stage.forge.pull_request(repository, work, "x" * 999, "@a " * 60_000, "m")
    assert pull.created


# git and its surroundings


async def test_the_hosts_own_git_settings_do_not_reach_ours(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    (tmp_path / "config").write_text(
        f'[alias]\n[core]\nfsmonitor = "touch {trap}"\n[url "file:///nowhere"]\ninsteadOf = http\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    repository = await stage.forge.repository(WEB)
    code = await stage.forge.bundle(repository, [], tmp_path / "x.bundle")
    assert not code.empty
    assert not trap.exists()


async def test_sandboxes_of_one_repository_get_their_code_at_the_same_time(
    stage: Stage, tmp_path: Path
) -> None:
    repository = await stage.forge.repository(WEB)
    codes = await asyncio.gather(
        *(stage.forge.bundle(repository, [], tmp_path / f"{n}.bundle") for n in range(4))
    )
    assert len({tuple(code.refs.items()) for code in codes}) == 1
    assert all((tmp_path / f"{n}.bundle").exists() for n in range(4))


async def test_nothing_of_a_bundle_stays_behind(stage: Stage, tmp_path: Path) -> None:
    repository, workshop = await at_work(stage, tmp_path)
    await publish(stage, repository, workshop)
    assert [path.name for path in (stage.data / "mirrors").iterdir()] == [f"{repository.id}.git"]


async def test_a_damaged_mirror_is_made_anew(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    await stage.forge.bundle(repository, [], tmp_path / "1.bundle")
    (stage.data / "mirrors" / f"{repository.id}.git" / "HEAD").write_text("garbage")
    code = await stage.forge.bundle(repository, [], tmp_path / "2.bundle")
    assert (tmp_path / "2.bundle").exists()
    assert dict(code.refs) == await stage.github.branches(WEB)


async def test_what_a_killed_bot_left_half_done_is_cleared_away(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    await stage.forge.bundle(repository, [], tmp_path / "1.bundle")
    mirrors = stage.data / "mirrors"
    (mirrors / f"{repository.id}.git" / "packed-refs.lock").touch()
    (mirrors / "quarantine-x").mkdir()
    await stage.github.push_commit(WEB, "main", {"a.txt": "1"}, "ada")
    forge = GitHubForge(
        stage.app,
        stage.repositories,
        Accounts(stage.app),
        Mirrors(mirrors, stage.github.base_url),
        SystemClock(),
    )
    code = await forge.bundle(repository, [], tmp_path / "2.bundle")
    assert dict(code.refs) == await stage.github.branches(WEB)
    assert [path.name for path in mirrors.iterdir()] == [f"{repository.id}.git"]


async def test_a_cancelled_git_leaves_no_process_behind(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    running = asyncio.create_task(
        git(
            "-c",
            f"alias.wait=!echo $$ >{started}.new; mv {started}.new {started}; sleep 60",
            "wait",
            cwd=tmp_path,
        )
    )
    await until(started.exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not alive(int(started.read_text())))


async def test_git_that_is_cancelled_while_it_is_started_leaves_no_process_behind(tmp_path: Path) -> None:
    """On a busy machine it is at its work before we hear that it has started."""
    started = tmp_path / "pid"
    alias = f"alias.wait=!echo $$ >{started}.new; mv {started}.new {started}; sleep 60"
    before = children()
    running = asyncio.create_task(git("-c", alias, "wait", cwd=tmp_path))
    while children() == before:  # noqa: ASYNC110 - step by step, so that no step too many is done
        await asyncio.sleep(0)
    while not started.exists():
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is held up
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running
    await until(lambda: not alive(int(started.read_text())))


async def test_git_is_stopped_when_it_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match="took too long") as late:
        await git("-c", "alias.wait=!sleep 60", "wait", cwd=tmp_path, timeout=0.2)
    assert late.value.retryable


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def alive(pid: int) -> bool:
    """A process that has ended but was not waited for yet by its new parent is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
