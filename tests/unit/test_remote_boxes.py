"""The directories that stand for boxes of a cloud in tests."""

from __future__ import annotations

from pathlib import Path

from tests.remote_boxes import remove_tree


def test_what_a_box_links_to_is_not_touched_when_it_is_deleted(tmp_path: Path) -> None:
    """Tests run as root, too, and plant links to what is the machine's."""
    outside, box = tmp_path / "outside", tmp_path / "box"
    outside.mkdir()
    outside.chmod(0o755)
    (outside / "file").touch()
    (box / "home" / "locked").mkdir(parents=True)
    (box / "home" / "evil").symlink_to(outside)
    (box / "home" / "locked").chmod(0)
    remove_tree(box)
    assert not box.exists()
    assert (outside / "file").exists() and outside.stat().st_mode & 0o777 == 0o755
