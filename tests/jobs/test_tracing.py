"""Which example the report draws: what the best candidate puts right, else what it still gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optograph.evals import Evaluation, ExampleResult, Task, Trial
from optograph.graphs import Candidate, Feedback
from optograph.jobs import RunOptions, optimize
from optograph.jobs.reporting import load_report
from optograph.jobs.tracing import example_to_trace
from optograph.storage import Journal

SEARCH: list[tuple[str, dict[str, Any]]] = [("fewshot", {"sets": 4, "size": 2, "first_rung": 8})]


def measured(scores: Sequence[float | None]) -> Evaluation:
    """Return the dev evaluation that gave these scores, of examples d0, d1 …"""
    names = tuple(f"d{number}" for number in range(len(scores)))
    feedback = [None if score is None else Feedback(score=score) for score in scores]
    results = tuple(ExampleResult(name, one) for name, one in zip(names, feedback, strict=True))
    return Evaluation(Trial(Candidate({}), "dev", names), results)


@pytest.mark.parametrize(
    ("start", "best", "chosen"),
    [
        ([1, 0, 0, 0], [0, 0, 1, 1], "d2"),  # the first one that was put right
        ([1, 0.4, 0.5], [1, 0.6, 1.0], "d2"),  # better is not yet right
        ([0, None, 0], [None, 1, 1], "d2"),  # what is missing is neither right nor wrong
        ([1, 1, 0], [1, 0, 0], "d1"),  # nothing was put right: the first that is wrong
        ([1, 0.5, 1], [1, 0.5, 1], "d1"),
        ([1, 1, 1], [1, 1, 1], "d0"),
        ([1, 1, 1], [None, 1, 1], "d1"),
        ([None, 1], [None, None], "d0"),
        ([1, 0, 1], None, "d1"),
    ],
)
def test_which_example(start: list[float | None], best: list[float | None] | None, chosen: str) -> None:
    assert example_to_trace(measured(start), None if best is None else measured(best)) == chosen


def test_the_report_draws_an_example_that_was_put_right(moods: Any, task: Task, tmp_path: Path) -> None:
    result = optimize(moods, task, optimizer=SEARCH, options=RunOptions(run_dir=tmp_path))
    before, after = result.dev
    assert before is not None
    assert after is not None
    assert before.scores[:2] == (1.0, 0.0), "the start gets the first example right and the second one wrong"
    assert after.scores[:2] == (1.0, 1.0)
    trace = load_report(tmp_path).trace
    assert trace is not None
    assert (trace.example, trace.score) == (task.dev[1].id, 1.0)
    assert any("rain" in node.detail for node in trace.nodes)
    with Journal.read(tmp_path) as journal:
        keys = [call.key for call in journal.calls()]
    assert len(keys) == len(set(keys)), "the trace is made from answers that are in the journal"
