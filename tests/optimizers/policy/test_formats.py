"""Rows in TRL's formats: TRL's own collators read them, and no token of a prompt or a tool is scored."""

from __future__ import annotations

import pytest
import torch

from optograph.errors import UserError
from optograph.optimizers.policy import (
    PreferenceRow,
    TrainingRow,
    balanced_weights,
    merge_rows,
    preference_dataset,
    preference_rows,
    sft_dataset,
    unpaired_dataset,
)


def row(ids: list[int], mask: str, *, reward: float = 1.0, rollout: str = "c/train/e/0", call: int = 0) -> TrainingRow:
    """A row whose mask is written with an x for each token that the policy wrote."""
    return TrainingRow(
        rollout=rollout,
        example="e",
        call=call,
        node="n",
        adapter="policy",
        policy="sha256:1",
        input_ids=tuple(ids),
        action_mask=tuple(sign == "x" for sign in mask),
        reward=reward,
        run_tokens=mask.count("x"),
        weight=1.0,
    )


AGENT = merge_rows([row([1, 2, 3, 4], "--xx"), row([1, 2, 3, 4, 9, 9, 5], "------x", call=1)])


def test_supervised_rows_score_what_the_policy_wrote_and_nothing_else() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    (merged,) = AGENT
    dataset = sft_dataset([merged, row([7, 8], "-x", reward=0.0)])
    assert dataset.column_names == ["input_ids", "labels"]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(list(dataset))
    assert batch["labels"].tolist() == [[-100, -100, 3, 4, -100, -100, 5], [-100, 8, -100, -100, -100, -100, -100]]
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 9, 9, 5], [7, 8, 0, 0, 0, 0, 0]]
    assert len(sft_dataset([merged, row([7, 8], "-x", reward=0.0)], least=0.5)) == 1
    with pytest.raises(UserError, match=r"none of which earned at least 2\.0"):
        sft_dataset([merged], least=2.0)


def test_pairs_are_prompts_with_two_answers() -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = [row([1, 2, 3], "--x", reward=1.0), row([1, 2, 5, 6], "--xx", reward=0.0)]
    dataset = preference_dataset(preference_rows(rows))
    assert list(dataset) == [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [5, 6]}]
    batch = DataCollatorForPreference(pad_token_id=0)(list(dataset))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0], [1, 2, 5, 6]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    with pytest.raises(UserError, match="there are no pairs"):
        preference_dataset([])


def test_formats_that_score_all_after_the_prompt_refuse_what_a_tool_said() -> None:
    (agent,) = AGENT
    pair = PreferenceRow(chosen=agent, rejected=row([1, 2, 8], "--x", reward=0.0))
    with pytest.raises(UserError, match="make pairs before merge_rows"):
        preference_dataset([pair])
    with pytest.raises(UserError, match="make pairs before merge_rows"):
        unpaired_dataset([agent, row([1, 2, 8], "--x", reward=0.0)])


def test_every_call_is_wanted_or_not() -> None:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    rows = [row([1, 2, 3], "--x", reward=reward) for reward in (0.0, 0.4, 0.6)]
    dataset = unpaired_dataset(rows)
    assert dataset["label"][:] == [False, True, True]
    batch = DataCollatorForUnpairedPreference(pad_token_id=0)(list(dataset))
    assert torch.equal(batch["label"], torch.tensor([False, True, True]))
    assert batch["completion_mask"].tolist() == [[0, 0, 1]] * 3
    assert unpaired_dataset(rows, baseline=0.5)["label"][:] == [False, False, True]
    long = [one.model_copy(update={"weight": 0.1}) for one in rows[:2]]
    assert unpaired_dataset([*long, rows[2]])["label"][:] == [False, False, True]  # mean of rollouts: 0.53
    with pytest.raises(UserError, match="0 of 3 earned more than the baseline 1"):
        unpaired_dataset(rows, baseline=1)


def test_the_rarer_kind_weighs_more() -> None:
    assert balanced_weights([True, False, False, False]) == (3.0, 1.0)
    assert balanced_weights([True, True, False]) == (1.0, 2.0)
    with pytest.raises(UserError, match="answers of both kinds"):
        balanced_weights([True])
