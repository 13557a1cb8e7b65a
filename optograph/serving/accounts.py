"""Accounts of a budget: what one role or the whole run may use, has used, has reserved, and keeps for later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optograph.errors import BudgetExceeded
from optograph.serving.limits import RoleLimits, Spend
from optograph.serving.prices import to_pico, to_usd

Amount = tuple[int, int, int]
"""Calls, tokens, picodollars."""
NOTHING: Amount = (0, 0, 0)
_UNITS = ("calls", "tokens", "usd")
_WORDS = ("calls", "tokens", "US dollars")


def plus(one: Amount, other: Amount) -> Amount:
    """Add amounts."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def minus(one: Amount, other: Amount) -> Amount:
    """Subtract an amount."""
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]


def larger(one: Amount, other: Amount) -> Amount:
    """Return the larger number of each unit."""
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


@dataclass(slots=True)
class Account:
    """What one role, or the whole run, may use and has used.

    Attributes:
        role: Who pays; empty for the whole run.
        limits: What may be used.
        parts: The roles' accounts, for the whole run's.
        used: What was used.
        reserved: What the calls in flight can use at most.
        held: What the final test will need.
        largest: The most that a single call has reserved.
        completion_tokens: Tokens written, of the used ones.
        unpriced: Whether some of it was used at a price that is not known.
    """

    role: str
    limits: RoleLimits
    parts: Mapping[str, Account] | None = None
    used: Amount = NOTHING
    reserved: Amount = NOTHING
    held: Amount = NOTHING
    largest: Amount = NOTHING
    completion_tokens: int = 0
    unpriced: bool = False
    ceilings: tuple[int | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.limit(self.limits)

    def limit(self, limits: RoleLimits) -> None:
        """Set other limits."""
        self.limits = limits
        self.ceilings = (limits.calls, limits.tokens, None if limits.usd is None else to_pico(limits.usd))

    @property
    def kept(self) -> Amount:
        """What the final test needs, with room for the reservation of one call, since that is more than its use."""
        if self.parts is not None:
            kept = NOTHING
            for part in self.parts.values():
                kept = plus(kept, part.kept)
            return kept
        calls, tokens, pico = self.held
        return calls, tokens + self.largest[1] if tokens else 0, pico + self.largest[2] if pico else 0

    def blocked(self, wanted: Amount) -> Blocked | None:
        """Tell what stands in the way of using so much more, or None."""
        kept = self.kept
        found: Blocked | None = None
        for unit, ceiling in enumerate(self.ceilings):
            if ceiling is None:
                continue
            lasting = self.used[unit] + kept[unit] + wanted[unit]
            if lasting > ceiling:
                return Blocked(self, unit, wanted[unit], passes=False)
            if lasting + self.reserved[unit] > ceiling:
                found = Blocked(self, unit, wanted[unit], passes=True)
        return found

    def room(self) -> tuple[int | None, ...]:
        """Return what is left of each unit beside what is used, reserved and kept; None where there is no limit."""
        kept = self.kept
        return tuple(
            None if ceiling is None else max(0, ceiling - self.used[unit] - self.reserved[unit] - kept[unit])
            for unit, ceiling in enumerate(self.ceilings)
        )

    def spend(self) -> Spend:
        """Return what was used."""
        calls, tokens, pico = self.used
        usd = None if self.unpriced else to_usd(pico)
        return Spend(calls, tokens - self.completion_tokens, self.completion_tokens, usd)


@dataclass(frozen=True, slots=True)
class Blocked:
    """A limit that a call does not fit into.

    Attributes:
        account: Whose limit.
        unit: 0 for calls, 1 for tokens, 2 for money.
        wanted: How much more was asked for.
        passes: Whether the calls in flight alone stand in the way.
    """

    account: Account
    unit: int
    wanted: int
    passes: bool

    @property
    def key(self) -> str:
        """The key of the limit in a job file."""
        return ".".join(part for part in ("budget", self.account.role, _UNITS[self.unit]) if part)

    def write(self, amount: Amount) -> str:
        """Write this unit of an amount, such as ``"20 calls"``."""
        return f"{self._number(amount[self.unit])} {_WORDS[self.unit]}"

    def state(self) -> str:
        """Say what the limit is, and what of it is used, reserved and kept."""
        account, unit = self.account, self.unit
        whose = f"the {account.role} role's budget" if account.role else "the budget"
        parts = [f"{self._number(account.used[unit])} used"]
        if account.reserved[unit]:
            parts.append(f"{self._number(account.reserved[unit])} reserved by calls in flight")
        if account.kept[unit] and self.wanted:
            parts.append(f"{self._number(account.kept[unit])} kept for the final test")
        if self.wanted:
            parts.append(f"{self._number(self.wanted)} more wanted")
        limit = f"{self._number(account.ceilings[unit] or 0)} {_WORDS[unit]}"
        return f"{whose} of {limit} does not cover {'another call' if self.wanted else 'that'}: {', '.join(parts)}"

    def error(self) -> BudgetExceeded:
        """Return the error that says so."""
        return BudgetExceeded(f"{self.state()}; raise {self.key} to go on")

    def _number(self, number: int) -> str:
        return f"{to_usd(number):.6g}" if self.unit == 2 else str(number)
