"""The shape of the outer loop as a LangGraph graph, and running something apart from the graph around it."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from optograph.optimizers.base import Optimizer

T = TypeVar("T")

NODES = ("start", "ask", "evaluate", "tell", "accept", "review")


class LoopState(TypedDict, total=False):
    """What travels through the loop's graph: ids only; payloads are in the journal.

    Attributes:
        trials: Hashes of the trials that were asked for.
        nominated: Id of the candidate that is to be tested, or None.
        review: Key of the question that a person is to answer, or None.
        finished: Whether there is nothing left to do.
    """

    trials: list[str]
    nominated: str | None
    review: str | None
    finished: bool


Node = Callable[[LoopState], dict[str, Any]]


def loop_graph(nodes: Mapping[str, Any], checkpointer: Any = None) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the loop: start → ask → evaluate → tell → accept → review → ask … until nothing is asked any more.

    Args:
        nodes: What runs at each of ``NODES``: a function of the state, or a graph.
        checkpointer: LangGraph's, or None.
    """
    from langgraph.graph import END, START, StateGraph

    def after_start(state: LoopState) -> str:
        # A loop that was killed between a nomination and its verdict begins with the acceptance test.
        return END if state.get("finished") else "accept" if state.get("nominated") else "ask"

    graph = StateGraph(LoopState)
    for name in NODES:
        graph.add_node(name, nodes[name])
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", after_start, ["ask", "accept", END])
    graph.add_conditional_edges("ask", lambda state: END if state.get("finished") else "evaluate", ["evaluate", END])
    graph.add_edge("evaluate", "tell")
    graph.add_conditional_edges("tell", _accept_or_ask, ["accept", "ask"])
    graph.add_conditional_edges("accept", lambda state: "review" if state.get("review") else "ask", ["review", "ask"])
    # An edit that did not pass brings the candidate back before the person.
    graph.add_conditional_edges("review", _accept_or_ask, ["accept", "ask"])
    return graph.compile(checkpointer=checkpointer)


def _accept_or_ask(state: LoopState) -> str:
    return "accept" if state.get("nominated") else "ask"


def optimization_graph(optimizer: Optimizer | None = None) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the loop's graph to be drawn, with an optimizer's own graph inside its ``ask`` node.

    ``optimization_graph(OptoPrime()).get_graph(xray=True).draw_mermaid()`` is its picture. To run a loop, take the
    graph of a ``Loop``.

    Args:
        optimizer: Need not be bound; None draws the loop alone.
    """

    def nothing(state: LoopState) -> dict[str, Any]:
        return {}

    inside = None if optimizer is None else optimizer.graph()
    return loop_graph(dict.fromkeys(NODES, nothing) | ({} if inside is None else {"ask": inside}))


def apart(run: Callable[[], T]) -> T:
    """Run something as if no LangGraph graph were around it.

    A graph that is invoked within a node of another one becomes its subgraph: it writes into the other's checkpoints,
    and its interrupts stop the other. What a workflow does in a node of the loop, and what a loop does in a node of a
    user's graph, is nobody's subgraph.
    """
    runnables = sys.modules.get("langchain_core.runnables.config")
    if runnables is None:  # not loaded, so there is no graph
        return run()
    context = contextvars.copy_context()
    context.run(runnables.var_child_runnable_config.set, None)
    return context.run(run)
