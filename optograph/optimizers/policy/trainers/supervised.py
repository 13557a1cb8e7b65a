"""Supervised fine-tuning and KTO on TRL's trainers, with the token ids that were recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from optograph.errors import UserError
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.formats import sft_dataset, unpaired_dataset
from optograph.optimizers.policy.models import POLICY
from optograph.optimizers.policy.rows import TrainingRow
from optograph.optimizers.policy.trainers.common import packed

if TYPE_CHECKING:
    from datasets import Dataset


def sft_trainer(
    model: Any, rows: Sequence[TrainingRow], config: PolicyConfig, common: dict[str, Any], tokenizer: Any
) -> SFTTrainer:
    """Return TRL's trainer; labels stand only where the policy wrote."""
    data = sft_dataset(rows, least=config.threshold)
    arguments = SFTConfig(
        **common,
        per_device_train_batch_size=config.batch_size // config.accumulation,
        max_length=None,
        packing=False,
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)


def kto_size(rows: int, size: int) -> int:
    """Return how many rows a part of a batch holds: `size`, or the nearest fewer that leave no last part of one row.

    TRL pairs prompts and answers within a part, so a row alone would be measured against itself. Where no fewer will
    do (2 of an odd number of rows), it is the nearest more.

    Args:
        rows: Rows in all.
        size: Rows that are wanted, at least 2.
    """
    sizes: list[int] = [*range(size, 1, -1), *range(size + 1, rows + 1)]
    return next((one for one in sizes if rows % one != 1), size)


def mismatched(rows: Sequence[TrainingRow], size: int) -> list[TrainingRow]:
    """Return each prompt with an answer to another one: KTO's estimate of the KL divergence.

    As TRL does it, the answers of a part of a batch are given to each other's prompts. But TRL gives each to its
    neighbour, which with several samples of a prompt is as often as not its own; here the answers move on by as many
    places as the prompt with the most of them has. Where that is not enough, an answer comes from elsewhere.

    Args:
        rows: At least 2, in the order of the batches.
        size: Rows of a part of a batch.

    Raises:
        UserError: All answers are the same.
    """
    made = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        prompts = [_prompt(row) for row in part]
        order = sorted(range(len(part)), key=lambda place: prompts[place])
        shift = max(Counter(prompts).values())
        others = {place: part[order[(rank + shift) % len(part)]] for rank, place in enumerate(order)}
        for place, row in enumerate(part):
            here = start + place
            other = _partner(row, [others[place], *part, *rows[here:], *rows[:here]])
            made.append(_with_answer(row, other))
    return made


def _partner(row: TrainingRow, others: Sequence[TrainingRow]) -> TrainingRow:
    """Return the first of the others with another prompt and answer, or else the first with another answer."""
    answered = [one for one in others if _answer(one) != _answer(row)]
    if not answered:
        raise UserError("KTO compares answers with each other, and all of them are the same: sample others")
    return next((one for one in answered if _prompt(one) != _prompt(row)), answered[0])


def _with_answer(row: TrainingRow, other: TrainingRow) -> TrainingRow:
    prompt, answer = _prompt(row), _answer(other)
    mask = (False,) * len(prompt) + (True,) * len(answer)
    return row.model_copy(update={"input_ids": prompt + answer, "action_mask": mask})


def _prompt(row: TrainingRow) -> tuple[int, ...]:
    return row.input_ids[: row.prompt_length]


def _answer(row: TrainingRow) -> tuple[int, ...]:
    return row.input_ids[row.prompt_length :]


def kto_order(rows: Sequence[TrainingRow], size: int, seed: int) -> list[TrainingRow]:
    """Return the rows in the order in which KTO takes them: of about the same length side by side.

    Raises:
        UserError: There is only one row.
    """
    if len(rows) < 2:
        raise UserError("KTO compares answers with each other: it needs at least 2 rows")
    batches = packed([[row] for row in rows], size, lambda row: len(row.input_ids), seed)
    return [row for batch in batches for row in batch]


def kto_dataset(
    rows: Sequence[TrainingRow], others: Sequence[TrainingRow], references: Sequence[float], config: PolicyConfig
) -> Dataset:
    """Return TRL's columns, those of the references included.

    Args:
        rows: N rows in order.
        others: What `mismatched` makes of them.
        references: Log-probabilities of the answers of both under the reference, 2 N.
        config: Says what a good answer is.
    """
    data = unpaired_dataset(rows, baseline=config.threshold)
    data = data.add_column("KL_completion_ids", [list(_answer(row)) for row in others])
    data = data.add_column("ref_logps", list(references[: len(rows)]))
    return data.add_column("ref_KL_logps", list(references[len(rows) :]))


class RecordedKTOTrainer(KTOTrainer):
    """TRL's KTO trainer on data of `kto_dataset`: no tokenizing, and no reference within."""

    def __init__(self, model: Any, args: KTOConfig, data: Dataset, tokenizer: Any) -> None:
        super().__init__(model=model, args=args, train_dataset=data, processing_class=tokenizer)
        if "ref" in model.peft_config:
            model.delete_adapter("ref")
            model.set_adapter(POLICY)
        self.precompute_ref_logps = True

    def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        """Give the data set back: its ids are those that were recorded."""
        return dataset


def kto_arguments(config: PolicyConfig, common: dict[str, Any], size: int) -> KTOConfig:
    """Return TRL's arguments: rows one after the other, since each answer is compared with its neighbour's."""
    return KTOConfig(
        **common,
        per_device_train_batch_size=size,
        beta=config.beta_or_default,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        max_length=None,
        train_sampling_strategy="sequential",
    )
