"""Reading a run directory from outside, with nothing of the program that wrote it: what was committed at a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kills.server import call_name

_TIMES = ("seconds", "calls", "latency_s")


@dataclass(frozen=True)
class Committed:
    """What a journal holds.

    Attributes:
        calls: Names of the calls with a recorded answer, counted.
        evaluations: What the evaluations with a score say, without how long they took, counted.
        rows: The same calls and evaluations, as they stand there; one that was done again took another time.
        decisions: Verdicts in order, without what depends on time.
        has_job: Whether the journal says which job it is, so that ``resume`` works.
    """

    calls: Counter[str] = field(default_factory=Counter)
    evaluations: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    decisions: tuple[str, ...] = ()
    has_job: bool = False


def read_committed(run: Path, scratch: Path) -> Committed:
    """Read the journal of a run whose process is dead, from a copy of its files.

    Args:
        run: The run directory.
        scratch: Folder for the copy; what is in it is replaced.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name in ("journal.db", "journal.db-wal"):
        if (run / name).exists():
            shutil.copyfile(run / name, scratch / name)
    if not (scratch / "journal.db").exists():
        return Committed()
    db = sqlite3.connect(scratch / "journal.db")
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        return _read(db) if "calls" in tables else Committed()
    finally:
        db.close()


def _read(db: sqlite3.Connection) -> Committed:
    calls, evaluations, rows = Counter[str](), Counter[str](), Counter[str]()
    for body in _bodies(db, "calls"):
        row = json.loads(body)
        if row["completion"] is not None:
            calls[call_name(_payload(db, row["request"])["messages"])] += 1
            rows[body] += 1
    for body in _bodies(db, "evaluations"):
        row = json.loads(body)
        if row["feedback"] is not None:
            evaluations[
                _timeless(row | {"subgraph": row["subgraph"] is not None, "trace": row["trace"] is not None})
            ] += 1
            rows[body] += 1
    decisions = tuple(_timeless(json.loads(body)) for body in _bodies(db, "decisions"))
    has_job = db.execute("SELECT count(*) FROM meta WHERE key='job'").fetchone()[0] > 0
    return Committed(calls, evaluations, rows, decisions, has_job)


def _timeless(row: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if name not in _TIMES}, sort_keys=True)


def _bodies(db: sqlite3.Connection, table: str) -> list[str]:
    return [body for (body,) in db.execute(f"SELECT body FROM {table} ORDER BY seq")]


def _payload(db: sqlite3.Connection, digest: str) -> Any:
    (data,) = db.execute("SELECT data FROM payloads WHERE hash=?", (bytes.fromhex(digest),)).fetchone()
    text = data[1:] if data[:1] == b"r" else zlib.decompress(data[1:])
    if hashlib.sha256(text).hexdigest() != digest:
        raise ValueError(f"payload {digest!r} is damaged")
    return json.loads(text)
