"""Momentum DPO and DPO on TRL's trainer, with references and token ids of our own.

TRL's loss for ``"sigmoid"`` is used as it is. What is ours: the reference is not a model but two numbers a pair, worked
out once before training and extrapolated in the space of sequences, so a step needs no pass of a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from optograph.optimizers.policy.formats import preference_dataset
from optograph.optimizers.policy.losses import momentum_reference
from optograph.optimizers.policy.models import POLICY
from optograph.optimizers.policy.rows import PreferenceRow

if TYPE_CHECKING:
    from datasets import Dataset


def paired_dataset(
    pairs: Sequence[PreferenceRow], current: tuple[Tensor, Tensor], previous: tuple[Tensor, Tensor], alpha: float
) -> Dataset:
    """Return TRL's columns of token ids, and the extrapolated reference of each answer.

    Args:
        pairs: N pairs.
        current: Log-probabilities of the (chosen, rejected) answers under what the last round trained, (N,) each.
        previous: Likewise under what the round before trained.
        alpha: Momentum, 0 to less than 1.
    """
    chosen, rejected = (momentum_reference(now, old, alpha) for now, old in zip(current, previous, strict=True))
    data = preference_dataset(pairs)
    data = data.add_column("ref_chosen_logps", chosen.tolist())
    data = data.add_column("ref_rejected_logps", rejected.tolist())
    lengths = [max(len(pair.chosen.input_ids), len(pair.rejected.input_ids)) for pair in pairs]
    return data.add_column("length", lengths)


class MomentumDPOTrainer(DPOTrainer):
    """TRL's DPO trainer on data of `paired_dataset`: no tokenizing, and no reference within."""

    def __init__(self, model: PeftModel, args: DPOConfig, data: Dataset, tokenizer: Any) -> None:
        self.references_computed = 0
        super().__init__(model=model, args=args, train_dataset=data, processing_class=tokenizer)
        if "ref" in model.peft_config:
            model.delete_adapter("ref")  # TRL's copy of the start; nothing asks for it
            model.set_adapter(POLICY)
        self.precompute_ref_logps = True  # the loss takes the columns; in the arguments it would compute them itself

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Count passes of a reference: there are none (a benchmark asserts it)."""
        self.references_computed += 1
        return super().compute_ref_log_probs(model, inputs)  # type: ignore[no-untyped-call]

    def _prepare_dataset(self, dataset: Dataset, *rest: Any, **options: Any) -> Dataset:
        """Give the data set back: its ids are those that were recorded."""
        return dataset


def dpo_arguments(common: dict[str, Any], *, batch_size: int, beta: float, sft_weight: float = 0.0) -> DPOConfig:
    """Return TRL's arguments: pairs of about the same length together, none of them cut."""
    if sft_weight:
        common = common | {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, sft_weight]}
    return DPOConfig(
        **common,
        per_device_train_batch_size=batch_size,
        beta=beta,
        max_length=None,
        remove_unused_columns=False,  # the sampler looks at the lengths
        train_sampling_strategy="group_by_length",
    )


def totals(scored: Sequence[float]) -> Tensor:
    """Return log-probabilities of whole answers as TRL takes them."""
    return torch.tensor(scored, dtype=torch.float64)
