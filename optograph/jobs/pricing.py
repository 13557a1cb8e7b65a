"""Prices for a limit in US dollars: the job's, else what endpoints list; a model without one is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from optograph.errors import ServingError
from optograph.serving import LM, Budget, JournaledLM, OpenAILM, run_sync
from optograph.serving.prices import FREE

LIST_TIMEOUT_S = 5.0
"""How long an endpoint may take to list its prices."""


def settle_prices(budget: Budget, asked: Iterable[tuple[str, LM]]) -> None:
    """Make sure, before anything is paid, that a limit in US dollars can be kept.

    The endpoint of a model whose price the budget's table does not give is asked for its list of prices. One that does
    not answer in time, or lists none, has told nothing, which is no error by itself.

    Args:
        budget: The ledger; it learns the prices that are listed.
        asked: The models that will be asked, each with the role that pays.

    Raises:
        UserError: There is such a limit, and the price of a model is not known; the message names the model.
    """
    limited = [(role, lm) for role, lm in asked if budget.limits.has_usd(role)]
    unknown = {lm.name: _endpoint(lm) for _, lm in limited if budget.prices.find(lm.name) in (None, FREE)}
    found = {name: price for name, lm in unknown.items() if lm is not None and (price := _listed(lm)) is not None}
    if found:
        budget.prices = budget.prices.merged(found)
    for role, lm in limited:
        budget.check_prices((lm.name,), role)


def _endpoint(lm: LM) -> OpenAILM | None:
    inner = lm.inner if isinstance(lm, JournaledLM) else lm
    return inner if isinstance(inner, OpenAILM) else None


def _listed(lm: OpenAILM) -> tuple[float, float] | None:
    """Return the price that an endpoint lists for a model, in US dollars per million tokens; None where it does not."""

    async def ask() -> tuple[float, float] | None:
        async with asyncio.timeout(LIST_TIMEOUT_S):
            return (await lm.prices()).get(lm.model)

    try:
        return run_sync(ask())
    except (ServingError, TimeoutError):
        return None
