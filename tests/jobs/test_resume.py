"""Going on with a run: same result as without the interruption, nothing paid twice, other inputs refused."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import BudgetExceeded, RunStopped, ServingError, UserError
from optograph.evals import EvaluatorOptions, Task
from optograph.jobs import RunOptions, RunResult, best_candidate, optimize
from optograph.jobs.reporting import result_data
from optograph.optimizers import OptoPrime, OptoPrimeOptions
from optograph.optimizers.checkpoints import CHECKPOINTS
from optograph.serving import BudgetLimits, Request, ScriptedLM
from optograph.stopping import STOP_FILE
from optograph.storage import Journal, content_hash

STAGES: list[tuple[str, dict[str, Any]]] = [
    ("fewshot", {"sets": 3, "size": 4, "first_rung": 4}),
    ("optoprime", {"steps": 3, "minibatch": 4}),
]


class Model:
    """The obedient model, which also proposes; it counts its requests and can fail at one of them."""

    def __init__(self, obedient: ScriptedLM) -> None:
        self.obedient = obedient
        self.asked: list[str] = []
        self.crash_at: int | None = None
        self.before: Callable[[int], None] = lambda number: None

    def make(self) -> ScriptedLM:
        """Give a model for one life of a run."""
        return ScriptedLM(self._reply, name="obedient")

    def _reply(self, request: Request) -> str:
        number = len(self.asked)
        self.before(number)
        if self.crash_at is not None and number >= self.crash_at:
            raise Crash
        self.asked.append(content_hash(request.to_json()))
        if "improve a program" in request.messages[0].content:
            words = ("carefully", "quickly", "slowly")[request.draw % 3]
            suggestion = {"judge.instruction": f"Judge {words}."}
            return json.dumps({"reasoning": "r", "answer": "CHANGE", "suggestion": suggestion})
        assert self.obedient._script is not None
        return str(self.obedient._script(request))


class Crash(BaseException):
    """Something that nobody catches, as a dying process."""


@pytest.fixture
def model(task_lm: ScriptedLM) -> Model:
    """The model of the runs."""
    return Model(task_lm)


@pytest.fixture
def start(make_moods: Callable[[ScriptedLM], Any], task: Task, model: Model) -> Callable[..., RunResult]:
    """Begin or go on with a run."""

    def run(run_dir: Path | None, *, stages: Any = STAGES, data: Task = task, **options: Any) -> RunResult:
        evaluation = EvaluatorOptions(concurrency=4)
        return optimize(
            make_moods(model.make()),
            data,
            optimizer=stages,
            options=RunOptions(evaluation=evaluation, run_dir=run_dir, **options),
        )

    return run


def test_a_run_that_dies_anywhere_comes_to_the_same_result(start: Any, model: Model, tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    bytes_of_whole = (tmp_path / "whole" / "result.json").read_bytes()
    paid = sorted(model.asked)
    assert whole.best.id != whole.start.id
    model.asked.clear()
    lives = 0
    for crash_at in range(3, len(paid), 9):
        model.crash_at = crash_at
        with pytest.raises(BaseException) as caught:
            start(tmp_path / "killed")
        assert isinstance(caught.value, Crash) or isinstance(caught.value.__cause__, Crash)
        lives += 1
        (tmp_path / "killed" / CHECKPOINTS).unlink(missing_ok=True)
    model.crash_at = None
    start(tmp_path / "killed")
    assert (tmp_path / "killed" / "result.json").read_bytes() == bytes_of_whole
    assert sorted(model.asked) == paid
    with Journal.read(tmp_path / "whole") as one, Journal.read(tmp_path / "killed") as other:
        assert other.lives == lives + 1
        strip = {"seconds": 0.0, "calls": 0}
        assert [row.model_copy(update=strip) for row in one.decisions()] == [
            row.model_copy(update=strip) for row in other.decisions()
        ]
        assert one.events("optoprime.step") == other.events("optoprime.step")
        assert len(one.evaluations()) == len(other.evaluations())


def test_a_finished_run_is_shown_again_and_nothing_is_asked(start: Any, model: Model, tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    asked = len(model.asked)
    again = start(tmp_path / "run")
    assert len(model.asked) == asked
    assert result_data(first) == result_data(again)


def test_other_inputs_are_refused_and_the_difference_is_shown(start: Any, task: Task, tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(UserError, match=r"seed: 0 → 1") as caught:
        start(tmp_path / "run", seed=1)
    assert "--fork" in str(caught.value)
    with pytest.raises(UserError, match=r"optimizer.2.steps: 3 → 4"):
        start(tmp_path / "run", stages=[STAGES[0], ("optoprime", {"steps": 4, "minibatch": 4})])
    fewer = Task(task.train, task.dev[1:], task.test, task.scorer)
    with pytest.raises(UserError, match=r"data 'dev': 1 removed \(b0\)"):
        start(tmp_path / "run", data=fewer)


def test_the_stop_file_ends_a_run_cleanly_and_it_goes_on_later(start: Any, model: Model, tmp_path: Path) -> None:
    start(tmp_path / "whole")
    paid = sorted(model.asked)
    model.asked.clear()
    directory = tmp_path / "run"
    model.before = lambda number: (directory / STOP_FILE).touch() if number == 30 else None
    with pytest.raises(RunStopped, match="stop file") as caught:
        start(directory)
    assert not caught.value.interrupted
    assert not (directory / "result.json").exists()
    with Journal.read(directory) as journal:
        assert (journal.get_meta("status") or {})["state"] == "stopped"
        assert best_candidate(journal) is not None
    model.before = lambda number: None
    start(directory)
    assert (directory / "result.json").read_bytes() == (tmp_path / "whole" / "result.json").read_bytes()
    assert sorted(model.asked) == paid


def test_the_first_interrupt_keeps_what_is_in_flight(start: Any, model: Model, tmp_path: Path) -> None:
    model.before = lambda number: signal.raise_signal(signal.SIGINT) if number == 20 else None
    before = signal.getsignal(signal.SIGINT)
    main = threading.main_thread().ident
    assert main is not None
    model.before = lambda number: signal.pthread_kill(main, signal.SIGINT) if number == 20 else None
    with pytest.raises(RunStopped) as caught:
        start(tmp_path / "run")
    assert caught.value.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    with Journal.read(tmp_path / "run") as journal:
        assert len(journal.calls()) == len(model.asked)
        assert (journal.get_meta("status") or {})["state"] == "interrupted"


def test_a_fork_starts_from_the_best_and_takes_the_answers(start: Any, model: Model, tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    asked = set(model.asked)
    model.asked.clear()
    forked = start(tmp_path / "fork", fork=tmp_path / "run", seed=1)
    assert forked.start.values == first.best.values
    assert not asked & set(model.asked)
    with Journal.read(tmp_path / "fork") as journal:
        assert any(row.attempts == 0 for row in journal.calls())


def test_a_replay_asks_nothing_and_gives_the_same_bytes(start: Any, model: Model, tmp_path: Path) -> None:
    start(tmp_path / "run")
    model.crash_at = 0
    start(tmp_path / "again", replay=tmp_path / "run")
    assert (tmp_path / "again" / "result.json").read_bytes() == (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(ServingError, match="recorded run holds no answer"):
        start(tmp_path / "other", replay=tmp_path / "run", seed=5)


def test_the_budget_goes_on_counting_and_covers_the_final_test(start: Any, model: Model, tmp_path: Path) -> None:
    result = start(tmp_path / "run", limits=BudgetLimits(calls=100))
    assert result.status == "budget"
    assert len(model.asked) <= 100
    again = start(tmp_path / "run", limits=BudgetLimits(calls=100))
    assert len(model.asked) <= 100
    assert result_data(again) == result_data(result)
    more = start(tmp_path / "run")
    assert more.status == "finished"


def test_a_budget_that_cannot_cover_the_test_is_refused_early(start: Any, model: Model, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="final test needs about"):
        start(tmp_path / "run", limits=BudgetLimits(calls=40))
    assert len(model.asked) == 16


def test_a_changed_workflow_source_is_refused(start: Any, task: Task, model: Model, tmp_path: Path) -> None:
    start(tmp_path / "run")

    def other(text: str) -> str:
        return text

    with pytest.raises(UserError, match="source 'tests"):
        optimize(
            other,
            task,
            optimizer=OptoPrime(OptoPrimeOptions(steps=1)),
            optimizer_lm=model.make(),
            parameters=[_parameter()],
            options=RunOptions(run_dir=tmp_path / "run"),
        )


def _parameter() -> Any:
    from optograph.graphs import Parameter

    return Parameter("x", name="x")
