"""One writer a run directory: an advisory lock held for life that says who holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optograph.errors import StorageError


class WriterLock:
    """Holds ``DIR/writer.lock`` until closed; a second writer is refused with the owner's process id."""

    def __init__(self, directory: Path) -> None:
        path = directory / "writer.lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write in the run directory {str(directory)!r}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageError(
                f"{str(directory)!r} is in use by process {owner}: wait for it to end, or choose another run directory"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, str(os.getpid()).encode())

    def close(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
