"""A remote sandbox while its provider fails: dropped connections, proxies that answer for the door, a door
that is killed, a box that is stopped or gone in mid-call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from bot.errors import SandboxError, SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.models import Launch, SandboxState
from bot.ports import Process
from sandbox.box import Address, Said
from sandbox.remote import RemoteSandbox
from tests.remote_boxes import DirectoryBox, free_port

PREVIOUS = Path(__file__).parents[1] / "data" / "supervisor-1"
MB = 1 << 20

T = TypeVar("T")


class Wire:
    """What stands between the bot and the box's door. `faults`, one per request: "drop" loses half of the
    answer; "502" and the like is said instead of asking the door. `always` is the fault of all others."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.faults: list[str] = []
        self.always = ""
        self.impostor: bytes | None = None  # what somebody in the box says in the door's place
        self.status = 200  # and as which answer
        self.requests = 0
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._one(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            body = await reader.readexactly(length)
            self.requests += 1
            fault = self.faults.pop(0) if self.faults else self.always
            if fault.isdigit():
                writer.write(f"HTTP/1.1 {fault} No\r\nContent-Length: 5\r\n\r\nsorry".encode())
                return
            if self.impostor is not None:
                length = len(self.impostor)
                first = f"HTTP/1.1 {self.status} So\r\nX-Sandpiper-Door: 2\r\n"
                writer.write(f"{first}Content-Length: {length}\r\n\r\n".encode())
                writer.write(self.impostor)
                return
            door_reader, door = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(door):
                door.write(head + body)
                answer = await door_reader.read()
            writer.write(answer[: len(answer) // 2] if fault == "drop" else answer)


class FaultyBox(DirectoryBox):
    """faults: verb → when its connection is lost, call by call ("before" it is done, or "after")."""

    def __init__(self, root: Path, wire: Wire) -> None:
        super().__init__(root)
        self.wire = wire
        self.faults: dict[str, list[str]] = {}
        self.calls: Counter[str] = Counter()
        self.commands: list[str] = []
        self.before_download: Callable[[Path], None] = lambda path: None

    async def _over(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls[verb] += 1
        faults = self.faults.get(verb)
        fault = faults.pop(0) if faults else ""
        if fault == "before":
            raise SandboxUnreachable("The connection was lost.")
        result = await call()
        if fault == "after":
            raise SandboxUnreachable("The connection was lost.")
        return result

    async def state(self) -> SandboxState:
        return await self._over("state", super().state)

    async def start(self) -> None:
        await self._over("start", super().start)

    async def stop(self) -> None:
        await self._over("stop", super().stop)

    async def delete(self) -> None:
        await self._over("delete", super().delete)

    async def touch(self, idle_stop: float) -> None:
        await self._over("touch", lambda: super(FaultyBox, self).touch(idle_stop))

    async def run(self, command: str, *, timeout: float) -> Said:
        self.commands.append(command)
        return await self._over("run", lambda: super(FaultyBox, self).run(command, timeout=timeout))

    async def upload(self, content: bytes | Path, path: str) -> None:
        await self._over("upload", lambda: super(FaultyBox, self).upload(content, path))

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        self.before_download(Path(path))
        await self._over("download", lambda: super(FaultyBox, self).download(path, target, limit=limit))

    async def door(self, port: int) -> Address | None:
        address = await self._over("door", lambda: super(FaultyBox, self).door(port))
        return Address(self.wire.url) if address and port == self.port else address


@dataclass
class Stage:
    box: FaultyBox
    wire: Wire
    client: httpx.AsyncClient
    sandbox: RemoteSandbox

    def another_life(self) -> RemoteSandbox:
        """The same box for another bot, or after a restart."""
        return RemoteSandbox(self.box, self.client, port=self.box.port, host="127.0.0.1")

    @property
    def door(self) -> dict[str, object]:
        return dict(json.loads((self.processes / "door").read_text()))

    @property
    def processes(self) -> Path:
        return self.box.home / ".sandpiper" / "processes"

    def kill_door(self) -> None:
        os.kill(int(str(self.door["pid"])), signal.SIGKILL)

    async def sh(self, script: str, *, timeout: float = 60.0) -> str:
        result = await self.sandbox.run(Launch(("sh", "-c", script), self.sandbox.home), timeout=timeout)
        assert result.code == 0, result.err
        return result.out.decode()

    async def spawn(self, *argv: str, **secrets: str) -> Process:
        launch = Launch(argv, self.sandbox.home, secrets=secrets)
        return await self.sandbox.spawn("turn-1", launch, fence=1, orphan_after=60)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with httpx.AsyncClient(trust_env=False) as client, set_up(tmp_path, client) as stage:
        yield stage


@contextlib.asynccontextmanager
async def set_up(directory: Path, client: httpx.AsyncClient) -> AsyncIterator[Stage]:
    root = directory / f"box-{secrets.token_hex(8)}"
    root.mkdir()
    port = free_port()
    (root / "box.json").write_text(json.dumps({"labels": {}, "port": port}))
    wire = Wire(port)
    box = FaultyBox(root, wire)
    async with wire.serving():
        stage = Stage(box, wire, client, RemoteSandbox(box, client, port=port, host="127.0.0.1"))
        await stage.sandbox.start()
        await stage.sandbox.enter()
        yield stage
    box.faults.clear()
    with contextlib.suppress(SandboxGone):
        await box.delete()


async def read_all(process: Process) -> bytes:
    data = b""
    while True:
        chunk = await process.read(1, len(data), ack=0, wait=20)
        data += chunk.data
        if chunk.eof:
            return data


async def started(process: Process) -> None:
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"ready\n"


# The provider's own calls


LOST = [
    (verb, when) for verb in ("state", "run", "upload", "download", "door") for when in ("before", "after")
]


@pytest.mark.parametrize(("verb", "when"), LOST)
async def test_a_connection_lost_in_any_call_to_the_provider_changes_nothing(
    stage: Stage, tmp_path: Path, verb: str, when: str
) -> None:
    content = secrets.token_bytes(100_000)
    (tmp_path / "source").write_bytes(content)
    later = stage.another_life()
    stage.box.faults[verb] = [when]
    assert await later.state() is SandboxState.RUNNING
    await later.enter()
    await later.upload(tmp_path / "source", f"{later.home}/a/file")
    await later.download(f"{later.home}/a/file", tmp_path / "target", limit=MB)
    assert (tmp_path / "target").read_bytes() == content
    launch = Launch(("sh", "-c", "echo $$ >>pids; cat"), later.home)
    assert (await later.run(launch, stdin=b"words")).out == b"words"
    assert len((stage.box.home / "pids").read_text().split()) == 1
    assert not stage.box.faults[verb], "it did happen"
    assert not list((stage.box.home / ".sandpiper" / "incoming").iterdir()) or when == "after"


async def test_a_download_whose_command_is_done_twice_brings_the_file(stage: Stage, tmp_path: Path) -> None:
    await stage.sh("echo content >file")
    stage.box.faults["run"] = ["after"]
    await stage.sandbox.download(f"{stage.sandbox.home}/file", tmp_path / "target", limit=MB)
    assert (tmp_path / "target").read_text() == "content\n"
    assert not stage.box.faults["run"], "it did happen"
    assert not list((stage.box.home / ".sandpiper" / "incoming").iterdir())


async def test_a_link_that_is_put_where_a_provider_reads_brings_nothing(stage: Stage, tmp_path: Path) -> None:
    """Its daemon may read as root, and then follow it to what is none of the agent's."""
    (tmp_path / "shadow").write_text("root's own\n")
    await stage.sh("echo content >file")

    def swap(path: Path) -> None:
        path.unlink()
        path.symlink_to(tmp_path / "shadow")

    stage.box.before_download = swap
    with pytest.raises(SandboxError, match="changed while it was read"):
        await stage.sandbox.download(f"{stage.sandbox.home}/file", tmp_path / "target", limit=MB)
    assert not (tmp_path / "target").exists()


async def test_a_file_that_is_written_to_comes_as_it_was_at_one_moment(stage: Stage, tmp_path: Path) -> None:
    await stage.sh("echo one >file")

    def grow(path: Path) -> None:
        with (stage.box.home / "file").open("a") as file:
            file.write("more\n")

    stage.box.before_download = grow
    await stage.sandbox.download(f"{stage.sandbox.home}/file", tmp_path / "target", limit=MB)
    assert (tmp_path / "target").read_text() == "one\nmore\n"
    assert not list((stage.box.home / ".sandpiper" / "incoming").iterdir())


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_lost_in_the_boxs_life_changes_nothing(stage: Stage, when: str) -> None:
    for verb in ("stop", "start", "touch", "delete"):
        stage.box.faults[verb] = [when]
    await stage.sandbox.stop()
    assert await stage.sandbox.state() is SandboxState.STOPPED
    await stage.sandbox.start()
    await stage.sandbox.touch(60)
    assert await stage.sh("echo works") == "works\n"
    await stage.sandbox.delete()
    with pytest.raises(SandboxGone):
        await stage.sandbox.state()


async def test_a_provider_that_stays_away_is_unreachable_and_the_box_is_not_gone(stage: Stage) -> None:
    stage.box.faults["state"] = ["before"] * 3
    with pytest.raises(SandboxUnreachable):
        await stage.sandbox.state()
    assert await stage.sandbox.state() is SandboxState.RUNNING


# The door


@pytest.mark.parametrize("fault", ["drop", "502", "503", "504", "404", "401"])
async def test_what_happens_on_the_way_to_the_door_once_is_not_noticed(stage: Stage, fault: str) -> None:
    async def trouble() -> None:
        assert not stage.wire.faults
        stage.wire.faults = [fault]

    await trouble()
    process = await stage.spawn("sh", "-c", "echo $$ >>pids; echo ready; cat; exit 3")
    await trouble()
    await started(process)
    await trouble()
    assert await process.write(0, b"once\n") == 5
    await trouble()
    await process.lease(60)
    await trouble()
    assert (await process.status()).running
    await trouble()
    assert await process.write(5, b"", eof=True) == 5
    await trouble()
    assert await read_all(process) == b"ready\nonce\n"
    await trouble()
    await process.signal("TERM")
    await trouble()
    assert await stage.sh("echo short") == "short\n"
    await trouble()
    await process.forget()
    assert len((stage.box.home / "pids").read_text().split()) == 1
    assert stage.box.calls["door"] > 5, "a fresh address each time"
    assert not [command for command in stage.box.commands if " ctl " in command]


async def test_a_door_that_was_killed_is_opened_again_with_another_token(stage: Stage) -> None:
    process = await stage.spawn("sh", "-c", "echo ready; cat")
    await started(process)
    reading = asyncio.ensure_future(process.read(1, 6, ack=0, wait=30))
    before = stage.door["token"]
    stage.kill_door()
    await process.write(0, b"words")
    assert (await reading).data == b"words"
    assert stage.door["token"] != before


async def test_another_bot_finds_the_door_and_both_go_on(stage: Stage) -> None:
    process = await stage.spawn("sh", "-c", "echo ready; cat")
    later = stage.another_life()
    uploads, before = stage.box.calls["upload"], stage.door
    theirs = await later.attach("turn-1", fence=2)
    assert (stage.door, stage.box.calls["upload"]) == (before, uploads), "nothing is brought or opened twice"
    await theirs.write(0, b"words", eof=True)
    assert await read_all(process) == b"ready\nwords"


async def test_a_door_that_is_never_reached_is_done_without(stage: Stage) -> None:
    stage.wire.always = "502"
    process = await stage.spawn("sh", "-c", "echo ready; cat")
    await started(process)
    requests = stage.wire.requests
    await process.write(0, b"words", eof=True)
    assert await read_all(process) == b"ready\nwords"
    assert stage.wire.requests == requests, "it is left alone for a while"


ODD = ("{}", "5", "[1]", "", '{"in_off": null}', "[" * 200_000)


@pytest.mark.parametrize(
    ("answer", "status"),
    [*((odd, status) for odd in ODD for status in (200, 404, 409, 500)), ("x" * 17 * MB, 200)],
    ids=lambda said: str(said)[:9],
)
async def test_an_agent_that_answers_for_the_supervisor_harms_its_own_work_only(
    stage: Stage, tmp_path: Path, answer: str, status: int
) -> None:
    process = await stage.spawn("cat")
    async with set_up(tmp_path, stage.client) as other, asyncio.timeout(60):
        theirs = await other.spawn("cat")
        stage.wire.impostor, stage.wire.status = answer.encode(), status
        calls = (process.read(1, 0, ack=0, wait=0), process.write(0, b"words"), process.status())
        for call in (*calls, process.signal("INT"), process.lease(60)):
            with contextlib.suppress(SandboxError):
                await call
            assert await other.sh("echo works") == "works\n"
        await theirs.write(0, b"words", eof=True)
        assert await read_all(theirs) == b"words"
        stage.wire.impostor = None
        later = await stage.another_life().attach("turn-1", fence=2)
        await later.write(0, b"words", eof=True)
        assert await read_all(later) == b"words", "what was not written is"


class SpokenFor(FaultyBox):
    """answer: what somebody in the box says in our program's place."""

    answer = ""

    async def run(self, command: str, *, timeout: float) -> Said:
        if self.answer and " ctl " in command:
            return Said(0, self.answer)
        return await super().run(command, timeout=timeout)


@pytest.mark.parametrize(
    "answer",
    [
        "5",
        "[" * 200_000,
        '{"status": 200, "headers": {}, "body": 5}',
        '{"status": 200, "headers": {}, "body": "€"}',
        '{"status": 200, "headers": [], "body": ""}',
        '{"status": "x", "headers": {}, "body": ""}',
        '{"status": {}, "headers": 5, "body": "NQ=="}',
    ],
    ids=lambda said: str(said)[:60],
)
async def test_who_answers_for_our_programs_is_not_understood(stage: Stage, answer: str) -> None:
    box = SpokenFor(stage.box.root, stage.wire)
    box.has_door = False
    sandbox = RemoteSandbox(box, stage.client, port=box.port, host="127.0.0.1")
    process = await sandbox.spawn("turn-1", Launch(("cat",), stage.sandbox.home), fence=1, orphan_after=60)
    box.answer = answer
    with pytest.raises(SandboxError):
        await process.read(1, 0, ack=0, wait=0)
    with pytest.raises(SandboxError):
        await process.status()


async def test_a_port_that_somebody_took_is_no_door(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.box.port)):
        assert await stage.sh("echo works") == "works\n"


async def test_a_box_without_python_says_so(stage: Stage, tmp_path: Path) -> None:
    stage.box.path = str(tmp_path / "nothing")
    with pytest.raises(SandboxError, match=r"cannot run our programs: .*python3"):
        await stage.another_life().enter()


# Its end


@pytest.mark.parametrize(("verb", "error"), [("stop", SandboxNotRunning), ("delete", SandboxGone)])
async def test_a_box_that_ends_in_mid_call_is_told_by_the_box(
    stage: Stage, verb: str, error: type[SandboxError]
) -> None:
    process = await stage.spawn("sh", "-c", "echo ready; exec sleep 600")
    await started(process)
    reading = asyncio.ensure_future(process.read(1, 6, ack=0, wait=30))
    running = asyncio.ensure_future(stage.sh("touch began; sleep 600", timeout=600))
    async with asyncio.timeout(20):
        while not (stage.box.home / "began").exists():  # noqa: ASYNC110 another process makes it
            await asyncio.sleep(0.02)
    await (stage.box.stop() if verb == "stop" else stage.box.delete())
    for call in (reading, running, process.status(), stage.spawn("true")):
        with pytest.raises(error):
            await call


async def test_a_box_that_was_restarted_by_others_goes_on(stage: Stage) -> None:
    process = await stage.spawn("sh", "-c", "echo ready; exec sleep 600")
    await started(process)
    before, uploads = stage.door["token"], stage.box.calls["upload"]
    await stage.box.stop()
    await stage.box.start()
    assert not (await process.status()).running
    assert await read_all(process) == b"ready\n"
    assert await stage.sh("echo works") == "works\n"
    assert stage.door["token"] != before
    assert stage.box.calls["upload"] == uploads, "our programs are there still"


async def test_programs_that_were_deleted_are_brought_again(stage: Stage) -> None:
    await stage.sh("rm -rf ~/.sandpiper/programs")
    with pytest.raises(SandboxError, match="supervisor"):
        await stage.sh("true")
    assert await stage.sh("echo works; rm -rf ~/.sandpiper/programs") == "works\n"
    stage.kill_door()
    assert await stage.sh("echo works") == "works\n"


# What it keeps to itself, and what it cannot do


@pytest.mark.parametrize("always", ["", "502"])
async def test_secrets_are_in_no_command_and_in_no_file(stage: Stage, always: str) -> None:
    stage.wire.always = always
    process = await stage.spawn("sh", "-c", "echo ${#KEY}; cat", KEY="correct-horse")
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"13\n"
    token = str(stage.door["token"])
    assert not [command for command in stage.box.commands if "correct-horse" in command or token in command]
    places = [stage.box.home, *Path("/dev/shm").glob("sandpiper-*")]
    found = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert not [path for path in found if os.access(path, os.R_OK) and b"correct-horse" in path.read_bytes()]


async def test_short_programs_leave_nothing_behind(stage: Stage) -> None:
    await stage.sh("echo done")
    with pytest.raises(SandboxUnreachable):
        await stage.sh("sleep 600", timeout=0.5)
    cancelled = asyncio.ensure_future(stage.sh("touch began; sleep 600", timeout=600))
    async with asyncio.timeout(20):
        while not (stage.box.home / "began").exists():  # noqa: ASYNC110 another process makes it
            await asyncio.sleep(0.02)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    early = asyncio.ensure_future(stage.sh("sleep 600", timeout=600))
    before = stage.wire.requests
    async with asyncio.timeout(20):
        while stage.wire.requests == before:  # noqa: ASYNC110 it is just being started
            await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    assert not list(stage.processes.glob("run-*"))


async def test_what_another_life_left_behind_goes_after_a_day(stage: Stage) -> None:
    for place in ("processes/run-0123", "incoming/unpacked.d"):
        for name, age in (("old", 2 * 86400), ("new", 3600)):
            left = stage.box.home / ".sandpiper" / f"{place}-{name}"
            left.mkdir()
            os.utime(left, (time.time() - age,) * 2)
    await stage.another_life().enter()
    left_over = [path.name for path in stage.processes.parent.glob("*/*-*")]
    assert sorted(left_over) == ["run-0123-new", "unpacked.d-new"]


async def test_what_the_previous_release_keeps_is_attached_to(stage: Stage) -> None:
    python = [sys.executable, "-I", "-S", str(PREVIOUS)]
    launch = json.dumps({"argv": ["cat"], "env": {"HOME": str(stage.box.home)}, "fence": 1, "lease": 60})
    keep = [*python, "keep", "--dir", str(stage.processes / "turn-1")]
    environment = {"HOME": str(stage.box.home), "PATH": stage.box.path}
    run = functools.partial(subprocess.run, input=launch.encode(), check=True, capture_output=True)
    await asyncio.to_thread(run, keep, env=environment)
    process = await stage.sandbox.attach("turn-1", fence=2)
    assert await process.write(0, b"words", eof=True) == 5
    assert await read_all(process) == b"words"
    await process.forget()


async def test_large_files_and_odd_names(stage: Stage, tmp_path: Path) -> None:
    content = secrets.token_bytes(MB) * 50
    (tmp_path / "source").write_bytes(content)
    path = f"{stage.sandbox.home}/a dir/'päth' $HOME\n名.bin"
    await stage.sandbox.upload(tmp_path / "source", path)
    await stage.sandbox.download(path, tmp_path / "target", limit=len(content))
    assert (tmp_path / "target").read_bytes() == content


async def test_sessions_are_not_separated_but_what_is_named_is_there(stage: Stage) -> None:
    mine = f"{stage.sandbox.workspaces}/mine"
    result = await stage.sandbox.run(Launch(("pwd",), mine, visible=(mine,)))
    assert result.out.decode().strip() == mine
    with pytest.raises(SandboxError, match="not kept"):
        await stage.sandbox.run(Launch(("pwd",), mine, visible=("/etc/mine",)))


async def test_services_of_the_bots_machine_are_refused_in_words(stage: Stage) -> None:
    with pytest.raises(SandboxError, match="cannot be reached from a remote sandbox"):
        await stage.sandbox.run(Launch(("true",), stage.sandbox.home, loopback=(8080,)))


async def test_a_port_is_exposed_at_the_providers_address_but_the_door_is_not(stage: Stage) -> None:
    link = await stage.sandbox.expose(3000, f"{stage.sandbox.home}/port")
    assert link.url == "http://127.0.0.1:3000"
    await stage.sandbox.conceal(f"{stage.sandbox.home}/port")
    with pytest.raises(SandboxError, match="not the agent's"):
        await stage.sandbox.expose(stage.box.port, f"{stage.sandbox.home}/port")


async def test_programs_of_the_home_are_not_the_bots(stage: Stage) -> None:
    await stage.sh(
        "mkdir -p ~/.local/bin; printf '#!/bin/sh\\necho mine' >~/.local/bin/ls; chmod +x ~/.local/bin/ls"
    )
    assert await stage.sh("ls /") == "mine\n"
    ours = await stage.sandbox.run(Launch(("sh", "-c", "ls /"), stage.sandbox.home, ours=True))
    assert b"mine" not in ours.out
