"""What is asked of a container engine for one sandbox: written down whole, so that it can be read and tested.

A sandbox's volume, which is at /sandbox in the container that has the sandbox's name:

    home            the person's
    workspace/<x>   of each session
    repositories/<x>.git
    agents          installed ones; only who installs writes there
    rooms/<name>    the supervisor's directory of each room: our programs, its processes
    sessions/<x>/<name>   of each session what it has for itself of the home

Programs run in rooms: containers that show the home, the agents and so many of the other directories as a
program's launch names. The container with the whole volume runs commands of ours, and nothing of an agent's.

Names and values as in Docker's Engine API 1.41.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bot.errors import ProviderUnavailable, SandboxError, SettingsError
from bot.models import Launch, SandboxState
from sandbox.cgroups import SETTINGS, Limits
from sandbox.whole import in_words, write_whole

API = (1, 41)  # Engine 20.10: private control group namespaces
MADE_OF = "sandpiper.made-of"  # of a container: what it was made of
ROOM_OF = "sandpiper.room-of"  # of a room: the sandbox
HAS_ROOMS = "sandpiper.has-rooms"  # of a container with a whole volume; those of earlier releases had none

ROOT = "/sandbox"  # where the volume is
HOME = f"{ROOT}/home"
WORKSPACES = f"{ROOT}/workspace"
REPOSITORIES = f"{ROOT}/repositories"
AGENTS = f"{ROOT}/agents"
OWN = "/run/sandpiper/own"  # in a room: its directory of the volume
OUT = "/run/sandpiper/out"  # the egress proxy's socket, and nothing else
DOOR = "/run/sandpiper/door"  # the supervisor's socket

GB = 1 << 30
TMP = "rw,nosuid,nodev,exec,mode=1777,size={}"
SHM_SIZE = 256 << 20


@dataclass(frozen=True, slots=True)
class Engine:
    """host: unix:///path of the engine's socket. image: what containers are made of; it needs python3 and
    git. runtime: the engine's name of another OCI runtime, "": its default. user: numbers, as uid:gid.
    limits: of each container. bot: the port of this machine's loopback where they find the bot, which is
    waited for while it is away; 0: they don't. private: directories, from the home, that each session has for
    itself (what any Launch may name as such, so that a session needs one room)."""

    host: str = "unix:///var/run/docker.sock"
    image: str = "node:24-bookworm"
    runtime: str = ""
    user: str = "1000:1000"
    limits: Limits = field(default_factory=Limits)
    bot: int = 0
    private: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, int]:
        uid, _, gid = self.user.partition(":")
        return int(uid), int(gid)


@dataclass(frozen=True, slots=True)
class Room:
    """What programs see of a sandbox besides its home: those that see the same are in one container.
    installs: as Launch's."""

    shows: tuple[str, ...] = ()
    installs: bool = False

    @property
    def name(self) -> str:
        about = json.dumps([self.shows, self.installs])
        return hashlib.sha256(about.encode()).hexdigest()[:8]

    @property
    def session(self) -> str:
        """Whose workspace it shows; "": none's."""
        shown = (path.removeprefix(f"{WORKSPACES}/") for path in self.shows)
        return next((name for name in shown if "/" not in name), "")

    def private(self, paths: Sequence[str]) -> Mapping[str, str]:
        """Where in the volume it has these directories of the home for itself: each directly under the
        session's, where no link can come into its place."""
        if not self.session:
            return {}
        return {path: f"sessions/{self.session}/{path.strip('/').replace('/', '%')}" for path in paths}


def room_of(launch: Launch) -> Room:
    """Raises SandboxError for what cannot be shown."""
    if launch.installs:
        return Room(installs=True)
    return showing(*launch.visible)


def showing(*paths: str) -> Room:
    """Raises SandboxError for all but directories directly under the workspaces and the repositories: deeper,
    an agent could have put a link in their place, which an engine would follow on its machine."""
    for path in paths:
        parent, _, name = path.rpartition("/")
        if parent not in (WORKSPACES, REPOSITORIES) or not re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII):
            raise SandboxError(
                f"{path} cannot be shown in a container.",
                f"Name a directory directly under {WORKSPACES} or {REPOSITORIES}.",
            )
    return Room(tuple(sorted(set(paths))))


def reaching(path: str) -> Room:
    """The room with the least in which a path is reached. Raises SandboxError for one that does not outlive
    its container (/tmp, say)."""
    parts = PurePosixPath(path).parts
    if ".." not in parts:
        if len(parts) > 4 and f"/{parts[1]}/{parts[2]}" in (WORKSPACES, REPOSITORIES):
            return showing("/".join(("", *parts[1:4])))
        if PurePosixPath(HOME) in PurePosixPath(path).parents:
            return Room()
    raise SandboxError(
        f"{path} is not kept in a sandbox.", f"Name a path under {HOME}, {WORKSPACES} or {REPOSITORIES}."
    )


def checked(engine: Engine) -> Engine:
    """The same, if it can be had. Raises SettingsError that names the variable."""
    host, user = engine.host, engine.user
    if not re.fullmatch(r"unix://(/[^/]+)+", host):
        raise SettingsError(
            f"SANDPIPER_DOCKER_HOST: '{host}' is no socket of this machine.",
            "Write it as unix:///var/run/docker.sock; bot and engine have to share a machine.",
        )
    if not re.fullmatch(r"[1-9]\d{0,9}:[1-9]\d{0,9}", user):
        raise SettingsError(
            f"SANDPIPER_DOCKER_USER: '{user}' is no ordinary user.",
            "Write numbers, as in 1000:1000; not root's.",
        )
    return engine


def fit(engine: Engine, version: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raises ProviderUnavailable for what the engine there cannot do. version, about: what it answers to
    `GET /version` and `GET /info`."""
    has = tuple(map(int, version["ApiVersion"].split(".")))
    if has < API or about["OSType"] != "linux":
        raise ProviderUnavailable(
            f"The Docker engine {version.get('Version')} ({about['OSType']}) is not fit for sandboxes.",
            "It has to be one for Linux, 20.10 or newer.",
        )
    if engine.runtime and engine.runtime not in about["Runtimes"]:
        raise ProviderUnavailable(
            f"The Docker engine has no runtime '{engine.runtime}'.",
            f"SANDPIPER_DOCKER_RUNTIME is one of: {', '.join(about['Runtimes'])}.",
        )
    can = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
    for name in engine.limits.controllers:
        if not about.get(can[name]):
            raise ProviderUnavailable(
                f"The Docker engine's machine cannot keep {SETTINGS[name]}.",
                "Have its kernel's control groups switched on, or leave that setting empty.",
            )


def volume_container(
    engine: Engine, image_id: str, volume: str, labels: Mapping[str, str], place: Path
) -> dict[str, Any]:
    """The body of `POST /containers/create` for the one with the whole volume. place: our directory of this
    sandbox."""
    mounts = [
        {"Type": "volume", "Source": volume, "Target": ROOT},
        _bind(place / "out" / "box", OUT, ro=True),
    ]
    return _container(engine, image_id, labels, place, mounts)


def room_container(
    engine: Engine, image_id: str, data: str, labels: Mapping[str, str], place: Path, room: Room
) -> dict[str, Any]:
    """The same for a room. data: where the engine has the volume on its machine: what is shown of it is
    bound from there, since volumes cannot be mounted in part before API 1.45."""
    own = Path(data)
    shown = [] if room.installs else [_bind(own / "home", HOME)]
    mounts = [
        *shown,
        _bind(own / "agents", AGENTS, ro=not room.installs),
        *(_bind(own / PurePosixPath(path).relative_to(ROOT), path) for path in room.shows),
        *(_bind(own / place, f"{HOME}/{path}") for path, place in room.private(engine.private).items()),
        _bind(own / "rooms" / room.name, OWN),
        _bind(place / "out" / "box", OUT, ro=True),
        _bind(place / "doors" / room.name, DOOR),
    ]
    body = _container(engine, image_id, labels, place, mounts)
    if room.installs:  # nothing in a person's home says what is installed, and how
        body["HostConfig"]["Tmpfs"] |= {HOME: TMP.format(GB)}
    return body


def _bind(source: Path, target: str, *, ro: bool = False) -> dict[str, Any]:
    mount = {"Type": "bind", "Source": str(source), "Target": target}
    return {**mount, "ReadOnly": True} if ro else mount


def _container(
    engine: Engine,
    image_id: str,
    labels: Mapping[str, str],
    place: Path,
    mounts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    limits = engine.limits
    host: dict[str, Any] = {
        # No network at all: what leads out, and in, are two sockets.
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "Init": True,
        "ReadonlyRootfs": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "none"},
        "Tmpfs": {"/tmp": TMP.format(GB), "/var/tmp": TMP.format(GB)},  # noqa: S108 in the container
        "ShmSize": SHM_SIZE,
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "Mounts": [
            *mounts,
            *(_bind(place / "etc" / name, f"/etc/{name}", ro=True) for name in etc_files(engine)),
        ],
    }
    if limits.memory:
        host |= {"Memory": limits.memory, "MemorySwap": limits.memory}  # so swap does not come on top
    if limits.pids:
        host["PidsLimit"] = limits.pids
    if limits.cpus:
        host["NanoCpus"] = round(limits.cpus * 1e9)
    if engine.runtime:
        host["Runtime"] = engine.runtime
    body: dict[str, Any] = {
        "Image": image_id,
        "User": engine.user,
        "Hostname": "sandbox",
        "WorkingDir": "/",
        "Env": [f"HOME={HOME}"],
        # It only has to be there: programs are started in it.
        "Entrypoint": ["sleep", "2147483647"],
        "Cmd": [],
        "StopSignal": "SIGTERM",
        "HostConfig": host,
    }
    made_of = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    return {**body, "Labels": {**labels, MADE_OF: made_of}}


def lay_out(place: Path, engine: Engine) -> None:
    """What of a sandbox's directory the container mounts, but for the way out. Raises SandboxError."""
    with in_words(f"{place} cannot be written"):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)  # for what is below it is open to the user ids of containers
        etc = place / "etc"
        etc.mkdir(exist_ok=True)
        for name, text in etc_files(engine).items():
            write_whole(etc / name, text, mode=0o644)


def etc_files(engine: Engine) -> dict[str, str]:
    """Programs want a name for their user, whatever the image knows."""
    uid, gid = engine.ids
    return {
        "passwd": f"root:x:0:0:root:/nonexistent:/bin/sh\nagent:x:{uid}:{gid}:agent:{HOME}:/bin/sh\n",
        "group": f"root:x:0:\nagent:x:{gid}:\n",
    }


def volume_archive(engine: Engine) -> bytes:
    """What is in a volume, as empty directories of the user's, for a fresh volume is root's."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("home", "workspace", "repositories", "agents", "rooms", "sessions"):
            about = tarfile.TarInfo(name)
            about.type, about.mode = tarfile.DIRTYPE, 0o700
            about.uid, about.gid = engine.ids
            tar.addfile(about)
    return archive.getvalue()


def made_as(about: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a container that is there was made as one would be made now."""
    return bool(about["Config"]["Labels"].get(MADE_OF) == wanted["Labels"][MADE_OF])


def state_of(about: Mapping[str, Any] | None) -> SandboxState:
    """Also what is paused, restarting or dead is started by `start`."""
    state = about["State"] if about else {}
    on = state.get("Running") and not state.get("Paused") and not state.get("Restarting")
    return SandboxState.RUNNING if on else SandboxState.STOPPED
