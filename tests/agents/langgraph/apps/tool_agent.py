"""An agent with three tools and a tool node written by hand; one tool asks the model itself."""

from typing import Any, Literal

from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from tests.agents.langgraph.apps.models import model

SYSTEM_PROMPT = "You are a helpful assistant that may call tools."


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


@tool
def shorten(text: str) -> str:
    """Shorten a text."""
    return str(model.invoke([("system", "Shorten the text to five words."), ("human", text)]).content)


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


tools = [multiply, shorten, count_letters]
tools_by_name = {one.name: one for one in tools}
model_with_tools = model.bind_tools(tools)


def agent(state: MessagesState) -> dict[str, Any]:
    return {"messages": [model_with_tools.invoke([SystemMessage(SYSTEM_PROMPT), *state["messages"]])]}


def tool_node(state: MessagesState) -> dict[str, Any]:
    calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
    return {"messages": [tools_by_name[call["name"]].invoke(call) for call in calls]}


def should_continue(state: MessagesState) -> Literal["tools", "__end__"]:
    return "tools" if state["messages"][-1].tool_calls else END  # type: ignore[union-attr, return-value]


def build() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", tool_node)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", should_continue, ["tools", END])
    builder.add_edge("tools", "agent")
    return builder.compile()


INPUT = {"messages": [("user", "How many letters are in owl")]}
EDGES = {
    ("__start__", "agent", "messages"),
    ("agent", "agent", "messages"),
    ("tools", "agent", "messages"),
    ("__start__", "tools", "messages"),
    ("agent", "tools", "messages"),
    ("tools", "tools", "messages"),
    ("__start__", "__end__", "messages"),
    ("agent", "__end__", "messages"),
    ("tools", "__end__", "messages"),
}
PROMPTS = {("agent", SYSTEM_PROMPT), ("tools", "Shorten the text to five words.")}
OTHER = {"Multiply two whole numbers.", "Shorten a text.", "Count the letters of a word."}
