"""Two turns of one conversation over a checkpointer: the second turn reads what the first one wrote."""

from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages

from tests.agents.langgraph.apps.models import model

SYSTEM = SystemMessage(content="You remember what the user said before.")


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def call_model(state: State) -> dict[str, Any]:
    return {"messages": model.invoke([SYSTEM, *state["messages"]])}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node("call_model", call_model)
    builder.set_entry_point("call_model")
    builder.set_finish_point("call_model")
    return builder.compile(checkpointer=InMemorySaver())


INPUT = {"messages": [{"role": "user", "content": "My name is Bo"}]}
CONFIG = {"configurable": {"thread_id": "1"}}
RESUME = [{"messages": [{"role": "user", "content": "What is my name"}]}]
EDGES = {
    ("__start__", "call_model", "messages"),
    ("call_model", "call_model", "messages"),
    ("__start__", "__end__", "messages"),
    ("call_model", "__end__", "messages"),
}
PROMPTS = {("call_model", "You remember what the user said before.")}
