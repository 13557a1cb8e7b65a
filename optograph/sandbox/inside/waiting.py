"""Waits for the other side awake for a moment, since falling asleep and being woken takes longer than a small call."""

from __future__ import annotations

import os
import select
import time

_AWAKE_SECONDS = 50e-6


def soon(poll: select.poll) -> bool:
    """Return whether a descriptor becomes ready within 50 µs; others who are due on this processor go first."""
    if poll.poll(0):
        return True
    until = time.perf_counter() + _AWAKE_SECONDS
    while time.perf_counter() < until:
        os.sched_yield()
        if poll.poll(0):
            return True
    return False
