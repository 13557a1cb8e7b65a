"""The tables of a journal file: how they are made, how a row is checked, and how old files become new ones."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

from optograph.errors import StorageError

SCHEMA_VERSION = 2
EVIDENCE = ("calls", "candidates", "evaluations")
"""Tables of what was paid for: found by key, kept as far as they are whole."""
DERIVED = ("decisions", "states", "events")
"""Tables that a run can write again from the evidence: kept only where all of them are whole."""
TABLES = EVIDENCE + DERIVED
HEADS = "journal.heads"
"""Name of the meta record that says how many rows each table has, and the last number given out."""
LIFE = "journal.life"
"""Name of the meta record with the number of openings and the seconds spent."""
DAMAGE = "journal.damage"
"""Name of the meta record of the damage found so far."""

_RAW_BELOW = 4096
_LEVEL = 6
_RAW, _DEFLATED = b"r", b"z"


def create(db: sqlite3.Connection) -> None:
    """Make the tables of the present version where they are not, inside the caller's transaction."""
    db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)")
    db.execute(
        "CREATE TABLE IF NOT EXISTS payloads "
        "(seq INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, data BLOB NOT NULL, crc INTEGER NOT NULL)"
    )
    for table in TABLES:
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {table} "
            "(seq INTEGER PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL)"
        )
    for table in EVIDENCE:
        db.execute(f"CREATE INDEX IF NOT EXISTS {table}_key ON {table} (key)")
    version = str(SCHEMA_VERSION)
    crc = row_crc("meta", 0, b"schema", version.encode())
    db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?, ?)", (version, crc))


def row_crc(table: str, seq: int, key: bytes, body: bytes) -> int:
    """Return the checksum of a row (32 bits), over where it stands and what it says."""
    return zlib.crc32(b"%s\n%d\n%s\n%s" % (table.encode(), seq, key, body))


def payload_crc(digest: bytes, stored: bytes) -> int:
    """Return the checksum of a stored payload (32 bits), over its hash and its bytes."""
    return zlib.crc32(stored, zlib.crc32(digest))


def is_whole(table: str, seq: Any, key: Any, body: Any, crc: Any) -> bool:
    """Whether a row read with ``text_factory = bytes`` is what was written."""
    if not isinstance(key, bytes) or not isinstance(body, bytes) or not isinstance(seq, int):
        return False
    return bool(row_crc(table, seq, key, body) == crc)


def pack(text: bytes) -> bytes:
    """Return a payload as it is stored; a short one is not compressed: that takes more time than it saves room."""
    return _RAW + text if len(text) < _RAW_BELOW else _DEFLATED + zlib.compress(text, _LEVEL)


def unpack(digest: bytes, data: Any) -> bytes | None:
    """Return the JSON text of a stored payload, or None where it is not what its hash names."""
    if not isinstance(data, bytes):
        return None
    try:
        text = data[1:] if data[:1] == _RAW else zlib.decompress(data[1:])
    except zlib.error:
        return None
    return text if hashlib.sha256(text).digest() == digest else None


def version_of(db: sqlite3.Connection) -> int:
    """Return the schema version of an open file: 0 where it is empty.

    Raises:
        StorageError: It is a database of something else.
        sqlite3.DatabaseError: It is damaged.
    """
    names = {decoded(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if not names:
        return 0
    if not names & {"meta", "payloads", *TABLES}:
        raise StorageError("journal.db is a database of another program: choose another run directory")
    columns = [decoded(row[1]) for row in db.execute("PRAGMA table_info(meta)")]
    if columns == ["key", "value"]:
        row = db.execute("SELECT value FROM meta WHERE key='schema'").fetchone()
        return int(decoded(row[0])) if row is not None and decoded(row[0]).isdigit() else -1
    row = db.execute("SELECT value, crc FROM meta WHERE key='schema'").fetchone() if "crc" in columns else None
    if row is not None and is_whole("meta", 0, b"schema", row[0], row[1]) and row[0].isdigit():
        return int(row[0])
    return SCHEMA_VERSION  # a damaged record of the version; the structure is checked next


def refuse_newer(version: int) -> None:
    """Raise ``StorageError`` for a file that this program cannot read."""
    if version > SCHEMA_VERSION or version < 0:
        named = "an unknown schema version" if version < 0 else f"schema version {version}"
        raise StorageError(
            f"the journal has {named}, this program reads up to {SCHEMA_VERSION}: "
            "use the program version that wrote it, or a newer one"
        )


def insert_row(db: sqlite3.Connection, table: str, seq: int, key: bytes, body: bytes) -> None:
    """Write one row with its checksum."""
    db.execute(
        f"INSERT INTO {table} VALUES (?, ?, ?, ?)",  # noqa: S608 - fixed names
        (seq, key.decode(), body.decode(), row_crc(table, seq, key, body)),
    )


def set_meta(db: sqlite3.Connection, name: str, value: str) -> None:
    """Write one meta record (JSON text) with its checksum."""
    crc = row_crc("meta", 0, name.encode(), value.encode())
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, value, crc))


def get_meta(db: sqlite3.Connection, name: str) -> Any | None:
    """Return the value of a meta record, or None where it is missing or damaged."""
    row = db.execute("SELECT value, crc FROM meta WHERE key=?", (name,)).fetchone()
    return None if row is None else parse_meta(name, row[0], row[1])


def parse_meta(name: str, value: Any, crc: Any) -> Any | None:
    """Return what a meta record says, or None where it is damaged."""
    return json.loads(value) if is_whole("meta", 0, name.encode(), value, crc) else None


def empty_derived(db: sqlite3.Connection) -> None:
    """Forget all that a run can find out again."""
    for table in DERIVED:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names


def count_heads(db: sqlite3.Connection) -> dict[str, list[int]]:
    """Return [number of rows, last sequence number] of each table, counted."""
    heads = {}
    for table in ("payloads", *TABLES):
        number, last = db.execute(f"SELECT count(*), coalesce(max(seq), 0) FROM {table}").fetchone()  # noqa: S608 - fixed names
        heads[table] = [number, last]
    return heads


def derived_is_whole(heads: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether the rows of a derived table are all there, in order and undamaged."""
    if heads.get(table) != [len(rows), len(rows)]:
        return False
    return all(row[0] == number and is_whole(table, *row) for number, row in enumerate(rows, 1))


def write_heads(db: sqlite3.Connection, heads: dict[str, list[int]]) -> None:
    """Record the number of rows of each table."""
    set_meta(db, HEADS, json.dumps(heads))


def decoded(value: Any) -> str:
    """Return what SQLite gave as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
