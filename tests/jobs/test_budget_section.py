"""Budget and prices of a job file: typed, named in errors, and handed to the ledger as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.errors import UserError
from optograph.jobs import Job, load_job
from optograph.jobs.job import job_from
from optograph.serving import BudgetLimits, Price, PriceTable, RoleLimits

JOB = """
[workflow]
target = "app.py:build"
[task]
train = "a.jsonl"
dev = "b.jsonl"
test = "c.jsonl"
"""
BUDGET = """
[budget]
calls = 4000
usd = 2.5
minutes = 30
[budget.optimizer]
calls = 100
[prices."openai/gpt-4.1"]
input = 2
output = 8.0
[prices."vllm/*"]
input = 0
output = 0
"""


def load(folder: Path, text: str, *overrides: str) -> Job:
    path = folder / "job.toml"
    path.write_text(JOB + text)
    return load_job(path, list(overrides))


def test_limits_and_prices_reach_the_ledger(tmp_path: Path) -> None:
    job = load(tmp_path, BUDGET)
    limits = job.limits()
    assert (limits.calls, limits.tokens, limits.usd, limits.minutes) == (4000, None, 2.5, 30)
    assert limits.roles == {"task": RoleLimits(), "optimizer": RoleLimits(calls=100), "judge": RoleLimits()}
    assert job.price_table() == PriceTable({"openai/gpt-4.1": Price(2, 8), "vllm/*": Price(0, 0)})
    again = job_from(job.model_dump(mode="json"), ["budget.optimizer.calls=200"], "the kept job")
    assert again.limits().roles["optimizer"] == RoleLimits(calls=200)
    assert again.price_table() == job.price_table()


def test_no_budget_is_no_limit(tmp_path: Path) -> None:
    job = load(tmp_path, "")
    assert job.limits() == BudgetLimits(roles=dict.fromkeys(("task", "optimizer", "judge"), RoleLimits()))
    assert job.price_table() == PriceTable()


def test_prices_can_be_set_from_the_command_line(tmp_path: Path) -> None:
    job = load(tmp_path, "", "prices.openai/gpt-4.1-mini.input=0.4", 'prices."openai/gpt-4.1-mini".output=1.6')
    assert job.price_table() == PriceTable({"openai/gpt-4.1-mini": Price(0.4, 1.6)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[budget]\nusd = 0", "budget.usd = 0"),
        ("[budget]\nusd = inf", "budget.usd = inf"),
        ("[budget.optimizer]\ncall = 1", "unknown key 'budget.optimizer.call'; did you mean 'calls'?"),
        ("[budget.judges]\ncalls = 1", "unknown key 'budget.judges'; did you mean 'judge'?"),
        ("[budget.task]\nminutes = 1", "unknown key 'budget.task.minutes'; known keys: calls, tokens, usd"),
        ("[budget]\noptimizer = 5", "budget.optimizer = 5"),
        ('[prices."openai/x"]\ninput = 1', "'prices.openai/x.output' is missing: add it"),
        ('[prices."openai/x"]\ninput = -1\noutput = 1', "prices.openai/x.input = -1"),
        (
            '[prices."openai/x"]\ninput = 1\noutput = 1\ninputs = 1',
            "unknown key 'prices.openai/x.inputs'; did you mean",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
