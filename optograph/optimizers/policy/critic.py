"""A critic that OREO trained, loaded for use: for advantages of calls, and for search at test time."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from optograph.errors import UserError
from optograph.optimizers.policy.critic_files import CRITIC_FOLDER, HEAD_FILE, checked_critic, training_record
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.serving.vllm.adapters import CONFIG_FILE


class AdapterCritic:
    """The value of a state: a linear function of the last hidden state of the base with the critic's adapter.

    Args:
        base: Folder of the base model.
        folder: Folder of the critic (`TrainedPolicy.critic`): an adapter and ``head.safetensors``.
        dtype: What the base computes in.
        batch_size: Sequences at once, at least 1.

    Raises:
        UserError: The folder is no critic, one of another base, another one than was trained with its policy, or one
            of the level of responses, which knows what a prompt is worth and nothing of an answer.
    """

    def __init__(self, base: Path, folder: Path, *, dtype: torch.dtype = torch.float32, batch_size: int = 16) -> None:
        from peft import PeftModel
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size!r}")
        if not (folder / CONFIG_FILE).is_file() or not (folder / HEAD_FILE).is_file():
            raise UserError(f"{str(folder)!r} is no critic: it needs {CONFIG_FILE} and {HEAD_FILE}")
        if folder.name == CRITIC_FOLDER:
            checked_critic(folder.parent)
            if training_record(folder.parent).get("config", {}).get("level") == "response":
                raise UserError(
                    f"the critic in {str(folder)!r} was trained at level='response': it knows what a prompt is worth, "
                    "and nothing of an answer to it; train with 'token' or 'step'"
                )
        self.batch_size = batch_size
        self._lock = threading.Lock()
        with quiet_libraries(), warnings.catch_warnings():  # PEFT asks transformers for an attribute's old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, local_files_only=True)
            tuned: Any = PeftModel.from_pretrained(model, str(folder)).eval()
        self._decoder: Any = tuned.get_base_model().base_model
        self._head = load_file(folder / HEAD_FILE)["weight"].float().flatten()
        if len(self._head) != model.config.get_text_config().hidden_size:
            raise UserError(
                f"the critic in {str(folder)!r} belongs to another base: its head has {len(self._head)} weights"
            )

    def values(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return V of the state after each token, for each sequence; any thread may ask."""
        found: list[list[float]] = []
        with self._lock:
            for start in range(0, len(sequences), self.batch_size):
                found += self._batch(sequences[start : start + self.batch_size])
        return found

    @torch.no_grad()
    def _batch(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        longest = max(len(one) for one in sequences)
        ids = torch.zeros((len(sequences), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, one in enumerate(sequences):
            ids[place, : len(one)] = torch.tensor(one)
            mask[place, : len(one)] = 1
        hidden = self._decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        values = hidden.float() @ self._head
        return [values[place, : len(one)].tolist() for place, one in enumerate(sequences)]
