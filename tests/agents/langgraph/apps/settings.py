"""Prompts in the places where projects keep their settings: a class, a dataclass, an Enum, nested dicts, a Template."""

from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from string import Template
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


class Prompts:
    PLANNER = "You plan trips by train only."
    GUIDE = "You know every museum of the town."


@dataclass(frozen=True)
class Settings:
    cook: str = "You name one dish that locals eat."
    limits: dict[str, int] = field(default_factory=lambda: {"dishes": 1})


class Voice(Enum):
    WARM = "Sound warm, as on a postcard."
    COLD = "Sound cold, as in a report."


SETTINGS = Settings()
CATALOGUE = {"hotels": {"system": "You rank hotels by their quiet.", "top": 3}}
BASE = "You check the trip."
CHECKER = f"{BASE} Reply with a list of risks."
FAREWELL = Template("Say goodbye to someone who leaves for $town today.")


class State(TypedDict, total=False):
    town: str
    plan: str
    sights: str
    food: str
    hotel: str
    risks: str
    postcard: str


def plan(state: State) -> dict[str, Any]:
    return {"plan": model.invoke([("system", Prompts.PLANNER), ("human", state["town"])]).content}


def guide(state: State) -> dict[str, Any]:
    return {"sights": model.invoke([("system", Prompts.GUIDE), ("human", state["town"])]).content}


def cook(state: State) -> dict[str, Any]:
    dishes = SETTINGS.limits["dishes"]
    return {"food": model.invoke([("system", SETTINGS.cook), ("human", f"{dishes} {state['town']}")]).content}


def hotel(state: State) -> dict[str, Any]:
    system = CATALOGUE["hotels"]["system"]
    return {"hotel": model.invoke([("system", str(system)), ("human", state["town"])]).content}


def check(state: State) -> dict[str, Any]:
    return {"risks": model.invoke([("system", CHECKER), ("human", state["plan"])]).content}


def farewell(state: State) -> dict[str, Any]:
    system = Voice.WARM.value
    human = FAREWELL.substitute(town=state["town"])
    return {"postcard": model.invoke([("system", system), ("human", human), ("human", state["risks"])]).content}


def build() -> Any:
    builder = StateGraph(State)
    nodes = {"plan": plan, "guide": guide, "cook": cook, "hotel": hotel, "check": check, "farewell": farewell}
    for name, node in nodes.items():
        builder.add_node(name, node)
    names = [START, *nodes, END]
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    return builder.compile()


INPUT = {"town": "Graz"}
EDGES = {
    ("__start__", "plan", "town"),
    ("__start__", "guide", "town"),
    ("__start__", "cook", "town"),
    ("__start__", "hotel", "town"),
    ("plan", "check", "plan"),
    ("__start__", "farewell", "town"),
    ("check", "farewell", "risks"),
    ("__start__", "__end__", "town"),
    ("plan", "__end__", "plan"),
    ("guide", "__end__", "sights"),
    ("cook", "__end__", "food"),
    ("hotel", "__end__", "hotel"),
    ("check", "__end__", "risks"),
    ("farewell", "__end__", "postcard"),
}
PROMPTS = {
    ("plan", Prompts.PLANNER),
    ("guide", Prompts.GUIDE),
    ("cook", "You name one dish that locals eat."),
    ("hotel", "You rank hotels by their quiet."),
    ("check", "You check the trip. Reply with a list of risks."),
}
EITHER = {
    ("farewell", "Sound warm, as on a postcard."),
    ("farewell", "Say goodbye to someone who leaves for $town today."),
}
OTHER = {"Sound cold, as in a report.", "{dishes} {state['town']}"}
