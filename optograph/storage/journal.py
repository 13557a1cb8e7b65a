"""The journal of a run: what was paid for and what was decided, in order, each record checked when it is read."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from optograph.errors import StorageError
from optograph.storage import schema
from optograph.storage.batch import Batch, Operations, evaluation_key, plain_key
from optograph.storage.damage import Damage
from optograph.storage.lock import WriterLock
from optograph.storage.reader import FileReader, MemoryReader, Reader
from optograph.storage.repair import open_for_reading, open_for_writing
from optograph.storage.rows import CallRow, CandidateRow, DecisionRow, EvaluationRow, Row
from optograph.storage.store import Life, Store
from optograph.storage.trouble import explained
from optograph.storage.writer import InlineWriter, ThreadWriter

_RowT = TypeVar("_RowT", bound=Row)
_Record = tuple[int, bytes, bytes]


class Journal:
    """Everything one run learns, written once and in order.

    Use ``Journal.open(directory)`` for a run on disk, ``Journal.read(directory)`` to look at one from another process,
    also while it runs, and ``Journal.memory()`` for one that need not survive. All methods may be called from any
    thread; a record is durable when the method that writes it returns. ``batch`` writes several, all of them or none.

    Attributes:
        directory: The run directory; None for a journal in memory.
        damage: What was found damaged so far.
    """

    def __init__(
        self,
        reader: Reader,
        writer: ThreadWriter | InlineWriter | None,
        *,
        directory: Path | None = None,
        life: Life | None = None,
        damage: Damage | None = None,
        lock: WriterLock | None = None,
    ) -> None:
        self.directory = directory
        self.damage = damage or Damage()
        self._reader = reader
        self._writer = writer
        self._life = life
        self._met: set[tuple[str, int | bytes]] = set()
        self._close = weakref.finalize(self, _shut, os.getpid(), reader, writer, lock)

    @classmethod
    def open(cls, directory: str | Path, *, counted: bool = True) -> Journal:
        """Open or create the journal of a run directory, as its only writer.

        The file is checked; what is damaged is taken out, and reported in ``damage``. A file of an older version is
        brought up to date.

        Args:
            directory: The run directory.
            counted: Whether this is a life of the run, and not only somebody who adds a note to it.

        Raises:
            StorageError: Another process holds the directory, the disk refuses, or a newer program wrote the file.
        """
        root = Path(directory)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create the run directory {str(root)!r}: {error.strerror}") from error
        lock = WriterLock(root)
        db: sqlite3.Connection | None = None
        try:
            db, damage = open_for_writing(root)
            life = Life(**(schema.get_meta(db, schema.LIFE) or {}), counted=counted)
            store = Store(db, life)
            store.write_life()
        except BaseException as error:
            if db is not None:
                db.close()
            lock.close()
            if isinstance(error, sqlite3.Error):
                raise explained(error, root) from error
            raise
        reader = FileReader(root / "journal.db", view=False)
        return cls(reader, ThreadWriter(store, root), directory=root, life=life, damage=damage, lock=lock)

    @classmethod
    def read(cls, directory: str | Path) -> Journal:
        """Open the journal of a run directory for reading, beside the process that may be writing it.

        Nothing is locked, changed or repaired; damaged records are absent. Methods that write raise ``StorageError``.

        Raises:
            StorageError: There is no journal, it is damaged as a whole, or another program version wrote it.
        """
        root = Path(directory)
        reader = open_for_reading(root)
        journal = cls(reader, None, directory=root)
        try:
            journal.damage = Damage.from_json(journal._meta(schema.DAMAGE))
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def memory(cls) -> Journal:
        """Return a journal that lives in memory only."""
        db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        db.text_factory = bytes
        schema.create(db)
        mutex = threading.RLock()
        life = Life()
        return cls(MemoryReader(db, mutex), InlineWriter(Store(db, life), mutex), life=life)

    def close(self) -> None:
        """Write what is queued, make the journal one file and give the directory free; closing twice is harmless."""
        self._close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def active_s(self) -> float:
        """Seconds for which writers have had this journal open, over all lives."""
        return self._life.active_s if self._life is not None else float(self._written_life().get("active_s", 0.0))

    @property
    def lives(self) -> int:
        """How many times the journal was opened for writing."""
        return self._life.lives if self._life is not None else int(self._written_life().get("lives", 0))

    def _written_life(self) -> dict[str, Any]:
        return self._meta(schema.LIFE) or {}

    # -- writing ----------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Return an empty batch: add records to it, then ``commit`` it, or ``await`` its ``acommit``."""
        return Batch(self._writing())

    def put(self, data: Any) -> str:
        """Store JSON data under its hash and return the hash; equal data is stored once."""
        batch = self.batch()
        digest = batch.put(data)
        batch.commit()
        return digest

    def add_call(self, row: CallRow) -> int:
        """Record a model call; returns its sequence number."""
        batch = self.batch()
        batch.add_call(row)
        return batch.commit()[0]

    def add_candidate(self, row: CandidateRow) -> None:
        """Record a candidate, once."""
        batch = self.batch()
        batch.add_candidate(row)
        batch.commit()

    def add_evaluation(self, row: EvaluationRow) -> int:
        """Record one example's evaluation; returns its sequence number."""
        batch = self.batch()
        batch.add_evaluation(row)
        return batch.commit()[0]

    def add_decision(self, row: DecisionRow) -> int:
        """Record a verdict; returns its sequence number."""
        batch = self.batch()
        batch.add_decision(row)
        return batch.commit()[0]

    def save_state(self, name: str, state: Any) -> None:
        """Record the state of an optimizer or generator; the newest counts."""
        batch = self.batch()
        batch.save_state(name, state)
        batch.commit()

    def add_event(self, kind: str, **data: Any) -> int:
        """Record that something happened (a start, a stop, an error); returns its sequence number."""
        batch = self.batch()
        batch.add_event(kind, **data)
        return batch.commit()[0]

    def set_meta(self, name: str, value: Any) -> None:
        """Set a named JSON value of the journal; it replaces the one before."""
        batch = self.batch()
        batch.set_meta(name, value)
        batch.commit()

    def _writing(self) -> ThreadWriter | InlineWriter:
        if self._writer is None:
            raise StorageError(
                f"the journal in {str(self.directory)!r} is open for reading only: use Journal.open to write"
            )
        return self._writer

    # -- reading ----------------------------------------------------------------------------------

    def get(self, digest: str) -> Any:
        """Return the JSON data stored under ``digest``.

        Raises:
            StorageError: Nothing is stored there, or what is stored does not match its hash.
        """
        return json.loads(self._payload(digest))

    def get_meta(self, name: str) -> Any | None:
        """Return the named JSON value, or None where there is none (or it was damaged)."""
        return self._meta(plain_key(name))

    def find_call(self, key: str) -> CallRow | None:
        """Return the newest successful call with this key, or None."""
        for body in self._found("calls", key):
            row = _parse(CallRow, body)
            if row.completion is not None:
                return row
        return None

    def calls(self) -> list[CallRow]:
        """Return all calls in order."""
        return [_parse(CallRow, body) for _, _, body in self._all("calls")]

    def candidates(self) -> list[CandidateRow]:
        """Return all candidates in the order in which they were met."""
        return [_parse(CandidateRow, body) for _, _, body in self._all("candidates")]

    def find_evaluation(self, candidate: str, split: str, example: str, repeat: int) -> EvaluationRow | None:
        """Return the newest evaluation of this example under this candidate that has a score, or None.

        One whose output, subgraph or trace was lost counts as none.
        """
        for body in self._found("evaluations", evaluation_key(candidate, split, example, repeat)):
            row = _parse(EvaluationRow, body)
            parts = (row.output, row.subgraph, row.trace)
            if row.feedback is not None and all(part is None or self._has(part) for part in parts):
                return row
        return None

    def evaluations(self) -> list[EvaluationRow]:
        """Return all evaluations in order."""
        return [_parse(EvaluationRow, body) for _, _, body in self._all("evaluations")]

    def decisions(self) -> list[DecisionRow]:
        """Return all decisions in order."""
        return [_parse(DecisionRow, body) for _, _, body in self._derived("decisions")]

    def load_state(self, name: str) -> Any | None:
        """Return the newest state under ``name``, or None."""
        key = plain_key(name).encode()
        digest = None
        for _, found, body in self._derived("states"):
            if found == key:
                digest = json.loads(body)["payload"]
        return None if digest is None else self.get(digest)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the data of all events, or of those of one kind, in order."""
        key = None if kind is None else plain_key(kind).encode()
        return [json.loads(body) for _, found, body in self._derived("events") if key is None or found == key]

    # -- checked records --------------------------------------------------------------------------

    def _found(self, table: str, key: str) -> Iterator[bytes]:
        """Give the bodies of the whole rows of a key, newest first."""
        key = plain_key(key)
        if self._writer is not None and not self._writer.may_hold(table, key.encode()):
            return
        sql = f"SELECT seq, key, body, crc FROM {table} WHERE key=? ORDER BY seq DESC"  # noqa: S608 - fixed names
        rows = self._reader.query(sql, (key,))
        for row in rows:
            if not schema.is_whole(table, *row):
                self._meet(table, row[0])
            elif row[1] == key.encode():
                yield row[2]

    def _all(self, table: str) -> list[_Record]:
        rows = self._reader.query(f"SELECT seq, key, body, crc FROM {table} ORDER BY seq")  # noqa: S608 - fixed names
        return [row[:3] for row in rows if self._whole(table, row)]

    def _whole(self, table: str, row: tuple[Any, ...]) -> bool:
        if schema.is_whole(table, *row):
            return True
        self._meet(table, row[0])
        return False

    def _derived(self, table: str) -> list[_Record]:
        """Return the rows of a table that counts only together with its like; none where a reader finds one damaged."""
        tables = [table] if self._writer is not None else list(schema.DERIVED)
        heads, *found = self._reader.snapshot(
            [
                ("SELECT value, crc FROM meta WHERE key=?", (schema.HEADS,)),
                *((f"SELECT seq, key, body, crc FROM {one} ORDER BY seq", ()) for one in tables),  # noqa: S608 - fixed names
            ]
        )
        known = schema.parse_meta(schema.HEADS, *heads[0]) if heads else None
        if known is not None and all(map(partial(schema.derived_is_whole, known), tables, found)):
            return [row[:3] for row in found[tables.index(table)]]
        if self._writer is None:
            return []
        raise StorageError(
            f"the {table} of the journal in {str(self.directory)!r} were damaged while it was open: "
            f"`optograph resume {self.directory}` repairs it"
        )

    def _meta(self, name: str) -> Any | None:
        rows = self._reader.query("SELECT value, crc FROM meta WHERE key=?", (name,))
        return schema.parse_meta(name, *rows[0]) if rows else None

    def _has(self, digest: str) -> bool:
        if self._writer is not None and bytes.fromhex(digest) in self._writer.stored:
            return True
        try:
            self._payload(digest)
        except StorageError:
            return False
        return True

    def _payload(self, digest: str) -> bytes:
        try:
            raw = bytes.fromhex(digest)
        except ValueError as error:
            raise StorageError(f"payload {digest!r} is not in the journal: a hash has 64 hex digits") from error
        rows = self._reader.query("SELECT data FROM payloads WHERE hash=?", (raw,))
        if not rows:
            raise StorageError(f"payload {digest!r} is not in the journal")
        text = schema.unpack(raw, rows[0][0])
        if text is None:
            self._meet("payloads", raw)
            raise StorageError(f"payload {digest!r} is damaged: `optograph resume {self.directory}` asks for it again")
        return text

    def _meet(self, table: str, which: int | bytes) -> None:
        """Count a damaged record once, and have it taken out."""
        if (table, which) in self._met:
            return
        self._met.add((table, which))
        if table == "payloads":
            self.damage.payloads += 1
        else:
            self.damage.rows += 1
        if self._writer is not None:
            name = which.hex() if isinstance(which, bytes) else which
            operations = Operations(drop=[(table, which)], meta={schema.DAMAGE: self.damage.to_json()})
            operations.rows.append(("events", "damage", json.dumps({"record": name, "table": table})))
            self._writer.leave(operations)


def _parse(kind: type[_RowT], body: bytes) -> _RowT:
    """Read a row whose checksum was right."""
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        pass  # JSON allows lone surrogates, which pydantic's parser does not
    try:
        return kind.model_validate(json.loads(body))
    except (ValidationError, ValueError) as error:
        raise StorageError(f"a record of the journal is not a {kind.__name__}: a newer program wrote it") from error


def _shut(pid: int, reader: Reader, writer: ThreadWriter | InlineWriter | None, lock: WriterLock | None) -> None:
    """Close the parts of a journal; a child process leaves them alone."""
    if os.getpid() != pid:
        return
    reader.close()
    if writer is not None:
        writer.close()
    if lock is not None:
        lock.close()
