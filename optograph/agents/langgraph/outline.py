"""The outline of an app: its nodes, where their code stands, what they are given, and what can follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.building import where_of
from optograph.agents.langgraph.flow import END

Kind = Literal["function", "async function", "graph", "runnable"]


@dataclass(frozen=True, slots=True)
class NodeOutline:
    """A node of an app.

    Attributes:
        node: Its name; ``OUTER/INNER`` in a subgraph.
        kind: What runs: a function, a graph, or another runnable such as a chain.
        file: File of its function, or an empty string.
        line: Line of its function, or 0.
        channels: What it is given of the state, as it declares; what it really reads shows in a trace.
        then: Nodes that can follow, ``"__end__"`` among them, as far as the graph declares.
        conditional: Those of them that are chosen as the app runs.
    """

    node: str
    kind: Kind
    file: str
    line: int
    channels: tuple[str, ...]
    then: tuple[str, ...]
    conditional: tuple[str, ...]


def outline(app: Any, path: str = "") -> Iterator[NodeOutline]:
    """Give the nodes of a compiled app, and after a node that is a graph, its own.

    Args:
        app: What ``StateGraph.compile()`` gave.
        path: Path of its nodes, such as ``"outer/"``.
    """
    edges = [(one.source, one.target, one.conditional) for one in app.get_graph().edges]
    for name, node in compat.nodes_of(app).items():
        bound = compat.bound_of(node)
        file, line = where_of(bound)
        then = _sorted({target for source, target, _ in edges if source == name})
        conditional = _sorted({target for source, target, chosen in edges if source == name and chosen})
        yield NodeOutline(f"{path}{name}", _kind(bound), file, line, compat.inputs_of(node), then, conditional)
        if compat.is_compiled(bound):
            yield from outline(bound, f"{path}{name}/")


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (name == END, name)))


def _kind(bound: Any) -> Kind:
    if compat.is_compiled(bound):
        return "graph"
    if not compat.is_function(bound):
        return "runnable"
    return "async function" if compat.is_async_only(bound) else "function"
