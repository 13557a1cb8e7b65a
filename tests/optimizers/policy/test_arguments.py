"""Arguments that all trainers share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optograph.optimizers.policy import PolicyConfig
from optograph.optimizers.policy.trainers.common import arguments


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 300])
def test_at_least_one_step_has_the_full_rate(tmp_path: Path, steps: int, warmup: float) -> None:
    """The first step of a warm-up has a rate of 0, so that as many of these as there are steps would change nothing."""
    made = arguments(PolicyConfig.of("dpo", warmup=warmup), tmp_path, torch.device("cpu"), torch.float32, steps)
    assert made["warmup_steps"] == int(steps * warmup)
    assert made["warmup_steps"] < steps
