"""Counterfactual groups: one call made again with all before it frozen, and everything after it run on."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from optograph.context import call_context
from optograph.errors import ServingError, UserError
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback, op
from optograph.optimizers.policy import (
    ResamplingLM,
    Target,
    counterfactual_rows,
    group_advantages,
    preference_rows,
    training_rows,
    with_token_ids,
)
from optograph.serving import LM, JournaledLM, Request, ScriptedLM, load_lm
from optograph.storage import Journal

START = Candidate({})
Tool = Callable[[str], str]


def looked_up(city: str) -> str:
    """The tool: always the same answer to the same question."""
    return f"{city} has {len(city)} letters"


def seeded(request: Request) -> str:
    """A model whose answer hangs on the seed: a city for a plan, a number for an answer."""
    number = (request.sampling_seed or 0) % 7
    return "x" * (number + 1) if request.text.startswith("plan") else f"say {number}"


def planner(tool: Tool) -> Callable[[LM], Callable[..., Any]]:
    """A plan, a tool that is called with it, and an answer that sees what the tool says."""

    def workflow(lm: LM) -> Callable[..., Any]:
        async def ask(node: str, text: str) -> str:
            with call_context(node=node):
                request = Request(prompt=text, temperature=1.0, seed=1, max_tokens=16)
                return (await lm.complete(request)).text

        @op
        async def solve(question: str) -> str:
            plan = await ask("plan", f"plan {question}")
            told = tool(plan)
            return told + ": " + await ask("answer", f"answer {question} knowing that {told}")

        return solve

    return workflow


def scored(example: Example, output: str) -> Feedback:
    """The number in the answer, and a tenth for each letter of the city."""
    said = re.search(r"say (\d+)", output)
    return Feedback((float(said[1]) if said else 0.0) + 0.1 * output.count("x"))


@dataclass
class Setting:
    """A workflow with its evaluator, and how often the model itself was asked."""

    evaluator: Evaluator
    lm: ResamplingLM
    script: ScriptedLM

    @property
    def asked(self) -> list[str]:
        return [request.text.split()[0] for request in self.script.requests]

    def resample(self, node: str, **options: Any) -> Any:
        settings: dict[str, Any] = {"samples": 3, "repeat": 0, "first": 100} | options
        return counterfactual_rows(self.evaluator, self.lm, START, ("a", "b"), Target(node), **settings)


def task() -> Task:
    rows = [[Example(name, {"question": f"of {name}"}, None) for name in names] for names in ("ab", "d", "t")]
    return Task(rows[0], rows[1], SealedSplit(rows[2]), scored)


def setting(tool: Tool = looked_up, script: Callable[[Request], str] = seeded) -> Setting:
    journal, scripted = Journal.memory(), ScriptedLM(script)
    lm = ResamplingLM(JournaledLM(with_token_ids(scripted), journal), journal)
    return Setting(Evaluator(planner(tool)(lm), task(), {}, journal), lm, scripted)


def test_what_comes_before_is_frozen_and_the_answer_alone_differs() -> None:
    here = setting()
    found = here.resample("answer")
    assert here.asked.count("plan") == 2  # once an example, and never again
    assert here.asked.count("answer") == 2 * 4
    assert len(found) == 8
    for example in "ab":
        group = [row for row in found.rows if row.example == example]
        assert len({row.input_ids[: row.prompt_length] for row in group}) == 1
        assert len({row.input_ids for row in group}) == 4
        assert {row.node for row in group} == {"answer"}
        assert group[0].rollout.endswith("/0")
        assert {(row.run_tokens, row.weight) for row in group} == {(row.actions, 1.0) for row in group}
        assert sum(row.reward for row in group_advantages(group)) == pytest.approx(0)
    for pair in preference_rows(found.rows):
        assert pair.chosen.reward > pair.rejected.reward
    assert len(preference_rows(found.rows)) == 2


def test_what_comes_after_runs_on() -> None:
    told: list[str] = []

    def tool(city: str) -> str:
        told.append(city)
        return looked_up(city)

    here = setting(tool)
    found = here.resample("plan")
    assert here.asked.count("plan") == here.asked.count("answer") == 8
    assert len(set(told)) == 4  # the tool was asked about each new plan
    assert {row.node for row in found.rows} == {"plan"}
    assert len({row.reward for row in found.rows}) == 4


def test_new_rollouts_are_whole_in_the_journal_and_frozen_calls_are_not_paid() -> None:
    here = setting()
    here.resample("answer")
    journal = here.evaluator.journal
    whole = training_rows(journal, repeats=range(100, 103))
    assert (len(whole), whole.incomplete) == (12, 0)  # plan and answer of six rollouts
    frozen = [call for call in journal.calls() if call.context["repeat"] >= 100 and call.context["node"] == "plan"]
    assert [(call.attempts, call.usd) for call in frozen] == [(0, None)] * 6


def test_resampling_again_asks_nothing() -> None:
    here = setting()
    before = here.resample("answer")
    count = len(here.script.requests)
    assert here.resample("answer") == before
    assert len(here.script.requests) == count
    more = here.resample("answer", samples=5)
    assert len(more) == 12
    assert len(here.script.requests) == count + 4


def test_an_example_in_which_the_workflow_does_not_repeat_itself_gives_no_group() -> None:
    numbers = itertools.count()

    def script(request: Request) -> str:
        return seeded(request) + "?" * request.text.startswith("plan of b")

    here = setting(lambda city: f"{city} {next(numbers) if '?' in city else ''}", script)
    found = here.resample("answer")
    assert found.unscored == 3
    assert {row.example for row in group_advantages(found.rows)} == {"a"}
    assert here.asked.count("answer") == 2 + 3  # what it would have asked for b was not asked


def test_a_workflow_that_never_repeats_itself_is_refused() -> None:
    numbers = itertools.count()
    here = setting(lambda city: f"{city} {next(numbers)}")
    with pytest.raises(ServingError, match="does not do the same twice"):
        here.resample("answer")


def test_examples_in_which_the_call_is_missing_are_counted() -> None:
    here = setting()
    found = here.resample("nobody")
    assert (len(found), found.without_calls) == (0, 2)
    second = counterfactual_rows(
        here.evaluator, here.lm, START, ("a",), Target("plan", 1), samples=1, repeat=0, first=5
    )
    assert (len(second), second.without_calls) == (0, 1)


def test_wrong_settings_are_refused() -> None:
    here = setting()
    with pytest.raises(UserError, match="repeats of their own"):
        here.resample("plan", repeat=101)
    with pytest.raises(UserError, match="samples of at least 1"):
        here.resample("plan", samples=0)
    other = setting()
    with pytest.raises(UserError, match="different journals"):
        counterfactual_rows(here.evaluator, other.lm, START, ("a",), Target("plan"), samples=1, repeat=0, first=5)


def test_a_greedy_node_is_refused() -> None:
    journal = Journal.memory()
    lm = ResamplingLM(JournaledLM(with_token_ids(ScriptedLM(lambda request: "same")), journal), journal)

    @op
    async def solve(question: str) -> str:
        with call_context(node="plan"):
            return (await lm.complete(Request(prompt=question))).text

    evaluator = Evaluator(solve, task(), {}, journal)
    with pytest.raises(UserError, match="answers greedily"):
        counterfactual_rows(evaluator, lm, START, ("a",), Target("plan"), samples=1, repeat=0, first=5)


def test_an_answer_that_was_given_twice_counts_once_with_its_mean() -> None:
    here = setting(script=lambda request: "x" if request.text.startswith("plan") else seeded(request))
    found = here.resample("plan")
    assert len(found) == 8
    assert preference_rows(found.rows) == []  # one and the same answer, whatever the rest earned


def test_groups_of_a_real_model() -> None:
    model = load_lm("local/smollm2-135m")
    journal = Journal.memory()
    lm = ResamplingLM(JournaledLM(with_token_ids(model), journal), journal)
    evaluator = Evaluator(planner(looked_up)(lm), task(), {}, journal)
    evaluator.evaluate([Trial(START, "train", ("a", "b"))])
    found = counterfactual_rows(evaluator, lm, START, ("a", "b"), Target("answer"), samples=2, repeat=0, first=10)
    assert len(found) == 6
    for example in "ab":
        group = [row for row in found.rows if row.example == example]
        assert len({row.input_ids[: row.prompt_length] for row in group}) == 1
        assert len({row.input_ids for row in group}) > 1
        assert all(row.policy.startswith("sha256:") for row in group)
    asyncio.run(lm.aclose())
