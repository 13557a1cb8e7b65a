"""Limits of agents: each ends a run with a typed outcome, and what was done so far is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from optograph.agents import Agent, AgentStopped
from optograph.errors import BudgetExceeded, ServingError
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial, exact
from optograph.graphs import Candidate, OpError
from optograph.serving import Budget, BudgetLimits, JournaledLM, ScriptedLM
from optograph.storage import Journal
from tests.agents.helping import ADD, LAMP, Reply, ancestors, answer, calculate, call, last_text, make


def test_the_budget_ends_it() -> None:
    lm = ScriptedLM(lambda request: ADD)
    with Journal.memory() as journal:
        journaled = JournaledLM(lm, journal, Budget(BudgetLimits(calls=2)))
        with pytest.raises(BudgetExceeded):
            make(journaled, max_repeats=None)(question="?")  # type: ignore[arg-type]
        rows = journal.calls()
    assert [row.context["node"] for row in rows] == ["helper", "helper"]


@pytest.mark.parametrize(
    ("options", "replies", "reason", "tools_used"),
    [
        ({"max_steps": 2}, [ADD, LAMP], "max_steps", 2),
        ({"max_tool_calls": 1}, [ADD, LAMP], "max_tool_calls", 1),
        ({"max_tool_calls": 0}, [ADD], "max_tool_calls", 0),
        ({"max_repeats": 1}, [ADD, ADD, ADD], "repeated_call", 2),
        ({"max_repeats": 0}, [ADD, LAMP, LAMP], "repeated_call", 2),
    ],
)
def test_limits_end_with_a_typed_outcome(
    options: dict[str, Any], replies: list[str], reason: str, tools_used: int
) -> None:
    result = make(ScriptedLM(replies), **options).run(question="?")
    assert (result.output, result.stop_reason, len(result.steps)) == (None, reason, tools_used)
    names = {one.name for one in ancestors(result.value)}
    assert {"helper", "helper.decide", "helper.instruction"} <= names
    with pytest.raises(OpError, match="agent 'helper' stopped") as caught:
        make(ScriptedLM(replies), **options)(question="?")
    assert isinstance(caught.value.original, AgentStopped)
    assert caught.value.original.stop_reason == reason


def test_the_same_call_after_another_one_is_no_loop() -> None:
    result = make(ScriptedLM([ADD, LAMP, ADD, answer(3)]), max_repeats=0).run(question="?")
    assert result.stop_reason == "answered"
    assert make(ScriptedLM([ADD] * 5 + [answer(3)]), max_repeats=None).run(question="?").stop_reason == "answered"


def test_the_answer_can_be_forced_at_the_end() -> None:
    lm = ScriptedLM([ADD, answer(3)])
    result = make(lm, max_steps=2, force_answer=True).run(question="?")
    assert result.output == Reply(number=3)
    assert "calculate" not in lm.requests[1].messages[0].content
    assert "anyOf" not in json.dumps((lm.requests[1].schema or lm).to_json())  # type: ignore[union-attr]
    assert make(ScriptedLM([ADD, answer(3)]), max_tool_calls=1, force_answer=True).run(question="?").output


def test_the_deadline_ends_it_in_the_midst_of_a_slow_tool() -> None:
    async def sleep(seconds: float) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return "done"

    lm = ScriptedLM([ADD, call("sleep", seconds=60)])
    started = time.monotonic()
    result = make(lm, tools=[calculate, sleep], deadline_s=0.3).run(question="?")
    assert time.monotonic() - started < 20
    assert (result.stop_reason, len(result.steps)) == ("deadline", 1)
    assert "helper.calculate" in {one.name for one in ancestors(result.value)}


def test_a_tools_own_timeout_is_an_observation() -> None:
    def fetch() -> str:
        """Fetch."""
        raise TimeoutError("slow")

    result = make(ScriptedLM([call("fetch"), answer(0)]), tools=[fetch], deadline_s=60).run(question="?")
    assert result.steps[0].error == "TimeoutError: slow"


def test_long_results_are_cut_for_the_model_only() -> None:
    def read() -> str:
        """Read."""
        return "x" * 100

    lm = ScriptedLM([call("read"), answer(0)])
    result = make(lm, tools=[read], max_result_chars=10).run(question="?")
    assert result.steps[0].result == "x" * 100
    assert last_text(lm) == f"Result: {'x' * 10}… (90 characters left out)"


def test_a_conversation_that_has_grown_too_long_is_the_agents_failure() -> None:
    long = ServingError("the prompt is too long", kind="context_length")
    assert make(ScriptedLM([ADD, long])).run(question="?").stop_reason == "no_decision"
    with pytest.raises(ServingError):
        make(ScriptedLM([long]))(question="?")


@pytest.mark.parametrize("wrap", [lambda agent: agent, lambda agent: lambda question: agent(question=question)])
def test_an_evaluator_scores_a_limit_as_a_failure(wrap: Callable[[Agent], Any]) -> None:
    agent = make(ScriptedLM(lambda request: ADD if "loop" in request.text else answer(3)))
    rows = [Example(str(number), {"question": text}, {"number": 3.0}) for number, text in enumerate(["loop", "go"])]
    task = Task(rows, [Example("d", {"question": "d"}, 1)], SealedSplit([Example("t", {"question": "t"}, 1)]), exact())
    evaluator = Evaluator(wrap(agent), task, agent.named_parameters())
    (evaluation,) = evaluator.evaluate([Trial(Candidate({}), "train", ("0", "1"), want_trace=True)])
    failed, _ = evaluation.results
    assert failed.feedback is not None
    assert (failed.feedback.score, failed.feedback.failure_type) == (0.0, "AgentStopped")
    assert failed.calls == 4
    assert failed.subgraph is not None
    assert evaluation.missing == 0
