"""No limit is ever passed: 500 random cases of budget, concurrency and cost, with failures and restarts."""

from __future__ import annotations

import asyncio
import copy
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from optograph.errors import BudgetExceeded
from optograph.serving import Budget, BudgetLimits, Price, PriceTable, Request, Reservation, RoleLimits, Usage
from optograph.serving.accounts import Account
from optograph.serving.bounds import token_bound
from optograph.serving.types import Message

PRICES = PriceTable({"openai/small": Price(0.15, 0.6), "openai/big": Price(2.5, 10)})


def ask(text: str, max_tokens: int, n: int) -> Request:
    return Request(messages=(Message("user", text),), max_tokens=max_tokens, n=n)


@dataclass
class Ground:
    """What really happened, counted apart from the ledger; the most that could have been in use at any instant."""

    calls: int = 0
    tokens: int = 0
    pico: int = 0
    mutex: threading.Lock = field(default_factory=threading.Lock)
    broken: list[str] = field(default_factory=list)

    def begin(self, one: Reservation, limits: BudgetLimits | RoleLimits) -> None:
        with self.mutex:
            self.calls += 1
            self.tokens += one.tokens
            self.pico += one.amount[2]
            if limits.calls is not None and self.calls > limits.calls:
                self.broken.append(f"{self.calls} calls of {limits.calls}")
            if limits.tokens is not None and self.tokens > limits.tokens:
                self.broken.append(f"{self.tokens} tokens of {limits.tokens}")
            if limits.usd is not None and self.pico > round(limits.usd * 10**12):
                self.broken.append(f"{self.pico} picodollars of {limits.usd} dollars")

    def end(self, one: Reservation, usage: Usage | None) -> None:
        read, written = PRICES.require(one.model).per_token
        used = usage or Usage()
        with self.mutex:
            self.tokens += used.total_tokens - one.tokens
            self.pico += used.prompt_tokens * read + used.completion_tokens * written - one.amount[2]


@dataclass
class Case:
    """One random case: limits, and calls with what each will use."""

    number: int

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(f"budget/{self.number}")
        self.concurrency = rng.choice([1, 2, 7, 16, 64])
        self.work = [self._call() for _ in range(rng.randint(1, 96))]
        size = sum(token_bound(request) for request, *_ in self.work)
        self.limits = BudgetLimits(
            calls=rng.choice([None, rng.randint(1, 96)]),
            tokens=rng.choice([None, rng.randint(1, 2 * size)]),
            usd=rng.choice([None, rng.randint(1, 4 * size) / 1e6]),
            roles={role: self._role(size) for role in rng.sample(["task", "optimizer", "judge"], rng.randint(0, 3))},
        )
        self.ground = {"": Ground(), "task": Ground(), "optimizer": Ground(), "judge": Ground()}
        self.done: list[tuple[str, str, int, int, int]] = []

    def _call(self) -> tuple[Request, str, str, float]:
        rng = self.rng
        request = ask("x" * rng.randint(0, 300), rng.randint(1, 400), rng.choice([1, 1, 3]))
        return (
            request,
            rng.choice(["task", "optimizer", "judge"]),
            rng.choice(["openai/small", "openai/big"]),
            rng.random(),
        )

    def _role(self, size: int) -> RoleLimits:
        rng = self.rng
        return RoleLimits(rng.choice([None, rng.randint(1, 40)]), rng.choice([None, rng.randint(1, size)]), None)

    def budget(self) -> Budget:
        budget = Budget(self.limits, prices=PRICES)
        budget.restore(self.done)
        return budget

    def begin(self, one: Reservation) -> None:
        self.ground[""].begin(one, self.limits)
        self.ground[one.role].begin(one, self.limits.roles.get(one.role, RoleLimits()))

    def end(self, budget: Budget, one: Reservation, share: float) -> None:
        """Use a share of what was reserved; nearly all of it at times; or fail."""
        usage = None if share < 0.1 else Usage(int(one.prompt_tokens * share), int(one.completion_tokens * share))
        if share > 0.9:
            usage = Usage(one.prompt_tokens, one.completion_tokens)
        for ground in (self.ground[""], self.ground[one.role]):
            ground.end(one, usage)
        used = usage or Usage()
        budget.settle(one, usage)
        self.done.append((one.role, one.model, 1, used.prompt_tokens, used.completion_tokens))

    def check(self, budget: Budget) -> None:
        for role, ground in self.ground.items():
            assert ground.broken == [], f"case {self.number}, role {role!r}"
            spend = budget.spent(role or None)
            assert (spend.calls, spend.tokens) == (ground.calls, ground.tokens), f"case {self.number}, role {role!r}"
            assert spend.usd == pytest.approx(ground.pico / 1e12, abs=1e-12)


def in_threads(case: Case, budget: Budget, work: list[tuple[Request, str, str, float]]) -> None:
    def one(call: tuple[Request, str, str, float]) -> None:
        request, role, model, share = call
        try:
            reservation = budget.reserve(request, role=role, model=model)
        except BudgetExceeded:
            return
        case.begin(reservation)
        time.sleep(share / 1000)
        case.end(budget, reservation, share)

    with ThreadPoolExecutor(case.concurrency) as pool:
        list(pool.map(one, work))


def on_a_loop(case: Case, budget: Budget, work: list[tuple[Request, str, str, float]]) -> None:
    async def one(call: tuple[Request, str, str, float], gate: asyncio.Semaphore) -> None:
        request, role, model, share = call
        async with gate:
            try:
                reservation = await budget.areserve(request, role=role, model=model)
            except BudgetExceeded:
                return
            case.begin(reservation)
            for _ in range(int(share * 5)):
                await asyncio.sleep(0)
            case.end(budget, reservation, share)

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(case.concurrency)
        await asyncio.wait_for(asyncio.gather(*(one(call, gate) for call in work)), 30)

    asyncio.run(all_of_them())


@pytest.mark.parametrize("run", [in_threads, on_a_loop])
def test_no_limit_is_ever_passed(run: Callable[..., None]) -> None:
    for number in range(250):
        case = Case(number if run is in_threads else 1000 + number)
        cut = case.rng.randint(0, len(case.work))
        budget = case.budget()
        run(case, budget, case.work[:cut])
        case.check(budget)
        again = case.budget()  # the run was killed, and goes on from its journal
        assert again.spent() == budget.spent()
        run(case, again, case.work[cut:])
        case.check(again)
        assert again.remaining() == case.budget().remaining()


@pytest.mark.parametrize("defect", ["no limits", "no reservations"])
def test_the_property_would_see_a_ledger_that_overshoots(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if defect == "no limits":
        monkeypatch.setattr("optograph.serving.accounts.Account.blocked", lambda self, wanted: None)
    else:
        real = Account.blocked
        monkeypatch.setattr(Account, "blocked", lambda self, wanted: real(without_reservations(self), wanted))
    broken = 0
    for number in range(30):
        case = Case(number)
        in_threads(case, case.budget(), case.work)
        broken += any(ground.broken for ground in case.ground.values())
    assert broken >= 5


def without_reservations(account: Account) -> Account:
    forgetful = copy.copy(account)
    forgetful.reserved = (0, 0, 0)
    return forgetful
