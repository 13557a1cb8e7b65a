"""The check of an opened journal file: what is damaged is taken out, in one transaction, so that a run can go on."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from optograph.storage import schema
from optograph.storage.damage import Damage

_LIMIT = 200
_CAN_BE_MENDED = re.compile(
    r"row \d+ missing from index|wrong # of entries in index|non-unique entry in index"
    r"|(NULL|TEXT|BLOB|INT|REAL|NUMERIC|non-\w+) value in \w+\.\w+",
)


class BrokenFileError(Exception):
    """The structure of the file is damaged, so that nothing in it can be relied on without its own checksum."""


@dataclass
class _Findings:
    rows: list[tuple[str, int]] = field(default_factory=list)
    payloads: list[int] = field(default_factory=list)
    meta: list[int] = field(default_factory=list)
    other: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows or self.payloads or self.meta or self.other)


def check(db: sqlite3.Connection) -> Damage:
    """Check an opened file of the present version and mend what can be mended; returns all damage found so far.

    Where anything is damaged, decisions, states and events are emptied: a run then goes through its steps again, over
    the calls and evaluations that are whole, and never goes on from a state that rests on something lost.

    Raises:
        BrokenFileError: The structure is damaged.
        sqlite3.Error: The file cannot be read or written.
    """
    messages = [schema.decoded(row[0]) for row in db.execute(f"PRAGMA integrity_check({_LIMIT})")]
    structure = [message for message in messages if message != "ok"]
    if len(structure) >= _LIMIT or any(not _CAN_BE_MENDED.fullmatch(_core(message)) for message in structure):
        raise BrokenFileError(structure[0])
    found = _find(db)
    found.other = found.other or bool(structure)
    if not found:
        return Damage.from_json(schema.get_meta(db, schema.DAMAGE))
    try:
        db.execute("BEGIN IMMEDIATE")
        damage = _mend(db, found)
        left = [schema.decoded(row[0]) for row in db.execute("PRAGMA integrity_check(1)")]
        if left != ["ok"]:
            raise BrokenFileError(left[0])
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return damage


def record_repair(db: sqlite3.Connection, damage: Damage, rows: int, payloads: int) -> None:
    """Write down what was found and done, inside the caller's transaction, after the derived tables were emptied."""
    damage.rows += rows
    damage.payloads += payloads
    damage.derived_rebuilt = True
    schema.set_meta(db, schema.DAMAGE, damage.to_json())
    events: list[tuple[str, dict[str, Any]]] = []
    if rows or payloads:
        events.append(("damage", {"rows": rows, "payloads": payloads}))
    text = "decisions, states and events were emptied; the run goes through its steps again"
    events.append(("repaired", {"what": text, "quarantined": damage.quarantined}))
    for number, (kind, data) in enumerate(events, 1):
        schema.insert_row(db, "events", number, kind.encode(), json.dumps(data).encode())
    schema.write_heads(db, schema.count_heads(db))


def drop_orphans(db: sqlite3.Connection) -> int:
    """Delete calls, candidates and evaluations that name a payload that is not there; returns how many."""
    known = {digest.hex() for (digest,) in db.execute("SELECT hash FROM payloads") if isinstance(digest, bytes)}
    dropped = 0
    for table, names in (
        ("calls", ("request", "completion")),
        ("candidates", ("values",)),
        ("evaluations", ("output", "subgraph", "trace")),
    ):
        rows = db.execute(f"SELECT seq, body FROM {table}").fetchall()  # noqa: S608 - fixed names
        for seq, body in rows:
            record = json.loads(body)
            if any(record.get(name) is not None and record[name] not in known for name in names):
                db.execute(f"DELETE FROM {table} WHERE seq=?", (seq,))  # noqa: S608 - fixed names
                dropped += 1
    return dropped


def _find(db: sqlite3.Connection) -> _Findings:
    found = _Findings()
    heads = schema.get_meta(db, schema.HEADS)
    if not isinstance(heads, dict):
        heads, found.other = {}, True
    for rowid, name, value, crc in db.execute("SELECT rowid, key, value, crc FROM meta"):
        if not schema.is_whole("meta", 0, name, value, crc):
            found.meta.append(rowid)
    for table in schema.EVIDENCE:
        number = last = 0
        for row in db.execute(f"SELECT seq, key, body, crc FROM {table} ORDER BY seq"):  # noqa: S608 - fixed names
            number, last = number + 1, row[0]
            if not schema.is_whole(table, *row):
                found.rows.append((table, row[0]))
        if heads.get(table, [0, 0])[0] != number or last > heads.get(table, [0, 0])[1]:
            found.other = True
    for table in schema.DERIVED:
        rows = db.execute(f"SELECT seq, key, body, crc FROM {table} ORDER BY seq").fetchall()  # noqa: S608 - fixed names
        if not schema.derived_is_whole(heads, table, rows):
            found.other = True
    number = 0
    for seq, digest, data, crc in db.execute("SELECT seq, hash, data, crc FROM payloads"):
        number += 1
        if not (isinstance(digest, bytes) and isinstance(data, bytes) and schema.payload_crc(digest, data) == crc):
            found.payloads.append(seq)
    if heads.get("payloads", [0])[0] != number:
        found.other = True
    return found


def _mend(db: sqlite3.Connection, found: _Findings) -> Damage:
    db.execute("REINDEX")
    for table, seq in found.rows:
        db.execute(f"DELETE FROM {table} WHERE seq=?", (seq,))  # noqa: S608 - fixed names
    for seq in found.payloads:
        db.execute("DELETE FROM payloads WHERE seq=?", (seq,))
    for rowid in found.meta:
        db.execute("DELETE FROM meta WHERE rowid=?", (rowid,))
    schema.create(db)  # the record of the version may have been among them
    schema.empty_derived(db)
    orphans = drop_orphans(db)
    damage = Damage.from_json(schema.get_meta(db, schema.DAMAGE))
    record_repair(db, damage, len(found.rows) + len(found.meta) + orphans, len(found.payloads))
    return damage


def _core(message: str) -> str:
    return re.sub(r"(missing from index|entries in index|entry in index) .*", r"\1", message)
