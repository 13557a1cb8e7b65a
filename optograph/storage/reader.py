"""Reading a journal: connections that never wait for the writer, also from another process."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from optograph.errors import StorageError

Query = tuple[str, tuple[Any, ...]]
_KEPT = 8
_TRIES = 20


class Reader(Protocol):
    """Runs queries; rows come with text as bytes."""

    def query(self, sql: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query."""
        ...

    def snapshot(self, queries: Sequence[Query]) -> list[list[tuple[Any, ...]]]:
        """Return the rows of several queries, all of the same moment."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class MemoryReader:
    """Reads over the one connection of a journal in memory."""

    def __init__(self, connection: sqlite3.Connection, mutex: threading.RLock) -> None:
        self._db = connection
        self._mutex = mutex

    def query(self, sql: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query."""
        with self._mutex:
            return self._run(sql, arguments)

    def snapshot(self, queries: Sequence[Query]) -> list[list[tuple[Any, ...]]]:
        """Return the rows of several queries, all of the same moment."""
        with self._mutex:
            return [self._run(sql, arguments) for sql, arguments in queries]

    def _run(self, sql: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        """Do nothing: the writer closes the connection."""


class FileReader:
    """Reads a journal file over a few read-only connections, one for each thread that reads at the same time.

    Args:
        path: The file.
        view: Whether another process may write: then each read checks that the file is still the same one. A file that
            nobody writes has no write-ahead log; it is read without locks, and read again if a writer came meanwhile.
    """

    def __init__(self, path: Path, *, view: bool) -> None:
        self._path = path
        self._view = view
        self._wal = f"{path}-wal"
        self._pid = os.getpid()
        self._free: deque[tuple[sqlite3.Connection, Any]] = deque()
        self._open = True

    def query(self, sql: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query."""
        if self._view:
            return self.snapshot([(sql, arguments)])[0]
        db, mark = self._take()
        try:
            rows = db.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            db.close()
            raise self._failed(error) from error
        self._give(db, mark)
        return rows

    def snapshot(self, queries: Sequence[Query]) -> list[list[tuple[Any, ...]]]:
        """Return the rows of several queries, all of the same moment."""
        for _ in range(_TRIES):
            db, mark = self._take()
            try:
                db.execute("BEGIN")
                rows = [db.execute(sql, arguments).fetchall() for sql, arguments in queries]
                db.execute("COMMIT")
            except sqlite3.Error as error:
                db.close()
                if self._view and self._state() != mark:
                    continue
                raise self._failed(error) from error
            if not self._view or mark[0] or self._state() == mark:
                self._give(db, mark)
                return rows
            db.close()
        raise StorageError(f"{str(self._path)!r} changes too fast to be read: try again")

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._open = False
        while self._free:
            self._free.pop()[0].close()

    def _state(self) -> Any:
        """Return (whether there is a log, which file it is), and without a log also what tells that it was written."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - half the time of Path.stat, at each read
        except OSError as error:
            raise StorageError(f"cannot read {str(self._path)!r}: {error.strerror}") from error
        if os.path.exists(self._wal):  # noqa: PTH110 - likewise
            return (True, found.st_ino)
        return (False, found.st_ino, found.st_size, found.st_mtime_ns)

    def _take(self) -> tuple[sqlite3.Connection, Any]:
        if os.getpid() != self._pid:
            raise forked()
        mark = self._state() if self._view else None
        while True:
            try:
                db, known = self._free.pop()
            except IndexError:
                break
            if known == mark:
                return db, mark
            db.close()
        if not self._open:
            raise StorageError("the journal is closed")
        try:
            return self._connect(mark), mark
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _give(self, db: sqlite3.Connection, mark: Any) -> None:
        if self._open and len(self._free) < _KEPT:
            self._free.append((db, mark))
        else:
            db.close()

    def _connect(self, mark: Any) -> sqlite3.Connection:
        mode = "immutable=1" if mark is not None and not mark[0] else "mode=ro"
        address = f"file:{quote(str(self._path.absolute()))}?{mode}"
        db = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None, timeout=5)
        db.text_factory = bytes
        return db

    def _failed(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"cannot read the journal {str(self._path)!r}: {error}; `optograph resume {self._path.parent}` repairs it"
        )


def forked() -> StorageError:
    """Return the error of a child process that uses its parent's journal."""
    return StorageError(
        "this journal was opened by a parent process: open it again in this one (Journal.read), "
        "or start workers that do not inherit it"
    )
