"""From the journal to what people read: the report's data, ``report.html`` and ``result.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.errors import StorageError, UserError
from optograph.evals import Example, ExampleResult, majority_baseline
from optograph.graphs import Feedback
from optograph.jobs import report_rows as rows_of
from optograph.jobs.credit import credit_of
from optograph.jobs.paths import path_of
from optograph.jobs.tracing import trace_view
from optograph.optimizers import pending_review
from optograph.report import (
    Baseline,
    ModelRow,
    ParameterRow,
    RunReport,
    Splits,
    TestResult,
    TraceView,
    write_report,
)
from optograph.secrets import scrub
from optograph.serving import run_sync
from optograph.storage import EvaluationRow, Journal
from optograph.storage.failpoints import failpoint

if TYPE_CHECKING:
    from optograph.jobs.optimize import Session
    from optograph.jobs.options import RunResult

SETUP = "report"
"""Name of the journal's record of what the report says before anything is measured."""

_LONGEST = 4000
_STATES = {
    "finished": "finished",
    "budget": "stopped: the budget was spent",
    "running": "still running",
    "waiting": "waiting for a person's review",
    "stopped": "stopped before its end",
    "interrupted": "interrupted",
    "failed": "failed",
}


# Writing ----------------------------------------------------------------------------------------------------------


def write_reports(session: Session, result: RunResult, traced: ExampleResult) -> RunResult:
    """Write ``result.json`` and ``report.html`` into the run directory, where there is one."""
    directory = session.options.run_dir
    if directory is None:
        return result
    _write(
        directory / "result.json",
        json.dumps(result_data(result), indent=2, ensure_ascii=False, sort_keys=True),
    )
    report = build_report(session, result, traced)
    _write(directory / "report.json", report.model_dump_json(indent=1))
    return replace(result, report=write_report(report, directory / "report.html"))


def result_data(result: RunResult) -> dict[str, Any]:
    """Return the outcome as JSON data without times, so that equal runs give equal bytes."""
    before, after = result.test
    return {
        "status": result.status,
        "start": result.start.to_json(),
        "best": result.best.to_json(),
        "dev": {name: one.mean for name, one in zip(("before", "after"), result.dev, strict=True) if one is not None},
        "test": {
            "before": before.mean,
            "after": after.mean,
            "difference": result.difference.mean,
            "low": result.difference.low,
            "high": result.difference.high,
            "n": result.difference.n,
            "missing": before.missing + after.missing,
        },
    }


def _write(path: Path, text: str) -> None:
    """Write a text without secrets, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        failpoint("result.write")
        temporary.write_text(scrub(text) + "\n", encoding="utf-8", errors="replace")
        failpoint("result.rename")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


# The report of a run that came to its end -------------------------------------------------------------------------


def build_report(session: Session, result: RunResult, traced: ExampleResult) -> RunReport:
    """Gather all that the report shows from the journal and the result."""
    journal, task = session.journal, session.task
    test_rows = task.test.unseal("report rows")
    majority = majority_baseline(test_rows)
    before, after = (one.results for one in result.test)
    search = [row for row in rows_of.latest_evaluations(journal) if row.split in rows_of.SEARCH_SPLITS]
    state = "finished" if result.status == "finished" else "budget"
    return _report(
        setup_of(session),
        journal,
        search,
        final=result.best.id,
        state=state,
        status=_STATES[state],
        baseline=None if majority is None else Baseline(score=majority),
        trace=trace_view(journal, traced.trace, traced.example, traced.feedback),
        examples=rows_of.sealed_example_rows([example_data(one) for one in test_rows], before, after),
        test=_test(result, majority),
        failures=rows_of.failure_rows(search, before, after),
    )


def _report(
    setup: Mapping[str, Any],
    journal: Journal,
    search: Sequence[EvaluationRow],
    *,
    final: str | None,
    **measured: Any,
) -> RunReport:
    """Join what was known beforehand with what was measured."""
    from optograph.jobs.training.reporting import training_of

    usage = rows_of.usage_rows(journal)
    return RunReport.model_validate(
        {
            **setup["report"],
            "steps": rows_of.step_rows(journal, search),
            "candidates": rows_of.candidate_rows(journal, final),
            "usage": usage,
            "credit": credit_of(journal, search, final),
            "training": training_of(journal, search),
            "limits": rows_of.limit_rows(setup.get("limits", ()), usage, journal.active_s),
            "facts": rows_of.fact_row(journal),
            "settings": setup.get("settings") or settings_of(journal),
            "duration_s": journal.active_s,
            **measured,
        }
    )


def _test(result: RunResult, majority: float | None) -> TestResult:
    before, after = result.test
    difference = result.difference
    return TestResult(
        before=before.mean or 0.0,
        after=after.mean or 0.0,
        difference=difference.mean,
        low=difference.low,
        high=difference.high,
        n=difference.n,
        majority=majority,
    )


# What is known beforehand -----------------------------------------------------------------------------------------


def record_setup(session: Session) -> None:
    """Keep in the journal what the report says before anything is measured, so that it can be made at any time.

    A run that goes on keeps the time of its first start. The test split is not read.
    """
    journal = session.journal
    data = setup_of(session) | {"dev": [example_data(one, _LONGEST) for one in session.task.dev]}
    known = stored_setup(journal)
    if known is not None:
        data["report"]["created"] = known["report"].get("created", data["report"]["created"])
    if data != known:
        journal.set_meta(SETUP, {"payload": journal.put(data)})


def stored_setup(journal: Journal) -> dict[str, Any] | None:
    """Return what ``record_setup`` kept, or None where there is nothing or it is damaged."""
    found = rows_of.payload(journal, rows_of.meta(journal, SETUP).get("payload"))
    return found if isinstance(found, dict) and "report" in found else None


def setup_of(session: Session) -> dict[str, Any]:
    """Return what is known of a run beforehand, as JSON data: the report's fixed parts, and the limits."""
    task, options = session.task, session.options
    majority = majority_baseline(task.dev)
    known = stored_setup(session.journal)
    report = RunReport(
        title=options.title or task.name,
        run=options.run_dir.name if options.run_dir else "",
        task=task.name,
        seed=options.seed,
        created=(known or {"report": {}})["report"].get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        workflow=options.workflow_name,
        models=_models(session),
        splits=Splits(train=len(task.train), dev=len(task.dev), test=len(task.test)),
        baseline=None if majority is None else Baseline(score=majority),
        parameters=[
            ParameterRow(name=name, kind=one.spec.kind, description=one.description, constraint=one.spec.describe())
            for name, one in session.parameters.items()
        ],
    )
    fields = {"title", "run", "task", "seed", "created", "workflow", "models", "splits", "baseline", "parameters"}
    return {"report": report.model_dump(mode="json", include=fields), "limits": _limits(options.limits)}


def example_data(example: Example, longest: int | None = None) -> dict[str, Any]:
    """Return an example as the report shows it.

    Args:
        example: The example.
        longest: Characters of its input that are kept; None for all.
    """
    inside = next(iter(example.input.values())) if len(example.input) == 1 else dict(example.input)
    if longest is not None:
        text = rows_of.readable(inside)
        inside = text[:longest] + "…" if len(text) > longest else inside
    return {"id": example.id, "input": _plain(inside), "expected": rows_of.readable(example.expected)}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _limits(limits: Any) -> list[dict[str, Any]]:
    """Return the limits that are set, of the whole run and of single roles."""
    named = [("", limits), *dict(getattr(limits, "roles", None) or {}).items()]
    return [
        {"what": what, "limit": amount, "role": role}
        for role, one in named
        for what in ("calls", "tokens", "usd", "minutes")
        if (amount := getattr(one, what, None)) is not None
    ]


def _models(session: Session) -> list[ModelRow]:
    found = []
    for role, lm in session.models.items():
        identity = run_sync(lm.identity())
        found.append(ModelRow(role=role, name=lm.name, identity=identity.weights or identity.endpoint))
    return found


def settings_of(journal: Journal) -> dict[str, Any]:
    """Return the settings of the job by dotted key, without those that were left at nothing."""
    job = rows_of.meta(journal, "job").get("job")
    return _flat(job) if isinstance(job, dict) else {}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        elif value is not None and value != []:
            found[f"{prefix}{key}"] = value
    return found


# The report of a run at any time ----------------------------------------------------------------------------------


def report_from_journal(journal: Journal, *, run: str = "") -> RunReport:
    """Gather what the journal of a run says by now; the sealed test is left out, even where it has begun.

    Args:
        journal: The run, open for reading or writing.
        run: Name of the run, for one that holds no record of its setup.
    """
    setup = stored_setup(journal) or {"report": {"title": run or "Run", "run": run}}
    search = [row for row in rows_of.latest_evaluations(journal) if row.split in rows_of.SEARCH_SPLITS]
    decisions = journal.decisions()
    best = rows_of.best_decision(journal)
    examples = []
    if best is not None:
        start = decisions[0].candidate
        examples = rows_of.dev_example_rows(journal, search, setup.get("dev", ()), start, best.candidate)
    state, status = run_state(journal)
    return _report(
        setup,
        journal,
        search,
        final=None if best is None else best.candidate,
        state=state,
        status=status,
        trace=_latest_trace(journal, search, None if best is None else best.candidate),
        examples=examples,
        examples_split="dev",
        failures=rows_of.failure_rows(search),
    )


def _latest_trace(journal: Journal, search: Sequence[EvaluationRow], best: str | None) -> TraceView | None:
    """Return the newest trace of the best candidate, or of any where it has none."""
    traced = [row for row in search if row.trace is not None and row.feedback is not None]
    for row in (*_by(traced, best, True), *_by(traced, best, False)):
        try:
            return trace_view(journal, row.trace, row.example, Feedback.from_json(row.feedback or {}))
        except StorageError:  # damaged: the next one will do
            continue
    return None


def _by(rows: Sequence[EvaluationRow], candidate: str | None, same: bool) -> list[EvaluationRow]:
    """Return the rows of a candidate, or those of all others, the newest first."""
    return [row for row in reversed(rows) if (row.candidate == candidate) is same]


def run_state(journal: Journal) -> tuple[str, str]:
    """Return the state of a run (see ``RunReport.state``) and say it in words."""
    found = rows_of.meta(journal, "status")
    state = found.get("state")
    if state == "running" and not _is_alive(found.get("pid")):
        if pending_review(journal) is not None:
            return "waiting", _STATES["waiting"]
        return "interrupted", "cut off; it can be resumed"
    if state not in _STATES:
        return "stopped", _STATES["stopped"]
    if state == "running":
        return state, _STATES[state] + (f": {found['phase']}" if found.get("phase") else "")
    if state == "failed":
        return state, _STATES[state] + (f": {found['error']}" if found.get("error") else "")
    return state, _STATES[state] + ("" if state in ("finished", "budget", "waiting") else "; it can be resumed")


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def load_report(run_dir: str | Path) -> RunReport:
    """Return the report of a run directory: as it was written at the end, or else from the journal as it stands.

    Raises:
        UserError: There is no such directory, or it holds no run.
        StorageError: The report or the journal cannot be read.
    """
    run_dir = path_of(run_dir, "run_dir")
    if not run_dir.is_dir():
        raise UserError(f"run directory {str(run_dir)!r} does not exist: check the path")
    saved = run_dir / "report.json"
    if not (run_dir / "journal.db").exists():
        if not saved.exists():
            raise UserError(f"{str(run_dir)!r} holds no run: name a directory with a journal.db in it")
        return _saved_report(saved)
    with Journal.read(run_dir) as journal:
        state, _ = run_state(journal)
        if saved.exists() and state in ("finished", "budget"):
            return _saved_report(saved)
        return report_from_journal(journal, run=run_dir.resolve().name)


def _saved_report(path: Path) -> RunReport:
    try:
        return RunReport.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cannot read {str(path)!r}: {type(error).__name__}; delete it, and the report is made from the journal"
        ) from error


def rebuild_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` of a run directory again, whether the run has ended or not, and return its path.

    Raises:
        UserError: There is no such directory, or it holds no run.
        StorageError: The journal cannot be read, or the page cannot be written.
    """
    return write_report(load_report(run_dir), Path(run_dir) / "report.html")
