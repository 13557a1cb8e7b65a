"""Batches into tables: one transaction for many batches, with few and long statements."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence

from optograph.storage import schema
from optograph.storage.batch import Operations
from optograph.storage.failpoints import failpoint

_CHUNK = 64
_KNOWN_PAYLOADS = 16384
_LIFE_EVERY_S = 1.0
_LOOKED_UP = ("calls", "evaluations")


class Life:
    """How often a journal was opened for writing, and for how many seconds in all.

    Args:
        lives: Openings before this one.
        active_s: Seconds of those.
        counted: Whether this one is counted with its time.
    """

    def __init__(self, lives: int = 0, active_s: float = 0.0, *, counted: bool = True) -> None:
        self.lives = lives + counted
        self._before = active_s
        self._started = time.monotonic()
        self._ended: float | None = None if counted else self._started

    @property
    def active_s(self) -> float:
        """Seconds over all lives; the clock of this one stands still once it has ended."""
        return self._before + (time.monotonic() if self._ended is None else self._ended) - self._started

    def end(self) -> None:
        """Stop the clock."""
        if self._ended is None:
            self._ended = time.monotonic()

    def to_json(self) -> str:
        """Return what is written down."""
        return json.dumps({"lives": self.lives, "active_s": round(self.active_s, 6)})


class Store:
    """Writes batches over one connection; used by one thread at a time.

    The interpreter's lock is given up at each statement, and a busy program makes one wait to have it again. So rows
    are inserted up to 64 at once.

    Attributes:
        stored: Hashes of payloads that are known to be stored.
        keys: For each table that is looked up by key, Python's hash of every key that it may hold: most lookups are of
            what was never written, and need no statement.
    """

    def __init__(self, db: sqlite3.Connection, life: Life) -> None:
        self.db = db
        self.life = life
        self.stored: dict[bytes, None] = {}
        heads = schema.get_meta(db, schema.HEADS)
        if heads is None:
            heads = schema.count_heads(db)
            schema.write_heads(db, heads)
        self._heads: dict[str, list[int]] = heads
        self.keys: dict[str, set[int]] = {
            table: {hash(key) for (key,) in db.execute(f"SELECT key FROM {table}")}  # noqa: S608 - fixed names
            for table in _LOOKED_UP
        }
        self._candidates = {key: seq for seq, key in db.execute("SELECT seq, key FROM candidates")}
        self._life_due = 0.0

    def apply(self, group: Sequence[Operations]) -> list[list[int]]:
        """Write all batches in one transaction; returns the sequence numbers of the rows of each.

        Raises:
            sqlite3.Error: Nothing was written.
        """
        failpoint("journal.begin")
        heads = {table: list(head) for table, head in self._heads.items()}
        candidates: dict[bytes, int] = {}
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self._drop(group, heads)
            payloads = {digest: text for one in group for digest, text in one.payloads}
            self._insert_payloads(payloads, heads)
            numbers = self._insert_rows(group, heads, candidates)
            self._write_meta(group, heads)
            failpoint("journal.commit")
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        failpoint("journal.committed")
        self._heads = heads
        self._candidates.update(candidates)
        self.stored.update(dict.fromkeys(payloads))
        while len(self.stored) > _KNOWN_PAYLOADS:
            del self.stored[next(iter(self.stored))]
        return numbers

    def _drop(self, group: Sequence[Operations], heads: dict[str, list[int]]) -> None:
        for one in group:
            for table, which in one.drop:
                column = "seq" if isinstance(which, int) else "hash"
                cursor = self.db.execute(f"DELETE FROM {table} WHERE {column}=?", (which,))  # noqa: S608 - fixed names
                heads[table][0] -= cursor.rowcount
                if isinstance(which, bytes):
                    self.stored.pop(which, None)

    def _insert_payloads(self, payloads: dict[bytes, bytes], heads: dict[str, list[int]]) -> None:
        rows = []
        for digest, text in payloads.items():
            data = schema.pack(text)
            rows.append((digest, data, schema.payload_crc(digest, data)))
        heads["payloads"][0] += self._insert("OR IGNORE INTO payloads (hash, data, crc)", 3, rows)

    def _insert_rows(
        self, group: Sequence[Operations], heads: dict[str, list[int]], candidates: dict[bytes, int]
    ) -> list[list[int]]:
        rows: dict[str, list[tuple[object, ...]]] = {}
        numbers = []
        for one in group:
            own = []
            for table, key, text in one.rows:
                raw = key.encode()
                if table == "candidates":
                    known = self._candidates.get(raw) or candidates.get(raw)
                    if known is not None:
                        own.append(known)
                        continue
                head = heads[table]
                head[0] += 1
                head[1] += 1
                seq = head[1]
                if table == "candidates":
                    candidates[raw] = seq
                elif table in self.keys:
                    self.keys[table].add(hash(raw))
                rows.setdefault(table, []).append((seq, key, text, schema.row_crc(table, seq, raw, text.encode())))
                own.append(seq)
            numbers.append(own)
        for table, added in rows.items():
            self._insert(f"INTO {table}", 4, added)
        return numbers

    def _insert(self, target: str, width: int, rows: Sequence[tuple[object, ...]]) -> int:
        done = 0
        for at in range(0, len(rows), _CHUNK):
            chunk = rows[at : at + _CHUNK]
            marks = ",".join([f"({','.join('?' * width)})"] * len(chunk))
            values = [value for row in chunk for value in row]
            done += self.db.execute(f"INSERT {target} VALUES {marks}", values).rowcount  # noqa: S608 - fixed names
            failpoint("journal.statement")
        return done

    def _write_meta(self, group: Sequence[Operations], heads: dict[str, list[int]]) -> None:
        records = {schema.HEADS: json.dumps(heads)}
        now = time.monotonic()
        if now >= self._life_due:
            self._life_due = now + _LIFE_EVERY_S
            records[schema.LIFE] = self.life.to_json()
        for one in group:
            records.update(one.meta)
        rows = [
            (name, value, schema.row_crc("meta", 0, name.encode(), value.encode())) for name, value in records.items()
        ]
        self._insert("OR REPLACE INTO meta", 3, rows)

    def write_life(self) -> None:
        """Record the time spent, whatever is written else."""
        self._life_due = 0.0
        self.apply([Operations()])

    def checkpoint(self, mode: str) -> None:
        """Move what the write-ahead log holds into the file; ``TRUNCATE`` leaves the log empty as well."""
        failpoint("journal.checkpoint")
        self.db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
