"""Who a child becomes: a user that nobody else is, where the zygote may choose."""

from __future__ import annotations

import os
from pathlib import Path

_NEEDED = (0, 1, 5, 6, 7)  # chown, dac_override, kill, setgid, setuid
_FIRST, _EACH = 0x60000000, 0x1000
_NARROW = 60000


def first_user() -> int | None:
    """Return the first of 4,096 user numbers that this zygote may give to its children, or None.

    Only root with the usual capabilities may; where just the first 65,536 users exist (a container), the numbers
    are taken from the top of those.
    """
    if os.geteuid() != 0 or not _capable():
        return None
    last = 0
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        inside, _, count = (int(part) for part in line.split())
        last = max(last, inside + count - 1)
    wide = _FIRST + os.getpid() % 0x10000 * _EACH
    if last >= wide + _EACH:
        return wide
    return _NARROW if last >= _NARROW + _EACH else None


def user_of(first: int | None, number: int) -> int | None:
    """Return the user of the child with this number."""
    return None if first is None else first + number % _EACH


def threads_of_this_user() -> int:
    """Return how many threads this process's user has on the machine: the kernel's limit counts them all."""
    user, count = os.getuid(), 0
    for process in os.scandir("/proc"):
        if process.name.isdigit():
            try:
                if process.stat().st_uid == user:
                    count += len(os.listdir(f"{process.path}/task"))  # noqa: PTH208
            except OSError:
                continue  # gone since
    return count


def _capable() -> bool:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return all(held >> number & 1 for number in _NEEDED)
    return False
