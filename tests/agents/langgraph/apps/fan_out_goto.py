"""Send packets from a node's own Command, with something from far away in each packet.

The node `split` makes the packets in its body, so it is the writer of all that is in them.
"""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from tests.agents.langgraph.apps.models import model

TRANSLATE = "Translate the sentence into {language}, word by word."


class State(TypedDict, total=False):
    text: str
    language: str
    parts: Annotated[list[tuple[int, str]], operator.add]
    result: str


class Part(TypedDict):
    place: int
    sentence: str
    language: str


def split(state: State) -> Command[Literal["translate"]]:
    sentences = state["text"].split(". ")
    return Command(
        goto=[
            Send("translate", {"place": place, "sentence": sentence, "language": state["language"]})
            for place, sentence in enumerate(sentences)
        ]
    )


def translate(part: Part) -> dict[str, Any]:
    system = TRANSLATE.format(language=part["language"])
    reply = model.invoke([("system", system), ("human", part["sentence"])])
    return {"parts": [(part["place"], reply.content)]}


def join(state: State) -> dict[str, Any]:
    return {"result": " / ".join(text for _, text in sorted(state["parts"]))}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(split)
    builder.add_node(translate)  # type: ignore[arg-type]
    builder.add_node(join, defer=True)
    builder.add_edge(START, "split")
    builder.add_edge("translate", "join")
    builder.add_edge("join", END)
    return builder.compile()


PARALLEL = True
INPUT = {"text": "The dog sleeps. The cat eats. The owl flies.", "language": "Latin"}
EDGES = {
    ("__start__", "split", "text"),
    ("__start__", "split", "language"),
    ("split", "translate", "place"),
    ("split", "translate", "sentence"),
    ("split", "translate", "language"),
    ("translate", "join", "parts"),
    ("__start__", "__end__", "text"),
    ("__start__", "__end__", "language"),
    ("translate", "__end__", "parts"),
    ("join", "__end__", "result"),
}
PROMPTS = {("translate", TRANSLATE)}
