"""A conversation in MessagesState; a bound model with instructions and a temperature."""

from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from tests.agents.langgraph.apps.models import model

terse = model.bind(instructions="You are terse and kind.", temperature=0.2)


class State(MessagesState):
    summary: str


def chat(state: State) -> dict[str, Any]:
    return {"messages": [terse.invoke(state["messages"])]}


def summarize(state: State) -> dict[str, Any]:
    history = state["messages"]
    prompt = [
        SystemMessage("Summarize the conversation for a busy reader."),
        *history,
        HumanMessage("Now, the summary."),
    ]
    return {"summary": model.invoke(prompt).text}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(chat)
    builder.add_node(summarize)
    builder.add_edge(START, "chat")
    builder.add_edge("chat", "summarize")
    builder.add_edge("summarize", END)
    return builder.compile()


INPUT = {"messages": [("user", "How long does bread keep")]}
EDGES = {
    ("__start__", "chat", "messages"),
    ("__start__", "summarize", "messages"),
    ("chat", "summarize", "messages"),
    ("__start__", "__end__", "messages"),
    ("chat", "__end__", "messages"),
    ("summarize", "__end__", "summary"),
}
PROMPTS = {
    ("chat", "You are terse and kind."),
    ("summarize", "Summarize the conversation for a busy reader."),
    ("summarize", "Now, the summary."),
}
