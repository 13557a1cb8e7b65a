"""What SQLite's refusals mean for the person who runs the program."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from optograph.errors import StorageError

_ROOM_BYTES = 1_000_000


def is_unsure(error: sqlite3.Error) -> bool:
    """Whether nothing is known about what the disk holds after this error."""
    return _name(error) in ("SQLITE_IOERR_FSYNC", "SQLITE_CORRUPT", "SQLITE_NOTADB")


def explained(error: sqlite3.Error, directory: Path) -> StorageError:
    """Return a failed write as an error that says what to do."""
    name, where = _name(error), str(directory)
    full = name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE"))
    if full or (name.startswith("SQLITE_IOERR") and not _has_room(directory)):
        return StorageError(
            f"the journal in {where!r} cannot grow: no space left on its disk, or a limit on the size of files; "
            f"nothing of the batch was written: free some, then `optograph resume {where}`"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError(f"the journal in {where!r} is held by another program: close what has opened journal.db")
    return StorageError(
        f"the journal in {where!r} cannot be written: {error}; `optograph resume {where}` checks and repairs it"
    )


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _has_room(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free >= _ROOM_BYTES
    except OSError:
        return True
