"""What ``optograph status`` says of runs in every state, read from journals made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optograph.cli import drawing, runstate
from optograph.storage import CallRow, CandidateRow, DecisionRow, EvaluationRow, Journal

Command = Callable[..., Any]


def call(journal: Journal, role: str, *, error: str | None = None, usd: float | None = 0.001) -> None:
    """Record a call."""
    digest = journal.put({"some": "payload"})
    journal.add_call(
        CallRow(
            key=f"{role}-{error}",
            context={"role": role},
            identity={"endpoint": "e", "served_name": "m", "weights": None},
            request=digest,
            completion=None if error else digest,
            error=error,
            prompt_tokens=10,
            completion_tokens=2,
            latency_s=0.1,
            model="vllm/m@http://127.0.0.1:1/v1",
            usd=None if error else usd,
        )
    )


def decide(journal: Journal, step: int, candidate: str, verdict: str, score: float) -> None:
    """Record a candidate and its verdict."""
    journal.add_candidate(CandidateRow(id=candidate, values=journal.put({"p": candidate})))
    journal.add_decision(
        DecisionRow(
            step=step,
            optimizer="optoprime",
            candidate=candidate,
            incumbent="c0",
            verdict=verdict,
            reason=f"reason {step} [bold]\x1b[31m",
            score=score,
            incumbent_score=0.4,
            n=10,
        )
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with three decisions, calls of two roles, failures, and a budget."""
    directory = tmp_path / "runs" / "made-001"
    with Journal.open(directory) as journal:
        journal.set_meta(
            "job", {"job": {"budget": {"calls": 10, "optimizer": {"usd": 0.5}}}, "base": "/x", "file": "j"}
        )
        journal.set_meta("status", {"state": "running", "pid": 1, "phase": "search"})
        call(journal, "task")
        call(journal, "task", error="ServingError: down")
        call(journal, "optimizer")
        decide(journal, 0, "c0", "seed", 0.4)
        decide(journal, 1, "c1", "accepted", 0.7)
        decide(journal, 2, "c2", "rejected", 0.5)
        missing = EvaluationRow(candidate="c0", split="dev", example="1", feedback=None, error="down", output=None)
        journal.add_evaluation(missing)
    return directory


def test_the_state_in_full(run: Path) -> None:
    state = runstate.read_state(run)
    assert state.state == "interrupted", "it says running, but nobody holds its lock"
    assert (state.start_score, state.best_score, state.best) == (0.4, 0.7, "c1")
    assert (state.calls, state.prompt_tokens, state.completion_tokens) == (3, 30, 6)
    assert state.usd == pytest.approx(0.002)
    assert {row.role: row.calls for row in state.usage} == {"task": 2, "optimizer": 1}
    assert [(row.what, row.role, row.used, row.limit) for row in state.limits] == [
        ("calls", "", 3.0, 10.0),
        ("usd", "optimizer", 0.001, 0.5),
    ]
    assert {row.kind: row.search for row in state.failures} == {"missing": 1}
    assert state.failed_calls == {"ServingError": 1}
    assert [one.verdict for one in state.decisions] == ["seed", "accepted", "rejected"]
    assert state.can_resume
    assert "\x1b" not in state.decisions[0].reason


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("running", "interrupted"),
        ("stopped", "stopped"),
        ("interrupted", "interrupted"),
        ("failed", "failed"),
        ("finished", "finished"),
        ("budget", "budget"),
        ("nonsense", "interrupted"),
    ],
)
def test_each_state(run: Path, recorded: str, expected: str) -> None:
    with Journal.open(run) as journal:
        journal.set_meta("status", {"state": recorded, "pid": 1, "error": "why"})
        assert runstate.read_line(run).state == "running", "this process holds the lock"
    line = runstate.read_line(run)
    assert line.state == expected
    assert line.can_resume == (expected in ("interrupted", "stopped", "failed"))


def test_what_a_run_does_is_told_by_its_records(run: Path) -> None:
    with Journal.open(run) as journal:
        journal.set_meta("status", {"state": "running", "pid": 1})
        assert runstate.read_state(run).phase == "proposing"
        call(journal, "task")
        assert runstate.read_state(run).phase == "testing on dev"
        journal.set_meta("status", {"state": "running", "pid": 1, "phase": "sealed test"})
        assert runstate.read_state(run).phase == "sealed test"


def test_reading_never_disturbs_the_writer(run: Path) -> None:
    with Journal.open(run) as journal:
        before = sorted((path.name, path.stat().st_size) for path in run.iterdir() if path.name != "journal.db-shm")
        for _ in range(3):
            runstate.read_state(run)
        after = sorted((path.name, path.stat().st_size) for path in run.iterdir() if path.name != "journal.db-shm")
        assert [name for name, _ in after] == [name for name, _ in before]
        call(journal, "task")
        assert runstate.read_state(run).calls == 4


def test_the_picture(run: Path) -> None:
    console = Console(width=110, record=True, file=(run / "picture.txt").open("w"))
    console.print(drawing.draw_state(runstate.read_state(run)))
    text = console.export_text()
    for words in (
        "interrupted",
        "0.400 → 0.700 on dev",
        "budget: calls",
        "3 of 10",
        "30%",
        "optimizer usd",
        "reason 1 [bold]",
        "Failed examples: missing 1",
        "Failed calls: ServingError 1",
        "optograph resume",
    ):
        assert words in text, text
    console.file.close()


def test_many_decisions_are_cut(run: Path) -> None:
    with Journal.open(run) as journal:
        for step in range(3, 40):
            decide(journal, step, f"d{step}", "rejected", 0.5)
    state = runstate.read_state(run)
    console = Console(width=110, record=True, quiet=False, file=(run / "picture.txt").open("w"))
    console.print(drawing.draw_state(state))
    assert "32 earlier" in console.export_text()
    assert len(state.decisions) == 40
    console.file.close()


def test_all_runs_are_listed_even_a_broken_one(here: Command, run: Path, finished: Path, folder: Path) -> None:
    broken = folder / "runs" / "broken-001"
    broken.mkdir()
    (broken / "journal.db").write_bytes(b"this is no database, but long enough to look at" * 100)
    listed = here("status", "--json")
    assert {line["run"]: line["state"] for line in listed.data} == {
        "made-001": "interrupted",
        "moods-001": "finished",
        "broken-001": "unreadable",
    }
    table = here("status")
    assert table.code == 0
    assert "cannot be read" in table.out
    one = here("status", "broken-001")
    assert one.code == 2
    assert "Traceback" not in one.err


def test_no_runs_yet(here: Command) -> None:
    done = here("status")
    assert (done.code, done.out) == (0, "")
    assert "no runs under 'runs'" in done.err
    assert here("status", "--json").data == []


def test_a_finished_run(here: Command, finished: Path) -> None:
    state = here("status", "moods-001", "--json").data
    assert state["test"]["after"] == 1.0
    assert state["report"] == "runs/moods-001/report.html"
    assert state["limits"][0]["limit"] == 500
    shown = here("status", "moods-001").out
    assert "sealed test" in shown
    assert "optograph resume" not in shown
