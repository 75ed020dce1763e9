"""What Daytona says of boxes, and how it fails, in our words: its real SDK against its routes on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.errors import (
    ProviderAway,
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import Launch, SandboxState
from sandbox.daytona import DaytonaBox, DaytonaProvider
from sandbox.daytona_account import Account
from sandbox.daytona_network import network_of
from tests.daytona_server import KEY, DaytonaServer
from tests.remote_boxes import entered

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")

Make = Callable[..., DaytonaProvider]
ANA = {"installation": "sandpiper", "person": "ana"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DaytonaServer]:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def make(server: DaytonaServer) -> AsyncIterator[Make]:
    """Providers of one account: each as of another bot, or of another life of one."""
    made = []

    def provider(key: str = KEY, **about: Any) -> DaytonaProvider:
        made.append(DaytonaProvider(Account(key, f"{server.url}/api", **about)))
        return made[-1]

    yield provider
    for one in made:
        await one.close()


@pytest.fixture
def provider(make: Make) -> DaytonaProvider:
    return make()


@pytest.fixture
async def box(provider: DaytonaProvider) -> DaytonaBox:
    return await provider.make(ANA)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if true():
                return
            await asyncio.sleep(0.01)


# States


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("started", SandboxState.RUNNING),
        ("starting", SandboxState.STOPPED),
        ("stopping", SandboxState.STOPPED),
        ("paused", SandboxState.STOPPED),
        ("snapshotting", SandboxState.STOPPED),
        ("archiving", SandboxState.ARCHIVED),
        ("archived", SandboxState.ARCHIVED),
        ("error", SandboxState.ERROR),
        ("build_failed", SandboxState.ERROR),
    ],
)
async def test_states(server: DaytonaServer, box: DaytonaBox, theirs: str, ours: SandboxState) -> None:
    server.boxes[box.id].state = theirs
    assert await box.state() is ours


def test_every_state_of_the_sdk_has_its_meaning() -> None:
    from daytona_api_client_async import SandboxState as Theirs

    from sandbox.daytona import GONE, STATES

    unknown = {"unknown", "unknown_default_open_api"}  # of these we wait to hear more
    assert {state.value for state in Theirs} - unknown == {*STATES, *GONE}


async def test_destroyed_is_gone_and_unknown_is_not(server: DaytonaServer, box: DaytonaBox) -> None:
    server.boxes[box.id].state = "unknown"
    with pytest.raises(SandboxUnreachable):
        await box.state()
    server.boxes[box.id].state = "destroyed"
    with pytest.raises(SandboxGone):
        await box.state()


@pytest.mark.parametrize("state", ["stopped", "paused", "archived", "archiving"])
async def test_from_wherever_it_rests_it_starts(server: DaytonaServer, box: DaytonaBox, state: str) -> None:
    server.boxes[box.id].state = state
    server.looks = 2
    await box.start()
    assert await box.state() is SandboxState.RUNNING


@pytest.mark.parametrize("state", ["starting", "restoring", "snapshotting", "stopping"])
async def test_a_change_under_way_is_waited_for(server: DaytonaServer, box: DaytonaBox, state: str) -> None:
    """It cannot be asked for anything meanwhile: Daytona answers 409."""
    ends = "stopped" if state == "stopping" else "started"
    server.boxes[box.id].state = state

    async def finish() -> None:
        await (server.box(box.id).start() if ends == "started" else server.box(box.id).stop())
        server.boxes[box.id].state = ends

    server.coming(box.id, 2, finish)
    await box.start()
    assert server.boxes[box.id].state == "started"
    server.looks = 0
    await box.stop()
    assert server.boxes[box.id].state == "stopped"


async def test_a_box_that_is_starting_can_be_stopped_and_deleted(
    server: DaytonaServer, box: DaytonaBox
) -> None:
    await server.halt(box.id)
    server.looks = 3
    starting = asyncio.ensure_future(box.start())
    await until(lambda: server.boxes[box.id].state == "starting")
    await box.stop()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert await box.state() is SandboxState.STOPPED
    await box.delete()
    with pytest.raises(SandboxGone):
        await box.state()


async def test_an_error_is_recovered_where_that_can_be(server: DaytonaServer, box: DaytonaBox) -> None:
    theirs = server.boxes[box.id]
    theirs.state, theirs.recoverable, theirs.error_reason = "error", False, "disk lost"
    with pytest.raises(SandboxError, match=r"disk lost.*sandbox reset"):
        await box.start()
    theirs.recoverable = True
    await box.start()
    assert await box.state() is SandboxState.RUNNING


async def test_one_that_fails_again_right_after_it_was_recovered_is_told(
    server: DaytonaServer, box: DaytonaBox
) -> None:
    theirs = server.boxes[box.id]

    async def fails() -> None:
        theirs.state, theirs.recoverable, theirs.error_reason = "error", True, "no runner has room"

    await fails()
    server.begun = fails
    with pytest.raises(SandboxError, match=r"cannot recover.*no runner has room"):
        await box.start()


# What stops itself


async def test_use_sets_when_it_stops_itself(server: DaytonaServer, box: DaytonaBox) -> None:
    await box.touch(86400)
    assert server.boxes[box.id].auto_stop_interval == 1440
    await box.touch(1800)
    assert server.boxes[box.id].auto_stop_interval == 30
    assert [asked.rpartition("/")[2] for asked in server.asked].count("last-activity") == 2
    assert not [asked for asked in server.asked if asked.endswith("autostop/0")]  # it would never stop


async def test_a_box_is_kept_unless_the_operator_says_otherwise(server: DaytonaServer, make: Make) -> None:
    """Also one that is older than the setting."""
    box = await make().make(ANA)
    assert server.boxes[box.id].auto_delete_interval == -1
    later = make(auto_archive=3600, auto_delete=30 * 86400)
    await server.halt(box.id)
    await (await later.get(box.id)).start()
    theirs = server.boxes[box.id]
    assert (theirs.auto_archive_interval, theirs.auto_delete_interval) == (60, 43200)


# Where it may reach


async def test_the_rules_of_today_hold_for_a_box_of_yesterday(server: DaytonaServer, make: Make) -> None:
    box = await make().make(ANA)
    assert not server.boxes[box.id].domain_allow_list
    narrow = make(network=network_of("list", ("api.anthropic.com:443",)))
    await server.halt(box.id)
    sandbox = await narrow.get(box.id)
    await sandbox.start()
    assert server.boxes[box.id].domain_allow_list == "api.anthropic.com"
    before = len(server.asked)
    await sandbox.stop()
    await sandbox.start()
    assert not [asked for asked in server.asked[before:] if asked.endswith("network-settings")]
    wide = make(network=network_of("open", ()))
    await sandbox.stop()
    await (await wide.get(box.id)).start()
    assert not server.boxes[box.id].domain_allow_list


async def test_a_new_box_has_its_rules_from_the_first_moment(server: DaytonaServer, make: Make) -> None:
    await make(network=network_of("registries", ())).make(ANA)
    assert "pypi.org" in server.created[0].domain_allow_list.split(",")
    await make(network=network_of("list", ("93.184.215.14:443",))).make(ANA)
    assert server.created[1].network_allow_list == "93.184.215.14/32"


async def test_a_box_whose_rules_cannot_be_set_is_not_used(server: DaytonaServer, make: Make) -> None:
    box = await make().make(ANA)
    await server.halt(box.id)
    server.fail(
        r"network-settings", 403, message="Network settings are managed by the organization", times=-1
    )
    narrow = make(network=network_of("list", ("api.anthropic.com:443",)))
    with pytest.raises(SandboxError, match=r"network rules.*managed by the organization.*EGRESS_MODE=open"):
        await (await narrow.get(box.id)).start()


# What it is made of


async def test_what_the_operator_adds_reaches_daytona_and_programs(server: DaytonaServer, make: Make) -> None:
    extra = {
        "resources": {"cpu": 2, "memory": 4, "disk": 8},
        "env_vars": {"TEAM": "web"},
        "volumes": [{"volume_id": "cache", "mount_path": "/cache"}],
        "secrets": {"NPM_TOKEN": "npm-token"},
        "os_user": "agent",
        "public": False,
    }
    sandbox = await entered(make(image="ghcr.io/acme/box:1", extra=extra).create(ANA))
    asked = server.created[0]
    assert (asked.cpu, asked.memory, asked.disk, asked.user) == (2, 4, 8, "agent")
    assert asked.secrets == [{"NPM_TOKEN": "npm-token"}]
    assert asked.volumes[0].mount_path == "/cache"
    assert "ghcr.io/acme/box:1" in asked.build_info.dockerfile_content
    said = await sandbox.run(Launch(("sh", "-c", "echo $TEAM $DAYTONA_API_KEY"), cwd=sandbox.home))
    assert said.out == b"web\n"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"env_var": {}}, "knows no 'env_var'. Did you mean 'env_vars'"),
        ({"resources": {"cpu": 2}}, "'resources' go with an image.*SANDPIPER_DAYTONA_IMAGE"),
        ({"ephemeral": True}, "'ephemeral' cannot be set there: sandboxes are kept"),
        ({"auto_delete_interval": 0}, "SANDPIPER_DAYTONA_AUTO_DELETE says it"),
        ({"domain_allow_list": "*"}, "SANDPIPER_EGRESS_MODE says it"),
        ({"env_vars": {"A": 1}}, "env_vars.A: Input should be a valid string"),
    ],
)
def test_an_addition_that_cannot_be_names_its_variable(make: Make, extra: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=f"SANDPIPER_DAYTONA_EXTRA: .*{words}"):
        make(extra=extra)


# Two bots at once


async def test_two_bots_that_make_a_box_for_one_person_end_in_one(server: DaytonaServer, make: Make) -> None:
    server.looks = 2  # so that both are on their way at the same time
    one, other = await asyncio.gather(make().create(ANA), make().create(ANA))
    assert one.id == other.id
    await one.enter()
    assert len(server.created) == 2
    server.looks = 0
    assert [found.id for found in await make().find(ANA)] == [one.id]
    assert (await one.run(Launch(("true",), cwd=one.home))).code == 0


# Lists


async def test_long_lists_are_read_to_their_end(server: DaytonaServer, make: Make) -> None:
    provider = make()
    made = [(await provider.make({"number": str(n)})).id for n in range(7)]
    server.page = 3
    assert [found.id for found in await provider.find({})] == made
    assert [found.id for found in await provider.find({"number": "5"})] == [made[5]]


async def test_items_of_a_list_may_lack_what_need_not_be_there(
    server: DaytonaServer, provider: DaytonaProvider, box: DaytonaBox
) -> None:
    theirs = server.boxes[box.id]
    theirs.created_at = theirs.auto_stop_interval = theirs.error_reason = theirs.snapshot = None
    (found,) = await provider.find(ANA)
    assert await found.state() is SandboxState.RUNNING
    await found.touch(600)
    assert theirs.auto_stop_interval == 10


# The way in


async def test_without_a_preview_commands_do_the_work(server: DaytonaServer, make: Make) -> None:
    server.previews = False
    sandbox = await entered(make().create(ANA))
    said = await sandbox.run(Launch(("sh", "-c", "cat; echo err >&2"), cwd=sandbox.home), stdin=b"in")
    assert (said.code, said.out, said.err) == (0, b"in", b"err\n")
    with pytest.raises(SandboxError, match="Previews are disabled"):
        await sandbox.expose(3000, "")


async def test_a_new_preview_token_is_asked_for(server: DaytonaServer, make: Make) -> None:
    """A restart gives another one, whoever did it."""
    sandbox = await entered(make().create(ANA))
    launch = Launch(("echo", "here"), cwd=sandbox.home)
    assert (await sandbox.run(launch)).out == b"here\n"
    server.tokens[sandbox.id] = "another"
    before = len(server.asked)
    assert (await sandbox.run(launch)).out == b"here\n"
    refused, *through = [asked for asked in server.asked[before:] if "/preview/" in asked]
    assert refused
    assert through  # commands did not have to do it
    other = await make().get(sandbox.id)
    await other.stop()
    await other.start()
    assert (await sandbox.run(launch)).out == b"here\n"


# What does not answer


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, 0])
async def test_what_does_not_answer_is_not_gone(server: DaytonaServer, box: DaytonaBox, fault: int) -> None:
    server.fail(".", fault, times=-1)
    with pytest.raises(ProviderAway):
        await box.state()
    with pytest.raises(ProviderAway):
        await box.run("true", timeout=5)


async def test_a_limit_says_when_to_come_back(server: DaytonaServer, box: DaytonaBox) -> None:
    headers = {"Retry-After-Authenticated": "7", "Retry-After-Sandbox-Lifecycle": "42"}
    server.fail("GET", 429, headers=headers)
    with pytest.raises(ProviderAway) as caught:
        await box.state()
    assert caught.value.retry_after == 42
    server.fail("GET", 429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    with pytest.raises(ProviderAway) as caught:
        await box.state()
    assert caught.value.retry_after == 0


async def test_a_limit_is_waited_for(server: DaytonaServer, make: Make) -> None:
    sandbox = await entered(make().create(ANA))
    server.fail("GET /api", 429, headers={"Retry-After-Authenticated": "1"})
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await sandbox.state() is SandboxState.RUNNING
    assert loop.time() - before >= 1.0


async def test_an_address_where_something_else_answers_is_not_waited_for(server: DaytonaServer) -> None:
    provider = DaytonaProvider(Account(KEY, f"{server.url}/elsewhere"))
    with pytest.raises(SandboxError, match="SANDPIPER_DAYTONA_API_URL") as caught:
        await provider.check()
    assert not isinstance(caught.value, SandboxUnreachable)
    await provider.close()


@pytest.mark.parametrize("status", [502, 503])
async def test_a_download_that_a_proxy_breaks_off_is_tried_again(
    server: DaytonaServer, make: Make, tmp_path: Path, status: int
) -> None:
    sandbox = await entered(make().create(ANA))
    await sandbox.run(Launch(("sh", "-c", "echo here > ~/note"), cwd=sandbox.home))
    server.fail("bulk-download", status)
    await sandbox.download(f"{sandbox.home}/note", tmp_path / "note", limit=100)
    assert (tmp_path / "note").read_text() == "here\n"


@pytest.mark.parametrize("what", ["start", "stop", "delete"])
async def test_a_socket_that_drops_after_the_work_was_done(
    server: DaytonaServer, make: Make, what: str
) -> None:
    sandbox = await entered(make().create(ANA))
    if what == "start":
        await sandbox.stop()
    server.fail(f"DELETE|/{what}$", after=True)
    await getattr(sandbox, what)()
    if what == "delete":
        assert not server.boxes
    else:
        wanted = SandboxState.RUNNING if what == "start" else SandboxState.STOPPED
        assert await sandbox.state() is wanted


async def test_a_box_whose_making_was_not_heard_of_is_found(server: DaytonaServer, make: Make) -> None:
    server.fail("POST /api/sandbox$", after=True)
    provider = make()
    with pytest.raises(ProviderAway):
        await provider.create(ANA)
    (found,) = await provider.find(ANA)
    assert await found.state() is SandboxState.RUNNING


async def test_a_command_whose_answer_was_lost_is_done_once_in_effect(
    server: DaytonaServer, make: Make
) -> None:
    server.previews = False  # so that all goes by commands
    sandbox = await entered(make().create(ANA))
    server.fail("process/execute", after=True, times=2)
    said = await sandbox.run(Launch(("sh", "-c", "echo once >> ~/log; cat ~/log"), cwd=sandbox.home))
    assert said.out == b"once\n"


@pytest.mark.parametrize(
    ("end", "error"), [("halt", SandboxNotRunning), ("vanish", SandboxGone)], ids=["stopped", "gone"]
)
async def test_a_box_that_ends_in_the_middle_of_a_call(
    server: DaytonaServer, box: DaytonaBox, tmp_path: Path, end: str, error: type[Exception]
) -> None:
    mark = server.box(box.id).home / "began"

    async def ends() -> None:
        await until(mark.exists)
        await getattr(server, end)(box.id)

    server.fail("process/execute", then=ends)
    with pytest.raises(error):
        await box.run("touch began; exec sleep 60", timeout=50)
    with pytest.raises(error):
        await box.upload(b"x", f"{box.id}/x")
    with pytest.raises(error):
        await box.download("x", tmp_path / "x", limit=10)
    with pytest.raises(error):
        await box.door(80)


async def test_a_box_that_is_being_restarted_is_waited_for(server: DaytonaServer, box: DaytonaBox) -> None:
    server.boxes[box.id].state = "starting"
    with pytest.raises(SandboxUnreachable, match="is starting just now"):
        await box.run("true", timeout=5)


# Who can mend it


async def test_a_wrong_key_names_the_setting(make: Make) -> None:
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_DAYTONA_API_KEY"):
        await make("wrong").check()


@pytest.mark.parametrize(
    ("status", "said", "error", "words"),
    [
        (
            400,
            "Total CPU limit exceeded. Maximum allowed: 10.",
            SandboxError,
            "quota of CPU.*dashboard/limits",
        ),
        (
            400,
            "Total disk limit exceeded. Maximum allowed: 30GiB.\nMore",
            SandboxError,
            "quota of disk.*archive",
        ),
        (
            400,
            "Disk request 90GB exceeds maximum allowed per sandbox (10GB).\nNeed more?",
            SandboxError,
            "plan allows no sandbox of that size: Disk request 90GB.*SANDPIPER_DAYTONA_EXTRA",
        ),
        (
            400,
            "Snapshot box-1 not found. Did you add it through the Daytona Dashboard?",
            SandboxError,
            "cannot use the snapshot box-1: Snapshot box-1 not found.*SANDPIPER_DAYTONA_SNAPSHOT",
        ),
        (400, "Snapshot box-1 is inactive", SandboxError, "is inactive.*SANDPIPER_DAYTONA_SNAPSHOT"),
        (404, "Region not found", SandboxError, "SANDPIPER_DAYTONA_TARGET"),
        (400, "Volume cache not found", SandboxError, "Volume cache not found.*SANDPIPER_DAYTONA_EXTRA"),
        (403, "Organization is suspended: Depleted credits", SandboxError, "at a limit: .*Depleted credits"),
        (403, "Access denied", ProviderUnavailable, "Access denied.*rights of SANDPIPER_DAYTONA_API_KEY"),
        (507, "no space left", SandboxFull, "disk is full"),
    ],
)
async def test_a_refused_creation_says_what_to_do(
    server: DaytonaServer, make: Make, status: int, said: str, error: type[SandboxError], words: str
) -> None:
    server.fail("POST /api/sandbox$", status, message=said)
    with pytest.raises(error, match=words) as caught:
        await make(snapshot="box-1").create(ANA)
    assert not isinstance(caught.value, SandboxGone | SandboxUnreachable)
    assert "Failed to" not in str(caught.value)


@pytest.mark.parametrize("looks", [0, 2])
async def test_an_image_that_cannot_be_pulled_leaves_nothing_behind(
    server: DaytonaServer, make: Make, looks: int
) -> None:
    """Else the failed box would be found at the next turn, and fail it."""
    server.looks = looks

    async def fails() -> None:
        (box,) = server.boxes.values()
        box.state, box.error_reason = "build_failed", "pull access denied for ghcr.io/acme/box"

    server.begun = fails
    with pytest.raises(SandboxError, match=r"of the image ghcr.io/acme/box:1: pull access denied.*_IMAGE"):
        await make(image="ghcr.io/acme/box:1").create(ANA)
    server.begun, server.looks = None, 0
    for id in list(server.boxes):
        await server.vanish(id) if server.boxes[id].state == "destroying" else None
    assert not server.boxes
    assert await (await make().create(ANA)).state() is SandboxState.RUNNING


async def test_a_quota_that_is_used_up_when_a_box_starts(server: DaytonaServer, box: DaytonaBox) -> None:
    await server.halt(box.id)
    server.fail("/start$", 400, message="Total memory limit exceeded. Maximum allowed: 10GiB.")
    with pytest.raises(SandboxError, match="quota of memory is used up"):
        await box.start()
