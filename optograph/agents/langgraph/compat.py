"""Where LangGraph's own classes are taken apart: every use of something that it does not document is in this file.

``tests/agents/langgraph/test_contract.py`` holds what this file relies on, for the lowest and the newest LangGraph
allowed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from langchain_core.runnables import RunnableBinding, RunnableParallel, RunnableSequence
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command

_REDUCING = ("BinaryOperatorAggregate", "DeltaChannel", "Topic")
_PUSH = "__pregel_push"


def nodes_of(app: Pregel[Any, Any, Any, Any]) -> dict[str, Any]:
    """Return the nodes of a compiled graph by name; the one that takes in the input is left out."""
    return {name: node for name, node in app.nodes.items() if not name.startswith("__")}


def bound_of(node: Any) -> Any:
    """Return the runnable of a node: a function made runnable, a chain, or a compiled graph."""
    return node.bound


def is_function(bound: Any) -> bool:
    """Whether a node's runnable is a function, sync (``func``), async (``afunc``) or both."""
    return hasattr(bound, "func") and hasattr(bound, "afunc")


def is_async_only(bound: Any) -> bool:
    """Whether a node's runnable cannot be called without an event loop."""
    if isinstance(bound, RunnableSequence):
        return any(is_async_only(one) for one in bound.steps)
    if isinstance(bound, RunnableParallel):
        return any(is_async_only(one) for one in bound.steps__.values())
    if isinstance(bound, RunnableBinding):
        return is_async_only(bound.bound)
    return hasattr(bound, "afunc") and getattr(bound, "func", None) is None


def inputs_of(node: Any) -> tuple[str, ...]:
    """Return the channels that a node is given."""
    return (node.channels,) if isinstance(node.channels, str) else tuple(node.channels)


def rebuilt(
    app: Pregel[Any, Any, Any, Any],
    nodes: Mapping[str, Any],
    route: Callable[[str, Any, Mapping[Any, str] | None], Any],
) -> Any:
    """Return a copy of a compiled graph with other runnables in its nodes; the graph itself stays as it is.

    Args:
        app: The graph.
        nodes: The new runnables by the names of the nodes.
        route: Called with the node that a conditional edge starts from, its path and its targets by what the path
            gives; returns the path to use.
    """
    made = app.copy({"channels": dict(app.channels)})  # making it puts a channel of its own there
    made.cache = None  # its keys know nothing of prompts: one candidate would get another's answers
    made.nodes = {
        name: _with_branches(_with_bound(node, nodes.get(name)), name, route) for name, node in app.nodes.items()
    }
    return made


def _with_bound(node: Any, bound: Any) -> Any:
    made = copy.copy(node)
    for cached in ("node", "flat_writers", "input_cache_key"):
        made.__dict__.pop(cached, None)
    if bound is not None:
        made.bound = bound
    made.writers = list(node.writers)
    return made


def _with_branches(node: Any, name: str, route: Callable[[str, Any, Mapping[Any, str] | None], Any]) -> Any:
    for number, writer in enumerate(node.writers):
        spec: Any = getattr(getattr(writer, "func", None), "__self__", None)
        if type(spec).__name__ != "BranchSpec":
            continue
        new = spec._replace(path=route(name, spec.path, spec.ends))
        other = copy.copy(writer)
        other.func, other.afunc = new._route, new._aroute
        node.writers[number] = other
    return node


def names_in(app: Pregel[Any, Any, Any, Any]) -> set[str]:
    """Return the names that nodes and the ends of conditional edges go by."""
    found = set(app.nodes)
    for node in app.nodes.values():
        for writer in node.writers:
            spec: Any = getattr(getattr(writer, "func", None), "__self__", None)
            if type(spec).__name__ == "BranchSpec":
                found |= {one for one in spec.ends or () if isinstance(one, str)}
    return found


def branches_of(app: Pregel[Any, Any, Any, Any]) -> Iterator[tuple[str, Any]]:
    """Give the path of each conditional edge, with the node that it starts from."""
    for name, node in app.nodes.items():
        for writer in node.writers:
            spec: Any = getattr(getattr(writer, "func", None), "__self__", None)
            if type(spec).__name__ == "BranchSpec":
                yield name, spec.path


def reducing_channels(app: Pregel[Any, Any, Any, Any]) -> frozenset[str]:
    """Return the channels that keep what several nodes wrote."""
    return frozenset(name for name, one in app.channels.items() if type(one).__name__ in _REDUCING)


def channel_names(app: Pregel[Any, Any, Any, Any]) -> frozenset[str]:
    """Return the channels of the state."""
    hidden = (":", "__")
    return frozenset(name for name in app.channels if not name.startswith("__") and hidden[0] not in name)


def output_channels(app: Pregel[Any, Any, Any, Any]) -> tuple[str, ...]:
    """Return the channels that make up the output."""
    names = app.output_channels
    return (names,) if isinstance(names, str) else tuple(names)


def step_of(config: Mapping[str, Any]) -> float:
    """Return the number of the step that a node runs in."""
    return float(config["metadata"]["langgraph_step"])


def task_of(config: Mapping[str, Any]) -> tuple[float, str, bool]:
    """Return the step of a node's run, what tells the run from every other, and whether a ``Send`` started it."""
    facts = config["metadata"]
    return facts["langgraph_step"], facts["langgraph_checkpoint_ns"], facts["langgraph_path"][0] == _PUSH


def branch_here() -> tuple[str, str] | None:
    """Return the step of a graph that the running node belongs to, by a name that no other has, and its place there.

    None outside of any node, and in tasks of the functional API: those of one step need not run at once.
    """
    config: Mapping[str, Any] = var_child_runnable_config.get() or {}
    facts = config.get("metadata") or {}
    path = facts.get("langgraph_path")
    if not path or path[-1] is True:
        return None
    around = str(facts["langgraph_checkpoint_ns"]).rpartition("|")[0]
    checkpoint = config["configurable"]["checkpoint_map"][around]
    place = "/".join(f"{one:09d}" if isinstance(one, int) else str(one) for one in path)
    return f"{checkpoint}/{facts['langgraph_step']}", place


def thread_of(config: Mapping[str, Any] | None) -> str | None:
    """Return the thread of a run, or None."""
    found = ((config or {}).get("configurable") or {}).get("thread_id")
    return None if found is None else str(found)


def writes_of(output: Any) -> tuple[list[str], list[Any]]:
    """Return the channels that a node's output writes, and the nodes that it sends the run to."""
    if type(output) is dict or isinstance(output, Mapping):
        return list(output), []
    if output is None:
        return [], []
    if isinstance(output, Command):
        if output.graph is not None:
            return [], []
        goto = output.goto if isinstance(output.goto, list | tuple) else (output.goto,) if output.goto else ()
        return [name for name, _ in output._update_as_tuples()], list(goto)
    if isinstance(output, list | tuple) and any(isinstance(one, Command) for one in output):
        channels: list[str] = []
        targets: list[Any] = []
        for one in output:
            more, further = writes_of(one)
            channels += more
            targets += further
        return channels, targets
    fields = getattr(type(output), "model_fields", None) or getattr(type(output), "__dataclass_fields__", None)
    return (list(fields), []) if fields else (["__root__"], [])


def parent_writes_of(output: Any) -> tuple[list[str], list[Any]]:
    """Return what a node in a subgraph writes to the graph around it, and where it sends that one."""
    if not isinstance(output, Command) or output.graph != Command.PARENT:
        return [], []
    goto = output.goto if isinstance(output.goto, list | tuple) else (output.goto,) if output.goto else ()
    return [name for name, _ in output._update_as_tuples()], list(goto)


def is_task(thing: Any) -> bool:
    """Whether an object is a task of the functional API, which holds its function as ``func``."""
    return type(thing).__name__ == "_TaskFunction" and type(thing).__module__ == "langgraph.func"


def is_pause(error: BaseException) -> bool:
    """Whether an exception only carries the run elsewhere: an interrupt, or a command for the graph around."""
    from langgraph.errors import GraphBubbleUp

    return isinstance(error, GraphBubbleUp)


def is_compiled(app: Any) -> bool:
    """Whether an object is a compiled state graph."""
    return isinstance(app, CompiledStateGraph)
