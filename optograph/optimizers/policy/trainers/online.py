"""GRPO on TRL's trainer: answers are sampled while training, and a function of ours says what each earns.

Prompts are the token ids of rows; what the rows answered and earned is not looked at. Sampling is the model's own
`generate`, or vLLM in the same process on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from optograph.errors import UserError
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.rows import TrainingRow

Reward = Callable[[str, str], float]
"""Says what an answer earns, given the id of its example and its text."""


class RecordedGRPOTrainer(GRPOTrainer):
    """TRL's GRPO trainer whose prompts are places in a list of token ids that were recorded."""

    def __init__(self, prompts: Sequence[list[int]], **options: Any) -> None:
        self._recorded = prompts
        super().__init__(**options)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return the recorded ids; there are no pictures."""
        return [list(self._recorded[int(one)]) for one in prompts], None, {}


def grpo_trainer(
    model: Any,
    rows: Sequence[TrainingRow],
    reward: Reward,
    config: PolicyConfig,
    common: dict[str, Any],
    tokenizer: Any,
) -> RecordedGRPOTrainer:
    """Return the trainer for the distinct prompts of the rows.

    Raises:
        UserError: The numbers of answers do not fit the batch, or vLLM is asked for without a GPU.
    """
    from datasets import Dataset

    part = config.batch_size // config.accumulation
    if part % config.generations:
        raise UserError(
            f"GRPO works through whole groups: {part} answers at once are no multiple of {config.generations}"
        )
    if config.vllm and common["use_cpu"]:
        raise UserError("vllm=True samples with vLLM within the trainer, which needs a GPU: leave it out on a CPU")
    seen: dict[tuple[int, ...], str] = {}
    for row in rows:
        seen.setdefault(row.input_ids[: row.prompt_length], row.example)
    examples = list(seen.values())

    def earned(prompts: list[str], completions: list[str], **rest: Any) -> list[float]:
        return [float(reward(examples[int(one)], text)) for one, text in zip(prompts, completions, strict=True)]

    arguments = GRPOConfig(
        **common,
        per_device_train_batch_size=part,
        num_generations=config.generations,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        beta=config.beta_or_default,
        use_vllm=config.vllm,
        vllm_mode="colocate",
    )
    return RecordedGRPOTrainer(
        [list(prompt) for prompt in seen],
        model=model,
        reward_funcs=earned,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [str(number) for number in range(len(seen))]}),
        processing_class=tokenizer,
    )
