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
from tests.jobs.training.tiny_job import write_tiny_job
from tests.jobs.training.toys import NODES, PROMPTED, TASKS, write_job

KILLED, FINISHED = -signal.SIGKILL, 4
WHENS = ("begin", "during", "commit", "written")
ROUND = ("collect", "rows", "train", "serve", "evaluate", "decide")

QUICK = ("begin", "commit", "written")
CAN = dict.fromkeys((*ROUND, "baseline"), WHENS) | dict.fromkeys(("start", "decide", "extrapolate"), QUICK)
"""When a phase can be killed; those that only write have no midst."""

ALL = ('policy.keep="all"', "policy.rollback=false")
"""Settings under which every round goes on from the one before, and all weights can be compared."""

Life = Callable[..., int]


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """Start a life of a training whose policy is one number."""
    yield from lives()


@pytest.fixture(scope="module")
def real_life() -> Iterator[Life]:
    """Start a life of a training of a real model."""
    yield from lives("real")


def lives(*arguments: str) -> Iterator[Life]:
    """Give what starts lives."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.training.lives", *arguments],
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


def kills_of(method: str) -> list[tuple[int, str, str]]:
    """Return kills in the order of the run: everywhere, or where a method's rounds differ from those of others."""
    if method == "momentum_dpo":
        places = [(2, phase) for phase in ("extrapolate", "collect", "train")]
    else:
        places = [(0, "start"), (0, "baseline"), *((number, phase) for number in (1, 2) for phase in ROUND)]
    found = [(number, phase, when) for number, phase in places for when in WHENS if when in CAN[phase]]
    return [one for one in found if method == "momentum_dpo" or one[0] < 2 or one[2] == "commit"]


@pytest.mark.parametrize("method", ["oreo", "momentum_dpo"])
def test_a_training_killed_in_every_phase_comes_to_the_same_weights(life: Life, tmp_path: Path, method: str) -> None:
    job = write_job(tmp_path / "job", sizes=(6, 16, 10))
    common: dict[str, Any] = {"job": str(job), "set": [f"policy.method={method}", *ALL]}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, directory=str(whole), asked=str(tmp_path / "asked.whole")) == FINISHED
    kills = kills_of(method)
    for kill in kills:
        asked = str(tmp_path / "asked.killed")
        assert life(**common, directory=str(killed), asked=asked, kill=kill) == KILLED, kill
    assert life(**common, directory=str(killed), asked=str(tmp_path / "asked.killed")) == FINISHED
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert adapters(killed) == adapters(whole)
    with Journal.read(whole) as one, Journal.read(killed) as other:
        assert other.lives == len(kills) + 1
        assert state_of(other) == state_of(one)
        plain = {"seconds": 0.0, "calls": 0}
        assert [row.model_copy(update=plain) for row in other.decisions()] == [
            row.model_copy(update=plain) for row in one.decisions()
        ]
        assert sorted(row.key for row in other.calls()) == sorted(row.key for row in one.calls())


def test_prompts_between_rounds_survive_kills(life: Life, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", app=PROMPTED, sizes=(6, 30, 10))
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


@pytest.mark.parametrize("app", [TASKS, NODES], ids=["tasks", "nodes"])
def test_calls_made_at_once_come_to_the_same_weights_whichever_is_first(life: Life, tmp_path: Path, app: str) -> None:
    job = write_job(tmp_path / "job", app=app, sizes=(4, 6, 4))
    common: dict[str, Any] = {"job": str(job), "set": ["policy.rounds=1", *ALL], "asked": str(tmp_path / "asked")}
    left, right = ({"environment": {"SLOW": node}} for node in ("left", "right"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, **left, directory=str(whole)) == FINISHED
    assert life(**common, **left, directory=str(killed), kill=(1, "collect", "during")) == KILLED
    assert life(**common, **right, directory=str(killed)) == FINISHED
    assert adapters(killed) == adapters(whole)
    assert (killed / "rows" / "round-001.parquet").read_bytes() == (whole / "rows" / "round-001.parquet").read_bytes()
    with Journal.read(whole) as one, Journal.read(killed) as other:
        assert state_of(other) == state_of(one)


def state_of(journal: Journal) -> TrainState:
    """Return where a run stands, without what was measured of its server: a life that asks nothing measures nothing."""
    state = TrainState.model_validate(journal.load_state(STATE))
    rounds = []
    for one in state.rounds:
        assert one.collected is not None
        collected = one.collected.model_copy(update={"prefix_hit_rate": None})
        rounds.append(one.model_copy(update={"collected": collected}))
    return state.but(rounds=tuple(rounds))


def adapters(run: Path) -> dict[str, bytes]:
    """Return the weights of the adapters in a run's folder, and those of their critics."""
    files = (run / "adapters").rglob("*.safetensors")
    return {str(one.relative_to(run / "adapters")): one.read_bytes() for one in files}


REAL_KILLS = {
    "oreo": [*((1, phase, "during") for phase in ROUND[:-1]), (1, "decide", "commit")],
    "momentum_dpo": [(1, "train", "during"), (2, "extrapolate", "commit"), (2, "train", "commit")],
    "fine-tuned": [(0, "start", when) for when in WHENS],
}
START = ('policy.start.rows="sft.jsonl"', "policy.start.epochs=3", "policy.rounds=1")


@pytest.mark.parametrize("kind", list(REAL_KILLS))
def test_real_training_killed_in_every_phase_comes_to_the_same_weights(
    real_life: Life, tmp_path: Path, kind: str
) -> None:
    from tests.optimizers.policy.tiny import make_base

    life, base = real_life, make_base(tmp_path / "base")
    job = write_tiny_job(tmp_path / "job", base.folder)
    shown = [{"prompt": f"{n}?", "answer": "abc"[: 1 + n % 3]} for n in range(8)]
    (job.parent / "sft.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shown), encoding="utf-8")
    settings = START if kind == "fine-tuned" else (f"policy.method={kind}",)
    common = {"job": str(job), "base": str(base.folder), "set": [*settings, *ALL]}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert life(**common, directory=str(whole), asked=str(tmp_path / "asked.whole")) == FINISHED
    for kill in REAL_KILLS[kind]:
        asked = str(tmp_path / "asked.killed")
        assert life(**common, directory=str(killed), asked=asked, kill=kill) == KILLED, kill
    assert life(**common, directory=str(killed), asked=str(tmp_path / "asked.killed")) == FINISHED
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert adapters(killed) == adapters(whole)
    assert len(list((whole / "adapters").iterdir())) == (4 if kind == "momentum_dpo" else 2)
    with Journal.read(whole) as journal:
        state = TrainState.model_validate(journal.load_state(STATE))
    assert all(0 <= one.differences["policy"] < 1e-4 for one in state.rounds)
    assert all((one.trained["policy"].critic is None) == (kind == "momentum_dpo") for one in state.rounds)
    assert (state.sft is not None) == (kind == "fine-tuned")
