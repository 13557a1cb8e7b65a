"""A person approves the draft: interrupt, then Command(resume=…), over a checkpointer."""

from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from tests.agents.langgraph.apps.models import model

DRAFT_PROMPT = "Draft an e-mail of two sentences."


class State(TypedDict, total=False):
    request: str
    draft: str
    decision: str
    sent: str


def draft(state: State) -> dict[str, Any]:
    return {"draft": model.invoke([("system", DRAFT_PROMPT), ("human", state["request"])]).content}


def approve(state: State) -> dict[str, Any]:
    said = interrupt({"draft": state["draft"], "ask": "Send it?"})
    reply = model.invoke([("system", "Sum up the reviewer's wish in three words."), ("human", said)])
    return {"decision": reply.content}


def send(state: State) -> dict[str, Any]:
    messages = [("system", "Make the change that the reviewer wants."), ("human", state["draft"])]
    return {"sent": model.invoke([*messages, ("human", state["decision"])]).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(draft)
    builder.add_node(approve)
    builder.add_node(send)
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "approve")
    builder.add_edge("approve", "send")
    builder.add_edge("send", END)
    return builder.compile(checkpointer=InMemorySaver())


INPUT = {"request": "Tell Ada that the meeting is moved"}
CONFIG = {"configurable": {"thread_id": "1"}}
RESUME: list[Any] = [Command(resume="yes, but shorter")]
EDGES = {
    ("__start__", "draft", "request"),
    ("draft", "approve", "draft"),
    ("draft", "send", "draft"),
    ("approve", "send", "decision"),
    ("__start__", "__end__", "request"),
    ("draft", "__end__", "draft"),
    ("approve", "__end__", "decision"),
    ("send", "__end__", "sent"),
}
PROMPTS = {
    ("draft", DRAFT_PROMPT),
    ("approve", "Sum up the reviewer's wish in three words."),
    ("send", "Make the change that the reviewer wants."),
}
OTHER = {"Send it?"}
REWORKED = {"approve"}
