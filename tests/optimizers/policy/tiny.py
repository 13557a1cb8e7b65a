"""A random Llama of two layers whose tokens are bytes, and rows for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from optograph.optimizers.policy import TrainingRow
from optograph.optimizers.policy.base import BaseModelFiles, base_model

PAD, END = 0, 1
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':' + message['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def make_base(folder: Path, **settings: Any) -> BaseModelFiles:
    """Write model and tokenizer; the same folder content each time, but for the settings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<end>", *alphabet])}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(["<pad>", "<end>"])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.1,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
        **settings,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return base_model(folder)


def row(prompt: str, answer: str, reward: float, *, example: str = "e", repeat: int = 0, **changes: Any) -> TrainingRow:
    """Return a row of one call; bytes stand for tokens."""
    asked, said = _ids(prompt), (*_ids(answer), END)
    settings: dict[str, Any] = {
        "rollout": f"c/train/{example}/{repeat}",
        "example": example,
        "call": 0,
        "node": "solve",
        "adapter": "policy",
        "policy": "weights",
        "input_ids": asked + said,
        "action_mask": (False,) * len(asked) + (True,) * len(said),
        "reward": reward,
        "run_tokens": len(said),
        "weight": 1.0,
    }
    return TrainingRow(**{**settings, **changes})


def sums(count: int, seed: int = 0) -> list[TrainingRow]:
    """Return rows of right and wrong answers to additions, two to each prompt, prompts of several lengths."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        x, y = generator.randint(1, 40), generator.randint(1, 40)
        for repeat, answer in enumerate((x + y, x + y + generator.randint(1, 9))):
            rows.append(row(f"{x}+{y}=", str(answer), 1.0 - repeat, example=f"e{number}", repeat=repeat))
    return rows


def _ids(text: str) -> tuple[int, ...]:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if not text:
        return ()
    ((piece, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return tuple(2 + alphabet.index(one) for one in piece)
