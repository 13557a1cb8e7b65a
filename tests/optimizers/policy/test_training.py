"""Policies are trained end to end on a random model: what is learned, that it is repeatable, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.optimizers.policy import PolicyConfig, TrainedPolicy, train_policy
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.serving.vllm.adapters import adapter_hash, check_servable
from tests.optimizers.policy.tiny import make_base, row, sums

LEARNS = {
    "sft": ("loss", -0.5),
    "oreo": ("value_loss", -0.1),
    "momentum_dpo": ("rewards/margins", 0.1),
    "dpo": ("rewards/margins", 0.1),
    "ipo": ("margin", 0.5),
    "sppo": ("gain", 0.02),
    "kto": ("rewards/chosen", 0.05),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


def config(method: str, **options: Any) -> PolicyConfig:
    return PolicyConfig.of(
        method, **{"learning_rate": 5e-3, "batch_size": 8, "epochs": 4, "dtype": "float32", **options}
    )


@pytest.mark.parametrize("method", LEARNS)
def test_each_method_learns_from_rows_and_leaves_an_adapter_that_can_be_served(
    method: str, base: BaseModelFiles, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    made = train_policy(
        sums(16),
        config(method),
        base=base,
        out=tmp_path / "a",
        progress=lambda step, steps, _: seen.append((step, steps)),
    )
    name, gain = LEARNS[method]
    change = made.metrics[name] - made.metrics[f"first_{name}"]
    assert change < gain if gain < 0 else change > gain, made.history
    assert made.hash == adapter_hash(made.folder)
    check_servable(made.folder, max_rank=8)
    assert seen[-1][0] == seen[-1][1] == made.history[-1]["step"]
    assert TrainedPolicy.load(made.folder) == made
    assert (made.critic is not None) == (method == "oreo")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # nothing half-made is left
