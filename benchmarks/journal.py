"""Measure the journal on this disk: batches a second, what they cost the caller, and how long they and reads take.

Beside it, in the same run and on the same disk, the least that a durable batch can be: two blobs and a row in one
transaction of a bare sqlite3 connection (WAL, synchronous FULL), one thread. What a commit costs its caller is held to
that one's; the slowest commits are the disk's, and are told without a bar.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optograph.storage import Batch, CallRow, Journal

COMMITTERS = (1, 8, 64)
BATCHES = 6_400
PACED_ROUNDS = 60
THINK_S = 0.05
LOOKUPS = 5_000
PAYLOAD_CHARACTERS = 2_000
MICRO, MILLI = 1e6, 1e3
CPU_BAR = 1.25
"""Of the calling thread's processor time, which handing a batch to the writer must not cost more than committing it."""

_random = random.Random(0)
_words = ["".join(_random.choices("etaoinshrdlucm", k=_random.randint(2, 9))) for _ in range(4_000)]
_numbers = count()


@dataclass(frozen=True)
class Row:
    """One measured figure and its bar.

    Attributes:
        what: What was measured.
        figure: The figure.
        unit: Its unit.
        bar: The figure allowed; None where it is only told.
        at_least: Whether the bar is a floor.
    """

    what: str
    figure: float
    unit: str
    bar: float | None = None
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the bar is kept."""
        if self.bar is None:
            return True
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar


@dataclass(frozen=True)
class Load:
    """What a number of committers met.

    Attributes:
        rate: Batches a second.
        cpu_us: Processor time of the calling thread a batch, in microseconds.
        waits_ms: Time of each commit, sorted, in milliseconds.
    """

    rate: float
    cpu_us: float
    waits_ms: Sequence[float]

    def percentile(self, share: float) -> float:
        """Return the time that this share of the commits kept."""
        return self.waits_ms[min(int(share * len(self.waits_ms)), len(self.waits_ms) - 1)]


@dataclass(frozen=True)
class Call:
    """One model call as it reaches the journal."""

    row: CallRow
    request: object
    completion: object

    def batch(self, journal: Journal) -> Batch:
        """Return the batch of the call: two payloads of 2 KB and a row."""
        batch = journal.batch()
        batch.put(self.request)
        batch.put(self.completion)
        batch.add_call(self.row)
        return batch


def make_calls(number: int) -> list[Call]:
    """Return calls that differ in everything."""
    return [_make_call(f"{next(_numbers):064d}") for _ in range(number)]


def _make_call(key: str) -> Call:
    texts = [" ".join(_random.choices(_words, k=PAYLOAD_CHARACTERS // 6))[:PAYLOAD_CHARACTERS] for _ in range(2)]
    row = CallRow(
        key=key,
        context={"run": "r", "role": "task", "candidate": "c" * 64, "example": "e", "repeat": 0, "node": "n"},
        identity={"endpoint": "http://127.0.0.1:8000", "served": "m", "weights": "w" * 64},
        request="r" * 64,
        completion="c" * 64,
    )
    return Call(row.model_copy(update={"key": key}), {"messages": texts[0]}, {"texts": [texts[1]]})


async def load(journal: Journal, committers: int, calls: Sequence[Call], think_s: float = 0.0) -> Load:
    """Commit all calls from so many tasks at once, each thinking for so long (half to one and a half) in between."""
    waits: list[float] = []
    work = iter(calls)

    async def one() -> None:
        await asyncio.sleep(think_s * _random.random())
        for call in work:
            started = time.perf_counter()
            await call.batch(journal).acommit()
            waits.append((time.perf_counter() - started) * MILLI)
            if think_s:
                await asyncio.sleep(think_s * (0.5 + _random.random()))

    started, used = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(one() for _ in range(committers)))
    took, cpu = time.perf_counter() - started, time.thread_time() - used
    return Load(len(calls) / took, cpu / len(calls) * MICRO, sorted(waits))


def bare_sqlite(file: Path, calls: Sequence[Call]) -> Load:
    """Commit the calls one by one through sqlite3 alone, as durably."""
    bodies = [[json.dumps(one).encode() for one in (call.request, call.completion)] for call in calls]
    waits = []
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, context TEXT, request BLOB, completion BLOB)")
        started, used = time.perf_counter(), time.thread_time()
        for call, (request, completion) in zip(calls, bodies, strict=True):
            begun = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            values = (call.row.key, json.dumps(call.row.context), request, completion)
            connection.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", values)
            connection.execute("COMMIT")
            waits.append((time.perf_counter() - begun) * MILLI)
        took, cpu = time.perf_counter() - started, time.thread_time() - used
    return Load(len(calls) / took, cpu / len(calls) * MICRO, sorted(waits))


def record_by_record(journal: Journal, calls: Sequence[Call]) -> float:
    """Return the calls a second where each record is a commit of its own, as without batches."""
    started = time.perf_counter()
    for call in calls:
        journal.put(call.request)
        journal.put(call.completion)
        journal.add_call(call.row)
    return len(calls) / (time.perf_counter() - started)


def lookups(journal: Journal, number: int, pause_s: float = 0.0) -> list[float]:
    """Return the times of lookups of a call that is not there, sorted, in microseconds."""
    times = []
    for index in range(number):
        started = time.perf_counter()
        journal.find_call(f"missing-{index}")
        times.append((time.perf_counter() - started) * MICRO)
        if pause_s:
            time.sleep(pause_s)
    return sorted(times)


def beside_a_writer(journal: Journal, directory: Path) -> list[float]:
    """Return the times of lookups by a reader of its own while 8 committers write without a pause, in microseconds."""
    times: list[float] = []

    def read() -> None:
        with Journal.read(directory) as view:
            times.extend(lookups(view, 500, 0.001))

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        asyncio.run(load(journal, 8, make_calls(64)))
    reader.join()
    return times


def measure(directory: Path) -> tuple[list[Row], str]:
    """Return all figures, and the last line."""
    bare = bare_sqlite(directory / "bare.sqlite", make_calls(BATCHES // 4))
    directory = directory / "run"
    with Journal.open(directory) as journal:
        asyncio.run(load(journal, 8, make_calls(400)))  # warm
        alone = record_by_record(journal, make_calls(BATCHES // 8))
        full = {}
        for number in COMMITTERS:
            full[number] = asyncio.run(load(journal, number, make_calls(BATCHES if number > 1 else BATCHES // 4)))
        paced = asyncio.run(load(journal, 64, make_calls(64 * PACED_ROUNDS), THINK_S))
        find = lookups(journal, LOOKUPS)
        beside = beside_a_writer(journal, directory)
    started = time.perf_counter()
    with Journal.open(directory) as journal:
        opened = time.perf_counter() - started
        found = len(journal.calls())
    ratio = full[64].rate / alone
    p99, cpu = paced.percentile(0.99) / bare.percentile(0.99), max(one.cpu_us for one in full.values()) / bare.cpu_us
    find_us, beside_us = find[len(find) // 2], beside[len(beside) // 2]
    rows = [
        Row("bare SQLite, one thread: commit p50", bare.percentile(0.5), "ms"),
        Row("bare SQLite, one thread: commit p99", bare.percentile(0.99), "ms"),
        Row("bare SQLite, one thread: CPU a commit", bare.cpu_us, "µs"),
        Row("one record a commit, one thread", alone, "calls/s"),
    ]
    for number, one in full.items():
        who = f"{number} committers without a pause" if number > 1 else "1 committer without a pause"
        rows.append(Row(f"{who}: rate", one.rate, "calls/s"))
        rows.append(Row(f"{who}: commit p50", one.percentile(0.5), "ms"))
        rows.append(Row(f"{who}: commit p99", one.percentile(0.99), "ms"))
        rows.append(Row(f"{who}: calling thread's CPU a call", one.cpu_us, "µs"))
    rows += [
        Row("64 committers over one record a commit", ratio, "x", 3, at_least=True),
        Row(f"64 committers of {THINK_S * MILLI:.0f} ms calls: rate", paced.rate, "calls/s"),
        Row(f"64 committers of {THINK_S * MILLI:.0f} ms calls: commit p50", paced.percentile(0.5), "ms"),
        Row(f"64 committers of {THINK_S * MILLI:.0f} ms calls: commit p99", paced.percentile(0.99), "ms"),
        Row("... over bare SQLite's commit p99", p99, "x"),
        Row("most CPU of the calling thread a call, over bare SQLite's", cpu, "x", CPU_BAR),
        Row("lookup of a missing call, p50", find_us, "µs", 15),
        Row("reader's lookup beside a busy writer, p50", beside_us, "µs"),
        Row("reader's lookup beside a busy writer, p99", beside[int(len(beside) * 0.99)], "µs"),
        Row(f"open and check {found:,} calls", opened, "s"),
    ]
    last = f"commits_ratio={ratio:.1f} p99_over_bare={p99:.2f} cpu_over_bare={cpu:.2f} find_missing_us={find_us:.1f}"
    return rows, last


def main() -> int:
    """Print the table and the last line; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="directory on the disk to measure; a temporary one without it")
    place = parser.parse_args().dir
    with tempfile.TemporaryDirectory(dir=place) as directory:
        rows, last = measure(Path(directory))
    table = Table(title="Journal: batches of two 2 KB payloads and a row, each durable when its commit returns")
    for column in ("measured", "figure", "bar", "kept"):
        table.add_column(column, justify="left" if column == "measured" else "right")
    for row in rows:
        bar = "" if row.bar is None else f"{'≥' if row.at_least else '≤'} {row.bar:g} {row.unit}"
        kept = "" if row.bar is None else ("yes" if row.passed else "NO")
        table.add_row(row.what, f"{row.figure:,.4g} {row.unit}", bar, kept)
    Console(width=100).print(table)
    print(last)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
