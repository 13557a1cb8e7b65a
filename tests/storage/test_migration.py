"""Journals of version 1 become journals of the present version, whole or not at all."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import StorageError
from optograph.storage import CallRow, CandidateRow, Damage, DecisionRow, EvaluationRow, Journal, canonical_json
from optograph.storage import migration as migration_module

TABLES = ("calls", "candidates", "evaluations", "decisions", "states", "events")
NEW_FIELDS = {"model", "usd", "attempts", "finish", "truncated"}


def old_journal(directory: Path) -> str:
    """Write a journal as version 1 did; returns the hash of a completion."""
    directory.mkdir(exist_ok=True)
    db = sqlite3.connect(directory / "journal.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    db.execute("CREATE TABLE payloads (hash TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID")
    for table in TABLES:
        db.execute(
            f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
            "key TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL)"
        )
        db.execute(f"CREATE INDEX {table}_key ON {table} (key, seq)")
    db.execute("INSERT INTO meta VALUES ('schema', '1')")

    def put(data: Any) -> str:
        text = canonical_json(data).encode()
        digest = hashlib.sha256(text).hexdigest()
        db.execute("INSERT OR IGNORE INTO payloads VALUES (?, ?)", (digest, zlib.compress(text, 6)))
        return digest

    def add(table: str, key: str, body: dict[str, Any]) -> None:
        text = canonical_json({name: value for name, value in body.items() if name not in NEW_FIELDS})
        crc = zlib.crc32(f"{key}\n{text}".encode())
        db.execute(f"INSERT INTO {table} (key, body, crc) VALUES (?, ?, ?)", (key, text, crc))

    for index in range(30):
        digest = put({"answer": index, "text": "é" * 100 * index})
        row = CallRow(key=f"k{index}", context={}, identity={}, request=digest, completion=digest)
        add("calls", row.key, row.model_dump())
        one = EvaluationRow(candidate="c", split="dev", example=f"e{index}", feedback={"score": 1.0}, output=digest)
        add("evaluations", f"c/dev/e{index}/0", one.model_dump())
    add("candidates", "c", CandidateRow(id="c", values=digest).model_dump())
    decision = DecisionRow(step=0, optimizer="o", candidate="c", incumbent=None, verdict="seed", reason="")
    add("decisions", "c", decision.model_dump())
    add("states", "loop", {"payload": put({"step": 1})})
    add("events", "start", {"pid": 1})
    db.close()
    return digest


def test_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    digest = old_journal(tmp_path)
    with pytest.raises(StorageError, match="version 1: `optograph resume"):
        Journal.read(tmp_path)
    for _ in range(2):
        with Journal.open(tmp_path) as journal:
            assert not journal.damage
            assert [row.key for row in journal.calls()] == [f"k{index}" for index in range(30)]
            assert journal.get(digest) == {"answer": 29, "text": "é" * 2900}
            found = journal.find_evaluation("c", "dev", "e3", 0)
            assert found is not None
            assert found.truncated == 0
            assert [row.id for row in journal.candidates()] == ["c"]
            assert [row.verdict for row in journal.decisions()] == ["seed"]
            assert journal.load_state("loop") == {"step": 1}
            assert journal.events("start") == [{"pid": 1}]
    with Journal.read(tmp_path) as view:
        assert view.lives == 2
    db = sqlite3.connect(tmp_path / "journal.db")
    assert {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'old%'")} == set()
    db.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_journal(tmp_path)
    real = migration_module._copy_rows

    def failing(db: sqlite3.Connection, table: str) -> int:
        if table == "events":
            raise MemoryError
        return real(db, table)

    monkeypatch.setattr(migration_module, "_copy_rows", failing)
    with pytest.raises(MemoryError):
        Journal.open(tmp_path)
    monkeypatch.undo()
    with Journal.open(tmp_path) as journal:
        assert len(journal.calls()) == 30
        assert journal.events("start") == [{"pid": 1}]


def test_damaged_rows_of_version_1_are_left_out(tmp_path: Path) -> None:
    old_journal(tmp_path)
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("UPDATE calls SET body='{}' WHERE key='k3'")
    db.execute("UPDATE payloads SET data=x'00' WHERE hash=(SELECT json_extract(body, '$.output') FROM evaluations)")
    db.commit()
    db.close()
    with Journal.open(tmp_path) as journal:
        assert journal.damage == Damage(rows=3, payloads=1, derived_rebuilt=True)
        assert len(journal.calls()) == 28
        assert journal.find_evaluation("c", "dev", "e0", 0) is None
        assert journal.decisions() == []
        assert len(journal.events("repaired")) == 1


def test_a_broken_file_of_version_1_gives_its_records(tmp_path: Path) -> None:
    digest = old_journal(tmp_path)
    with (tmp_path / "journal.db").open("r+b") as file:
        file.write(b"X" * 60)
    with Journal.open(tmp_path) as journal:
        assert journal.damage.quarantined == "journal.damaged-1.db"
        assert {row.key for row in journal.calls()} == {f"k{index}" for index in range(30)}
        assert journal.get(digest) == {"answer": 29, "text": "é" * 2900}
        assert journal.find_evaluation("c", "dev", "e29", 0) is not None
        assert journal.candidates()[0].id == "c"


def test_an_unknown_old_version_is_refused(tmp_path: Path) -> None:
    old_journal(tmp_path)
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("UPDATE meta SET value='odd'")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match="unknown schema version"):
        Journal.open(tmp_path)
