"""People judge candidates: what they are shown, what their answers do, and that a pause can't lose or repeat anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError, WaitingForReview
from optograph.evals import EvaluatorOptions, Task
from optograph.jobs import RunOptions, RunResult, optimize
from optograph.optimizers import Review, ReviewRequest, file_review, pending_review
from optograph.optimizers.checkpoints import CHECKPOINTS
from optograph.serving import Request, ScriptedLM
from optograph.storage import Journal

PROPOSED = ("Judge carefully.", "Judge carefully, and be kind.", "Judge carefully, please.")
"""What the model proposes, in this order; each of them passes the acceptance test against the start."""


class Model:
    """The obedient model, which also proposes; it keeps the prompts of its proposals."""

    def __init__(self, obedient: ScriptedLM) -> None:
        self.prompts: list[str] = []
        assert obedient._script is not None
        self._obedient = obedient._script

    def make(self) -> ScriptedLM:
        return ScriptedLM(self._reply, name="obedient")

    def _reply(self, request: Request) -> Any:
        if "improve a program" not in request.messages[0].content:
            return self._obedient(request)
        self.prompts.append(request.messages[-1].content)
        text = PROPOSED[(request.draw // 3) % len(PROPOSED)]
        return {"reasoning": "r", "answer": "CHANGE", "suggestion": {"judge.instruction": text}}


@pytest.fixture
def model(task_lm: ScriptedLM) -> Model:
    return Model(task_lm)


@pytest.fixture
def start(make_moods: Callable[[ScriptedLM], Any], task: Task, model: Model) -> Callable[..., RunResult]:
    """Begin or go on with a run of three proposals."""

    def run(run_dir: Path | None, review: Any = "accepted", **options: Any) -> RunResult:
        return optimize(
            make_moods(model.make()),
            task,
            optimizer=[("optoprime", {"steps": 3, "minibatch": 4})],
            options=RunOptions(evaluation=EvaluatorOptions(concurrency=4), run_dir=run_dir, review=review, **options),
        )

    return run


def answer(run_dir: Path, **review: Any) -> Review:
    """Write a review as `optograph review` does."""
    with Journal.open(run_dir) as journal:
        pending = pending_review(journal)
        assert pending is not None
        return file_review(journal, pending[0], Review(**review))


def instruction(result: RunResult) -> Any:
    return result.best.to_json()["values"]["judge.instruction"]


def verdicts(run_dir: Path) -> list[tuple[str, str, int]]:
    with Journal.read(run_dir) as journal:
        return [(row.verdict, row.optimizer, row.step) for row in journal.decisions()]


def test_a_run_waits_and_an_approval_lets_it_go_on(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview, match="waits for a review of candidate") as caught:
        start(tmp_path / "run")
    request = ReviewRequest.from_json(caught.value.request)
    assert request.changed == ["judge.instruction"]
    assert request.candidate.values["judge.instruction"] == PROPOSED[0]
    assert (request.incumbent_score, request.score, request.n) == (0.5, 1.0, 16)
    assert request.low is not None
    assert request.low > 0
    assert [one["before_score"] for one in request.examples] == [0.0] * 6
    assert {one["after"] for one in request.examples} == {"sad"}
    assert request.parameters["judge.instruction"]["kind"] == "text"
    with Journal.read(tmp_path / "run") as journal:
        assert (journal.get_meta("status") or {})["state"] == "waiting"
        assert pending_review(journal) == (request, None)
        assert [row.verdict for row in journal.decisions()] == ["seed"]
    assert not (tmp_path / "run" / "result.json").exists()
    filed = answer(tmp_path / "run", verdict="approve", by="ana")
    assert filed.at.endswith("+00:00")
    result = start(tmp_path / "run")
    assert instruction(result) == PROPOSED[0]
    with Journal.read(tmp_path / "run") as journal:
        (event,) = journal.events("review")
        assert (event["by"], event["at"], event["verdict"], event["outcome"]) == ("ana", filed.at, "approve", "accepted")
        accepted = journal.decisions()[1]
        assert accepted.verdict == "accepted"
        assert accepted.reason.endswith("are needed. Approved by ana.")
        assert pending_review(journal) is None
