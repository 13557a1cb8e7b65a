"""Counting, from the journal, what the feedback of a run says about each node of its workflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optograph.errors import StorageError, UserError
from optograph.graphs import Feedback, Subgraph
from optograph.graphs.trace import Node
from optograph.report import Credit, NodeCredit
from optograph.storage import EvaluationRow, Journal

STEPS = "optoprime.step"
"""Name of the journal's events that say what a proposal blamed."""
_WITHIN = ("model_call", "output")
"""Ops within the trace of a LangGraph app that are no node of it: a model was asked, and the graph's output."""
_ENDS = ("__start__", "__end__")
"""Names under which traces have the input and the output of a LangGraph app, and of a graph that a node calls."""


@dataclass
class _Seen:
    """What traces say: nodes in the order in which they run, owners of parameters, and runs through each node."""

    order: list[str] = field(default_factory=list)
    owners: dict[str, dict[str, None]] = field(default_factory=dict)
    runs: dict[str, Counter[tuple[bool, bool]]] = field(default_factory=dict)
    before: int = 0
    after: int = 0

    def add(self, subgraph: Subgraph, *, after: bool, failed: bool) -> None:
        """Take in the traced run of an example."""
        self.after += after
        self.before += not after
        calls = _calls(subgraph.nodes)
        self._line_up(calls)
        for name in calls:
            self.runs.setdefault(name, Counter())[after, failed] += 1
        for parameter, owners in _owners(subgraph.nodes).items():
            self.owners.setdefault(parameter, {}).update(owners)

    def _line_up(self, calls: Sequence[str]) -> None:
        """Put nodes that are new before the next one that is known, so that branches stand where they run."""
        for place, name in enumerate(calls):
            if name not in self.order:
                later = next((one for one in calls[place + 1 :] if one in self.order), None)
                self.order.insert(len(self.order) if later is None else self.order.index(later), name)

    def owners_of(self, parameter: str) -> list[str]:
        """Return the nodes that read a parameter; where no trace says so, what its name says."""
        found = self.owners.get(parameter)
        return list(found) if found else [parameter.rpartition(".")[0] or parameter]

    def nodes_of(self, parameters: Iterable[str]) -> set[str]:
        """Return the nodes that read any of some parameters."""
        return {owner for parameter in parameters for owner in self.owners_of(parameter)}


@dataclass
class _Edits:
    """Edits of a run by node."""

    unusable: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)
    gain: dict[str, float] = field(default_factory=dict)


def credit_of(
    journal: Journal, evaluations: Sequence[EvaluationRow], final: str | None, *, perfect: float = 1.0
) -> Credit | None:
    """Count what the evidence of a run says about each node; None where it says nothing of any.

    Args:
        journal: The run.
        evaluations: Its evaluations on the train and dev splits.
        final: Identifier of the final candidate.
        perfect: Score of a right answer.
    """
    seen = _traced(journal, evaluations, final, perfect)
    values = _values(journal)
    for parameter in dict.fromkeys(name for one in values.values() for name in one):
        for owner in seen.owners_of(parameter):
            if owner not in seen.order:
                seen.order.append(owner)
            seen.owners.setdefault(parameter, {}).setdefault(owner)
    edits = _edited(journal, seen, values)
    named, proposals = _named(journal, seen)
    nodes = [
        NodeCredit(
            node=name,
            parameters=[parameter for parameter, owners in seen.owners.items() if name in owners],
            failed_before=seen.runs.get(name, Counter())[False, True],
            passed_before=seen.runs.get(name, Counter())[False, False],
            failed_after=seen.runs.get(name, Counter())[True, True],
            passed_after=seen.runs.get(name, Counter())[True, False],
            named=named[name],
            unusable=edits.unusable[name],
            tried=edits.tried[name],
            accepted=edits.accepted[name],
            gain=edits.gain.get(name),
            shared=edits.shared[name],
        )
        for name in seen.order
    ]
    if not (seen.before or seen.after or proposals or edits.tried):
        return None
    return Credit(nodes=nodes, runs_before=seen.before, runs_after=seen.after, proposals=proposals)


# Traces -----------------------------------------------------------------------------------------------------------


def _traced(journal: Journal, rows: Sequence[EvaluationRow], final: str | None, perfect: float) -> _Seen:
    start = next((row.candidate for row in journal.decisions()), None)
    seen = _Seen()
    for row in rows:
        if row.subgraph is None or row.feedback is None:
            continue
        try:
            subgraph = Subgraph.from_json(journal.get(row.subgraph))
        except (StorageError, UserError):  # damaged, and counted by the journal; a report must still be possible
            continue
        failed = Feedback.from_json(row.feedback).total < perfect - 1e-9
        seen.add(subgraph, after=row.candidate == final != start, failed=failed)
    return seen


def _calls(nodes: Iterable[Node]) -> list[str]:
    """Return the names of the ops that were called on the way, in order; not operators, items and attributes."""
    return list(dict.fromkeys(name for node in nodes if (name := _called(node)) is not None))


def _called(node: Node) -> str | None:
    """Return the name of the op or LangGraph node that was called; None for operators, leaves and what was cut off."""
    if node.op is None or node.op.style != "call" or node.frozen:
        return None
    if isinstance(node.info, Mapping) and isinstance(node.info.get("node"), str):
        name = str(node.info["node"]).removesuffix("?")  # a router is part of the node that it follows
        return None if name.rpartition("/")[2] in _ENDS else name
    return None if node.op.name in _WITHIN and not node.op.source else node.op.name


def _owners(nodes: Sequence[Node]) -> dict[str, dict[str, None]]:
    """Return the ops that each parameter reaches first, through whatever operators lie between."""
    children: dict[str, list[Node]] = {}
    for node in nodes:
        for parent in node.parents():
            children.setdefault(parent, []).append(node)
    return {
        node.parameter.name: _first_calls(node, children)
        for node in nodes
        if node.parameter is not None and not node.frozen
    }


def _first_calls(leaf: Node, children: Mapping[str, list[Node]]) -> dict[str, None]:
    found: dict[str, None] = {}
    stack, met = [leaf], {leaf.id}
    while stack:
        for child in children.get(stack.pop().id, ()):
            if child.id in met:
                continue
            met.add(child.id)
            name = _called(child)
            if name is None:
                stack.append(child)
            else:
                found.setdefault(name)
    return found


# Answers and decisions --------------------------------------------------------------------------------------------


def _named(journal: Journal, seen: _Seen) -> tuple[Counter[str], int]:
    """Count the proposals that name each node at fault, and the proposals that name any or might have."""
    answers = [event["blame"] for event in journal.events(STEPS) if isinstance(event.get("blame"), list)]
    if not any(answers):  # an optimizer that never says what is at fault
        return Counter(), 0
    return Counter(node for blame in answers for node in seen.nodes_of(blame)), len(answers)


def _edited(journal: Journal, seen: _Seen, values: Mapping[str, Mapping[str, Any]]) -> _Edits:
    edits = _Edits()
    for event in journal.events(STEPS):
        outcomes = event.get("outcomes")
        kinds = {name: one[0] for name, one in outcomes.items()} if isinstance(outcomes, dict) else {}
        edits.unusable.update(seen.nodes_of(name for name, kind in kinds.items() if kind == "invalid"))
    for row in journal.candidates():
        if row.parents and row.id in values and row.parents[0] in values:
            edits.tried.update(seen.nodes_of(_changed(values[row.parents[0]], values[row.id])))
    for decision in journal.decisions():
        before, after = values.get(decision.incumbent or ""), values.get(decision.candidate)
        if decision.verdict != "accepted" or before is None or after is None:
            continue
        nodes = seen.nodes_of(_changed(before, after))
        edits.accepted.update(nodes)
        edits.shared.update(nodes if len(nodes) > 1 else ())
        if decision.score is not None and decision.incumbent_score is not None:
            for node in nodes:
                edits.gain[node] = edits.gain.get(node, 0.0) + decision.score - decision.incumbent_score
    return edits


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name, value in after.items() if name not in before or before[name] != value]


def _values(journal: Journal) -> dict[str, dict[str, Any]]:
    """Return the values of each candidate, without those that are damaged."""
    found = {}
    for row in journal.candidates():
        try:
            found[row.id] = dict(journal.get(row.values))
        except StorageError:
            continue
    return found
