"""The smallest graphs, for tests of single features."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    """A plain channel, and one with a reducer."""

    plain: str
    many: Annotated[list[str], operator.add]


def chain(*nodes: tuple[str, Any], schema: Any = State, **options: Any) -> Any:
    """Compile nodes that run one after the other.

    Args:
        nodes: Names and functions, runnables or graphs.
        schema: The state.
        options: Of ``compile``.
    """
    graph: Any = StateGraph(schema)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile(**options)


def write(state: State) -> State:
    """Write the plain channel."""
    return {"plain": "written"}
