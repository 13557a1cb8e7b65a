"""Opening a journal file: a sound one as it is, a damaged one mended, a broken one set aside and its records saved."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from optograph.errors import StorageError
from optograph.storage import schema
from optograph.storage.carve import carve
from optograph.storage.check import BrokenFileError, check, drop_orphans, record_repair
from optograph.storage.damage import Damage
from optograph.storage.migration import add_old_payload, migrate, old_is_whole
from optograph.storage.reader import FileReader
from optograph.storage.rows import CallRow, CandidateRow, EvaluationRow
from optograph.storage.wal import PAGE, is_sound, read_log

_NAME = "journal.db"
_BUILDING, _BUILT = "journal.building.db", "journal.rebuilt.db"
_DISK_TROUBLE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PERM", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR")
_OLD_KINDS = {"calls": CallRow, "candidates": CandidateRow, "evaluations": EvaluationRow}


def open_for_writing(root: Path) -> tuple[sqlite3.Connection, Damage]:
    """Return a connection to a sound journal, and the damage found so far.

    Raises:
        StorageError: The disk refuses, a newer program wrote the file, or it is a database of something else.
    """
    path = root / _NAME
    try:
        if (root / _BUILT).exists():  # a rebuilding that was killed after its last write
            _put_in_place(root)
        try:
            return _open_sound(path)
        except BrokenFileError:
            _rebuild(root)
        return _open_sound(path)
    except BrokenFileError as error:
        raise StorageError(
            f"the journal in {str(root)!r} is damaged beyond repair ({error}): remove {_NAME!r}"
        ) from error
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"cannot open the journal in {str(root)!r}: {error}; see that its disk has room and may be written"
        ) from error


def open_for_reading(root: Path) -> FileReader:
    """Return a reader of a journal of the present version.

    Raises:
        StorageError: There is none, it is broken, or another program version wrote it.
    """
    path = root / _NAME
    if not path.is_file() or path.stat().st_size == 0:
        raise StorageError(f"there is no journal in {str(root)!r}: `optograph run` or `optograph.optimize` makes one")
    reader = FileReader(path, view=True)
    try:
        columns = [row[1] for row in reader.query("PRAGMA table_info(meta)")]
        if columns == [b"key", b"value"]:
            raise StorageError(
                f"the journal in {str(root)!r} is of schema version 1: `optograph resume {root}` brings it up to date"
            )
        if not columns:
            raise StorageError(
                f"there is no journal in {str(root)!r} yet: its run is only starting, or was cut off there"
            )
        rows = reader.query("SELECT value, crc FROM meta WHERE key='schema'")
        version = schema.parse_meta("schema", *rows[0]) if rows else None
        schema.refuse_newer(version if isinstance(version, int) else schema.SCHEMA_VERSION)
    except BaseException:
        reader.close()
        raise
    return reader


def _open_sound(path: Path) -> tuple[sqlite3.Connection, Damage]:
    """Open, bring up to date and check; raises `BrokenFileError` where the file itself is not sound."""
    _check_header(path)
    if not is_sound(read_log(Path(f"{path}-wal"))):
        raise BrokenFileError("the write-ahead log is damaged")
    db: sqlite3.Connection | None = None
    try:
        db = _connect(path)
        version = schema.version_of(db)
        schema.refuse_newer(version)
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            schema.create(db)
            schema.write_heads(db, schema.count_heads(db))
            db.execute("COMMIT")
        elif version == 1:
            migrate(db)
        damage = check(db)
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # so that the log stays short, whatever is killed
        return db, damage
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, sqlite3.Error) and not _is_disk_trouble(error, path):
            raise BrokenFileError(str(error)) from error
        raise


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection that waits for the disk at each commit."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10, cached_statements=512)
    db.text_factory = bytes
    try:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_autocheckpoint=0")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _is_disk_trouble(error: sqlite3.Error, path: Path) -> bool:
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(
        "SQLITE_READONLY"
    ):  # a damaged header makes a file that may be written look like one that may not
        return not os.access(path, os.W_OK)
    return name.startswith(_DISK_TROUBLE) and not name.startswith("SQLITE_IOERR_SHORT_READ")


def _check_header(path: Path) -> None:
    """Compare the first bytes with what all journals have, before SQLite acts upon wrong ones."""
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise BrokenFileError("the file is empty, its log is not")
        return
    with path.open("rb") as file:
        head = file.read(100)
    sound = (
        len(head) == 100
        and head[:18] == b"SQLite format 3\0" + PAGE.to_bytes(2, "big")
        and head[18:20] in (b"\1\1", b"\2\2")
        and head[20:24] == b"\0\x40\x20\x20"
        and head[44:48] in (b"\0\0\0\0", b"\0\0\0\4")
        and head[56:60] in (b"\0\0\0\0", b"\0\0\0\1")
    )
    if not sound:
        raise BrokenFileError("file is not a database")


# -- rebuilding -----------------------------------------------------------------------------------


def _rebuild(root: Path) -> None:
    """Write all records that are whole into a new file, and set the broken one aside.

    The new file is complete before the old one is moved, so a kill at any instant loses nothing.
    """
    building = root / _BUILDING
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{building}{suffix}").unlink(missing_ok=True)
    db = sqlite3.connect(building, isolation_level=None)
    db.text_factory = bytes
    try:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("BEGIN IMMEDIATE")
        schema.create(db)
        lost = _save_records(db, root / _NAME)
        damage = Damage.from_json(schema.get_meta(db, schema.DAMAGE))
        damage.quarantined = f"{_aside(root)}.db"
        record_repair(db, damage, lost, 0)
        db.execute("COMMIT")
    finally:
        db.close()
    building.replace(root / _BUILT)
    _put_in_place(root)


def _save_records(db: sqlite3.Connection, broken: Path) -> int:
    """Copy what is whole; returns how many records were dropped because their payloads are lost."""
    rows: dict[str, dict[tuple[int, bytes, bytes], None]] = {table: {} for table in schema.EVIDENCE}
    meta: dict[bytes, bytes] = {}
    for number, columns in carve(broken, Path(f"{broken}-wal")):
        match columns:
            case (None, bytes() as key, bytes() as body, int() as crc):
                table = _table_of(number, key, body, crc)
                if table is not None:
                    rows[table][number, key, body] = None
                elif schema.payload_crc(key, body) == crc and schema.unpack(key, body) is not None:
                    db.execute("INSERT OR IGNORE INTO payloads (hash, data, crc) VALUES (?, ?, ?)", (key, body, crc))
            case (bytes() as key, bytes() as value, int() as crc):
                if schema.is_whole("meta", 0, key, value, crc):
                    meta[key] = value
            case (bytes() as key, bytes() as data):
                add_old_payload(db, key, data)
    for table, found in rows.items():
        keys: set[bytes] = set()
        for index, (_, key, body) in enumerate(sorted(found), 1):
            if table == "candidates" and key in keys:
                continue
            keys.add(key)
            schema.insert_row(db, table, index, key, body)
    for name, value in meta.items():
        if name != b"schema":
            schema.set_meta(db, name.decode(), value.decode())
    return drop_orphans(db)


def _table_of(number: int, key: bytes, body: bytes, crc: int) -> str | None:
    """Return the table whose checksum a row carries; None where it is damaged, or is not one to save."""
    for table in schema.EVIDENCE:
        if schema.row_crc(table, number, key, body) == crc:
            return table
    if old_is_whole(key, body, crc):  # version 1 did not say the table: the shape does
        for table, kind in _OLD_KINDS.items():
            if _is_a(kind, body):
                return table
    return None


def _is_a(kind: Any, body: bytes) -> bool:
    try:
        kind.model_validate_json(body)
    except ValueError:
        return False
    return True


def _put_in_place(root: Path) -> None:
    """Move the broken file aside, its log first (a log must never meet another file), and the new one to its name."""
    path, aside = root / _NAME, root / f"{_aside(root)}.db"
    for suffix in ("-wal", ""):
        source = Path(f"{path}{suffix}")
        if source.exists():
            source.replace(f"{aside}{suffix}")
    for suffix in ("-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    (root / _BUILT).replace(path)
    directory = os.open(root, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _aside(root: Path) -> str:
    number = 1
    while (root / f"journal.damaged-{number}.db").exists():
        number += 1
    return f"journal.damaged-{number}"
