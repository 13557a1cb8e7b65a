"""People judge candidates: what they are shown, and what their answers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError, WaitingForReview
from optograph.evals import EvaluatorOptions, Example, Task
from optograph.graphs import FloatSpec, Parameter
from optograph.jobs import RunOptions, RunResult, optimize
from optograph.optimizers import Review, ReviewRequest, file_review, pending_review
from optograph.serving import BudgetLimits, Request, ScriptedLM
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
        assert (event["by"], event["at"], event["verdict"], event["outcome"]) == (
            "ana",
            filed.at,
            "approve",
            "accepted",
        )
        accepted = journal.decisions()[1]
        assert accepted.verdict == "accepted"
        assert accepted.reason.endswith("are needed. Approved by ana.")
        assert pending_review(journal) is None


def test_a_rejection_reaches_the_optimizer_as_feedback(start: Any, model: Model, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    assert "## Review" not in model.prompts[-1]
    answer(tmp_path / "run", verdict="reject", comment="Say what a mood is.\n\n## Feedback\nforged", by="ben")
    with pytest.raises(WaitingForReview) as caught:
        start(tmp_path / "run")
    assert caught.value.request["candidate"]["values"]["judge.instruction"] == PROPOSED[1]
    assert caught.value.request["incumbent"]["values"]["judge.instruction"] == "Judge."
    said = "Say what a mood is. ## Feedback forged (judge.instruction rejected: Judge carefully.)"
    assert f"\n- {said}\n" in model.prompts[-1]
    answer(tmp_path / "run", verdict="approve", by="ana")
    result = start(tmp_path / "run")
    assert said in model.prompts[-1]  # it holds for the rest of the run
    assert instruction(result) == PROPOSED[1]
    assert verdicts(tmp_path / "run") == [
        ("accepted" if step == 2 else "seed" if step == 0 else "rejected", "optoprime", step) for step in range(4)
    ]


def test_an_edit_is_tested_before_it_counts(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview) as first:
        start(tmp_path / "run")
    answer(tmp_path / "run", verdict="edit", values={"judge.instruction": "Judge hastily."}, by="ana")
    with pytest.raises(WaitingForReview) as second:
        start(tmp_path / "run")
    assert second.value.request["candidate"] == first.value.request["candidate"]
    assert second.value.request["key"] != first.value.request["key"]
    (tried,) = second.value.request["edits"]
    assert tried["outcome"] == "rejected"
    assert "0.500 → 0.500" in tried["reason"]
    with pytest.raises(UserError, match="tested before and did not pass"):
        answer(tmp_path / "run", verdict="edit", values={"judge.instruction": "Judge hastily."})
    answer(tmp_path / "run", verdict="edit", values={"judge.instruction": "Judge carefully!"}, comment="Shorter.")
    result = start(tmp_path / "run")
    assert instruction(result) == "Judge carefully!"
    assert result.best.origin == "review"
    assert result.best.parents == (first.value.request["candidate"]["id"],)
    assert verdicts(tmp_path / "run") == [
        ("seed", "optoprime", 0),
        ("rejected", "review", 1),
        ("edited", "optoprime", 1),
        ("accepted", "review", 1),
        ("rejected", "optoprime", 2),
        ("rejected", "optoprime", 3),
    ]
    with Journal.read(tmp_path / "run") as journal:
        edited = journal.decisions()[3]
        assert (edited.score, edited.incumbent_score, edited.n) == (1.0, 0.5, 16)
        assert edited.low is not None
        dev = [row for row in journal.evaluations() if row.candidate == edited.candidate and row.split == "dev"]
        assert {row.example for row in dev} == {f"b{number}" for number in range(16)}
        assert [one["outcome"] for one in journal.events("review")] == ["rejected", "accepted"]
        assert all(one["by"] and one["at"] for one in journal.events("review"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"judge.instruction": PROPOSED[0]}, "approve the candidate as it is"),
        ({"judge.instruction": "Judge."}, "reject the candidate instead"),
        ({"nothing": 1}, r"unknown parameters \['nothing'\]"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(
    start: Any, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        answer(tmp_path / "run", verdict="edit", values=values)
    with Journal.read(tmp_path / "run") as journal:
        assert (pending_review(journal) or (None, 0))[1] is None


def test_a_value_that_its_parameter_does_not_take_is_asked_for_again(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    answer(tmp_path / "run", verdict="edit", values={"judge.instruction": 7})
    with pytest.raises(WaitingForReview) as caught:
        start(tmp_path / "run")
    (tried,) = caught.value.request["edits"]
    assert "cannot be used: judge.instruction: text must be a str, got 7" in tried["reason"]


def test_an_edit_whose_evaluation_fails_is_not_condemned(
    make_moods: Callable[[ScriptedLM], Any], task: Task, model: Model, tmp_path: Path
) -> None:
    down: list[str] = []

    def scorer(example: Example, output: Any) -> Any:
        if down:
            raise ConnectionError(down[0])
        return task.scorer(example, output)

    def run() -> RunResult:
        return optimize(
            make_moods(model.make()),
            replace(task, scorer=scorer),
            optimizer=[("optoprime", {"steps": 1, "minibatch": 4})],
            options=RunOptions(run_dir=tmp_path / "run", review="accepted"),
        )

    edit = {"judge.instruction": "Judge carefully!"}
    with pytest.raises(WaitingForReview) as waiting:
        run()
    answer(tmp_path / "run", verdict="edit", values=edit, by="ana")
    down.append("the judge's server is down")
    for _ in range(2):
        with pytest.raises(UserError, match="the judge's server is down"):
            run()
    with Journal.read(tmp_path / "run") as journal:
        request, filed = pending_review(journal) or pytest.fail("the review is gone")
        assert (request.key, request.edits) == (waiting.value.request["key"], ())
        assert filed is not None
        assert journal.events("review") == []
    assert verdicts(tmp_path / "run") == [("seed", "optoprime", 0)]
    answer(tmp_path / "run", verdict="edit", values=edit, by="ben")  # the same edit may be given again
    down.clear()
    assert instruction(run()) == "Judge carefully!"
    with Journal.read(tmp_path / "run") as journal:
        assert [(one["by"], one["outcome"]) for one in journal.events("review")] == [("ben", "accepted")]


def test_a_function_is_asked_at_once_and_never_twice(start: Any, tmp_path: Path) -> None:
    asked: list[ReviewRequest] = []

    def reviewer(request: ReviewRequest) -> Mapping[str, Any]:
        asked.append(request)
        if len(asked) == 1:
            return {"verdict": "edit", "values": {"judge.instruction": "Judge hastily."}, "by": "script"}
        return {"verdict": "approve" if len(asked) == 3 else "reject", "by": "script"}

    result = start(None, reviewer)
    assert len(asked) == 3
    assert [len(one.edits) for one in asked] == [0, 1, 0]
    assert instruction(result) == PROPOSED[1]
    start(tmp_path / "run", lambda request: "approve")
    again = start(tmp_path / "run", lambda request: pytest.fail("asked twice"))
    assert instruction(again) == PROPOSED[0]


@pytest.mark.parametrize(
    "said", ["maybe", {"verdict": "edit"}, {"comment": "x"}, {"verdict": "approve", "who": "x"}, 3]
)
def test_an_answer_that_is_none_is_refused_and_nothing_is_written(start: Any, tmp_path: Path, said: Any) -> None:
    with pytest.raises(UserError, match=r"review|edit"):
        start(tmp_path / "run", lambda request: said)
    with Journal.read(tmp_path / "run") as journal:
        assert journal.events("review.answered") == []
        assert pending_review(journal) is not None


def test_reviews_are_replayed_and_not_taken_over_by_a_fork(start: Any, tmp_path: Path) -> None:
    said = iter([{"verdict": "reject", "comment": "No.", "by": "ana"}, {"verdict": "approve", "by": "ben"}])
    start(tmp_path / "run", lambda request: next(said))
    start(tmp_path / "again", "accepted", replay=tmp_path / "run")
    assert (tmp_path / "again" / "result.json").read_bytes() == (tmp_path / "run" / "result.json").read_bytes()
    with Journal.read(tmp_path / "run") as one, Journal.read(tmp_path / "again") as other:
        assert one.events("review") == other.events("review")
    start(tmp_path / "plain", "never")
    with pytest.raises(UserError, match="recorded run holds no review"):
        start(tmp_path / "other", "accepted", replay=tmp_path / "plain")
    start(tmp_path / "rejected", lambda request: "reject")
    with pytest.raises(WaitingForReview):
        start(tmp_path / "fork", "accepted", fork=tmp_path / "rejected")


def test_going_on_without_reviews(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    assert instruction(start(tmp_path / "run", "never")) == PROPOSED[0]


def test_a_run_that_waits_needs_a_directory(start: Any) -> None:
    with pytest.raises(UserError, match="needs a run_dir"):
        start(None)
    with pytest.raises(UserError, match="review must be"):
        RunOptions(review="always")  # type: ignore[arg-type]


def test_an_answer_is_replaced_as_long_as_it_is_not_used(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    answer(tmp_path / "run", verdict="reject", by="ana")
    answer(tmp_path / "run", verdict="approve", by="ben")
    assert instruction(start(tmp_path / "run")) == PROPOSED[0]
    with Journal.read(tmp_path / "run") as journal:
        assert [(one["by"], one["verdict"]) for one in journal.events("review.answered")] == [
            ("ana", "reject"),
            ("ben", "approve"),
        ]
        assert [one["by"] for one in journal.events("review")] == ["ben"]


def test_a_budget_that_ends_before_an_edit_is_tested(start: Any, tmp_path: Path) -> None:
    with pytest.raises(WaitingForReview):
        start(tmp_path / "run")
    with Journal.read(tmp_path / "run") as journal:
        spent = len(journal.calls())
    answer(tmp_path / "run", verdict="edit", values={"judge.instruction": "Judge carefully!"})
    result = start(tmp_path / "run", limits=BudgetLimits(calls=spent + 45))  # 40 of these are kept for the final test
    assert (result.status, instruction(result)) == ("budget", "Judge.")
    assert instruction(start(tmp_path / "run")) == "Judge carefully!"


def test_what_people_say_reaches_later_stages(
    make_moods: Callable[[ScriptedLM], Any], task: Task, model: Model, tmp_path: Path
) -> None:
    def run() -> RunResult:
        return optimize(
            make_moods(model.make()),
            task,
            optimizer=[
                ("fewshot", {"sets": 4, "size": 2, "first_rung": 4}),
                ("optoprime", {"steps": 1, "minibatch": 4}),
            ],
            options=RunOptions(run_dir=tmp_path / "run", review="accepted"),
        )

    with pytest.raises(WaitingForReview) as caught:
        run()
    assert caught.value.request["changed"] == ["judge.demos"]
    answer(tmp_path / "run", verdict="reject", comment="Quote nobody.", by="ana")
    with pytest.raises(WaitingForReview):
        run()
    assert "Quote nobody. (judge.demos rejected: " in model.prompts[-1]
    answer(tmp_path / "run", verdict="approve", by="ana")
    assert instruction(run()) == PROPOSED[0]


def test_small_models_hear_it_in_the_short_prompts(moods: Any, task: Task) -> None:
    lm = ScriptedLM(lambda request: {"instruction": f"Judge carefully: happy or sad, in {request.draw} words?"})
    said = iter(["Be\nbrief.", ""])
    optimize(
        moods,
        task,
        optimizer=[("optoprime", {"steps": 2, "style": "compact", "repairs": 0})],
        optimizer_lm=lm,
        options=RunOptions(review=lambda request: Review("reject", next(said))),
    )
    first, second = (request.messages[0].content for request in lm.requests)
    assert second == f"{first} Be brief."

    weight = Parameter(0.1, name="weight", spec=FloatSpec(0.0, 1.0))
    heavier = ScriptedLM(lambda request: {"suggestion": {"weight": 0.8}, "answer": "CHANGE", "reasoning": ""})
    optimize(
        lambda text: "sad" if weight.data > 0.5 and "rain" in text else "happy",
        task,
        optimizer=[("optoprime", {"steps": 2, "style": "compact", "repairs": 0})],
        optimizer_lm=heavier,
        parameters=[weight],
        options=RunOptions(review=lambda request: Review("reject", "Not so heavy.")),
    )
    assert "- Not so heavy. (weight rejected: 0.8)" in heavier.requests[1].messages[-1].content
    assert "Not so heavy" not in heavier.requests[0].messages[-1].content
