"""Rows of rollouts that the embedded engine made: the first round needs no other server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optograph.context import call_context
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback, op
from optograph.optimizers.policy import merge_rows, preference_rows, training_rows, with_token_ids
from optograph.serving import LM, JournaledLM, LlamaCppLM, Message, Request, fetch_model, find_model, load_lm
from optograph.storage import Journal
from tests.optimizers.policy.exports import make_gguf

END_OF_TURN = 2


@pytest.fixture(scope="module")
def model() -> Iterator[LM]:
    made = load_lm("local/smollm2-135m")
    assert isinstance(made, LlamaCppLM)
    yield made
    asyncio.run(made.aclose())


def conversation(lm: LM) -> Any:
    """Two calls, the second of which continues the first: a question, what a tool says, and an answer."""

    @op
    async def solve(question: str) -> str:
        turns = [Message("user", question)]
        with call_context(node="agent"):
            first = await lm.complete(Request(messages=tuple(turns), max_tokens=24, temperature=1.0, seed=3))
            turns += [Message("assistant", first.text), Message("user", "A tool says: 4. Answer with a number.")]
            second = await lm.complete(Request(messages=tuple(turns), max_tokens=24, temperature=1.0, seed=3))
        return second.text

    return solve


def test_rollouts_of_the_embedded_engine_are_rows(model: LM) -> None:
    journal = Journal.memory()
    examples = [Example(f"e{n}", {"question": f"Say only: {n}"}, n) for n in range(2)]
    task = Task(
        examples, [Example("d", {"question": "?"}, 0)], SealedSplit([Example("t", {"question": "!"}, 0)]), score
    )
    evaluator = Evaluator(conversation(JournaledLM(with_token_ids(model), journal)), task, {}, journal)
    evaluator.evaluate([Trial(Candidate({}), "train", ("e0", "e1"), repeat=repeat) for repeat in range(2)])

    rows = training_rows(journal).rows
    assert len(rows) == 8
    for row in rows:
        ended = row.finish == "stop"
        assert (row.input_ids[-1] == END_OF_TURN) == ended  # the action of ending is there where the model took it
    for merged in merge_rows(rows):
        assert merged.action_mask[-1]
    by_rollout = {row.rollout: [one for one in merge_rows(rows) if one.rollout == row.rollout] for row in rows}
    ended_first = {row.rollout for row in rows if row.call == 0 and row.finish == "stop"}
    assert ended_first, "no first answer ended by itself: the test shows nothing"
    for rollout in ended_first:  # the second prompt is the first call, token for token, and more
        (one,) = by_rollout[rollout]
        assert one.actions == sum(row.actions for row in rows if row.rollout == rollout)
    pairs = preference_rows(rows)
    assert all(pair.chosen.node == "agent" for pair in pairs)


def score(example: Example, output: Any) -> Feedback:
    return Feedback(float(len(str(output))))


def test_a_model_that_begins_with_a_token_of_its_own_gives_that_too(tmp_path: Path) -> None:
    source = fetch_model(find_model("smollm2-135m"))
    lm = LlamaCppLM(make_gguf(tmp_path / "bos.gguf", source, {"tokenizer.ggml.add_bos_token": True}), n_ctx=256)
    raw = lm.ask(Request(prompt="Hello there", max_tokens=2, token_ids=True))
    assert raw.prompt_token_ids is not None
    assert raw.prompt_token_ids[0] == 1
    assert raw.usage.prompt_tokens == len(raw.prompt_token_ids)
    chat = lm.ask(Request(messages=(Message("user", "Hello there"),), max_tokens=2, token_ids=True))
    assert chat.prompt_token_ids is not None
    assert chat.usage.prompt_tokens == len(chat.prompt_token_ids)
    asyncio.run(lm.aclose())
