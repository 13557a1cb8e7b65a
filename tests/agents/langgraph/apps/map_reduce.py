"""Map and reduce with Send: one run of a node for each subject; prompts in chat templates.

The router hands over what it read, so a run of `joke` comes from who wrote the channel that the router read.
"""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from tests.agents.langgraph.apps.models import model

JOKE = ChatPromptTemplate.from_messages(
    [("system", "You are a comedian who knows a lot about {subject}."), ("human", "One joke about {subject}, please.")]
)
BEST = ChatPromptTemplate.from_messages(
    [
        ("system", "You choose the joke that suits the topic {topic} best."),
        ("human", "{jokes}"),
    ]
)


class State(TypedDict):
    topic: str
    subjects: list[str]
    jokes: Annotated[list[str], operator.add]
    best: str


class JokeState(TypedDict):
    subject: str


def subjects(state: State) -> dict[str, Any]:
    return {"subjects": [f"{state['topic']} {kind}" for kind in ("cats", "dogs", "owls")]}


def hand_out(state: State) -> list[Send]:
    return [Send("joke", {"subject": subject}) for subject in state["subjects"]]


def joke(state: JokeState) -> dict[str, Any]:
    reply = model.invoke(JOKE.invoke({"subject": state["subject"]}))
    return {"jokes": [reply.content]}


def best(state: State) -> dict[str, Any]:
    chain = BEST | model | StrOutputParser()
    return {"best": chain.invoke({"topic": state["topic"], "jokes": "\n".join(state["jokes"])})}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node("subjects", subjects)
    builder.add_node("joke", joke)
    builder.add_node("best", best)
    builder.add_edge(START, "subjects")
    builder.add_conditional_edges("subjects", hand_out, ["joke"])
    builder.add_edge("joke", "best")
    builder.add_edge("best", END)
    return builder.compile()


PARALLEL = True
INPUT = {"topic": "lazy"}
EDGES = {
    ("__start__", "subjects", "topic"),
    ("subjects", "joke", "subjects"),
    ("joke", "best", "jokes"),
    ("__start__", "best", "topic"),
    ("__start__", "__end__", "topic"),
    ("subjects", "__end__", "subjects"),
    ("joke", "__end__", "jokes"),
    ("best", "__end__", "best"),
}
PROMPTS = {
    ("joke", "You are a comedian who knows a lot about {subject}."),
    ("joke", "One joke about {subject}, please."),
    ("best", "You choose the joke that suits the topic {topic} best."),
}
OTHER = {"{jokes}", "{state['topic']} {kind}"}
