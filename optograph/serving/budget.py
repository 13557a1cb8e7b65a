"""One ledger for all calls of a run: reserved before a call, settled after it, never overdrawn."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from optograph.errors import BudgetExceeded, UserError
from optograph.serving.accounts import NOTHING, Account, Amount, Blocked, larger, minus, plus
from optograph.serving.bounds import prompt_bound
from optograph.serving.limits import BudgetLimits, Need, Remaining, RoleLimits, Spend
from optograph.serving.prices import PriceTable, to_pico, to_usd
from optograph.serving.types import Request, Usage
from optograph.serving.waking import wake

_log = logging.getLogger(__name__)
_EMPTY = Account("", RoleLimits())


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """What one call has put aside.

    Attributes:
        role: Who pays.
        model: Model string of who is asked.
        prompt_tokens: Most tokens that the call can read.
        completion_tokens: Most tokens that it can write.
        amount: Calls, tokens and picodollars.
    """

    role: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    amount: Amount

    @property
    def tokens(self) -> int:
        """Most tokens that the call can read and write."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def usd(self) -> float:
        """Most US dollars that the call can cost; 0 where the price is not known."""
        return to_usd(self.amount[2])


class Budget:
    """Counts what is spent and what is reserved; safe from any thread and any event loop.

    A call reserves the most that it can use, and what it has used replaces that when it ends; so no limit is passed,
    however many calls are in flight. The final test belongs to the same ledger: what it will need is put aside by
    `hold`. Time cannot be reserved: a call that began within ``minutes`` may end after it. Where a process is
    killed, what its calls in flight cost is not known to anyone, and is not counted.

    Args:
        limits: What may be used; no limits by default.
        prices: What tokens cost.
        active_s: Gives the seconds that the run has been active, over all restarts; since now by default.
    """

    def __init__(
        self,
        limits: BudgetLimits | None = None,
        *,
        prices: PriceTable | None = None,
        active_s: Callable[[], float] | None = None,
    ) -> None:
        started = time.monotonic()
        self._prices = prices or PriceTable()
        self.active_s = active_s or (lambda: time.monotonic() - started)
        self._mutex = threading.Lock()
        self._limits = limits or BudgetLimits()
        self._tally: dict[tuple[str, str], Usage] = {}
        self._roles: dict[str, Account] = {}
        self._total = Account("", RoleLimits(), self._roles)
        self._open: set[Reservation] = set()
        self._needs: tuple[Need, ...] = ()
        self._held_s = 0.0
        self._waiting: set[asyncio.Future[None]] = set()
        self._above: dict[str, int] = {}
        self._overruns = 0
        self.limits = self._limits

    @property
    def limits(self) -> BudgetLimits:
        """What may be used; may be set while the run goes on."""
        return self._limits

    @limits.setter
    def limits(self, limits: BudgetLimits) -> None:
        with self._mutex:
            self._limits = limits
            self._total.limit(RoleLimits(limits.calls, limits.tokens, limits.usd))
            for role in {*self._roles, *limits.roles}:
                self._account(role).limit(limits.roles.get(role, RoleLimits()))
            waiting = self._take_waiting()
        wake(waiting)

    @property
    def prices(self) -> PriceTable:
        """What tokens cost; where it is set anew, what was spent before is counted by the new prices too."""
        return self._prices

    @prices.setter
    def prices(self, prices: PriceTable) -> None:
        with self._mutex:
            self._prices = prices
            for account in (self._total, *self._roles.values()):
                account.used = (*account.used[:2], 0)
                account.unpriced = False
            for (role, model), used in self._tally.items():
                amount = self._amount(model, 0, used.prompt_tokens, used.completion_tokens)
                for account in (self._total, self._account(role)):
                    account.used = plus(account.used, (0, 0, amount[2]))
                    account.unpriced |= prices.find(model) is None

    @property
    def calls(self) -> int:
        """Calls paid so far."""
        return self._total.used[0]

    @property
    def tokens(self) -> int:
        """Tokens read and written so far."""
        return self._total.used[1]

    def reserve(self, request: Request, *, role: str = "task", model: str = "") -> Reservation:
        """Put aside the most that a call can use.

        Args:
            request: What will be asked.
            role: Who pays: ``"task"``, ``"optimizer"`` or ``"judge"``.
            model: Model string of who is asked, for its price.

        Raises:
            BudgetExceeded: The call could pass a limit, together with those in flight.
            UserError: There is a limit in US dollars and the model's price is not known.
        """
        reservation = self._bound(request, role, model)
        with self._mutex:
            blocked = self._try(reservation)
        if blocked is not None:
            raise blocked.error()
        return reservation

    async def areserve(self, request: Request, *, role: str = "task", model: str = "") -> Reservation:
        """Put aside the most that a call can use; wait where only the calls in flight stand in the way.

        They use less than they reserved as a rule, so waiting for them spends a limit to its end; the budget is
        exceeded where the call does not fit beside what is really used.

        Args:
            request: What will be asked.
            role: Who pays.
            model: Model string of who is asked.

        Raises:
            BudgetExceeded: The call could pass a limit.
            UserError: There is a limit in US dollars and the model's price is not known.
        """
        reservation = self._bound(request, role, model)
        while True:
            with self._mutex:
                blocked = self._try(reservation)
                if blocked is None:
                    return reservation
                if not blocked.passes:
                    raise blocked.error()
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(future)
            try:
                await future
            finally:
                with self._mutex:
                    self._waiting.discard(future)

    def settle(self, reservation: Reservation, usage: Usage | None) -> None:
        """Replace a reservation by what was used.

        Args:
            reservation: What `reserve` gave; each one is settled once.
            usage: What the call used; None where it failed: that counts as a call without tokens.

        Raises:
            UserError: The reservation is settled already, or another ledger's.
        """
        used = usage or Usage()
        with self._mutex:
            if reservation not in self._open:
                raise UserError(f"{reservation!r} is settled already, or belongs to another budget: settle it once")
            self._open.discard(reservation)
            for account in (self._total, self._account(reservation.role)):
                account.reserved = minus(account.reserved, reservation.amount)
            paid = self._spend(reservation.role, reservation.model, 1, used.prompt_tokens, used.completion_tokens)
            over = any(one > most for one, most in zip(paid, reservation.amount, strict=True))
            if over:
                self._overruns += 1
                more = max(0, used.prompt_tokens - reservation.prompt_tokens)
                self._above[reservation.model] = self._above.get(reservation.model, 0) + more
            waiting = self._take_waiting()
        wake(waiting)
        if over:
            _log.warning(
                "a call of %r used %d + %d tokens where %d + %d were thought to be the most; all of it is counted",
                reservation.model,
                used.prompt_tokens,
                used.completion_tokens,
                reservation.prompt_tokens,
                reservation.completion_tokens,
            )

    def restore(self, spend: Iterable[tuple[str, str, int, int, int]]) -> None:
        """Add what an earlier life of the run has used.

        Args:
            spend: Role, model string, calls, prompt tokens and completion tokens, as often as there are records.
        """
        with self._mutex:
            for role, model, calls, prompt_tokens, completion_tokens in spend:
                self._spend(role, model, calls, prompt_tokens, completion_tokens)

    def hold(self, *needs: Need) -> None:
        """Keep what the final test will need, so that the search stops before eating it.

        Beside it, room for one call's reservation is kept, so that the last call of the test fits as well. What an
        earlier call has kept is replaced.

        Args:
            *needs: What each role will use.

        Raises:
            BudgetExceeded: More is needed than is left; what was kept before stays.
        """
        with self._mutex:
            before = self._needs
            self._keep(needs)
            try:
                for account in (self._total, *self._roles.values()):
                    blocked = account.blocked(NOTHING)
                    if blocked is not None:
                        raise BudgetExceeded(
                            f"the final test needs about {blocked.write(account.kept)}, and {blocked.state()}; "
                            f"raise {blocked.key} or take a smaller test split"
                        )
                active, limit = self.active_s(), self._limits.minutes
                if limit is not None and (active + self._held_s) / 60 > limit:
                    raise BudgetExceeded(
                        f"the final test needs about {self._held_s / 60:.3g} minutes, and {active / 60:.3g} of "
                        f"{limit:g} are used; raise budget.minutes or take a smaller test split"
                    )
            except BudgetExceeded:
                self._keep(before)
                raise

    def release(self) -> None:
        """Free what `hold` has kept; the final test begins."""
        with self._mutex:
            self._keep(())
            waiting = self._take_waiting()
        wake(waiting)

    def check_prices(self, models: Iterable[str], role: str | None = None) -> None:
        """Make sure that a limit in US dollars can be kept, before anything is paid.

        Args:
            models: Model strings of the models that will be asked.
            role: Who will ask them; None for any role.

        Raises:
            UserError: There is such a limit, and the price of a model is not known.
        """
        if self._limits.has_usd(role):
            for model in models:
                self.prices.require(model)

    def spent(self, role: str | None = None) -> Spend:
        """Return what one role has used, or all of them."""
        with self._mutex:
            account = self._total if role is None else self._roles.get(role, _EMPTY)
            return account.spend()

    def remaining(self, role: str | None = None) -> Remaining:
        """Return what is left to reserve beside what is used, reserved and kept, in all or for one role."""
        with self._mutex:
            rooms = [self._total.room()]
            if role is not None:
                rooms.append(self._roles.get(role, _EMPTY).room())
        calls, tokens, pico = (_least([one[unit] for one in rooms]) for unit in range(3))
        minutes = self._limits.minutes
        seconds = None if minutes is None else max(0.0, minutes * 60 - self.active_s() - self._held_s)
        return Remaining(calls, tokens, None if pico is None else to_usd(pico), seconds)

    def to_json(self) -> dict[str, Any]:
        """Return limits, spend by role, and what is left, as plain JSON data."""
        with self._mutex:
            roles = sorted(self._roles)
        return {
            "limits": self._limits.to_json(),
            "spent": self.spent().to_json(),
            "roles": {role: self.spent(role).to_json() for role in roles},
            "remaining": self.remaining().to_json(),
            "active_s": self.active_s(),
            "overruns": self._overruns,
        }

    # -- all below is called with the mutex held, but for _bound ---------------------------------

    def _bound(self, request: Request, role: str, model: str) -> Reservation:
        prompt = prompt_bound(request) + self._above.get(model, 0)
        completion = request.max_tokens * request.n
        self.check_prices((model,), role)
        amount = self._amount(model, 1, prompt, completion)
        return Reservation(role, model, prompt, completion, amount)

    def _try(self, reservation: Reservation) -> Blocked | None:
        """Make a reservation if it fits; otherwise tell what stands in its way, first what will not go away."""
        own = self._account(reservation.role)
        own.largest = larger(own.largest, reservation.amount)
        accounts = (self._total, own)
        self._check_minutes()
        blocks = [found for account in accounts if (found := account.blocked(reservation.amount)) is not None]
        if blocks:
            return min(blocks, key=lambda one: one.passes)
        for account in accounts:
            account.reserved = plus(account.reserved, reservation.amount)
        self._open.add(reservation)
        return None

    def _check_minutes(self) -> None:
        limit = self._limits.minutes
        if limit is None:
            return
        active = self.active_s()
        if (active + self._held_s) / 60 > limit:
            kept = f" and {self._held_s / 60:.3g} kept for the final test" if self._held_s else ""
            raise BudgetExceeded(
                f"the budget of {limit:g} minutes does not cover another call: {active / 60:.3g} used{kept}; "
                "raise budget.minutes to go on"
            )

    def _amount(self, model: str, calls: int, prompt_tokens: int, completion_tokens: int) -> Amount:
        price = self._prices.find(model)
        read, written = (0, 0) if price is None else price.per_token
        return calls, prompt_tokens + completion_tokens, prompt_tokens * read + completion_tokens * written

    def _spend(self, role: str, model: str, calls: int, prompt_tokens: int, completion_tokens: int) -> Amount:
        amount = self._amount(model, calls, prompt_tokens, completion_tokens)
        before = self._tally.get((role, model), Usage())
        self._tally[role, model] = Usage(
            before.prompt_tokens + prompt_tokens, before.completion_tokens + completion_tokens
        )
        for account in (self._total, self._account(role)):
            account.used = plus(account.used, amount)
            account.completion_tokens += completion_tokens
            account.unpriced |= self._prices.find(model) is None
        return amount

    def _account(self, role: str) -> Account:
        account = self._roles.get(role)
        if account is None:
            account = self._roles[role] = Account(role, self._limits.roles.get(role, RoleLimits()))
        return account

    def _keep(self, needs: tuple[Need, ...]) -> None:
        self._needs = needs
        for account in (self._total, *self._roles.values()):
            account.held = NOTHING
        self._held_s = 0.0
        for need in needs:
            amount = (need.calls, need.tokens, to_pico(need.usd))
            for account in (self._total, self._account(need.role)):
                account.held = plus(account.held, amount)
            self._held_s += need.seconds

    def _take_waiting(self) -> list[asyncio.Future[None]]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((one for one in numbers if one is not None), default=None)
