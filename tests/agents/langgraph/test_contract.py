"""What the adapter takes apart in LangGraph: a failure here says what has changed, and what breaks for us."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.errors import GraphBubbleUp
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from optograph.agents.langgraph import compat
from tests.agents.langgraph.small import State, chain, write

Node = Callable[..., Any]
Facts = dict[str, Any]


async def awrite(state: State) -> State:
    """Write the plain channel, async."""
    return {"plain": "written"}


def branching() -> Any:
    """Compile a graph with one conditional edge."""
    graph: Any = StateGraph(State)
    graph.add_node("a", write)
    graph.add_node("b", write)
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "on", {"on": "b", "off": END})
    graph.add_edge("b", END)
    return graph.compile()


# -- nodes ----------------------------------------------------------------------------------------


def test_a_node_holds_its_runnable_and_its_writers() -> None:
    app = chain(("a", write), ("b", awrite))
    assert isinstance(app, CompiledStateGraph), "is_compiled() would refuse every app"
    assert isinstance(app, Pregel), "graphs that a node calls would not be found"
    assert set(app.nodes) == {START, "a", "b"}, "nodes_of() tells LangGraph's own nodes by their two underscores"
    first, second = app.nodes["a"], app.nodes["b"]
    bound: Any = first.bound
    assert bound.func is write, "a node's function would not be searched"
    assert isinstance(first.writers, list), "_with_bound() copies the list of writers"
    bound = second.bound
    assert bound.func is None and bound.afunc is awrite, "is_async_only() would be wrong"


def test_what_a_node_keeps_of_its_runnable_is_known() -> None:
    cached = {name for name, one in vars(type(chain(("a", write)).nodes["a"])).items() if _is_cached(one)}
    assert cached == {"node", "flat_writers", "input_cache_key"}, "_with_bound() must forget all that a node caches"


def _is_cached(member: Any) -> bool:
    return isinstance(member, functools.cached_property)


def test_a_node_declares_what_it_is_given() -> None:
    nodes = compat.nodes_of(chain(("a", write)))
    assert compat.inputs_of(nodes["a"]) == ("plain", "many"), "`optograph inspect` shows these"
    whole: Any = StateGraph(str)
    whole.add_node("a", lambda state: state)
    whole.add_edge(START, "a")
    assert compat.inputs_of(compat.nodes_of(whole.compile())["a"]) == ("__root__",)


def test_a_copied_node_runs_its_new_runnable() -> None:
    app = chain(("a", write))
    assert app.invoke({}) == {"plain": "written", "many": []}
    node = copy.copy(app.nodes["a"])
    for name in ("node", "flat_writers", "input_cache_key"):
        node.__dict__.pop(name, None)
    node.bound = RunnableLambda(lambda state: {"plain": "new"})
    made = app.copy({"channels": dict(app.channels)})
    made.nodes = {**app.nodes, "a": node}
    assert made.invoke({})["plain"] == "new", "the rebuilt graph would run the original nodes"
    assert app.invoke({})["plain"] == "written", "the original would be changed"


def test_what_needs_an_event_loop_is_known() -> None:
    plain, later = RunnableLambda(write), RunnableLambda(awrite)
    parts = {"a": plain | plain, "b": plain | later, "c": {"x": later} | plain, "d": later.bind(x=1), "e": awrite}
    app = chain(*parts.items())
    found = {name for name in parts if compat.is_async_only(app.nodes[name].bound)}
    assert found == {"b", "c", "d", "e"}, "an app would be run in a thread that can only be awaited"


def test_chains_and_graphs_are_no_functions() -> None:
    inner = chain(("a", write))
    app = chain(("chain", RunnableLambda(write) | RunnableLambda(write)), ("graph", inner))
    assert app.nodes["graph"].bound is inner, "a graph that is a node would be taken for one op"
    for name in ("chain", "graph"):
        assert not compat.is_function(app.nodes[name].bound), "is_function() tells functions by func and afunc"


@pytest.mark.parametrize("kind", ["dict", "dataclass", "pydantic"])
def test_a_node_is_given_the_state_as_its_declared_kind(kind: str) -> None:
    @dataclass
    class Plain:
        plain: str = ""

    class Model(BaseModel):
        plain: str = ""

    schema: Any = {"dict": State, "dataclass": Plain, "pydantic": Model}[kind]
    seen: list[type] = []

    def node(state: Any) -> dict[str, Any]:
        seen.append(type(state))
        return {}

    chain(("a", node), schema=schema).invoke({"plain": "x"})
    expected = dict if kind == "dict" else schema
    assert seen == [expected], "view_of() would not see which keys are read"


# -- copies ---------------------------------------------------------------------------------------


def test_a_copy_of_a_graph_shares_nothing_that_is_set_on_it() -> None:
    app = branching()
    nodes, channels = dict(app.nodes), dict(app.channels)
    made = app.copy({"channels": dict(app.channels)})
    assert type(made) is type(app)
    assert made.channels is not app.channels, "making the copy adds a channel: the original's must be left alone"
    made.nodes = {}
    assert app.nodes == nodes and app.channels == channels, "the original would be changed"


def test_a_rebuilt_graph_calls_the_new_path_and_nodes() -> None:
    app = branching()
    calls: list[str] = []

    def route(name: str, path: Any, ends: Any) -> Any:
        assert (name, ends) == ("a", {"on": "b", "off": END}), "a conditional edge is told by its node and its targets"

        def noted(state: Any) -> Any:
            calls.append("route")
            return path.invoke(state)

        return RunnableLambda(noted)

    made = compat.rebuilt(app, {"b": RunnableLambda(lambda state: {"plain": "new"})}, route)
    assert made.invoke({})["plain"] == "new"
    assert asyncio.run(made.ainvoke({}))["plain"] == "new"
    assert calls == ["route", "route"], "conditional edges would be left out of the trace"
    assert app.invoke({})["plain"] == "written" and len(calls) == 2, "the original would call the new path"


def test_a_conditional_edge_is_a_writer_bound_to_its_spec() -> None:
    writers = branching().nodes["a"].writers
    specs = [one.func.__self__ for one in writers if type(getattr(one.func, "__self__", 0)).__name__ == "BranchSpec"]
    (spec,) = specs
    assert {"path", "ends"} <= set(spec._fields), "a conditional edge would not be found"
    assert callable(spec._route) and callable(spec._aroute), "_with_branches() binds both"
    assert isinstance(spec.path, Runnable), "the path must be something to invoke"
    assert spec._replace(path="other").path == "other"
    (writer,) = [one for one in writers if getattr(one.func, "__self__", None) is spec]
    assert writer.afunc.__self__ is spec, "an async run would take the original path"


def test_the_names_of_nodes_and_of_targets_are_known() -> None:
    assert compat.names_in(branching()) == {START, "a", "b", "on", "off"}, "they would be taken for prompts"


# -- channels -------------------------------------------------------------------------------------


def test_channels_that_keep_several_writes_are_known_by_name() -> None:
    channels = importlib.import_module("langgraph.channels")
    known = {"BinaryOperatorAggregate", "DeltaChannel", "Topic"}
    plain = {"AnyValue", "BaseChannel", "EphemeralValue", "LastValue", "LastValueAfterFinish", "UntrackedValue"}
    barriers = {"NamedBarrierValue", "NamedBarrierValueAfterFinish"}
    assert set(channels.__all__) == known | plain | barriers, "reducing_channels() must know whether a new channel adds"
    app = chain(("a", write))
    assert compat.reducing_channels(app) >= {"many"}, "all but the last writer of a list would be lost"
    assert "plain" not in compat.reducing_channels(app)


def test_channels_of_the_state_are_told_from_others() -> None:
    graph: Any = StateGraph(State)
    for name in ("a", "b", "c"):
        graph.add_node(name, lambda state: {"many": ["x"]})
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    graph.add_edge(["a", "b"], "c")
    app = graph.compile()
    assert compat.channel_names(app) == {"plain", "many"}, "LangGraph's own channels hold a colon or two underscores"
    assert set(compat.output_channels(app)) == {"plain", "many"}


# -- the config of a node -------------------------------------------------------------------------


def _noting(seen: list[Facts], name: str, output: Any) -> Node:
    def node(state: Any, config: RunnableConfig) -> Any:
        seen.append({"name": name, **config["metadata"]})
        return output(state) if callable(output) else output

    return node


def test_a_run_of_a_node_is_told_by_step_and_namespace() -> None:
    seen: list[Facts] = []
    graph: Any = StateGraph(State)
    graph.add_node("a", _noting(seen, "a", {}))
    graph.add_node("b", _noting(seen, "b", {}))
    graph.add_edge(START, "a")
    sends = [Send("b", {"plain": "1"}), Send("b", {"plain": "2"})]
    graph.add_conditional_edges("a", _noting(seen, "route", lambda state: sends), ["b"])
    app = graph.compile()
    app.invoke({})
    first, route, *sent = ({"task": compat.task_of({"metadata": one}), **one} for one in seen)
    assert compat.step_of({"metadata": first}) < compat.step_of({"metadata": sent[0]}), "steps order the writes"
    assert route["task"][1] == first["task"][1], "a router would not see what its own node has just written"
    assert len({one["task"][1] for one in sent}) == 2, "two packets to one node would be taken for one run"
    assert [one["task"][2] for one in (first, *sent)] == [False, True, True], "packets would not be told from state"


def test_steps_go_on_in_the_next_turn_of_a_thread() -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    seen: list[Facts] = []
    app = chain(("a", _noting(seen, "a", {})), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    app.invoke({"plain": "1"}, config)
    app.invoke({"plain": "2"}, config)
    steps = [one["langgraph_step"] for one in seen]
    assert steps[0] < steps[1], "what an earlier turn wrote would hide what this one writes"
    assert compat.thread_of(config) == "t"


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "tasks"])
def test_what_runs_at_once_knows_its_step_and_its_place_there(threads: bool) -> None:
    seen: dict[str, list[tuple[str, str] | None]] = {}

    def noting(name: str) -> Node:
        def note(state: State) -> State:
            seen.setdefault(name + state.get("plain", ""), []).append(compat.branch_here())
            return {}

        async def anote(state: State) -> State:
            return note(state)

        return note if threads else anote

    inner: Any = StateGraph(State)
    graph: Any = StateGraph(State)
    for name in ("left", "right"):
        inner.add_node(name, noting(name))
        inner.add_edge(START, name)
    graph.add_node("a", noting("a"))
    graph.add_node("b", noting("b"))
    graph.add_node("inner", inner.compile())
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: [Send("b", {"plain": str(one)}) for one in range(11)], ["b"])
    graph.add_edge("a", "inner")
    app = graph.compile()
    for _ in range(2):
        app.invoke({}) if threads else asyncio.run(app.ainvoke({}))
    assert compat.branch_here() is None
    steps = {name: [one[0] for one in found if one is not None] for name, found in seen.items()}
    packets = [f"b{number}" for number in range(11)]
    assert steps["left"] == steps["right"], "what runs at once would not be one fork"
    assert [steps[one] for one in packets] == 11 * [steps["b0"]]
    assert len({*steps["a"], *steps["b0"], *steps["left"]}) == 6, "other steps, or runs, would be taken for one"
    for turn in range(2):
        places = {name: (found[turn] or ("", ""))[1] for name, found in seen.items()}
        assert places["left"] < places["right"], "nodes would have no order"
        assert sorted(packets, key=places.__getitem__) == packets, "packets would not be in the order of their sending"


def test_a_packet_reaches_its_node_as_the_same_object() -> None:
    packet = {"plain": "sent"}
    got: list[Any] = []
    graph: Any = StateGraph(State)
    graph.add_node("a", write)
    graph.add_node("b", lambda state: got.append(state) or {})  # type: ignore[func-returns-value]
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: [Send("b", packet)], ["b"])
    graph.compile().invoke({})
    assert got[0] is packet, "packet() finds who sent a packet by its identity"


# -- commands, pauses, tasks ----------------------------------------------------------------------


def test_a_command_tells_what_it_writes_and_where_it_goes() -> None:
    @dataclass
    class Update:
        plain: str

    command: Any = Command(update={"plain": "x"}, goto="b")
    assert list(command._update_as_tuples()) == [("plain", "x")]
    assert [name for name, _ in Command(update=Update("x"))._update_as_tuples()] == ["plain"]
    assert list(Command(goto="b")._update_as_tuples()) == []
    assert (command.graph, command.goto, Command.PARENT) == (None, "b", "__parent__")
    assert Send("b", {"x": 1}).node == "b" and Send("b", {"x": 1}).arg == {"x": 1}


def test_pauses_and_jumps_are_told_from_failures() -> None:
    seen: list[BaseException] = []

    def watched(run: Callable[[], Any]) -> Node:
        def node(state: State) -> Any:
            try:
                return run()
            except BaseException as error:
                seen.append(error)
                raise

        return node

    from langgraph.checkpoint.memory import InMemorySaver

    paused = chain(("a", watched(lambda: interrupt("?"))), checkpointer=InMemorySaver())
    paused.invoke({}, {"configurable": {"thread_id": "t"}})
    inner = chain(("x", lambda state: Command(graph=Command.PARENT, goto=END)))
    chain(("a", watched(lambda: inner.invoke({})))).invoke({})
    assert len(seen) == 2
    for error in seen:
        assert isinstance(error, GraphBubbleUp), "is_pause(): a pause would be recorded as a failed node"


def test_a_task_holds_its_function() -> None:
    @task
    def work(text: str) -> str:
        return text.upper()

    assert compat.is_task(work), "tasks are known by the name of their class"
    made = copy.copy(work)
    made.func = lambda text: f"new {text}"
    app = chain(("a", lambda state: {"plain": made(state["plain"]).result()}))
    assert app.invoke({"plain": "x"})["plain"] == "new x", "the copy of a task would run the original function"
