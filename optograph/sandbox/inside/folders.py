"""The children's folders: how much they hold, and their removal, whatever a child did in them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def usage(folder: str, entries: int) -> tuple[int, int]:
    """Return the bytes on disk and the number of entries below a folder.

    Args:
        folder: The folder.
        entries: Where to stop counting.

    Raises:
        OSError: Something in it cannot be looked at, such as a path that is too long.
    """
    held = seen = 0
    left = [folder]
    while left and seen <= entries:
        for entry in _entries(left.pop()):
            seen += 1
            with contextlib.suppress(FileNotFoundError):  # gone since
                status = entry.stat(follow_symlinks=False)
                held += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    left.append(entry.path)
    return held, seen


def remove(folder: str) -> None:
    """Remove a folder and all that it holds, however deep; nothing is followed out of it.

    Each folder is moved to the top before it is emptied, so that no path grows too long.

    Args:
        folder: The folder; it may be gone already. Nobody may be at work in it.

    Raises:
        OSError: Something in it cannot be removed.
    """
    if not os.path.lexists(folder):
        return
    top = Path(f"{folder}.removed")
    top.mkdir(0o700, exist_ok=True)
    count = 0
    pending = [folder]
    while pending:
        inner = top / str(count)
        count += 1
        moved = pending.pop()
        Path(moved).chmod(0o700)  # its maker may have closed it
        Path(moved).rename(inner)
        folders = []
        for entry in _entries(str(inner)):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                Path(entry.path).unlink()
        for path in folders:
            lifted = top / f"{count}.lifted"
            count += 1
            Path(path).chmod(0o700)
            Path(path).rename(lifted)
            pending.append(str(lifted))
        inner.rmdir()
    top.rmdir()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        Path(folder).chmod(0o700)
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
