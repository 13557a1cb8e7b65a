"""Prompts in the ways that Python has of writing text: dedent, percent, nested functions, super(), match, braces.

What an f-string fills in may have an effect: its pieces are worked out once each, from left to right.
"""

import textwrap
from itertools import pairwise
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


class State(TypedDict, total=False):
    essay: str
    length: float
    grade: str
    hint: str
    tone: str
    advice: str
    points: list[str]
    contrast: str


def measure(state: State) -> dict[str, Any]:
    """Measure the essay; this text is documentation and no prompt."""
    return {"length": len(state["essay"]) / 7}


def grade(state: State) -> dict[str, Any]:
    length = state["length"]
    system = textwrap.dedent(
        f"""
        Grade the essay in JSON such as {{"grade": 1}}.
        Its length is {length:.1f} lines.
        """
    ).strip()
    user = textwrap.dedent("""\
        Now read the essay
        and grade it:
    """)
    return {"grade": model.invoke([("system", system), ("human", user + state["essay"])]).content}


def hint(state: State) -> dict[str, Any]:
    def ask(kind: str) -> str:
        text = "Give a hint about %s in this essay." % kind  # noqa: UP031
        return str(model.invoke([("system", text), ("human", state["essay"])]).content)

    return {"hint": " ".join(ask(kind) for kind in ("style", "order"))}


def tone(state: State) -> dict[str, Any]:
    match state["length"]:
        case float() as length if length > 100:
            system = "Say that the essay is far too long."
        case _:
            system = "Say that the essay could be longer."
    system += " Stay kind." if (words := state["essay"].split()) else ""
    return {"tone": model.invoke([("system", system), ("human", words[0])]).content}


class Advisor:
    def __init__(self) -> None:
        self.__secret = "Advise the pupil as a coach would."

    def text(self) -> str:
        return self.__secret

    def __call__(self, state: State) -> dict[str, Any]:
        raise NotImplementedError


class KindAdvisor(Advisor):
    def __call__(self, state: State) -> dict[str, Any]:
        system = super().text()
        return {"advice": model.invoke([("system", system), ("human", f"{state['grade']!r} was the grade.")]).content}


def points(state: State) -> dict[str, Any]:
    asked = [
        [("system", prompt), ("human", state["advice"])]
        for prompt in ("Name one strong point.", "Name one weak point.")
    ]
    return {"points": [str(reply.content) for reply in model.batch(asked)]}  # type: ignore[arg-type]


def contrast(state: State) -> dict[str, Any]:
    words = state["essay"].split()
    system = f"Contrast the word {words.pop()} with {words.pop()}, please."
    human = "Do it for a reader of age <age>.".replace("<age>", "nine")
    return {"contrast": model.invoke([("system", system), ("human", human)]).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(measure)
    builder.add_node(grade)
    builder.add_node(hint)
    builder.add_node(tone)
    builder.add_node("advice", KindAdvisor())
    builder.add_node(points)
    builder.add_node(contrast)
    names = [START, "measure", "grade", "hint", "tone", "advice", "points", "contrast", END]
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    return builder.compile()


PARALLEL = True
INPUT = {"essay": "Snow is white"}
MORE_INPUTS = [{"essay": "Snow is white. " * 60}]
EDGES = {
    ("__start__", "measure", "essay"),
    ("measure", "grade", "length"),
    ("__start__", "grade", "essay"),
    ("__start__", "hint", "essay"),
    ("measure", "tone", "length"),
    ("__start__", "tone", "essay"),
    ("grade", "advice", "grade"),
    ("advice", "points", "advice"),
    ("__start__", "contrast", "essay"),
    ("__start__", "__end__", "essay"),
    ("measure", "__end__", "length"),
    ("grade", "__end__", "grade"),
    ("hint", "__end__", "hint"),
    ("tone", "__end__", "tone"),
    ("advice", "__end__", "advice"),
    ("points", "__end__", "points"),
    ("contrast", "__end__", "contrast"),
}
_INDENT = " " * 8
PROMPTS = {
    (
        "grade",
        f'\n{_INDENT}Grade the essay in JSON such as {{"grade": 1}}.\n'
        f"{_INDENT}Its length is {{length:.1f}} lines.\n{_INDENT}",
    ),
    ("grade", f"{_INDENT}Now read the essay\n{_INDENT}and grade it:\n    "),
    ("hint", "Give a hint about %s in this essay."),
    ("tone", "Say that the essay is far too long."),
    ("tone", "Say that the essay could be longer."),
    ("advice", "Advise the pupil as a coach would."),
    ("advice", "{state['grade']!r} was the grade."),
    ("points", "Name one strong point."),
    ("points", "Name one weak point."),
    ("contrast", "Contrast the word {words.pop()} with {words.pop()}, please."),
    ("contrast", "Do it for a reader of age <age>."),
}
OTHER = {" Stay kind."}
REWORKED = {"advice", "contrast", "grade", "hint"}
