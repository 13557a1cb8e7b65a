"""From version 1 of the journal's tables to the present one."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from typing import Any

from optograph.storage import schema
from optograph.storage.check import drop_orphans, record_repair
from optograph.storage.damage import Damage


def migrate(db: sqlite3.Connection) -> None:
    """Turn a file of version 1 into the present version, in one transaction; damaged rows are left out, and counted.

    Version 1 had no checksum on payloads and none over a row's place. Its derived rows are kept only if all is whole.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        old = {schema.decoded(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        tables = [table for table in ("meta", "payloads", *schema.TABLES) if table in old]
        for table in tables:
            db.execute(f"DROP INDEX IF EXISTS {table}_key")
            db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        schema.create(db)
        lost_payloads = _copy_payloads(db) if "payloads" in tables else 0
        lost_rows = sum(_copy_rows(db, table) for table in schema.TABLES if table in tables)
        for table in tables:
            db.execute(f"DROP TABLE old_{table}")
        if lost_rows or lost_payloads:
            schema.empty_derived(db)
            record_repair(db, Damage(), lost_rows + drop_orphans(db), lost_payloads)
        else:
            schema.write_heads(db, schema.count_heads(db))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _copy_payloads(db: sqlite3.Connection) -> int:
    rows = db.execute("SELECT hash, data FROM old_payloads ORDER BY hash")
    return sum(not add_old_payload(db, key, data) for key, data in rows)


def _copy_rows(db: sqlite3.Connection, table: str) -> int:
    lost = number = 0
    for key, body, crc in db.execute(f"SELECT key, body, crc FROM old_{table} ORDER BY seq"):  # noqa: S608 - fixed names
        if old_is_whole(key, body, crc):
            number += 1
            schema.insert_row(db, table, number, key, body)
        else:
            lost += 1
    return lost


def old_is_whole(key: Any, body: Any, crc: Any) -> bool:
    """Whether a row of version 1 is what was written."""
    return isinstance(key, bytes) and isinstance(body, bytes) and zlib.crc32(b"%s\n%s" % (key, body)) == crc


def add_old_payload(db: sqlite3.Connection, key: Any, data: Any) -> bool:
    """Copy a payload of version 1; returns False where it is damaged."""
    try:
        text = zlib.decompress(data)
        digest = bytes.fromhex(schema.decoded(key))
    except (zlib.error, ValueError, TypeError):
        return False
    if hashlib.sha256(text).digest() != digest:
        return False
    stored = schema.pack(text)
    db.execute(
        "INSERT OR IGNORE INTO payloads (hash, data, crc) VALUES (?, ?, ?)",
        (digest, stored, schema.payload_crc(digest, stored)),
    )
    return True
