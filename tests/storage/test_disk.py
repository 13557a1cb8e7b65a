"""A disk that is full: the batch fails as a whole, and what comes after space was freed works."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optograph.errors import StorageError
from optograph.storage import CallRow, Journal

MakeCall = Callable[[str, str, str | None], CallRow]


def fill(journal: Journal, make_call: MakeCall, first: int, number: int) -> int:
    """Write batches until one fails; returns how many were written."""
    for index in range(first, first + number):
        batch = journal.batch()
        digest = batch.put([index, os.urandom(10_000).hex()])
        batch.add_call(make_call(f"k{index}", digest, digest))
        try:
            batch.commit()
        except StorageError as error:
            assert "no space left" in str(error)
            assert "optograph resume" in str(error)
            return index - first
    return number


def check(journal: Journal, number: int) -> None:
    calls = journal.calls()
    assert [row.key for row in calls] == [f"k{index}" for index in range(number)]
    for index, row in enumerate(calls):
        assert journal.get(row.request)[0] == index
    assert not journal.damage


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_and_goes_on_when_there_is_room(small_disk: Path, make_call: MakeCall) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    with Journal.open(small_disk / "run") as journal:
        written = fill(journal, make_call, 0, 1000)
        assert 3 < written < 1000
        assert fill(journal, make_call, written, 1) == 0
        check(journal, written)
        ballast.unlink()
        assert fill(journal, make_call, written, 5) == 5
        written += 5
        written += fill(journal, make_call, written, 1000)
    with Journal.read(small_disk / "run") as view:
        check(view, written)


def test_a_killed_run_on_a_full_disk_is_explained_or_opens(small_disk: Path, make_call: MakeCall) -> None:
    with Journal.open(small_disk / "run") as journal:
        written = fill(journal, make_call, 0, 5)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == 28
    with pytest.raises(StorageError, match=r"room|no space left"):
        Journal.open(small_disk / "run")
    ballast.unlink()
    with Journal.open(small_disk / "run") as journal:
        check(journal, written)


LIMITED = """
import os, resource, sys
from optograph.errors import StorageError
from optograph.storage import Journal
with Journal.open(sys.argv[1]) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    written = []
    for index in range(200):
        try:
            written.append(journal.put([index, os.urandom(10_000).hex()]))
        except StorageError as error:
            print(error)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    written.append(journal.put("again"))
    print(*written)
"""


def test_a_limit_on_file_sizes_is_like_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    message, digests = done.stdout.splitlines()
    assert "no space left" in message
    with Journal.open(tmp_path) as journal:
        assert not journal.damage
        for index, digest in enumerate(digests.split()[:-1]):
            assert journal.get(digest)[0] == index
        assert journal.get(digests.split()[-1]) == "again"


def test_a_failing_batch_of_a_group_fails_alone(
    tmp_path: Path, make_call: MakeCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(tmp_path) as journal:
        writer = journal._writer
        assert writer is not None
        real = writer._store._insert_rows

        def failing(*arguments: object) -> object:
            if any(row[1] == "bad" for one in arguments[0] for row in one.rows):  # type: ignore[attr-defined]
                raise sqlite3.OperationalError("made to fail")
            return real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(writer._store, "_insert_rows", failing)

        async def one(key: str) -> bool:
            batch = journal.batch()
            batch.add_call(make_call(key, batch.put([key]), "c"))
            try:
                await batch.acommit()
            except StorageError as error:
                assert "made to fail" in str(error)
                return False
            return True

        async def all_() -> list[bool]:
            return await asyncio.gather(*(one("bad" if index == 3 else f"k{index}") for index in range(8)))

        assert asyncio.run(all_()) == [index != 3 for index in range(8)]
        assert [row.key for row in journal.calls()] == [f"k{index}" for index in range(8) if index != 3]
    with Journal.open(tmp_path) as journal:
        assert not journal.damage
