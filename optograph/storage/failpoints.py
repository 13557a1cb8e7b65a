"""Named points at which a test can have the process killed, to show that a run survives it."""

from __future__ import annotations

import os
import signal

from optograph.errors import UserError

FAILPOINTS = (
    "journal.begin",
    "journal.statement",
    "journal.commit",
    "journal.committed",
    "journal.checkpoint",
    "journal.close",
    "result.write",
    "result.rename",
)
"""All names: before a transaction, between two statements of it, before its COMMIT, after it and before anybody is
told, at a checkpoint, at the close of the journal; before a result file is written, and before it gets its name."""

VARIABLE = "OPTOGRAPH_FAILPOINT"
"""Environment variable ``NAME:HIT``: the process kills itself when it passes NAME for the HIT-th time (from 1)."""


class _Armed:
    """The one point at which this process dies."""

    def __init__(self, setting: str) -> None:
        name, _, hit = setting.partition(":")
        if name not in FAILPOINTS or not (hit or "1").isdigit() or int(hit or 1) < 1:
            raise UserError(f"{VARIABLE} must be NAME:HIT with NAME one of {FAILPOINTS!r}, not {setting!r}")
        self.name = name
        self.left = int(hit or 1)

    def passing(self, name: str) -> None:
        """Count the pass, and die at the last one."""
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def failpoint(name: str) -> None:
    """Mark a point of the program; the process ends here where the environment asks for it.

    Args:
        name: One of ``FAILPOINTS``.
    """
    if _armed is not None:
        _armed.passing(name)
