"""What a frozen policy thinks of the rows: worked out once a round, before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optograph.optimizers.policy.batching import batch_rows
from optograph.optimizers.policy.models import under
from optograph.optimizers.policy.rows import TrainingRow
from optograph.optimizers.policy.scoring import action_logprobs, hidden_before
from optograph.optimizers.policy.trainers.common import packed


@dataclass(frozen=True, slots=True)
class Scored:
    """A frozen policy's view of one row with N actions.

    Attributes:
        logprobs: Log-probability of each action, (N,), float32.
        hidden: Last hidden state before each action, (N, hidden size), where asked for.
    """

    logprobs: Tensor
    hidden: Tensor | None

    @property
    def total(self) -> float:
        """Log-probability of the whole answer."""
        return float(self.logprobs.double().sum())


def score_rows(
    model: Any, rows: Sequence[TrainingRow], adapter: str | None, *, batch_size: int, hidden: bool = False
) -> list[Scored]:
    """Score rows under one adapter of the model, or under the bare base.

    Args:
        model: A `PeftModel`.
        rows: Rows to score.
        adapter: Name of an adapter, or none for the base.
        batch_size: Rows scored at once.
        hidden: Whether to keep hidden states (4 bytes times hidden size for each action).

    Returns:
        One a row, in the order of the rows, on the CPU.
    """
    training = model.training
    model.eval()
    try:
        return _scored(model, rows, adapter, batch_size, hidden)
    finally:
        model.train(training)


def _scored(
    model: Any, rows: Sequence[TrainingRow], adapter: str | None, batch_size: int, hidden: bool
) -> list[Scored]:
    device = next(model.parameters()).device
    found: dict[int, Scored] = {}
    with torch.no_grad(), under(model, adapter):
        for places in packed(
            [[place] for place in range(len(rows))], batch_size, lambda one: len(rows[one].input_ids), 0
        ):
            batch = batch_rows([rows[place] for place in places], pad_id=0)
            ids, mask = batch.input_ids.to(device), batch.action_mask.to(device)
            states = hidden_before(model, ids, mask)
            logprobs = action_logprobs(model, states, ids[mask])
            sizes = [rows[place].actions for place in places]
            parts = zip(torch.split(logprobs.cpu(), sizes), torch.split(states.cpu(), sizes), strict=True)
            for place, (one, state) in zip(places, parts, strict=True):
                found[place] = Scored(one.clone(), state.clone() if hidden else None)
    return [found[place] for place in range(len(rows))]
