"""One function as two nodes and one compiled subgraph as two nodes, one of them two levels deep.

A text that several nodes read from one variable is one parameter: setting it changes them all.
"""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

STEP = "Take the thought one step further."


class State(TypedDict):
    thought: str


def step(state: State) -> dict[str, Any]:
    return {"thought": model.invoke([("system", STEP), ("human", state["thought"])]).content}


def doubt(state: State) -> dict[str, Any]:
    return {"thought": model.invoke([("system", "Doubt the thought, politely."), ("human", state["thought"])]).content}


def build() -> Any:
    inner = StateGraph(State)
    inner.add_node(step)
    inner.add_node(doubt)
    inner.add_edge(START, "step")
    inner.add_edge("step", "doubt")
    shared = inner.compile()

    middle = StateGraph(State)
    middle.add_node("deep", shared)
    middle.add_edge(START, "deep")

    builder = StateGraph(State)
    builder.add_node("first", step)
    builder.add_node("second", step)
    builder.add_node("left", shared)
    builder.add_node("right", middle.compile())
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", "left")
    builder.add_edge("left", "right")
    builder.add_edge("right", END)
    return builder.compile()


INPUT = {"thought": "snow is silent"}
EDGES = {
    ("__start__", "first", "thought"),
    ("first", "second", "thought"),
    ("second", "left/step", "thought"),
    ("left/step", "left/doubt", "thought"),
    ("left/doubt", "right/deep/step", "thought"),
    ("right/deep/step", "right/deep/doubt", "thought"),
    ("right/deep/doubt", "__end__", "thought"),
}
PROMPTS = {
    ("first", STEP),
    ("second", STEP),
    ("left/step", STEP),
    ("left/doubt", "Doubt the thought, politely."),
    ("right/deep/step", STEP),
    ("right/deep/doubt", "Doubt the thought, politely."),
}
