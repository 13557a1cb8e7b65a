"""Nodes that write and choose the next node with Command; a prompt in a default argument."""

from typing import Any, Literal, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command

from tests.agents.langgraph.apps.models import model


class State(TypedDict, total=False):
    request: str
    reason: str
    letter: str
    tries: int


def triage(state: State) -> Command[Literal["refund", "explain"]]:
    reply = model.invoke([("system", "Say in five words why the customer writes."), ("human", state["request"])])
    goto: Literal["refund", "explain"] = "refund" if "refund" in state["request"] else "explain"
    return Command(update={"reason": reply.content, "tries": 0}, goto=goto)


def refund(
    state: State, *, instruction: str = "Write a kind letter that grants the refund."
) -> Command[Literal["refund", "__end__"]]:
    reply = model.invoke([("system", instruction), ("human", state["reason"]), ("human", state["request"])])
    tries = state["tries"] + 1
    return Command(update={"letter": reply.content, "tries": tries}, goto="refund" if tries < 2 else "__end__")


def explain(state: State) -> dict[str, Any]:
    reply = model.invoke([("system", "Explain our terms without legal words."), ("human", state["reason"])])
    return {"letter": reply.content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(triage)
    builder.add_node(refund)
    builder.add_node(explain)
    builder.add_edge(START, "triage")
    return builder.compile()


INPUT = {"request": "I want a refund for the blue lamp"}
MORE_INPUTS = [{"request": "Why was my parcel late"}]
EDGES = {
    ("__start__", "triage", "request"),
    ("triage", "refund", "reason"),
    ("__start__", "refund", "request"),
    ("triage", "refund", "tries"),
    ("refund", "refund", "tries"),
    ("__start__", "__end__", "request"),
    ("triage", "__end__", "reason"),
    ("refund", "__end__", "letter"),
    ("refund", "__end__", "tries"),
}
PROMPTS = {
    ("triage", "Say in five words why the customer writes."),
    ("refund", "Write a kind letter that grants the refund."),
    ("explain", "Explain our terms without legal words."),
}
