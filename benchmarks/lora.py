"""Measure answers of a LoRA adapter from vLLM on a CPU: with the server's plugin, and with vLLM's own functions alone.

Two servers one after the other, the same prompts, the same random adapter on all linear layers, as many at once. The
bar is a throughput at least twice that of vLLM alone, and all greedy answers but near ties the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optograph.optimizers.policy.base import BaseModelFiles, base_model
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.models import load_base, with_policy
from optograph.serving import Completion, Request
from optograph.serving.vllm import VLLMServer

SPEEDUP_BAR = 2.0
SAME_BAR = 0.9
WORDS = ("river", "stone", "cloud", "apple", "seven", "green", "slow", "under", "bridge", "night", "train", "paper")


def write_adapter(base: BaseModelFiles, folder: Path, rank: int) -> None:
    """Write an adapter with small random weights."""
    import torch

    torch.manual_seed(0)
    config = PolicyConfig.of("sft", rank=rank, lora_alpha=2.0 * rank)
    model = with_policy(load_base(base, dtype=torch.float32, device=torch.device("cpu")), config, None)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.01)
    model.save_pretrained(str(folder))


def answers(server: VLLMServer, adapter: Path, count: int, tokens: int) -> tuple[float, list[Completion]]:
    """Ask the adapter, all requests at once; returns seconds and completions."""
    lm = server.lm(server.load_adapter(adapter))
    lm("Are you there?", max_tokens=1)  # loads it
    prompts = [" ".join(WORDS[(n * k + k) % len(WORDS)] for k in range(1, 33)) for n in range(count)]

    async def all_of_them() -> list[Completion]:
        asked = (lm.complete(Request(prompt=f"{n}. {text}", max_tokens=tokens)) for n, text in enumerate(prompts))
        found = list(await asyncio.gather(*asked))
        await lm.aclose()
        return found

    start = time.perf_counter()
    found = asyncio.run(all_of_them())
    return time.perf_counter() - start, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether every bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8)
    given = parser.parse_args(arguments)
    base = base_model(given.model)
    table = Table(title=f"{given.requests} requests of {given.tokens} tokens to an adapter of rank {given.rank}")
    for column in ("", "s", "tokens/s, prompts and answers"):
        table.add_column(column, justify="left" if not column else "right")
    seconds: list[float] = []
    said: list[list[Completion]] = []
    with tempfile.TemporaryDirectory() as scratch:
        write_adapter(base, Path(scratch), given.rank)
        adapter = Path(scratch)
        for name, allowed in (("vLLM alone", "none"), ("with the plugin", None)):
            os.environ.pop("VLLM_PLUGINS", None)
            if allowed:
                os.environ["VLLM_PLUGINS"] = allowed
            with VLLMServer(base.folder, max_lora_rank=given.rank, max_loras=1, max_model_len=256) as server:
                took, found = answers(server, adapter, given.requests, given.tokens)
            seconds.append(took)
            said.append(found)
            all_tokens = sum(one.usage.prompt_tokens + one.usage.completion_tokens for one in found)
            table.add_row(name, f"{took:.1f}", f"{all_tokens / took:.0f}")
    Console(width=100).print(table)
    same = sum(one.texts == other.texts for one, other in zip(*said, strict=True)) / given.requests
    speedup = seconds[0] / seconds[1]
    print(f"lora_speedup={speedup:.2f} same_answers={same:.3f}")
    return 0 if speedup >= SPEEDUP_BAR and same >= SAME_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
