"""OREO on `transformers.Trainer`: one frozen base with an adapter for the policy, one for the critic, and a head.

Losses are those of `optograph.optimizers.policy.oreo`. The reference's part is worked out beforehand, so a step is two
passes forward and two back, and memory holds one base.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from optograph.errors import UserError
from optograph.optimizers.policy.batching import batch_rows
from optograph.optimizers.policy.critic_files import HEAD_FILE
from optograph.optimizers.policy.models import CRITIC, POLICY, activate, save_adapter, save_memory
from optograph.optimizers.policy.oreo import OREOLosses, OREOOptions, future_logratios, oreo_losses
from optograph.optimizers.policy.references import Scored
from optograph.optimizers.policy.rows import TrainingRow
from optograph.optimizers.policy.scoring import action_kl, action_logprobs, decoder_of, hidden_before, spread
from optograph.optimizers.policy.tensors import masked_sum
from optograph.optimizers.policy.trainers.common import only_one, packed


class PolicyCritic(nn.Module):
    """A policy and a critic on one frozen base.

    Attributes:
        lm: The base with the adapters `POLICY` and `CRITIC`.
        head: From the critic's hidden state to a value; float32, without bias, zero at first.
    """

    def __init__(self, lm: PeftModel) -> None:
        super().__init__()
        self.lm = lm
        settings = decoder_of(lm).config.get_text_config()
        self.head = nn.Linear(settings.hidden_size, 1, bias=False, device=next(lm.parameters()).device)
        nn.init.zeros_(self.head.weight)
        for name, parameter in lm.named_parameters():
            parameter.requires_grad_(_of_adapter(name, POLICY) or _of_adapter(name, CRITIC))
        self.config = decoder_of(lm).config

    def forward(self, inputs: dict[str, Any], kl: bool) -> dict[str, Tensor | None]:
        """Return log-ratios, values and, where wanted, KL divergences of each token, (B, L)."""
        ids, mask = inputs["input_ids"], inputs["action_mask"]
        activate(self.lm, POLICY)
        hidden = hidden_before(self.lm, ids, mask)
        logratios = action_logprobs(self.lm, hidden, ids[mask]) - inputs["reference"]
        divergence = None
        if kl:
            with torch.set_grad_enabled(bool(inputs["kl_counts"]) and torch.is_grad_enabled()):
                divergence = spread(action_kl(self.lm, hidden, inputs["reference_hidden"]), mask)
        activate(self.lm, CRITIC)
        values = self.values(hidden_before(self.lm, ids, mask))
        return {"logratios": spread(logratios, mask), "values": spread(values, mask), "kl": divergence}

    def values(self, hidden: Tensor) -> Tensor:
        """Return the value of each hidden state, (N,), in float32 whatever the base computes in."""
        return (hidden.to(self.head.weight.dtype) * self.head.weight[0]).sum(-1)

    def save_critic(self, folder: Path) -> None:
        """Write the critic's adapter and head to a folder of its own."""
        save_adapter(self.lm, CRITIC, folder)
        save_file({"weight": self.head.weight.detach().cpu().contiguous()}, folder / HEAD_FILE)

    def load_head(self, folder: Path) -> None:
        """Take over the head of a critic that was trained before."""
        weight = load_file(folder / HEAD_FILE)["weight"]
        if weight.shape != self.head.weight.shape:
            raise UserError(
                f"the critic in {str(folder)!r} belongs to another base: its head is {tuple(weight.shape)!r}"
            )
        with torch.no_grad():
            self.head.weight.copy_(weight)


class OREOData(Dataset[dict[str, Any]]):
    """Batches of whole runs: the losses of a row need what later rows of its run did."""

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        references: Sequence[Scored],
        *,
        size: int,
        seed: int,
        kl_counts: bool,
        steps: Sequence[Sequence[bool]] | None = None,
    ) -> None:
        self._rows, self._references, self._steps, self._kl_counts = rows, references, steps, kl_counts
        runs: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            runs[row.rollout].append(place)
        self.batches = packed([*runs.values()], size, lambda place: len(rows[place].input_ids), seed)
        self._run = {name: number for number, name in enumerate(runs)}

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> dict[str, Any]:
        chosen = self.batches[place]
        batch = batch_rows([self._rows[one] for one in chosen], pad_id=0)
        made: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "action_mask": batch.action_mask,
            "rewards": batch.rewards,
            "run_tokens": batch.run_tokens,
            "runs": torch.tensor([self._run[name] for name in batch.rollouts]),
            "calls": torch.tensor(batch.calls),
            "reference": torch.cat([self._references[one].logprobs for one in chosen]),
            "kl_counts": torch.tensor(self._kl_counts),
        }
        hidden = [self._references[one].hidden for one in chosen]
        if all(one is not None for one in hidden):
            made["reference_hidden"] = torch.cat([one for one in hidden if one is not None])
        if self._steps is not None:
            made["steps"] = torch.zeros_like(batch.action_mask)
            for number, one in enumerate(chosen):
                made["steps"][number, : len(self._steps[one])] = torch.tensor(self._steps[one])
        return made


class OREOTrainer(Trainer):
    """Minimizes both losses in one step of one optimizer, with a learning rate each.

    With gradient checkpointing each adapter is active while its own part is worked backwards: what is computed again
    there must be computed with it.
    """

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PolicyCritic,
        args: TrainingArguments,
        data: OREOData,
        options: OREOOptions,
        *,
        critic_learning_rate: float,
        checkpointing: bool = False,
    ) -> None:
        self._both, self._options, self._critic_rate, self._checkpointing = (
            model,
            options,
            critic_learning_rate,
            checkpointing,
        )
        self._clip, self._seen = args.max_grad_norm, defaultdict[str, list[float]](list)
        super().__init__(model=model, args=args, train_dataset=data, data_collator=only_one)
        kind = self.accelerator.distributed_type
        self._apart = kind in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
        if self._apart:
            self.args.max_grad_norm = 0.0  # the two are clipped apart below
        if checkpointing:
            if kind != DistributedType.NO:
                raise UserError("OREO with gradient_checkpointing trains in one process: leave one of them out")
            save_memory(model.lm)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make AdamW with a learning rate for the policy and one for the critic."""
        if self.optimizer is None:
            policy, critic = self._groups()
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            rates = ({"params": policy, "lr": self.args.learning_rate}, {"params": critic, "lr": self._critic_rate})
            self.optimizer = kind([{**one, "weight_decay": self.args.weight_decay} for one in rates], **options)
        return self.optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of the losses."""
        losses = self._losses(model, inputs)
        return (losses.total, {}) if return_outputs else losses.total

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Work forward and back; clip the gradients of the two apart."""
        if self._checkpointing:
            total = self._checkpointed_step(model, inputs)
        else:
            total = super().training_step(model, inputs, num_items_in_batch)
        if self._apart and self._clip and self.accelerator.sync_gradients:
            for name, group in zip(("policy", "critic"), self._groups(), strict=True):
                self._seen[f"grad_norm_{name}"].append(float(nn.utils.clip_grad_norm_(group, self._clip)))
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means since the last time as well."""
        means = {name: sum(values) / len(values) for name, values in self._seen.items() if values}
        self._seen.clear()
        logs.pop("grad_norm", None)
        super().log({**logs, **means, "beta_effective": self._options.beta_effective}, start_time)

    def _checkpointed_step(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            losses = self._losses(model, inputs)
        parts = self.current_gradient_accumulation_steps
        lm = self.accelerator.unwrap_model(model).lm
        for adapter, loss in ((CRITIC, losses.value), (POLICY, losses.policy + self._options.kl_weight * losses.kl)):
            activate(lm, adapter)
            self.accelerator.backward(loss / parts)
        return (losses.total / parts).detach()

    def _losses(self, model: nn.Module, inputs: dict[str, Any]) -> OREOLosses:
        options, mask = self._options, inputs["action_mask"]
        looked_at = self.state.global_step % max(1, int(self.args.logging_steps)) == 0
        kl = "reference_hidden" in inputs and (options.kl_weight > 0 or looked_at)
        found = model(inputs, kl)
        whole = options.level == "response"
        steps = inputs.get("steps")
        counts = None
        if not whole:
            counts = inputs["run_tokens"] if steps is None else _steps_of_run(steps & mask, inputs["runs"])
        sums = masked_sum(found["logratios"], mask).detach()
        future = None if whole else future_logratios(sums, inputs["runs"].tolist(), inputs["calls"].tolist())
        losses = oreo_losses(
            found["logratios"],
            found["values"],
            mask,
            inputs["rewards"],
            options,
            kl=found["kl"],
            steps=steps,
            future=future,
            run_actions=counts,
            run_tokens=inputs["run_tokens"],
            runs=float(inputs["runs"].unique().numel()),
        )
        tokens = mask.sum()
        values = {"policy_loss": losses.policy, "value_loss": losses.value, "logratio": sums.sum() / tokens}
        values["value"] = found["values"].sum() / tokens
        if found["kl"] is not None:
            values["kl"] = found["kl"].sum() / tokens
        for name, value in values.items():
            self._seen[name].append(float(value.detach()))
        return losses

    def _groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        named = [(name, one) for name, one in self._both.named_parameters() if one.requires_grad]
        policy = [one for name, one in named if _of_adapter(name, POLICY)]
        return policy, [one for name, one in named if not _of_adapter(name, POLICY)]


def _of_adapter(name: str, adapter: str) -> bool:
    return f".{adapter}." in name


def _steps_of_run(starts: Tensor, runs: Tensor) -> Tensor:
    """Return for each row how many steps its whole run has; all its rows are there."""
    own = starts.sum(-1)
    same = runs[:, None] == runs[None, :]
    return (same * own[None, :]).sum(-1)
