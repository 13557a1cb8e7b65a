"""What the page about LangGraph says cannot be found: it is left as it is, and reported once a model has got it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from langgraph.graph import START, StateGraph

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import Feedback, TextSpec, applying, propagate
from tests.agents.langgraph.apps.models import model, recording
from tests.agents.langgraph.small import State, chain

SET = "Text number one is for the model."
IN_CLASS = "Text number seven is for the model."
IN_DICT = "Text number fourteen is for the model."
LINES = ["Text number eight is for the model.", "short"]
MANY = {str(number): f"Text number {number} is for the model." for number in range(40)}


class Voice(Enum):
    """An enumeration."""

    WARM = "Text number two is for the model."


TEMPLATE = Template("Text number three is for the $whom.")


class Pair(NamedTuple):
    """A pair."""

    prompt: str


PAIR = Pair("Text number five is for the model.")


@dataclass(frozen=True, slots=True)
class Slots:
    """An object without a dict."""

    prompt: str = "Text number six is for the model."


SLOTS = Slots()


class Ways:
    """A class that texts are read from, without an object."""

    TEXT = "Text number nine is for the model."

    def __init__(self) -> None:
        self.made = True

    @staticmethod
    def static() -> str:
        return "Text number ten is for the model."

    @classmethod
    def of_class(cls) -> str:
        return "Text number eleven is for the model."


SPACE = SimpleNamespace(prompt="Text number four is for the model.")


@functools.lru_cache
def cached() -> str:
    """Give a text, once."""
    return "Text number twelve is for the model."


def setting() -> str:
    """Set a global."""
    global SET
    SET = str(SET)
    return SET


def in_class() -> str:
    """Read a text in the body of a class."""

    class Holder:
        text = IN_CLASS

    return Holder.text


def _executed() -> Callable[[], str]:
    space: dict[str, Any] = {}
    exec('def made():\n    return "Text number thirteen is for the model."', space)
    made: FunctionType = space["made"]
    return made


executed = _executed()
TEXTS: dict[str, Callable[[], str]] = {
    "a global that the function sets": setting,
    "an enumeration": lambda: Voice.WARM.value,
    "a string.Template": lambda: TEMPLATE.substitute(whom="model"),
    "a namespace": lambda: str(SPACE.prompt),
    "a named tuple": lambda: PAIR.prompt,
    "slots": lambda: SLOTS.prompt,
    "the body of a class": in_class,
    "a list of whatever": lambda: LINES[0],
    "a large container": lambda: MANY["3"],
    "a class that makes objects": lambda: Ways.TEXT,
    "a static method of a class": lambda: Ways.static(),
    "a class method": lambda: Ways.of_class(),
    "the dict of globals": lambda: str(globals()["IN_DICT"]),
    "a cache": lambda: cached(),
    "no source": lambda: executed(),
}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_it_is_not_offered_but_reported(name: str) -> None:
    give = TEXTS[name]

    def node(state: State) -> State:
        return {"plain": model.invoke([("system", give()), ("human", state["plain"])]).text}

    traced = trace_langgraph(chain(("a", node)))
    assert traced.prompts == (), "the page can leave this limit out now"
    with recording() as calls:
        traced.invoke({"plain": "Why?"})
    assert calls[0].messages[0] == ("system", give())
    assert [(one.node, one.text) for one in traced.computed] == [("a", give())]


def test_globals_are_found_without_a_source() -> None:
    space: dict[str, Any] = {"PROMPT": "Text of the global.", "__name__": __name__}
    exec("def node(state):\n    return {'plain': PROMPT + 'Text of the code itself.'}", space)
    traced = trace_langgraph(chain(("a", space["node"])))
    assert [one.name for one in traced.prompts] == ["a.PROMPT"]


def test_the_prompt_of_a_ready_made_agent_is_reported() -> None:
    prebuilt = pytest.importorskip("langgraph.prebuilt")
    with warnings.catch_warnings():  # it is on its way to another package
        warnings.simplefilter("ignore")
        app = prebuilt.create_react_agent(model, [], prompt="Answer the question in one short sentence.")
    traced = trace_langgraph(app)
    assert traced.prompts == (), "the page can leave this limit out now"
    traced.invoke({"messages": [("user", "Why?")]})
    assert [one.text for one in traced.computed] == ["Answer the question in one short sentence."]


def test_a_package_that_is_installed_is_not_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "installed_prompts.py").write_text('def text():\n    return "Text of a package for the model."\n')
    monkeypatch.syspath_prepend(str(place))
    from installed_prompts import text  # type: ignore[import-not-found]

    traced = trace_langgraph(chain(("a", lambda state: {"plain": text()})))
    assert traced.prompts == ()


# -- what is not a limit --------------------------------------------------------------------------


def test_a_tools_description_can_be_a_parameter() -> None:
    from langchain_core.tools import tool

    @tool
    def add(left: int, right: int) -> int:
        """Add two numbers."""
        return left + right

    def node(state: State) -> State:
        return {"plain": model.bind_tools([add]).invoke([("user", state["plain"])]).text}

    traced = trace_langgraph(chain(("a", node)), extra={"a.add.description": TextSpec()})
    assert [(one.name, one.base) for one in traced.parameters()] == [("a.add.description", "Add two numbers.")]
    with applying({"a.add.description": "Add both of them."}), recording() as calls:
        traced.invoke({"plain": "Why?"})
    assert '"Add both of them."' in calls[0].options and add.description == "Add two numbers."


@pytest.fixture
def parts() -> Any:
    """An app of which one node has no part in what another one writes."""
    graph: Any = StateGraph(State)
    graph.add_node("a", lambda state: {"plain": "Say the first thing " + state["plain"]})
    graph.add_node("b", lambda state: {"many": ["Say the second thing " + state["plain"]]})
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    return graph.compile()


@pytest.mark.parametrize(
    ("output", "names"),
    [("plain", ("a.text",)), ("many", ("b.text",)), (None, ("a.text", "b.text")), (str, ("a.text", "b.text"))],
)
def test_feedback_goes_to_what_led_to_the_output_that_counts(parts: Any, output: Any, names: tuple[str, ...]) -> None:
    traced = trace_langgraph(parts, output=output)
    value = traced(plain="now")
    assert tuple(sorted(propagate(value, Feedback(0.0, "no"), traced.parameters()).parameters)) == names
    whole = parts.invoke({"plain": "now"})
    assert value.data == (str(whole) if output is str else whole if output is None else whole[output])


def test_an_output_that_is_not_there_is_a_failure() -> None:
    from optograph.graphs import OpError

    traced = trace_langgraph(chain(("a", lambda state: {"plain": "x"})), output="nothing")
    with pytest.raises(OpError, match="nothing"):
        traced(plain="now")
