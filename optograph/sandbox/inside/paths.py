"""Which folders sandboxed code may read, and how it reaches them when it is another user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"),
)
"""What programs need to read: shared libraries, time zones, random numbers. No settings, no names of users."""


def open_to_all(path: str) -> bool:
    """Return whether every user may read a folder and reach it."""
    real = Path(path).resolve()
    inner = real.stat().st_mode
    return inner & 0o5 == 0o5 and all(folder.stat().st_mode & 0o1 for folder in real.parents)


def make_reachable(folders: Iterable[str]) -> list[int]:
    """Let the import path lead to folders that another user could not reach, through descriptors opened now.

    Folders below a home folder that is closed to others are replaced by ``/proc/self/fd/N``: whoever holds the
    descriptor reaches them, and nothing beside them.

    Args:
        folders: The folders on the import path that must stay reachable.

    Returns:
        The descriptors, which must stay open.
    """
    held: list[int] = []
    for folder in folders:
        if not Path(folder).is_dir() or open_to_all(folder):
            continue
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        os.set_inheritable(descriptor, True)
        held.append(descriptor)
        _replace(folder, f"/proc/self/fd/{descriptor}")
    sys.path_importer_cache.clear()
    return held


def _replace(old: str, new: str) -> None:
    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path

    sys.path[:] = [moved(path) for path in sys.path]
    for module in list(sys.modules.values()):
        inner = getattr(module, "__path__", None)
        if isinstance(inner, list):
            inner[:] = [moved(path) for path in inner]


def open_readable(paths: Iterable[str]) -> tuple[int, ...]:
    """Return descriptors of the files and folders that exist, for Landlock's rules."""
    found = []
    for path in dict.fromkeys(paths):
        try:
            found.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        except OSError:
            continue  # not on this system
    return tuple(found)
