"""An agent in a run: its calls are journalled, and the optimizer mends the description that its feedback points to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from optograph.agents import Agent, Module
from optograph.evals import Example, SealedSplit, Task, numeric
from optograph.jobs import RunOptions, load_job, optimize
from optograph.jobs.estimate import estimate_job
from optograph.serving import Request, ScriptedLM
from optograph.storage import Journal

PRICES = {"lamp": 24, "rug": 88, "fan": 29, "pan": 26, "jug": 15, "bowl": 6}


class Question(BaseModel):
    """A question about a price."""

    question: str


class Reply(BaseModel):
    """A price."""

    number: int


def price(item: str) -> int:
    """Look it up."""
    return PRICES[item]


class Shop(Module):
    def __init__(self, lm: Any) -> None:
        self.agent = Agent(
            "shop", lm=lm, inputs=Question, output=Reply, tools=[price], instruction="Answer.", description="Prices."
        )

    def forward(self, question: str) -> Any:
        return self.agent(question=question).number


def reader(request: Request) -> str:
    """Use the tool only where its description says that it gives prices."""
    said = request.messages[-1].content
    if said.startswith("Result: "):
        return json.dumps({"answer": {"number": int(said.removeprefix("Result: "))}})
    if "price of an item" in request.messages[0].content:
        return json.dumps({"price": {"item": said.split()[-1]}})
    return '{"answer": {"number": 0}}'


def editor(request: Request) -> str:
    """Mend what the prompt shows: the description of a tool that was never called."""
    shown = request.messages[-1].content
    assert "shop.decide(" in shown
    assert 'shop.price.description="Look it up."' in shown
    change = {"shop.price.description": "Gives the price of an item."}
    return json.dumps({"reasoning": "The tool was not used.", "answer": "CHANGE", "suggestion": change})


def rows(prefix: str, count: int) -> list[Example]:
    items = list(PRICES)
    return [
        Example(f"{prefix}{k}", {"question": f"{prefix}{k}, the price of {items[k % 6]}"}, PRICES[items[k % 6]])
        for k in range(count)
    ]


def test_the_description_of_a_tool_is_learned() -> None:
    task = Task(rows("a", 12), rows("b", 12), SealedSplit(rows("c", 12)), numeric(), "prices")
    shop = Shop(ScriptedLM(reader))
    with Journal.memory() as journal:
        result = optimize(
            shop,
            task,
            optimizer=[("optoprime", {"steps": 1, "minibatch": 4})],
            optimizer_lm=ScriptedLM(editor),
            journal=journal,
            options=RunOptions(seed=0),
        )
        calls = journal.calls()
    assert [one.mean for one in result.test] == [0.0, 1.0]
    assert shop.agent.descriptions["price"].data == "Gives the price of an item."
    assert {(call.context["role"], call.context["node"]) for call in calls} >= {("task", "shop")}
    assert isinstance(shop.agent.lm, ScriptedLM)  # as it was before the run


@pytest.mark.parametrize("steps", [2, 5])
def test_an_estimate_counts_the_calls_of_an_agent(steps: int, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from pydantic import BaseModel\n"
        "from optograph.agents import Agent, AgentOptions\n"
        "class Q(BaseModel):\n    text: str\n"
        "class A(BaseModel):\n    number: int\n"
        "def look(item: str) -> int:\n    '''Look.'''\n    return 1\n"
        "def build(lm):\n"
        f"    options = AgentOptions(max_steps={steps}, repairs=1)\n"
        "    return Agent('a', lm=lm, inputs=Q, output=A, tools=[look], instruction='Go.', options=options)\n"
    )
    for split in ("train", "dev", "test"):
        lines = [json.dumps({"id": f"{split}{k}", "text": f"{split} {k}", "label": 1}) for k in range(20)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    (tmp_path / "job.toml").write_text(
        '[workflow]\ntarget = "app.py:build"\n[task]\ntrain = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\n'
        '[models]\ntask = "local/smollm2-135m"\n[optimizer]\nname = "optoprime"\nsteps = 1\n'
    )
    estimate = estimate_job(load_job(tmp_path / "job.toml"), tmp_path)
    assert re.search(rf"Calls for an example: 1\D+{2 * steps} ", " ".join(estimate.notes))
    assert any("1 agent" in note for note in estimate.notes)
