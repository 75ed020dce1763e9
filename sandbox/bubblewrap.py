"""How a program is put into a box with bubblewrap: what it sees, what it may do, how it gets out.

Nothing here runs anything; it builds command lines. What they promise is tested with the real bwrap
in tests/integration/test_local_isolation.py. Secrets are handed over by a descriptor: bwrap's --setenv
would show them in `ps`, and its own environment in the box's /proc/1/environ.
"""

# The paths under /tmp and /dev/shm are the box's own.
# ruff: noqa: S108

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bot.errors import SandboxError
from bot.models import Launch
from sandbox import seccomp
from sandbox.process import INSIDE

HOME = "/home/agent"
WORKSPACES = "/workspace"
REPOSITORIES = "/repositories"
AGENTS = "/opt/agents"  # read-only, but for a launch that installs
PROGRAMS = "/run/sandpiper"  # our own programs, read-only
EGRESS = "/run/egress"  # the directory of the egress proxy's socket
PROXY_PORT = 3128
USER_ID = 1000
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")

# Of /etc only what programs need to work: trust anchors, the linker's cache, names and formats.
# fmt: off
ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "fonts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "locale.alias", "magic", "mime.types",
    "os-release", "pki", "protocols", "services", "ssl", "terminfo",
)
# fmt: on
# ... and keys of the machine's own services are no trust anchors.
PRIVATE_ETC = ("/etc/ssl/private", "/etc/pki/tls/private")

# A shell goes into the sandbox's control groups and becomes bwrap, with the filter on a descriptor.
FILTER_FD = 9
ENTER = f"""
filter=$1; shift
while [ "$1" != -- ]; do
    {{ echo 0 >"$1/cgroup.procs"; }} 2>/dev/null || {{ echo "box: it cannot enter $1" >&2; exit 1; }}
    shift
done
shift
exec "$@" {FILTER_FD}<"$filter"
"""
# Where the bot is root: when memory runs out on the machine, a box's programs end first, and not the bot.
FIRST_TO_GO = "echo 1000 >/proc/self/oom_score_adj\n"
READABLE = "umask 022\n"  # what is installed


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one sandbox on this machine. uid: whose its programs are, and its group; installer:
    whose those are that install; 0: the bot's own user."""

    root: Path
    uid: int = 0
    installer: int = 0

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def workspaces(self) -> Path:
        return self.root / "workspaces"

    @property
    def repositories(self) -> Path:
        return self.root / "repositories"

    @property
    def sessions(self) -> Path:
        """Of each session what it has for itself of the home."""
        return self.root / "sessions"

    @property
    def agents(self) -> Path:
        """Of all sandboxes: whoever installs there sees nothing of any person."""
        return self.root.parent / "agents"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def etc(self) -> Path:
        return self.run / "etc"

    @property
    def egress(self) -> Path:
        return self.run / "egress"

    @property
    def filter(self) -> Path:
        """The system call filter; not there: no filter."""
        return self.run / "filter"


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of this machine. `handover` is what the program finds on its --env-fd; `shield`:
    the wrapper must ignore INT and TERM, which are meant for the program in it."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str = "/"
    handover: str | None = field(default=None, repr=False)
    shield: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """tools: directories of this machine that boxes see read-only at the same place, with their bin
    directory on PATH. loopback: ports of services on this machine that every program may use. bot: such a
    port of the bot's own, which is waited for while the bot is away; 0: none. Sizes are bytes. limits:
    resource limits of each program and what it starts. machine: the architecture, as Python's platform
    names it, which decides the system call filter."""

    tools: tuple[Path, ...] = ()
    loopback: tuple[int, ...] = ()
    bot: int = 0
    tmp_size: int = 1 << 30
    shm_size: int = 256 << 20
    limits: Mapping[str, int] = field(default_factory=lambda: {"nofile": 65536, "nproc": 4096, "core": 0})
    machine: str = field(default_factory=platform.machine)

    @property
    def led_in(self) -> tuple[int, ...]:
        """The ports that every program finds on its loopback."""
        return (*self.loopback, *([self.bot] if self.bot else []))

    @property
    def tool_path(self) -> list[str]:
        return [str(tool / "bin") if (tool / "bin").is_dir() else str(tool) for tool in self.tools]

    @property
    def path(self) -> str:
        """For the agent's programs; those of the home come first."""
        return f"{HOME}/.local/bin:{HOME}/bin:{self.own_path}"

    @property
    def own_path(self) -> str:
        """For the bot's own commands: nothing that an agent can write to."""
        return ":".join([*self.tool_path, *SYSTEM_PATH])

    def python(self) -> str | None:
        """The interpreter for our program in the box, by its path there; None: there is none."""
        return shutil.which("python3", path=":".join([*SYSTEM_PATH, *self.tool_path]))


def build(
    place: Place,
    launch: Launch,
    options: Options,
    *,
    env_fd: int,
    life_fd: int | None,
    groups: Sequence[Path] = (),
    processes: int = 0,
) -> Command:
    """The command line for a launch. Raises SandboxError for a path that no box has.

    life_fd: the program may not outlive whoever holds the other end of this pipe; None: it may. groups: the
    control groups that it goes into. processes: how many its user may have, where it has a user of its own.
    """
    ports = dict.fromkeys([*options.led_in, *launch.loopback])
    forward = [options.python() or "python3", "-I", "-S", f"{PROGRAMS}/forward.py"]
    forward += ["--socket", f"{EGRESS}/proxy.sock", "--port", str(PROXY_PORT), "--env-fd", str(env_fd)]
    if life_fd is not None:
        forward += ["--life-fd", str(life_fd)]
    for port in ports:
        forward += ["--loopback", str(port)]
    if options.bot:
        forward += ["--bot", str(options.bot)]
    if launch.entrance:
        forward += ["--entrance", launch.entrance]
    for name, value in options.limits.items():
        forward += ["--limit", f"{name}={value}"]
    filtered = seccomp.program(options.machine) is not None
    argv = [
        *("/bin/sh", "-c", entering(place, launch), "sandpiper"),
        *(str(place.filter) if filtered else os.devnull, *map(str, groups), "--"),
        *user(place, launch, processes),
        "bwrap",
        *(["--seccomp", str(FILTER_FD)] if filtered else []),
        *(["--die-with-parent"] if life_fd is not None else []),
        *isolation(),
        *system(options),
        *etc(place),
        *("--ro-bind", str(INSIDE), PROGRAMS),
        *("--ro-bind", str(place.egress / "box"), EGRESS),
        *own(place, launch, options),
        *("--chdir", launch.cwd),
        *("--remount-ro", "/"),
        "--",
        *forward,
        "--",
        *launch.argv,
    ]
    return Command(tuple(argv), handover=handover(environment(launch, options)), shield=life_fd is None)


def entering(place: Place, launch: Launch) -> str:
    return f"{FIRST_TO_GO if place.uid else ''}{READABLE if place.uid and launch.installs else ''}{ENTER}"


def user(place: Place, launch: Launch, processes: int) -> Sequence[str]:
    """What makes the bot's user the box's, before anything of the box is read or made. The number of
    processes is set before there is a user namespace, so that it is of all boxes of that user."""
    if not place.uid:
        return ()
    id, groups = place.uid, "--clear-groups"
    if launch.installs:  # by the sandbox's group to what is beside its box, and no further
        id, groups = place.installer, f"--groups={place.uid}"
    return (
        *("prlimit", f"--nproc={processes}:{processes}", "--"),
        *("setpriv", f"--reuid={id}", f"--regid={id}", groups, "--inh-caps=-all", "--no-new-privs", "--"),
    )


def handover(env: Mapping[str, str]) -> str:
    """An environment as forward.py reads it. Raises SandboxError for one that no program can have."""
    for name, value in env.items():
        if not name or "=" in name or not _is_text(name + value):
            raise SandboxError(f"The variable {name!r} cannot be set in a box.")
    return "".join(f"{name}={value}\0" for name, value in env.items())


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def isolation() -> Sequence[str]:
    return (
        *("--unshare-user", "--unshare-all", "--disable-userns", "--clearenv"),
        *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "sandbox"),
        *("--cap-drop", "ALL"),
    )


def system(options: Options) -> Sequence[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        elif path.is_dir():
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    # A process of root's may write /proc/sys by its user id alone, without any capability.
    words += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    words += ["--dev", "/dev", "--size", str(options.shm_size), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    words += [
        "--size",
        str(options.tmp_size),
        "--tmpfs",
        "/tmp",
        "--dir",
        "/var",
        "--symlink",
        "/tmp",
        "/var/tmp",
    ]
    for tool in options.tools:
        words += ["--ro-bind", str(tool), str(tool)]
    return words


def etc(place: Place) -> Sequence[str]:
    words = []
    for name in [*ETC, *(path.name for path in sorted(Path("/etc").glob("java*")))]:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for private in PRIVATE_ETC:
        if Path(private).is_dir():
            words += ["--tmpfs", private]
    for name in ETC_FILES:
        words += ["--ro-bind", str(place.etc / name), f"/etc/{name}"]
    return words


# A box has a user database and host names of its own; there is no DNS in it.
ETC_FILES = {
    "passwd": f"root:x:0:0:root:/nonexistent:/bin/sh\nagent:x:{USER_ID}:{USER_ID}:agent:{HOME}:/bin/bash\n",
    "group": f"root:x:0:\nagent:x:{USER_ID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
}


def own(place: Place, launch: Launch, options: Options) -> Sequence[str]:
    """What is the sandbox's. Whoever installs an agent has an empty home, so that nothing in a person's home
    says what is installed and how."""
    directories = ("--dir", WORKSPACES, "--dir", REPOSITORIES)
    agents = (str(place.agents), AGENTS)
    if launch.installs:
        return ("--size", str(options.tmp_size), "--tmpfs", HOME, "--bind", *agents, *directories)
    home = ("--bind", str(place.home), HOME)
    words = [*home, "--ro-bind", *agents, *directories, *visible(place, launch.visible)]
    for path, source in private(place, launch).items():
        words += ["--bind", str(source), f"{HOME}/{path}"]
    return words


def visible(place: Place, paths: Iterable[str]) -> Sequence[str]:
    words: list[str] = []
    for path in paths:
        words += ["--bind", str(on_host(place, path)), path]
    return words


def private(place: Place, launch: Launch) -> Mapping[str, Path]:
    """A launch's private directories, and where on this machine its session has them. Raises SandboxError."""
    if not launch.private:
        return {}
    session = next(
        (one.name for one in map(PurePosixPath, launch.visible) if str(one.parent) == WORKSPACES), ""
    )
    for path in launch.private:
        if not session or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise SandboxError(f"{path} in the home cannot be a session's own.")
    return {path: place.sessions / session / path for path in launch.private}


def on_host(place: Place, path: str) -> Path:
    """Where a directory directly under /workspace or /repositories is on this machine.

    Only these: deeper, an agent could have put a link that leads out of the box. Raises SandboxError.
    """
    pure = PurePosixPath(path)
    roots = {WORKSPACES: place.workspaces, REPOSITORIES: place.repositories}
    root = roots.get(str(pure.parent))
    if root is None or pure.name in ("", ".", ".."):
        raise SandboxError(
            f"{path} cannot be shown in a box.",
            f"Name a directory directly under {WORKSPACES} or {REPOSITORIES}.",
        )
    return root / pure.name


def reaching(path: str) -> tuple[str, ...]:
    """What must be visible for a path in the box to be reached. Raises SandboxError for a path that
    does not outlive its program (/tmp, say)."""
    parts = PurePosixPath(path).parts
    if ".." not in parts:
        if len(parts) > 3 and f"/{parts[1]}" in (WORKSPACES, REPOSITORIES):
            return (f"/{parts[1]}/{parts[2]}",)
        if PurePosixPath(HOME) in PurePosixPath(path).parents:
            return ()
    raise SandboxError(
        f"{path} is not kept in a sandbox.", f"Name a path under {HOME}, {WORKSPACES} or {REPOSITORIES}."
    )


def environment(launch: Launch, options: Options) -> dict[str, str]:
    return {
        "PATH": options.own_path if launch.ours or launch.installs else options.path,
        "HOME": HOME,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "SANDPIPER_PROGRAMS": PROGRAMS,
        **launch.env,
        **launch.secrets,
    }
