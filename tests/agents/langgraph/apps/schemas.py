"""Schemas for input and output that differ from the state, and one that is private to two nodes."""

from typing import Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


class InputState(TypedDict):
    question: str


class OutputState(TypedDict):
    answer: str


class OverallState(InputState, OutputState):
    plan: str


class PrivateState(TypedDict):
    hints: list[str]


def think(state: InputState) -> dict[str, Any]:
    return {"plan": model.invoke([("system", "Plan how to find the answer."), ("human", state["question"])]).content}


def look_up(state: OverallState) -> PrivateState:
    words = str({**state}["question"]).split()
    return {"hints": [word.upper() for word in words]}


def respond(state: PrivateState) -> OutputState:
    hints = ", ".join(state["hints"])
    return {"answer": str(model.invoke([HumanMessage("Answer from these hints alone: " + hints)]).content)}


def build() -> Any:
    builder = StateGraph(OverallState, input_schema=InputState, output_schema=OutputState)
    builder.add_node("think", think)
    builder.add_node("look_up", look_up)
    builder.add_node("respond", respond)
    builder.add_edge(START, "think")
    builder.add_edge("think", "look_up")
    builder.add_edge("look_up", "respond")
    builder.add_edge("respond", END)
    return builder.compile()


INPUT = {"question": "Who built the tower", "plan": "not an input"}
EDGES = {
    ("__start__", "think", "question"),
    ("__start__", "look_up", "question"),
    ("think", "look_up", "plan"),
    ("look_up", "respond", "hints"),
    ("respond", "__end__", "answer"),
}
PROMPTS = {("think", "Plan how to find the answer."), ("respond", "Answer from these hints alone: ")}
