from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.machine import HOST, host_of
from sandbox.whole import write_whole
from tests.disks import full_disk


def test_on_a_full_disk_a_file_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    write_whole(file, "before")
    with full_disk(), pytest.raises(OSError):
        write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_who_has_it_open_keeps_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    write_whole(file, "before")
    with file.open() as theirs:
        write_whole(file, "after")
        assert (theirs.read(), file.read_text()) == ("before", "after")


def test_one_that_says_the_same_is_left_alone_but_for_who_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    write_whole(file, b"same")
    first = file.stat()
    with full_disk():
        write_whole(file, "same", mode=0o644)
    assert (file.stat().st_ino, first.st_mode & 0o777) == (first.st_ino, 0o600)
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_machine_keeps_its_name(tmp_path: Path) -> None:
    assert host_of(tmp_path) == host_of(tmp_path)


def test_a_name_of_the_machine_that_a_full_disk_left_empty_is_none(tmp_path: Path) -> None:
    """No name is a cloud's: what a cloud's key could explain would be believed of this disk."""
    (tmp_path / HOST).touch()
    assert host_of(tmp_path).startswith("local-")


def test_a_full_disk_leaves_no_name_of_the_machine_at_all(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError):
        host_of(tmp_path)
    assert not (tmp_path / HOST).exists()
