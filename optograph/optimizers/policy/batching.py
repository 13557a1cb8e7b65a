"""Rows as padded tensors, which is what the losses take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy.rows import TrainingRow


@dataclass(frozen=True, slots=True)
class RowBatch:
    """B rows, padded on the right to the longest, L.

    Attributes:
        input_ids: Token ids, (B, L).
        attention_mask: 1 for tokens, 0 for padding, (B, L).
        action_mask: True for tokens that the policy wrote, (B, L).
        rewards: (B,), float32.
        run_tokens: Tokens that the adapter wrote in the whole run, (B,).
        weights: 1 / rows of the rollout and adapter, (B,), float32.
        rollouts: Names of the rollouts, B of them.
        calls: Places of the calls in their rollouts, B of them.
        adapters: Names of the adapters, B of them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    rewards: Tensor
    run_tokens: Tensor
    weights: Tensor
    rollouts: tuple[str, ...]
    calls: tuple[int, ...]
    adapters: tuple[str, ...]


def batch_rows(rows: Sequence[TrainingRow], *, pad_id: int) -> RowBatch:
    """Pad rows to tensors.

    Args:
        rows: At least one row.
        pad_id: Token id that fills short rows; it is masked, and never scored.

    Raises:
        UserError: There are no rows.
    """
    if not rows:
        raise UserError("a batch needs at least one row")
    length = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    attention = torch.zeros((len(rows), length), dtype=torch.long)
    actions = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[number, :size] = torch.tensor(row.input_ids)
        attention[number, :size] = 1
        actions[number, :size] = torch.tensor(row.action_mask)
    return RowBatch(
        input_ids=input_ids,
        attention_mask=attention,
        action_mask=actions,
        rewards=torch.tensor([row.reward for row in rows], dtype=torch.float32),
        run_tokens=torch.tensor([row.run_tokens for row in rows]),
        weights=torch.tensor([row.weight for row in rows], dtype=torch.float32),
        rollouts=tuple(row.rollout for row in rows),
        calls=tuple(row.call for row in rows),
        adapters=tuple(row.adapter for row in rows),
    )
