"""Retrieve, answer, check: three plain nodes in a row; prompts in a global, in the functions and in f-strings."""

from typing import Any, TypedDict

from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

PASSAGES = {
    "paris": "Paris is the capital of France.",
    "rhine": "The Rhine flows into the North Sea.",
}
ANSWER_PROMPT = "You answer questions from the given passages only."


class State(TypedDict):
    question: str
    docs: list[str]
    answer: str
    verdict: str


def retrieve(state: State) -> dict[str, Any]:
    words = state["question"].lower().split()
    return {"docs": [text for key, text in PASSAGES.items() if key in words]}


def answer(state: State) -> dict[str, Any]:
    passages = "\n".join(state["docs"])
    question = state["question"]
    reply = model.invoke(
        [SystemMessage(ANSWER_PROMPT), HumanMessage(f"Passages:\n{passages}\n\nNow the question: {question}")]
    )
    return {"answer": reply.content}


def check(state: State) -> dict[str, Any]:
    messages = [
        ("system", "Say whether the answer is supported by the passages."),
        ("human", f"Answer given: {state['answer']}\nFirst passage: {state['docs'][0]}"),
    ]
    return {"verdict": model.invoke(messages).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(retrieve)
    builder.add_node(answer)
    builder.add_node(check)
    builder.add_edge(START, "retrieve")
    builder.add_edge("retrieve", "answer")
    builder.add_edge("answer", "check")
    builder.add_edge("check", END)
    return builder.compile()


INPUT = {"question": "Which country has paris as its capital"}
EDGES = {
    ("__start__", "retrieve", "question"),
    ("retrieve", "answer", "docs"),
    ("__start__", "answer", "question"),
    ("answer", "check", "answer"),
    ("retrieve", "check", "docs"),
    ("__start__", "__end__", "question"),
    ("retrieve", "__end__", "docs"),
    ("answer", "__end__", "answer"),
    ("check", "__end__", "verdict"),
}
PROMPTS = {
    ("answer", ANSWER_PROMPT),
    ("answer", "Passages:\n{passages}\n\nNow the question: {question}"),
    ("check", "Say whether the answer is supported by the passages."),
    ("check", "Answer given: {state['answer']}\nFirst passage: {state['docs'][0]}"),
}
OTHER = set(PASSAGES.values())
