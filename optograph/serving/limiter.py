"""How many calls are in flight: a limit that follows what the server can take."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from optograph.errors import UserError

_CEILING_CARE = 8.0
"""How much slower the limit grows where the server refused the last time."""

_SLOW = 4.0
"""A mean latency of so many times the lowest one seen is worth an experiment."""

_CUT = 0.8
_LOSS = 0.95


@dataclass(slots=True)
class Place:
    """What a call in flight must remember of the moment when it was sent."""

    sent: float
    epoch: int
    limit: int
    others: int


class Limiter:
    """Lets at most `limit` calls through at once, first come, first served; used on one event loop only.

    The limit is additively increased and multiplicatively decreased (Chiu and Jain, 1989) between 1 and `most`: a
    refusal (429 or 503) halves what was in flight, at most once a round trip; answers raise it by one per round trip
    while it is used to the full. Where the mean latency is far above the lowest one seen, a fifth less is tried, and
    kept if the throughput does not fall. What the limit is changes how long a run takes, never what it gives.

    Args:
        most: Upper bound, at least 1; the limit starts there.
        adaptive: Whether the limit follows the server; otherwise it stays.
        clock: Seconds that never run backwards.

    Attributes:
        in_flight: Calls in flight.
        refusals: Refusals seen.
        cuts: How often the limit was lowered.
        congested: Set from outside while the server tells that requests wait in it; the limit does not grow then.
    """

    def __init__(self, most: int, *, adaptive: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        if most < 1:
            raise UserError(f"a limit is at least 1, got {most!r}")
        self.most = most
        self.adaptive = adaptive
        self.in_flight = 0
        self.refusals = 0
        self.cuts = 0
        self.congested = False
        self._clock = clock
        self._level = float(most)
        self._ceiling = math.inf
        self._epoch = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._watch = _LatencyWatch()

    @property
    def limit(self) -> int:
        """Most calls in flight at once, as of now."""
        return int(self._level)

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting)

    async def acquire(self, *, front: bool = False) -> None:
        """Wait for a place.

        Args:
            front: Whether to go before those who wait (for a call that had a place already).
        """
        if self.in_flight + 1 <= self._level and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if front:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        if self._waiting:
            self._admit()

    def sent(self) -> Place:
        """Note that an attempt is sent now."""
        return Place(self._clock(), self._epoch, int(self._level), self.in_flight - 1)

    def succeeded(self, place: Place) -> None:
        """Report that an attempt was answered."""
        if not self.adaptive:
            return
        now = self._clock()
        full = place.others + 1 >= place.limit
        level = self._watch.note(now, now - place.sent, self._level, full=full)
        if level != self._level:
            self._set(level)
        elif full and place.epoch == self._epoch and self._level < self.most and not self._held_back:
            step = 1.0 / self._level
            if self._level >= self._ceiling + 1:
                self._ceiling = math.inf  # the server takes more than it did
            elif int(self._level) + 1 >= self._ceiling:
                step /= _CEILING_CARE
            self._set(min(float(self.most), self._level + step))

    def refused(self, place: Place) -> bool:
        """Report that the server wants fewer requests.

        Returns:
            Whether the limit has fallen since the attempt was sent beside others: the next one has better chances.
        """
        self.refusals += 1
        if not self.adaptive:
            return False
        if place.epoch == self._epoch:
            running = min(int(self._level), place.others + 1)
            self._ceiling = running
            self._epoch += 1
            self._watch.restart()
            self._set(max(1.0, float(running // 2)))
        return place.others > 0 and int(self._level) < place.limit

    @property
    def _held_back(self) -> bool:
        return self.congested or self._watch.slow

    def _set(self, level: float) -> None:
        if level < self._level:
            self.cuts += 1
        self._level = level
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight + 1 <= self._level:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)


class _LatencyWatch:
    """Finds out whether fewer calls at once would serve as well: looks at windows, and tries.

    Attributes:
        slow: Whether the last window's mean latency was far above the lowest latency seen.
    """

    def __init__(self) -> None:
        self.slow = False
        self._floor = math.inf
        self._tolerance = _SLOW
        self._before: tuple[float, float] | None = None
        self._started: float | None = None
        self.restart()

    def restart(self) -> None:
        """Begin a new window and forget an experiment under way."""
        self._before = None
        self._begin()

    def _begin(self, now: float | None = None) -> None:
        self._started = now
        self._count = 0
        self._total = 0.0
        self._full = True

    def note(self, now: float, latency: float, level: float, *, full: bool) -> float:
        """Take in one answer and return the level to go on with."""
        if latency < self._floor:
            self._floor = latency
        if self._started is None:
            self._started = now
            return level
        self._count += 1
        self._total += latency
        self._full = self._full and full
        if self._count < max(16.0, 2 * level):
            return level
        mean = self._total / self._count
        rate = self._count / max(now - self._started, 1e-9)
        full = self._full
        self._begin(now)
        return self._judge(mean, rate, level, full=full)

    def _judge(self, mean: float, rate: float, level: float, *, full: bool) -> float:
        self.slow = mean > self._tolerance * self._floor
        if not full:  # the calls came too slowly for the limit to matter
            self._before = None
            return level
        if self._before is not None:
            old_level, old_rate = self._before
            self._before = None
            if rate < _LOSS * old_rate:
                self._tolerance *= 2  # it was not the limit that made it slow
                self.slow = False
                return old_level
        if self.slow and level > 1:
            self._before = (level, rate)
            return max(1.0, _CUT * level)
        return level
