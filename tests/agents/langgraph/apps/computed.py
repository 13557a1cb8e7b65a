"""Prompts from elsewhere: a module of prompts, helpers, lists, and one that is read from a file at call time."""

from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps import house
from tests.agents.langgraph.apps.house import ask
from tests.agents.langgraph.apps.models import model

STEP_PROMPTS = ["First, name the main problem.", "Then, name the best remedy."]

HABITS = ["Use short and simple words.", "Leave a line between two thoughts."]


class State(TypedDict, total=False):
    complaint: str
    steps: list[str]
    polite: str
    styled: str
    letter: str


def _greeting(text: str) -> list[tuple[str, str]]:
    return [("system", "Greet the reader by name."), ("human", text)]


def analyse(state: State) -> dict[str, Any]:
    return {"steps": [model.invoke([("system", step), ("human", state["complaint"])]).content for step in STEP_PROMPTS]}


def soften(state: State) -> dict[str, Any]:
    return {"polite": model.invoke([("system", house.TONE), ("human", state["steps"][-1])]).content}


def restyle(state: State) -> dict[str, Any]:
    style = Path(__file__).with_name("style.txt").read_text()
    return {"styled": model.invoke([("system", style), ("human", state["polite"])]).content}


def letter(state: State) -> dict[str, Any]:
    text = ask(state["styled"])
    habits = [("system", habit) for habit in HABITS]
    return {"letter": model.invoke([*habits, *_greeting(text)]).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(analyse)
    builder.add_node(soften)
    builder.add_node(restyle)
    builder.add_node(letter)
    builder.add_edge(START, "analyse")
    builder.add_edge("analyse", "soften")
    builder.add_edge("soften", "restyle")
    builder.add_edge("restyle", "letter")
    builder.add_edge("letter", END)
    return builder.compile()


INPUT = {"complaint": "The lift is broken again"}
EDGES = {
    ("__start__", "analyse", "complaint"),
    ("analyse", "soften", "steps"),
    ("soften", "restyle", "polite"),
    ("restyle", "letter", "styled"),
    ("__start__", "__end__", "complaint"),
    ("analyse", "__end__", "steps"),
    ("soften", "__end__", "polite"),
    ("restyle", "__end__", "styled"),
    ("letter", "__end__", "letter"),
}
PROMPTS = {
    ("analyse", STEP_PROMPTS[0]),
    ("analyse", STEP_PROMPTS[1]),
    ("soften", house.TONE),
    ("letter", "Obey the rules of the house."),
    ("letter", "Greet the reader by name."),
}
COMPUTED = {("restyle", "Every sentence begins with a verb.")}
EITHER = {("letter", habit) for habit in HABITS}
