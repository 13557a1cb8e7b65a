"""IPO and soft SPPO on `transformers.Trainer`: the project's losses over whole answers, with references of before.

TRL's losses of these names are others: its IPO divides by the answer's length, its SPPO has hard labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from optograph.optimizers.policy.batching import batch_rows
from optograph.optimizers.policy.losses import ipo_loss, sppo_loss, win_rates
from optograph.optimizers.policy.models import save_memory
from optograph.optimizers.policy.rows import TrainingRow, whole_answer
from optograph.optimizers.policy.scoring import action_logprobs, hidden_before, spread
from optograph.optimizers.policy.tensors import masked_sum
from optograph.optimizers.policy.trainers.common import only_one, packed

SequenceLoss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Makes, of log-probabilities, references and targets of answers, (B,) each, a loss and what to log."""


def ipo(beta: float) -> SequenceLoss:
    """Return IPO's loss for batches whose first half was chosen, in the order of the rejected second half."""

    def loss(answers: Tensor, references: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (chosen, rejected), (first, second) = answers.chunk(2), references.chunk(2)
        found = ipo_loss(chosen, rejected, first, second, beta=beta)
        better, worse = found.chosen_rewards.mean() / beta, found.rejected_rewards.mean() / beta
        seen = {"margin": better - worse, "logratio_chosen": better, "logratio_rejected": worse}
        return found.loss, seen | {"accuracy": found.accuracy}

    return loss


def soft_sppo(eta: float) -> SequenceLoss:
    """Return soft SPPO's loss; targets are win rates, and what wins more often than not counts as chosen in the log."""

    def loss(answers: Tensor, references: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logratios = answers - references
        known = logratios.detach()
        seen = {"logratio": known.mean(), "gain": (known * (targets - 0.5)).mean()}
        sides = {"chosen": known[targets > 0.5], "rejected": known[targets < 0.5]}
        seen |= {f"logratio_{side}": some.mean() for side, some in sides.items() if len(some)}
        return sppo_loss(logratios, targets, eta=eta), seen

    return loss


def row_win_rates(rows: Sequence[TrainingRow], scale: float) -> list[float]:
    """Return for each row how likely it wins against another answer to the same prompt, by what both earned.

    Args:
        rows: Rows of single calls.
        scale: Rewards times this are scores of a Bradley-Terry model, above 0.

    Raises:
        UserError: An answer holds tokens that the policy did not write.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        whole_answer(row)
        groups[row.node, row.policy, row.input_ids[: row.prompt_length]].append(place)
    rates = [0.5] * len(rows)
    for places in groups.values():
        found = win_rates(torch.tensor([[rows[one].reward * scale for one in places]], dtype=torch.float64))
        for place, rate in zip(places, found[0].tolist(), strict=True):
            rates[place] = rate
    return rates


class SequenceData(Dataset[dict[str, Any]]):
    """Batches of units of one row each, or of a (chosen, rejected) pair."""

    def __init__(
        self,
        units: Sequence[tuple[TrainingRow, ...]],
        references: Sequence[Sequence[float]],
        targets: Sequence[float],
        *,
        size: int,
        seed: int,
    ) -> None:
        self._units, self._references, self._targets = units, references, targets
        singles = [[place] for place in range(len(units))]
        self.batches = packed(singles, size, lambda one: max(len(row.input_ids) for row in units[one]), seed)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        chosen = self.batches[place]
        width = range(len(self._units[0]))
        batch = batch_rows([self._units[one][side] for side in width for one in chosen], pad_id=0)
        references = [self._references[one][side] for side in width for one in chosen]
        return {
            "input_ids": batch.input_ids,
            "action_mask": batch.action_mask,
            "references": torch.tensor(references),
            "targets": torch.tensor([self._targets[one] for one in chosen]),
        }


class _Answers(nn.Module):
    """Log-probabilities of whole answers; a module, so that launchers can wrap it."""

    def __init__(self, lm: PeftModel) -> None:
        super().__init__()
        self.lm = lm
        self.config = lm.config

    def forward(self, input_ids: Tensor, action_mask: Tensor) -> Tensor:
        hidden = hidden_before(self.lm, input_ids, action_mask)
        return masked_sum(spread(action_logprobs(self.lm, hidden, input_ids[action_mask]), action_mask), action_mask)


class SequenceTrainer(Trainer):
    """Minimizes a loss over whole answers."""

    loss_is_scaled_for_ga = False

    def __init__(
        self, model: PeftModel, args: TrainingArguments, data: SequenceData, loss: SequenceLoss, *, checkpointing: bool
    ) -> None:
        self._loss, self._seen = loss, defaultdict[str, list[float]](list)
        if checkpointing:
            save_memory(model)
        super().__init__(model=_Answers(model), args=args, train_dataset=data, data_collator=only_one)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch."""
        answers = model(inputs["input_ids"], inputs["action_mask"])
        loss, seen = self._loss(answers, inputs["references"], inputs["targets"])
        for name, value in seen.items():
            self._seen[name].append(float(value))
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means since the last time as well."""
        means = {name: sum(values) / len(values) for name, values in self._seen.items() if values}
        self._seen.clear()
        super().log({**logs, **means}, start_time)
