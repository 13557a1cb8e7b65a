"""The journal of a run: append-only SQLite tables in sequence order, a CRC on each row, payloads by their hash."""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from optograph.errors import StorageError
from optograph.storage.canonical import canonical_json, content_hash
from optograph.storage.lock import WriterLock
from optograph.storage.rows import CallRow, CandidateRow, DecisionRow, EvaluationRow, Row

SCHEMA_VERSION = 1
_TABLES = ("calls", "candidates", "evaluations", "decisions", "states", "events")
_RowT = TypeVar("_RowT", bound=Row)


def _schema() -> str:
    parts = [
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
        "CREATE TABLE IF NOT EXISTS payloads (hash TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;",
    ]
    for table in _TABLES:
        parts.append(
            f"CREATE TABLE IF NOT EXISTS {table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
            "key TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL);"
            f"CREATE INDEX IF NOT EXISTS {table}_key ON {table} (key, seq);"
        )
    return "".join(parts)


def _crc(key: str, body: str) -> int:
    return zlib.crc32(f"{key}\n{body}".encode())


class Journal:
    """Everything one run learns, written once and in order.

    Use ``Journal.open(directory)`` for a run on disk, ``Journal.memory()`` for one that need not survive.
    All methods may be called from any thread; a record is durable when its method returns.
    """

    def __init__(self, connection: sqlite3.Connection, lock: WriterLock | None = None) -> None:
        self._db = connection
        self._writer = lock
        self._mutex = threading.RLock()
        self._open = True

    @classmethod
    def open(cls, directory: str | Path) -> Journal:
        """Open or create the journal of a run directory, as its only writer.

        Raises:
            StorageError: Another process holds the directory, or the file is no journal of this version.
        """
        root = Path(directory)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create the run directory {str(root)!r}: {error.strerror}") from error
        lock = WriterLock(root)
        try:
            db = sqlite3.connect(root / "journal.db", check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            return cls._prepared(db, lock)
        except sqlite3.Error as error:
            lock.close()
            raise StorageError(f"cannot open the journal in {str(root)!r}: {error}") from error
        except StorageError:
            lock.close()
            raise

    @classmethod
    def memory(cls) -> Journal:
        """Return a journal that lives in memory only."""
        return cls._prepared(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None), None)

    @classmethod
    def _prepared(cls, db: sqlite3.Connection, lock: WriterLock | None) -> Journal:
        db.executescript(_schema())
        db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        (version,) = db.execute("SELECT value FROM meta WHERE key='schema'").fetchone()
        if int(version) != SCHEMA_VERSION:
            db.close()
            raise StorageError(
                f"the journal has schema version {version}, this program reads {SCHEMA_VERSION}: "
                "use the program version that wrote it"
            )
        return cls(db, lock)

    def close(self) -> None:
        """Close the file and give the directory free; closing twice is harmless."""
        with self._mutex:
            if self._open:
                self._open = False
                self._db.close()
                if self._writer is not None:
                    self._writer.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- payloads ---------------------------------------------------------------------------------

    def put(self, data: Any) -> str:
        """Store JSON data under its hash and return the hash; equal data is stored once."""
        digest = content_hash(data)
        with self._mutex:
            self._execute(
                "INSERT OR IGNORE INTO payloads VALUES (?, ?)",
                (digest, zlib.compress(canonical_json(data).encode("ascii"), 6)),
            )
        return digest

    def get(self, digest: str) -> Any:
        """Return the JSON data stored under ``digest``.

        Raises:
            StorageError: Nothing is stored there, or what is stored does not match its hash.
        """
        with self._mutex:
            row = self._execute("SELECT data FROM payloads WHERE hash=?", (digest,)).fetchone()
        if row is None:
            raise StorageError(f"payload {digest!r} is not in the journal")
        try:
            data = json.loads(zlib.decompress(row[0]))
        except (zlib.error, ValueError) as error:
            raise StorageError(f"payload {digest!r} is damaged") from error
        if content_hash(data) != digest:
            raise StorageError(f"payload {digest!r} is damaged")
        return data

    # -- records ----------------------------------------------------------------------------------

    def add_call(self, row: CallRow) -> int:
        """Record a model call; returns its sequence number."""
        return self._append("calls", row.key, row.model_dump())

    def find_call(self, key: str) -> CallRow | None:
        """Return the newest successful call with this key, or None."""
        found = None
        for row in self._rows("calls", CallRow, key):
            if row.completion is not None:
                found = row
        return found

    def calls(self) -> list[CallRow]:
        """Return all calls in order."""
        return list(self._rows("calls", CallRow))

    def add_candidate(self, row: CandidateRow) -> None:
        """Record a candidate, once."""
        with self._mutex:
            if not any(True for _ in self._rows("candidates", CandidateRow, row.id)):
                self._append("candidates", row.id, row.model_dump())

    def candidates(self) -> list[CandidateRow]:
        """Return all candidates in the order in which they were met."""
        return list(self._rows("candidates", CandidateRow))

    def add_evaluation(self, row: EvaluationRow) -> int:
        """Record one example's evaluation; returns its sequence number."""
        return self._append("evaluations", _evaluation_key(row), row.model_dump())

    def find_evaluation(self, candidate: str, split: str, example: str, repeat: int) -> EvaluationRow | None:
        """Return the newest evaluation of this example under this candidate that has a score, or None."""
        found = None
        for row in self._rows("evaluations", EvaluationRow, f"{candidate}/{split}/{example}/{repeat}"):
            if row.feedback is not None:
                found = row
        return found

    def evaluations(self) -> list[EvaluationRow]:
        """Return all evaluations in order."""
        return list(self._rows("evaluations", EvaluationRow))

    def add_decision(self, row: DecisionRow) -> int:
        """Record a verdict; returns its sequence number."""
        return self._append("decisions", row.candidate, row.model_dump())

    def decisions(self) -> list[DecisionRow]:
        """Return all decisions in order."""
        return list(self._rows("decisions", DecisionRow))

    def save_state(self, name: str, state: Any) -> None:
        """Record the state of an optimizer or generator; the newest counts."""
        self._append("states", name, {"payload": self.put(state)})

    def load_state(self, name: str) -> Any | None:
        """Return the newest state under ``name``, or None."""
        last = None
        for body in self._bodies("states", name):
            last = body
        return None if last is None else self.get(last["payload"])

    def add_event(self, kind: str, **data: Any) -> int:
        """Record that something happened (a start, a stop, an error)."""
        return self._append("events", kind, data)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the data of all events, or of those of one kind, in order."""
        return list(self._bodies("events", kind))

    # -- rows -------------------------------------------------------------------------------------

    def _append(self, table: str, key: str, body: dict[str, Any]) -> int:
        text = canonical_json(body)
        key = key.encode("utf-8", "backslashreplace").decode()
        with self._mutex:
            cursor = self._execute(
                f"INSERT INTO {table} (key, body, crc) VALUES (?, ?, ?)",  # noqa: S608 - fixed names
                (key, text, _crc(key, text)),
            )
            return int(cursor.lastrowid or 0)

    def _rows(self, table: str, kind: type[_RowT], key: str | None = None) -> Iterator[_RowT]:
        for body in self._bodies(table, key):
            yield kind.model_validate(body)

    def _bodies(self, table: str, key: str | None = None) -> Iterator[dict[str, Any]]:
        where, args = ("WHERE key=?", (key,)) if key is not None else ("", ())
        with self._mutex:
            rows = self._execute(
                f"SELECT seq, key, body, crc FROM {table} {where} ORDER BY seq",  # noqa: S608 - fixed names
                args,
            ).fetchall()
        for seq, row_key, text, crc in rows:
            if _crc(row_key, text) != crc:
                raise StorageError(f"row {seq} of {table!r} is damaged: its checksum does not match")
            yield json.loads(text)

    def _execute(self, statement: str, arguments: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, arguments)
        except sqlite3.Error as error:
            raise StorageError(f"the journal refused a read or write: {error}") from error


def _evaluation_key(row: EvaluationRow) -> str:
    return f"{row.candidate}/{row.split}/{row.example}/{row.repeat}"
