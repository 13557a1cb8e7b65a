"""A loop with a limit, a reducer of one's own, and prompts given by functools.partial."""

from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


def longest(old: str, new: str) -> str:
    return max(old, new, key=len)


class State(TypedDict):
    topic: str
    draft: str
    best: Annotated[str, longest]
    rounds: int


def improve(state: State, instruction: str) -> dict[str, Any]:
    rounds = state["rounds"]
    text = state["topic"] if rounds == 0 else state["draft"]
    reply = model.invoke([("system", instruction), ("human", text)])
    return {"draft": reply.content, "best": f"{rounds} {reply.content}", "rounds": rounds + 1}


def judge(instruction: str, state: State) -> dict[str, Any]:
    reply = model.invoke([("system", instruction), ("human", state["best"])])
    return {"best": str(reply.content) + " judged"}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node("improve", partial(improve, instruction="Make the slogan catchier than before."))
    builder.add_node("judge", partial(judge, "Judge the best slogan so far."), input_schema=State)
    builder.add_edge(START, "improve")
    builder.add_edge("improve", "judge")
    builder.add_conditional_edges("judge", lambda state: "improve" if state["rounds"] < 3 else END, ["improve", END])
    return builder.compile()


INPUT = {"topic": "umbrellas", "rounds": 0}
EDGES = {
    ("__start__", "improve", "rounds"),
    ("improve", "improve", "rounds"),
    ("__start__", "improve", "topic"),
    ("improve", "improve", "draft"),
    ("improve", "judge", "best"),
    ("judge", "judge", "best"),
    ("__start__", "__end__", "topic"),
    ("improve", "__end__", "draft"),
    ("improve", "__end__", "best"),
    ("judge", "__end__", "best"),
    ("improve", "__end__", "rounds"),
}
PROMPTS = {
    ("improve", "Make the slogan catchier than before."),
    ("judge", "Judge the best slogan so far."),
}
