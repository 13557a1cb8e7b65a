"""The writer: one thread writes all that is queued in one transaction, and then tells everybody at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Container, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from optograph.errors import StorageError
from optograph.storage.batch import Operations
from optograph.storage.failpoints import failpoint
from optograph.storage.reader import forked
from optograph.storage.store import Store
from optograph.storage.trouble import explained, is_unsure

_GROUP_BATCHES = 256
_GROUP_BYTES = 8_000_000
_CHECKPOINT_BYTES = 4_000_000
_CHECKPOINT_AT_ONCE_BYTES = 16_000_000
_IDLE_S = 0.002
_CLOSE_WAIT_MS = 2000
_TRANSACTION_BYTES = 30_000


class _Job:
    """One batch on its way, and whoever waits for it."""

    __slots__ = ("error", "future", "loop", "numbers", "operations", "told")

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.numbers: list[int] = []
        self.error: StorageError | None = None
        self.told: threading.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[list[int]] | None = None

    def resolve(self) -> None:
        """Tell the waiting task; runs on its loop."""
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.numbers)
        else:
            self.future.set_exception(self.error)


class ThreadWriter:
    """Owns the one connection that writes a journal file.

    Args:
        store: Where batches go.
        directory: The run directory, for messages.
    """

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._open = True
        self._pid = os.getpid()
        self._unsaved = 0
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._run, name="optograph-journal", daemon=True)
        self._thread.start()

    @property
    def stored(self) -> Container[bytes]:
        """Hashes of payloads that are known to be stored."""
        return self._store.stored

    def may_hold(self, table: str, key: bytes) -> bool:
        """Whether a lookup of this key is worth a query; one that a closed journal must refuse is."""
        return hash(key) in self._store.keys[table] or not self._open or os.getpid() != self._pid

    def write(self, operations: Operations) -> list[int]:
        """Write, and return when it is durable; gives the sequence number of each row."""
        job = _Job(operations)
        job.told = threading.Lock()
        job.told.acquire()
        self._submit(job)
        job.told.acquire()
        if job.error is not None:
            raise job.error
        return job.numbers

    async def awrite(self, operations: Operations) -> list[int]:
        """Like ``write``, without blocking the event loop."""
        job = _Job(operations)
        job.loop = asyncio.get_running_loop()
        job.future = job.loop.create_future()
        self._submit(job)
        return await job.future

    def leave(self, operations: Operations) -> None:
        """Write sooner or later, and wait for nothing; for notes that may be lost."""
        if self._open:
            self._submit(_Job(operations))

    def close(self) -> None:
        """Write what is queued, empty the write-ahead log and close the connection."""
        with self._gate:
            if not self._open:
                return
            self._open = False
            self._queue.put(None)
        self._thread.join()

    def _submit(self, job: _Job) -> None:
        if os.getpid() != self._pid:
            raise forked()
        with self._gate:
            if not self._open:
                raise StorageError("the journal is closed: open it again to write")
            self._queue.put(job)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        open_ = True
        while open_:
            group, open_ = self._gather()
            if group:
                self._write(group)
                self._tell(group)
            if self._unsaved > _CHECKPOINT_AT_ONCE_BYTES:
                self._checkpoint("PASSIVE")
        self._end()

    def _gather(self) -> tuple[list[_Job], bool]:
        """Wait for work and take all there is, up to a limit; returns it, and whether there can be more."""
        try:
            job = self._queue.get(timeout=_IDLE_S if self._unsaved > _CHECKPOINT_BYTES else None)
        except Empty:
            self._checkpoint("PASSIVE")
            return [], True
        group: list[_Job] = []
        size = 0
        while job is not None:
            group.append(job)
            size += job.operations.size
            if len(group) >= _GROUP_BATCHES or size >= _GROUP_BYTES:
                return group, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _write(self, group: Sequence[_Job]) -> None:
        error = self._try(group)
        if error is None:
            return
        if len(group) == 1:
            group[0].error = error
            return
        for job in group:  # one of them may be to blame, or be too big for what is left of the disk
            job.error = self._try([job])

    def _try(self, group: Sequence[_Job]) -> StorageError | None:
        if self._broken is not None:
            return StorageError(self._broken)
        try:
            numbers = self._store.apply([job.operations for job in group])
        except sqlite3.Error as error:
            explanation = explained(error, self._directory)
            if is_unsure(error):
                self._broken = str(explanation)
            return explanation
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            return StorageError(f"the batch cannot be written: {type(error).__name__}: {error}")
        for job, own in zip(group, numbers, strict=True):
            job.numbers = own
            self._unsaved += 2 * job.operations.size
        self._unsaved += _TRANSACTION_BYTES
        return None

    def _tell(self, group: Sequence[_Job]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            if job.told is not None:
                job.told.release()
            elif job.loop is not None:
                loops.setdefault(job.loop, []).append(job)
        for loop, jobs in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, jobs)
            except RuntimeError:  # the loop was closed, and with it whoever waited
                continue

    def _checkpoint(self, mode: str) -> None:
        self._unsaved = 0
        try:
            self._store.checkpoint(mode)
        except sqlite3.Error:  # the log keeps everything; the next checkpoint, or opening, tries again
            return

    def _end(self) -> None:
        failpoint("journal.close")
        self._store.life.end()
        if self._broken is None:
            with contextlib.suppress(sqlite3.Error):  # a full disk: a second of time spent is not worth an error
                self._store.write_life()
            self._store.db.execute(f"PRAGMA busy_timeout={_CLOSE_WAIT_MS}")  # somebody may be reading
            self._checkpoint("TRUNCATE")
        self._store.db.close()


class InlineWriter:
    """Writes a journal in memory, in the calling thread."""

    def __init__(self, store: Store, mutex: threading.RLock) -> None:
        self._store = store
        self._mutex = mutex
        self._open = True

    @property
    def stored(self) -> Container[bytes]:
        """Hashes of payloads that are known to be stored."""
        return self._store.stored

    def may_hold(self, table: str, key: bytes) -> bool:
        """Whether a lookup of this key is worth a query; one that a closed journal must refuse is."""
        return hash(key) in self._store.keys[table] or not self._open

    def write(self, operations: Operations) -> list[int]:
        """Write, and return the sequence number of each row."""
        with self._mutex:
            if not self._open:
                raise StorageError("the journal is closed: make a new one")
            try:
                return self._store.apply([operations])[0]
            except sqlite3.Error as error:
                raise StorageError(f"the batch cannot be written: {error}") from error

    async def awrite(self, operations: Operations) -> list[int]:
        """Like ``write``."""
        return self.write(operations)

    def leave(self, operations: Operations) -> None:
        """Like ``write``, where the journal is still open."""
        if self._open:
            self.write(operations)

    def close(self) -> None:
        """Forget everything."""
        with self._mutex:
            if self._open:
                self._open = False
                self._store.life.end()
                self._store.db.close()


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.resolve()
