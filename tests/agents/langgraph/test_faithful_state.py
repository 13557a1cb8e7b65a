"""What nodes do with the state, and the threads that runs are kept on, is as without a trace."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import operator
import pickle
import time
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send
from pydantic import BaseModel

from optograph.agents.langgraph import dataflow, trace_langgraph
from optograph.agents.langgraph.views import view_of
from optograph.graphs import OpError, Value, applying, tracing
from tests.agents.langgraph.small import chain

PROMPT = "Answer in one short sentence."
heard: list[str] = []


@dataclasses.dataclass
class Hearing:
    """A state whose class hears of its subclasses."""

    plain: str = ""
    seen: Any = None

    def __init_subclass__(cls, **options: Any) -> None:
        heard.append(cls.__name__)

    def __post_init__(self) -> None:
        self.words = self.plain.split()


class Model(BaseModel):
    """A state that hears of its subclasses too."""

    plain: str = ""
    seen: Any = None

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        heard.append(cls.__name__)


class Many(TypedDict, total=False):
    """A dict for a state."""

    plain: str
    seen: Any
    many: Annotated[list[Any], operator.add]


def both(schema: Any, node: Any, **options: Any) -> tuple[Any, Any]:
    """Return what a graph of one node gives, untraced and traced."""
    app = chain(("a", node), schema=schema, **options)
    return app.invoke({"plain": "x y"}), trace_langgraph(app).invoke({"plain": "x y"})


# -- views ----------------------------------------------------------------------------------------


def test_attributes_beside_the_fields_of_a_dataclass() -> None:
    plain, traced = both(Hearing, lambda state: {"seen": state.words})
    assert plain["seen"] == traced["seen"] == ["x", "y"]


@pytest.mark.parametrize("schema", [Hearing, Model])
def test_a_state_is_pickled_copied_and_compared(schema: Any) -> None:
    def node(state: Any) -> Any:
        other = schema(plain="x y")
        kinds = [type(pickle.loads(pickle.dumps(state))), type(copy.copy(state)), type(copy.deepcopy(state))]
        return {"seen": [*kinds, state == other, other == state, state.__class__, isinstance(state, schema)]}

    plain, traced = both(schema, node)
    assert plain["seen"] == traced["seen"] == [schema, schema, schema, True, True, schema, True]
    assert heard == []


@pytest.mark.parametrize("schema", [Hearing, Model, Many])
def test_a_state_inside_of_what_a_node_gives(schema: Any) -> None:
    kind: Any = dict if schema is Many else schema

    def node(state: Any) -> Any:
        return {"seen": {"now": [state, (state, 1)]}}

    plain, traced = both(schema, node)
    assert plain == traced
    assert [type(traced["seen"]["now"][0]), type(traced["seen"]["now"][1][0])] == [kind, kind]
    app = chain(("a", lambda state: Command(update={"seen": state})), schema=schema)
    with tracing() as tape:
        assert type(trace_langgraph(app).invoke({"plain": "x"})["seen"]) is kind
    assert ("__start__", "a", "plain") in dataflow(tape)


def test_a_view_of_a_view_notes_what_is_read() -> None:
    reads: dict[str, None] = {}
    assert view_of(view_of({"plain": "x", "seen": 1}, {}), reads)["plain"] == "x"
    assert list(reads) == ["plain"]


def test_a_state_that_is_sent_on() -> None:
    kinds: list[Any] = []

    def work(state: Any) -> Any:
        kinds.append(type(state.get("self", {})))
        return {"many": [state["plain"] + "!"]}

    graph: Any = StateGraph(Many)
    graph.add_node("start", lambda state: {})
    graph.add_node("work", work)
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", lambda state: [Send("work", state), Send("work", {**state, "self": state})])
    traced = trace_langgraph(graph.compile())
    with tracing() as tape:
        assert traced.invoke({"plain": "x"})["many"] == ["x!", "x!"]
    assert kinds == [dict, dict]
    assert ("__start__", "work", "plain") in dataflow(tape)


PROMPTS = {"system": PROMPT, "lines": [PROMPT]}


def test_a_container_of_prompts_inside_of_what_a_node_gives() -> None:
    traced = trace_langgraph(chain(("a", lambda state: {"seen": [PROMPTS]}), schema=Many))
    with applying({"a.PROMPTS.system": "Other words, if you please.", "a.PROMPTS.lines.0": "Other lines, please."}):
        found = traced.invoke({"plain": "x"})["seen"][0]
    assert found == {"system": "Other words, if you please.", "lines": ["Other lines, please."]}
    assert (type(found), type(found["lines"])) == (dict, list)


def test_what_holds_no_view_is_given_as_it_is() -> None:
    given = {"deep": [{"texts": ["a"], "numbers": (1, 2)}, object()]}
    traced = trace_langgraph(chain(("a", lambda state: {"seen": given}), schema=Many))
    assert traced.invoke({"plain": "x"})["seen"] is given


# -- failures -------------------------------------------------------------------------------------


def test_a_node_that_was_tried_again_is_not_to_blame() -> None:
    tries: list[int] = []

    def flaky(state: Any) -> Any:
        tries.append(1)
        if len(tries) < 2:
            raise ConnectionError("for once")
        return {}

    graph: Any = StateGraph(Many)
    graph.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.01))
    graph.add_node("loop", lambda state: {"plain": "again"})
    graph.add_edge(START, "flaky")
    graph.add_edge("flaky", "loop")
    graph.add_conditional_edges("loop", lambda state: "loop", ["loop"])
    with pytest.raises(GraphRecursionError):
        trace_langgraph(graph.compile(), config={"recursion_limit": 5})(plain="x")
    assert len(tries) == 2


def test_of_nodes_that_fail_at_once_the_one_that_is_raised_is_blamed() -> None:
    def failing(name: str, wait_s: float) -> Any:
        def node(state: Any) -> Any:
            time.sleep(wait_s)
            raise KeyError(name)

        return node

    graph: Any = StateGraph(Many)
    for name, wait_s in (("a", 0.0), ("b", 0.02)):
        graph.add_node(name, failing(name, wait_s))
        graph.add_edge(START, name)
    with pytest.raises(OpError) as raised:
        trace_langgraph(graph.compile())(plain="x")
    assert (raised.value.value.info or {})["node"] == raised.value.original.args[0]


def test_the_node_that_failed_last_is_blamed_also_in_a_subgraph() -> None:
    def fail(state: Any) -> Any:
        raise KeyError("no")

    inner = chain(("x", fail), schema=Many)
    with pytest.raises(OpError) as raised:
        trace_langgraph(chain(("outer", inner), schema=Many))(plain="x")
    assert (raised.value.value.info or {})["node"] == "outer/x"


# -- threads of a checkpointer --------------------------------------------------------------------


def _say(state: Any) -> Any:
    return {"many": [f"{PROMPT} {state['plain']}"]}


async def _asay(state: Any) -> Any:
    return _say(state)


@pytest.mark.parametrize("configured", [None, "t"])
@pytest.mark.parametrize("node", [_say, _asay])
def test_runs_of_a_workflow_share_no_thread(configured: str | None, node: Any) -> None:
    saver = InMemorySaver()
    app = chain(("a", node), schema=Many, checkpointer=saver)
    config: Any = None if configured is None else {"configurable": {"thread_id": configured}, "tags": ["kept"]}
    traced = trace_langgraph(app, config=config, output="many")
    (name,) = {one.name for one in traced.prompts}

    async def runs() -> list[Any]:
        found = []
        for number in range(3):
            with applying({name: f"Candidate {number} says it."}):
                found.append((await traced.acall(plain="x")).data)
        return found

    expected = [[f"Candidate {number} says it. x"] for number in range(3)]
    assert asyncio.run(runs()) == expected
    if node is _say:
        with applying({name: "Candidate 0 says it."}):
            assert traced(plain="x").data == expected[0]
    assert list(saver.list(None)) == [], "the app's own store would fill up"


def test_a_thread_of_the_callers_goes_on() -> None:
    traced = trace_langgraph(chain(("a", _say), schema=Many, checkpointer=InMemorySaver()))
    config = {"configurable": {"thread_id": "t"}}
    assert [len(traced.invoke({"plain": "x"}, config)["many"]) for _ in range(3)] == [1, 2, 3]


def test_what_no_later_turn_can_see_is_let_go() -> None:
    graph: Any = StateGraph(Many)
    graph.add_node("a", lambda state: {"seen": state["plain"]})
    graph.add_node("b", lambda state: {"plain": f"{state['seen']}!"})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "b" if state["seen"] else END, ["b", END])
    traced = trace_langgraph(graph.compile(checkpointer=InMemorySaver()))
    counts = []
    for turn in range(6):
        with tracing() as tape:
            traced.invoke({"plain": f"turn {turn}"}, {"configurable": {"thread_id": "t"}})
        assert ("a", "b", "seen") in dataflow(tape)
        del tape
        gc.collect()
        counts.append(sum(isinstance(one, Value) for one in gc.get_objects()))
    assert counts[2] == counts[-1]


def test_controls_of_an_earlier_turn_do_not_count() -> None:
    graph: Any = StateGraph(Many)
    graph.add_node("a", lambda state: {"seen": state["plain"]})
    graph.add_node("b", lambda state: {"seen": "b"})
    choose = {"one": "b", "two": "a"}
    graph.add_conditional_edges(START, lambda state: choose[state["plain"]], ["a", "b"])
    graph.add_edge("a", "b")
    traced = trace_langgraph(graph.compile(checkpointer=InMemorySaver()))
    config = {"configurable": {"thread_id": "t"}}
    traced.invoke({"plain": "one"}, config)
    with tracing() as tape:
        traced.invoke({"plain": "two"}, config)
    (reached,) = [one for one in tape if (one.info or {}).get("node") == "b"]
    assert not [one for one in reached.parents if (one.info or {}).get("node") == "__start__?"]


# -- names ----------------------------------------------------------------------------------------


def test_names_of_nodes_and_branches_are_no_prompts() -> None:
    graph: Any = StateGraph(Many)
    for name in ("start here", "write the answer", "ask the user"):
        graph.add_node(name, lambda state: {"seen": "Answer what was asked."})
    graph.add_edge(START, "start here")
    graph.add_conditional_edges(
        "start here",
        lambda state: "go and write it" if state["plain"] else "ask the user",
        {"go and write it": "write the answer", "ask the user": "ask the user"},
    )
    graph.add_node("last of all nodes", lambda state: Command(goto="write the answer"))
    traced = trace_langgraph(graph.compile())
    assert {one.text for one in traced.prompts} == {"Answer what was asked."}
    with applying(dict.fromkeys((one.name for one in traced.parameters()), "Other words, please.")):
        assert traced.invoke({"plain": "x"})["seen"] == "Other words, please."


async def _aroute(state: Any) -> str:
    return END


def _with_router() -> Any:
    graph: Any = StateGraph(Many)
    graph.add_node("a", lambda state: {"seen": "x"})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", _aroute, [END])
    return graph.compile()


async def _aseen(state: Any) -> Any:
    return {"seen": "x"}


@pytest.mark.parametrize(
    "app",
    [
        _with_router(),
        chain(("a", RunnableLambda(_aseen)), schema=Many),
        chain(("a", RunnableLambda(lambda state: state) | RunnableLambda(_aseen)), schema=Many),
        chain(("a", RunnableLambda(_aseen).with_config(tags=["t"])), schema=Many),
        chain(("a", RunnableParallel(seen=RunnableLambda(_aseen) | (lambda found: found["seen"]))), schema=Many),
    ],
)
def test_apps_that_only_run_async_are_told_apart(app: Any) -> None:
    assert asyncio.run(trace_langgraph(app, output="seen").acall(plain="?")).data == "x"
