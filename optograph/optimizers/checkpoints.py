"""LangGraph's checkpoint file of a run: for people and tools to look at; a run never reads it back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optograph.errors import StorageError

CHECKPOINTS = "checkpoints.db"


@contextmanager
def checkpointing(directory: Path | None) -> Iterator[Any]:
    """Give a checkpointer over a file in the run directory, or None where there is no directory.

    Checkpoints are never read back, so a file that cannot be used is made anew.

    Raises:
        StorageError: The file cannot be written.
    """
    if directory is None:
        yield None
        return
    from langgraph.checkpoint.sqlite import SqliteSaver

    file = directory / CHECKPOINTS
    try:
        connection = _open_checkpoints(file)
    except sqlite3.DatabaseError:
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        connection = _open_checkpoints(file)
    try:
        yield SqliteSaver(connection)
    except sqlite3.Error as error:
        raise StorageError(
            f"cannot write {str(file)!r}: {error}; free some space, then `optograph resume {directory}`"
        ) from error
    finally:
        connection.close()


def _open_checkpoints(file: Path) -> Any:
    """Open the file and make sure that it is whole."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    connection = sqlite3.connect(file, check_same_thread=False)
    try:
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        SqliteSaver(connection).setup()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
