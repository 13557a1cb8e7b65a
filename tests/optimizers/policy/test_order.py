"""Calls that are made at once: their rows, and the order of these, are the same however long the answers take."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from optograph.agents import Step, StepOptions
from optograph.agents.langgraph import trace_langgraph
from optograph.context import call_context, current_context
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback
from optograph.optimizers.policy import TrainingRow, training_rows, with_token_ids
from optograph.optimizers.policy.collect import recorded_rollouts
from optograph.serving import LM, JournaledLM, Request, ScriptedLM
from optograph.storage import EvaluationRow, Journal

Workflow = Callable[..., Any]
TICK_S = 0.03
"""A latency; what is to come first in one run takes none, and in the other several of these."""


class Question(BaseModel):
    question: str


class Answer(BaseModel):
    answer: str


class Clock:
    """How many ticks something named takes, in one order of the names or in the other."""

    def __init__(self, ticks: dict[str, int], swapped: bool) -> None:
        self._ticks = {name: max(ticks.values()) - one if swapped else one for name, one in ticks.items()}

    def __getitem__(self, name: str) -> float:
        return TICK_S * self._ticks.get(name, 0)


class Model:
    """A model behind a journal whose answers say what was asked, after the time that the prompt's first word takes.

    Args:
        clock: The times.
        together: First words of prompts of which none is answered before all are asked.
    """

    def __init__(self, clock: Clock, together: str = "") -> None:
        self.met = defaultdict[int, asyncio.Barrier](lambda: asyncio.Barrier(len(together)))

        async def reply(request: Request) -> str:
            text = request.text.rpartition("user: ")[2]
            name = text.split()[0]
            if name in together:
                await self.met[current_context().repeat].wait()
            await asyncio.sleep(clock[name])
            return f"so <{text}>"

        self.clock = clock
        self.journal = Journal.memory()
        self.lm: LM = JournaledLM(with_token_ids(ScriptedLM(reply)), self.journal)

    async def ask(self, prompt: str) -> str:
        """Ask as the node of the prompt's first word."""
        with call_context(node=prompt.split()[0]):
            return (await self.lm.complete(Request(prompt=prompt, temperature=1.0))).text

    def blocking(self, prompt: str) -> str:
        """Ask likewise, and wait."""
        with call_context(node=prompt.split()[0]):
            return str(self.lm(prompt, temperature=1.0))  # type: ignore[operator]


TRIAL = Trial(Candidate({}), "train", ("train",))


def evaluator_of(model: Model, workflow: Workflow) -> Evaluator:
    """Return what runs the one example."""

    def some(split: str) -> list[Example]:
        return [Example(split, {"question": f"of {split}"}, None)]

    task = Task(some("train"), some("dev"), SealedSplit(some("test")), lambda example, output: Feedback(1.0))
    return Evaluator(workflow, task, {}, model.journal)


def rows_of(
    workflow: Callable[[Model], Workflow], ticks: dict[str, int], *, swapped: bool, together: str = ""
) -> list[TrainingRow]:
    """Run one example twice and return its rows."""
    model = Model(Clock(ticks, swapped), together)
    evaluator_of(model, workflow(model)).evaluate([TRIAL, dataclasses.replace(TRIAL, repeat=1)])
    found = training_rows(model.journal)
    assert (found.unscored, found.incomplete, found.without_calls) == (0, 0, 0)
    rows = sorted(found.rows, key=lambda row: row.rollout)
    assert all(row.reward == 1 for row in rows)
    assert [row.call for row in rows] == 2 * list(range(len(rows) // 2))
    return rows


def nodes_of(rows: list[TrainingRow]) -> str:
    half = [row.node or "" for row in rows[: len(rows) // 2]]
    assert half == [row.node or "" for row in rows[len(rows) // 2 :]]
    return " ".join(half)


# -- async workflows ------------------------------------------------------------------------------


def steps_at_once(model: Model) -> Workflow:
    """Two steps at once, then one that sees both."""

    def step(name: str) -> Step:
        options = StepOptions(answer="text", temperature=1.0)
        return Step(name, lm=model.lm, inputs=Question, output=Answer, instruction="Go.", options=options)

    a, b, join = step("a"), step("b"), step("join")

    async def solve(question: str) -> Any:
        found = await asyncio.gather(a.acall(question=f"a {question}"), b.acall(question=f"b {question}"))
        return await join.acall(question=" ".join(["join", *(one.answer.data for one in found)]))

    return solve


def chains_at_once(model: Model) -> Workflow:
    """Two chains of two calls each, after a call and before another."""

    async def chain(name: str, question: str) -> str:
        return await model.ask(f"{name}2 {await model.ask(f'{name}1 {question}')}")

    async def solve(question: str) -> str:
        begun = await model.ask(f"begin {question}")
        return await model.ask(" ".join(["join", *await asyncio.gather(chain("a", begun), chain("b", begun))]))

    return solve


def branches_that_branch(model: Model) -> Workflow:
    """Two branches that look something up, ask twice at once, and then ask about both answers."""

    async def branch(name: str, question: str) -> str:
        await asyncio.sleep(model.clock[f"lookup-{name}"])
        one, other = await asyncio.gather(model.ask(f"{name}1 {question}"), model.ask(f"{name}2 {question}"))
        return await model.ask(f"{name}3 {one} {other}")

    async def solve(question: str) -> str:
        return await model.ask(" ".join(["join", *await asyncio.gather(branch("a", question), branch("b", question))]))

    return solve


def waits_with_a_limit(model: Model) -> Workflow:
    """One call after the other, each in a task of its own."""

    async def solve(question: str) -> str:
        for name in ("z", "y", "x"):
            question = await asyncio.wait_for(asyncio.shield(model.ask(f"{name} {question}")), 60)
        return question

    return solve


ASYNC = {
    "steps": (steps_at_once, {"a": 3, "b": 0}, "a b join"),
    "chains": (chains_at_once, {"a1": 3, "a2": 1, "b1": 0, "b2": 1}, "begin a1 a2 b1 b2 join"),
    "branches": (branches_that_branch, {"lookup-a": 4, "lookup-b": 0, "a1": 1}, "a1 a2 a3 b1 b2 b3 join"),
    "in a row": (waits_with_a_limit, {"z": 1, "x": 0}, "z y x"),
}


@pytest.mark.parametrize("name", list(ASYNC))
def test_what_is_asked_at_once_has_one_order(name: str) -> None:
    workflow, ticks, expected = ASYNC[name]
    rows = rows_of(workflow, ticks, swapped=False)
    assert nodes_of(rows) == expected
    assert rows_of(workflow, ticks, swapped=True) == rows


def test_a_user_loop_has_the_same_order() -> None:
    seen = []
    for swapped in (False, True):
        model = Model(Clock({"a1": 3, "a2": 1, "b1": 0, "b2": 1}, swapped))
        asyncio.run(evaluator_of(model, chains_at_once(model)).aevaluate([TRIAL]))
        seen.append(training_rows(model.journal).rows)
    assert seen[0] == seen[1]
    assert [row.node for row in seen[0]] == ["begin", "a1", "a2", "b1", "b2", "join"]


# -- LangGraph ------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    question: str
    name: str
    found: Annotated[list[str], operator.add]
    answer: str


class Found(TypedDict):
    found: Annotated[list[str], operator.add]


def node(model: Model, name: str, *, is_async: bool) -> Callable[[State], Any]:
    """A node that looks something up, asks twice in a row and writes the answer."""

    def prompts(state: State) -> tuple[str, str]:
        seen = " ".join([state["question"], *state.get("found", ())])
        return f"{name}1 {seen}", f"{name}2 {seen}"

    async def arun(state: State) -> State:
        one, two = prompts(state)
        await asyncio.sleep(model.clock[f"lookup-{name}"])
        return {"found": [await model.ask(f"{two} {await model.ask(one)}")]}

    def run(state: State) -> State:
        one, two = prompts(state)
        time.sleep(model.clock[f"lookup-{name}"])
        return {"found": [model.blocking(f"{two} {model.blocking(one)}")]}

    return arun if is_async else run


def parallel_nodes(model: Model, *, is_async: bool) -> Workflow:
    """A node, then two at once, then one that sees all."""
    graph: Any = StateGraph(State)
    for name in ("begin", "b", "a", "join"):
        graph.add_node(name, node(model, name, is_async=is_async))
    for before, after in (("begin", "b"), ("begin", "a"), ("b", "join"), ("a", "join"), (START, "begin")):
        graph.add_edge(before, after)
    graph.add_edge("join", END)
    return trace_langgraph(graph.compile())


def sent_packets(model: Model, *, is_async: bool) -> Workflow:
    """Three packets to one subgraph, in which two nodes run at once; twice over."""

    def asks(place: str) -> Callable[[State], Any]:
        async def arun(state: State) -> State:
            await asyncio.sleep(model.clock[f"lookup-{state['name']}"])
            return {"found": [await model.ask(f"{state['name']}{place} {state['question']}")]}

        def run(state: State) -> State:
            time.sleep(model.clock[f"lookup-{state['name']}"])
            return {"found": [model.blocking(f"{state['name']}{place} {state['question']}")]}

        return arun if is_async else run

    inner: Any = StateGraph(State, output_schema=Found)
    for name in ("left", "right", "meet"):
        inner.add_node(name, asks(name[0]))
    for before, after in ((START, "left"), (START, "right"), ("left", "meet"), ("right", "meet"), ("meet", END)):
        inner.add_edge(before, after)

    def fan(state: State) -> list[Send]:
        return [Send("each", {"question": state["question"], "name": name}) for name in ("z", "y", "x")]

    graph: Any = StateGraph(State)
    graph.add_node("each", inner.compile())
    graph.add_node("join", node(model, "join", is_async=is_async))
    graph.add_conditional_edges(START, fan, ["each"])
    graph.add_edge("each", "join")
    graph.add_edge("join", END)
    return trace_langgraph(graph.compile())


GRAPHS: dict[str, tuple[Callable[..., Workflow], dict[str, int], str]] = {
    "nodes": (
        parallel_nodes,
        {"a1": 3, "b1": 0, "lookup-a": 0, "lookup-b": 3, "a2": 2, "b2": 1},
        "begin1 begin2 a1 a2 b1 b2 join1 join2",
    ),
    "packets": (
        sent_packets,
        {"lookup-z": 4, "lookup-y": 2, "lookup-x": 0, "zl": 0, "zr": 2},
        "zl zr zm yl yr ym xl xr xm join1 join2",
    ),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("name", list(GRAPHS))
def test_nodes_of_a_graph_that_run_at_once_have_one_order(name: str, is_async: bool) -> None:
    made, ticks, expected = GRAPHS[name]

    def workflow(model: Model) -> Workflow:
        return made(model, is_async=is_async)

    rows = rows_of(workflow, ticks, swapped=False)
    assert nodes_of(rows) == expected
    assert rows_of(workflow, ticks, swapped=True) == rows


def test_graphs_that_run_one_after_the_other_stay_in_their_order() -> None:
    def workflow(model: Model) -> Workflow:
        first, second = (parallel_nodes(model, is_async=False) for _ in range(2))

        def solve(question: str) -> Any:
            found = first(question=question)["found"]
            asked = model.blocking("between " + " ".join(str(one.data) for one in found))
            return second(question=asked)["found"]

        return solve

    rows = rows_of(workflow, {"a1": 2, "b1": 0}, swapped=False)
    graph = "begin1 begin2 a1 a2 b1 b2 join1 join2"
    assert nodes_of(rows) == f"{graph} between {graph}"
    assert rows_of(workflow, {"a1": 2, "b1": 0}, swapped=True) == rows


# -- threads --------------------------------------------------------------------------------------


def in_threads(model: Model, *prompts: str) -> list[str]:
    """Ask in threads of the workflow's own, all at once."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        asked = [pool.submit(copy_context().run, model.blocking, prompt) for prompt in prompts]
        return [one.result() for one in asked]


def test_calls_that_threads_make_at_once_are_in_the_order_of_their_content() -> None:
    def workflow(model: Model) -> Workflow:
        def solve(question: str) -> str:
            begun = model.blocking(f"begin {question}")
            return model.blocking(" ".join(["join", *in_threads(model, f"a {begun}", f"b {begun}", f"c {begun}")]))

        return solve

    ticks = {"a": 3, "b": 2, "c": 4}
    rows = rows_of(workflow, ticks, swapped=False, together="abc")
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    for half in halves:
        assert [half[0].node, half[-1].node] == ["begin", "join"]
        assert {row.node for row in half[1:-1]} == {"a", "b", "c"}
    assert rows_of(workflow, ticks, swapped=True, together="abc") == rows


def test_what_depends_on_a_thread_comes_after_it() -> None:
    def workflow(model: Model) -> Workflow:
        def solve(question: str) -> str:
            told: dict[str, str] = {}
            known = threading.Event()

            def tells() -> None:
                told["it"] = model.blocking(f"tell {question}")
                known.set()

            def hears() -> str:
                known.wait(60)
                return model.blocking(f"hear {told['it']}")

            with ThreadPoolExecutor(3) as pool:
                work = [pool.submit(copy_context().run, one) for one in (hears, tells)]
                late = pool.submit(copy_context().run, model.blocking, f"alone {question}")
                return f"{work[0].result()} {late.result()}"

        return solve

    for swapped in (False, True):
        rows = rows_of(workflow, {"alone": 2, "tell": 0, "hear": 1}, swapped=swapped)
        for half in (rows[:3], rows[3:]):
            nodes = [row.node for row in half]
            assert nodes.index("tell") < nodes.index("hear")


# -- journals -------------------------------------------------------------------------------------


def test_a_journal_without_the_order_gives_calls_as_they_were_answered() -> None:
    model = Model(Clock({"a": 2, "b": 0}, False))

    async def solve(question: str) -> list[str]:
        both: list[Awaitable[str]] = [model.ask(f"a {question}"), model.ask(f"b {question}")]
        return await asyncio.gather(*both)

    evaluator_of(model, solve).evaluate([TRIAL])
    (row,) = model.journal.evaluations()
    earlier = {name: one for name, one in row.model_dump(mode="json").items() if name != "order"}
    before = EvaluationRow.model_validate(earlier)
    assert before.order == ()
    old = Journal.memory()
    batch = old.batch()
    for call in model.journal.calls():
        batch.add_call(call)
    batch.add_evaluation(before)
    batch.commit()

    def nodes(journal: Journal) -> list[str]:
        (rollout,) = recorded_rollouts(journal).values()
        return [call.context["node"] for call in rollout.task.values()]

    assert nodes(model.journal) == ["a", "b"]
    assert nodes(old) == ["b", "a"]
