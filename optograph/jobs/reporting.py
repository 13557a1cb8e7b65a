"""From the journal to what people read: the report's data, ``report.html`` and ``result.json``."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.evals import Evaluation, Example, ExampleResult, bootstrap_mean, majority_baseline
from optograph.graphs import Feedback, to_plain
from optograph.jobs.tracing import trace_view
from optograph.report import (
    Baseline,
    CandidateRow,
    ExampleRow,
    ModelRow,
    ParameterRow,
    RunReport,
    Splits,
    StepRow,
    TestResult,
    UsageRow,
    write_report,
)
from optograph.serving import run_sync
from optograph.storage import DecisionRow, Journal

if TYPE_CHECKING:
    from optograph.jobs.optimize import RunResult, Session


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


def build_report(session: Session, result: RunResult, traced: ExampleResult) -> RunReport:
    """Gather all that the report shows from the journal and the result."""
    journal, task = session.journal, session.task
    rows = task.test.unseal("report rows")
    majority = majority_baseline(rows)
    return RunReport(
        title=session.options.title or task.name,
        run=session.options.run_dir.name if session.options.run_dir else "",
        task=task.name,
        seed=session.options.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        workflow=session.options.workflow_name,
        status="finished" if result.status == "finished" else f"stopped: the {result.status} was spent",
        models=_models(session),
        splits=Splits(train=len(task.train), dev=len(task.dev), test=len(task.test)),
        baseline=None if majority is None else Baseline(score=majority),
        steps=_steps(journal),
        candidates=_candidates(session, result),
        parameters=[
            ParameterRow(name=name, kind=one.spec.kind, description=one.description, constraint=one.spec.describe())
            for name, one in session.parameters.items()
        ],
        trace=trace_view(journal, traced),
        examples=_examples(rows, *result.test),
        test=_test(result, majority),
        usage=usage_rows(journal),
        failures=dict(Counter(_failure_types(result.test[1]))),
        duration_s=time.monotonic() - session.started,
    )


def usage_rows(journal: Journal) -> list[UsageRow]:
    """Return what each role has spent on each model."""
    totals: dict[tuple[str, str], list[float]] = {}
    for call in journal.calls():
        key = (str(call.context.get("role")), str(call.identity.get("served_name")))
        total = totals.setdefault(key, [0, 0, 0, 0.0])
        for index, amount in enumerate((1, call.prompt_tokens, call.completion_tokens, call.latency_s)):
            total[index] += amount
    return [
        UsageRow(
            role=role,
            model=model,
            calls=int(total[0]),
            prompt_tokens=int(total[1]),
            completion_tokens=int(total[2]),
            seconds=total[3],
        )
        for (role, model), total in totals.items()
    ]


def _models(session: Session) -> list[ModelRow]:
    rows = []
    for role, lm in session.models.items():
        identity = run_sync(lm.identity())
        rows.append(ModelRow(role=role, name=lm.name, identity=identity.weights or identity.endpoint))
    return rows


def _steps(journal: Journal) -> list[StepRow]:
    """Return the decisions in order, with the proposals in between that never came to a test on dev."""
    decisions = journal.decisions()
    dropped = [one for one in journal.events("optoprime.step") if one["result"] != "nominated"]
    scores = _dev_scores(journal)
    rows: list[StepRow] = []
    for number, decision in enumerate(decisions, 1):
        rows.append(_step(decision, list(scores.get(decision.candidate, {}).values())))
        rows.extend(_dropped(one, decision) for one in dropped if one["after"] == number)
    return rows


def _dropped(event: Mapping[str, Any], last: DecisionRow) -> StepRow:
    words = {"worse": "dropped", "unchanged": "no change", "terminated": "no change"}
    incumbent = last.score if last.verdict in ("accepted", "seed") else last.incumbent_score
    return StepRow(
        step=last.step,
        optimizer="optoprime",
        candidate=event["candidate"] or "",
        incumbent_score=incumbent,
        decision=words.get(event["result"], event["result"]),
        reason=event["reason"],
        calls_so_far=last.calls,
        seconds=last.seconds,
    )


def _dev_scores(journal: Journal) -> dict[str, dict[str, float]]:
    """Return the dev scores of each candidate by example."""
    scores: dict[str, dict[str, float]] = {}
    for row in journal.evaluations():
        if row.split == "dev" and row.feedback is not None:
            scores.setdefault(row.candidate, {})[row.example] = Feedback.from_json(row.feedback).total
    return scores


def _step(row: DecisionRow, scores: list[float]) -> StepRow:
    interval = bootstrap_mean(scores) if scores else None
    incumbent = row.score if row.verdict in ("accepted", "seed") else row.incumbent_score
    return StepRow(
        step=row.step,
        optimizer=row.optimizer,
        candidate=row.candidate,
        parent=row.incumbent,
        dev_score=row.score,
        dev_low=None if interval is None else interval.low,
        dev_high=None if interval is None else interval.high,
        n=row.n,
        incumbent_score=incumbent,
        decision=row.verdict,
        reason=row.reason,
        calls_so_far=row.calls,
        seconds=row.seconds,
    )


def _candidates(session: Session, result: RunResult) -> list[CandidateRow]:
    journal = session.journal
    decisions = {row.candidate: row for row in journal.decisions()}
    rows = []
    for one in journal.candidates():
        decision = decisions.get(one.id)
        rows.append(
            CandidateRow(
                id=one.id,
                parents=list(one.parents),
                origin=one.origin,
                values=journal.get(one.values),
                dev_score=None if decision is None else decision.score,
                accepted=decision is not None and decision.verdict in ("accepted", "seed"),
                final=one.id == result.best.id,
            )
        )
    return rows


def _examples(rows: tuple[Example, ...], before: Evaluation, after: Evaluation) -> list[ExampleRow]:
    return [
        ExampleRow(
            id=example.id,
            input=next(iter(example.input.values())) if len(example.input) == 1 else dict(example.input),
            expected=_text(example.expected),
            before=_text(old.output if old.error is None else old.error),
            after=_text(new.output if new.error is None else new.error),
            before_score=old.score,
            after_score=new.score,
            failure_type=None if new.feedback is None else new.feedback.failure_type,
            feedback="" if new.feedback is None else new.feedback.text,
        )
        for example, old, new in zip(rows, before.results, after.results, strict=True)
    ]


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


def _failure_types(evaluation: Evaluation) -> list[str]:
    types = ["missing" if one.feedback is None else one.feedback.failure_type for one in evaluation.results]
    return [kind for kind in types if kind]


def _text(value: Any) -> str:
    plain = to_plain(value)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, Mapping) and len(plain) == 1:
        return _text(next(iter(plain.values())))
    return json.dumps(plain, ensure_ascii=False, default=str)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)
