"""Supervised fine-tuning and KTO on TRL's trainers, with the token ids that were recorded."""

from __future__ import annotations

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


def mismatched(rows: Sequence[TrainingRow], size: int) -> list[TrainingRow]:
    """Return each prompt with the answer of the row before it in its part of a batch: KTO's estimate of the KL."""
    made = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        for row, other in zip(part, [part[-1], *part[:-1]], strict=True):
            prompt, answer = row.input_ids[: row.prompt_length], other.input_ids[other.prompt_length :]
            mask = (False,) * len(prompt) + (True,) * len(answer)
            made.append(row.model_copy(update={"input_ids": prompt + answer, "action_mask": mask}))
    return made


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
    data = data.add_column("KL_completion_ids", [list(row.input_ids[row.prompt_length :]) for row in others])
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


def kto_arguments(config: PolicyConfig, common: dict[str, Any]) -> KTOConfig:
    """Return TRL's arguments: rows one after the other, since each answer is compared with its neighbour's."""
    return KTOConfig(
        **common,
        per_device_train_batch_size=config.batch_size // config.accumulation,
        beta=config.beta_or_default,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        max_length=None,
        train_sampling_strategy="sequential",
    )
