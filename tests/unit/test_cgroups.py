"""Where control groups are, what is written into them, and what is said where they cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable, SettingsError
from sandbox.cgroups import Groups, Hierarchy, Limits, hierarchies
from sandbox.local import local_provider

V1 = """\
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 /docker/f00 /sys/fs/cgroup/pids ro,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
V1_OWN = "5:pids:/docker/f00/bot\n4:memory:/bots\n2:cpu,cpuacct:/\n1:name=systemd:/x\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
ALL = Limits(memory=1 << 30, pids=500, cpus=1.5)


def test_groups_of_version_1_are_below_the_bots_own() -> None:
    assert hierarchies(V1, V1_OWN) == {
        "cpu": Hierarchy(1, Path("/sys/fs/cgroup/cpu,cpuacct")),
        "memory": Hierarchy(1, Path("/sys/fs/cgroup/memory/bots")),
        "pids": Hierarchy(1, Path("/sys/fs/cgroup/pids/bot")),
    }


def test_groups_of_version_2_are_beside_the_bots_own() -> None:
    service = "/system.slice/sandpiper.service"
    assert hierarchies(V2, f"0::{service}/bot\n") == {"": Hierarchy(2, Path(f"/sys/fs/cgroup{service}"))}
    for top in ("/", "/../elsewhere"):  # as far as a container sees
        assert hierarchies(V2, f"0::{top}\n") == {"": Hierarchy(2, Path("/sys/fs/cgroup"))}


def test_what_version_1_does_not_have_is_looked_for_in_version_2() -> None:
    mounts = "35 31 0:32 / /m rw - cgroup cgroup rw,memory\n30 23 0:26 / /u rw - cgroup2 cgroup2 rw\n"
    found = hierarchies(mounts, "4:memory:/\n0::/a/b\n")
    groups = Groups(Limits(memory=1, pids=1), found)
    assert groups.of("x") == (Path("/m/x"), Path("/u/a/x"))


@pytest.fixture
def delegated(tmp_path: Path) -> Path:
    """A directory with what a delegated group of version 2 has in it."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    return tmp_path


def test_limits_are_written_as_version_2_reads_them(delegated: Path) -> None:
    groups = Groups(ALL, {"": Hierarchy(2, delegated)})
    groups.make("box")
    written = {file.name: file.read_text() for file in (delegated / "box").iterdir()}
    assert written == {"memory.max": "1073741824", "pids.max": "500", "cpu.max": "150000 100000"}
    assert groups.of("box") == (delegated / "box",)


def test_limits_are_written_as_version_1_reads_them(tmp_path: Path) -> None:
    places = {name: Hierarchy(1, tmp_path / name) for name in ALL.controllers}
    for place in places.values():
        place.base.mkdir()
    Groups(ALL, places).make("box")
    written = {file.name: file.read_text() for file in tmp_path.glob("*/box/*")}
    assert written == {
        "memory.limit_in_bytes": "1073741824",
        "pids.max": "500",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }


@pytest.mark.parametrize(("version", "file"), [(1, "memory.oom_control"), (2, "memory.events")])
def test_who_was_killed_for_memory_is_counted_by_the_kernel(tmp_path: Path, version: int, file: str) -> None:
    groups = Groups(ALL, {"memory": Hierarchy(version, tmp_path), "": Hierarchy(2, tmp_path)})
    assert groups.memory_kills("box") == 0
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / file).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert groups.memory_kills("box") == 2
    assert Groups(Limits(pids=1), {"": Hierarchy(2, tmp_path)}).memory_kills("box") == 0


def test_only_what_is_limited_needs_a_group(tmp_path: Path) -> None:
    assert Groups(Limits(), {"": Hierarchy(2, tmp_path)}).of("box") == ()


def test_a_limit_that_this_machine_cannot_keep_is_refused_with_its_setting(delegated: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"SANDPIPER_SANDBOX_MEMORY is set.*no control groups"):
        Groups(ALL, {}).check()
    (delegated / "cgroup.controllers").write_text("memory pids\n")
    with pytest.raises(ProviderUnavailable, match=r"SANDPIPER_SANDBOX_CPUS is set.*no control over it") as no:
        Groups(ALL, {"": Hierarchy(2, delegated)}).check()
    assert "DelegateSubgroup=bot" in str(no.value)
    with pytest.raises(ProviderUnavailable, match=r"SANDPIPER_SANDBOX_PIDS is set.*No such file"):
        Groups(Limits(pids=100), {"": Hierarchy(2, delegated / "none")}).check()


def test_what_is_not_shared_out_yet_is_asked_for(delegated: Path) -> None:
    with pytest.raises(ProviderUnavailable):  # a plain directory is not removed with its files in it
        Groups(Limits(pids=100), {"": Hierarchy(2, delegated)}).check()
    assert (delegated / "cgroup.subtree_control").read_text() == "+pids"


def test_limits_without_isolation_are_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_SANDBOX_PIDS"):
        local_provider(tmp_path, unsafe=True, limits=Limits(pids=100))
