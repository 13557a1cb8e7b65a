"""The traced graph of one example, as the report draws it, and which example that is."""

from __future__ import annotations

import json

from optograph.evals import Evaluation
from optograph.graphs import Feedback
from optograph.graphs.encoding import data_to_json
from optograph.graphs.trace import Node, Ref, Trace
from optograph.report import TraceEdge, TraceNode, TraceView
from optograph.report.model import NodeKind
from optograph.storage import Journal

RIGHT = 1.0
"""Score of a right answer."""


def example_to_trace(start: Evaluation, best: Evaluation | None) -> str:
    """Return the id of the example that tells most about a run: what the best candidate puts right, else what it fails.

    Args:
        start: Evaluation of the starting candidate on the dev split.
        best: Likewise of the best one; None where it is not known.

    Returns:
        The first example that the start got wrong and the best got right; else the first that the best got wrong; else
        the first that has a score, or the first of all.
    """
    after = start if best is None else best
    was_right = {one.example: _is_right(one.score) for one in start.results}
    is_right = {one.example: _is_right(one.score) for one in after.results}
    fixed = [name for name, right in is_right.items() if right and was_right.get(name) is False]
    wrong = [name for name, right in is_right.items() if right is False]
    scored = [name for name, right in is_right.items() if right is not None]
    return [*fixed, *wrong, *scored, *is_right][0]


def _is_right(score: float | None) -> bool | None:
    return None if score is None else score >= RIGHT - 1e-9


def trace_view(journal: Journal, trace: str | None, example: str, feedback: Feedback | None) -> TraceView | None:
    """Return the traced graph of an example with the way that its feedback took back, or None where there is none.

    Args:
        journal: Where the trace is.
        trace: Its hash.
        example: Identifier of the example.
        feedback: What the example got.

    Raises:
        StorageError: The trace is missing or damaged.
    """
    if trace is None or feedback is None:
        return None
    found = Trace.from_json(journal.get(trace))
    path = _feedback_path(found)
    edges = [
        TraceEdge(src=str(source), dst=str(node.id), label=label)
        for node in found.nodes
        for source, label in _inputs(node)
    ]
    return TraceView(
        nodes=[
            TraceNode(
                id=str(node.id),
                label=str(node.id),
                kind=_kind(node, found),
                detail=_detail(node),
                on_feedback_path=node.id in path,
            )
            for node in found.nodes
        ],
        edges=edges,
        example=example,
        feedback=feedback.text,
        score=feedback.total,
    )


def _inputs(node: Node) -> list[tuple[Ref, str]]:
    """Return the nodes that this one came from, each with the name of its argument."""
    named: dict[Ref, str] = {}
    for position, arg in enumerate(node.args):
        one = node._replace(args=(arg,), keys=(), reads=())
        for parent in one.parents():
            named.setdefault(parent, node.argument(position))
    return [(parent, named.get(parent, "read")) for parent in node.parents()]


def _feedback_path(trace: Trace) -> set[str]:
    """Return the ids of trainable parameters and of all that came from them; parents stand before children."""
    path: set[str] = set()
    for node in trace.nodes:
        trainable = node.parameter is not None and node.parameter.trainable
        if trainable or not path.isdisjoint(str(parent) for parent in node.parents()):
            path.add(str(node.id))
    return path


def _kind(node: Node, trace: Trace) -> NodeKind:
    if node.id in trace.outputs:
        return "output"
    if node.parameter is not None:
        return "parameter"
    if node.info is not None and "calls" in node.info:
        return "model-call"
    return "input" if node.op is None else "op"


def _detail(node: Node) -> str:
    about = "" if node.op is None or not node.op.description else f"{node.op.description}\n\n"
    data = data_to_json(node.data)
    if isinstance(data, dict):
        data = data.get("excerpt") or data.get("json")
    return about + (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=1))
