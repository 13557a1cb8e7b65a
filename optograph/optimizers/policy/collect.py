"""From the journal to rows: the calls behind each scored rollout, with their recorded tokens and their credit."""

from __future__ import annotations

import abc
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optograph.errors import StorageError, UserError
from optograph.graphs import Feedback, Trace
from optograph.optimizers.policy.rows import TrainingRow, TrainingRows, weighed
from optograph.serving import Completion
from optograph.storage import CallRow, EvaluationRow, Journal

Credit = Callable[[Feedback, Sequence[str | None]], Sequence[float | None]]
"""Makes, of a rollout's feedback and the nodes of its calls in order, one reward a call; None: the call has no row."""
_Place = tuple[str, str | None, int]


class TracedCredit(abc.ABC):
    """Credit that reads the traced graph of the rollout too; evaluate with ``Trial(want_trace=True)`` for it."""

    @abc.abstractmethod
    def rewards(self, feedback: Feedback, nodes: Sequence[str | None], trace: Trace) -> Sequence[float | None]:
        """Return one reward a call, or None where a call is to have no row."""


def broadcast(feedback: Feedback, nodes: Sequence[str | None]) -> list[float]:
    """Give every call the total of its rollout."""
    return [feedback.total] * len(nodes)


def per_node(feedback: Feedback, nodes: Sequence[str | None]) -> list[float]:
    """Give each call the named score of its node, and the total of the rollout where its node has no score.

    A scorer says what each node earned with ``Feedback(score={"plan": 1.0, "answer": 0.0})``.

    Raises:
        UserError: No score is named after a node that made a call.
    """
    if not isinstance(feedback.score, Mapping):
        raise UserError(
            f"credit per node needs a score for each node, got score={feedback.score!r}: "
            "let the scorer return Feedback(score={'NODE': ..., ...}), or use broadcast"
        )
    scores = feedback.score
    if not set(scores) & set(nodes):
        raise UserError(f"no score is named after a node: scores {sorted(scores)!r}, nodes {_names(nodes)!r}")
    return [feedback.total if node is None else scores.get(node, feedback.total) for node in nodes]


def training_rows(
    journal: Journal,
    *,
    split: str = "train",
    credit: Credit | TracedCredit = broadcast,
    candidates: Collection[str] | None = None,
    repeats: Collection[int] | None = None,
    nodes: Collection[str] | None = None,
    adapters: Mapping[str, str] | None = None,
) -> TrainingRows:
    """Make a row of each model call behind the scored rollouts of a journal.

    Token ids are those that the model's server recorded; text is never tokenized again. A rollout is one example
    under one candidate, and one repeat of it.

    Args:
        journal: The run.
        split: ``"train"`` or ``"dev"``; rows of the sealed test are refused.
        credit: How a rollout's feedback becomes rewards of its calls: `broadcast`, `per_node`, `by_graph`, or your own.
        candidates: Ids of the candidates whose rollouts count; all by default.
        repeats: Repeats of the examples that count; all by default.
        nodes: Nodes that are trained; all by default. Others are environment.
        adapters: Adapter of each node; ``"policy"`` for nodes that are not named.

    Raises:
        UserError: A call was recorded without token ids or has several texts, an example is in two splits, the credit
            is not one finite number a call, a trace is needed and missing, or the split is sealed.
        StorageError: A recorded answer is missing or damaged.
    """
    if split not in ("train", "dev"):
        raise UserError(f"rows come from the 'train' or the 'dev' split, not {split!r}: the test split stays sealed")
    calls = recorded_rollouts(journal)
    rows: list[TrainingRow] = []
    counts = dict.fromkeys(("unscored", "incomplete", "without_calls", "uncredited"), 0)
    for evaluation in _evaluations(journal, split, candidates):
        if repeats is not None and evaluation.repeat not in repeats:
            continue
        made = calls[evaluation.candidate, evaluation.example, evaluation.repeat]
        if evaluation.feedback is None:
            counts["unscored"] += 1
            continue
        if not made.holds(evaluation.calls):
            counts["incomplete"] += 1
            continue
        answered = list(made.task.values())
        wanted = [row for row in answered if nodes is None or row.context.get("node") in nodes]
        if not wanted:
            counts["without_calls"] += 1
            continue
        rewards = _rewards(journal, credit, evaluation, answered)
        counts["uncredited"] += sum(row.key not in rewards for row in wanted)
        wanted = [row for row in wanted if row.key in rewards]
        rows += _rollout(journal, evaluation, answered, rewards, wanted, adapters or {})
    return TrainingRows(rows=tuple(rows), **counts)


def _evaluations(journal: Journal, split: str, candidates: Collection[str] | None) -> list[EvaluationRow]:
    """Return the newest evaluation of each rollout, in the order in which rollouts were first evaluated."""
    splits: dict[_Place, set[str]] = defaultdict(set)
    newest: dict[_Place, EvaluationRow] = {}
    for row in journal.evaluations():
        place: _Place = (row.candidate, row.example, row.repeat)
        splits[place].add(row.split)
        if row.split != split or (candidates is not None and row.candidate not in candidates):
            continue
        if row.feedback is not None or place not in newest:
            newest[place] = row
    for place in newest:
        if len(splits[place]) > 1:
            raise UserError(
                f"example {place[1]!r} was evaluated in the splits {sorted(splits[place])!r}, and a call does not say "
                "for which: give examples ids that no other split has"
            )
    return list(newest.values())


@dataclass
class RecordedRollout:
    """What the journal holds of the calls of one rollout."""

    task: dict[str, CallRow] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    failed: int = 0

    def holds(self, calls: int) -> bool:
        """Whether the recorded calls are those of an evaluation that made so many, and no others."""
        answered = len(self.task) + len(self.others)
        return answered <= calls <= answered + self.failed


def recorded_rollouts(journal: Journal) -> dict[_Place, RecordedRollout]:
    """Return the calls by rollout, in order and each answered one once; those of judges apart.

    The order is the one that came with the rollout's newest evaluation; where there is none, or calls of a failed
    attempt are among them, calls are in the order in which they were answered.
    """
    found: dict[_Place, RecordedRollout] = defaultdict(RecordedRollout)
    for row in journal.calls():
        context = row.context
        if context.get("candidate") is None:
            continue
        rollout = found[context["candidate"], context.get("example"), context.get("repeat", 0)]
        if row.completion is None:
            rollout.failed += 1
        elif context.get("role") == "task":
            rollout.task.setdefault(row.key, row)
        else:
            rollout.others.add(row.key)
    for evaluation in journal.evaluations():
        made = found.get((evaluation.candidate, evaluation.example, evaluation.repeat))
        if made is not None and made.task.keys() <= set(evaluation.order):
            made.task = {key: made.task[key] for key in evaluation.order if key in made.task}
    return found


def _rewards(
    journal: Journal, credit: Credit | TracedCredit, evaluation: EvaluationRow, answered: Sequence[CallRow]
) -> dict[str, float]:
    """Return rewards by call; those without credit are not there."""
    feedback = Feedback.from_json(evaluation.feedback or {})
    nodes = [row.context.get("node") for row in answered]
    if isinstance(credit, TracedCredit):
        rewards = credit.rewards(feedback, nodes, _trace(journal, evaluation))
    else:
        rewards = credit(feedback, nodes)
    if len(rewards) != len(answered) or not all(one is None or _finite(one) for one in rewards):
        raise UserError(f"credit must be one finite number for each of {len(answered)} calls, got {rewards!r}")
    pairs = zip(answered, rewards, strict=True)
    return {row.key: float(reward) for row, reward in pairs if reward is not None}


def _trace(journal: Journal, evaluation: EvaluationRow) -> Trace:
    if evaluation.trace is None:
        raise UserError(
            f"credit by graph needs the trace of example {evaluation.example!r}, and the journal has none: evaluate "
            "with Trial(..., want_trace=True) a workflow whose output is traced, or use broadcast"
        )
    return Trace.from_json(journal.get(evaluation.trace))


def _rollout(
    journal: Journal,
    evaluation: EvaluationRow,
    answered: Sequence[CallRow],
    rewards: Mapping[str, float],
    wanted: Sequence[CallRow],
    adapters: Mapping[str, str],
) -> list[TrainingRow]:
    name = f"{evaluation.candidate}/{evaluation.split}/{evaluation.example}/{evaluation.repeat}"
    places = {row.key: number for number, row in enumerate(answered)}
    drafts: list[dict[str, Any]] = []
    tokens: dict[str, int] = defaultdict(int)
    for row in wanted:
        prompt, answer, completion = _tokens(journal, row)
        if not answer:  # the model ended at once: nothing to train on
            continue
        node = row.context.get("node")
        adapter = adapters.get(node, "policy") if node is not None else "policy"
        tokens[adapter] += len(answer)
        drafts.append(
            {
                "rollout": name,
                "example": evaluation.example,
                "call": places[row.key],
                "node": node,
                "adapter": adapter,
                "policy": completion.identity.key,
                "input_ids": prompt + answer,
                "action_mask": (False,) * len(prompt) + (True,) * len(answer),
                "reward": rewards[row.key],
                "finish": completion.finish_reasons[0],
            }
        )
    return weighed([TrainingRow(**draft, run_tokens=tokens[draft["adapter"]], weight=1.0) for draft in drafts])


def _tokens(journal: Journal, row: CallRow) -> tuple[tuple[int, ...], tuple[int, ...], Completion]:
    """Return the recorded ids of prompt and answer."""
    if row.completion is None:
        raise StorageError(f"call {row.key!r} has no answer")
    completion = Completion.from_json(journal.get(row.completion))
    where = f"the call of {row.model!r} by node {row.context.get('node')!r} for example {row.context.get('example')!r}"
    if len(completion.texts) != 1:
        raise UserError(
            f"{where} asked for {len(completion.texts)} texts at once, and the journal cannot say which one the "
            "workflow used: ask for one text a call, or leave the node out of nodes=..."
        )
    prompt, answer = completion.prompt_token_ids, completion.token_ids[0]
    if not prompt or answer is None:
        raise UserError(
            f"{where} was recorded without the token ids of {'its prompt' if answer is not None else 'its text'}, and "
            "text tokenized again is not what the model saw: collect rollouts with the embedded engine or a model on "
            "vLLM, wrapped in optograph.optimizers.policy.with_token_ids(lm); or ask with Request(token_ids=True) or "
            "ChatModel(token_ids=True)"
        )
    return prompt, answer, completion


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names(nodes: Sequence[str | None]) -> list[str]:
    return sorted({str(node) for node in nodes})
