"""Which trainer a method has, and what it needs before it can begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optograph.errors import UserError
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.critic_files import CRITIC_FOLDER, checked_critic
from optograph.optimizers.policy.models import CRITIC, POLICY, activate, add_frozen, lora_config, save_adapter
from optograph.optimizers.policy.oreo import OREOOptions
from optograph.optimizers.policy.references import Scored, score_rows
from optograph.optimizers.policy.rows import PreferenceRow, TrainingRow, preference_rows
from optograph.optimizers.policy.scoring import check_head
from optograph.optimizers.policy.steps import step_starts
from optograph.optimizers.policy.trainers.common import Trainer, arguments, own_arguments, steps_of

_SCORED_AT_ONCE = 32
_HIDDEN_LIMIT = 2**30
"""Bytes of hidden states that are kept only to look at the KL divergence."""


@dataclass(frozen=True)
class Session:
    """A trainer that is ready.

    Attributes:
        trainer: To train and to watch.
        save: Writes what was trained to a folder.
    """

    trainer: Trainer
    save: Callable[[Path], None]


@dataclass(frozen=True)
class _Setting:
    model: Any
    tokenizer: Any
    rows: Sequence[TrainingRow]
    config: PolicyConfig
    start: Path | None
    scratch: Path
    device: torch.device
    dtype: torch.dtype
    reward: Callable[[str, str], float] | None

    @property
    def part(self) -> int:
        """Rows, or pairs, that are worked through at once."""
        return self.config.batch_size // self.config.accumulation

    def common(self, items: int, size: int | None = None) -> dict[str, Any]:
        """Return arguments of TRL's trainers for so many rows or pairs, `part` or another number of them at once."""
        steps = steps_of(-(-items // (size or self.part)), self.config)
        return arguments(self.config, self.scratch, self.device, self.dtype, steps)

    def forget(self) -> None:
        """Drop the adapters that only references needed."""
        for name in ("reference", "previous"):
            if name in self.model.peft_config:
                self.model.delete_adapter(name)
        activate(self.model, POLICY)

    def reference(self, rows: Sequence[TrainingRow], *, hidden: bool = False) -> list[Scored]:
        """Score rows under the reference: its own adapter, or what the policy is before training (the base if new)."""
        adapter = "reference" if "reference" in self.model.peft_config else POLICY
        return score_rows(self.model, rows, adapter, batch_size=_SCORED_AT_ONCE, hidden=hidden)


def prepare(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TrainingRow],
    config: PolicyConfig,
    start: Path | None,
    scratch: Path,
    device: torch.device,
    dtype: torch.dtype,
    reward: Callable[[str, str], float] | None = None,
) -> Session:
    """Make a method's trainer, on a base with the policy's adapter and those of references."""
    setting = _Setting(model, tokenizer, rows, config, start, scratch, device, dtype, reward)
    return _MAKERS[config.method](setting)


def _oreo(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers.oreo import OREOData, OREOTrainer, PolicyCritic

    model, config, rows = setting.model, setting.config, setting.rows
    if config.level == "response" and len({row.rollout for row in rows}) < len(rows):
        raise UserError("level='response' is for runs of one call, and some have several: use 'token' or 'step'")
    check_head(model, torch.tensor([rows[0].input_ids[:8]], device=setting.device))
    settings = model.get_base_model().config.get_text_config()
    size = 4 * settings.hidden_size * sum(row.actions for row in rows)
    references = setting.reference(rows, hidden=config.kl_weight > 0 or size < _HIDDEN_LIMIT)
    setting.forget()
    critic = None if setting.start is None else checked_critic(setting.start)
    if critic is not None:
        add_frozen(model, CRITIC, critic)
    else:
        model.add_adapter(CRITIC, lora_config(config))
    both = PolicyCritic(model)
    if critic is not None:
        both.load_head(critic)
    starts = None
    if config.level == "step":
        decode, ends = (lambda one: str(setting.tokenizer.decode([one]))), {setting.tokenizer.eos_token_id}
        starts = [step_starts(row.input_ids, row.action_mask, decode, ends) for row in rows]
    data = OREOData(rows, references, size=setting.part, seed=config.seed, kl_counts=config.kl_weight > 0, steps=starts)
    trainer = OREOTrainer(
        both,
        own_arguments(config, setting.scratch, setting.device, setting.dtype, steps_of(len(data), config)),
        data,
        OREOOptions(beta=config.beta_or_default, kl_weight=config.kl_weight, level=config.level),
        critic_learning_rate=config.critic_learning_rate,
        checkpointing=config.gradient_checkpointing,
    )

    def save(folder: Path) -> None:
        save_adapter(model, POLICY, folder)
        both.save_critic(folder / CRITIC_FOLDER)

    return Session(trainer, save)


def _pairs(setting: _Setting) -> list[PreferenceRow]:
    pairs = preference_rows(setting.rows)
    if not pairs:
        raise UserError(
            f"{len(setting.rows)} rows make no pair: no two answers to the same prompt by the same policy differ in "
            "what they earned. Collect several answers to each prompt"
        )
    return pairs


def _dpo(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers.preference import (
        MomentumDPOTrainer,
        dpo_arguments,
        paired_dataset,
        totals,
    )

    model, config = setting.model, setting.config
    pairs = _pairs(setting)
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    current = totals([one.total for one in setting.reference(answers)])
    previous = current
    if "previous" in model.peft_config:
        previous = totals([one.total for one in score_rows(model, answers, "previous", batch_size=_SCORED_AT_ONCE)])
    setting.forget()
    alpha = config.alpha if config.method == "momentum_dpo" else 0.0
    halves = [one.reshape(2, len(pairs)) for one in (current, previous)]
    data = paired_dataset(pairs, (halves[0][0], halves[0][1]), (halves[1][0], halves[1][1]), alpha)
    common = setting.common(len(pairs))
    settings = dpo_arguments(common, batch_size=setting.part, beta=config.beta_or_default, sft_weight=config.sft_weight)
    trainer = MomentumDPOTrainer(model, settings, data, setting.tokenizer)
    return Session(trainer, lambda folder: save_adapter(model, POLICY, folder))


def _sft(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers.supervised import sft_trainer

    common = setting.common(len(setting.rows))
    trainer = sft_trainer(setting.model, setting.rows, setting.config, common, setting.tokenizer)
    return Session(trainer, lambda folder: save_adapter(setting.model, POLICY, folder))


def _kto(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers import supervised

    size = supervised.kto_size(len(setting.rows), setting.part)
    rows = supervised.kto_order(setting.rows, size, setting.config.seed)
    others = supervised.mismatched(rows, size)
    references = [one.total for one in setting.reference([*rows, *others])]
    setting.forget()
    data = supervised.kto_dataset(rows, others, references, setting.config)
    arguments = supervised.kto_arguments(setting.config, setting.common(len(rows), size), size)
    trainer = supervised.RecordedKTOTrainer(setting.model, arguments, data, setting.tokenizer)
    return Session(trainer, lambda folder: save_adapter(setting.model, POLICY, folder))


def _sequence(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers import sequence

    model, config = setting.model, setting.config
    check_head(model, torch.tensor([setting.rows[0].input_ids[:8]], device=setting.device))
    if config.method == "ipo":
        units: list[tuple[TrainingRow, ...]] = [(pair.chosen, pair.rejected) for pair in _pairs(setting)]
        targets, loss = [0.0] * len(units), sequence.ipo(config.beta_or_default)
    else:
        units = [(row,) for row in setting.rows]
        targets, loss = sequence.row_win_rates(setting.rows, config.win_scale), sequence.soft_sppo(config.eta)
        if all(target == 0.5 for target in targets):
            raise UserError("no answer won against another to the same prompt: collect several answers to each prompt")
    scored = setting.reference([row for unit in units for row in unit])
    setting.forget()
    width = len(units[0])
    references = [[one.total for one in scored[place : place + width]] for place in range(0, len(scored), width)]
    data = sequence.SequenceData(units, references, targets, size=setting.part, seed=config.seed)
    common = own_arguments(config, setting.scratch, setting.device, setting.dtype, steps_of(len(data), config))
    trainer = sequence.SequenceTrainer(model, common, data, loss, checkpointing=config.gradient_checkpointing)
    return Session(trainer, lambda folder: save_adapter(model, POLICY, folder))


def _grpo(setting: _Setting) -> Session:
    from optograph.optimizers.policy.trainers.online import grpo_trainer

    model, config = setting.model, setting.config
    if setting.reward is None:
        raise UserError("GRPO samples answers of its own: pass reward=..., a function of an example's id and a text")
    prompts = len({row.input_ids[: row.prompt_length] for row in setting.rows})
    common = setting.common(prompts * config.generations)
    trainer = grpo_trainer(model, setting.rows, setting.reward, config, common, setting.tokenizer)
    return Session(trainer, lambda folder: save_adapter(model, POLICY, folder))


_MAKERS: dict[str, Callable[[_Setting], Session]] = {
    "oreo": _oreo,
    "momentum_dpo": _dpo,
    "dpo": _dpo,
    "ipo": _sequence,
    "sppo": _sequence,
    "grpo": _grpo,
    "kto": _kto,
    "sft": _sft,
}
