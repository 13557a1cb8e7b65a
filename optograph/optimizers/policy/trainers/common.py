"""What all trainers share: arguments, batches without padding to waste, and the curves that they leave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments

from optograph.optimizers.policy.config import PolicyConfig

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with the step, the number of steps, and what is logged there."""
_Item = TypeVar("_Item")
_CHECKPOINTING = (
    "activation_checkpointing"
    if any(field.name == "activation_checkpointing" for field in dataclasses.fields(TrainingArguments))
    else "gradient_checkpointing"  # transformers before 5.24
)


class Trainer(Protocol):
    """What is used of a `transformers.Trainer`."""

    def train(self) -> Any:
        """Train."""

    def add_callback(self, callback: Any) -> None:
        """Have a callback told of each step."""

    def remove_callback(self, callback: Any) -> None:
        """Undo that."""


def arguments(
    config: PolicyConfig, folder: Path, device: torch.device, dtype: torch.dtype, steps: int
) -> dict[str, Any]:
    """Return the arguments that `transformers.TrainingArguments` and TRL's configurations have in common.

    Args:
        config: The configuration.
        folder: Where a trainer may write; nothing there is kept.
        device: Where to train.
        dtype: Of the frozen weights.
        steps: Steps of the optimizer in all, by which the curves get about 50 points.
    """
    return {
        "output_dir": str(folder),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule if config.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": int(steps * config.warmup),  # the first of them has a rate of 0, so few steps have none
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "gradient_accumulation_steps": config.accumulation,
        _CHECKPOINTING: config.gradient_checkpointing,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": device.type == "cpu",
        "bf16": device.type == "cuda" and dtype == torch.bfloat16,
        "dataloader_pin_memory": device.type == "cuda",
        "logging_steps": max(1, steps // 50),
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def own_arguments(
    config: PolicyConfig, folder: Path, device: torch.device, dtype: torch.dtype, steps: int
) -> TrainingArguments:
    """Return arguments for our own trainers: an item of their data is a whole part of a batch."""
    common = arguments(config, folder, device, dtype, steps)
    common[_CHECKPOINTING] = False  # they do it themselves
    return TrainingArguments(**common, per_device_train_batch_size=1, remove_unused_columns=False, adam_beta2=0.95)


def steps_of(items: int, config: PolicyConfig) -> int:
    """Return the number of the optimizer's steps for so many parts of batches, which all processes share."""
    parts = math.ceil(items / int(PartialState().num_processes))
    return max(1, math.ceil(math.ceil(parts / config.accumulation) * config.epochs))


def packed(
    groups: Sequence[Sequence[_Item]], size: int, length: Callable[[_Item], int], seed: int
) -> list[list[_Item]]:
    """Put groups that must stay together into batches of items of about the same length.

    Groups are shuffled, sorted by length within stretches of 16 batches, and then filled into batches; so batches
    differ from seed to seed, and hold little padding.

    Args:
        groups: At least one item each.
        size: Items of a batch; a batch holds more only where one group does.
        length: Length of an item, in tokens.
        seed: Of the shuffle.
    """
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    mean = sum(len(group) for group in groups) / len(groups)
    stretch = max(1, round(16 * size / mean))
    batches: list[list[_Item]] = []
    for start in range(0, len(order), stretch):
        batch: list[_Item] = []
        for place in sorted(order[start : start + stretch], key=lambda one: max(length(item) for item in groups[one])):
            if batch and len(batch) + len(groups[place]) > size:
                batches.append(batch)
                batch = []
            batch.extend(groups[place])
        batches.append(batch)
    return batches


def only_one(items: list[Any]) -> Any:
    """Collate for data whose items are batches already."""
    (item,) = items
    return item


class Curves(TrainerCallback):
    """Keeps what a trainer logs, and hands it on.

    Args:
        progress: Told as well.
        beta: What TRL's trainers multiply log(policy / reference) of a whole answer by, for its reward; log-ratios are
            kept besides rewards, as ``logratio_chosen`` and ``logratio_rejected``, in nats.
    """

    def __init__(self, progress: Progress | None, beta: float = 0.0) -> None:
        self.history: list[dict[str, float]] = []
        self._progress, self._beta = progress, beta

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Keep the numbers of a step; the summary at the end has none of its own."""
        if not logs or "train_runtime" in logs:
            return
        numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
        for side in ("chosen", "rejected"):
            if self._beta and f"rewards/{side}" in numbers:
                numbers[f"logratio_{side}"] = numbers[f"rewards/{side}"] / self._beta
        self.history.append({"step": float(state.global_step), **numbers})
        if self._progress is not None:
            self._progress(int(state.global_step), int(state.max_steps), numbers)


def summary(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the last quarter of the curve, and where it began."""
    if not history:
        return {}
    last = history[-max(1, len(history) // 4) :]
    names = [name for name in history[-1] if name not in ("step", "epoch")]
    means = {name: sum(one[name] for one in last if name in one) / sum(name in one for one in last) for name in names}
    return {**means, **{f"first_{name}": history[0][name] for name in names if name in history[0]}}
