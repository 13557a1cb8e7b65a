"""Counterfactual groups: one call of a recorded rollout is made again, with all that came before it frozen.

Answers to one prompt then differ in nothing but themselves and what they led to, so that their rewards say what the one
call was worth. Calls that come before it are answered from the journal, tools run again, and all that follows goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from optograph.context import current_context
from optograph.errors import ServingError, UserError
from optograph.evals import Evaluator, Trial
from optograph.graphs import Candidate
from optograph.optimizers.policy.collect import recorded_rollouts, training_rows
from optograph.optimizers.policy.rows import TrainingRow, TrainingRows
from optograph.serving import LM, Completion, Request, WrappingLM, asking, next_draw
from optograph.storage import CallRow, Journal, content_hash

_Rollout = tuple[str | None, str | None, int]
"""Candidate, example and repeat."""
_Place = tuple[str | None, int]
"""A node, and which of its calls in the rollout, from 0."""


@dataclass(frozen=True, slots=True)
class Target:
    """The call that is made again.

    Attributes:
        node: The node that makes it.
        occurrence: Which of the node's calls in a rollout, from 0.
    """

    node: str
    occurrence: int = 0


@dataclass(frozen=True)
class _Plan:
    """What is frozen in one resample: calls by place, and the target with what it must ask."""

    frozen: Mapping[_Place, CallRow]
    target: _Place
    asked: CallRow
    number: int


class ResamplingLM(WrappingLM):
    """A model whose workflow can be run again up to one call: give it to the workflow, outermost.

    Until `counterfactual_rows` runs, it hands every request on.

    Args:
        inner: The journalled model.
        journal: The journal of the rollouts.
    """

    def __init__(self, inner: LM, journal: Journal) -> None:
        super().__init__(inner)
        self.journal = journal
        self._plans: dict[_Rollout, _Plan] = {}

    async def _complete(self, request: Request) -> Completion:
        context = current_context()
        plan = self._plans.get((context.candidate, context.example, context.repeat))
        if plan is None or context.role != "task":
            return await self.inner.complete(request)
        place = (context.node, next_draw(content_hash(["resampling", context.node])))
        row = plan.frozen.get(place)
        if row is not None:
            return await self._frozen(row, request)
        if place == plan.target:
            self._check(plan.asked, request)
            request = replace(request, draw=request.draw + plan.number)
        return await self.inner.complete(request)

    async def _frozen(self, row: CallRow, request: Request) -> Completion:
        """Answer as it was answered, and record that this rollout has the answer too, unpaid."""
        self._check(row, request)
        context = current_context()
        key = content_hash(["frozen", row.key, context.candidate, context.example, context.repeat])
        if row.completion is None:
            raise ServingError(f"call {row.key!r} has no recorded answer", kind="not_frozen")
        if self.journal.find_call(key) is None:
            batch = self.journal.batch()
            batch.add_call(
                row.model_copy(update={"key": key, "context": context.to_json(), "usd": None, "attempts": 0})
            )
            await batch.acommit()
        with asking(key):
            return Completion.from_json(self.journal.get(row.completion))

    def _check(self, row: CallRow, request: Request) -> None:
        """Check that the workflow asks what it asked before."""
        asked, now = self.journal.get(row.request), request.to_json()
        if (asked["messages"], asked["prompt"]) != (now["messages"], now["prompt"]):
            raise ServingError(
                f"node {row.context.get('node')!r} asks something else than in the recorded rollout of example "
                f"{row.context.get('example')!r}, so what comes before it cannot be frozen: a tool or the workflow "
                "itself does not do the same twice",
                kind="not_frozen",
            )


def counterfactual_rows(
    evaluator: Evaluator,
    lm: ResamplingLM,
    candidate: Candidate,
    examples: Sequence[str],
    target: Target,
    *,
    samples: int,
    repeat: int,
    first: int,
    split: str = "train",
    adapters: Mapping[str, str] | None = None,
) -> TrainingRows:
    """Make one call of recorded rollouts again, and return its rows: a group of answers to the same tokens an example.

    The recorded rollouts are evaluated first where the journal does not hold them. All rollouts, the new ones
    included, are evaluations in the journal like any other, so a call after a kill makes nothing twice.

    Args:
        evaluator: Of a workflow that uses `lm`, over the journal of `lm`.
        lm: The workflow's model.
        candidate: Under which the workflow runs.
        examples: Ids of examples.
        target: The call.
        samples: New answers for each example, at least 1.
        repeat: Repeat of the examples whose rollouts are resampled.
        first: New rollouts are the repeats from here on, which must be nobody else's.
        split: ``"train"`` or ``"dev"``.
        adapters: Adapter of each node, as in `training_rows`.

    Returns:
        The target's rows of the recorded and the new rollouts, each a rollout of this one call with its rollout's
        total as the reward; what comes later counts as environment. Make pairs of them with `preference_rows`, or
        credit with `group_advantages`. `unscored` counts rollouts that were not scored, such as those in which the
        workflow did not repeat itself; `without_calls` examples in which the target did not call.

    Raises:
        UserError: `samples` is no number above 0, repeats overlap, journals differ, or the target is not sampled.
    """
    new = range(first, first + samples)
    if samples < 1 or repeat in new or first < 0:
        raise UserError(
            f"resampling needs samples of at least 1, and repeats of their own: got samples={samples!r}, and repeats "
            f"from {first!r} for rollouts of repeat {repeat!r}"
        )
    if lm.journal is not evaluator.journal:
        raise UserError("the evaluator and its ResamplingLM have different journals: give both the same one")
    recorded = Trial(candidate, split, tuple(examples), repeat=repeat)
    again = _run_again(evaluator, lm, recorded, target, new)
    found = training_rows(
        lm.journal,
        split=split,
        candidates={candidate.id},
        repeats={repeat, *new},
        nodes={target.node},
        adapters=adapters,
    )
    rows = tuple(_groups(found, target, repeat, again))
    without = sum(name not in again for name in examples)
    return TrainingRows(rows=rows, unscored=found.unscored, incomplete=found.incomplete, without_calls=without)


def _run_again(
    evaluator: Evaluator, lm: ResamplingLM, recorded: Trial, target: Target, new: Collection[int]
) -> set[str]:
    """Evaluate the recorded rollouts and the new ones; returns the examples in which the target called."""
    evaluator.evaluate([recorded])
    base = recorded.candidate.id, recorded.split, recorded.repeat
    plans = _plans(lm.journal, base, recorded.examples, target, new)
    planned = {str(example) for _, example, _ in plans}
    examples = tuple(name for name in recorded.examples if name in planned)
    lm._plans.update(plans)
    try:
        if examples:
            evaluator.evaluate([replace(recorded, examples=examples, repeat=one) for one in new])
    finally:
        for rollout in plans:
            lm._plans.pop(rollout, None)
    return planned


def _plans(
    journal: Journal, base: tuple[str, str, int], examples: Sequence[str], target: Target, new: Collection[int]
) -> dict[_Rollout, _Plan]:
    """Return a plan for each new rollout of the examples in which the target called."""
    candidate, split, repeat = base
    recorded = recorded_rollouts(journal)
    plans: dict[_Rollout, _Plan] = {}
    for example in examples:
        made = recorded[candidate, example, repeat]
        evaluation = journal.find_evaluation(candidate, split, example, repeat)
        places = _places(list(made.task.values()))
        wanted = (target.node, target.occurrence)
        if evaluation is None or evaluation.feedback is None or wanted not in places:
            continue
        if not made.holds(evaluation.calls):
            continue
        asked = places[wanted]
        if journal.get(asked.request)["temperature"] == 0:
            raise UserError(
                f"node {target.node!r} answers greedily, so its answers would all be the same: sample it (temperature "
                "above 0)"
            )
        names = list(places)
        frozen = {place: places[place] for place in names[: names.index(wanted)]}
        for number, one in enumerate(new, 1):
            plans[candidate, example, one] = _Plan(frozen, wanted, asked, number)
    return plans


def _places(rows: Sequence[CallRow]) -> dict[_Place, CallRow]:
    """Return calls by place, in their order."""
    counts: Counter[str | None] = Counter()
    places: dict[_Place, CallRow] = {}
    for row in rows:
        node = row.context.get("node")
        places[node, counts[node]] = row
        counts[node] += 1
    return places


def _groups(found: TrainingRows, target: Target, repeat: int, examples: Collection[str]) -> list[TrainingRow]:
    """Return the target's row of each rollout: the recorded one of an example, then the new ones, with its prompt."""
    targets: dict[str, list[TrainingRow]] = {}
    for _, rows in found.rollouts():
        if rows[0].example in examples and len(rows) > target.occurrence:
            targets.setdefault(rows[0].example, []).append(rows[target.occurrence])
    kept = []
    for group in targets.values():
        recorded = next((row for row in group if row.rollout.endswith(f"/{repeat}")), None)
        if recorded is None:
            continue
        prompt = recorded.input_ids[: recorded.prompt_length]
        ordered = [recorded, *(row for row in group if row is not recorded)]
        kept += [
            row.model_copy(update={"run_tokens": row.actions, "weight": 1.0})
            for row in ordered
            if row.input_ids[: row.prompt_length] == prompt
        ]
    return kept
