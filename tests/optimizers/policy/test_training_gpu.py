"""Training on a GPU: bfloat16, checkpointing, and GRPO that samples with vLLM in the same process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from optograph.optimizers.policy import PolicyConfig, train_policy
from optograph.optimizers.policy.base import BaseModelFiles, base_model
from tests.optimizers.policy.tiny import make_base, sums

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("method", ["sft", "oreo", "momentum_dpo", "ipo", "sppo", "kto"])
def test_each_method_trains_in_bfloat16(method: str, base: BaseModelFiles, tmp_path: Path) -> None:
    config = PolicyConfig.of(method, device="gpu", dtype="bfloat16", epochs=2, learning_rate=5e-3, batch_size=8)
    made = train_policy(sums(8), config, base=base, out=tmp_path / "a")
    assert made.metrics["loss"] != made.metrics["first_loss"]
    assert all(-50 < one <= 0 for one in made.probe.logprobs)


def test_checkpointing_trains_the_same_way(base: BaseModelFiles, tmp_path: Path) -> None:
    losses = [
        train_policy(
            sums(8),
            PolicyConfig.of("oreo", device="gpu", dtype="float32", epochs=2, gradient_checkpointing=flag),
            base=base,
            out=tmp_path / str(flag),
        ).metrics["loss"]
        for flag in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM beside torch: optograph[vllm]")
def test_grpo_samples_with_vllm_in_the_same_process(tmp_path: Path) -> None:
    config = PolicyConfig.of("grpo", device="gpu", vllm=True, generations=4, batch_size=8, max_new_tokens=16)
    made = train_policy(
        sums(4),
        config,
        base=base_model("local/smollm2-135m"),
        out=tmp_path / "a",
        reward=lambda example, text: float(any(one.isdigit() for one in text)),
    )
    assert 0 <= made.metrics["reward"] <= 1
