"""How LangGraph behaves where the project relies on it: a failure here says what is to be looked at again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy, Command, interrupt

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import applying
from optograph.optimizers.checkpoints import checkpointing
from optograph.optimizers.loopgraph import apart
from tests.agents.langgraph.small import State, chain, write

THREAD: Any = {"configurable": {"thread_id": "t"}}


def counted(calls: list[str], name: str, run: Callable[[State], Any] = lambda state: {}) -> Callable[[State], Any]:
    """Return a node that notes its name, then runs."""

    def node(state: State) -> Any:
        calls.append(name)
        return run(state)

    return node


# -- going on -------------------------------------------------------------------------------------


def test_nodes_that_are_done_do_not_run_again() -> None:
    calls: list[str] = []
    broken = [True]

    def fail_once(state: State) -> State:
        if broken.pop() if broken else False:
            raise OSError("for once")
        return {}

    app = chain(("a", counted(calls, "a")), ("b", counted(calls, "b", fail_once)), checkpointer=InMemorySaver())
    with pytest.raises(OSError, match="for once"):
        app.invoke({"plain": ""}, THREAD)
    app.invoke(None, THREAD)
    assert calls == ["a", "b", "b"], "a graph with an optimization in it would pay for the search again"


def test_an_interrupt_runs_its_own_node_again_and_no_other() -> None:
    calls: list[str] = []
    ask = counted(calls, "b", lambda state: {"plain": interrupt("?")})
    app = chain(("a", counted(calls, "a")), ("b", ask), checkpointer=InMemorySaver())
    paused = app.invoke({"plain": ""}, THREAD)
    assert [one.value for one in paused["__interrupt__"]] == ["?"], "a loop finds out by this key that it waits"
    assert app.invoke(Command(resume="yes"), THREAD)["plain"] == "yes"
    assert calls == ["a", "b", "b"], "what a review node does before it asks is done twice"


def test_several_interrupts_of_a_node_are_answered_in_order() -> None:
    def ask(state: State) -> State:
        said = interrupt("first")
        while said != "good":
            said = interrupt(f"not {said}")
        return {"plain": said}

    app = chain(("a", ask), checkpointer=InMemorySaver())
    asked = [app.invoke({"plain": ""}, THREAD)["__interrupt__"][0].value]
    asked.append(app.invoke(Command(resume="bad"), THREAD)["__interrupt__"][0].value)
    assert asked == ["first", "not bad"], "a reviewer would not learn what was wrong with an answer"
    assert app.invoke(Command(resume="good"), THREAD)["plain"] == "good"


def test_each_step_is_kept_before_the_next_one_begins() -> None:
    saver = InMemorySaver()
    seen: list[int] = []

    def look(state: State) -> State:
        seen.append(len(list(saver.list(THREAD))))
        return {}

    chain(("a", look), ("b", look), checkpointer=saver).invoke({"plain": ""}, THREAD, durability="sync")
    assert seen[1] == seen[0] + 1, "the file of checkpoints would lag behind the run"


def test_checkpoints_go_into_a_file(tmp_path: Path) -> None:
    with checkpointing(tmp_path) as saver:
        app = chain(("a", write), checkpointer=saver)
        app.invoke({}, THREAD, durability="sync")
        assert app.get_state(THREAD).values["plain"] == "written"
    with checkpointing(tmp_path) as saver:
        assert chain(("a", write), checkpointer=saver).get_state(THREAD).values["plain"] == "written"


def test_the_recursion_limit_is_the_one_that_is_given() -> None:
    graph: Any = StateGraph(State)
    graph.add_node("a", lambda state: {"many": ["x"]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if len(state["many"]) < 12 else END, ["a", END])
    app = graph.compile()
    assert len(app.invoke({}, {"recursion_limit": 13})["many"]) == 12
    with pytest.raises(GraphRecursionError):
        app.invoke({}, {"recursion_limit": 11})
    assert len(app.invoke({}, {"recursion_limit": 100_000})["many"]) == 12, "a loop's own limit would be refused"


# -- steps ----------------------------------------------------------------------------------------


def test_nodes_of_one_step_do_not_see_each_other() -> None:
    seen: dict[str, Any] = {}

    def node(name: str, wait_s: float) -> Callable[[State], State]:
        def run(state: State) -> State:
            time.sleep(wait_s)
            seen[name] = (state.get("plain"), list(state["many"]))
            return {"many": [name]}

        return run

    graph: Any = StateGraph(State)
    for name, wait_s in (("b", 0.05), ("c", 0.0)):
        graph.add_node(name, node(name, wait_s))
        graph.add_edge(START, name)
    result = graph.compile().invoke({"plain": "in", "many": ["in"]})
    assert seen == {"b": ("in", ["in"]), "c": ("in", ["in"])}, "the data-flow counts writes of earlier steps only"
    assert result["many"] == ["in", "b", "c"], "a traced run may end its nodes in another order than an untraced one"


def test_a_router_sees_what_its_own_node_wrote() -> None:
    seen: list[Any] = []
    graph: Any = StateGraph(State)
    graph.add_node("a", lambda state: {"plain": "new", "many": ["new"]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: seen.append(dict(state)) or END, [END])  # type: ignore[func-returns-value]
    graph.compile().invoke({"plain": "old", "many": ["old"]})
    assert seen == [{"plain": "new", "many": ["old", "new"]}], "the data-flow counts its node's writes as read"


def test_an_exception_of_a_node_is_what_the_app_raises() -> None:
    error = KeyError("mine")

    def fail(state: State) -> State:
        raise error

    for run in (chain(("a", fail)).invoke, lambda given: asyncio.run(chain(("a", fail)).ainvoke(given))):
        with pytest.raises(KeyError) as raised:
            run({"plain": ""})
        assert raised.value is error, "feedback could not start from the node that failed"


# -- context --------------------------------------------------------------------------------------

_word: ContextVar[str] = ContextVar("word", default="outside")


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_variables_of_the_caller_reach_nodes_and_stay_there(way: str) -> None:
    seen: set[tuple[str, bool]] = set()

    def look(state: State) -> State:
        seen.add((_word.get(), threading.current_thread() is threading.main_thread()))
        _word.set("inside")
        return {}

    async def alook(state: State) -> State:
        return look(state)

    graph: Any = StateGraph(State)
    for name in ("a", "b"):
        graph.add_node(name, look)
        graph.add_edge(START, name)
    if way.startswith("a"):
        graph.add_node("c", alook)
        graph.add_edge(START, "c")
    app = graph.compile()

    async def run() -> None:
        if way == "ainvoke":
            await app.ainvoke({"plain": ""})
        else:
            _ = [one async for one in app.astream({"plain": ""})]

    token = _word.set("candidate")
    try:
        if way.startswith("a"):
            asyncio.run(run())
        else:
            app.invoke({"plain": ""}) if way == "invoke" else list(app.stream({"plain": ""}))
        assert _word.get() == "candidate", "what a node sets would be seen by the next candidate"
    finally:
        _word.reset(token)
    assert {word for word, _ in seen} == {"candidate"}, "a node would not see the candidate that is in force"
    assert False in {main for _, main in seen}, "nodes that run at once are no longer in threads: look at the tests"


def test_a_graph_inside_a_node_is_a_subgraph_unless_it_runs_apart() -> None:
    inner = chain(("x", lambda state: {"plain": interrupt("inner")}))

    def nested(state: State) -> State:
        return {"plain": repr(inner.invoke({"plain": ""}).get("__interrupt__"))}

    stopped = chain(("a", nested), checkpointer=InMemorySaver()).invoke({"plain": ""}, THREAD)
    assert "__interrupt__" in stopped, "apart() is no longer needed: what it does can be left out"
    alone = chain(("a", lambda state: apart(lambda: nested(state))), checkpointer=InMemorySaver())
    assert "__interrupt__" not in alone.invoke({"plain": ""}, THREAD), "an optimization's graphs would stop the user's"


def test_events_go_to_whoever_streams_and_else_nowhere() -> None:
    def node(state: State) -> State:
        get_stream_writer()({"event": 1})
        return {"plain": "done"}

    app = chain(("a", node))
    assert list(app.stream({}, stream_mode="custom")) == [{"event": 1}]
    assert app.invoke({})["plain"] == "done", "a loop that nobody streams would fail"


# -- caches ---------------------------------------------------------------------------------------

PROMPT = "Answer in one short sentence."


@task(cache_policy=CachePolicy())  # type: ignore[arg-type]
def _asked(text: str) -> str:
    return PROMPT + text


def _cached(kind: str) -> Any:
    graph: Any = StateGraph(State)
    if kind == "node":
        graph.add_node("a", lambda state: {"plain": PROMPT + state["plain"]}, cache_policy=CachePolicy())
    else:
        graph.add_node("a", lambda state: {"plain": _asked(state["plain"]).result()})
    graph.add_edge(START, "a")
    return graph.compile(cache=InMemoryCache())


@pytest.mark.parametrize("kind", ["node", "task"])
def test_a_cache_that_knows_no_prompts_is_left_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = _cached(kind)
    with monkeypatch.context() as patch:
        usual = app.invoke({"plain": "?"})["plain"]
        patch.setitem(globals(), "PROMPT", "New words. ")
        assert app.invoke({"plain": "?"})["plain"] == usual, "its keys know prompts now: caches could be let in"
    traced = trace_langgraph(app)
    (name,) = {one.name for one in traced.prompts}
    for words in (f"Candidate {number} has other words. " for number in range(3)):
        with applying({name: words}):
            assert traced.invoke({"plain": "?"})["plain"] == f"{words}?", "a candidate would get another's answer"
    assert traced.invoke({"plain": "?"})["plain"] == usual
    assert app.cache is not None, "the app itself keeps its cache"


def test_pictures_are_drawn_without_a_network() -> None:
    inner = chain(("x", write))
    drawn = chain(("a", write), ("g", inner)).get_graph(xray=True).draw_mermaid()
    assert "a" in drawn and "x" in drawn, "`optograph graph` draws with it"
