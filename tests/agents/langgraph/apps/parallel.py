"""Parallel branches that join: a lambda, a decorated function and a method of a class as nodes."""

import functools
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


class State(TypedDict):
    idea: str
    pros: str
    cons: str
    costs: str
    log: Annotated[list[str], operator.add]
    verdict: str


def logged(node: Callable[[State], dict[str, Any]]) -> Callable[[State], dict[str, Any]]:
    @functools.wraps(node)
    def wrapper(state: State) -> dict[str, Any]:
        update = node(state)
        return {**update, "log": [f"{node.__name__} is done"]}

    return wrapper


def tagged(label: str) -> Callable[[Callable[[State], dict[str, Any]]], Callable[[State], dict[str, Any]]]:
    def decorate(node: Callable[[State], dict[str, Any]]) -> Callable[[State], dict[str, Any]]:
        @functools.wraps(node)
        def wrapper(state: State) -> dict[str, Any]:
            return {key: f"{label}: {value}" for key, value in node(state).items()}

        return wrapper

    return decorate


@logged
@tagged("against")
def cons(state: State) -> dict[str, Any]:
    return {"cons": model.invoke([("system", "List two reasons against the idea."), ("human", state["idea"])]).content}


class Accountant:
    prompt = "Estimate what the idea costs in a year."

    @classmethod
    def costs(cls, state: State) -> dict[str, Any]:
        return {"costs": model.invoke([("system", cls.prompt), ("human", state["idea"])]).content}

    @staticmethod
    def verdict(state: State) -> dict[str, Any]:
        lines = [state["pros"], state["cons"], state["costs"], *sorted(state["log"])]
        return {
            "verdict": model.invoke([("system", "Decide, and give one reason."), ("human", "\n".join(lines))]).content
        }


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(
        "pros",
        lambda state: {
            "pros": model.invoke([("system", "List two reasons for the idea."), ("human", state["idea"])]).content
        },
    )
    builder.add_node("cons", cons)  # type: ignore[arg-type]
    builder.add_node("costs", Accountant.costs)
    builder.add_node("verdict", Accountant.verdict)
    for branch in ("pros", "cons", "costs"):
        builder.add_edge(START, branch)
    builder.add_edge(["pros", "cons", "costs"], "verdict")
    builder.add_edge("verdict", END)
    return builder.compile()


PARALLEL = True
INPUT = {"idea": "free bicycles"}
EDGES = {
    ("__start__", "pros", "idea"),
    ("__start__", "cons", "idea"),
    ("__start__", "costs", "idea"),
    ("pros", "verdict", "pros"),
    ("cons", "verdict", "cons"),
    ("costs", "verdict", "costs"),
    ("cons", "verdict", "log"),
    ("__start__", "__end__", "idea"),
    ("pros", "__end__", "pros"),
    ("cons", "__end__", "cons"),
    ("costs", "__end__", "costs"),
    ("cons", "__end__", "log"),
    ("verdict", "__end__", "verdict"),
}
PROMPTS = {
    ("pros", "List two reasons for the idea."),
    ("cons", "List two reasons against the idea."),
    ("verdict", "Decide, and give one reason."),
}
EITHER = {("costs", "Estimate what the idea costs in a year.")}
OTHER = {"{node.__name__} is done", "against", "{label}: {value}"}
