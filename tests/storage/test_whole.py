"""What is written whole is on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optograph.storage import move_whole


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is brought to the disk, and of what is moved, in order."""
    found: list[str] = []
    flush, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        found.append(f"flush {Path(f'/proc/self/fd/{handle}').readlink().name}")
        flush(handle)

    def replaced(path: Path, target: Path) -> Path:
        found.append(f"move {path.name} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    return found


def test_a_folder_is_on_the_disk_with_all_in_it_before_it_has_its_name(tmp_path: Path, log: list[str]) -> None:
    inner = tmp_path / "drafts" / "draft" / "inner"
    inner.mkdir(parents=True)
    (inner / "a").write_text("a")
    (inner.parent / "b").write_text("b")
    move_whole(inner.parent, tmp_path / "place")
    moved = log.index("move draft place")
    assert set(log[:moved]) == {"flush a", "flush b", "flush inner", "flush draft"}
    assert log.index("flush a") < log.index("flush inner") < log.index("flush draft") == moved - 1
    assert set(log[moved + 1 :]) == {"flush drafts", f"flush {tmp_path.name}"}
    assert (tmp_path / "place" / "inner" / "a").read_text() == "a"


def test_a_file_replaces_the_one_that_is_there(tmp_path: Path, log: list[str]) -> None:
    for name in ("draft", "place"):
        (tmp_path / name).write_text(name)
    move_whole(tmp_path / "draft", tmp_path / "place")
    assert log == ["flush draft", "move draft place", f"flush {tmp_path.name}"]
    assert [one.read_text() for one in tmp_path.iterdir()] == ["draft"]
