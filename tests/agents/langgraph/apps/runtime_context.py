"""Runtime context: the user's name in an f-string, and a whole prompt that comes from the context (computed)."""

from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from tests.agents.langgraph.apps.models import model


@dataclass
class Context:
    user: str
    house_rules: str = "Never speak of prices."


class State(TypedDict, total=False):
    question: str
    answer: str
    checked: str


def answer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    user = runtime.context.user
    reply = model.invoke([("system", f"You talk with {user}, who is in a hurry."), ("human", state["question"])])
    return {"answer": reply.content}


def check(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    messages = [
        ("system", runtime.context.house_rules),
        ("human", "Does this obey the rules?"),
        ("human", state["answer"]),
    ]
    return {"checked": model.invoke(messages).content}


def build() -> Any:
    builder = StateGraph(State, context_schema=Context)
    builder.add_node(answer)
    builder.add_node(check)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "check")
    builder.add_edge("check", END)
    return builder.compile()


INPUT = {"question": "Is it open on Sunday"}
CONTEXT = Context(user="Ada")
EDGES = {
    ("__start__", "answer", "question"),
    ("answer", "check", "answer"),
    ("__start__", "__end__", "question"),
    ("answer", "__end__", "answer"),
    ("check", "__end__", "checked"),
}
PROMPTS = {
    ("answer", "You talk with {user}, who is in a hurry."),
    ("check", "Does this obey the rules?"),
}
COMPUTED = {("check", "Never speak of prices.")}
