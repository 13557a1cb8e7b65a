"""What the app's own code does as it runs is done as without a trace: functions, closures, containers, rebinding."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import applying
from optograph.graphs.parameter import run_scope
from tests.agents.langgraph.apps import house
from tests.agents.langgraph.small import State, chain

PROMPT = "Answer in one short sentence."
OTHER = "A candidate has other words."


class Anything(State, total=False):
    """A channel for whatever a node has to show."""

    seen: Any


def seen(traced: Any, **values: str) -> Any:
    """Return what the nodes showed, under a candidate whose parameters' names have __ for a dot."""
    with applying({name.replace("__", "."): value for name, value in values.items()}):
        return traced.invoke({"plain": "x"})["seen"]


def app_of(*nodes: tuple[str, Any]) -> Any:
    return chain(*nodes, schema=Anything)


# -- closures -------------------------------------------------------------------------------------


def _recursive() -> Callable[[State], Any]:
    prompt = PROMPT

    def solve(depth: int) -> str:
        return prompt if depth == 0 else other(depth - 1)

    def other(depth: int) -> str:
        return f"{prompt}|" if depth == 0 else solve(depth - 1)

    return lambda state: {"seen": [solve(2), solve(1), other(4)]}


def test_functions_of_a_closure_that_call_each_other() -> None:
    app = app_of(("a", _recursive()))
    traced = trace_langgraph(app)
    (name,) = {one.name for one in traced.prompts}
    assert traced.invoke({"plain": ""})["seen"] == [PROMPT, f"{PROMPT}|", f"{PROMPT}|"]
    with applying({name: OTHER}):
        assert traced.invoke({"plain": ""})["seen"] == [OTHER, f"{OTHER}|", f"{OTHER}|"]


def test_many_functions_that_call_each_other_are_each_made_once() -> None:
    def build() -> Any:
        prompt = PROMPT
        made: list[Any] = []

        def add(number: int) -> Any:
            def one() -> str:
                return f"{number}{prompt}{len(made)}"

            return one

        f0, f1, f2, f3, f4, f5, f6, f7 = (add(number) for number in range(8))

        def g0() -> Any:
            return [g1, g2, g3, g4, g5, f0, f1]

        def g1() -> Any:
            return [g0, g2, g3, g4, g5, f2]

        def g2() -> Any:
            return [g0, g1, g3, g4, g5, f3]

        def g3() -> Any:
            return [g0, g1, g2, g4, g5, f4]

        def g4() -> Any:
            return [g0, g1, g2, g3, g5, f5]

        def g5() -> Any:
            return [g0, g1, g2, g3, g4, f6, f7]

        return lambda state: {"seen": [g0()[-1](), g0()[0]()[1]() == g2()]}

    traced = trace_langgraph(app_of(("a", build())))
    name = next(one.name for one in traced.prompts if one.variable.endswith("prompt"))
    with applying({name: OTHER}):
        assert traced.invoke({"plain": ""})["seen"] == [f"1{OTHER}0", True]


def _counting() -> tuple[Any, Any, Any]:
    style = PROMPT
    rules = "Keep to the rules of the house."

    def change(state: State) -> Any:
        nonlocal style
        style = f"{style} Now changed."
        return {}

    def through(state: State) -> Any:
        change(state)
        return {"seen": [style, rules]}

    return change, through, lambda state: {"seen": [style, rules]}


def test_a_variable_of_a_closure_that_the_app_sets_is_the_apps_own() -> None:
    results = []
    for trace in (lambda app: app, trace_langgraph):
        change, through, read = _counting()
        app = trace(app_of(("a", change), ("b", read)))
        results.append([app.invoke({"plain": ""})["seen"] for _ in range(2)])
        app = trace(app_of(("a", through)))
        results[-1].append(app.invoke({"plain": ""})["seen"])
    assert results[0] == results[1]
    assert results[0][1][0] == f"{PROMPT} Now changed. Now changed."


# -- what the app sets as it runs -----------------------------------------------------------------

STYLE = PROMPT
PROMPTS = {"sys": PROMPT, "n": 0, "list": [PROMPT]}
LINES = ["Say the first prompt here.", "Say the second prompt here."]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Put the module's variables back."""
    yield
    globals().update(
        STYLE=PROMPT, PROMPTS={"sys": PROMPT, "n": 0, "list": [PROMPT]}, LINES=["Say the first prompt here.", LINES[-1]]
    )
    house.TONE = "Speak like a friendly neighbour."


def test_a_variable_that_the_app_sets_is_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(state: State) -> Any:
        global STYLE
        STYLE = "Answer like a pirate, please."
        PROMPTS["sys"] = "Answer like a sailor, please."
        monkeypatch.setattr(house, "TONE", "Speak like a stranger.")
        return {}

    def read(state: State) -> Any:
        return {"seen": [STYLE, PROMPTS["sys"], house.TONE]}

    traced = trace_langgraph(app_of(("change", change), ("read", read)))
    expected = ["Answer like a pirate, please.", "Answer like a sailor, please.", "Speak like a stranger."]
    assert seen(traced, read__STYLE=OTHER, read__house__TONE=OTHER, change__PROMPTS__sys=OTHER) == expected


def test_a_variable_that_is_deleted_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(state: State) -> Any:
        return {"seen": [PROMPTS.get("sys"), "STYLE" in globals(), STYLE]}

    traced = trace_langgraph(app_of(("a", read)))
    monkeypatch.delitem(PROMPTS, "sys")
    assert seen(traced, a__STYLE=OTHER) == [None, True, OTHER]
    monkeypatch.delitem(globals(), "STYLE")
    with pytest.raises(NameError, match="STYLE"):
        seen(traced)


def test_what_is_written_to_a_container_under_a_candidate_is_kept() -> None:
    def write(state: State) -> Any:
        PROMPTS["n"] += 1  # type: ignore[operator]
        PROMPTS.setdefault("new", "x")
        PROMPTS.update(more=1)
        PROMPTS["sys"] = PROMPTS["sys"].strip()  # type: ignore[attr-defined]
        PROMPTS["list"].append("y")  # type: ignore[attr-defined]
        return {"seen": [PROMPTS["sys"], PROMPTS["n"], LINES.pop(), list(LINES)]}

    traced = trace_langgraph(app_of(("a", write)))
    assert seen(traced, a__PROMPTS__sys=OTHER, a__PROMPTS__list__0=OTHER) == [
        OTHER,
        1,
        "Say the second prompt here.",
        ["Say the first prompt here."],
    ]
    assert PROMPTS == {"sys": PROMPT, "n": 1, "list": [PROMPT, "y"], "new": "x", "more": 1}
    assert LINES == ["Say the first prompt here."]
    LINES.append("Say the second prompt here.")
    assert seen(traced, a__PROMPTS__sys="Yet another candidate's words.")[:2] == ["Yet another candidate's words.", 2]


def test_a_list_of_prompts_is_written_to_under_a_candidate() -> None:
    rules = ["Obey the first of the rules.", "Obey the second of the rules.", "Obey the third of the rules."]

    def write(state: State) -> Any:
        rules.insert(0, "a")
        rules.remove("a")
        rules.reverse()
        rules[0] = "b"
        rules.extend(one for one in "cd")
        del rules[-1]
        found = list(rules)
        rules.sort()
        return {"seen": found}

    traced = trace_langgraph(app_of(("a", write)))
    assert seen(traced, a__rules__1=OTHER) == ["b", OTHER, "Obey the first of the rules.", "c"]
    assert rules == ["Obey the first of the rules.", "Obey the second of the rules.", "b", "c"]


# -- kinds of functions ---------------------------------------------------------------------------


def _give(state: State) -> Iterator[Any]:
    yield {"seen": PROMPT}


async def _agive(state: State) -> AsyncIterator[Any]:
    yield {"seen": PROMPT}


def test_a_generator_as_a_node() -> None:
    traced = trace_langgraph(app_of(("a", RunnableLambda(_give))))
    assert seen(traced, a__PROMPT=OTHER) == OTHER
    other = trace_langgraph(app_of(("a", RunnableLambda(_agive))))
    with applying({"a.PROMPT": OTHER}):
        assert asyncio.run(other.ainvoke({"plain": ""}))["seen"] == OTHER


class _Async:
    async def ask(self) -> str:
        return PROMPT

    def words(self) -> Iterator[str]:
        yield PROMPT

    async def __call__(self, state: State) -> Any:
        kinds = [inspect.iscoroutinefunction(self.ask), inspect.isgeneratorfunction(self.words)]
        return {"seen": [*kinds, await self.ask(), *self.words()]}


def test_methods_are_of_the_kind_that_they_are() -> None:
    traced = trace_langgraph(app_of(("a", _Async())))
    (name,) = {one.name for one in traced.prompts}
    with applying({name: OTHER}):
        assert asyncio.run(traced.ainvoke({"plain": ""}))["seen"] == [True, True, OTHER, OTHER]


def test_literal_braces_that_look_like_a_placeholder_stay() -> None:
    def node(state: State) -> Any:
        name = state["plain"]
        return {"seen": f"Write {{name}} as a field; the name is {name}, please."}

    traced = trace_langgraph(app_of(("a", node)))
    assert seen(traced) == "Write {name} as a field; the name is x, please."
    assert traced.prompts == ()


# -- threads --------------------------------------------------------------------------------------

POOL = ThreadPoolExecutor(2)


def _ask(text: str) -> str:
    return PROMPT + text


def _own(state: State) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return {"seen": [*pool.map(_ask, ["1", "2"]), pool.submit(_ask, "3").result()]}


def _by_module(state: State) -> Any:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(_ask, text) for text in "123"]
        return {"seen": [one.result() for one in concurrent.futures.wait(waiting).done and waiting]}


def _shared(state: State) -> Any:
    return {"seen": [*POOL.map(_ask, ["1", "2"]), POOL.submit(_ask, text="3").result()]}


@pytest.mark.parametrize("node", [_own, _by_module, _shared])
def test_threads_of_a_pool_see_the_candidate(node: Any) -> None:
    traced = trace_langgraph(app_of(("a", node)))
    assert traced.invoke({"plain": ""})["seen"] == [PROMPT + text for text in "123"]
    with run_scope(traced.parameters()):
        assert seen(traced, a___ask__PROMPT=OTHER) == [OTHER + text for text in "123"]
    del traced
    assert POOL.submit(_ask, "1").result() == f"{PROMPT}1", "the app's own pool would be shut down"
