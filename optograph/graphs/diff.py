"""What changed between two traces."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from optograph.graphs.encoding import data_to_json
from optograph.graphs.propagation import Subgraph
from optograph.graphs.snapshot import trace_of
from optograph.graphs.trace import Node, Trace

_ALIGNED = 1000
"""Most differing nodes that are aligned by likeness; beyond, nodes are matched by their ids."""


@dataclass(frozen=True)
class Change:
    """One node whose data differs.

    Attributes:
        before: Its id in the first trace.
        after: Its id in the second trace.
        old: Its data in the first trace, as JSON data.
        new: Its data in the second trace.
    """

    before: str
    after: str
    old: Any
    new: Any


@dataclass(frozen=True)
class TraceDiff:
    """What changed from one trace to another.

    Attributes:
        added: Ids of nodes that only the second has.
        removed: Ids of nodes that only the first has.
        changed: Nodes of both with different data, in the order of the second.
        same: How many nodes are the same.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    same: int

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        lines = [f"- {node_id}" for node_id in self.removed]
        lines += [f"+ {node_id}" for node_id in self.added]
        lines += [f"~ {change.after}: {change.old!r} -> {change.new!r}" for change in self.changed]
        return "\n".join([*lines, f"  {self.same} nodes the same"])


def diff_traces(a: Any, b: Any) -> TraceDiff:
    """Compare two traces: which ops came and went, and whose results changed.

    Nodes are matched by what they do (op, names of arguments, parameter) in the order in which they could have run,
    so an op more or less does not make all later ones differ.

    Args:
        a: The first: a value, a tape, a `Trace`, a `Subgraph`, or the JSON data of a trace.
        b: The second.

    Raises:
        UserError: One of them is not traced.
    """
    left, right = nodes_of(a), nodes_of(b)
    pairs = _pairs(left, right)
    paired_left = {one for one, _ in pairs}
    paired_right = {two for _, two in pairs}
    changes = tuple(
        Change(str(left[i].id), str(right[j].id), data_to_json(left[i].data), data_to_json(right[j].data))
        for i, j in pairs
        if data_to_json(left[i].data) != data_to_json(right[j].data)
    )
    return TraceDiff(
        tuple(str(node.id) for j, node in enumerate(right) if j not in paired_right),
        tuple(str(node.id) for i, node in enumerate(left) if i not in paired_left),
        changes,
        len(pairs) - len(changes),
    )


def nodes_of(source: Any) -> tuple[Node, ...]:
    """Return the nodes of a value, a tape, a trace, a subgraph, or the JSON data of one of the latter."""
    if isinstance(source, dict) and "nodes" in source:
        return Subgraph.from_json(source).nodes if "feedback" in source else Trace.from_json(source).nodes
    return source.nodes if isinstance(source, Subgraph) else trace_of(source).nodes


def _likeness(node: Node) -> tuple[Any, ...]:
    if node.parameter is not None:
        return ("parameter", node.parameter.name)
    if node.op is None:
        return ("leaf", node.id)
    return (node.op.name, len(node.args), node.keys, len(node.reads), node.frozen)


def _pairs(left: tuple[Node, ...], right: tuple[Node, ...]) -> list[tuple[int, int]]:
    """Return positions of matching nodes: the common start and end, and the likeliest alignment between."""
    one, two = [_likeness(node) for node in left], [_likeness(node) for node in right]
    start, shorter = 0, min(len(one), len(two))
    while start < shorter and one[start] == two[start]:
        start += 1
    end = 0
    while end < shorter - start and one[-1 - end] == two[-1 - end]:
        end += 1
    stop_one, stop_two = len(one) - end, len(two) - end
    pairs = [(i, i) for i in range(start)]
    if max(stop_one, stop_two) - start <= _ALIGNED:
        matcher = SequenceMatcher(None, one[start:stop_one], two[start:stop_two], autojunk=False)
        for i, j, size in matcher.get_matching_blocks():
            pairs += [(start + i + k, start + j + k) for k in range(size)]
    else:
        by_id = {right[j].id: j for j in range(start, stop_two)}
        pairs += [(i, by_id[left[i].id]) for i in range(start, stop_one) if left[i].id in by_id]
    return [*pairs, *((stop_one + k, stop_two + k) for k in range(end))]
