"""The rows of a report, read from the journal: decisions, candidates, costs, failures, restarts and examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optograph.errors import StorageError
from optograph.evals import ExampleResult, bootstrap_mean
from optograph.graphs import Feedback, to_plain
from optograph.report import CandidateRow, ExampleRow, FailureRow, LimitRow, ReviewRow, RunFacts, StepRow, UsageRow
from optograph.report.sums import known_sum
from optograph.storage import CallRow, DecisionRow, EvaluationRow, Journal

SEARCH_SPLITS = ("train", "dev")
_DROPPED = {"worse": "dropped", "unchanged": "no change", "terminated": "no change"}


def meta(journal: Journal, name: str) -> dict[str, Any]:
    """Return a meta record of the journal that is a table; an empty one where there is none, or something else."""
    found = journal.get_meta(name)
    return found if isinstance(found, dict) else {}


def payload(journal: Journal, digest: str | None) -> Any:
    """Return what the journal stores under a hash; a mark where it is damaged, as a report must still be possible."""
    if digest is None:
        return None
    try:
        return journal.get(digest)
    except StorageError:
        return "(damaged in the journal)"


def latest_evaluations(journal: Journal) -> list[EvaluationRow]:
    """Return the newest evaluation of each example under each candidate, in the order in which they were first met."""
    found: dict[tuple[str, str, str, int], EvaluationRow] = {}
    for row in journal.evaluations():
        key = (row.candidate, row.split, row.example, row.repeat)
        if row.feedback is not None or key not in found:
            found[key] = row
    return list(found.values())


def usage_rows(journal: Journal) -> list[UsageRow]:
    """Return what each role has spent on each model; the price is known only where each of the calls has one."""
    calls: dict[tuple[str, str], list[CallRow]] = {}
    for call in journal.calls():
        if call.attempts == 0:  # copied from another run
            continue
        model = call.model or str(call.identity.get("served_name") or "")
        calls.setdefault((str(call.context.get("role") or "task"), model), []).append(call)
    return [_usage(role, model, rows) for (role, model), rows in calls.items()]


def _usage(role: str, model: str, calls: Sequence[CallRow]) -> UsageRow:
    done = [call for call in calls if call.completion is not None]
    return UsageRow(
        role=role,
        model=model,
        calls=len(calls),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        seconds=sum(call.latency_s for call in calls),
        usd=known_sum(call.usd for call in done),
        failed=len(calls) - len(done),
    )


def limit_rows(limits: Iterable[Mapping[str, Any]], usage: Sequence[UsageRow], active_s: float) -> list[LimitRow]:
    """Return each limit of the budget with what was used of it.

    Args:
        limits: Limits as ``{"what", "limit", "role"}``.
        usage: What was spent, by role and model.
        active_s: Seconds that the run was at work.
    """
    rows = []
    for one in limits:
        of_role = [row for row in usage if not one.get("role") or row.role == one["role"]]
        used = {
            "calls": float(sum(row.calls for row in of_role)),
            "tokens": float(sum(row.prompt_tokens + row.completion_tokens for row in of_role)),
            "usd": sum(row.usd or 0.0 for row in of_role),
            "minutes": active_s / 60,
        }
        rows.append(LimitRow(what=one["what"], used=used[one["what"]], limit=one["limit"], role=one.get("role") or ""))
    return rows


def fact_row(journal: Journal) -> RunFacts:
    """Return how often the run was started, and what of its journal had to be repaired."""
    damage = journal.damage
    calls = journal.calls()
    answered = [call.key for call in calls if call.completion is not None]
    return RunFacts(
        lives=max(1, journal.lives),
        damaged_rows=damage.rows,
        damaged_payloads=damage.payloads,
        copied_calls=sum(call.attempts == 0 for call in calls),
        repeated_calls=len(answered) - len(set(answered)),
        quarantined=damage.quarantined or "",
        rebuilt=damage.derived_rebuilt,
    )


# Decisions and candidates -----------------------------------------------------------------------------------------


def step_rows(journal: Journal, evaluations: Sequence[EvaluationRow]) -> list[StepRow]:
    """Return the decisions in order, with the proposals in between that never came to a test on dev."""
    dropped = [one for one in journal.events("optoprime.step") if one.get("result") != "nominated"]
    scores = _dev_scores(evaluations)
    reviews = {(one.get("step"), one.get("decides")): one for one in journal.events("review")}
    rows: list[StepRow] = []
    for number, decision in enumerate(journal.decisions(), 1):
        review = reviews.get((decision.step, decision.candidate))
        rows.append(_step(decision, scores.get(decision.candidate, []), review))
        rows.extend(_dropped(one, decision) for one in dropped if one.get("after") == number)
    return rows


def _dev_scores(evaluations: Sequence[EvaluationRow]) -> dict[str, list[float]]:
    """Return the dev scores of each candidate; an example that was repeated counts once."""
    scores: dict[str, dict[str, float]] = {}
    for row in evaluations:
        if row.split == "dev" and row.feedback is not None:
            scores.setdefault(row.candidate, {})[row.example] = Feedback.from_json(row.feedback).total
    return {candidate: list(found.values()) for candidate, found in scores.items()}


def _step(row: DecisionRow, scores: Sequence[float], review: Mapping[str, Any] | None) -> StepRow:
    interval = bootstrap_mean(scores) if scores else None
    tested = row.verdict != "seed" and row.score is not None and row.incumbent_score is not None
    return StepRow(
        step=row.step,
        optimizer=row.optimizer,
        candidate=row.candidate,
        parent=row.incumbent,
        dev_score=row.score,
        dev_low=None if interval is None else interval.low,
        dev_high=None if interval is None else interval.high,
        n=row.n,
        incumbent_score=_incumbent(row),
        decision=row.verdict,
        reason=row.reason,
        calls_so_far=row.calls,
        seconds=row.seconds,
        gain=(row.score or 0.0) - (row.incumbent_score or 0.0) if tested else None,
        gain_low=row.low if tested else None,
        gain_high=row.high if tested else None,
        review=None if review is None else _review(review),
    )


def _review(event: Mapping[str, Any]) -> ReviewRow:
    return ReviewRow.model_validate({name: str(event.get(name) or "") for name in ReviewRow.model_fields})


def _incumbent(row: DecisionRow) -> float | None:
    return row.score if row.accepted else row.incumbent_score


def _dropped(event: Mapping[str, Any], last: DecisionRow) -> StepRow:
    return StepRow(
        step=last.step,
        optimizer="optoprime",
        candidate=event.get("candidate") or "",
        incumbent_score=_incumbent(last),
        decision=_DROPPED.get(event["result"], event["result"]),
        reason=event.get("reason") or "",
        calls_so_far=last.calls,
        seconds=last.seconds,
    )


def best_decision(journal: Journal) -> DecisionRow | None:
    """Return the newest decision that made a candidate the incumbent, the starting one included."""
    return next((row for row in reversed(journal.decisions()) if row.accepted), None)


def candidate_rows(journal: Journal, final: str | None) -> list[CandidateRow]:
    """Return all candidates, parents first.

    Args:
        journal: The run.
        final: Identifier of the candidate that is the result so far.
    """
    decisions = {row.candidate: row for row in journal.decisions()}
    rows = []
    for one in journal.candidates():
        decision = decisions.get(one.id)
        values = payload(journal, one.values)
        rows.append(
            CandidateRow(
                id=one.id,
                parents=list(one.parents),
                origin=one.origin,
                values=values if isinstance(values, dict) else {},
                dev_score=None if decision is None else decision.score,
                accepted=decision is not None and decision.accepted,
                final=one.id == final,
            )
        )
    return rows


# Examples and failures --------------------------------------------------------------------------------------------


def failure_rows(
    search: Sequence[EvaluationRow], before: Sequence[ExampleResult] = (), after: Sequence[ExampleResult] = ()
) -> list[FailureRow]:
    """Count failures by type, the most frequent first.

    An answer that was cut off counts as ``"truncated"`` beside whatever the scorer made of it.

    Args:
        search: Evaluations of the search.
        before: Results of the sealed test under the starting candidate.
        after: Results of the sealed test under the final candidate.
    """
    seen = [_row_failures(row) for row in search if row.split in SEARCH_SPLITS]
    parts = [
        Counter(kind for kinds in seen for kind in kinds),
        Counter(kind for one in before for kind in _failures(one.feedback, one.truncated)),
        Counter(kind for one in after for kind in _failures(one.feedback, one.truncated)),
    ]
    rows = [
        FailureRow(kind=kind, search=parts[0][kind], before=parts[1][kind], after=parts[2][kind])
        for kind in {kind for part in parts for kind in part}
    ]
    return sorted(rows, key=lambda row: (-row.total, row.kind))


def _row_failures(row: EvaluationRow) -> list[str]:
    return _failures(None if row.feedback is None else Feedback.from_json(row.feedback), row.truncated)


def _failures(feedback: Feedback | None, truncated: int) -> list[str]:
    kinds = ["missing"] if feedback is None else [feedback.failure_type] if feedback.failure_type else []
    return kinds + (["truncated"] if truncated else [])


def sealed_example_rows(
    inputs: Sequence[Mapping[str, Any]], before: Sequence[ExampleResult], after: Sequence[ExampleResult]
) -> list[ExampleRow]:
    """Return the examples of the sealed test before and after.

    Args:
        inputs: Examples as ``example_data`` gives them, in the order of the results.
        before: Results under the starting candidate.
        after: Results under the final candidate.
    """
    return [_example(data, old, new) for data, old, new in zip(inputs, before, after, strict=True)]


def dev_example_rows(
    journal: Journal,
    evaluations: Sequence[EvaluationRow],
    inputs: Sequence[Mapping[str, Any]],
    start: str,
    best: str,
) -> list[ExampleRow]:
    """Return the examples of the dev split that both candidates have run, in the order of the split.

    Args:
        journal: The run.
        evaluations: Its evaluations.
        inputs: Dev examples as ``example_data`` gives them.
        start: Identifier of the starting candidate.
        best: Identifier of the best one so far.
    """
    known = {str(data["id"]): data for data in inputs}
    found: dict[str, dict[str, ExampleResult]] = {start: {}, best: {}}
    for row in evaluations:
        if row.split == "dev" and row.repeat == 0 and row.candidate in found:
            found[row.candidate][row.example] = result_of(journal, row)
    order = {name: place for place, name in enumerate(known)}
    both = sorted(set(found[start]) & set(found[best]), key=lambda name: (order.get(name, len(order)), name))
    return [
        _example(known.get(name, {"id": name, "input": "", "expected": ""}), found[start][name], found[best][name])
        for name in both
    ]


def result_of(journal: Journal, row: EvaluationRow) -> ExampleResult:
    """Return a journalled evaluation as a result."""
    return ExampleResult(
        example=row.example,
        feedback=None if row.feedback is None else Feedback.from_json(row.feedback),
        output=payload(journal, row.output),
        trace=row.trace,
        error=row.error,
        truncated=row.truncated,
    )


def _example(data: Mapping[str, Any], old: ExampleResult, new: ExampleResult) -> ExampleRow:
    return ExampleRow(
        id=data["id"],
        input=data["input"],
        expected=data["expected"],
        before=readable(old.output if old.error is None else old.error),
        after=readable(new.output if new.error is None else new.error),
        before_score=old.score,
        after_score=new.score,
        failure_type="missing" if new.feedback is None else new.feedback.failure_type,
        feedback=(new.error or "") if new.feedback is None else new.feedback.text,
        truncated=new.truncated,
    )


def readable(value: Any) -> str:
    """Return a value as the text to show: one field stands for the whole of a record that has no other."""
    simple = to_plain(value)
    if isinstance(simple, str):
        return simple
    if isinstance(simple, Mapping) and len(simple) == 1:
        return readable(next(iter(simple.values())))
    return json.dumps(simple, ensure_ascii=False, default=str)
