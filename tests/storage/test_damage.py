"""Damaged journals: every read is right or absent, nothing that can be saved is lost, and the run goes on."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import StorageError
from optograph.storage import Damage, Journal

FLIPS = 240


def paths(directory: Path) -> list[Path]:
    return [path for path in (directory / "journal.db", directory / "journal.db-wal") if path.exists()]


def change(path: Path, at: int, new: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(new)


def view_is_right_or_refused(kept: Any, directory: Path) -> None:
    try:
        with Journal.read(directory) as journal:
            kept.content.check(journal)
    except StorageError as error:
        assert "optograph resume" in str(error) or "no journal" in str(error)


@pytest.mark.parametrize("kind", ["closed", "killed", "checkpointed"])
def test_any_flipped_byte_gives_right_or_absent_answers(kept: Any, tmp_path: Path, kind: str) -> None:
    random_ = random.Random(kind)
    calls = len(kept.content.calls)
    for number in range(FLIPS // 3):
        directory = kept.copy(kind, tmp_path / "work")
        path = random_.choice(paths(directory))
        at = random_.randrange(100 if number % 8 == 0 else path.stat().st_size)
        old = path.read_bytes()[at]
        change(path, at, bytes([old ^ random_.randrange(1, 256)]))
        if number % 4 == 0:
            view_is_right_or_refused(kept, directory)
        found, damage = kept.read_twice(directory)
        assert found >= calls - 4, (path.name, at)  # one page of records at most, and all else is saved
        assert found == calls or damage


@pytest.mark.parametrize("kind", ["closed", "killed", "checkpointed"])
def test_files_cut_short_or_blanked_give_right_or_absent_answers(kept: Any, tmp_path: Path, kind: str) -> None:
    random_ = random.Random(kind)
    for number in range(24):
        directory = kept.copy(kind, tmp_path / "work")
        path = random_.choice(paths(directory))
        size = path.stat().st_size
        at = [0, 1, 99, 512, 4096, size - 1][number] if number < 6 else random_.randrange(size)
        if number % 2:
            change(path, at, bytes(min(5000, size - at)))
        else:
            with path.open("r+b") as file:
                file.truncate(at)
        if number % 4 == 0:
            view_is_right_or_refused(kept, directory)
        kept.read_twice(directory)


def test_a_damaged_call_is_absent_counted_and_asked_again(kept: Any, tmp_path: Path) -> None:
    directory = kept.copy("closed", tmp_path / "work")
    edit(directory, "UPDATE calls SET body=replace(body, '\"error\":null', '\"error\":\"no\"') WHERE key='k3'")
    with Journal.open(directory) as journal:
        assert journal.find_call("k3") is None
        assert journal.find_call("k4") is not None
        assert journal.damage == Damage(rows=1, derived_rebuilt=True)
        assert journal.events("damage") == [{"rows": 1, "payloads": 0}]
        assert len(journal.events("repaired")) == 1
        assert journal.decisions() == []
        batch = journal.batch()
        completion = kept.content.calls["k3"]
        from optograph.storage import CallRow

        batch.add_call(CallRow(key="k3", context={}, identity={}, request="r", completion=completion))
        batch.commit()
        assert journal.find_call("k3") is not None


@pytest.mark.parametrize("statement", ["UPDATE events SET body='{}' WHERE seq=2", "DELETE FROM states WHERE seq=3"])
def test_damaged_derived_rows_empty_all_derived_tables(kept: Any, tmp_path: Path, statement: str) -> None:
    directory = kept.copy("closed", tmp_path / "work")
    edit(directory, statement)
    with Journal.read(directory) as view:
        assert (view.decisions(), view.load_state("loop"), view.events()) == ([], None, [])
    with Journal.open(directory) as journal:
        assert (journal.decisions(), journal.load_state("loop"), journal.events("tick")) == ([], None, [])
        assert journal.damage == Damage(derived_rebuilt=True)
        assert kept.content.check(journal) == len(kept.content.calls)


def test_a_lost_payload_takes_what_rests_on_it(kept: Any, tmp_path: Path) -> None:
    directory = kept.copy("closed", tmp_path / "work")
    digest = kept.content.calls["k7"]
    edit(directory, f"UPDATE payloads SET data=x'00' WHERE hash=x'{digest}'")
    with Journal.open(directory) as journal:
        assert journal.find_call("k7") is None
        assert journal.find_evaluation("c0", "dev", "e7", 0) is None
        assert journal.damage == Damage(rows=2, payloads=1, derived_rebuilt=True)
        assert journal.put(kept.content.payloads[digest]) == digest
        assert journal.get(digest) == kept.content.payloads[digest]


def test_damage_while_open_is_absent_and_dropped(tmp_path: Path) -> None:
    from optograph.storage import CallRow

    with Journal.open(tmp_path) as journal:
        digest = journal.put({"a": 1})
        journal.add_call(CallRow(key="k", context={}, identity={}, request=digest, completion=digest))
        edit(tmp_path, "UPDATE calls SET crc=crc+1", "UPDATE payloads SET data=x'00'")
        assert journal.find_call("k") is None
        with pytest.raises(StorageError, match="is damaged"):
            journal.get(digest)
        with pytest.raises(StorageError, match="not in the journal"):
            journal.put(0)  # whatever is committed next comes after the damaged record is gone
            journal.get(digest)
        assert journal.put({"a": 1}) == digest
        assert journal.get(digest) == {"a": 1}
        assert journal.damage == Damage(rows=1, payloads=1)
        assert len(journal.events("damage")) == 2
        edit(tmp_path, "UPDATE events SET body='{}'")
        with pytest.raises(StorageError, match="damaged while it was open"):
            journal.events()


def test_damaged_meta_is_absent(kept: Any, tmp_path: Path) -> None:
    directory = kept.copy("closed", tmp_path / "work")
    edit(directory, "UPDATE meta SET value='1' WHERE key='job'")
    with Journal.read(directory) as view:
        assert view.get_meta("job") is None
    with Journal.open(directory) as journal:
        assert journal.get_meta("job") is None
        assert journal.damage.rows == 1
        journal.set_meta("job", 2)
        assert journal.get_meta("job") == 2


@pytest.mark.parametrize("kind", ["closed", "killed", "checkpointed"])
def test_a_broken_file_is_set_aside_and_its_records_are_saved(kept: Any, tmp_path: Path, kind: str) -> None:
    directory = kept.copy(kind, tmp_path / "work")
    change(directory / "journal.db", 0, b"X" * 50)
    found, damage = kept.read_twice(directory)
    assert found == len(kept.content.calls)
    assert damage == Damage(quarantined="journal.damaged-1.db", derived_rebuilt=True)
    assert (directory / "journal.damaged-1.db").exists()
    change(directory / "journal.db", 0, b"X" * 50)
    assert kept.read_twice(directory)[1].quarantined == "journal.damaged-2.db"


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="optograph resume"):
        Journal.read(tmp_path)
    with Journal.open(tmp_path) as journal:
        assert journal.damage.quarantined == "journal.damaged-1.db"
        assert journal.calls() == []
    assert (tmp_path / "journal.damaged-1.db").read_bytes() == b"not a database" * 100


def test_a_rebuilding_that_was_killed_at_the_end_is_finished(kept: Any, tmp_path: Path) -> None:
    directory = kept.copy("killed", tmp_path / "work")
    (kept.copy("closed", tmp_path / "other") / "journal.db").rename(directory / "journal.rebuilt.db")
    (directory / "journal.db").rename(directory / "journal.damaged-1.db")  # its log is still in place
    found, _ = kept.read_twice(directory)
    assert found == len(kept.content.calls)
    assert not (directory / "journal.rebuilt.db").exists()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("CREATE TABLE accounts (name)")
    db.close()
    with pytest.raises(StorageError, match="another program"):
        Journal.open(tmp_path)
    assert [path.name for path in tmp_path.glob("*.db")] == ["journal.db"]


def edit(directory: Path, *statements: str) -> None:
    db = sqlite3.connect(directory / "journal.db")
    for statement in statements:
        assert db.execute(statement).rowcount > 0
    db.commit()
    db.close()
