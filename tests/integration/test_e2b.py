"""What E2B says of boxes, and how it fails, in our words: its real SDK against E2B's routes on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bot.errors import (
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import Launch, SandboxState
from sandbox.box import Address
from sandbox.e2b import Account, E2BBox, E2BProvider
from sandbox.remote import the_oldest
from tests.e2b_server import E2BServer, Fault, NearE2B
from tests.remote_boxes import entered, free_port

ANA = {"person": "ana", "tenant": "T1"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[E2BServer]:
    server = E2BServer(tmp_path / "e2b")
    await server.start()
    yield server
    for id in list(server.boxes):
        await server.lose(id)
    await server.close()


@pytest.fixture
async def provider(server: E2BServer) -> AsyncIterator[E2BProvider]:
    provider = NearE2B(server.account())
    yield provider
    await provider.close()


@pytest.fixture
async def box(provider: E2BProvider) -> E2BBox:
    return await provider.make(ANA)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 another program gets there
            await asyncio.sleep(0.01)


async def busy(server: E2BServer, box: E2BBox) -> asyncio.Task[object]:
    """A command that is at work in the box."""
    kept = server.boxes[box.id].box
    command = asyncio.create_task(box.run("touch ~/began; sleep 60", timeout=60))
    await until((kept.home / "began").exists)
    return command


# Its states


async def test_a_state_that_we_do_not_know_is_not_gone(server: E2BServer, box: E2BBox) -> None:
    server.faults = [Fault("GET /api/sandboxes/", 200, message="no sandbox at all")]
    with pytest.raises(SandboxUnreachable):
        await box.state()


async def test_stopped_by_us_it_keeps_nothing_that_ran_and_no_call_wakes_it(
    server: E2BServer, provider: E2BProvider
) -> None:
    sandbox = await entered(provider.create(ANA))
    process = await sandbox.spawn("p", Launch(("sleep", "600"), sandbox.home), fence=1, orphan_after=600)
    await sandbox.stop()
    assert not server.boxes[sandbox.id].box.processes()
    with pytest.raises(SandboxNotRunning):
        await process.status()
    assert (server.boxes[sandbox.id].state, server.boxes[sandbox.id].wakings) == ("paused", 0)


async def test_a_box_that_a_stop_may_harm_is_left_to_fall_asleep(server: E2BServer, box: E2BBox) -> None:
    server.boxes[box.id].envd = "0.6.5"
    with pytest.raises(SandboxError, match=r"Build the template again"):
        await box.stop()
    assert server.boxes[box.id].state == "running"
    server.boxes[box.id].envd = "0.10.0"
    await box.stop()
    assert server.boxes[box.id].state == "paused"


async def test_at_the_end_of_its_time_it_sleeps_and_the_next_call_wakes_all_that_ran(
    server: E2BServer, provider: E2BProvider
) -> None:
    sandbox = await entered(provider.create(ANA))
    echo = Launch(("sh", "-c", "while read line; do echo got $line; done"), sandbox.home)
    process = await sandbox.spawn("p", echo, fence=1, orphan_after=600)
    await process.write(0, b"one\n")
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"got one\n"
    await server.end_of_life(sandbox.id)
    assert await sandbox.state() is SandboxState.STOPPED
    await process.write(4, b"two\n")
    assert (await process.read(1, 8, ack=8, wait=20)).data == b"got two\n"
    assert server.boxes[sandbox.id].wakings > 0
    assert await sandbox.state() is SandboxState.RUNNING


async def test_who_waits_for_output_meanwhile_gets_it(server: E2BServer, provider: E2BProvider) -> None:
    sandbox = await entered(provider.create(ANA))
    echo = Launch(("sh", "-c", "read line; echo got $line"), sandbox.home)
    process = await sandbox.spawn("p", echo, fence=1, orphan_after=600)
    waiting = asyncio.create_task(process.read(1, 0, ack=0, wait=20))
    await until(lambda: bool(server.boxes[sandbox.id].live))
    await server.end_of_life(sandbox.id)
    await process.write(0, b"one\n")
    assert (await waiting).data == b"got one\n"


async def test_started_after_the_end_of_its_time_it_has_all_that_ran(
    server: E2BServer, provider: E2BProvider
) -> None:
    sandbox = await entered(provider.create(ANA))
    process = await sandbox.spawn("p", Launch(("sleep", "600"), sandbox.home), fence=1, orphan_after=600)
    await server.end_of_life(sandbox.id)
    await sandbox.start()
    assert (await process.status()).running


async def test_memory_that_cannot_be_restored_is_left_and_the_files_stay(
    server: E2BServer, box: E2BBox
) -> None:
    await box.run("echo kept >~/note", timeout=20)
    await server.end_of_life(box.id)
    server.wedged.add(box.id)
    await box.start()
    assert (await box.run("cat ~/note", timeout=20)).output == "kept\n"


async def test_a_pause_that_did_not_happen_is_no_stop(server: E2BServer, box: E2BBox) -> None:
    server.faults = [Fault("/pause$", 409)]
    with pytest.raises(SandboxUnreachable):
        await box.stop()


# Its time


async def test_use_moves_the_end_of_its_time_on(server: E2BServer, box: E2BBox) -> None:
    await box.touch(3601)
    assert server.boxes[box.id].lifetime == 3601
    await box.touch(1)  # a turn touches it once a minute, and one call may fail
    assert server.boxes[box.id].lifetime == 300


async def test_where_the_plan_has_less_time_it_is_as_much_as_every_plan_has(
    server: E2BServer, box: E2BBox
) -> None:
    server.longest = 3600
    await box.touch(86_400)
    assert server.boxes[box.id].lifetime == 3600


async def test_a_box_that_may_not_live_so_long_names_the_setting(server: E2BServer) -> None:
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_SANDBOX_IDLE_STOP"):
        await E2BProvider(server.account(life=100_000)).make(ANA)


async def test_what_is_in_use_is_woken_and_what_was_stopped_is_not(
    server: E2BServer, provider: E2BProvider
) -> None:
    sandbox = await entered(provider.create(ANA))
    await server.end_of_life(sandbox.id)
    await sandbox.touch(600)
    assert (server.boxes[sandbox.id].state, server.boxes[sandbox.id].lifetime) == ("running", 600)
    await sandbox.stop()
    with pytest.raises(SandboxNotRunning):
        await sandbox.touch(600)
    assert server.boxes[sandbox.id].state == "paused"


# How it is made


async def test_it_is_made_as_the_account_says(server: E2BServer, provider: E2BProvider) -> None:
    network = {"deny_out": ["0.0.0.0/0"], "allow_out": ["pypi.org"]}
    extra = {"network": {"allow_public_traffic": True}, "envs": {"TEAM": "web"}}
    about = server.account(template="base", life=3600, network=network, extra=extra)
    box = await E2BProvider(about).make(ANA)
    kept = server.boxes[box.id]
    assert kept.network == {"denyOut": ["0.0.0.0/0"], "allowOut": ["pypi.org"]}
    assert (kept.lifetime, kept.on_timeout, kept.auto_resume, kept.traffic) == (3600, "pause", True, "")
    assert kept.asked["envVars"] == {"TEAM": "web"}


async def test_programs_get_the_variables_that_boxes_are_made_with(server: E2BServer) -> None:
    provider = NearE2B(server.account(extra={"envs": {"TEAM": "web"}}))
    sandbox = await entered(provider.create(ANA))
    assert (await sandbox.run(Launch(("sh", "-c", "echo $TEAM"), sandbox.home))).out == b"web\n"
    await provider.close()


async def test_by_default_nobody_reaches_its_ports_without_its_token(server: E2BServer, box: E2BBox) -> None:
    address = await box.door(8080)
    assert address is not None
    assert address.headers["E2b-Traffic-Access-Token"] == server.boxes[box.id].traffic != ""


async def test_each_box_has_an_address_of_its_own_at_e2b(server: E2BServer) -> None:
    about = server.account()
    box = await E2BProvider(about).make(ANA)
    at_home = E2BProvider(Account(about.api_key, api_url=about.api_url))
    [found] = await at_home._boxes(ANA)
    token = {"E2b-Traffic-Access-Token": server.boxes[box.id].traffic}
    assert await found.door(8080) == Address(f"https://8080-{box.id}.e2b.app", token)


async def test_a_port_that_the_operator_opened_has_an_address_for_people(server: E2BServer) -> None:
    about = server.account(extra={"network": {"allow_public_traffic": True}})
    await E2BProvider(about).make(ANA)
    at_home = E2BProvider(Account(about.api_key, api_url=about.api_url))
    [sandbox] = await at_home.find(ANA)
    assert (await sandbox.expose(3000, "")).url == f"https://3000-{sandbox.id}.e2b.app"
    with pytest.raises(SandboxError, match="cannot be reached from outside"):
        [found] = await NearE2B(about).find(ANA)
        await found.expose(3000, "")


async def test_changed_rules_reach_a_box_when_it_is_started(server: E2BServer, box: E2BBox) -> None:
    changed = E2BProvider(server.account(network={"deny_out": ["0.0.0.0/0"], "allow_out": ["pypi.org"]}))
    [again] = await changed._boxes(ANA)
    await again.start()
    assert server.boxes[box.id].network["allowOut"] == ["pypi.org"]
    put = f"PUT /api/sandboxes/{box.id}/network"
    await again.start()
    assert server.asked.count(put) == 1


async def test_rules_that_cannot_be_set_are_no_box_that_is_gone(server: E2BServer, box: E2BBox) -> None:
    changed = E2BProvider(server.account(network={"deny_out": ["0.0.0.0/0"]}))
    server.faults = [Fault("PUT /api/sandboxes/", 404)]
    [again] = await changed._boxes(ANA)
    with pytest.raises(SandboxError, match="network rules") as refused:
        await again.start()
    assert not isinstance(refused.value, SandboxGone)


async def test_rules_of_the_operators_own_are_told_in_every_status(server: E2BServer) -> None:
    assert E2BProvider(server.account()).warning == ""
    own = {"network": {"allow_out": ["example.com"]}}
    assert "SANDPIPER_E2B_EXTRA" in E2BProvider(server.account(extra=own)).warning


# Many


async def test_all_pages_are_read_oldest_first(server: E2BServer, provider: E2BProvider) -> None:
    server.page = 2
    made = [(await provider.make(ANA)).id for _ in range(5)]
    await provider.make({"person": "bo", "tenant": "T1"})
    assert [sandbox.id for sandbox in await provider.find(ANA)] == made
    assert len(await provider.find({})) == 6


async def test_two_at_once_for_one_person_end_in_one(server: E2BServer, provider: E2BProvider) -> None:
    other = NearE2B(server.account())
    first, second = await asyncio.gather(provider.create(ANA), other.create(ANA))
    assert first.id == second.id
    assert list(server.boxes) == [first.id]
    await other.close()


async def test_an_older_one_that_is_gone_meanwhile_does_not_win(
    server: E2BServer, provider: E2BProvider
) -> None:
    old, new = await provider.make(ANA), await provider.make(ANA)
    server.faults = [Fault(f"GET /api/sandboxes/{old.id}", 404)]

    async def listed() -> list[E2BBox]:
        return [old, new]

    assert (await the_oldest(new, listed)).id == new.id


async def test_making_is_done_once_when_its_answer_is_lost(server: E2BServer, provider: E2BProvider) -> None:
    server.faults = [Fault("POST /api/v2/sandboxes$", 502, after=True, times=1)]
    box = await provider.make(ANA)
    assert list(server.boxes) == [box.id]


# What goes wrong


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
async def test_what_does_not_answer_is_not_gone(server: E2BServer, box: E2BBox, status: int) -> None:
    server.faults = [Fault("/api/", status)]
    for verb in (box.state(), box.start(), box.stop(), box.touch(600), box.delete(), box.door(1)):
        with pytest.raises(SandboxUnreachable):
            await verb


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 401, 404, 0])
async def test_a_way_into_the_box_that_fails_says_nothing_about_the_box(
    server: E2BServer, box: E2BBox, tmp_path: Path, status: int
) -> None:
    server.faults = [Fault("/box/", status)]
    with pytest.raises(SandboxUnreachable):
        await box.run("true", timeout=5)
    if status != 404:  # of a file
        with pytest.raises(SandboxUnreachable):
            await box.upload(b"x", "/nowhere/x")
        with pytest.raises(SandboxUnreachable):
            await box.download("/nowhere/x", tmp_path / "x", limit=1)
    server.faults = []
    assert (await box.run("echo again", timeout=20)).output == "again\n"


async def test_the_api_is_down_and_the_box_is_not_gone(tmp_path: Path) -> None:
    provider = E2BProvider(Account("key", api_url=f"http://127.0.0.1:{free_port()}"))
    for call in (provider.check(), provider.get("box"), provider.find(ANA), provider.make(ANA)):
        with pytest.raises(SandboxUnreachable):
            await call
    await provider.close()


@pytest.mark.parametrize("verb", ["state", "start", "stop", "run", "upload", "download", "touch", "door"])
async def test_an_answer_that_is_lost_when_the_work_was_done(
    server: E2BServer, provider: E2BProvider, tmp_path: Path, verb: str
) -> None:
    """Each verb of a sandbox comes through, although every first answer is lost."""
    sandbox = await entered(provider.create(ANA))
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    ways = ("/connect$", "/pause$", "/timeout$", r"GET /api/sandboxes/[^/]+$", "/Start$", "POST /box/files")
    server.faults = [Fault(way, 0, after=True, times=1) for way in (*ways, "GET /box/files")]
    match verb:
        case "state":
            assert await sandbox.state() is SandboxState.RUNNING
        case "start":
            await sandbox.start()
        case "stop":
            await sandbox.stop()
            assert server.boxes[sandbox.id].state == "paused"
        case "touch":
            await sandbox.touch(700)
        case "upload":
            await sandbox.upload(tmp_path / "file", f"{sandbox.home}/file")
        case "download":
            (Path(sandbox.home) / "file").write_bytes(b"y" * 100_000)
            await sandbox.download(f"{sandbox.home}/file", tmp_path / "copy", limit=100_000)
            assert (tmp_path / "copy").stat().st_size == 100_000
        case _:
            assert (await sandbox.run(Launch(("echo", "hi"), sandbox.home))).out == b"hi\n"


async def test_stopped_in_mid_call(server: E2BServer, provider: E2BProvider, box: E2BBox) -> None:
    command = await busy(server, box)
    [other] = await provider._boxes(ANA)
    await other.stop()
    with pytest.raises(SandboxNotRunning):
        await command
    assert server.boxes[box.id].state == "paused"


async def test_gone_in_mid_call(server: E2BServer, box: E2BBox) -> None:
    command = await busy(server, box)
    await server.lose(box.id)
    with pytest.raises(SandboxGone):
        await command


async def test_a_wrong_key_names_the_setting(server: E2BServer) -> None:
    provider = E2BProvider(server.account(key="wrong"))
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_E2B_API_KEY"):
        await provider.check()
    await provider.close()


async def test_a_template_that_is_missing_names_the_setting(server: E2BServer) -> None:
    with pytest.raises(ProviderUnavailable, match=r"no template mine.*SANDPIPER_E2B_TEMPLATE"):
        await E2BProvider(server.account(template="mine")).make(ANA)


async def test_a_quota_says_what_to_do(server: E2BServer, provider: E2BProvider) -> None:
    server.quota = 0
    with pytest.raises(ProviderUnavailable, match=r"maximum number.*larger plan"):
        await provider.make(ANA)


async def test_a_limit_of_requests_is_waited_for(server: E2BServer, box: E2BBox) -> None:
    server.faults = [Fault("/api/", 429, times=2)]
    assert await box.state() is SandboxState.RUNNING


@pytest.mark.parametrize(
    "extra",
    [
        {"colour": "red"},
        {"metadata": {"person": "bo"}},
        {"api_key": "another"},
        {"network": ["pypi.org"]},
        {"lifecycle": {"on_timeout": "kill"}},
        {"lifecycle": {"on_timeout": {"action": "kill"}}},
    ],
)
async def test_parameters_that_cannot_be_said_name_the_setting(
    server: E2BServer, extra: dict[str, object]
) -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_E2B_EXTRA"):
        E2BProvider(server.account(extra=extra))


async def test_parameters_that_the_sdk_refuses_name_the_setting(server: E2BServer) -> None:
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_E2B_EXTRA"):
        await E2BProvider(
            server.account(extra={"lifecycle": {"on_timeout": {"action": "pause", "mode": "x"}}})
        ).make(ANA)


async def test_a_failure_of_our_own_disk_is_not_the_boxes(box: E2BBox, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await box.upload(tmp_path / "missing", "/anywhere/x")
    with pytest.raises(FileNotFoundError):
        await box.download("/etc/hostname", tmp_path / "missing" / "x", limit=10)


async def test_a_full_disk(server: E2BServer, box: E2BBox) -> None:
    server.faults = [Fault("POST /box/files", 507)]
    with pytest.raises(SandboxFull):
        await box.upload(b"x", "/anywhere/x")


async def test_no_more_is_fetched_than_was_asked_for(server: E2BServer, box: E2BBox, tmp_path: Path) -> None:
    await box.run("head -c 3000000 /dev/zero >~/large", timeout=20)
    await box.download(f"{server.boxes[box.id].box.home}/large", tmp_path / "copy", limit=10)
    assert (tmp_path / "copy").stat().st_size == 11


async def test_the_key_is_in_no_box_and_in_no_words(server: E2BServer, box: E2BBox) -> None:
    key = server.account().api_key
    said = await box.run("env; cat ~/.* 2>/dev/null", timeout=20)
    assert key not in said.output
    assert key not in repr(server.account())
