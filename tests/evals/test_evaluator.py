"""The evaluator: concurrent, ordered, typed failures, and nothing scored that could not be."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from optograph.agents import Module
from optograph.context import current_context
from optograph.errors import ServingError, UserError
from optograph.evals import Evaluator, EvaluatorOptions, Task, Trial, from_callable
from optograph.graphs import Candidate, Feedback, Parameter, Subgraph, op, render
from optograph.serving import ScriptedLM
from optograph.storage import Journal


def ids(task: Task, split: str = "dev") -> tuple[str, ...]:
    return tuple(example.id for example in getattr(task, split))


def evaluator(workflow: Callable[..., Any], task: Task, *parameters: Parameter, **options: Any) -> Evaluator:
    named = {parameter.name: parameter for parameter in parameters}
    return Evaluator(workflow, task, named, options=EvaluatorOptions(**options))


def test_results_come_in_the_order_of_the_examples(task: Task) -> None:
    rng = random.Random(0)

    async def slow(text: str) -> str:
        await asyncio.sleep(rng.random() / 50)
        return "sad" if "rain" in text else "happy"

    (evaluation,) = evaluator(slow, task).evaluate([Trial(Candidate({}), "dev", ids(task))])
    assert [result.example for result in evaluation.results] == list(ids(task))
    assert evaluation.mean == 1.0


def test_candidates_do_not_leak_into_each_other(task: Task) -> None:
    word = Parameter("base", name="word")

    def workflow(text: str) -> str:
        time.sleep(0.002)
        return f"{word.data}/{current_context().candidate}"

    trials = [Trial(Candidate({"word": f"w{number}"}), "dev", ids(task)) for number in range(6)]
    evaluations = evaluator(workflow, task, word).evaluate(trials)
    for trial, evaluation in zip(trials, evaluations, strict=True):
        want = f"{trial.candidate.values['word']}/{trial.candidate.id}"
        assert {result.output for result in evaluation.results} == {want}
    assert word.data == "base"


def test_a_read_in_a_bare_thread_is_an_error_not_the_base_value(task: Task) -> None:
    word = Parameter("base", name="word")

    def workflow(text: str) -> str:
        seen: list[str] = []

        def read() -> None:
            try:
                seen.append(word.data)
            except UserError as error:
                seen.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        return seen[0]

    (evaluation,) = evaluator(workflow, task, word).evaluate([Trial(Candidate({"word": "x"}), "dev", ids(task)[:1])])
    assert "outside any candidate" in evaluation.results[0].output


def test_concurrency_is_bounded_and_used(task: Task) -> None:
    running = peak = 0
    lock, full = threading.Lock(), threading.Event()

    def workflow(text: str) -> str:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
            if running == 4:
                full.set()
        assert full.wait(60)
        time.sleep(0.01)
        with lock:
            running -= 1
        return "happy"

    evaluator(workflow, task, concurrency=4).evaluate([Trial(Candidate({}), "dev", ids(task))])
    assert peak == 4


def test_a_failing_example_is_a_scored_failure_with_its_type(task: Task) -> None:
    @op
    def broken(text: str) -> str:
        if "rain" in text:
            raise KeyError("umbrella")
        return "happy"

    (evaluation,) = evaluator(broken, task).evaluate([Trial(Candidate({}), "dev", ids(task), want_trace=True)])
    wrong = evaluation.results[1]
    assert (evaluation.mean, evaluation.missing) == (0.5, 0)
    assert wrong.feedback is not None
    assert (wrong.feedback.score, wrong.feedback.failure_type) == (0.0, "KeyError")
    assert "umbrella" in wrong.feedback.text


def test_a_failed_step_can_be_blamed(moods: Any, task: Task) -> None:
    moods.judge.lm = ScriptedLM(lambda request: "neither")
    named = moods.named_parameters()
    journal = Journal.memory()
    (evaluation,) = Evaluator(moods, task, named, journal).evaluate(
        [Trial(Candidate({}), "dev", ids(task)[:1], want_trace=True)]
    )
    result = evaluation.results[0]
    assert result.feedback is not None
    assert result.feedback.failure_type == "ModelError"
    assert result.subgraph is not None
    text = render([Subgraph.from_json(journal.get(result.subgraph))], budget_tokens=2000).text
    assert "judge.instruction" in text
    assert "neither" in text


def test_an_infrastructure_failure_is_tried_again_then_missing(moods: Any, task: Task) -> None:
    failures: dict[str, int] = {}

    def flaky(request: Any) -> str:
        text = request.messages[-1].content
        failures[text] = failures.get(text, 0) + 1
        if "day 0 " in text or ("day 1 " in text and failures[text] == 1):
            raise ServingError("endpoint gone", kind="connection")
        return "happy"

    moods.judge.lm = ScriptedLM(flaky)
    journal = Journal.memory()
    runner = Evaluator(moods, task, moods.named_parameters(), journal)
    (evaluation,) = runner.evaluate([Trial(Candidate({}), "dev", ids(task)[:4])])
    assert evaluation.scores == (None, 0.0, 1.0, 0.0)
    assert "endpoint gone" in (evaluation.results[0].error or "")
    assert journal.find_evaluation(Candidate({}).id, "dev", "b0", 0) is None


def test_a_dead_endpoint_stops_the_job(moods: Any, task: Task) -> None:
    moods.judge.lm = ScriptedLM(lambda request: ServingError("refused", kind="connection"))
    with pytest.raises(ServingError, match="no example could be evaluated"):
        evaluator(moods, task).evaluate([Trial(Candidate({}), "dev", ids(task))])


def test_the_deadline_is_a_typed_failure(task: Task) -> None:
    async def stuck(text: str) -> str:
        await asyncio.sleep(5)
        return "happy"

    (evaluation,) = evaluator(stuck, task, deadline_s=0.05).evaluate([Trial(Candidate({}), "dev", ids(task)[:2])])
    assert [result.feedback and result.feedback.failure_type for result in evaluation.results] == ["timeout"] * 2


def test_what_is_journalled_is_not_run_again(moods: Any, task: Task) -> None:
    journal = Journal.memory()
    runner = Evaluator(moods, task, moods.named_parameters(), journal)
    trial = Trial(Candidate({}), "dev", ids(task))
    first = runner.evaluate([trial])
    calls = len(moods.judge.lm.requests)
    again = runner.evaluate([trial])
    assert len(moods.judge.lm.requests) == calls
    assert [one.scores for one in first] == [one.scores for one in again]
    runner.evaluate([replace(trial, repeat=1)])
    assert len(moods.judge.lm.requests) == 2 * calls


def test_progress_counts_every_example(moods: Any, task: Task) -> None:
    seen: list[tuple[int, int]] = []
    runner = Evaluator(moods, task, moods.named_parameters(), progress=lambda done, total: seen.append((done, total)))
    runner.evaluate([Trial(Candidate({}), "dev", ids(task))])
    assert seen == [(number, 16) for number in range(1, 17)]


def test_mistakes_are_clear(moods: Any, task: Task) -> None:
    with pytest.raises(UserError, match="unknown parameters"):
        evaluator(moods, task).evaluate([Trial(Candidate({"x": 1}), "dev", ids(task))])
    with pytest.raises(UserError, match="no example 'zz'"):
        evaluator(moods, task).evaluate([Trial(Candidate({}), "dev", ("zz",))])
    with pytest.raises(UserError, match="concurrency"):
        EvaluatorOptions(concurrency=0)


def test_exit_in_a_workflow_fails_its_example_only(task: Task) -> None:
    def workflow(text: str) -> str:
        if "rain" in text:
            raise SystemExit(3)
        return "happy"

    async def later(text: str) -> str:
        return workflow(text)

    traced = op(workflow)
    for one in (workflow, traced, lambda text: traced(text), later, op(later), lambda text: later(text)):
        (evaluation,) = evaluator(one, task).evaluate([Trial(Candidate({}), "dev", ids(task)[:4])])
        assert evaluation.scores == (1.0, 0.0, 1.0, 0.0)
        assert evaluation.results[1].error == "ExitCalled: the workflow called exit(3)"


def test_stop_iteration_in_a_workflow_fails_its_example_only(task: Task) -> None:
    def workflow(text: str) -> str:
        return next(word for word in ["happy"] if "rain" not in text)

    for one in (workflow, op(workflow)):
        (evaluation,) = evaluator(one, task).evaluate([Trial(Candidate({}), "dev", ids(task)[:4])])
        assert evaluation.scores == (1.0, 0.0, 1.0, 0.0)
        assert "StopIteration" in (evaluation.results[1].error or "")


def test_an_async_forward_is_awaited(task: Task) -> None:
    class Later(Module):
        async def forward(self, text: str) -> str:
            await asyncio.sleep(0)
            return "sad" if "rain" in text else "happy"

    (evaluation,) = evaluator(Later(), task).evaluate([Trial(Candidate({}), "dev", ids(task))])
    assert evaluation.mean == 1.0


def test_a_slow_example_fails_alone(task: Task) -> None:
    first = f"{task.dev[0].input['text']}"

    def workflow(text: str) -> str:
        if text == first:
            time.sleep(0.4)
        return "happy"

    runner = evaluator(workflow, task, concurrency=1, deadline_s=0.2)
    (evaluation,) = runner.evaluate([Trial(Candidate({}), "dev", ids(task)[:3])])
    assert [result.feedback and result.feedback.failure_type for result in evaluation.results] == [
        "timeout",
        "wrong",
        None,
    ]


def test_a_timeout_of_the_workflows_own_is_its_failure(task: Task) -> None:
    def workflow(text: str) -> str:
        raise TimeoutError("the database was slow")

    (evaluation,) = evaluator(workflow, task).evaluate([Trial(Candidate({}), "dev", ids(task)[:1])])
    assert "the database was slow" in (evaluation.results[0].error or "")


def test_a_broken_scorer_stops_the_job(task: Task) -> None:
    broken = replace(task, scorer=from_callable(lambda expected: 1.0))  # type: ignore[arg-type, misc]
    with pytest.raises(UserError, match="the scorer failed on example 'b0': TypeError"):
        evaluator(lambda text: "happy", broken).evaluate([Trial(Candidate({}), "dev", ids(task))])
    silent = replace(task, scorer=lambda example, output: Feedback(score=None, text="hm"))
    with pytest.raises(UserError, match="with a score"):
        evaluator(lambda text: "happy", silent).evaluate([Trial(Candidate({}), "dev", ids(task))])
