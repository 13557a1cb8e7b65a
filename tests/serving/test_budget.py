"""The budget: never passed by a call, a token or a fraction of a cent, whatever runs at once, fails or is restarted."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import pytest

from optograph.errors import BudgetExceeded, UserError
from optograph.serving import (
    Budget,
    BudgetLimits,
    JsonSchema,
    Need,
    Price,
    PriceTable,
    Remaining,
    Request,
    RoleLimits,
    Spend,
    Usage,
)
from optograph.serving.bounds import prompt_bound, token_bound
from optograph.serving.types import Message

PRICES = PriceTable({"openai/small": Price(0.15, 0.6), "openai/big": Price(2.5, 10)})


def ask(text: str = "hi", max_tokens: int = 5, n: int = 1) -> Request:
    return Request(messages=(Message("user", text),), max_tokens=max_tokens, n=n)


# -- one idea each --------------------------------------------------------------------------------


def test_a_loop_spends_a_limit_to_its_end() -> None:
    """Calls wait for those in flight, which use less than they reserved."""
    request = ask(max_tokens=1000)
    budget = Budget(BudgetLimits(tokens=token_bound(request) * 2 + 50))

    async def one() -> bool:
        try:
            reservation = await budget.areserve(request)
        except BudgetExceeded:
            return False
        await asyncio.sleep(0)
        budget.settle(reservation, Usage(5, 5))
        return True

    async def many() -> list[bool]:
        return await asyncio.gather(*(one() for _ in range(64)))

    assert all(asyncio.run(many()))
    assert budget.tokens == 640


def test_a_waiting_call_is_refused_once_it_cannot_fit_any_more() -> None:
    request = ask(max_tokens=1000)
    bound = token_bound(request)
    budget = Budget(BudgetLimits(tokens=bound + 50))

    async def main() -> None:
        first = await budget.areserve(request)
        second = asyncio.ensure_future(budget.areserve(request))
        third = asyncio.ensure_future(budget.areserve(request))
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(first, Usage(100, 500))
        with pytest.raises(BudgetExceeded, match=f"600 used, {bound} more wanted; raise budget.tokens"):
            await second

    asyncio.run(main())
    assert budget.remaining().tokens == bound + 50 - 600


def test_a_waiting_call_is_woken_from_another_thread_and_outlives_no_loop() -> None:
    request = ask()
    budget = Budget(BudgetLimits(tokens=token_bound(request)))
    first = budget.reserve(request)
    threading.Timer(0.02, lambda: budget.settle(first, None)).start()
    second = asyncio.run(budget.areserve(request))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(budget.areserve(request), 0.01)

    asyncio.run(give_up())
    budget.settle(second, None)
    assert budget.calls == 2


def test_tokens_are_reserved_before_and_settled_after() -> None:
    budget = Budget(BudgetLimits(tokens=1000))
    first = budget.reserve(ask())
    with pytest.raises(BudgetExceeded, match=r"the budget of 1000 tokens .* 0 used, \d+ reserved by calls in flight"):
        budget.reserve(ask())
    budget.settle(first, Usage(3, 4))
    assert (budget.calls, budget.tokens, budget.spent()) == (1, 7, Spend(1, 3, 4, None))


def test_the_message_names_the_limit_and_the_role() -> None:
    budget = Budget(BudgetLimits(calls=9, roles={"optimizer": RoleLimits(calls=1)}))
    first = budget.reserve(ask(), role="optimizer")
    said = r"the optimizer role's budget of 1 calls .*1 reserved by calls in flight, 1 more wanted; raise budget\.opt"
    with pytest.raises(BudgetExceeded, match=said):
        budget.reserve(ask(), role="optimizer")
    budget.settle(first, None)
    with pytest.raises(BudgetExceeded, match="1 used, 1 more wanted"):
        budget.reserve(ask(), role="optimizer")
    assert budget.reserve(ask(), role="task").tokens == token_bound(ask())
    assert budget.remaining("optimizer").calls == 0
    assert budget.remaining().calls == 7


def test_nothing_is_reserved_where_one_of_two_limits_is_passed() -> None:
    budget = Budget(BudgetLimits(calls=5, roles={"task": RoleLimits(tokens=10)}))
    for _ in range(20):
        with pytest.raises(BudgetExceeded, match=r"budget\.task\.tokens"):
            budget.reserve(ask())
    assert budget.remaining() == Remaining(calls=5)


def test_a_reservation_is_settled_once() -> None:
    budget = Budget()
    one = budget.reserve(ask())
    budget.settle(one, Usage(1, 1))
    with pytest.raises(UserError, match="settled already"):
        budget.settle(one, Usage(1, 1))
    with pytest.raises(UserError, match="another budget"):
        budget.settle(Budget().reserve(ask()), None)
    assert budget.calls == 1


def test_more_use_than_reserved_is_counted_and_said_and_learned_from(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget()
    one = budget.reserve(ask(), model="openai/small")
    with caplog.at_level(logging.WARNING):
        budget.settle(one, Usage(one.prompt_tokens + 40, 2))
    assert "openai/small" in caplog.text
    assert budget.tokens == one.prompt_tokens + 42
    assert budget.to_json()["overruns"] == 1
    assert budget.reserve(ask(), model="openai/small").prompt_tokens == one.prompt_tokens + 40
    assert budget.reserve(ask(), model="openai/big").prompt_tokens == one.prompt_tokens


def test_a_failed_call_counts_as_a_call() -> None:
    budget = Budget(BudgetLimits(calls=1))
    budget.settle(budget.reserve(ask()), None)
    assert budget.spent() == Spend(1, 0, 0, None)
    with pytest.raises(BudgetExceeded):
        budget.reserve(ask())


def test_minutes_are_active_minutes_and_sum_over_restarts() -> None:
    now = 0.0
    budget = Budget(BudgetLimits(minutes=2), active_s=lambda: now)
    budget.settle(budget.reserve(ask()), None)
    now = 119.0
    assert budget.remaining().seconds == 1.0
    budget.settle(budget.reserve(ask()), None)
    now = 121.0
    with pytest.raises(BudgetExceeded, match=r"the budget of 2 minutes .* 2.02 used; raise budget.minutes"):
        budget.reserve(ask())
    assert budget.remaining().seconds == 0.0


# -- money ----------------------------------------------------------------------------------------


def test_money_is_reserved_by_the_price() -> None:
    request = ask()
    price = PRICES.require("openai/big")
    most = price.usd(prompt_bound(request), 5)
    budget = Budget(BudgetLimits(usd=2.5 * most), prices=PRICES)
    first = budget.reserve(request, model="openai/big")
    assert first.usd == pytest.approx(most)
    budget.settle(first, Usage(10, 5))
    assert budget.spent("task").usd == price.usd(10, 5) == 75e-6
    budget.reserve(request, model="openai/big")
    with pytest.raises(BudgetExceeded, match=r"US dollars does not cover another call: 7.5e-05 used.*raise budget.usd"):
        for _ in range(2):
            budget.reserve(request, model="openai/big")
    budget.reserve(request, model="local/smollm2-135m")


def test_a_limit_in_dollars_needs_prices_before_anything_is_paid() -> None:
    budget = Budget(BudgetLimits(usd=1), prices=PRICES)
    with pytest.raises(UserError, match=r'\[prices."openai/other"\]'):
        budget.reserve(ask(), model="openai/other")
    with pytest.raises(UserError, match="openai/other"):
        budget.check_prices(["openai/big", "openai/other"])
    assert budget.calls == 0
    roles = Budget(BudgetLimits(roles={"judge": RoleLimits(usd=1)}), prices=PRICES)
    roles.check_prices(["openai/other"], "task")
    roles.reserve(ask(), role="task", model="openai/other")
    with pytest.raises(UserError, match="openai/other"):
        roles.check_prices(["openai/other"])
    with pytest.raises(UserError, match="openai/other"):
        roles.reserve(ask(), role="judge", model="openai/other")


def test_spend_without_a_price_is_unknown_and_not_free() -> None:
    budget = Budget(prices=PRICES)
    budget.restore([("task", "openai/big", 2, 100, 10), ("optimizer", "openai/other", 1, 5, 5)])
    assert budget.spent("task") == Spend(2, 100, 10, 350e-6)
    assert budget.spent("optimizer").usd is None
    assert budget.spent().usd is None
    assert budget.spent("judge") == Spend()


def test_prices_that_come_later_count_for_all_that_was_spent() -> None:
    """A run goes on from its journal before its endpoints have told their prices."""
    budget = Budget(BudgetLimits(usd=1))
    budget.restore([("task", "openai/big", 2, 100, 10), ("optimizer", "openai/other", 1, 5, 5)])
    assert (budget.spent().usd, budget.spent().calls) == (None, 3)
    budget.prices = budget.prices.merged({"big": (2.5, 10), "other": (100, 100)})
    assert (budget.spent("task").usd, budget.spent("optimizer").usd) == (350e-6, 1e-3)
    assert budget.spent() == Spend(3, 105, 15, 1.35e-3)
    assert budget.remaining().usd == pytest.approx(1 - 1.35e-3)


# -- the final test -------------------------------------------------------------------------------


def test_the_search_stops_before_it_eats_what_the_final_test_needs() -> None:
    budget = Budget(BudgetLimits(calls=10))
    budget.hold(Need(calls=6))
    for _ in range(4):
        budget.settle(budget.reserve(ask()), Usage(1, 1))
    with pytest.raises(BudgetExceeded, match="4 used, 6 kept for the final test, 1 more wanted"):
        budget.reserve(ask())
    assert budget.remaining().calls == 0
    budget.release()
    for _ in range(6):
        budget.settle(budget.reserve(ask()), Usage(1, 1))
    with pytest.raises(BudgetExceeded):
        budget.reserve(ask())


def test_kept_tokens_and_dollars_leave_room_for_the_last_reservation() -> None:
    request = ask(max_tokens=1000)
    bound = token_bound(request)
    budget = Budget(BudgetLimits(tokens=2 * bound + 300, usd=1), prices=PRICES)
    budget.hold(Need(calls=30, tokens=300, usd=1e-4))
    while True:
        try:
            one = budget.reserve(request, model="openai/big")
        except BudgetExceeded:
            break
        budget.settle(one, Usage(6, 4))
    budget.release()
    for _ in range(30):
        budget.settle(budget.reserve(request, model="openai/big"), Usage(6, 4))
    assert budget.tokens <= 2 * bound + 300


@pytest.mark.parametrize(
    ("limits", "need", "said"),
    [
        (
            BudgetLimits(calls=10),
            Need(calls=11),
            r"final test needs about 11 calls.*10 calls.*0 used; raise budget.calls",
        ),
        (BudgetLimits(tokens=10), Need(tokens=11), r"11 tokens.*raise budget.tokens"),
        (BudgetLimits(usd=1), Need(usd=1.5), r"1.5 US dollars.*raise budget.usd"),
        (BudgetLimits(minutes=1), Need(seconds=90), r"1.5 minutes.*raise budget.minutes"),
        (BudgetLimits(roles={"judge": RoleLimits(calls=3)}), Need(calls=4, role="judge"), r"raise budget.judge.calls"),
    ],
)
def test_more_than_is_left_cannot_be_kept(limits: BudgetLimits, need: Need, said: str) -> None:
    budget = Budget(limits, prices=PRICES)
    with pytest.raises(BudgetExceeded, match=said):
        budget.hold(need)
    budget.reserve(ask(), model="scripted") if limits.tokens is None else None
    assert budget.remaining("judge").calls in (None, 3, 9)


def test_a_new_hold_replaces_the_one_before_unless_it_fails() -> None:
    budget = Budget(BudgetLimits(calls=10, minutes=1), active_s=lambda: 0.0)
    budget.hold(Need(calls=5), Need(calls=1, role="judge"))
    assert budget.remaining().calls == 4
    budget.hold(Need(calls=7, seconds=20))
    with pytest.raises(BudgetExceeded):
        budget.hold(Need(calls=11))
    assert budget.remaining() == Remaining(calls=3, seconds=40.0)
    budget.limits = BudgetLimits(calls=30)
    assert budget.remaining().calls == 23


def test_a_need_is_scaled_from_what_was_measured() -> None:
    need = Need.scaled(Spend(10, 100, 50, 0.5), seen=5, wanted=20, seconds=3.0, margin=0.5, role="judge")
    assert need == Need(60, 900, 3.0, 18.0, "judge")
    with pytest.raises(UserError, match="seen >= 1"):
        Need.scaled(Spend(), seen=0, wanted=1)
    with pytest.raises(UserError, match="calls"):
        Need(calls=-1)


# -- limits and bounds ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calls", "tokens", "usd", "minutes"])
@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_limit_is_a_number_above_0(name: str, bad: object) -> None:
    with pytest.raises(UserError, match=rf"budget\.{name} must be .* leave it out for no limit"):
        BudgetLimits(**{name: bad})  # type: ignore[arg-type]
    if name != "minutes":
        with pytest.raises(UserError, match=name):
            RoleLimits(**{name: bad})  # type: ignore[arg-type]


def test_a_role_is_a_known_one() -> None:
    with pytest.raises(UserError, match="'teacher'; the roles are task, optimizer, judge"):
        BudgetLimits(roles={"teacher": RoleLimits()})


def test_the_bound_of_a_prompt_covers_what_templates_and_schemas_add() -> None:
    schema = JsonSchema({"type": "object", "properties": {"answer": {"type": "string"}}})
    plain = prompt_bound(ask("ä" * 10))
    assert plain >= 20 + 512
    assert (
        prompt_bound(Request(prompt="ä" * 10))
        < prompt_bound(Request(messages=(Message("system", ""), Message("user", "ä" * 10))))
        < plain
    )
    assert prompt_bound(Request(messages=(Message("user", "ä" * 10),), schema=schema)) > plain + 60
    assert token_bound(ask(max_tokens=7, n=3)) == prompt_bound(ask()) + 21


def test_the_ledger_goes_to_json() -> None:
    budget = Budget(
        BudgetLimits(calls=5, usd=1, roles={"judge": RoleLimits(calls=2)}), prices=PRICES, active_s=lambda: 3.0
    )
    budget.restore([("task", "openai/small", 1, 10, 10)])
    data = json.loads(json.dumps(budget.to_json()))
    assert data["limits"]["roles"] == {"judge": {"calls": 2, "tokens": None, "usd": None}}
    assert (
        data["roles"]["task"]
        == data["spent"]
        == {"calls": 1, "prompt_tokens": 10, "completion_tokens": 10, "usd": 7.5e-6}
    )
    assert (data["remaining"]["calls"], data["active_s"]) == (4, 3.0)
