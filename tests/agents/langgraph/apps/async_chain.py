"""Async nodes made by factories (their prompts are in closures), one of which streams from the model."""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

POET = "Write one short verse about the topic."


class State(TypedDict, total=False):
    topic: str
    verse: str
    title: str


def make_poet(instruction: str) -> Any:
    async def write(state: State) -> dict[str, Any]:
        reply = await model.ainvoke([("system", instruction), ("human", state["topic"])])
        return {"verse": reply.content}

    return write


def make_titler(instruction: str, limit: int) -> Any:
    async def entitle(state: State) -> dict[str, Any]:
        words = []
        async for chunk in model.astream(
            [("system", instruction), ("human", f"At most {limit} words for: {state['verse']}")]
        ):
            words.append(str(chunk.content))
        return {"title": "".join(words)}

    return entitle


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node("poet", make_poet(POET))
    builder.add_node("titler", make_titler("Give the verse a title that a child would like.", limit=4))
    builder.add_edge(START, "poet")
    builder.add_edge("poet", "titler")
    builder.add_edge("titler", END)
    return builder.compile()


SYNC = False
INPUT = {"topic": "rain"}
EDGES = {
    ("__start__", "poet", "topic"),
    ("poet", "titler", "verse"),
    ("__start__", "__end__", "topic"),
    ("poet", "__end__", "verse"),
    ("titler", "__end__", "title"),
}
PROMPTS = {
    ("poet", POET),
    ("titler", "Give the verse a title that a child would like."),
    ("titler", "At most {limit} words for: {state['verse']}"),
}
