"""Credit of calls: sent back through the traced graph, by a critic, and within a group of answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from optograph.context import call_context
from optograph.errors import UserError
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback, op
from optograph.optimizers.policy import (
    TrainingRow,
    TrainingRows,
    by_graph,
    critic_advantages,
    group_advantages,
    training_rows,
    with_token_ids,
)
from optograph.serving import LM, JournaledLM, Request, ScriptedLM
from optograph.storage import Journal

Workflow = Callable[..., Any]


def asking(lm: LM, name: str) -> Callable[..., Any]:
    """An op that asks the model under its own name."""

    async def ask(*told: str) -> str:
        with call_context(node=name):
            return (await lm.complete(Request(prompt=f"{name}: {' '.join(told)}", temperature=1.0))).text

    return op(name=name)(ask)


def branching(lm: LM) -> Workflow:
    """Facts feed a plan, plan and style feed the answer, and a remark is made that nobody reads."""
    facts, plan, style, answer, remark = (asking(lm, one) for one in ("facts", "plan", "style", "answer", "remark"))

    async def solve(question: str) -> Any:
        planned = await plan(await facts(question))
        await remark(question)
        return await answer(planned, await style(question)) + "!"

    return solve


def rolled_out(workflow: Callable[[LM], Workflow], feedback: Feedback, *, trace: bool = True) -> Journal:
    journal = Journal.memory()

    def some(split: str) -> list[Example]:
        return [Example(split, {"question": f"of {split}"}, None)]

    task = Task(some("train"), some("dev"), SealedSplit(some("test")), lambda example, output: feedback)
    lm = JournaledLM(with_token_ids(ScriptedLM(lambda request: "some words")), journal)
    evaluator = Evaluator(workflow(lm), task, {}, journal)
    evaluator.evaluate([Trial(Candidate({}), "train", ("train",), want_trace=trace)])
    return journal


def rewards(found: TrainingRows) -> dict[str | None, float]:
    return {row.node: row.reward for row in found.rows}


def test_feedback_goes_back_to_what_the_output_came_from() -> None:
    found = training_rows(rolled_out(branching, Feedback(0.5)), credit=by_graph)
    assert rewards(found) == {"facts": 0.5, "plan": 0.5, "style": 0.5, "answer": 0.5}  # and no remark
    assert found.uncredited == 1
    assert {row.run_tokens for row in found.rows} == {8}  # what has no row is environment


def test_a_node_answers_for_what_was_made_of_its_answer() -> None:
    feedback = Feedback({"answer": 0.0, "plan": 1.0}, aggregate="answer")
    found = training_rows(rolled_out(branching, feedback), credit=by_graph)
    # the facts went into the plan alone, which was good; the style into the answer alone, which was not
    assert rewards(found) == {"facts": 1.0, "plan": 1.0, "style": 0.0, "answer": 0.0}


def test_a_node_with_several_readers_has_the_mean_of_what_they_have() -> None:
    def workflow(lm: LM) -> Workflow:
        facts, one, two = (asking(lm, name) for name in ("facts", "one", "two"))

        async def solve(question: str) -> Any:
            found = await facts(question)
            return await one(found) + await two(found)

        return solve

    found = training_rows(rolled_out(workflow, Feedback({"one": 1.0, "two": 0.5, "all": 0.0})), credit=by_graph)
    assert rewards(found) == {"facts": 0.75, "one": 1.0, "two": 0.5}


def test_a_failed_op_answers_with_what_it_came_from() -> None:
    def workflow(lm: LM) -> Workflow:
        plan, remark = asking(lm, "plan"), asking(lm, "remark")

        @op
        def tool(text: str) -> str:
            raise ValueError(f"cannot read {text!r}")

        async def solve(question: str) -> Any:
            await remark(question)
            return tool(await plan(question))

        return solve

    found = training_rows(rolled_out(workflow, Feedback(1.0)), credit=by_graph)
    assert rewards(found) == {"plan": 0.0}


def test_credit_by_graph_says_what_it_lacks() -> None:
    with pytest.raises(UserError, match="want_trace=True"):
        training_rows(rolled_out(branching, Feedback(0.5), trace=False), credit=by_graph)

    def unnamed(lm: LM) -> Workflow:
        @op
        async def solve(question: str) -> str:
            with call_context(node="inner"):
                return (await lm.complete(Request(prompt=question, temperature=1.0))).text

        return solve

    with pytest.raises(UserError, match=r"nodes \['solve'\], and none of those that made calls, \['inner'\]"):
        training_rows(rolled_out(unnamed, Feedback(0.5)), credit=by_graph)


def row(ids: Sequence[int], prompt: int, *, call: int = 0, rollout: str = "a", reward: float = 1.0) -> TrainingRow:
    return TrainingRow(
        rollout=rollout,
        example="e",
        call=call,
        node="n",
        adapter="policy",
        policy="p",
        input_ids=tuple(ids),
        action_mask=tuple(place >= prompt for place in range(len(ids))),
        reward=reward,
        run_tokens=1,
        weight=1.0,
    )


class Sums:
    """A critic whose value is a hundredth of the sum of the tokens so far."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def values(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        self.sizes.append(len(sequences))
        return [[sum(one[: place + 1]) / 100 for place in range(len(one))] for one in sequences]


def test_a_call_is_worth_what_it_changed_in_the_critics_eyes() -> None:
    """What the last token changes, the 4 and the 7, is not looked at: OREO trains no value behind it."""
    rows = [row([1, 2, 30, 4], 2), row([1, 2, 30, 4, 50, 6, 7], 5, call=1), row([9, 1], 1, rollout="b", reward=0.0)]
    critic = Sums()
    made = critic_advantages(rows, critic, batch_size=2)
    assert [one.reward for one in made] == pytest.approx([0.30, 1 - 0.87, 0 - 0.09])
    assert critic.sizes == [2, 1]
    guessed = critic_advantages(rows, Sums(), last="critic")
    assert [one.reward for one in guessed] == pytest.approx([0.30, 0.06, 0.0])
    # the tool's 50 between the calls is nobody's: calls, ends and tool together are all that changed
    assert 0.30 + 0.04 + 0.50 + made[1].reward == pytest.approx(1 - 0.03)


def test_what_a_tool_said_after_the_last_answer_is_not_looked_at() -> None:
    one = row([1, 2, 30, 4], 2)
    said = one.model_copy(update={"input_ids": (*one.input_ids, 50), "action_mask": (*one.action_mask, False)})
    (made,) = critic_advantages([said], Sums(), last="critic")
    assert made.reward == pytest.approx(0.30)


@pytest.mark.parametrize("wrong", [[[0.0]], [[0.0, float("nan")]]])
def test_a_critic_gives_a_number_a_token(wrong: list[list[float]]) -> None:
    class Wrong:
        def values(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
            return wrong

    with pytest.raises(UserError, match="one finite value a token"):
        critic_advantages([row([1, 2], 1)], Wrong())
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        critic_advantages([], Wrong(), batch_size=0)


def test_an_answer_is_worth_what_it_earned_beyond_its_group() -> None:
    rows = [row([1, 2, 3], 2, reward=1.0), row([1, 2, 4], 2, reward=0.0), row([7, 8], 1, reward=1.0)]
    assert [one.reward for one in group_advantages(rows)] == [0.5, -0.5]
