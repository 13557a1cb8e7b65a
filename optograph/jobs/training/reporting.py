"""The training of a run as its report shows it, from the journal as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optograph.evals import bootstrap_mean
from optograph.graphs import Feedback
from optograph.jobs import report_rows as rows_of
from optograph.jobs.training.parameters import adapters_in
from optograph.jobs.training.records import STATE, Round, Training, TrainState
from optograph.report.training import AdapterRow, Curve, RoundRow, TrainingView
from optograph.storage import EvaluationRow, Journal

_NO_FIGURES = ("step", "epoch", "learning_rate")


def training_of(journal: Journal, evaluations: Sequence[EvaluationRow]) -> TrainingView | None:
    """Return the training of a run, or None where it trains nothing.

    Args:
        journal: The run.
        evaluations: The newest evaluation of each example.
    """
    saved = journal.load_state(STATE)
    if saved is None:
        return None
    state = TrainState.model_validate(saved)
    policy = (rows_of.meta(journal, "job").get("job") or {}).get("policy") or {}
    final = set(adapters_in((state.incumbent or {}).get("values", {})).values())
    curves = [] if state.sft is None else _curves(journal, 0, "policy", state.sft)
    for one in state.rounds:
        for name, training in sorted(one.trained.items()):
            curves += _curves(journal, one.number, name, training)
    unclear = {
        round_.trained[name].adapter: list(others)
        for round_ in state.rounds
        for name, others in round_.not_told_apart.items()
    }
    return TrainingView(
        method=str(policy.get("method") or "policy"),
        planned=int(policy.get("rounds") or len(state.rounds)),
        rounds=[_round(one, evaluations) for one in state.rounds],
        curves=curves,
        adapters=[
            AdapterRow(
                hash=hash_,
                name=one.name,
                made=one.made,
                round=one.round,
                parents=list(one.parents),
                outcome=one.outcome,
                final=hash_ in final,
                not_told_apart=unclear.get(hash_, []),
            )
            for hash_, one in state.adapters.items()
        ],
        why=state.why,
    )


def _round(one: Round, evaluations: Sequence[EvaluationRow]) -> RoundRow:
    settled, collected, made = one.settled, one.collected, one.made
    scores = [] if settled is None or not one.trained else _dev_scores(settled.candidate, evaluations)
    interval = bootstrap_mean(scores) if scores else None
    kls = [figures["kl"] for training in one.trained.values() if "kl" in (figures := training.metrics)]
    best = None
    if settled is not None:
        best = settled.score if settled.kind == "accepted" else settled.incumbent_score
    return RoundRow(
        number=one.number,
        rollouts=0 if collected is None else collected.rollouts,
        missing=0 if collected is None else collected.missing,
        reward=None if collected is None else collected.reward,
        prefix_hit_rate=None if collected is None else collected.prefix_hit_rate,
        rows=0 if made is None else made.rows,
        pairs=0 if made is None else made.pairs,
        dev_score=one.dev,
        dev_low=None if interval is None else interval.low,
        dev_high=None if interval is None else interval.high,
        best_score=best,
        verdict="" if settled is None else settled.kind,
        reason="" if settled is None else settled.reason,
        rolled_back=settled is not None and settled.rolled_back,
        difference=max(one.differences.values(), default=None),
        realised=min(one.realised.values(), default=None),
        kl=sum(kls) / len(kls) if kls else None,
        prompts=one.prompts is not None and settled is not None and one.prompts != settled.candidate,
        not_told_apart=sorted({other for others in one.not_told_apart.values() for other in others}),
    )


def _dev_scores(candidate: str, evaluations: Sequence[EvaluationRow]) -> list[float]:
    return [
        Feedback.from_json(row.feedback).total
        for row in evaluations
        if row.candidate == candidate and row.split == "dev" and row.feedback is not None and row.repeat == 0
    ]


def _curves(journal: Journal, number: int, adapter: str, training: Training) -> list[Curve]:
    history = rows_of.payload(journal, training.history)
    if not isinstance(history, list):  # damaged
        return []
    steps: list[Mapping[str, Any]] = [one for one in history if isinstance(one, Mapping)]
    names = dict.fromkeys(name for one in steps for name in one if name not in _NO_FIGURES)
    return [
        Curve(
            round=number,
            adapter=adapter,
            figure=name,
            points=[
                (float(one.get("step", place)), float(one[name])) for place, one in enumerate(steps, 1) if name in one
            ],
        )
        for name in names
    ]
