"""A server process that cannot outlive us: started under a guard, watched through its log, ended with all below it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from optograph.secrets import scrub
from optograph.serving.vllm import guard

_READ_AT_MOST = 256 * 1024
_AFTER_GRACE_S = 10.0


class GuardedProcess:
    """A command under `guard`: it ends when it is stopped, when this object goes, and when this process dies.

    Args:
        command: Program and arguments.
        environment: The whole environment of the command.
        log: File to which its output is appended.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Attributes:
        pid: Process id of the command.

    Raises:
        OSError: It cannot be started, or the log cannot be written.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, grace_s: float = 5.0
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self._start = file.tell()
            self._guard = subprocess.Popen(  # noqa: S603 - our own program; no shell
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=dict(environment),
                start_new_session=True,  # a Ctrl-C at the terminal is for us; we end the command in our own time
            )
        self._finalizer = weakref.finalize(self, _stop, self._guard, grace_s)
        assert self._guard.stdout is not None  # noqa: S101 - a pipe was asked for
        line = self._guard.stdout.readline()
        if not line.strip():
            self.stop()
            raise OSError(f"{command[0]!r} cannot be started: {self.tail(5) or 'it said nothing'}")
        self.pid = int(line)

    def poll(self) -> int | None:
        """Return the exit code if the command has ended, else None."""
        return self._guard.poll()

    def stop(self) -> None:
        """End the command and everything that it started, and wait until they are gone; may be called again."""
        self._finalizer()

    def tail(self, lines: int = 30) -> str:
        """Return the last lines of what the command said, without secrets."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._start, size - _READ_AT_MOST))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return scrub("\n".join([line.rstrip() for line in said.splitlines() if line.strip()][-lines:]))


def _stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(grace_s + _AFTER_GRACE_S)
    except subprocess.TimeoutExpired:  # a guard that hangs: the kernel then ends the command
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
