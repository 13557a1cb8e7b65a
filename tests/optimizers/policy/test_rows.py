"""Rows for training out of a journal: the recorded tokens, their masks and rewards, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from optograph.context import call_context
from optograph.errors import ServingError, UserError
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback, Parameter, op
from optograph.jobs import RunOptions, optimize
from optograph.optimizers.policy import (
    Credit,
    TrainingRow,
    TrainingRows,
    batch_rows,
    dpo_loss,
    masked_sum,
    merge_rows,
    per_node,
    preference_rows,
    read_rows,
    to_dataset,
    token_logprobs,
    training_rows,
    with_token_ids,
    write_jsonl,
    write_parquet,
)
from optograph.serving import LM, JournaledLM, OpenAILM, Request, ScriptedLM
from optograph.serving.types import Capabilities
from optograph.storage import Journal
from optograph.testing import LoopbackServer

START = Candidate({})


def task_of(scorer: Callable[[Example, Any], Feedback]) -> Task:
    def some(split: str) -> list[Example]:
        return [Example(f"{split}{n}", {"question": f"{split} number {n}"}, n) for n in range(3)]

    return Task(some("train"), some("dev"), SealedSplit(some("test")), scorer, "two nodes")


def two_nodes(lm: LM) -> Callable[..., Any]:
    """A plan, then an answer that sees it; both are sampled."""

    async def ask(node: str, text: str) -> str:
        with call_context(node=node):
            return (await lm.complete(Request(prompt=text, temperature=1.0, seed=1))).text

    @op
    async def solve(question: str) -> str:
        plan = await ask("plan", f"plan {question}")
        return await ask("answer", f"answer {question} by {plan}")

    return solve


def scored(example: Example, output: Any) -> Feedback:
    good = float(example.expected != 1)
    return Feedback({"plan": 1.0, "answer": good}, aggregate="answer")


def evaluated(
    lm: LM,
    *,
    split: str = "train",
    repeats: int = 2,
    scorer: Callable[[Example, Any], Feedback] = scored,
    workflow: Callable[[LM], Callable[..., Any]] = two_nodes,
) -> Journal:
    """Run the examples of a split and return the journal."""
    journal = Journal.memory()
    parameter = Parameter("x", name="unused")
    made = workflow(JournaledLM(lm, journal))
    evaluator = Evaluator(made, task_of(scorer), {"unused": parameter}, journal)
    names = tuple(f"{split}{n}" for n in range(3))
    evaluator.evaluate([Trial(START, split, names, repeat=repeat) for repeat in range(repeats)])
    return journal


def words(count: int) -> Callable[[Request], str]:
    return lambda request: " ".join(["word"] * count) + f" {len(request.text)}"


def recorded(lm: ScriptedLM) -> LM:
    return with_token_ids(lm)


def ids_of(journal: Journal) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Read the ids of each call as they stand in the journal."""
    found = []
    for call in journal.calls():
        assert call.completion is not None
        data = journal.get(call.completion)
        found.append((tuple(data["prompt_token_ids"]), tuple(data["token_ids"][0])))
    return found


def test_each_call_is_a_row_with_the_tokens_that_were_recorded() -> None:
    journal = evaluated(recorded(ScriptedLM(words(3))))
    found = training_rows(journal)
    assert (len(found), found.unscored, found.incomplete, found.without_calls) == (12, 0, 0, 0)
    assert {(row.input_ids, row.action_mask) for row in found.rows} == {
        (prompt + answer, (False,) * len(prompt) + (True,) * len(answer)) for prompt, answer in ids_of(journal)
    }
    for name, rows in found.rollouts():
        assert [row.node for row in rows] == ["plan", "answer"]
        assert [row.call for row in rows] == [0, 1]
        assert name.startswith(f"{START.id}/train/train")
        assert {row.run_tokens for row in rows} == {sum(row.actions for row in rows)}
        assert [row.weight for row in rows] == [0.5, 0.5]
        assert {row.reward for row in rows} == {float(rows[0].example != "train1")}
        assert {row.policy for row in rows} == {"scripted#scripted"}
        assert {row.finish for row in rows} == {"stop"}


def test_credit_is_per_node_where_the_scorer_gives_it() -> None:
    journal = evaluated(recorded(ScriptedLM(words(3))), repeats=1)
    rewards = {(row.example, row.node): row.reward for row in training_rows(journal, credit=per_node).rows}
    assert rewards["train1", "plan"] == 1.0
    assert rewards["train1", "answer"] == 0.0
    assert rewards["train0", "answer"] == 1.0


def test_nodes_that_are_not_trained_are_environment() -> None:
    journal = evaluated(recorded(ScriptedLM(words(3))), repeats=1)
    answers = training_rows(journal, nodes={"answer"})
    assert {(row.node, row.call, row.weight) for row in answers.rows} == {("answer", 1, 1.0)}
    assert all(row.run_tokens == row.actions for row in answers.rows)
    own = training_rows(journal, adapters={"plan": "planner"})
    assert {(row.node, row.adapter, row.weight) for row in own.rows} == {
        ("plan", "planner", 1.0),
        ("answer", "policy", 1.0),
    }
    assert all(row.run_tokens == row.actions for row in own.rows)


def test_a_call_without_token_ids_is_refused_with_the_way_to_record_them() -> None:
    journal = evaluated(ScriptedLM(words(3)), repeats=1)
    with pytest.raises(UserError, match=r"node 'plan' for example 'train0'.*with_token_ids\(lm\)"):
        training_rows(journal)
    with pytest.raises(UserError, match=r"model 'scripted' cannot give token ids.*vllm/NAME@URL"):
        with_token_ids(ScriptedLM(["x"], capabilities=Capabilities()))


def test_a_servers_ids_reach_the_rows() -> None:
    with LoopbackServer("one two three") as server:
        lm = with_token_ids(OpenAILM("test-model", base_url=server.url, api_key="none", flavour="vllm"))
        journal = evaluated(lm, repeats=1)
        assert all(one.body["return_token_ids"] is True for one in server.received)
    rows = training_rows(journal).rows
    assert {(row.input_ids[: row.prompt_length], row.input_ids[row.prompt_length :]) for row in rows} == set(
        ids_of(journal)
    )
    assert all(row.prompt_length > 0 and row.actions == 3 for row in rows)


def test_the_sealed_test_gives_no_rows() -> None:
    with pytest.raises(UserError, match="the test split stays sealed"):
        training_rows(Journal.memory(), split="test")


def test_only_the_wanted_split_and_candidates_count() -> None:
    journal = evaluated(recorded(ScriptedLM(words(3))), split="dev")
    assert len(training_rows(journal)) == 0
    assert len(training_rows(journal, split="dev")) == 12
    assert len(training_rows(journal, split="dev", candidates={"other"})) == 0


def test_calls_of_judges_and_optimizers_are_no_rows() -> None:
    def workflow(lm: LM) -> Callable[..., Any]:
        solve = two_nodes(lm)

        @op
        async def judged(question: str) -> Any:
            found = await solve(question)
            with call_context(role="judge"):
                await lm.complete(Request(prompt=f"judge {question}"))
            return found

        return judged

    found = training_rows(evaluated(recorded(ScriptedLM(words(3))), repeats=1, workflow=workflow))
    assert {row.node for row in found.rows} == {"plan", "answer"}


def test_rollouts_that_used_an_answer_of_another_one_are_left_out() -> None:
    def workflow(lm: LM) -> Callable[..., Any]:
        @op
        async def solve(question: str) -> str:
            await lm.complete(Request(prompt="the same for all"))  # greedy: paid by whoever comes first
            return (await lm.complete(Request(prompt=question))).text

        return solve

    found = training_rows(evaluated(recorded(ScriptedLM(words(3))), repeats=1, workflow=workflow))
    assert found.incomplete == 2
    assert len(found) == 2
    assert {row.call for row in found.rows} == {0, 1}


def test_calls_of_a_failed_attempt_are_no_part_of_the_rollout() -> None:
    attempts: list[str] = []

    def workflow(lm: LM) -> Callable[..., Any]:
        @op
        async def solve(question: str) -> str:
            attempts.append(question)
            if question == "train number 0" and attempts.count(question) == 1:
                await lm.complete(Request(prompt="only in the attempt that fails"))
                raise ServingError("the endpoint is gone")
            return (await lm.complete(Request(prompt=question))).text

        return solve

    found = training_rows(evaluated(recorded(ScriptedLM(words(3))), repeats=1, workflow=workflow))
    assert attempts.count("train number 0") == 2
    assert (found.incomplete, len(found)) == (1, 2)


def test_several_texts_of_one_call_are_refused() -> None:
    def workflow(lm: LM) -> Callable[..., Any]:
        @op
        async def solve(question: str) -> str:
            return (await lm.complete(Request(prompt=question, n=2))).text

        return solve

    journal = evaluated(recorded(ScriptedLM(words(3))), repeats=1, workflow=workflow)
    with pytest.raises(UserError, match="asked for 2 texts at once"):
        training_rows(journal)


@pytest.mark.parametrize(
    ("credit", "scorer", "problem"),
    [
        (lambda feedback, nodes: [1.0], scored, "one finite number for each of 2 calls"),
        (lambda feedback, nodes: [1.0, float("nan")], scored, "one finite number for each of 2 calls"),
        (per_node, lambda example, output: Feedback(1.0), "credit per node needs a score for each node, got score=1.0"),
        (per_node, lambda example, output: Feedback({"style": 1.0}), r"no score is named after a node: scores \['st"),
    ],
)
def test_credit_that_is_none_is_refused(
    credit: Credit, scorer: Callable[[Example, Any], Feedback], problem: str
) -> None:
    journal = evaluated(recorded(ScriptedLM(words(3))), repeats=1, scorer=scorer)
    with pytest.raises(UserError, match=problem):
        training_rows(journal, credit=credit)


# Pairs and merged rows --------------------------------------------------------------------------------------------


def row(tokens: Sequence[int], mask: str, **fields: Any) -> TrainingRow:
    """Make a row; `mask` has an x where the policy wrote."""
    plain: dict[str, Any] = {
        "rollout": "c/train/e/0",
        "example": "e",
        "call": 0,
        "node": None,
        "adapter": "policy",
        "policy": "p",
        "reward": 1.0,
        "run_tokens": mask.count("x"),
        "weight": 1.0,
    }
    return TrainingRow(input_ids=tuple(tokens), action_mask=tuple(one == "x" for one in mask), **(plain | fields))


def test_a_row_that_does_not_fit_is_refused() -> None:
    for tokens, mask in (([1, 2], "--x"), ([1, 2], "--"), ([1, 2], "xx"), ([], "")):
        with pytest.raises(ValidationError):
            row(tokens, mask)


def test_calls_are_joined_only_where_the_tokens_go_on_exactly() -> None:
    first = row([1, 2, 3, 4], "--xx", call=0, run_tokens=5)
    second = row([1, 2, 3, 4, 9, 9, 5, 6], "------xx", call=1, run_tokens=5)
    third = row([1, 2, 3, 7, 9, 9, 5, 6, 8], "--------x", call=2, run_tokens=5)
    joined, apart = merge_rows([first, second, third])
    assert joined.input_ids == second.input_ids
    assert joined.action_mask == tuple(one == "x" for one in "--xx--xx")
    assert (joined.call, joined.run_tokens, joined.weight) == (0, 5, 0.5)
    assert (apart.input_ids, apart.action_mask, apart.weight) == (third.input_ids, third.action_mask, 0.5)
    other = second.model_copy(update={"adapter": "other"})
    assert len(merge_rows([first, other])) == 2
    assert len(merge_rows([first, second.model_copy(update={"reward": 0.0})])) == 2
    assert len(merge_rows([first, second.model_copy(update={"rollout": "another"})])) == 2
    assert len(merge_rows([first, row([1, 2, 3, 4, 5], "--xxx", call=1)])) == 2  # the same question asked again


def test_pairs_answer_the_same_tokens_and_do_not_tie() -> None:
    good = row([1, 2, 3], "--x", reward=1.0)
    bad = row([1, 2, 4, 5], "--xx", reward=0.0)
    other_prompt = row([1, 3, 4], "--x", reward=0.0)
    other_policy = row([1, 2, 4], "--x", reward=-1.0, policy="before")
    (pair,) = preference_rows([bad, good, other_prompt, other_policy])
    assert (pair.chosen, pair.rejected) == (good, bad)
    assert preference_rows([good, good]) == []
    assert preference_rows([bad, good], least_gap=1.0) == []
    with pytest.raises(UserError, match="make pairs before merge_rows"):
        preference_rows([row([1, 2, 3, 4], "-x-x")])
    with pytest.raises(UserError, match="least_gap"):
        preference_rows([], least_gap=-1.0)


def test_dpo_on_rows_of_agents_scores_no_token_of_a_tool() -> None:
    def agent(tool: int, answer: int, reward: float) -> TrainingRow:
        calls = [row([1, 2, 3], "--x", reward=reward), row([1, 2, 3, tool, tool, answer], "-----x", reward=reward)]
        (whole,) = merge_rows(calls)
        return whole

    batch = batch_rows([agent(5, 6, 1.0), agent(7, 8, 0.0), row([1, 2], "-x")], pad_id=0)
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 10, generator=made, dtype=torch.float64, requires_grad=True)
    sums = masked_sum(token_logprobs(logits, batch.input_ids), batch.action_mask)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = dpo_loss(sums[:1], sums[1:2], zero, zero, beta=0.1).loss
    (gradient,) = torch.autograd.grad(loss, logits)
    scored_places = (gradient[:2] != 0).any(-1).nonzero().tolist()
    assert scored_places == [[0, 1], [0, 4], [1, 1], [1, 4]]  # position i predicts token i + 1: tokens 2 and 5


def test_batches_are_padded_and_say_what_each_row_is() -> None:
    batch = batch_rows([row([1, 2, 3], "-xx", reward=0.5, call=2), row([4, 5], "-x")], pad_id=99)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 99]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.action_mask.tolist() == [[False, True, True], [False, True, False]]
    assert (batch.rewards.tolist(), batch.run_tokens.tolist(), batch.calls) == ([0.5, 1.0], [2, 1], (2, 0))
    with pytest.raises(UserError, match="at least one row"):
        batch_rows([], pad_id=0)


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "name"), [(write_jsonl, "rows.jsonl"), (write_parquet, "rows.parquet")])
def test_rows_come_back_from_files_as_they_were(write: Callable[..., None], name: str, tmp_path: Path) -> None:
    rows = [*training_rows(evaluated(recorded(ScriptedLM(words(3))))).rows, row([1, 2], "-x", reward=1 / 3)]
    write(rows, tmp_path / name)
    assert read_rows(tmp_path / name) == rows


def test_a_dataset_has_a_typed_column_for_each_field() -> None:
    rows = [row([1, 2, 3], "-xx"), row([4, 5], "-x", node="n")]
    dataset = to_dataset(rows)
    assert dataset.column_names == list(TrainingRow.model_fields)
    assert [TrainingRow.model_validate(one) for one in dataset] == rows
    assert {str(kind) for kind in (dataset.features["node"].dtype, dataset.features["reward"].dtype)} == {
        "string",
        "float64",
    }


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no rows"):
        to_dataset(TrainingRows(rows=()).rows)
    with pytest.raises(UserError, match=r"from \.jsonl or \.parquet files, not 'rows\.csv'"):
        read_rows(tmp_path / "rows.csv")
    with pytest.raises(UserError, match="cannot read rows"):
        read_rows(tmp_path / "missing.jsonl")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot read rows"):
        read_rows(tmp_path / "bad.parquet")
    write_jsonl([row([1, 2], "-x")], tmp_path / "rows.jsonl")
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text + text.replace("[1, 2]", "[1, 2, 3]"))
    with pytest.raises(UserError, match=r"row 2 of .* is no row for training"):
        read_rows(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="cannot write"):
        write_jsonl([], tmp_path / "missing" / "rows.jsonl")
    with pytest.raises(UserError, match="cannot write"):
        write_parquet([row([1, 2], "-x")], tmp_path / "missing" / "rows.parquet")


def test_a_job_leaves_rows_of_its_steps(task: Task, task_lm: ScriptedLM, make_moods: Any, tmp_path: Path) -> None:
    workflow = make_moods(with_token_ids(task_lm))
    optimize(
        workflow,
        task,
        optimizer=[("fewshot", {"sets": 2, "size": 2, "first_rung": 8})],
        options=RunOptions(run_dir=tmp_path / "run"),
    )
    with Journal.read(tmp_path / "run") as journal:
        found = training_rows(journal, split="dev")
    assert len(found) >= 16
    assert {row.node for row in found.rows} == {"judge"}
    assert {row.reward for row in found.rows} == {0.0, 1.0}
    assert found.unscored == found.without_calls == 0
