"""The arithmetic of estimates: how many calls and tokens a plan comes to, and whether a budget covers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from optograph.optimizers import Plan
from optograph.serving import BudgetLimits, Price, RoleLimits

BYTES_PER_TOKEN = (7.0, 2.0)
"""A token of a prompt is at most and at least so many bytes; English has about 4.5, code and other scripts fewer."""
MESSAGE_TOKENS, TEMPLATE_TOKENS = 8, 48
"""About the most that a chat template adds to a message and to a conversation."""


class Range(BaseModel):
    """The least and the most of something; a ``high`` of None is not known."""

    model_config = ConfigDict(frozen=True)

    low: float = 0.0
    high: float | None = 0.0

    def __add__(self, other: Range) -> Range:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Range(low=self.low + other.low, high=high)

    def times(self, low: float, high: float | None) -> Range:
        """Multiply each end."""
        return Range(low=self.low * low, high=None if self.high is None or high is None else self.high * high)

    def holds(self, value: float) -> bool:
        """Tell whether a value lies within."""
        return self.low <= value and (self.high is None or value <= self.high)

    def whole(self) -> Range:
        """Round outwards to whole numbers."""
        return Range(low=math.floor(self.low), high=None if self.high is None else math.ceil(self.high))


@dataclass(frozen=True, slots=True)
class CallSize:
    """Tokens of one call, the least and the most.

    Attributes:
        prompt: Tokens read.
        completion: Tokens written.
    """

    prompt: Range
    completion: Range

    @classmethod
    def of_bytes(cls, prompt_bytes: float, messages: float, max_tokens: int) -> CallSize:
        """Judge a call by the bytes of its prompt and its limit."""
        most = prompt_bytes / BYTES_PER_TOKEN[1] + messages * MESSAGE_TOKENS + TEMPLATE_TOKENS
        return cls(
            prompt=Range(low=prompt_bytes / BYTES_PER_TOKEN[0], high=most),
            completion=Range(low=1, high=max_tokens),
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """How a workflow uses its model.

    Attributes:
        calls: Calls for an example, the least and the most.
        overhead: Calls that are made once for each candidate, beside those for examples.
        size: Of a call.
    """

    calls: Range
    overhead: int
    size: CallSize


@dataclass(frozen=True, slots=True)
class Splits:
    """Sizes of a task's splits.

    Attributes:
        train: Examples.
        dev: Examples.
        test: Examples.
        held_out: Different inputs in dev and test together: a call with an equal prompt is paid once.
    """

    train: int
    dev: int
    test: int
    held_out: int


class Cost(BaseModel):
    """Calls, tokens, money and time of a part of a run."""

    model_config = ConfigDict(frozen=True)

    calls: Range = Range()
    prompt_tokens: Range = Range()
    completion_tokens: Range = Range()
    usd: Range | None = Range()
    """US dollars; None where the price is not known."""
    minutes: Range | None = None
    """None where nothing was timed."""

    @property
    def tokens(self) -> Range:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            usd=None if self.usd is None or other.usd is None else self.usd + other.usd,
            minutes=None if self.minutes is None or other.minutes is None else self.minutes + other.minutes,
        )


def cost_of(calls: Range, size: CallSize, price: Price | None, growth: int = 0) -> Cost:
    """Return what calls of a size cost; `growth` makes the largest prompt longer."""
    prompt, completion = size.prompt, size.completion
    reads = calls.times(prompt.low, None if prompt.high is None else prompt.high + growth).whole()
    writes = calls.times(completion.low, completion.high).whole()
    usd = None
    if price is not None:
        usd = reads.times(price.input / 1e6, price.input / 1e6) + writes.times(price.output / 1e6, price.output / 1e6)
    return Cost(calls=calls.whole(), prompt_tokens=reads, completion_tokens=writes, usd=usd)


def fixed_calls(splits: Splits, load: Workload) -> Range:
    """Return the task's calls without any search: the start on dev, start and best on the test."""
    examples = Range(low=splits.held_out, high=splits.dev + 2 * splits.test)
    return examples.times(load.calls.low, load.calls.high) + Range(low=load.overhead, high=load.overhead)


def search_calls(splits: Splits, load: Workload, plan: Plan | None) -> Range:
    """Return the task's calls of a search; those that might equal earlier calls are not in the least."""
    if plan is None:
        return Range(low=0, high=None)
    train = max(0, plan.train[0] - load.overhead * (1 + plan.candidates[0]))
    examples = Range(low=train + plan.dev[0] * splits.dev, high=plan.train[1] + plan.dev[1] * splits.dev)
    overhead = Range(low=plan.candidates[0] * load.overhead, high=plan.candidates[1] * load.overhead)
    return examples.times(load.calls.low, load.calls.high) + overhead


class BudgetLine(BaseModel):
    """Whether one limit of the budget covers the run."""

    model_config = ConfigDict(frozen=True)

    limit: str
    """Key in the job file, such as ``"budget.calls"``."""
    amount: float
    verdict: Literal["covers", "may stop", "too small", "unknown"]
    text: str


def budget_lines(
    limits: BudgetLimits, fixed: Cost, search: dict[str, Cost], rounds: int, price_lacks: Sequence[str]
) -> list[BudgetLine]:
    """Compare each limit with what the run will use.

    Args:
        limits: The job's budget.
        fixed: What the task's model uses without any search.
        search: What each role uses in the search.
        rounds: Acceptance tests that the optimizer expects.
        price_lacks: Models whose price is not known.
    """
    everything = sum(search.values(), Cost(minutes=Range()))
    lines = []
    scopes: list[tuple[str, Cost, Cost, BudgetLimits | RoleLimits]] = [("budget", fixed, everything, limits)]
    none = Cost(minutes=Range())
    for role, own in limits.roles.items():
        scopes.append((f"budget.{role}", fixed if role == "task" else none, search.get(role, none), own))
    for prefix, base, wanted, given in scopes:
        for unit in ("calls", "tokens", "usd", "minutes"):
            amount = getattr(given, unit, None)
            if amount is not None:
                line = _line(f"{prefix}.{unit}", amount, _of(base, unit), _of(wanted, unit), rounds, price_lacks)
                lines.append(line)
    return lines


def _of(cost: Cost, unit: str) -> Range | None:
    found: Range | None = getattr(cost, unit)
    return found


def _line(
    key: str, amount: float, fixed: Range | None, search: Range | None, rounds: int, price_lacks: Sequence[str]
) -> BudgetLine:
    unit = key.rpartition(".")[2]
    word = "US dollars" if unit == "usd" else unit
    said = f"the budget of {amount:g} {word}" if key.count(".") == 1 else f"{key} = {amount:g}"

    def line(verdict: Literal["covers", "may stop", "too small", "unknown"], text: str) -> BudgetLine:
        return BudgetLine(limit=key, amount=amount, verdict=verdict, text=text)

    if fixed is None or search is None:
        if unit == "minutes":
            return line("unknown", f"{said} cannot be compared: nothing was timed; use --probe N")
        lacks = ", ".join(map(repr, price_lacks))
        return line("unknown", f"{said} cannot be compared: the price of {lacks} is not known; add it under [prices]")
    whole = fixed + search
    if whole.high is not None and whole.high <= amount:
        return line("covers", f"{said} covers it: at most {shown(whole.high)} are used")
    if fixed.low > amount:
        need = f"at least {shown(fixed.low)} are needed for the starting point and the final test"
        return line("too small", f"{said} is too small: {need}")
    if whole.high is None or fixed.high is None or search.high is None:
        return line("unknown", f"{said} cannot be compared: the most that the run can use is not known")
    share = max(0.0, amount - fixed.high) / search.high if search.high else 1.0
    step = min(rounds, math.floor(rounds * share))
    may = "would" if whole.low > amount else "may"
    after = f"after about step {step} of {rounds}" if step else "within the first step"
    return line("may stop", f"{said} {may} end the search {after}: up to {shown(whole.high)} are wanted")


def shown(number: float) -> str:
    """Write a number for people: whole where it is large, three digits where it is small."""
    return f"{number:,.0f}" if number >= 100 or number == round(number) else f"{number:.3g}"
