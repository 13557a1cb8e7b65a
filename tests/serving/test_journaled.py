"""Calls behind the journal: durable before use, paid once, told apart where they must be, and within the budget."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from optograph.context import call_context
from optograph.errors import BudgetExceeded, ServingError, UserError
from optograph.serving import Budget, BudgetLimits, JournaledLM, Request, ScriptedLM, counting_draws, observing
from optograph.serving.types import Message, Usage
from optograph.storage import Journal


def ask(text: str = "hi", **fields: float) -> Request:
    return Request(messages=(Message("user", text),), max_tokens=5, **fields)  # type: ignore[arg-type]


def echo(**options: object) -> ScriptedLM:
    return ScriptedLM(lambda request: request.messages[-1].content, **options)  # type: ignore[arg-type]


def test_an_equal_call_is_paid_once_and_recorded_with_its_context() -> None:
    journal, inner = Journal.memory(), echo()
    lm = JournaledLM(inner, journal)
    with call_context(role="judge", example="e1", node="n"):
        first, second = lm.ask(ask()), lm.ask(ask())
    assert (first.text, first.identity) == (second.text, second.identity)
    assert len(inner.requests) == 1
    (row,) = journal.calls()
    assert (row.context["role"], row.context["example"], row.context["node"]) == ("judge", "e1", "n")
    assert journal.get(row.request)["messages"] == [{"role": "user", "content": "hi"}]
    assert row.completion is not None
    assert journal.get(row.completion)["texts"] == ["hi"]


def test_equal_calls_at_the_same_time_are_one_call() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.02)
        return "x"

    inner = ScriptedLM(slow)
    lm = JournaledLM(inner, Journal.memory())

    async def all_at_once() -> None:
        await asyncio.gather(*(lm.complete(ask()) for _ in range(20)))

    asyncio.run(all_at_once())
    assert len(inner.requests) == 1


def test_other_weights_repeats_and_draws_are_other_calls() -> None:
    journal = Journal.memory()
    one, other = echo(name="one"), echo(name="other")
    JournaledLM(one, journal).ask(ask())
    JournaledLM(other, journal).ask(ask())
    lm = JournaledLM(one, journal)
    with call_context(repeat=1):
        lm.ask(ask())
    lm.ask(ask(draw=1))
    assert (len(one.requests), len(other.requests)) == (3, 1)


def test_equal_samples_within_an_evaluation_are_draws_of_their_own() -> None:
    inner = echo()
    lm = JournaledLM(inner, Journal.memory())
    for _ in range(2):
        with counting_draws():
            for _ in range(3):
                lm.ask(ask(temperature=1.0))
    assert len(inner.requests) == 3
    with counting_draws():
        for _ in range(3):
            lm.ask(ask(temperature=0.0))
    assert len(inner.requests) == 4


def test_a_failed_call_is_recorded_and_asked_again() -> None:
    journal = Journal.memory()
    lm = JournaledLM(ScriptedLM([ServingError("gone"), "back"]), journal)
    with pytest.raises(ServingError):
        lm.ask(ask())
    assert lm.ask(ask()).text == "back"
    assert [row.error for row in journal.calls()] == ["ServingError: gone", None]


def test_observers_hear_of_a_call_once() -> None:
    heard = []
    lm = JournaledLM(echo(), Journal.memory())
    with observing(lambda event: heard.append(event.model)):
        lm.ask(ask())
    assert heard == ["scripted"]


def test_the_budget_is_never_overdrawn_by_many_at_once() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.005)
        return "x"

    inner = ScriptedLM(slow)
    budget = Budget(BudgetLimits(calls=10))
    lm = JournaledLM(inner, Journal.memory(), budget)

    def one(number: int) -> bool:
        try:
            lm.ask(ask(f"question {number}"))
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(64) as pool:
        done = list(pool.map(one, range(64)))
    assert sum(done) == len(inner.requests) == budget.calls == 10


def test_tokens_are_reserved_before_and_settled_after() -> None:
    budget = Budget(BudgetLimits(tokens=1000))
    first = budget.reserve(ask())
    with pytest.raises(BudgetExceeded, match="1000 tokens"):
        for _ in range(10):
            budget.reserve(ask())
    budget.settle(first, Usage(3, 4))
    assert (budget.calls, budget.tokens) == (1, 7)
    with pytest.raises(UserError, match=r"budget\.calls"):
        BudgetLimits(calls=0)
