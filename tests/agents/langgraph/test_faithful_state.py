"""What nodes do with the state, and the threads that runs are kept on, is as without a trace."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
import time
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, Send
from pydantic import BaseModel

from optograph.agents.langgraph import dataflow, trace_langgraph
from optograph.graphs import OpError, applying, tracing
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
