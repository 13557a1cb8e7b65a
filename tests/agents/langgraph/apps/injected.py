"""Nodes that are given the config, the stream writer and the store."""

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import StreamWriter

from tests.agents.langgraph.apps.models import model

RECALL = "Recall what we know of the visitor."


class State(TypedDict, total=False):
    visitor: str
    memory: str
    welcome: str


def remember(state: State, *, store: BaseStore) -> None:
    store.put(("visitors",), state["visitor"], {"note": f"{state['visitor']} likes maps"})


def recall(state: State, config: RunnableConfig, *, store: BaseStore, writer: StreamWriter) -> dict[str, Any]:
    item = store.get(("visitors",), state["visitor"])
    writer({"progress": "recalling"})
    name = config.get("configurable", {}).get("desk", "no desk")
    reply = model.invoke([("system", RECALL), ("human", f"{name}: {item.value['note'] if item else ''}")], config)
    return {"memory": reply.content}


def welcome(state: State) -> dict[str, Any]:
    writer = get_stream_writer()
    words = []
    for chunk in model.stream([("system", "Welcome the visitor warmly."), ("human", state["memory"])]):
        writer({"length": len(str(chunk.content))})
        words.append(str(chunk.content))
    return {"welcome": "".join(words)}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(remember)
    builder.add_node(recall)
    builder.add_node(welcome)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", "recall")
    builder.add_edge("recall", "welcome")
    builder.add_edge("welcome", END)
    return builder.compile(store=InMemoryStore())


INPUT = {"visitor": "Cleo"}
CONFIG = {"configurable": {"desk": "north desk"}}
EDGES = {
    ("__start__", "remember", "visitor"),
    ("__start__", "recall", "visitor"),
    ("recall", "welcome", "memory"),
    ("__start__", "__end__", "visitor"),
    ("recall", "__end__", "memory"),
    ("welcome", "__end__", "welcome"),
}
PROMPTS = {("recall", RECALL), ("welcome", "Welcome the visitor warmly.")}
OTHER = {"{state['visitor']} likes maps", "recalling", "no desk", "{name}: {item.value['note'] if item else ''}"}
REWORKED = {"recall"}
