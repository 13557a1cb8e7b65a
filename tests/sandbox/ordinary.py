"""Runs a command as an ordinary user, where the tests run as root: ``python ordinary.py COMMAND...``."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

USER = 65533
REFUSED = 77
_NEW_MOUNTS, _PRIVATE, _BIND = 0x20000, 0x44000, 0x5000


def _closed(path: Path) -> Path | None:
    """Return the first folder on the way to a path that other users cannot pass."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o1:
            return folder
    return None


def open_the_way(paths: list[Path]) -> None:
    """Make paths reachable for every user, in mounts that only this process and its children see.

    Raises:
        OSError: This system does not let root mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    hidden = {path: closed for path in paths if (closed := _closed(path)) is not None}
    checked(libc.unshare(_NEW_MOUNTS))
    held = {path: os.open(path, os.O_PATH) for path in hidden}  # from now on: no mount of other mounts can be bound
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE), None))
    for closed in set(hidden.values()):
        checked(libc.mount(b"tmpfs", os.fsencode(closed), b"tmpfs", ctypes.c_ulong(0), b"mode=0755"))
    for path, descriptor in held.items():
        path.mkdir(parents=True)
        source = f"/proc/self/fd/{descriptor}".encode()
        checked(libc.mount(source, os.fsencode(path), None, ctypes.c_ulong(_BIND), None))
        os.close(descriptor)


def main() -> None:
    """Become an ordinary user and run the command."""
    base, prefix = Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()
    try:
        open_the_way(list(dict.fromkeys((base, prefix, Path.cwd()))))
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    except OSError as error:
        print(f"cannot become an ordinary user: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    os.environ["HOME"] = "/nonexistent"
    os.execv(sys.executable, [sys.executable, "-B", *sys.argv[1:]])


if __name__ == "__main__":
    main()
