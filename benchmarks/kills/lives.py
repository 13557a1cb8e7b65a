"""The lives of a run: real processes of ``optograph``, started afresh or forked from a process that has imported it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from optograph.storage.failpoints import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
MOST_S = 120.0
"""A life that lasts longer hangs."""


class Life:
    """One process, from its start to its end.

    Args:
        pid: Of the process.
        log: What it prints.
        reap: Waits for the process and gives its status as ``os.waitpid`` does.
    """

    def __init__(self, pid: int, log: Path, reap: Reap) -> None:
        self.pid = pid
        self.log = log
        self.started = time.monotonic()
        self._reap = reap
        self._watch = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._watch, select.POLLIN)

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether the process has ended, after waiting for that at most ``within_s`` seconds."""
        return bool(self._poll.poll(max(0.0, within_s) * 1000))

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def kill(self) -> None:
        """Send SIGKILL; a process that has just ended takes no harm."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watch, signal.SIGKILL)

    def status(self) -> int:
        """Wait for the end; the exit status, or minus the number of the signal that ended it."""
        if not self.ended(MOST_S):
            self.kill()
        status = self._reap(self.pid)
        os.close(self._watch)
        return os.waitstatus_to_exitcode(status)

    def said(self, most: int = 2000) -> str:
        """Return the end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-most:]


class Reap:
    """Collects the status of a child of this process."""

    def __call__(self, pid: int) -> int:
        """Wait for the child and return its status."""
        return os.waitpid(pid, 0)[1]


def start_fresh(command: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> Life:
    """Start a new process that imports everything itself."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment() | dict(env or {})
        )
    process.returncode = 0  # `Life` collects the status: Popen must not
    return Life(process.pid, log, Reap())


def environment() -> dict[str, str]:
    """Return the environment of a life: this process's, with this project first and no failpoint armed."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return env | {"PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "100"}


class Nursery(Reap):
    """A process that has imported ``optograph`` and its heavy parts, has one thread, and forks a child for each life.

    A child is what a fresh process is after its imports: it has a pid, files, threads and a loop of its own, since the
    parent has opened and started none. What it does not have is an own seed of Python's hashes.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kills.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def start(self, arguments: Sequence[str], cwd: Path, log: Path) -> Life:
        """Fork a life that runs the command line with these arguments."""
        answer = self._ask({"arguments": list(arguments), "cwd": str(cwd), "log": str(log)})
        return Life(answer, log, self)

    def __call__(self, pid: int) -> int:
        """Have the parent wait for the child and tell its status."""
        return self._ask({"reap": pid})

    def _ask(self, question: Mapping[str, object]) -> int:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the nursery has no pipes")
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the nursery has ended")
        return int(answer)
