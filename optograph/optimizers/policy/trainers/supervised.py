"""Supervised fine-tuning and KTO on TRL's trainers, with the token ids that were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.formats import sft_dataset
from optograph.optimizers.policy.rows import TrainingRow


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
