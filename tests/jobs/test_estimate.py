"""Estimates: what a finished run has used lies within them, they need no model, and they say what they assume."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optograph.errors import UserError
from optograph.evals import Evaluation, SealedSplit, Task, Trial, choice
from optograph.jobs import load_job, run_job
from optograph.jobs.estimate import Estimate, estimate_job, print_estimate
from optograph.jobs.rehearsal import instance_of
from optograph.jobs.sizing import Cost, Range, budget_lines
from optograph.optimizers import FewShotOptions, FewShotSearch, InSequence, Optimizer, OptoPrime, OptoPrimeOptions, Plan
from optograph.serving import BudgetLimits, JsonSchema, RoleLimits, schema_of
from optograph.storage import Journal
from optograph.testing import LoopbackServer

EXAMPLES = Path(__file__).parents[2] / "examples"
NOWHERE = "vllm/tiny@http://127.0.0.1:9/v1"


def estimate(path: Path, *overrides: str, probe: int = 0) -> Estimate:
    return estimate_job(load_job(path, list(overrides)), path.parent, probe=probe)


# -- the example jobs -----------------------------------------------------------------------------


def proposes(request: dict[str, Any]) -> bool:
    system = request["messages"][0]["content"]
    return "improve a program" in system or "improve one setting" in system or system.startswith("Rewrite")


def suggest(**values: Any) -> str:
    return json.dumps({"reasoning": "from the feedback", "answer": "CHANGE", "suggestion": values})


def ticket_reply(request: dict[str, Any]) -> str:
    if proposes(request):
        return '{"instruction": "Careful now: is it billing, technical, account, shipping or feedback?"}'
    return "billing" if "invoice" in request["messages"][-1]["content"] else "feedback"


def counting_reply(request: dict[str, Any]) -> str:
    if proposes(request):
        return suggest(**{"solve.instruction": "Think step by step, then give the total."})
    return "The total is 4." if "step by step" in request["messages"][0]["content"] else "It is 3."


def sensor_reply(request: dict[str, Any]) -> str:
    return suggest(gain=1.8) if len(request["messages"]) < 3 else "nothing to say"


def cut(train: int, dev: int, test: int) -> list[str]:
    sizes = (("train", train), ("dev", dev), ("test", test))
    return [f'task.{split}={{path="data/{split}.jsonl", limit={size}}}' for split, size in sizes]


REVIEWS = (
    'optimizer.stages=[{name="fewshot", sets=3, size=2, first_rung=4}, '
    '{name="optoprime", style="compact", steps=2, minibatch=4, repairs=1}]'
)
TICKETS = (
    'optimizer.stages=[{name="fewshot", sets=4, size=5, first_rung=4}, '
    '{name="optoprime", style="compact", steps=2, minibatch=6}]'
)


@pytest.mark.parametrize(
    ("name", "reply", "overrides"),
    [
        ("tickets", ticket_reply, [TICKETS, *cut(30, 10, 12)]),
        ("reviews", ticket_reply, [REVIEWS, *cut(24, 6, 8)]),
        ("counting", counting_reply, ["optimizer.steps=2"]),
        ("sensor", sensor_reply, ["optimizer.steps=3", "models.optimizer=MODEL"]),
        ("repair", sensor_reply, ["optimizer.steps=2", "models.optimizer=MODEL"]),
    ],
)
def test_what_a_run_of_an_example_uses_was_foreseen(
    name: str, reply: Callable[[dict[str, Any]], str], overrides: list[str], tmp_path: Path
) -> None:
    rows = [{"input": f"I have {n} apples and {n % 3} pears. How many?", "target": str(n)} for n in range(40)]
    (tmp_path / "counting.json").write_text(json.dumps({"examples": rows}))
    if name == "counting":
        overrides = [
            f"task.source={tmp_path / 'counting.json'}",
            "task.rows_key=examples",
            *("task.train={limit=16}", "task.dev={start=16, limit=12}", "task.test={start=28, limit=12}"),
            *overrides,
        ]
    path = EXAMPLES / name / "job.toml"
    before = estimate(path, f"models.task={NOWHERE}", *[one.replace("MODEL", NOWHERE) for one in overrides])
    labels = {"positive": -0.3, "negative": -1.4}
    with LoopbackServer(reply, models=("tiny",), labels=lambda body: labels) as server:
        model = f"vllm/tiny@{server.url}"
        settings = [f"models.task={model}", *[one.replace("MODEL", model) for one in overrides]]
        measured = estimate(path, *settings, probe=4)
        run_job(load_job(path, settings), path.parent, tmp_path / "run")
    with Journal.open(tmp_path / "run") as journal:
        calls = journal.calls()
    assert calls
    for foreseen in (before, measured):
        roles = {one.role: one.cost for one in foreseen.roles}
        assert {row.context["role"] for row in calls} <= set(roles)
        for role, cost in roles.items():
            own = [row for row in calls if row.context["role"] == role]
            used = {
                "calls": len(own),
                "prompt_tokens": sum(row.prompt_tokens for row in own),
                "completion_tokens": sum(row.completion_tokens for row in own),
            }
            for unit, number in used.items():
                assert getattr(cost, unit).holds(number), (name, role, unit, number, getattr(cost, unit))
        assert foreseen.total.usd == Range()
        assert foreseen.budget[0].verdict == "covers"
    assert (before.probe, before.total.minutes) == (None, None)
    assert measured.probe is not None
    assert measured.probe.examples == 4
    assert measured.total.minutes is not None


# -- jobs of our own ------------------------------------------------------------------------------

APP = """
from optograph.serving import make_request
def build(lm):
    async def workflow(text):
        first = (await lm.complete(make_request(text, max_tokens=20))).text
        return (await lm.complete(make_request(first * 3, max_tokens=10))).text
    return workflow
def alone():
    return lambda text: text
def broken(lm):
    def workflow(text):
        raise RuntimeError("no")
    return workflow
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    for split, count in (("train", 12), ("dev", 10), ("test", 8)):
        rows = [{"id": f"{split}{n}", "text": f"{split} text {n}", "label": "1"} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "app.py").write_text(APP)
    path = tmp_path / "job.toml"
    path.write_text(
        '[workflow]\ntarget = "app.py:build"\n[task]\ntrain = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\n'
        f'[models]\ntask = "{NOWHERE}"\n[optimizer]\nname = "optoprime"\nsteps = 3\nminibatch = 4\nrepairs = 1\n'
    )
    return path


def test_calls_are_counted_from_the_splits_and_the_plan(job: Path) -> None:
    found = estimate(job)
    task, optimizer = found.roles
    assert task.cost.calls == Range(low=10 + 8 + 4, high=2 * (10 + 2 * 8 + 3 * 10 + 2 * 4 * 3))
    assert optimizer.cost.calls == Range(low=3, high=6)
    assert task.cost.completion_tokens == Range(low=22, high=160 * 20)
    assert optimizer.cost.completion_tokens.high == 6 * 1024
    assert any("1 to 2 (as many as were seen" in note for note in found.notes)
    assert found.budget == []
    assert Estimate.model_validate_json(found.model_dump_json()) == found


def test_money_is_foreseen_where_prices_are_known(job: Path) -> None:
    far = "models.task=openai/gpt-4.1-mini@https://models.example/v1"
    found = estimate(job, far, "budget.usd=1.5")
    assert found.total.usd is None
    assert "price of 'openai/gpt-4.1-mini@https://models.example/v1' is not known" in found.notes[-1]
    assert (found.budget[0].limit, found.budget[0].verdict) == ("budget.usd", "unknown")
    prices = ["prices.openai/gpt-4.1-*.input=1", 'prices."openai/gpt-4.1-*".output=2']
    priced = estimate(job, far, *prices, "budget.usd=1.5")
    cost = priced.total
    assert cost.usd is not None
    assert cost.usd.high is not None
    assert cost.usd.high == pytest.approx(
        (cost.prompt_tokens.high or 0) / 1e6 + 2 * (cost.completion_tokens.high or 0) / 1e6
    )
    assert priced.budget[0].verdict == "covers"


def test_a_workflow_without_a_model_costs_nothing_itself(job: Path) -> None:
    found = estimate(job, "workflow.target=app.py:alone")
    assert found.roles[0].cost == Cost()
    assert any("takes no `lm`" in note for note in found.notes)


def test_a_workflow_that_cannot_be_rehearsed_is_still_counted(job: Path) -> None:
    found = estimate(job, "workflow.target=app.py:broken")
    assert found.roles[0].cost.calls.low == 0
    assert found.roles[0].cost.prompt_tokens.high is None
    assert any("12 of 12 rehearsed examples failed" in note for note in found.notes)


def test_bad_wishes_are_refused(job: Path) -> None:
    with pytest.raises(UserError, match="probe must be a number of examples, at least 0, not -1"):
        estimate(job, probe=-1)
    with pytest.raises(UserError, match="few-shot search needs"):
        estimate(job, "optimizer={name='fewshot', size=20}")


def test_an_estimate_is_shown_in_words(job: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_estimate(estimate(job, "budget.calls=100", "budget.optimizer.calls=9", "budget.minutes=5"), console)
    text = console.export_text()
    assert "12 train, 10 dev and 8 test examples; 3 steps at most" in text
    assert "22 to 160" in text
    assert "The budget of 100 calls may end the search after about step 1 of 3: up to 166 are wanted." in text
    assert "Budget.optimizer.calls = 9 covers it: at most 6 are used." in text
    assert "nothing was timed; use --probe N" in text


# -- plans ----------------------------------------------------------------------------------------


@dataclass
class Silent(Optimizer):
    """An optimizer by somebody who wrote no plan."""

    def ask(self) -> list[Trial]:
        return []

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing."""

    def rounds(self) -> int:
        return 0


def test_an_optimizer_without_a_plan_is_unknown(task: Task, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Silent().plan(task) is None
    assert InSequence(stages=[OptoPrime(), Silent()]).plan(task) is None
    monkeypatch.setattr("optograph.jobs.estimate.make_optimizer", lambda job: Silent())
    found = estimate(job, "budget.calls=1000", "budget.tokens=3")
    assert found.total.calls == Range(low=18, high=None)
    assert [line.verdict for line in found.budget] == ["unknown", "too small"]
    assert "does not say what it will do" in found.notes[0]


def test_the_rungs_of_a_few_shot_search_are_counted(task: Task) -> None:
    plan = FewShotSearch(options=FewShotOptions(sets=12, size=6, first_rung=4)).plan(task)
    # 12 sets on 4 examples; 6 on 4 more; 3 on the last 4 of the 12 that judge.
    assert (plan.train, plan.candidates, plan.dev) == ((84, 84), (12, 12), (1, 1))
    tiny = FewShotSearch(options=FewShotOptions(sets=12, size=1, first_rung=4, pool=0.1)).plan(task)
    assert tiny.train[0] < tiny.train[1]
    with pytest.raises(UserError, match="add some"):
        FewShotSearch(options=FewShotOptions(size=30)).plan(task)


def test_plans_follow_each_other() -> None:
    one = Plan(train=(5, 10), candidates=(1, 2), dev=(1, 1), growth=7)
    two = Plan(train=(3, 8), calls=(2, 4), prompt_tokens=(100, 200), max_tokens=50, growth=1)
    both = one.then(two)
    assert (both.train, both.dev, both.calls, both.prompt_tokens) == ((5, 18), (1, 1), (2, 4), (100, 200))
    assert (both.max_tokens, both.growth) == (50, 8)


def test_a_minibatch_is_no_larger_than_the_train_split(task: Task) -> None:
    few = Task(task.train[:3], task.dev, SealedSplit(task.test.peek()), choice(["happy", "sad"]))
    assert OptoPrime(OptoPrimeOptions(steps=2, minibatch=8)).plan(few).train == (3, 12)


# -- the budget's verdict -------------------------------------------------------------------------


def cost(low: float, high: float) -> Cost:
    return Cost(calls=Range(low=low, high=high))


@pytest.mark.parametrize(
    ("limit", "verdict", "said"),
    [
        (1000, "covers", "the budget of 1000 calls covers it: at most 1,000 are used"),
        (999, "may stop", "may end the search after about step 7 of 8"),
        (560, "may stop", "may end the search after about step 4 of 8: up to 1,000 are wanted"),
        (200, "may stop", "would end the search after about step 0 of 8"),
        (99, "too small", "too small: at least 100 are needed for the starting point and the final test"),
    ],
)
def test_the_verdict_on_a_limit(limit: int, verdict: str, said: str) -> None:
    search = {"task": cost(300, 600), "optimizer": cost(100, 280)}
    (line,) = budget_lines(BudgetLimits(calls=limit), cost(100, 120), search, 8, [])
    assert line.verdict == verdict
    assert said.replace("after about step 0 of 8", "within the first step") in line.text


def test_roles_are_judged_by_what_they_use() -> None:
    limits = BudgetLimits(
        roles={"task": RoleLimits(calls=720), "optimizer": RoleLimits(calls=50), "judge": RoleLimits(1)}
    )
    lines = budget_lines(limits, cost(100, 120), {"task": cost(300, 600), "optimizer": cost(100, 280)}, 8, [])
    assert [(line.limit, line.verdict) for line in lines] == [
        ("budget.task.calls", "covers"),
        ("budget.optimizer.calls", "may stop"),
        ("budget.judge.calls", "covers"),
    ]
    assert "would end the search after about step 1 of 8" in lines[1].text


# -- the stand-in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 3}, 3),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"x": {"type": "number"}}}}}, {"x": 1}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, None),
        ({"type": "string", "minLength": 3}, "xxx"),
    ],
)
def test_a_value_is_made_for_a_schema(schema: dict[str, Any], value: Any) -> None:
    assert instance_of(schema, schema) == value


def test_a_made_value_is_read_by_its_model() -> None:
    schema = schema_of(Estimate)
    assert isinstance(schema, JsonSchema)
    Estimate.model_validate(instance_of(schema.schema, schema.schema))
