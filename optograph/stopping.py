"""Ending a run on request: a stop file in the run directory, or the first Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from optograph.errors import RunStopped

STOP_FILE = "STOP"
_LOOK_EVERY_S = 0.1


class StopRequest:
    """Whether a run should end; nothing new is begun once it says so, and what is in flight is finished and kept.

    Args:
        directory: Run directory that is watched for a file named ``STOP``; None watches nothing.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.file = None if directory is None else directory / STOP_FILE
        self._reason: str | None = None
        self._interrupted = False
        self._next_look = 0.0

    def set(self, reason: str, *, interrupted: bool = False) -> None:
        """Ask the run to end."""
        self._reason = self._reason or reason
        self._interrupted = self._interrupted or interrupted

    @property
    def wanted(self) -> bool:
        """Whether the run should end."""
        if self._reason is None and self.file is not None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_EVERY_S
            if self.file.exists():
                self.set(f"the stop file {str(self.file)!r} is there")
        return self._reason is not None

    def check(self) -> None:
        """Go on, or raise.

        Raises:
            RunStopped: The run should end.
        """
        if self.wanted:
            raise RunStopped(f"the run was stopped: {self._reason}", interrupted=self._interrupted)


@contextmanager
def stopping_on_signals(stop: StopRequest, told: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run cleanly, and the second one at once (``KeyboardInterrupt``).

    Only the main thread can take signals; elsewhere this does nothing.

    Args:
        stop: What is set.
        told: Called at the first signal, to tell people.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.set(f"{signal.Signals(number).name} was received", interrupted=True)
        told()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
