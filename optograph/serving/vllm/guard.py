"""A program that runs another one and ends it, with all that it started, as soon as whoever wanted it is gone.

``python -I guard.py OWNER GRACE COMMAND...``: OWNER is the process id of whoever starts it and holds its standard input
open; GRACE is the number of seconds between SIGTERM and SIGKILL. It prints the command's process id. It ends the
command when its input ends, when OWNER is no longer its parent (a kill -9 of OWNER does both), or on SIGTERM; where
this program itself is killed, the kernel sends the command SIGTERM.

It imports the standard library alone, as it runs without the package. The kernel's signal at a parent's death would
not do by itself: it comes at the death of the *thread* that started the process, and only to the process itself,
while vLLM's engine is a process below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOK_EVERY_S = 0.25
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(owner: int, grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or nobody wants it; return its exit code (negative: minus the signal)."""
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_end.append(number))
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the command leaves behind becomes a child of ours
    own = os.getpid()

    def before_it_starts() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != own:
                os._exit(1)

    # one thread only, so that preexec_fn is safe and the signal at a parent's death means this process
    child = subprocess.Popen(  # noqa: S603 - what our own process asks for; no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
        preexec_fn=before_it_starts,
    )
    print(child.pid, flush=True)  # noqa: T201 - read by whoever started us
    while not asked_to_end and os.getppid() == owner and not _reaped(child):
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY_S)
        if readable and not os.read(0, 4096):
            break
    _end(child, grace_s)
    return child.returncode or 0


def _reaped(child: subprocess.Popen[bytes]) -> bool:
    """Take in whatever ended among our children, the adopted ones too; tell whether the command is one of them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode is not None


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask the command to end, wait, then kill its group and everything else below us."""
    until = time.monotonic() + grace_s
    if not _reaped(child):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
    while not (_reaped(child) and not _below(os.getpid())) and time.monotonic() < until:
        time.sleep(0.02)
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        left = _below(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if _reaped(child) and not left:
            return
        time.sleep(0.02)


def _below(root: int) -> list[int]:
    """List the live processes that descend from one; none where the kernel does not tell."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if state != "Z":
            parents[int(entry.name)] = int(parent)
    found: list[int] = []
    wanted = {root}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found += wanted
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]) & 0xFF)
