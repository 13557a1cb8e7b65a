"""An optimization as a part of a user's own LangGraph graph: state in, the best values and their scores out."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from optograph.errors import UserError, WaitingForReview
from optograph.evals import Task
from optograph.graphs import Parameter
from optograph.jobs.optimize import chosen_parameters, optimize
from optograph.jobs.options import RunOptions, SilentView
from optograph.optimizers import LoopEvent, Optimizer, ReviewDesk, pending_review
from optograph.serving import LM
from optograph.storage import Journal

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


class OptimizationState(TypedDict, total=False):
    """What an optimization takes from a graph's state and leaves there; both are plain JSON.

    Attributes:
        candidate: Values by parameter name: to start from, where there are any; the best ones afterwards.
        scores: ``status``, ``dev`` (``before``, ``after``) and ``test`` (likewise, with ``difference``, ``low``,
            ``high``, ``n`` and ``missing``), as in ``result.json``.
    """

    candidate: dict[str, Any]
    scores: dict[str, Any]


class _State(OptimizationState):
    waiting: str | None


class _Streaming(SilentView):
    """Passes the loop's events on to whoever streams the graph; to be made in the node.

    Args:
        write: The node's stream writer.
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._node = contextvars.copy_context()  # where the writer finds out which graph it writes for

    def loop(self, event: LoopEvent) -> None:
        """Pass an event on as JSON data."""
        self._node.run(self._write, event.to_json())


def optimization_node(
    workflow: Any,
    task: Task,
    *,
    optimizer: str | Optimizer | Sequence[tuple[str, Mapping[str, Any]]] = "optoprime",
    optimizer_lm: LM | None = None,
    parameters: Sequence[Parameter] | None = None,
    options: RunOptions | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make an optimization that can be a node of another graph: ``graph.add_node("optimize", node)``.

    It takes and leaves ``candidate`` and ``scores`` (see ``OptimizationState``), as far as the graph's state has them.
    Stream mode ``"custom"`` gives each ``LoopEvent`` as JSON data. With ``review="accepted"`` in the options the graph
    is interrupted with each ``ReviewRequest`` as JSON data, and goes on with ``Command(resume=ANSWER)``, such as
    ``{"verdict": "reject", "comment": …}`` or ``{"verdict": "edit", "values": {…}}``; or with any value, once
    ``optograph review`` has written the answer. The run directory is what counts: a graph that is resumed after a crash
    goes on from there, and so does one that is begun again over the same directory.

    Args:
        workflow: See ``optimize``; its parameters hold the best values afterwards.
        task: Data and scorer.
        optimizer: Name, optimizer, or list of (name, options) stages.
        optimizer_lm: Model that proposes; where it is None, the model of the workflow's first step.
        parameters: What may change; None for all that the workflow finds in itself.
        options: Seed, budget, run directory, reviews and so on.

    Raises:
        UserError: Reviews are to be waited for, and there is no run directory.
    """
    from langgraph.graph import END, START, StateGraph

    chosen = options or RunOptions()
    if chosen.review == "accepted" and chosen.run_dir is None:
        raise UserError("a graph that waits for reviews needs RunOptions(run_dir=...), where the run is kept meanwhile")
    nodes = _Nodes(workflow, task, optimizer, optimizer_lm, parameters, chosen)
    graph = StateGraph(_State, input_schema=OptimizationState, output_schema=OptimizationState)
    graph.add_node("search", nodes.search)
    graph.add_node("review", nodes.review)
    graph.add_edge(START, "search")
    graph.add_conditional_edges("search", lambda state: "review" if state.get("waiting") else END, ["review", END])
    graph.add_edge("review", "search")
    return graph.compile()


@dataclass(frozen=True)
class _Nodes:
    """The nodes of the graph; see ``optimization_node`` for what they are made with."""

    workflow: Any
    task: Task
    optimizer: str | Optimizer | Sequence[tuple[str, Mapping[str, Any]]]
    optimizer_lm: LM | None
    parameters: Sequence[Parameter] | None
    options: RunOptions

    def search(self, state: _State) -> dict[str, Any]:
        """Optimize to the end, or until a review is waited for."""
        from langgraph.config import get_stream_writer

        from optograph.jobs.reporting import result_data

        _set(self.workflow, self.parameters, state.get("candidate") or {})
        view = _Streaming(get_stream_writer())
        try:
            result = optimize(
                self.workflow,
                self.task,
                optimizer=copy.deepcopy(self.optimizer),  # an optimizer keeps its state in itself
                optimizer_lm=self.optimizer_lm,
                parameters=self.parameters,
                options=self.options,
                view=view,
            )
        except WaitingForReview as waiting:
            return {"waiting": waiting.request["key"]}
        found = result_data(result)
        best = found.pop("best")["values"]
        del found["start"]
        return {"candidate": best, "scores": found, "waiting": None}

    def review(self, state: _State) -> dict[str, Any]:
        """Have the answer written down."""
        if self.options.run_dir is not None:
            _answer(self.options.run_dir)
        return {"waiting": None}


def _set(workflow: Any, parameters: Sequence[Parameter] | None, values: Mapping[str, Any]) -> None:
    """Give the parameters the values that the run is to start from."""
    known = chosen_parameters(workflow, parameters) if values else {}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"the state's candidate has unknown parameters {unknown!r}; the workflow has {sorted(known)!r}")
    for name, value in values.items():
        known[name].set(known[name].spec.from_json(value))


def _answer(directory: Path) -> None:
    """Have the answer that the run waits for written into its journal, unless it is there already."""
    with Journal.open(directory, counted=False) as journal:
        pending = pending_review(journal)
        if pending is not None:
            ReviewDesk(journal, run=str(directory)).answer(pending[0])
