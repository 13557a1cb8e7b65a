"""One ledger for all calls of a run: reserved before a call, settled after it, never overdrawn."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from optograph.errors import BudgetExceeded, UserError
from optograph.serving.types import Request, Usage

@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What a run may use; None means no limit.

    Attributes:
        calls: Model calls that are paid for (answers from the journal are free).
        tokens: Tokens read and written.
        minutes: Wall-clock minutes.
    """

    calls: int | None = None
    tokens: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("calls", "tokens", "minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"budget.{name} must be above 0, not {value!r}; leave it out for no limit")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call has put aside."""

    tokens: int


class Budget:
    """Counts what is spent and what is reserved; safe from any thread."""

    def __init__(self, limits: BudgetLimits | None = None, *, calls: int = 0, tokens: int = 0) -> None:
        self.limits = limits or BudgetLimits()
        self.calls = calls
        self.tokens = tokens
        self._reserved_calls = 0
        self._reserved_tokens = 0
        self._started = time.monotonic()
        self._mutex = threading.Lock()

    def reserve(self, request: Request) -> Reservation:
        """Put aside what the call may use at most.

        Raises:
            BudgetExceeded: The call could pass a limit.
        """
        # No token is shorter than a byte; chat templates add a few tokens a message.
        prompt = len(request.text.encode("utf-8", "replace")) + 16 * (1 + len(request.messages))
        tokens = prompt + request.max_tokens * request.n
        with self._mutex:
            self._check("calls", self.calls + self._reserved_calls + 1, self.limits.calls)
            self._check("tokens", self.tokens + self._reserved_tokens + tokens, self.limits.tokens)
            if self.limits.minutes is not None:
                self._check("minutes", (time.monotonic() - self._started) / 60, self.limits.minutes)
            self._reserved_calls += 1
            self._reserved_tokens += tokens
        return Reservation(tokens)

    def settle(self, reservation: Reservation, usage: Usage | None) -> None:
        """Replace a reservation by what was used; None where the call failed (the attempt still counts)."""
        with self._mutex:
            self._reserved_calls -= 1
            self._reserved_tokens -= reservation.tokens
            self.calls += 1
            self.tokens += usage.total_tokens if usage is not None else 0

    @staticmethod
    def _check(what: str, wanted: float, limit: float | None) -> None:
        if limit is not None and wanted > limit:
            raise BudgetExceeded(f"the budget of {limit:g} {what} is spent")
