"""Limits of local sandboxes, kept by the kernel's control groups: one group per sandbox.

Version 1: below the bot's own group, which needs root. Version 2: beside the bot's own group, for a group
that has processes cannot share out what it has; a service manager that delegates makes room for that.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.errors import ProviderUnavailable, SandboxError

PERIOD = 100_000  # microseconds in which a group may use its share of time (the kernel's own default)
EMPTY_WITHIN = 5.0  # seconds for killed programs to be gone from their group
OPTIONAL = ("memory.memsw.limit_in_bytes", "memory.swap.max")  # only where the kernel counts swap
SETTINGS = {
    "memory": "SANDPIPER_SANDBOX_MEMORY",
    "pids": "SANDPIPER_SANDBOX_PIDS",
    "cpu": "SANDPIPER_SANDBOX_CPUS",
}
MEND = (
    "Run the bot as a systemd service with Delegate=cpu memory pids and DelegateSubgroup=bot (systemd 254 or"
    " newer); where control groups are of version 1, run it as root. Or leave {} empty."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of all programs in a sandbox together. memory: bytes, with what they keep in /tmp. pids: processes and
    threads. cpus: how many processors' time. 0: no limit."""

    memory: int = 0
    pids: int = 0
    cpus: float = 0.0

    @property
    def controllers(self) -> tuple[str, ...]:
        asked = {"memory": self.memory, "pids": self.pids, "cpu": self.cpus}
        return tuple(name for name, limit in asked.items() if limit)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups for a controller are made."""

    version: int
    base: Path


def hierarchies(mounts: str, own: str) -> dict[str, Hierarchy]:
    """By controller; "" is version 2, which has all that version 1 has not.

    mounts, own: /proc/self/mountinfo and /proc/self/cgroup.
    """
    groups = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    found = {}
    for line in mounts.splitlines():
        about, _, system = line.partition(" - ")
        root, mount = about.split(" ")[3:5]
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2" and "" in groups:
            ours = _below(Path(mount), root, groups[""])
            found[""] = Hierarchy(2, ours if ours == Path(mount) else ours.parent)
        elif kind == "cgroup":
            for name in set(options.split(",")) & set(SETTINGS) & set(groups):
                found[name] = Hierarchy(1, _below(Path(mount), root, groups[name]))
    return found


def _below(mount: Path, root: str, path: str) -> Path:
    """Where a group is, when only the part of the tree below `root` is mounted."""
    if ".." in Path(path).parts or not Path(path).is_relative_to(root):
        return mount
    return mount / Path(path).relative_to(root)


class Groups:
    """The groups of the sandboxes on this machine."""

    def __init__(self, limits: Limits, places: Mapping[str, Hierarchy]) -> None:
        self._limits = limits
        self._places = {
            name: places[name if name in places else ""]
            for name in limits.controllers
            if name in places or "" in places
        }

    @classmethod
    def here(cls, limits: Limits) -> Groups:
        about = Path("/proc/self")
        try:
            mounts, own = (about / "mountinfo").read_text(), (about / "cgroup").read_text()
        except FileNotFoundError:  # no Linux: then nothing is mounted
            return cls(limits, {})
        return cls(limits, hierarchies(mounts, own))

    def check(self) -> None:
        """Can the limits be kept here? Raises ProviderUnavailable with the cause and the mend."""
        for name in self._limits.controllers:
            if name not in self._places:
                raise self._unavailable(name, "no control groups are mounted for it")
            place = self._places[name]
            if place.version == 1:
                continue
            try:
                if name not in (place.base / "cgroup.controllers").read_text().split():
                    raise self._unavailable(name, f"{place.base} has no control over it")
                shared = place.base / "cgroup.subtree_control"
                if name not in shared.read_text().split():
                    shared.write_text(f"+{name}")
            except OSError as error:
                raise self._unavailable(name, f"{error.filename or place.base}: {error.strerror}") from error
        try:
            probe = f"sandpiper-check-{os.getpid()}"
            self.make(probe)
            for directory in self.of(probe):
                directory.rmdir()
        except (SandboxError, OSError) as error:
            raise self._unavailable(self._limits.controllers[0], str(error).rstrip(".")) from error

    def of(self, name: str) -> tuple[Path, ...]:
        """The directories of a group."""
        return tuple(dict.fromkeys(place.base / name for place in self._places.values()))

    def make(self, name: str) -> None:
        """Have a group with these limits. Raises SandboxError."""
        try:
            for controller, place in self._places.items():
                group = place.base / name
                group.mkdir(exist_ok=True)
                for file, value in self._values(controller, place.version):
                    if file in OPTIONAL and not (group / file).exists():
                        continue
                    (group / file).write_text(value)
        except OSError as error:
            raise SandboxError(f"A sandbox's limits cannot be set: {error}.") from error

    def _values(self, controller: str, version: int) -> Sequence[tuple[str, str]]:
        """What is written into which file of a group, in this order."""
        limits = self._limits
        memory, time = str(limits.memory), str(round(limits.cpus * PERIOD))
        match controller, version:
            case "memory", 1:  # with swap is never less than without, so it makes room first
                both = "memory.memsw.limit_in_bytes"
                return (both, "-1"), ("memory.limit_in_bytes", memory), (both, memory)
            case "memory", _:
                return ("memory.max", memory), ("memory.swap.max", "0")
            case "cpu", 1:
                return ("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", time)
            case "cpu", _:
                return (("cpu.max", f"{time} {PERIOD}"),)
            case _:
                return (("pids.max", str(limits.pids)),)

    def memory_kills(self, name: str) -> int:
        """How many programs of a group the kernel has ended for its limit of memory (Linux's
        admin-guide/cgroup-v2, "memory.events"; before 4.13 version 1 does not count them)."""
        place = self._places.get("memory")
        if place is None:
            return 0
        file = place.base / name / ("memory.oom_control" if place.version == 1 else "memory.events")
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
        except (OSError, ValueError):
            return 0

    async def remove(self, name: str) -> None:
        """After the last program in it. Raises SandboxError when something stays in it."""
        for directory in self.of(name):
            until = asyncio.get_running_loop().time() + EMPTY_WITHIN
            while True:
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or asyncio.get_running_loop().time() > until:
                        raise SandboxError(f"{directory} cannot be removed: {error.strerror}.") from error
                await asyncio.sleep(0.02)

    def _unavailable(self, name: str, why: str) -> ProviderUnavailable:
        setting = SETTINGS[name]
        return ProviderUnavailable(
            f"{setting} is set, but this machine cannot keep to it: {why}.", MEND.format(setting)
        )
