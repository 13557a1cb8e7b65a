"""A report is made from the journal alone at any time, and the sealed test stays out of it until the run has ended."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import RunStopped, StorageError, UserError
from optograph.evals import Task
from optograph.jobs import RunOptions, SilentView, optimize
from optograph.jobs.reporting import load_report, rebuild_report, report_from_journal, run_state
from optograph.optimizers import LoopEvent
from optograph.report import LimitRow, RunReport
from optograph.secrets import register_secret
from optograph.serving import BudgetLimits
from optograph.storage import Journal

SEARCH: list[tuple[str, dict[str, Any]]] = [("fewshot", {"sets": 4, "size": 2, "first_rung": 8})]
CANARY = "canary-9f31c2d4e5b6a7"


class Stopper(SilentView):
    """Stops the run at its first verdict."""

    def loop(self, event: LoopEvent) -> None:
        """Stop."""
        if event.kind == "verdict":
            raise RunStopped("the run was stopped: the test wants it", interrupted=False)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """A run directory and a limit."""
    return RunOptions(run_dir=tmp_path / "moods-001", title="Moods", limits=BudgetLimits(calls=5000))


def stopped(moods: Any, task: Task, options: RunOptions) -> Path:
    """Stop a run on its way and return its directory."""
    with pytest.raises(RunStopped):
        optimize(moods, task, optimizer=SEARCH, options=options, view=Stopper())
    assert options.run_dir is not None
    return options.run_dir


def test_a_stopped_run_has_a_report(moods: Any, task: Task, options: RunOptions) -> None:
    directory = stopped(moods, task, options)
    report = load_report(directory)
    assert (report.title, report.run, report.state) == ("Moods", "moods-001", "stopped")
    assert report.status == "stopped before its end; it can be resumed"
    assert report.test is None
    assert report.examples_split == "dev"
    assert [row.id for row in report.examples] == [example.id for example in task.dev]
    assert report.examples[0].input == task.dev[0].input["text"]
    assert report.examples[0].expected == "happy"
    assert report.splits.test == len(task.test)
    assert report.limits == [LimitRow(what="calls", used=report.usage[0].calls, limit=5000)]
    assert report.steps[0].decision == "seed"
    assert [row.name for row in report.parameters] == ["judge.instruction", "judge.demos"]
    assert not (directory / "report.json").exists()
    page = rebuild_report(directory)
    assert page == directory / "report.html"
    html = page.read_text(encoding="utf-8")
    assert "examples of the dev split, on which candidates are chosen" in html
    assert 'class="status stopped"' in html


def test_the_sealed_test_stays_out_even_where_it_has_begun(moods: Any, task: Task, options: RunOptions) -> None:
    result = optimize(moods, task, optimizer=SEARCH, options=options)
    assert options.run_dir is not None
    assert {row.id for row in load_report(options.run_dir).examples} == {f"c{number}" for number in range(20)}
    with Journal.open(options.run_dir) as journal:
        journal.set_meta("status", {"state": "stopped"})
        assert any(row.split == "test" for row in journal.evaluations())
        report = report_from_journal(journal)
    assert report.test is None
    assert {row.id for row in report.examples} == {example.id for example in task.dev}
    assert report.final is not None
    assert report.final.id == result.best.id
    assert re.search("day [0-9]+ of c", report.model_dump_json()) is None


def test_a_finished_run_is_rendered_from_what_was_saved(moods: Any, task: Task, options: RunOptions) -> None:
    optimize(moods, task, optimizer=SEARCH, options=options)
    directory = options.run_dir
    assert directory is not None
    saved = RunReport.model_validate_json((directory / "report.json").read_text(encoding="utf-8"))
    first = (directory / "report.html").read_text(encoding="utf-8")
    (directory / "report.html").unlink()
    assert load_report(directory) == saved
    assert saved.facts.lives == 1
    assert saved.failures[0].before > 0
    assert saved.trace is not None
    assert rebuild_report(directory).read_text(encoding="utf-8") == first
    (directory / "journal.db").unlink()
    assert load_report(directory) == saved
    (directory / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match="delete it, and the report is made from the journal"):
        load_report(directory)


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        rebuild_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no run: name a directory with a journal\.db"):
        rebuild_report(tmp_path)


def test_an_empty_journal_has_a_report(tmp_path: Path) -> None:
    with Journal.open(tmp_path):
        pass
    report = load_report(tmp_path)
    assert report.title == tmp_path.name
    assert report.steps == []
    assert rebuild_report(tmp_path).exists()


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        ({"state": "running", "pid": 2**22 + 11}, "interrupted", "cut off; it can be resumed"),
        ({"state": "running", "pid": -1}, "interrupted", "cut off; it can be resumed"),
        ({"state": "interrupted", "pid": 1}, "interrupted", "interrupted; it can be resumed"),
        ({"state": "failed", "error": "StorageError: full"}, "failed", "failed: StorageError: full"),
        ({"state": "budget"}, "budget", "stopped: the budget was spent"),
        ({"state": "finished"}, "finished", "finished"),
        ({"state": "odd"}, "stopped", "stopped before its end"),
        ("odd", "stopped", "stopped before its end"),
        (None, "stopped", "stopped before its end"),
    ],
)
def test_states_are_said_in_words(status: Any, state: str, words: str) -> None:
    journal = Journal.memory()
    if status is not None:
        journal.set_meta("status", status)
    assert run_state(journal) == (state, words)


def test_no_secret_reaches_a_file_or_the_page(moods: Any, task: Task, options: RunOptions) -> None:
    register_secret(CANARY)
    moods.judge.instruction.set(f"Judge with {CANARY} and sk-proj-0123456789abcdefghijklmnop.")
    optimize(moods, task, optimizer=SEARCH, options=options)
    assert options.run_dir is not None
    for name in ("report.json", "report.html", "result.json"):
        text = (options.run_dir / name).read_text(encoding="utf-8")
        assert CANARY not in text
        assert "sk-proj" not in text
        assert "Judge with" in text
    result = json.loads((options.run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["start"]["values"]["judge.instruction"] == "Judge with … and …."
