"""A training as a job: its settings, its estimate, its status and its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optograph.cli import runstate
from optograph.errors import UserError
from optograph.jobs import load_job
from optograph.jobs.estimate import estimate_job
from optograph.jobs.reporting import load_report, rebuild_report
from optograph.jobs.training.serving import Serving
from optograph.jobs.training.train import train_job
from tests.jobs.training.runs import Crash, Run
from tests.jobs.training.toys import Toy


def test_no_policy_table_is_said_plainly(job: Path, tmp_path: Path) -> None:
    loaded = load_job(job).model_copy(update={"policy": None})
    with pytest.raises(UserError, match=r"\[policy\]"):
        train_job(loaded, job.parent, tmp_path / "run", make_parts=Toy().parts)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("policy.methud=1", "did you mean 'method'"),
        ("policy.rounds=0", "policy.rounds"),
        ('policy.adapters={a = "x"}\x00policy.nodes=["b"]', "not trained"),
        ('policy.method="momentum_dpo"\x00policy.history=2', "history"),
        ('policy.start={adapter = "a", rows = "b"}', "one of the two"),
        ('policy.keep="some"', "policy.keep"),
        ('policy.credit="per_node"', "its own critic shares it out"),
        ('policy.credit="graph"', "leave credit at 'broadcast'"),
        ("policy.server.pyton=1", "did you mean 'python'"),
    ],
)
def test_wrong_settings_are_named(job: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_job(job, override.split("\x00"))


def test_the_job_of_the_manual_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/train-loop.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "job.toml"
    file.write_text(block, encoding="utf-8")
    policy = load_job(file).policy
    assert policy is not None
    assert policy.training(3).seed == 3
    assert (policy.first_training().method, policy.first_training().learning_rate) == ("sft", 5e-4)
    assert policy.first_training().rank == 16


def test_an_estimate_says_what_training_runs(job: Path) -> None:
    found = estimate_job(load_job(job), job.parent)
    assert "up to 178 times on its own server: 48 rollouts, 130 for the tests" in found.notes[0]


def test_status_and_report_of_a_training_that_was_cut_off(train: Run, tmp_path: Path) -> None:
    toy = Toy()

    def die(step: int) -> None:
        if len(toy.trainer.calls) == 2:
            raise Crash

    toy.trainer.during = die
    with pytest.raises(Crash):
        train(toy)
    run = tmp_path / "run"
    assert runstate.read_state(run).phase == "round 2: training"
    view = load_report(run).training
    assert view is not None
    assert [(row.number, row.verdict, row.rollouts) for row in view.rounds] == [(1, "accepted", 24), (2, "", 24)]
    assert {one.figure for one in view.curves} == {"loss", "kl"}
    assert [(one.made, one.outcome, one.final) for one in view.adapters] == [("trained", "accepted", True)]
    assert rebuild_report(run).read_text(encoding="utf-8").count('class="round-chart"') == 1


def test_the_report_says_what_a_probe_does_not_tell_apart(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Serving, "not_told_apart", lambda serving, hash_: ("base",))
    train(Toy(), "policy.rounds=1")
    view = load_report(tmp_path / "run").training
    assert view is not None
    assert [row.not_told_apart for row in view.rounds] == [["base"]]
    assert [row.not_told_apart for row in view.adapters] == [["base"]]
    assert "≈ base" in rebuild_report(tmp_path / "run").read_text(encoding="utf-8")
