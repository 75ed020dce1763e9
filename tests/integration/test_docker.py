"""What is asked of a Docker engine, and how it fails, in our words: the real SDK, an engine on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
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
from sandbox.cgroups import Limits
from sandbox.container import AGENTS, DOOR, HOME, OUT, OWN, ROOT, Engine
from sandbox.container_box import VolumeBox
from sandbox.container_sandbox import DockerSandbox
from sandbox.docker import DockerProvider, docker_provider
from sandbox.remote_supervisor import persistently
from sandbox.unix_door import connect
from tests.docker_engine import IMAGE, DockerEngine

pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")

LABELS = {"sandpiper.installation": "here", "sandpiper.tenant": "T1", "sandpiper.person": "7"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "docker"


@pytest.fixture
async def provider(engine: DockerEngine, directory: Path) -> AsyncIterator[DockerProvider]:
    provider = DockerProvider(directory, Engine(engine.url, IMAGE), allow=("allowed.example:443",))
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await provider.close()


@pytest.fixture
async def sandbox(provider: DockerProvider) -> DockerSandbox:
    return await provider.create(LABELS)


@pytest.fixture
def box(provider: DockerProvider, sandbox: DockerSandbox) -> VolumeBox:
    return provider.volume_box(sandbox.id, sandbox.labels)


async def sh(sandbox: DockerSandbox, script: str) -> str:
    result = await sandbox.run(Launch(("sh", "-c", script), cwd=sandbox.home))
    assert result.code == 0, result.err.decode()
    return result.out.decode().strip()


# What is asked of the engine


async def test_a_container_has_no_rights_no_network_and_nothing_of_the_machine(
    engine: DockerEngine, sandbox: DockerSandbox, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = engine.created
    host = asked["HostConfig"]
    assert asked["User"] == "1000:1000"
    assert host["CapDrop"] == ["ALL"] and "CapAdd" not in host and not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["NetworkMode"] == "none"
    assert not {"PortBindings", "PublishAllPorts", "ExtraHosts", "Links", "Devices", "Binds"} & host.keys()
    assert not {"PidMode", "UTSMode", "UsernsMode"} & host.keys()
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert host["Init"] is True and host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"] == {"Name": "no"}
    place = directory / sandbox.id
    assert host["Mounts"] == [
        {"Type": "volume", "Source": sandbox.id, "Target": ROOT},
        mount(place / "out" / "box", OUT, ReadOnly=True),
        mount(place / "etc" / "passwd", "/etc/passwd", ReadOnly=True),
        mount(place / "etc" / "group", "/etc/group", ReadOnly=True),
    ]


def mount(source: Path, target: str, **more: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, **more}


async def test_a_room_is_a_container_like_it_that_shows_what_its_programs_may_see(
    engine: DockerEngine, sandbox: DockerSandbox, directory: Path
) -> None:
    mine, bare = f"{sandbox.workspaces}/s1", f"{sandbox.repositories}/7.git"
    await sandbox.run(Launch(("true",), sandbox.home, visible=(mine, bare)))
    whole, asked = engine.created
    place, data = directory / sandbox.id, Path(engine.volumes[sandbox.id]["Mountpoint"])
    host = asked["HostConfig"]
    room = host["Mounts"][4]["Source"].rpartition("/")[2]
    assert host["Mounts"] == [
        mount(data / "home", HOME),
        mount(data / "agents", AGENTS, ReadOnly=True),
        mount(data / "repositories" / "7.git", bare),
        mount(data / "workspace" / "s1", mine),
        mount(data / "rooms" / room, OWN),
        mount(place / "out" / "box", OUT, ReadOnly=True),
        mount(place / "doors" / room, DOOR),
        mount(place / "etc" / "passwd", "/etc/passwd", ReadOnly=True),
        mount(place / "etc" / "group", "/etc/group", ReadOnly=True),
    ]
    asked, whole = copy.deepcopy(asked), copy.deepcopy(whole)
    for about in (asked, whole):
        del about["HostConfig"]["Mounts"], about["Labels"]
    assert asked == whole


async def test_no_secret_and_nothing_of_the_bots_environment_is_in_a_container(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    process = await sandbox.spawn(
        "p",
        Launch(("sh", "-c", 'printf %s "$KEY"'), sandbox.home, secrets={"KEY": "s3cret"}),
        fence=1,
        orphan_after=60,
    )
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"s3cret"
    assert [asked["Env"] for asked in engine.created] == [[f"HOME={HOME}"]] * 2
    assert all("s3cret" not in json.dumps(one.asked) for one in engine.executions.values())
    names = await sh(sandbox, "tr '\\0' '\\n' </proc/1/environ | cut -d= -f1")
    assert not {name for name in os.environ if name.startswith("SANDPIPER")} & set(names.split())


async def test_limits_are_the_engines_to_keep(engine: DockerEngine, directory: Path) -> None:
    limits = Limits(memory=1 << 30, pids=500, cpus=1.5)
    provider = DockerProvider(directory, Engine(engine.url, IMAGE, "runsc", limits=limits), allow=())
    sandbox = await provider.create(LABELS)
    host = engine.created[0]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1 << 30, 1 << 30, 500)
    assert (host["NanoCpus"], host["Runtime"]) == (1_500_000_000, "runsc")
    await sandbox.delete()
    await provider.close()


async def test_without_limits_none_is_asked_for(engine: DockerEngine, sandbox: DockerSandbox) -> None:
    assert (
        not {"Memory", "MemorySwap", "PidsLimit", "NanoCpus", "Runtime"}
        & engine.created[0]["HostConfig"].keys()
    )


async def test_volume_and_container_carry_the_labels(engine: DockerEngine, sandbox: DockerSandbox) -> None:
    for labels in (engine.volumes[sandbox.id]["Labels"], engine.created[0]["Labels"]):
        assert labels.items() >= LABELS.items()


async def test_strangers_on_the_machine_do_not_reach_its_sockets(
    sandbox: DockerSandbox, directory: Path
) -> None:
    assert (directory / sandbox.id).stat().st_mode & 0o077 == 0
    assert (directory / sandbox.id / "out" / "box" / "proxy.sock").stat().st_mode & 0o777 == 0o666


# A life


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return "\n".join(found)


async def test_deleting_takes_container_volume_and_directory(
    engine: DockerEngine, sandbox: DockerSandbox, directory: Path
) -> None:
    await sh(sandbox, f"mkdir -p {DOOR}/litter/deep")
    await sandbox.delete()
    assert not engine.containers and sandbox.id not in engine.volumes
    assert not (directory / sandbox.id).exists()


@pytest.mark.parametrize("by_us", [True, False])
async def test_nothing_stays_beside_a_sandbox_that_is_gone(
    engine: DockerEngine, sandbox: DockerSandbox, directory: Path, by_us: bool
) -> None:
    place = directory / sandbox.id
    proxy = json.loads((place / "out" / "pid").read_text())["pid"]
    if by_us:
        await sandbox.delete()
    else:
        await engine.halt()
        engine.containers.clear()
        del engine.volumes[sandbox.id]
    for _ in range(2):
        with pytest.raises(SandboxGone):
            await sh(sandbox, "true")
    assert not place.exists()
    async with asyncio.timeout(20):
        while Path(f"/proc/{proxy}/cwd").exists():  # noqa: ASYNC110 another process ends
            await asyncio.sleep(0.01)
    assert str(place) not in await asyncio.to_thread(command_lines)


async def test_the_home_outlives_a_container_that_somebody_has_pruned(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    await sh(sandbox, "echo kept >~/note")
    await sandbox.stop()
    del engine.containers[sandbox.id]
    assert await sandbox.state() is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning):
        await sh(sandbox, "true")
    await sandbox.start()
    assert await sh(sandbox, "cat ~/note") == "kept"


async def test_new_settings_hold_for_rooms_in_which_nothing_runs_and_for_all_from_the_next_start(
    engine: DockerEngine, sandbox: DockerSandbox, directory: Path
) -> None:
    await sh(sandbox, "echo kept >~/note")
    changed = DockerProvider(
        directory, Engine(engine.url, IMAGE, limits=Limits(memory=1 << 30)), allow=("allowed.example:443",)
    )
    again = await changed.get(sandbox.id)
    await again.start()
    await sh(again, "true")
    had = [one["HostConfig"].get("Memory") for one in engine.created]
    assert had == [None, None, 1 << 30], "one in which nothing runs is made anew"
    await again.stop()
    await again.start()
    assert await sh(again, "cat ~/note") == "kept"
    had = [one["HostConfig"].get("Memory") for one in engine.created]
    assert had == [None, None, 1 << 30, 1 << 30, 1 << 30]
    await again.stop()
    await again.start()
    assert len(engine.created) == 5, "the one with the volume is as the settings say"
    await changed.close()


async def test_a_paused_container_is_stopped_to_us_and_goes_on_at_a_start(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    engine.containers[sandbox.id].paused = True
    assert await sandbox.state() is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning):
        await sandbox.attach("p", fence=1)
    await sandbox.start()
    assert await sh(sandbox, "echo on") == "on"


async def test_two_bots_that_start_one_sandbox_make_one_container(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    await sandbox.stop()
    del engine.containers[sandbox.id]
    again = await provider.get(sandbox.id)
    await asyncio.gather(sandbox.start(), again.start())
    assert len(engine.containers) == 1
    assert await sh(again, "echo on") == "on"


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Files can be opened, and emptied, but nothing can be written to them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_takes_no_file_from_a_container(box: VolumeBox) -> None:
    passwd = box.place / "etc" / "passwd"
    kept, inode = passwd.read_text(), passwd.stat().st_ino
    with no_room():
        await box.way_out(())
    assert (passwd.read_text(), passwd.stat().st_ino) == (kept, inode)
    passwd.write_text("of an earlier release")
    with no_room(), pytest.raises(SandboxError, match=r"cannot be written: .*SANDPIPER_DATA_DIR"):
        await box.way_out(())
    assert passwd.read_text() == "of an earlier release"
    await box.way_out(())
    assert passwd.read_text() == kept
    assert sorted(path.name for path in passwd.parent.iterdir()) == ["group", "passwd"]


# The way out


PROBE = """
import os, socket, urllib.request
for host in ("https://allowed.example", "https://denied.example", "https://169.254.169.254"):
    try:
        urllib.request.urlopen(host, timeout=20)
    except OSError as error:
        print(host, error)
try:
    socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), 2)
except OSError as error:
    print("direct", type(error).__name__)
"""


async def test_the_proxy_is_the_only_way_out_and_refusals_are_told(
    sandbox: DockerSandbox,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        launch = Launch(("python3", "-c", PROBE), sandbox.home, env={"PORT": str(ours.getsockname()[1])})
        said = (await sandbox.run(launch)).out.decode()
    allowed, denied, metadata, direct = said.splitlines()
    assert "502" in allowed and "403" not in allowed  # let through, and there is no such host
    assert "403" in denied and "403" in metadata
    assert direct == "direct ConnectionRefusedError"
    hosts = await sandbox.denied_hosts(0)
    assert [(one.host, one.setting) for one in hosts] == [
        ("denied.example:443", "SANDPIPER_EGRESS_ALLOW"),
        ("169.254.169.254:443", ""),
    ]
    assert await sandbox.denied_hosts(time.time() + 1) == ()


@pytest.fixture
async def service() -> AsyncIterator[int]:
    """An echo on this machine's loopback; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(100):
                writer.write(data)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


TALK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as link:
    for line in sys.stdin:
        link.sendall(line.encode())
        print(link.recv(100).decode(), end="", flush=True)
"""


async def test_programs_beside_each_other_reach_a_service_that_one_of_them_was_given(
    sandbox: DockerSandbox, service: int
) -> None:
    launch = Launch(("python3", "-c", TALK, str(service)), sandbox.home, loopback=(service,))
    first = await sandbox.spawn("first", launch, fence=1, orphan_after=60)
    await first.write(0, b"one\n")
    assert (await first.read(1, 0, ack=0, wait=20)).data == b"one\n"
    second = await sandbox.spawn("second", launch, fence=1, orphan_after=60)
    await second.write(0, b"two\n")
    assert (await second.read(1, 0, ack=0, wait=20)).data == b"two\n"
    await first.signal("KILL")
    while not (await first.read(1, 4, ack=4, wait=20)).eof:
        pass
    await second.write(4, b"three\n", eof=True)
    assert (await second.read(1, 4, ack=4, wait=20)).data == b"three\n"


async def test_services_that_the_operator_names_are_there_for_every_program_and_no_others(
    engine: DockerEngine, directory: Path, service: int
) -> None:
    provider = docker_provider(directory, host=engine.url, image=IMAGE, loopback=(f"127.0.0.1:{service}",))
    sandbox = await provider.create(LABELS)
    for _ in range(2):
        argv = ("python3", "-c", TALK, str(service))
        assert (await sandbox.run(Launch(argv, sandbox.home), stdin=b"one\n")).out == b"one\n"
        await sandbox.stop()
        await sandbox.start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        argv = ("python3", "-c", TALK, str(other.getsockname()[1]))
        assert b"refused" in (await sandbox.run(Launch(argv, sandbox.home), stdin=b"one\n")).err
    await sandbox.delete()
    await provider.close()


async def test_a_container_has_no_interface_but_its_own_loopback(sandbox: DockerSandbox) -> None:
    assert await sh(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo"


async def test_programs_beside_each_other_have_their_way_out_at_the_same_time(sandbox: DockerSandbox) -> None:
    ports = await asyncio.gather(*(sh(sandbox, "sleep 1; echo $HTTPS_PROXY") for _ in range(3)))
    assert len(set(ports)) == 3


# The door


async def test_the_door_is_not_left_for_a_link_that_the_agent_puts_in_its_place(
    sandbox: DockerSandbox, directory: Path, tmp_path: Path
) -> None:
    reached = asyncio.Event()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    service = await asyncio.start_unix_server(other, tmp_path / "other.sock")
    assert await sh(sandbox, "echo before") == "before"
    (door,) = (directory / sandbox.id / "doors").glob("*/sock")
    door.unlink()
    door.symlink_to(tmp_path / "other.sock")
    assert await sh(sandbox, "echo after") == "after"
    assert not reached.is_set()
    service.close()
    await service.wait_closed()


async def test_what_is_no_socket_is_no_door(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "file")


# Errors in our words


async def test_no_engine(tmp_path: Path) -> None:
    provider = DockerProvider(tmp_path / "data", Engine(f"unix://{tmp_path}/none.sock", IMAGE), allow=())
    with pytest.raises(ProviderUnavailable, match=r"No Docker engine answers.*SANDPIPER_DOCKER_HOST"):
        await provider.check()
    with pytest.raises(ProviderAway):
        await provider.find({})
    await provider.close()


async def test_no_right_to_the_socket(engine: DockerEngine, directory: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may use every socket")
    engine.socket.chmod(0)
    provider = DockerProvider(directory, Engine(engine.url, IMAGE), allow=())
    with pytest.raises(ProviderUnavailable, match="group of that socket"):
        await provider.check()
    await provider.close()


@pytest.mark.parametrize(
    ("about", "runtime", "limits", "words"),
    [
        ({"OSType": "windows"}, "", Limits(), "one for Linux"),
        ({}, "kata", Limits(), "SANDPIPER_DOCKER_RUNTIME is one of: runc, runsc"),
        ({"MemoryLimit": False}, "", Limits(memory=1 << 30), "SANDPIPER_SANDBOX_MEMORY"),
        ({"PidsLimit": False}, "", Limits(pids=100), "SANDPIPER_SANDBOX_PIDS"),
        ({"CpuCfsQuota": False}, "", Limits(cpus=1), "SANDPIPER_SANDBOX_CPUS"),
    ],
)
async def test_an_engine_that_is_not_fit(
    engine: DockerEngine, directory: Path, about: dict[str, Any], runtime: str, limits: Limits, words: str
) -> None:
    engine.info |= about
    provider = DockerProvider(directory, Engine(engine.url, IMAGE, runtime, limits=limits), allow=())
    with pytest.raises(ProviderUnavailable, match=words):
        await provider.check()
    await provider.close()


async def test_an_engine_that_is_too_old(engine: DockerEngine, provider: DockerProvider) -> None:
    await provider.check()
    engine.api = "1.40"
    with pytest.raises(ProviderUnavailable, match=r"20\.10 or newer"):
        await provider.check()


async def test_an_image_that_is_missing_is_pulled(engine: DockerEngine, directory: Path) -> None:
    engine.registry["registry.example/box:2"] = "sha256:" + "2" * 64
    provider = DockerProvider(directory, Engine(engine.url, "registry.example/box:2"), allow=())
    sandbox = await provider.create(LABELS)
    assert engine.created[0]["Image"] == "sha256:" + "2" * 64
    await sandbox.delete()
    await provider.close()


PRIVATE = "registry.example:5000/acme/box:2"
HELPER = """#!/bin/sh
test "$1 $(cat)" = "get registry.example:5000" &&
echo '{"ServerURL": "x", "Username": "ana", "Secret": "pa:ss"}'
"""


def written_login(password: str) -> dict[str, Any]:
    return {
        "auths": {"registry.example:5000": {"auth": base64.b64encode(f"ana:{password}".encode()).decode()}}
    }


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the bot's user has its logins; and a credential helper, on PATH."""
    pytest.importorskip("docker", reason="the extra `docker` is not installed")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("test", HELPER), ("shut", "#!/bin/sh\necho it is locked; exit 1")):
        (programs / f"docker-credential-{name}").write_text(text)
        (programs / f"docker-credential-{name}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()
    return tmp_path / "config" / "config.json"


@pytest.mark.parametrize(
    "config",
    [written_login("pa:ss"), {"credsStore": "test"}, {"credHelpers": {"registry.example:5000": "test"}}],
)
async def test_a_private_image_is_pulled_with_the_bots_login_and_no_container_has_it(
    engine: DockerEngine, directory: Path, docker_config: Path, config: dict[str, Any]
) -> None:
    docker_config.write_text(json.dumps(config))
    engine.registry[PRIVATE] = "sha256:" + "2" * 64
    engine.closed[PRIVATE] = ("ana", "pa:ss")
    provider = DockerProvider(directory, Engine(engine.url, PRIVATE), allow=())
    sandbox = await provider.create(LABELS)
    assert engine.created[0]["Image"] == "sha256:" + "2" * 64
    assert "pa:ss" not in json.dumps(engine.created)
    assert "pa:ss" not in await sh(sandbox, "env; cat /proc/[0-9]*/environ 2>/dev/null; true")
    await sandbox.delete()
    await provider.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", r"If it is private: `docker login registry.example:5000`.*SANDPIPER_DOCKER_IMAGE"),
        (written_login("wrong"), r"The bot's login at registry.example:5000 does not open it"),
        ({"auths": {"registry.example:5000": {"auth": "no base64"}}}, "not as `docker login` writes it"),
        ({"credHelpers": {"registry.example:5000": "nowhere"}}, "could not be read .*nowhere not installed"),
        ({"credsStore": "shut"}, r"could not be read \(.*docker-credential-shut exited with .*locked"),
        ([], "not as `docker login` writes it"),
    ],
)
@pytest.mark.filterwarnings("ignore:docker-credential-nowhere not installed")
async def test_a_login_that_is_missing_or_wrong_is_told_with_its_mend(
    engine: DockerEngine, directory: Path, docker_config: Path, config: Any, words: str
) -> None:
    if config != "":
        docker_config.write_text(json.dumps(config))
    engine.registry[PRIVATE] = "sha256:" + "2" * 64
    engine.closed[PRIVATE] = ("ana", "pa:ss")
    provider = DockerProvider(directory, Engine(engine.url, PRIVATE), allow=())
    with pytest.raises(SandboxError, match=f"pull access denied.*{words}") as refused:
        await provider.engine.image()
    assert "wrong" not in str(refused.value)
    await provider.close()


async def test_a_login_at_docker_hub_is_good_for_its_own_images_too(
    engine: DockerEngine, directory: Path, docker_config: Path
) -> None:
    entry = {"auth": base64.b64encode(b"ana:pa:ss").decode()}
    docker_config.write_text(json.dumps({"auths": {"https://index.docker.io/v1/": entry}}))
    engine.registry["docker.io/library/box:3"] = engine.registry["box:3"] = "sha256:" + "3" * 64
    engine.closed["docker.io/library/box:3"] = ("ana", "pa:ss")
    provider = DockerProvider(directory, Engine(engine.url, "box:3"), allow=())
    assert await provider.engine.image() == "sha256:" + "3" * 64
    await provider.close()


@pytest.mark.parametrize(
    ("fails", "error", "words"),
    [
        ("", SandboxError, r"could not pull the image box:3: pull access denied.*SANDPIPER_DOCKER_IMAGE"),
        ("toomanyrequests: pull rate limit", SandboxError, "could not pull the image box:3: toomanyrequests"),
        ("write /layer: no space left on device", SandboxFull, "disk is full"),
    ],
)
async def test_an_image_that_cannot_be_pulled(
    engine: DockerEngine, directory: Path, fails: str, error: type[SandboxError], words: str
) -> None:
    if fails:
        engine.registry["box:3"] = fails
    provider = DockerProvider(directory, Engine(engine.url, "box:3"), allow=())
    with pytest.raises(error, match=words):
        await provider.create(LABELS)
    (left,) = await provider.find(LABELS)  # the next turn tries with it
    assert await left.state() is SandboxState.STOPPED
    await left.delete()
    await provider.close()


async def test_an_image_that_is_lost_stops_no_container_that_is_there(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    await sandbox.stop()
    engine.images.clear()
    await sandbox.start()
    assert await sh(sandbox, "echo on") == "on"


async def test_an_engine_that_sees_another_file_system_is_told_of(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox, directory: Path
) -> None:
    await sandbox.stop()
    mounts = engine.containers[sandbox.id].config["HostConfig"]["Mounts"]
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    mounts[1] = {**mounts[1], "Source": str(elsewhere)}
    with pytest.raises(SandboxError, match=r"does not see .*SANDPIPER_DATA_DIR"):
        await sandbox.start()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"host": "tcp://10.0.0.1:2375"}, "SANDPIPER_DOCKER_HOST"),
        ({"user": "0:0"}, "SANDPIPER_DOCKER_USER"),
        ({"user": "agent"}, "SANDPIPER_DOCKER_USER"),
        ({"loopback": ("10.0.0.1:80",)}, "SANDPIPER_EGRESS_LOOPBACK"),
        ({"mode": "list"}, "SANDPIPER_EGRESS_ALLOW is empty"),
        ({"allow": ("no-port",)}, "SANDPIPER_EGRESS_ALLOW"),
    ],
)
def test_settings_that_cannot_be_kept(tmp_path: Path, setting: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        docker_provider(tmp_path, **{"host": "unix:///var/run/docker.sock", "image": IMAGE, **setting})


# Faults in mid-call


@pytest.mark.parametrize("fault", ["drop", "lose", 500, 503])
@pytest.mark.parametrize(
    "what", ["GET /volumes/", "GET /containers/.*/json", "POST /containers/.*/(start|stop)"]
)
async def test_a_call_that_fails_once_is_made_again(
    engine: DockerEngine, sandbox: DockerSandbox, what: str, fault: int | str
) -> None:
    await sandbox.stop()
    engine.faults = [(what, fault)]
    await sandbox.start()
    assert not engine.faults
    assert await sandbox.state() is SandboxState.RUNNING
    engine.faults = [(what, fault)]
    await sandbox.stop()
    assert await sandbox.state() is SandboxState.STOPPED


@pytest.mark.parametrize("fault", ["drop", "lose", 500])
@pytest.mark.parametrize(
    "what", ["POST /containers/create", "PUT /containers/.*/archive", "DELETE /containers/"]
)
async def test_making_a_container_bears_a_lost_connection(
    engine: DockerEngine, sandbox: DockerSandbox, what: str, fault: int | str
) -> None:
    await sh(sandbox, "echo kept >~/note")
    await sandbox.stop()
    engine.containers[sandbox.id].config["Labels"] = {}  # made otherwise than it would be now
    engine.faults = [(what, fault)]
    await sandbox.start()
    assert not engine.faults
    assert await sh(sandbox, "cat ~/note") == "kept"


@pytest.mark.parametrize("fault", ["drop", "lose", 500])
@pytest.mark.parametrize("what", ["POST /containers/create", "PUT /containers/.*/archive"])
async def test_a_fresh_sandbox_has_a_home_whatever_call_failed(
    engine: DockerEngine, provider: DockerProvider, what: str, fault: int | str
) -> None:
    engine.faults = [(what, fault)]
    sandbox = await provider.create(LABELS)
    assert not engine.faults
    assert await sh(sandbox, "echo kept >~/note; cat ~/note") == "kept"


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("POST /containers/.*/exec", "drop"),
        ("POST /containers/.*/exec", "lose"),
        ("POST /containers/.*/exec", 500),
        ("POST /exec/", "drop"),
        ("POST /exec/", 500),
        ("POST /exec/", -1),
        ("POST /exec/", -20),
    ],
)
async def test_a_command_whose_connection_is_lost_says_nothing_of_the_box(
    engine: DockerEngine, box: VolumeBox, what: str, fault: int | str
) -> None:
    engine.faults = [(what, fault)]
    with pytest.raises(SandboxUnreachable):
        await box.run("echo said; sleep 0.1; echo more", timeout=20)
    assert (await box.run("echo said; exit 3", timeout=20)).code == 3


async def test_a_file_that_was_cut_off_is_not_taken_for_whole(
    engine: DockerEngine, box: VolumeBox, tmp_path: Path
) -> None:
    await box.upload(b"x" * 200_000, f"{HOME}/file")
    engine.faults = [("POST /exec/", -100_000)]
    with pytest.raises(SandboxUnreachable):
        await box.download(f"{HOME}/file", tmp_path / "copy", limit=1 << 20)
    await box.download(f"{HOME}/file", tmp_path / "copy", limit=1 << 20)
    assert (tmp_path / "copy").read_bytes() == b"x" * 200_000


async def test_a_sandbox_that_is_stopped_or_gone_in_mid_call_says_so(box: VolumeBox) -> None:
    # While it is deleted, its container goes first.
    for end, errors in ((box.stop, SandboxNotRunning), (box.delete, (SandboxNotRunning, SandboxGone))):
        await box.start(())
        await box.run("rm -f ~/here", timeout=20)
        # The stream of a command can end before the engine says that its container has.
        call = persistently(lambda: box.run("echo here >~/here; sleep 600", timeout=60))
        running = asyncio.ensure_future(call)
        async with asyncio.timeout(60):
            while (await box.run("test -e ~/here", timeout=20)).code != 0:  # noqa: ASYNC110 another process
                await asyncio.sleep(0.01)
        await end()
        with pytest.raises(errors):
            await running
    with pytest.raises(SandboxGone):
        await box.run("true", timeout=20)


async def test_what_a_command_leaves_running_is_not_waited_for(box: VolumeBox) -> None:
    async with asyncio.timeout(30):
        said = await box.run("sleep 60 & echo done", timeout=60)
    assert (said.code, said.output) == (0, "done\n")


async def test_a_command_that_takes_too_long(box: VolumeBox) -> None:
    with pytest.raises(SandboxUnreachable, match=r"longer than 0\.5 s"):
        await box.run("sleep 60", timeout=0.5)


async def test_a_full_disk_is_told_of_the_file(engine: DockerEngine, box: VolumeBox) -> None:
    with pytest.raises(SandboxError, match="could not be written"):
        await box.upload(b"x", "/usr/file")
