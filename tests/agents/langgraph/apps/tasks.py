"""Tasks of the functional API inside a node: their arguments are plain values, their prompts belong to the node."""

from typing import Any, TypedDict

from langgraph.func import task
from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

GRADE = "Grade the essay from one to six."


class State(TypedDict, total=False):
    essays: list[str]
    grades: list[str]
    summary: str


@task
def grade_one(essay: str) -> str:
    return str(model.invoke([("system", GRADE), ("human", essay)]).content)


def grade(state: State) -> dict[str, Any]:
    futures = [grade_one(essay) for essay in state["essays"]]
    return {"grades": [future.result() for future in futures]}


def sum_up(state: State) -> dict[str, Any]:
    messages = [("system", "Sum the grades up for the headmaster."), ("human", " ".join(state["grades"]))]
    return {"summary": model.invoke(messages).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(grade)
    builder.add_node(sum_up)
    builder.add_edge(START, "grade")
    builder.add_edge("grade", "sum_up")
    builder.add_edge("sum_up", END)
    return builder.compile()


PARALLEL = True
INPUT = {"essays": ["My dog", "My holidays"]}
EDGES = {
    ("__start__", "grade", "essays"),
    ("grade", "sum_up", "grades"),
    ("__start__", "__end__", "essays"),
    ("grade", "__end__", "grades"),
    ("sum_up", "__end__", "summary"),
}
PROMPTS = {("grade", GRADE), ("sum_up", "Sum the grades up for the headmaster.")}
