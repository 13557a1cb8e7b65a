"""A training is killed in every phase: at its begin, in its midst, in its last write, after it; it ends alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optograph.jobs.training.records import STATE, TrainState
from optograph.storage import Journal
from tests.jobs.training.tiny import write_tiny_job
from tests.jobs.training.toys import PROMPTED, write_job
from tests.optimizers.policy.tiny import make_base

KILLED, FINISHED = -signal.SIGKILL, 4
WHENS = ("begin", "during", "commit", "written")
ROUND = ("collect", "rows", "train", "serve", "evaluate", "decide")

Life = Callable[..., int]


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """Start a life of a training."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.training.lives"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def start(**how: Any) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(how) + "\n")
            process.stdin.flush()
            return int(json.loads(process.stdout.readline()))

        yield start
        process.stdin.close()


def kills_of(rounds: int, *, momentum: bool) -> list[tuple[int, str, str]]:
    """Return all kills in the order of the run; those of a phase that cannot be killed in its midst are left out."""
    found = [(0, phase, when) for phase in ("start", "baseline") for when in WHENS]
    for number in range(1, rounds + 1):
        phases = (*(("extrapolate",) if momentum and number > 1 else ()), *ROUND)
        found += [(number, phase, when) for phase in phases for when in WHENS]
    midst = {"baseline", "collect", "rows", "train", "serve", "evaluate"}
    return [one for one in found if one[2] != "during" or one[1] in midst]


@pytest.mark.parametrize("method", ["oreo", "momentum_dpo"])
def test_a_training_killed_in_every_phase_comes_to_the_same_weights(life: Life, tmp_path: Path, method: str) -> None:
    job = write_job(tmp_path / "job", sizes=(6, 16, 10))
    common: dict[str, Any] = {"job": str(job), "set": [f"policy.method={method}", 'policy.keep="all"']}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, directory=str(whole), asked=str(tmp_path / "asked.whole")) == FINISHED
    kills = kills_of(2, momentum=method == "momentum_dpo")
    for kill in kills:
        asked = str(tmp_path / "asked.killed")
        assert life(**common, directory=str(killed), asked=asked, kill=kill) == KILLED, kill
    assert life(**common, directory=str(killed), asked=str(tmp_path / "asked.killed")) == FINISHED
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert adapters(killed) == adapters(whole)
    with Journal.read(whole) as one, Journal.read(killed) as other:
        assert other.lives == len(kills) + 1
        assert other.load_state(STATE) == one.load_state(STATE)
        plain = {"seconds": 0.0, "calls": 0}
        assert [row.model_copy(update=plain) for row in other.decisions()] == [
            row.model_copy(update=plain) for row in one.decisions()
        ]
        assert sorted(row.key for row in other.calls()) == sorted(row.key for row in one.calls())


def test_prompts_between_rounds_survive_kills(life: Life, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", app=PROMPTED, sizes=(6, 16, 10))
    settings = ["policy.rounds=1", "policy.alternate=true", "optimizer.steps=2", "optimizer.minibatch=4"]
    common: dict[str, Any] = {"job": str(job), "set": settings, "asked": str(tmp_path / "asked")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, directory=str(whole)) == FINISHED
    for when in ("begin", "during", "commit", "written"):
        assert life(**common, directory=str(killed), kill=(1, "prompts", when)) == KILLED, when
    assert life(**common, directory=str(killed)) == FINISHED
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    best = json.loads((whole / "result.json").read_text())["best"]["values"]
    assert best["instruction"] == "Answer carefully."
    assert len(best["adapter.policy"]) == 64


def adapters(run: Path) -> dict[str, bytes]:
    """Return the weights of the adapters in a run's folder."""
    return {one.name: (one / "adapter_model.safetensors").read_bytes() for one in (run / "adapters").iterdir()}


@pytest.mark.parametrize("method", ["oreo", "momentum_dpo"])
def test_real_training_killed_in_every_phase_comes_to_the_same_weights(
    life: Life, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    base = make_base(tmp_path_factory.mktemp("base"))
    job = write_tiny_job(tmp_path / "job", base.folder)
    common = {"job": str(job), "base": str(base.folder), "set": [f"policy.method={method}", 'policy.keep="all"']}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, directory=str(whole), asked=str(tmp_path / "asked.whole")) == FINISHED
    phases = ("collect", "rows", "train", "serve", "evaluate")
    kills = [*((1, phase, "during") for phase in phases), (1, "decide", "commit")]
    kills += [(2, "extrapolate", "commit"), (2, "train", "commit")] if method == "momentum_dpo" else []
    for kill in kills:
        asked = str(tmp_path / "asked.killed")
        assert life(**common, directory=str(killed), asked=asked, kill=kill) == KILLED, kill
    assert life(**common, directory=str(killed), asked=str(tmp_path / "asked.killed")) == FINISHED
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert adapters(killed) == adapters(whole)
    assert len(adapters(whole)) == (4 if method == "momentum_dpo" else 2)
    with Journal.read(whole) as journal:
        state = TrainState.model_validate(journal.load_state(STATE))
    assert all(0 <= one.differences["policy"] < 1e-4 for one in state.rounds)
    rewards = [one.collected.reward or 0 for one in state.rounds if one.collected]
    assert rewards[1] > rewards[0]
