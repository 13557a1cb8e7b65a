"""A circuit breaker: while an endpoint is down, one call at a time tries it and the others wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from optograph.errors import ServingError, UserError

BREAKING = frozenset({"connection", "server", "timeout"})
"""Kinds of `ServingError` that speak of the endpoint, and not of the request."""

_WITNESSES = 3
"""Different requests that must have failed: one that always kills its server's answer must not stop all others."""

State = Literal["closed", "open", "half-open", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When an endpoint counts as down.

    Attributes:
        failures: Failures in a row, of at least three different requests, that open the breaker. Where not even a
            connection could be made, one request is enough. Answers of status 429 never count.
        probe_s: Wait before the first probe in seconds; it doubles with every further one.
        probe_cap_s: Longest wait between two probes in seconds.
        give_up_s: Length of an outage in seconds after which waiting calls fail with kind ``"down"``.
        first_answer_s: The same for an endpoint that has never answered: usually a wrong URL.
    """

    failures: int = 5
    probe_s: float = 0.5
    probe_cap_s: float = 10.0
    give_up_s: float = 120.0
    first_answer_s: float = 15.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise UserError(f"failures is at least 1, got {self!r}")
        if not all(one > 0 for one in (self.probe_s, self.probe_cap_s, self.give_up_s, self.first_answer_s)):
            raise UserError(f"times are above 0 seconds, got {self!r}")


class CircuitBreaker:
    """The state of one endpoint's breaker; used on one event loop only.

    A call asks `enter` before each attempt and reports what came of it. While the breaker is open, callers wait in
    order, and one of them at a time is let through as a probe; an answer closes the breaker for all.

    Args:
        options: When it opens and gives up.
        name: What is down, for messages.
        clock: Seconds that never run backwards.

    Attributes:
        opened: How often it has opened.
        probes: How many probes were let through.
        waited: How many attempts had to wait.
    """

    def __init__(self, options: Breaker, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self.name = name
        self.opened = 0
        self.probes = 0
        self.waited = 0
        self.closed = True
        self._clock = clock
        self._streak = 0
        self._witnesses: set[int] = set()
        self._since = 0.0
        self._answered = False
        self._down = False
        self._probing = False
        self._next_probe = 0.0
        self._interval = 0.0
        self._last: ServingError | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        """``"closed"`` (all is well), ``"open"``, ``"half-open"`` (a probe is under way) or ``"down"`` (given up)."""
        if self.closed:
            return "closed"
        if self._probing:
            return "half-open"
        return "down" if self._down else "open"

    @property
    def probe_limit_s(self) -> float:
        """How long a probe may take, in seconds, before it counts as failed."""
        return max(self.options.probe_cap_s, self._since + self._patience - self._clock())

    @property
    def _patience(self) -> float:
        given = self.options.give_up_s
        return given if self._answered else min(given, self.options.first_answer_s)

    async def enter(self) -> bool:
        """Wait until an attempt may be made.

        Returns:
            Whether this attempt is a probe; the caller must then report it by `succeeded`, `failed` or `abandoned`.

        Raises:
            ServingError: Of kind ``"down"`` when the outage has lasted too long.
        """
        asked = False
        while not self.closed:
            self.waited += not asked
            asked = True
            if not self._probing and self._clock() >= self._next_probe:
                self._probing = True
                self.probes += 1
                return True
            if self._down:
                raise self._error()
            await self._turn()
        return False

    def succeeded(self) -> None:
        """Report that the endpoint answered, in whatever way."""
        if self._streak:
            self._streak = 0
            self._witnesses.clear()
        self._answered = True
        if not self.closed:
            self.closed, self._down, self._probing = True, False, False
            self._stop_timer()
            waiting, self._waiting = self._waiting, deque()
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def failed(self, error: ServingError, witness: int, *, probe: bool) -> bool:
        """Report a failure.

        Args:
            error: The failure.
            witness: Hash of the request.
            probe: What `enter` gave.

        Returns:
            Whether the breaker is open now, so that the attempt says nothing about the request.

        Raises:
            ServingError: Of kind ``"down"`` when the outage has lasted too long.
        """
        if error.kind not in BREAKING:
            self.succeeded()
            return False
        self._last = error
        now = self._clock()
        self._streak += 1
        self._witnesses.add(witness)
        if self.closed:
            unreachable = not getattr(error, "reached", True)
            if self._streak < self.options.failures or not (unreachable or len(self._witnesses) >= _WITNESSES):
                return False
            self._open(now)
        elif probe:
            self._probing = False
            self._interval = min(self.options.probe_cap_s, 2 * self._interval)
            self._next_probe = now + self._interval
            if now - self._since >= self._patience:
                self._give_up()
            self._set_timer()
        if self._down:
            raise self._error() from error
        return True

    def abandoned(self) -> None:
        """Report that a probe was cancelled before it came to anything."""
        if self._probing:
            self._probing = False
            self._set_timer()

    def _open(self, now: float) -> None:
        self.closed, self._down, self._probing = False, False, False
        self.opened += 1
        self._since = now
        self._interval = self.options.probe_s
        self._next_probe = now + self._interval

    def _give_up(self) -> None:
        self._down = True
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done():
                one.set_result(None)  # each finds out for itself, in `enter`

    def _error(self) -> ServingError:
        return ServingError(
            f"model {self.name!r} has been down for {self._clock() - self._since:.0f} s "
            f"({self._streak} failures, {self.probes} probes); the last failure: {self._last}",
            kind="down",
        )

    async def _turn(self) -> None:
        """Wait for the next probe, or for the end of the outage."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._set_timer()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._set_timer()  # the turn goes to another one
            raise

    def _set_timer(self) -> None:
        if self._timer is None and not self._probing and self._waiting:
            wait = max(0.0, self._next_probe - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._probing or self.closed:
            return
        if self._clock() < self._next_probe:
            self._set_timer()
            return
        while self._waiting:
            one = self._waiting.popleft()
            if not one.done():
                one.set_result(None)
                return
