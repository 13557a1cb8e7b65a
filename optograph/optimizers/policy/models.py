"""The frozen base in memory, with LoRA adapters on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.config import PolicyConfig

POLICY, CRITIC = "default", "critic"
"""Names of adapters within a model; TRL looks for ``"default"``."""


def device_of(config: PolicyConfig) -> torch.device:
    """Return where to train.

    Raises:
        UserError: A GPU is asked for, and there is none.
    """
    there = torch.cuda.is_available()
    if config.device == "gpu" and not there:
        raise UserError("device='gpu', but torch sees no CUDA GPU: use device='cpu' or 'auto'")
    return torch.device("cuda" if there and config.device != "cpu" else "cpu")


def dtype_of(config: PolicyConfig, device: torch.device) -> torch.dtype:
    """Return the type of the frozen weights: bfloat16 where the hardware multiplies it, else float32."""
    if config.dtype != "auto":
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def load_base(base: BaseModelFiles, *, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the frozen base model, without the dropout and jitter that its own configuration has for training.

    References are scored without them, so with them the policy would differ from its reference before it moved.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype, local_files_only=True)
    model.requires_grad_(False)
    model.config.use_cache = False
    return _without_noise(model).to(device)


def _without_noise(model: Any) -> Any:
    """Set every probability of dropout and every width of jitter to 0: in modules, and by name in what they look up."""
    for holder in (model.config, model.config.get_text_config(), *model.modules()):
        for name, value in list(vars(holder).items()):
            if type(value) is float and ("drop" in name or "jitter" in name):
                setattr(holder, name, 0.0)
        if isinstance(holder, torch.nn.modules.dropout._DropoutNd):
            holder.p = 0.0
    return model


def load_tokenizer(base: BaseModelFiles) -> Any:
    """Load the base's tokenizer, with a token for padding."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def with_policy(model: Any, config: PolicyConfig, start: Path | None) -> PeftModel:
    """Put the policy's adapter on the base: a new one, which does nothing yet, or the one that training begins from.

    A new one's random numbers come from the configuration's seed.
    """
    if start is not None:
        started = PeftModel.from_pretrained(model, str(start), adapter_name=POLICY, is_trainable=True)
        _without_noise(started.get_base_model())  # an adapter from elsewhere may have dropout of its own
        return started
    torch.manual_seed(config.seed)
    return get_peft_model(model, lora_config(config), adapter_name=POLICY)


def lora_config(config: PolicyConfig) -> LoraConfig:
    """Return the settings of a new adapter; vLLM can serve all of them."""
    modules = config.target_modules if config.target_modules == "all-linear" else list(config.target_modules)
    alpha = int(config.lora_alpha) if config.lora_alpha == int(config.lora_alpha) else config.lora_alpha
    return LoraConfig(
        r=config.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number works
        lora_dropout=0.0,
        target_modules=modules,
        task_type="CAUSAL_LM",
    )


def save_memory(model: PeftModel) -> None:
    """Keep no activations within the layers: they are computed again on the way back."""
    decoder: Any = model.get_base_model()
    new = "activation_checkpointing_enable"  # the older name before transformers 5.24
    getattr(decoder, new if hasattr(decoder, new) else "gradient_checkpointing_enable")({"use_reentrant": False})


def add_frozen(model: PeftModel, name: str, folder: Path) -> None:
    """Load one more adapter, which stays as it is; the active one is not changed."""
    active = model.active_adapter
    model.load_adapter(str(folder), adapter_name=name, is_trainable=False)
    model.set_adapter(active)


@contextmanager
def under(model: PeftModel, adapter: str | None) -> Iterator[None]:
    """Compute with another adapter within the block, or with none; what is trained stays so."""
    before = _trained(model)
    active = model.active_adapter
    try:
        if adapter is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(adapter)
            yield
    finally:
        model.set_adapter(active)
        _train_only(model, before)


def activate(model: PeftModel, adapter: str) -> None:
    """Switch adapters. PEFT alone would freeze the others, so that an optimizer made later misses them."""
    before = _trained(model)
    model.set_adapter(adapter)
    _train_only(model, before)


def _trained(model: PeftModel) -> set[int]:
    return {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def _train_only(model: PeftModel, wanted: set[int]) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def _whole(tensor: Any) -> Any:
    """Gather a tensor that FSDP cut into parts; every process must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def save_adapter(model: PeftModel, name: str, folder: Path) -> None:
    """Write an adapter as PEFT does: ``adapter_config.json`` and ``adapter_model.safetensors``, in float32.

    The same adapter gives the same bytes, whatever the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    tensors = {key: _whole(state[key]).detach().float().cpu().contiguous() for key in sorted(state)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config[name]
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False
    settings = folder / "adapter_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    values = {key: sorted(value) if key == "target_modules" else value for key, value in values.items()}
    settings.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
