"""LoRA adapters as files: a hash of what they compute, the name they are served under, and a probe of their training.

An adapter is a folder as PEFT saves it: ``adapter_config.json`` and ``adapter_model.safetensors``. Its name on a server
is made from its hash, so that a served name says which weights stand behind it; the probe then checks that they do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optograph.errors import ServingError, UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_NAME_LENGTH = 16
_LONGEST_HEADER = 100 * 1024 * 1024  # the limit of the safetensors format
# What says where the adapter came from or how it was trained, not what it computes.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "megatron_core",
        "lora_dropout",
        "parent_library",
        "peft_version",
        "qalora_group_size",  # has an effect with use_qalora alone, which servers refuse
        "revision",
        "runtime_config",
        "task_type",
    }
)
_UNORDERED = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")


class ServedAdapterError(ServingError):
    """A server does not serve the adapter that was trained."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="wrong_adapter")


@dataclass(frozen=True, slots=True)
class Probe:
    """What the trainer's own forward pass gave for some answer, to be compared with what the server gives.

    Attributes:
        prompt_ids: Token ids of the prompt; at least one.
        answer_ids: Token ids of the answer; at least one.
        logprobs: For each token of the answer its log-probability under the trained policy, given all tokens before
            it, at temperature 1; at most 0 but for rounding.
        others: The same of policies that could be served by mistake, by their names: ``"base"`` is the base model,
            ``"start"`` what the training began from.

    Raises:
        UserError: A part is empty, lengths differ, or a number is not finite.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.answer_ids or len(self.answer_ids) != len(self.logprobs):
            raise UserError(
                "a probe holds at least one token of a prompt, and at least one of an answer with a log-probability "
                f"each; got {len(self.prompt_ids)}, {len(self.answer_ids)} and {len(self.logprobs)}"
            )
        if not all(math.isfinite(one) for one in self.logprobs):
            raise UserError(f"the log-probabilities of a probe are finite, got {self.logprobs!r}")
        for name, logprobs in self.others.items():
            if len(logprobs) != len(self.logprobs) or not all(math.isfinite(one) for one in logprobs):
                raise UserError(
                    f"others[{name!r}] of a probe holds {len(self.logprobs)} finite log-probabilities, got {logprobs!r}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "prompt_ids": list(self.prompt_ids),
            "answer_ids": list(self.answer_ids),
            "logprobs": list(self.logprobs),
            "others": {name: list(logprobs) for name, logprobs in self.others.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probe:
        """Read what `to_json` wrote; older data has no ``others``."""
        others = {name: tuple(logprobs) for name, logprobs in data.get("others", {}).items()}
        return cls(tuple(data["prompt_ids"]), tuple(data["answer_ids"]), tuple(data["logprobs"]), others)

    def difference(self, served: Sequence[float]) -> float:
        """Return the largest absolute difference of a token's log-probability, in nats.

        Args:
            served: What the server gave for each token of the answer.

        Raises:
            ServedAdapterError: The server gave another number of them, or one that is not finite.
        """
        if len(served) != len(self.logprobs) or not all(math.isfinite(one) for one in served):
            raise ServedAdapterError(
                f"the server gave no usable log-probabilities for the probe: {len(served)} instead of "
                f"{len(self.logprobs)}, or one that is not finite"
            )
        return max(abs(one - other) for one, other in zip(self.logprobs, served, strict=True))

    def not_told_apart(self, tolerance: float) -> tuple[str, ...]:
        """Return the names of the others that a server could serve unseen: within twice the tolerance at each token."""
        return tuple(name for name, other in self.others.items() if self.difference(other) <= 2 * tolerance)

    def mistaken_for(self, served: Sequence[float], tolerance: float) -> str | None:
        """Return which of the others, told apart from the policy, is at least as near to what was served; None if none.

        Args:
            served: What the server gave for each token of the answer; near is a small sum of absolute differences.
            tolerance: As for `not_told_apart`.
        """
        unclear, own = self.not_told_apart(tolerance), _distance(served, self.logprobs)
        told = [name for name in self.others if name not in unclear]
        return next((name for name in told if _distance(served, self.others[name]) <= own), None)


def _distance(some: Sequence[float], others: Sequence[float]) -> float:
    return math.fsum(abs(one - other) for one, other in zip(some, others, strict=True))


def adapter_hash(folder: str | Path) -> str:
    """Return a hash of what an adapter computes: 64 hexadecimal digits (SHA-256).

    It covers the tensors (name, type, shape and content; not their order in the file, nor the file's metadata) and the
    settings that have an effect (rank, scaling, target modules …; not the base model's path, the trainer's dropout or
    PEFT's version). Settings that are empty, false or none count as absent, so that a newer PEFT with more of them
    gives the same hash.

    Args:
        folder: An adapter as PEFT saves it.

    Raises:
        UserError: A file is missing or damaged, or the weights are pickled.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    digest.update(json.dumps(_effective(read_adapter_config(folder)), sort_keys=True).encode())
    for name, header, content in _tensors(folder / WEIGHTS_FILE):
        digest.update(json.dumps([name, header["dtype"], header["shape"]]).encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def served_name(hash_: str) -> str:
    """Return the name under which a server serves the adapter of a hash: ``policy@`` and its first 16 digits.

    Raises:
        UserError: The hash is not one that `adapter_hash` gives.
    """
    if len(hash_) != 64 or not set(hash_) <= set("0123456789abcdef"):
        raise UserError(
            f"an adapter's hash has 64 hexadecimal digits, got {hash_!r}; make it with adapter_hash(folder)"
        )
    return f"policy@{hash_[:_NAME_LENGTH]}"


def check_servable(folder: str | Path, *, max_rank: int) -> None:
    """Check that vLLM can serve an adapter; it would refuse some, and others would not be what was trained.

    Args:
        folder: An adapter as PEFT saves it.
        max_rank: The server's largest rank.

    Raises:
        UserError: It is no LoRA adapter, its rank is too large or not that of its tensors, or it has DoRA, trained
            biases or whole modules.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    ranks = {int(config.get("r") or 0), *(int(one) for one in (config.get("rank_pattern") or {}).values())}
    rank = max(ranks)
    wrong = [
        what
        for what, there in (
            (f"is of type {config.get('peft_type')!r}", config.get("peft_type") != "LORA"),
            ("uses DoRA (use_dora)", bool(config.get("use_dora"))),
            ("trains biases (bias)", config.get("bias", "none") != "none" or bool(config.get("lora_bias"))),
            ("holds whole modules (modules_to_save)", bool(config.get("modules_to_save"))),
            ("holds token embeddings (trainable_token_indices)", bool(config.get("trainable_token_indices"))),
        )
        if there
    ]
    if wrong:
        raise UserError(
            f"vLLM cannot serve the adapter {str(folder)!r}: it {' and '.join(wrong)}; train plain LoRA, or serve the "
            "merged model"
        )
    if not 1 <= rank <= max_rank:
        raise UserError(
            f"the adapter {str(folder)!r} has rank {rank}, and the server takes 1 to {max_rank}: "
            f"start it with max_lora_rank={rank} or more"
        )
    for name, header, _ in _tensors(folder / WEIGHTS_FILE):  # vLLM would scale such a one by the settings' rank
        if ".lora_A." in name and header["shape"][0] not in ranks:
            raise UserError(
                f"the adapter {str(folder)!r} contradicts itself: tensor {name!r} has rank {header['shape'][0]}, its "
                f"settings say {', '.join(map(str, sorted(ranks)))}; save it again"
            )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's settings.

    Raises:
        UserError: The file is missing or no JSON object.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{str(folder)!r} holds no adapter: {CONFIG_FILE} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{str(path)!r} is damaged: it holds no JSON object")
    return config


def _effective(config: dict[str, Any]) -> dict[str, Any]:
    """Keep the settings that change what the adapter computes, in one spelling."""
    kept = {name: value for name, value in config.items() if name not in _WITHOUT_EFFECT and value}
    for name in _UNORDERED:
        if isinstance(kept.get(name), list):
            kept[name] = sorted(kept[name])
    if kept.get("init_lora_weights") in (True, "gaussian"):  # the others take something out of the base model
        del kept["init_lora_weights"]
    if kept.get("bias") == "none":
        del kept["bias"]
    return kept


def _tensors(path: Path) -> list[tuple[str, dict[str, Any], bytes]]:
    """Read (name, header, content) of each tensor of a safetensors file, by name."""
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = ""
        if path.with_suffix(".bin").exists():
            hint = "; pickled weights (.bin) are never read: save them with safe_serialization=True"
        raise UserError(f"the weights {str(path)!r} cannot be read ({error.strerror}){hint}") from None
    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > _LONGEST_HEADER or 8 + size > len(data):
            raise ValueError("its header is longer than the file")
        header = json.loads(data[8 : 8 + size])
        found = []
        for name in sorted(set(header) - {"__metadata__"}):
            start, end = header[name]["data_offsets"]
            if not 0 <= start <= end <= len(data) - 8 - size:
                raise ValueError(f"tensor {name!r} lies outside of it")
            found.append((name, header[name], data[8 + size + start : 8 + size + end]))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"the weights {str(path)!r} are damaged: {error}; save the adapter again") from None
    if not found:
        raise UserError(f"the weights {str(path)!r} hold no tensor; save the adapter again")
    return found
