"""A Docker engine on loopback, for the real SDK: the routes, statuses and refusals of the Engine API 1.41.

Its containers are real but for their kind: a box of bubblewrap's has the namespaces, the mounts and the user
id that were asked for, and programs are started in it by nsenter.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import struct
import tarfile
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sandbox.bubblewrap import Options, system
from sandbox.docker import DockerProvider
from tests.boxes import cannot_be_tested
from tests.remote_boxes import PATH, remove_tree

# The providers' contract and tests/integration/test_docker_live.py run on the engine of SANDPIPER_DOCKER_HOST
# as well, with this image.
LIVE_IMAGE = os.environ.get("SANDPIPER_TEST_DOCKER", "")
LIVE_HOST = os.environ.get("SANDPIPER_DOCKER_HOST", "unix:///var/run/docker.sock")

IMAGE = "test-image:1"
MAX_HEAD = 1 << 16


# why there can be no such containers here ("" = there can), asked once
UNAVAILABLE: list[str] = []


async def no_containers() -> str:
    if not UNAVAILABLE:
        missing = [name for name in ("bwrap", "nsenter") if shutil.which(name) is None]
        if missing:
            UNAVAILABLE.append(f"{' and '.join(missing)}: not installed")
            return UNAVAILABLE[0]
        try_it = ("bwrap", "--unshare-user", "--unshare-all", "--ro-bind", "/", "/", "true")
        process = await asyncio.create_subprocess_exec(*try_it, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        UNAVAILABLE.append(said.decode().strip() if process.returncode else "")
    return UNAVAILABLE[0]


class Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def leave_no_disk(provider: DockerProvider) -> None:
    """What a bot keeps at a real engine beside its sandboxes is taken away."""
    from aiodocker import Docker

    engine: Any = Docker(url=LIVE_HOST)
    async with engine:  # not every test has made it
        await engine.volumes.create({"Name": provider.engine.disk})
        await (await engine.volumes.get(provider.engine.disk)).delete()


@dataclass
class Container:
    name: str
    config: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    process: asyncio.subprocess.Process | None = None
    inside: int = 0  # a process in its namespaces
    paused: bool = False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None


@dataclass
class Execution:
    container: Container
    asked: dict[str, Any]
    code: int | None = None
    running: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))


Answer = tuple[int, Any]
Handler = Callable[..., Awaitable[Answer | None]]


class DockerEngine:
    """faults: (a pattern of "METHOD /path", what happens then), for the next request that fits: a status;
    "drop", the connection is closed before anything is done; "lose", after it is done; a negative number, the
    stream of an exec breaks off after so many bytes. registry: what can be pulled, or how its pull fails.
    closed: of these images, the user and password without which they cannot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.id = "ENGINE"
        self.api = "1.41"
        self.info: dict[str, Any] = {"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True}
        self.images: dict[str, str] = {IMAGE: "sha256:" + "1" * 64}
        self.registry: dict[str, str] = {}
        self.closed: dict[str, tuple[str, str]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.containers: dict[str, Container] = {}
        self.coming: set[str] = set()
        self.executions: dict[str, Execution] = {}
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.faults: list[tuple[str, int | str]] = []
        self.held: list[tuple[str, asyncio.Event, asyncio.Event]] = []
        self._open: set[asyncio.Task[None]] = set()
        directory.mkdir(parents=True, exist_ok=True)
        routes: dict[str, Handler] = {
            "GET /version": self._version,
            "GET /info": self._info,
            "GET /images/(.+)/json": self._image,
            "POST /images/create": self._pull,
            "POST /volumes/create": self._make_volume,
            "GET /volumes": self._volumes,
            "GET /volumes/([^/]+)": self._volume,
            "DELETE /volumes/([^/]+)": self._delete_volume,
            "POST /containers/create": self._create,
            "GET /containers/json": self._list,
            "GET /containers/([^/]+)/json": self._inspect,
            "POST /containers/([^/]+)/start": self._start,
            "POST /containers/([^/]+)/(?:stop|kill)": self._stop,
            "POST /containers/([^/]+)/pause": self._pause,
            "POST /containers/([^/]+)/unpause": self._unpause,
            "DELETE /containers/([^/]+)": self._delete,
            "PUT /containers/([^/]+)/archive": self._put_archive,
            "POST /containers/([^/]+)/exec": self._exec,
            "POST /exec/([^/]+)/start": self._exec_start,
            "GET /exec/([^/]+)/json": self._exec_inspect,
        }
        self._routes = [(re.compile(pattern), handler) for pattern, handler in routes.items()]

    async def start(self) -> None:
        if why := await no_containers():
            cannot_be_tested(why)
        self._server = await asyncio.start_unix_server(self._accept, self.socket, limit=MAX_HEAD)

    async def close(self) -> None:
        self._server.close()
        await self.halt()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self.socket.unlink(missing_ok=True)

    def hold(self, what: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Of the next request that is like this: that it has come, and that it may go on."""
        come, go = asyncio.Event(), asyncio.Event()
        self.held.append((what, come, go))
        return come, go

    def ends_for_memory(self, name: str) -> None:
        """As the kernel counts it in the control group of a container."""
        events = self._group(name) / "memory.events"
        events.write_text(f"oom {(kills := int(events.read_text().split()[-1]) + 1)}\noom_kill {kills}\n")

    def _group(self, name: str) -> Path:
        return self.directory / "groups" / name

    async def halt(self) -> None:
        """All containers end, as by `docker kill`."""
        for container in list(self.containers.values()):
            await self._end(container)

    # HTTP

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head[:-4].split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = first.split(" ")
                parts = urlsplit(target)
                path = re.sub(r"^/v\d\.\d+", "", unquote(parts.path))
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                if not await self._one(Request(method, path, query, headers, body, reader, writer)):
                    return

    async def _one(self, request: Request) -> bool:
        """Whether the connection stays."""
        what = f"{request.method} {request.path}"
        self.requests.append(what)
        for holding in [entry for entry in self.held if re.search(entry[0], what)]:
            self.held.remove(holding)
            holding[1].set()
            await holding[2].wait()
        fault: int | str = 0
        for entry in self.faults:
            if re.search(entry[0], what):
                self.faults.remove(entry)
                fault = entry[1]
                break
        if fault == "drop":
            return False
        try:
            if isinstance(fault, int) and fault > 0:
                raise Refused(fault, "as the test wants it")
            found = ((r.fullmatch(what), handler) for r, handler in self._routes)
            match, handler = next(((m, h) for m, h in found if m), (None, None))
            if match is None or handler is None:
                raise Refused(404, "page not found")
            if handler == self._exec_start:
                await self._exec_start(request, *match.groups(), cut=-fault if isinstance(fault, int) else 0)
                return False
            answer = await handler(request, *match.groups())
        except Refused as no:
            answer = (no.status, {"message": str(no)})
        if fault == "lose":
            return False
        assert answer is not None
        status, said = answer
        content = b"" if said is None else json.dumps(said).encode()
        head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(content)}\r\n"
        if said is not None:
            head += "Content-Type: application/json\r\n"
        if status in (204, 304):
            head = f"HTTP/1.1 {status} OK\r\n"
        request.writer.write(head.encode() + b"\r\n" + content)
        await request.writer.drain()
        return True

    # the engine, its images and volumes

    async def _version(self, request: Request) -> Answer:
        return 200, {"Version": "20.10.24", "ApiVersion": self.api, "Os": "linux", "Arch": "amd64"}

    async def _info(self, request: Request) -> Answer:
        return 200, {"ID": self.id, "OSType": "linux", "Runtimes": {"runc": {}, "runsc": {}}, **self.info}

    async def _image(self, request: Request, name: str) -> Answer:
        if name not in self.images and name not in self.images.values():
            raise Refused(404, f"No such image: {name}")
        return 200, {"Id": self.images.get(name, name), "Config": {"Env": [f"PATH={PATH}"]}}

    async def _pull(self, request: Request) -> Answer:
        name = request.query["fromImage"]
        if request.query.get("tag"):
            name += f":{request.query['tag']}"
        told = json.loads(base64.urlsafe_b64decode(request.headers.get("x-registry-auth", "e30=")))
        has = {name.lower(): value for name, value in told.items()}  # as Go reads it
        may = (has.get("username"), has.get("password")) == self.closed.get(name, (None, None))
        if name not in self.registry or (name in self.closed and not may):
            raise Refused(
                404, f"pull access denied for {name}, repository does not exist or may require login"
            )
        if not self.registry[name].startswith("sha256:"):  # it breaks off while it is pulled
            return 200, {"error": self.registry[name], "errorDetail": {"message": self.registry[name]}}
        self.images[name.removeprefix("docker.io/library/")] = self.registry[name]
        return 200, {"status": f"Downloaded newer image for {name}"}

    async def prune(self, used: Collection[str]) -> None:
        """What `docker volume prune` leaves are the volumes that containers use."""
        for name in set(self.volumes) - set(used):
            await asyncio.to_thread(remove_tree, self._data(name))
            del self.volumes[name]

    def _data(self, volume: str) -> Path:
        return self.directory / "volumes" / volume

    async def _make_volume(self, request: Request) -> Answer:
        asked = request.json()
        name = asked["Name"]
        if name not in self.volumes:
            self._data(name).mkdir(parents=True)
            self._data(name).chmod(0o555)  # a fresh volume is root's
            created = f"2026-01-01T00:00:{len(self.volumes):02d}Z"
            self.volumes[name] = {
                "Name": name,
                "Driver": "local",
                "Mountpoint": str(self._data(name)),
                "CreatedAt": created,
                "Labels": asked["Labels"],
            }
        return 201, self.volumes[name]

    async def _volumes(self, request: Request) -> Answer:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        found = [volume for volume in self.volumes.values() if _fits(volume["Labels"] or {}, wanted)]
        return 200, {"Volumes": found or None, "Warnings": None}

    async def _volume(self, request: Request, name: str) -> Answer:
        if name not in self.volumes:
            raise Refused(404, f"get {name}: no such volume")
        return 200, self.volumes[name]

    async def _delete_volume(self, request: Request, name: str) -> Answer:
        await self._volume(request, name)
        for container in self.containers.values():
            if any(mount.get("Source") == name for mount in container.config["HostConfig"]["Mounts"]):
                raise Refused(409, f"remove {name}: volume is in use - [{container.id}]")
        await asyncio.to_thread(remove_tree, self._data(name))
        del self.volumes[name]
        return 204, None

    # containers

    def _container(self, name: str) -> Container:
        for container in self.containers.values():
            if name in (container.name, container.id):
                return container
        raise Refused(404, f"No such container: {name}")

    async def _create(self, request: Request) -> Answer:
        asked, name = request.json(), request.query["name"]
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
            raise Refused(400, f"Invalid container name ({name})")
        if name in self.containers or name in self.coming:
            raise Refused(409, f'Conflict. The container name "/{name}" is already in use')
        in_use = [container.config["Image"] for container in self.containers.values()]
        if asked["Image"] not in (*self.images, *self.images.values(), *in_use):
            raise Refused(404, f"No such image: {asked['Image']}")
        host = asked["HostConfig"]
        if host.get("Runtime", "runc") not in ("runc", "runsc"):
            raise Refused(400, f"unknown or invalid runtime name: {host['Runtime']}")
        if 0 < host.get("Memory", 0) < 6 << 20:
            raise Refused(400, "Minimum memory limit allowed is 6MB")
        for mount in host["Mounts"]:
            if mount["Type"] == "bind" and not Path(mount["Source"]).exists():
                raise Refused(
                    400, f"invalid mount config: bind source path does not exist: {mount['Source']}"
                )
            if mount["Type"] == "volume" and mount["Source"] not in self.volumes:
                self.volumes[mount["Source"]] = {"Name": mount["Source"], "CreatedAt": "", "Labels": None}
        self.coming.add(name)  # the name is taken before there is a container
        await asyncio.sleep(0.02)
        self.coming.discard(name)
        self.created.append(asked)
        container = Container(name, asked)
        self.containers[name] = container
        return 201, {"Id": container.id, "Warnings": []}

    async def _list(self, request: Request) -> Answer:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        everything = request.query.get("all") in ("1", "true")
        found = [c for c in self.containers.values() if everything or c.running]
        return 200, [
            {"Id": c.id, "Names": [f"/{c.name}"]} for c in found if _fits(c.config["Labels"], wanted)
        ]

    async def _inspect(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        status = "paused" if container.paused else "running" if container.running else "exited"
        state = {
            "Status": status,
            "Running": container.running,
            "Paused": container.paused,
            "Restarting": False,
            "Dead": False,
        }
        return 200, {
            "Id": container.id,
            "Name": f"/{container.name}",
            "State": state,
            "Config": container.config,
        }

    async def _start(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        if container.paused:
            raise Refused(409, "cannot start a paused container, try unpause instead")
        if container.running:
            return 304, None
        self._group(container.name).mkdir(parents=True, exist_ok=True)
        (self._group(container.name) / "memory.events").write_text("oom 0\noom_kill 0\n")
        hear, say = os.pipe()
        container.process = await asyncio.create_subprocess_exec(
            *self._box(container, say), pass_fds=(say,), env=_env(container), start_new_session=True
        )
        os.close(say)
        with os.fdopen(hear, "rb") as pipe:
            said = await asyncio.to_thread(pipe.read)
        if not said:
            raise Refused(500, "failed to create shim task: OCI runtime create failed: see the test's output")
        first = json.loads(said)["child-pid"]
        children = Path(f"/proc/{first}/task/{first}/children")
        until = asyncio.get_running_loop().time() + 20
        while not (inside := children.read_text().split()) or "sleep" not in _command(inside[0]):
            assert asyncio.get_running_loop().time() < until, "the container does not start"
            await asyncio.sleep(0.005)
        container.inside = int(inside[0])
        return 204, None

    def _box(self, container: Container, say: int) -> list[str]:
        config, host = container.config, container.config["HostConfig"]
        assert host["NetworkMode"] == "none", "no other network is made here"
        user, _, group = config["User"].partition(":")
        words = ["bwrap", "--info-fd", str(say), "--die-with-parent", "--unshare-user", "--unshare-all"]
        words += ["--uid", user, "--gid", group, "--hostname", config["Hostname"], "--cap-drop", "ALL"]
        words += system(Options())
        words += [
            "--ro-bind-try",
            "/etc/ssl",
            "/etc/ssl",
            "--ro-bind-try",
            "/etc/alternatives",
            "/etc/alternatives",
        ]
        for path, options in host["Tmpfs"].items():
            if path not in ("/tmp", "/var/tmp"):
                words += ["--perms", options.partition("mode=")[2][:4], "--tmpfs", path]
        for mount in host["Mounts"]:
            source = self._data(mount["Source"]) if mount["Type"] == "volume" else mount["Source"]
            words += ["--ro-bind" if mount.get("ReadOnly") else "--bind", str(source), mount["Target"]]
        words += ["--ro-bind", str(self._group(container.name)), "/sys/fs/cgroup"]
        if host["ReadonlyRootfs"]:
            words += ["--remount-ro", "/"]
        return [*words, "--chdir", config["WorkingDir"], "--", *config["Entrypoint"], *config["Cmd"]]

    async def _stop(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        if not container.running:
            return (304, None) if request.path.endswith("stop") else (409, {"message": "is not running"})
        await self._end(container)
        return 204, None

    async def _end(self, container: Container) -> None:
        if container.running and container.process:
            with contextlib.suppress(ProcessLookupError):  # with the first process of its namespace go all
                os.killpg(container.process.pid, signal.SIGKILL)
            await container.process.wait()
        container.paused = False
        for execution in self.executions.values():
            while execution.container is container and execution.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _pause(self, request: Request, name: str) -> Answer:
        self._container(name).paused = True
        return 204, None

    async def _unpause(self, request: Request, name: str) -> Answer:
        self._container(name).paused = False
        return 204, None

    async def _delete(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        if container.running and request.query.get("force") not in ("1", "true"):
            raise Refused(409, f"You cannot remove a running container {container.id}")
        await self._end(container)
        del self.containers[container.name]
        return 204, None

    async def _put_archive(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        path = PurePosixPath(request.query["path"])
        for mount in container.config["HostConfig"]["Mounts"]:
            if mount["Type"] == "volume" and path.is_relative_to(mount["Target"]):
                volume = self._data(mount["Source"])
                volume.chmod(0o755)
                with tarfile.open(fileobj=io.BytesIO(request.body)) as tar:
                    for member in tar:  # whoever is here stands for the container's user
                        member.uid, member.gid = os.getuid(), os.getgid()
                        tar.extract(member, volume / path.relative_to(mount["Target"]), filter="tar")
                volume.chmod(0o555)
                return 200, None
        if container.config["HostConfig"]["ReadonlyRootfs"]:
            raise Refused(403, "container rootfs is marked read-only")
        raise Refused(404, f"Could not find the file {path} in container {name}")

    # programs in them

    async def _exec(self, request: Request, name: str) -> Answer:
        container = self._container(name)
        if not container.running:
            raise Refused(409, f"Container {container.id} is not running")
        if container.paused:
            raise Refused(409, f"Container {name} is paused, unpause the container before exec")
        id = secrets.token_hex(32)
        self.executions[id] = Execution(container, request.json())
        return 201, {"Id": id}

    async def _exec_inspect(self, request: Request, id: str) -> Answer:
        one = self.executions[id]
        return 200, {"ID": id, "Running": one.running, "ExitCode": one.code, "ProcessConfig": {"tty": False}}

    async def _exec_start(self, request: Request, id: str, *, cut: int = 0) -> None:
        one = self.executions.get(id)
        if one is None:
            raise Refused(404, f"No such exec instance: {id}")
        if not one.container.running:
            raise Refused(409, f"Container {one.container.id} is not running")
        request.writer.write(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        enter = [shutil.which("nsenter") or "nsenter", "-t", str(one.container.inside)]
        enter += ["-U", "-m", "-p", "-i", "-u", "-n", "--preserve-credentials", "--"]
        stdin = asyncio.subprocess.PIPE if one.asked["AttachStdin"] else asyncio.subprocess.DEVNULL
        one.running = True
        process = await asyncio.create_subprocess_exec(
            *enter,
            *one.asked["Cmd"],
            env=_env(one.container),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        frames = _Frames(request.writer, cut)
        feeding = asyncio.ensure_future(_feed(request.reader, process.stdin)) if process.stdin else None
        try:
            await asyncio.gather(frames.carry(1, process.stdout), frames.carry(2, process.stderr))
        finally:
            if feeding:
                feeding.cancel()
            one.code = await process.wait()
            one.running = False


class _Frames:
    """What a program says, each piece behind its stream's number and length."""

    def __init__(self, writer: asyncio.StreamWriter, cut: int) -> None:
        self._writer = writer
        self._left = cut or -1

    async def carry(self, stream: int, source: asyncio.StreamReader | None) -> None:
        assert source is not None
        while data := await source.read(1 << 15):
            frame = struct.pack(">BxxxL", stream, len(data)) + data
            if 0 <= self._left < len(frame):
                self._writer.write(frame[: self._left])
                self._writer.close()
            self._left -= len(frame) if self._left >= 0 else 0
            with contextlib.suppress(OSError):  # who has left does not end the program
                if not self._writer.is_closing():
                    self._writer.write(frame)
                    await self._writer.drain()


async def _feed(reader: asyncio.StreamReader, stdin: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError), contextlib.closing(stdin):
        while data := await reader.read(1 << 16):
            stdin.write(data)
            await stdin.drain()


def _fits(labels: dict[str, str], wanted: list[str]) -> bool:
    pairs = (entry.partition("=") for entry in wanted)
    return all(name in labels and (not equals or labels[name] == value) for name, equals, value in pairs)


def _env(container: Container) -> dict[str, str]:
    return {"PATH": PATH, **dict(entry.split("=", 1) for entry in container.config["Env"])}


def _command(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    return ""
