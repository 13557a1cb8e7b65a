"""The optimizers on a small workflow: what they ask, what they keep, and what they never do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from optograph.errors import ServingError, UserError
from optograph.evals import Evaluator, Task
from optograph.graphs import Candidate
from optograph.jobs import RunOptions, RunResult, optimize
from optograph.optimizers import (
    AcceptanceRule,
    FewShotOptions,
    FewShotSearch,
    InSequence,
    Loop,
    Optimizer,
    OptimizerContext,
    OptoPrime,
    OptoPrimeOptions,
)
from optograph.serving import BudgetLimits, Capabilities, ScriptedLM
from optograph.storage import Journal


def suggest(text: str) -> str:
    return json.dumps({"reasoning": "be careful", "answer": "CHANGE", "suggestion": {"judge.instruction": text}})


def run(
    workflow: Any, task: Task, optimizer: Optimizer, lm: ScriptedLM | None, **options: Any
) -> tuple[RunResult, Journal]:
    journal = Journal.memory()
    result = optimize(
        workflow, task, optimizer=optimizer, optimizer_lm=lm, journal=journal, options=RunOptions(**options)
    )
    return result, journal


def test_a_small_model_rewrites_after_a_pattern_and_is_checked(moods: Any, task: Task) -> None:
    replies: list[str | dict[str, str]] = [
        "Judge it.",  # no JSON
        {"instruction": "Judge carefully, please."},  # names no answers
        {"instruction": "Happy or sad: rain came over the town today"},  # copies a train example
        {"instruction": "Does the sentence ask something? Answer happy or sad."},  # copies an example of a rewriting
        {"instruction": "Judge carefully: happy or sad?"},
    ]
    lm = ScriptedLM(replies)
    _, journal = run(moods, task, OptoPrime(OptoPrimeOptions(steps=1, style="compact", repairs=4)), lm)
    assert moods.judge.instruction.data == "Judge carefully: happy or sad?"
    assert journal.events("optoprime.step")[0]["calls"] == 5
    first, second = (request.messages for request in lm.requests[:2])
    assert first[-1].content == "Allowed answers: happy, sad\nInstruction: Judge."
    assert first != second
    assert not any("day" in message.content for message in first)


def test_optoprime_finds_and_keeps_a_better_instruction(moods: Any, task: Task) -> None:
    lm = ScriptedLM([suggest("Judge quickly."), suggest("Judge carefully."), "TERMINATE"])
    optimizer = OptoPrime(OptoPrimeOptions(steps=3))
    result, journal = run(moods, task, optimizer, lm)
    assert moods.judge.instruction.data == "Judge carefully."
    assert (result.test[0].mean, result.test[1].mean) == (0.5, 1.0)
    assert result.difference.low > 0
    assert [row.verdict for row in journal.decisions()] == ["seed", "rejected", "accepted"]
    assert [event["result"] for event in journal.events("optoprime.step")] == ["nominated", "nominated", "terminated"]
    assert {call.context["role"] for call in journal.calls()} == {"task", "optimizer"}


def test_the_full_prompt_shows_the_traced_program_and_each_feedback(moods: Any, task: Task) -> None:
    lm = ScriptedLM(["TERMINATE"])
    run(moods, task, OptoPrime(OptoPrimeOptions(steps=1, minibatch=4)), lm)
    prompt = lm.requests[0].messages[-1].content
    assert "judge(" in prompt
    assert "trim(" not in prompt  # what no parameter has a part in is an input, not code
    assert "trim_1" in prompt
    assert "judge.instruction" in prompt
    assert "Wrong: the answer was 'happy', the expected answer is 'sad'." in prompt


def test_a_masked_section_is_left_out(moods: Any, task: Task) -> None:
    lm = ScriptedLM(["TERMINATE"])
    run(moods, task, OptoPrime(OptoPrimeOptions(steps=1, mask=("feedback",))), lm)
    assert "Wrong: the answer was" not in lm.requests[0].messages[-1].content


def test_an_unusable_answer_is_repaired_with_what_was_wrong(moods: Any, task: Task) -> None:
    lm = ScriptedLM(["I would rather chat.", suggest("Judge carefully.")])
    _, journal = run(moods, task, OptoPrime(OptoPrimeOptions(steps=1)), lm)
    assert "no complete JSON value" in lm.requests[1].messages[-1].content
    assert journal.events("optoprime.step")[0]["calls"] == 2
    assert moods.judge.instruction.data == "Judge carefully."


def test_repairs_are_bounded_and_nothing_changes(moods: Any, task: Task) -> None:
    lm = ScriptedLM(["no"] * 3)
    result, journal = run(moods, task, OptoPrime(OptoPrimeOptions(steps=1, repairs=2)), lm)
    assert result.best == result.start
    (event,) = journal.events("optoprime.step")
    assert event["result"] == "invalid"
    assert "no complete JSON value" in event["reason"]


def test_a_failed_call_does_not_touch_the_memory(moods: Any, task: Task) -> None:
    optimizer = OptoPrime(OptoPrimeOptions(steps=2))
    with pytest.raises(ServingError):
        run(moods, task, optimizer, ScriptedLM([ServingError("down")]))
    assert optimizer.state_dict()["memory"] == []


def test_memory_is_written_after_a_finished_step(moods: Any, task: Task) -> None:
    lm = ScriptedLM([suggest("Judge quickly."), "TERMINATE"])
    optimizer = OptoPrime(OptoPrimeOptions(steps=2))
    run(moods, task, optimizer, lm)
    (entry,) = optimizer.state_dict()["memory"]
    assert entry["values"] == {"judge.instruction": "Judge quickly."}
    assert "Judge quickly." in lm.requests[1].messages[-1].content


def test_a_value_is_not_tried_twice(moods: Any, task: Task) -> None:
    lm = ScriptedLM([suggest("Judge quickly.")] * 3)
    _, journal = run(moods, task, OptoPrime(OptoPrimeOptions(steps=3)), lm)
    assert [event["result"] for event in journal.events("optoprime.step")] == ["nominated", "unchanged", "unchanged"]


def test_a_model_without_schemas_gets_none(moods: Any, task: Task) -> None:
    lm = ScriptedLM([suggest("Judge carefully.")], capabilities=Capabilities())
    run(moods, task, OptoPrime(OptoPrimeOptions(steps=1)), lm)
    assert lm.requests[0].schema is None


def test_few_shot_search_finds_demonstrations_that_work(moods: Any, task: Task) -> None:
    search = FewShotSearch(FewShotOptions(sets=6, size=2, first_rung=4))
    result, journal = run(moods, task, search, None)
    assert len(moods.judge.demos.data) == 2
    assert result.test[1].mean == 1.0
    widths = [
        len({row.example for row in journal.evaluations() if row.candidate == one.id}) for one in journal.candidates()
    ]
    assert min(widths[1:]) == 4
    assert {row.split for row in journal.evaluations()} == {"train", "dev", "test"}


def test_stages_build_on_each_other(moods: Any, task: Task) -> None:
    stages: list[Optimizer] = [
        FewShotSearch(FewShotOptions(sets=4, size=2, first_rung=4)),
        OptoPrime(OptoPrimeOptions(steps=1)),
    ]
    result, journal = run(moods, task, InSequence(stages=stages), ScriptedLM([suggest("Judge with care.")]))
    assert [row.optimizer for row in journal.decisions()] == ["fewshot", "fewshot", "optoprime"]
    assert result.best.values["judge.demos"]


def test_the_budget_ends_the_search_and_is_not_passed(moods: Any, task: Task) -> None:
    lm = ScriptedLM(lambda request: suggest(f"Judge {request.draw} times."))
    result, journal = run(moods, task, OptoPrime(OptoPrimeOptions(steps=50)), lm, limits=BudgetLimits(calls=90))
    assert result.status == "budget"
    assert 60 < len(journal.calls()) <= 90
    assert not result.test[0].missing


def test_equal_seeds_give_equal_runs(make_moods: Any, task: Task, task_lm: ScriptedLM) -> None:
    seen = []
    for _ in range(2):
        lm = ScriptedLM([suggest("Judge quickly."), suggest("Judge carefully.")])
        stages: list[Optimizer] = [
            FewShotSearch(FewShotOptions(sets=4, size=2, first_rung=4)),
            OptoPrime(OptoPrimeOptions(steps=2)),
        ]
        result, journal = run(make_moods(task_lm), task, InSequence(stages=stages), lm)
        seen.append(
            (result.best.id, [row.id for row in journal.candidates()], [row.reason for row in journal.decisions()])
        )
    assert seen[0] == seen[1]


def test_the_state_goes_through_json_and_back(moods: Any, task: Task) -> None:
    def bound(lm: ScriptedLM) -> InSequence:
        stages: list[Optimizer] = [
            FewShotSearch(FewShotOptions(sets=4, size=2, first_rung=4)),
            OptoPrime(OptoPrimeOptions(steps=2)),
        ]
        sequence = InSequence(stages=stages)
        context = OptimizerContext(moods.named_parameters(), task, journal, lm, 0)
        sequence.bind(context, Candidate({name: p.base for name, p in moods.named_parameters().items()}))
        return sequence

    journal = Journal.memory()
    first = bound(ScriptedLM([suggest("Judge quickly.")] * 2))
    evaluator = Evaluator(moods, task, moods.named_parameters(), journal)
    Loop(first, evaluator, journal, AcceptanceRule()).run()
    state = json.loads(json.dumps(first.state_dict()))
    second = bound(ScriptedLM([]))
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert second.ask() == []


def test_mistakes_in_the_set_up_are_clear(moods: Any, task: Task) -> None:
    with pytest.raises(UserError, match="needs a model that proposes"):
        OptoPrime().bind(OptimizerContext(moods.named_parameters(), task, Journal.memory()), Candidate({}))
    with pytest.raises(UserError, match="no parameter matches"):
        run(moods, task, OptoPrime(OptoPrimeOptions(parameters=("nothing.*",))), ScriptedLM([]))
    with pytest.raises(UserError, match="the task has 24"):
        run(moods, task, FewShotSearch(FewShotOptions(size=20, pool=0.9)), None)
    with pytest.raises(UserError, match="confidence"):
        AcceptanceRule(confidence=1.5)
    with pytest.raises(UserError, match="is not bound"):
        OptoPrime().ask()
