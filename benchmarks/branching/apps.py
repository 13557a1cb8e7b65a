"""Apps with branches and dead branches: every node asks a calculator with a prompt of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph

_NUMBER = re.compile(r"-?\d+")


class Calculator(BaseChatModel):
    """A chat model that does what its system message says: "Multiply by 3 and add 2."."""

    @property
    def _llm_type(self) -> str:
        return "calculator"

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        factor, more = (int(one) for one in _NUMBER.findall(str(messages[0].content))[:2])
        number = sum(int(one) for one in _NUMBER.findall(str(messages[1].content)))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(str(factor * number + more)))])


model = Calculator()


class State(TypedDict, total=False):
    """What the nodes read and write."""

    x: int
    a: int
    b: int
    c: int
    d: int
    note: int
    aside: int
    answer: int


class Output(TypedDict):
    """What counts in the end."""

    answer: int


@dataclass(frozen=True)
class Topology:
    """One app.

    Attributes:
        name: Its name.
        build: Compiles it with these prompts, by node.
        live: Nodes whose prompts the answer can depend on.
        dead: Nodes that run for nothing.
    """

    name: str
    build: Callable[[Mapping[str, str]], Any]
    live: tuple[str, ...]
    dead: tuple[str, ...]


def worker(reads: Sequence[str], writes: str, prompt: str) -> Any:
    """Return a node that asks the calculator."""

    def work(state: State) -> dict[str, Any]:
        given = " ".join(str(state[one]) for one in reads)  # type: ignore[literal-required]
        reply = model.invoke([("system", prompt), ("human", given)])
        return {writes: int(str(reply.content))}

    return work


def _fork(prompts: Mapping[str, str]) -> Any:
    """Two branches that join, and two nodes whose work nobody reads."""
    builder = StateGraph(State, output_schema=Output)
    builder.add_node("first", worker(["x"], "a", prompts["first"]))
    builder.add_node("second", worker(["a"], "b", prompts["second"]))
    builder.add_node("side", worker(["x"], "c", prompts["side"]))
    builder.add_node("merge", worker(["b", "c"], "answer", prompts["merge"]))
    builder.add_node("audit", worker(["a"], "note", prompts["audit"]))
    builder.add_node("stats", worker(["c"], "aside", prompts["stats"]))
    builder.add_edge(START, "first")
    builder.add_edge(START, "side")
    builder.add_edge("first", "second")
    builder.add_edge("first", "audit")
    builder.add_edge("side", "stats")
    builder.add_edge(["second", "side"], "merge")
    builder.add_edge("merge", END)
    return builder.compile()


def _routed(prompts: Mapping[str, str]) -> Any:
    """A router sends each input down one of two branches; a side branch is dead."""
    builder = StateGraph(State, output_schema=Output)
    builder.add_node("first", worker(["x"], "a", prompts["first"]))
    builder.add_node("even", worker(["a"], "b", prompts["even"]))
    builder.add_node("odd", worker(["a", "x"], "b", prompts["odd"]))
    builder.add_node("last", worker(["b"], "answer", prompts["last"]))
    builder.add_node("audit", worker(["a"], "note", prompts["audit"]))
    builder.add_edge(START, "first")
    builder.add_conditional_edges("first", lambda state: "odd" if state["x"] % 2 else "even", ["even", "odd"])
    builder.add_edge("first", "audit")
    builder.add_edge("even", "last")
    builder.add_edge("odd", "last")
    builder.add_edge("last", END)
    return builder.compile()


def _nested(prompts: Mapping[str, str]) -> Any:
    """A subgraph with a dead node of its own, beside a branch around it."""
    inner = StateGraph(State)
    inner.add_node("up", worker(["a"], "b", prompts["inner/up"]))
    inner.add_node("down", worker(["b"], "c", prompts["inner/down"]))
    inner.add_node("lost", worker(["b"], "aside", prompts["inner/lost"]))
    inner.add_edge(START, "up")
    inner.add_edge("up", "down")
    inner.add_edge("up", "lost")
    builder = StateGraph(State, output_schema=Output)
    builder.add_node("first", worker(["x"], "a", prompts["first"]))
    builder.add_node("inner", inner.compile())
    builder.add_node("around", worker(["a"], "d", prompts["around"]))
    builder.add_node("merge", worker(["c", "d"], "answer", prompts["merge"]))
    builder.add_edge(START, "first")
    builder.add_edge("first", "inner")
    builder.add_edge("first", "around")
    builder.add_edge(["inner", "around"], "merge")
    builder.add_edge("merge", END)
    return builder.compile()


TOPOLOGIES = (
    Topology("fork", _fork, ("first", "second", "side", "merge"), ("audit", "stats")),
    Topology("routed", _routed, ("first", "even", "odd", "last"), ("audit",)),
    Topology("nested", _nested, ("first", "inner/up", "inner/down", "around", "merge"), ("inner/lost",)),
)
