"""Answers questions about the island of Tarrow in three steps: retrieve a passage, answer from it, check the answer."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph

ANSWER = "Read the passage and answer the question."
UNKNOWN = "I do not know."
TRIES = 2

COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by can did do does for from has have how in is it its long many much of on or out "
        "so than that the their there they this to was were what when where which who whose whom why with",
    )
)


class State(TypedDict, total=False):
    """What the nodes read and write."""

    question: str
    passage: str
    answer: str
    tries: int
    grounded: bool


def words(text: str) -> list[str]:
    """Split a text into lower-case words without the commonest ones."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in COMMON]


def nearest(passage: str, question: str) -> str:
    """Return the sentence of a passage that shares the most words with a question."""
    asked = set(words(question))
    return max(re.split(r"(?<=\.)\s+", passage), key=lambda sentence: len(asked & set(words(sentence))))


class Collection:
    """A few passages, ranked by the rare words that they share with a question."""

    def __init__(self, path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.passages: list[str] = [row["text"] for row in rows]
        self.words = [set(words(f"{row['title']} {row['text']}")) for row in rows]
        self.counts = Counter(word for found in self.words for word in found)

    def best(self, question: str) -> str:
        """Return the passage that fits best."""
        asked = sorted(set(words(question)) & self.counts.keys())
        weights = {word: math.log(len(self.passages) / self.counts[word]) for word in asked}
        scores = [sum(weights[word] for word in weights if word in found) for found in self.words]
        return self.passages[scores.index(max(scores))]


def build(model: BaseChatModel, documents: Path = Path(__file__).parent / "data" / "documents.jsonl") -> Any:
    """Compile the app for a chat model."""
    collection = Collection(documents)

    def retrieve(state: State) -> State:
        return {"passage": collection.best(state["question"]), "tries": 0}

    def answer(state: State) -> State:
        messages = [
            ("system", ANSWER),
            ("human", f"Passage: {state['passage']}\n\nQuestion: {state['question']}"),
        ]
        return {"answer": model.invoke(messages).text.strip(), "tries": state["tries"] + 1}

    def check(state: State) -> State:
        """Take an answer if a third of what it adds to the question stands in the passage; else try one sentence."""
        new = set(words(state["answer"])) - set(words(state["question"]))
        if new and len(new & set(words(state["passage"]))) >= len(new) / 3:
            return {"grounded": True}
        if state["tries"] < TRIES:
            return {"grounded": False, "passage": nearest(state["passage"], state["question"])}
        return {"grounded": False, "answer": UNKNOWN}

    def follows(state: State) -> str:
        return END if state["grounded"] or state["tries"] == TRIES else "answer"

    graph = StateGraph(State)
    graph.add_node("retrieve", retrieve)
    graph.add_node("answer", answer)
    graph.add_node("check", check)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "answer")
    graph.add_edge("answer", "check")
    graph.add_conditional_edges("check", follows, ["answer", END])
    return graph.compile()
