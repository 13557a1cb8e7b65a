"""A compiled subgraph as a node, with keys that it shares with its parent and one of its own.

The subgraph is transparent: what goes in and comes out unchanged keeps its first writer.
"""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

PLAN = "Make an outline of three points."
REMARK = "Name the weakest sentence of the draft."


class State(TypedDict, total=False):
    topic: str
    outline: str
    draft: str
    final: str


class TeamState(TypedDict, total=False):
    topic: str
    outline: str
    draft: str
    remarks: str


def plan(state: State) -> dict[str, Any]:
    return {"outline": model.invoke([("system", PLAN), ("human", state["topic"])]).content}


def write(state: TeamState) -> dict[str, Any]:
    topic = state.get("topic", "")
    reply = model.invoke([("system", f"Write a draft on {topic} along the outline."), ("human", state["outline"])])
    return {"draft": reply.content}


def remark(state: TeamState) -> dict[str, Any]:
    return {"remarks": model.invoke([("system", REMARK), ("human", state["draft"])]).content}


def revise(state: TeamState) -> dict[str, Any]:
    messages = [("system", "Revise the draft by the remarks."), ("human", state["draft"]), ("human", state["remarks"])]
    return {"draft": model.invoke(messages).content}


def polish(state: State) -> dict[str, Any]:
    reply = model.invoke([("system", "Polish the language and change no fact."), ("human", state["draft"])])
    return {"final": reply.content}


def build() -> Any:
    team = StateGraph(TeamState)
    team.add_node(write)
    team.add_node(remark)
    team.add_node(revise)
    team.add_edge(START, "write")
    team.add_edge("write", "remark")
    team.add_edge("remark", "revise")
    team.add_edge("revise", END)

    builder = StateGraph(State)
    builder.add_node(plan)
    builder.add_node("team", team.compile())
    builder.add_node(polish)
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "team")
    builder.add_edge("team", "polish")
    builder.add_edge("polish", END)
    return builder.compile()


INPUT = {"topic": "tides"}
EDGES = {
    ("__start__", "plan", "topic"),
    ("__start__", "team/write", "topic"),
    ("plan", "team/write", "outline"),
    ("team/write", "team/remark", "draft"),
    ("team/write", "team/revise", "draft"),
    ("team/remark", "team/revise", "remarks"),
    ("team/revise", "polish", "draft"),
    ("__start__", "__end__", "topic"),
    ("plan", "__end__", "outline"),
    ("team/revise", "__end__", "draft"),
    ("polish", "__end__", "final"),
}
PROMPTS = {
    ("plan", PLAN),
    ("team/write", "Write a draft on {topic} along the outline."),
    ("team/remark", REMARK),
    ("team/revise", "Revise the draft by the remarks."),
    ("polish", "Polish the language and change no fact."),
}
