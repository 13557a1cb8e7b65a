"""Workers for the same code: one for each call at once, up to a limit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optograph.sandbox.worker import Reply, Worker


class WorkerGroup:
    """Answers calls of one function from many threads at once. Its processes end when nobody holds it any more.

    Args:
        make: Makes a worker.
        most: Most workers; the machine's processors where None.
    """

    def __init__(self, make: Callable[[], Worker], most: int | None = None) -> None:
        self._make = make
        self._most = most or os.cpu_count() or 1
        self._workers = [make()]
        self._lock = threading.Lock()
        self._turn = 0

    def ask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Reply:
        """Call the function in a worker that is free, or wait for one; see `Worker.call`."""
        for worker in tuple(self._workers):
            reply = worker.try_ask(args, kwargs)
            if reply is not None:
                return reply
        with self._lock:
            if len(self._workers) < self._most:
                self._workers.append(self._make())
                chosen = self._workers[-1]
            else:
                self._turn += 1
                chosen = self._workers[self._turn % len(self._workers)]
        return chosen.ask(args, kwargs)

    def close(self) -> None:
        """End the processes; a later call would start others."""
        for worker in tuple(self._workers):
            worker.close()
