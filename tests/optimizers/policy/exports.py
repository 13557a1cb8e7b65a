"""Small things to export: a random Llama in both forms, and adapters with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "initializer_range": 0.2,  # answers that are told apart by more than rounding
}


def make_adapter(base: Path, folder: Path, *, strength: float) -> Path:
    """Write an adapter of rank 4 for all linear layers of a base model."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with safe_open(base / "model.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - it is no dict
            module, _, _ = name.rpartition(".")
            if module.rpartition(".")[2] not in TARGETS:
                continue
            rows, columns = weights.get_slice(name).get_shape()
            for part, shape, scale in (("A", (4, columns), columns**-0.5), ("B", (rows, 4), strength)):
                made = torch.randn(shape, generator=generator) * scale
                tensors[f"base_model.model.{module}.lora_{part}.weight"] = made
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": [*TARGETS]}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def make_llama(folder: Path, tokenizer: Path, **changes: Any) -> Path:
    """Write a random Llama with somebody else's tokenizer, in bfloat16."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": 49152, "max_position_embeddings": 512, **changes}
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def make_gguf(path: Path, source: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a GGUF file for `make_llama`'s model, with the tokenizer of another file and weights that are all 0."""
    import gguf
    import numpy as np

    layers, width, inner = SIZES["num_hidden_layers"], SIZES["hidden_size"], SIZES["intermediate_size"]
    kv = width * SIZES["num_key_value_heads"] // SIZES["num_attention_heads"]
    new = {
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": SIZES["num_attention_heads"],
        "llama.attention.head_count_kv": SIZES["num_key_value_heads"],
        "llama.rope.dimension_count": width // SIZES["num_attention_heads"],
        "llama.context_length": 512,
        **(changes or {}),
    }
    writer = gguf.GGUFWriter(path, "llama")
    for field in gguf.GGUFReader(source).fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inside = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, new.get(field.name, field.contents()), field.types[0], sub_type=inside)
    shapes = {"token_embd": (49152, width), "output_norm": (width,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (width,),
                "attn_q": (width, width),
                "attn_k": (kv, width),
                "attn_v": (kv, width),
                "attn_output": (width, width),
                "ffn_norm": (width,),
                "ffn_gate": (inner, width),
                "ffn_up": (inner, width),
                "ffn_down": (width, inner),
            }.items()
        }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
