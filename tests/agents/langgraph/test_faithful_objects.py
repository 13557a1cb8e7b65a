"""Classes and objects of the app behave as without a trace, and what they keep stays with its candidate."""

from __future__ import annotations

import abc
import functools
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import applying
from tests.agents.langgraph.small import State, chain

PROMPT = "Answer in one short sentence."
OTHER = "A candidate has other words."


class Anything(State, total=False):
    """A channel for whatever a node has to show."""

    seen: Any


def app_of(*nodes: tuple[str, Any]) -> Any:
    return chain(*nodes, schema=Anything)


def seen(app: Any, **values: str) -> Any:
    """Return what the nodes showed, under a candidate whose parameters' names have __ for a dot."""
    with applying({name.replace("__", "."): value for name, value in values.items()}):
        return app.invoke({"plain": "x"})["seen"]


# -- state ----------------------------------------------------------------------------------------


class _Keeping:
    def __init__(self) -> None:
        self.prompt = PROMPT
        self.calls = 0
        self._lazy = ""

    @functools.cached_property
    def system(self) -> str:
        return f"system: {self.prompt}"

    def lazy(self) -> str:
        self._lazy = self._lazy or f"lazy: {self.prompt}"
        return self._lazy

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
    def cached(self) -> str:
        return f"cached: {self.prompt}"

    def first(self, state: State) -> Any:
        self.calls += 1
        self.note = self.prompt.upper()
        return {}

    def second(self, state: State) -> Any:
        return {"seen": [self.system, self.lazy(), self.cached(), self.note, self.calls]}


@pytest.mark.parametrize("used", [False, True])
def test_what_an_object_keeps_of_a_text_stays_with_the_candidate(used: bool) -> None:
    bot = _Keeping()
    app = app_of(("a", bot.first), ("b", bot.second))
    if used:
        assert bot.system == f"system: {PROMPT}"  # kept before anything is traced
    traced = trace_langgraph(app)
    assert [one.name for one in traced.prompts if one.node == "b"] == ["b.prompt"]
    values = [{one.name: f"Candidate {number} says it." for one in traced.prompts} for number in range(3)]

    def run(number: int) -> Any:
        with applying(values[number]):
            return traced.invoke({"plain": ""})["seen"]

    for number in (0, 1, 2, 1):
        text = f"Candidate {number} says it."
        assert run(number)[:4] == [f"system: {text}", f"lazy: {text}", f"cached: {text}", text.upper()]
    assert app.invoke({"plain": ""})["seen"] == [
        f"system: {PROMPT}",
        f"lazy: {PROMPT}",
        f"cached: {PROMPT}",
        PROMPT.upper(),
        1,
    ]
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(run, [0, 1, 2] * 20)):
            assert found[3] == f"CANDIDATE {number % 3} SAYS IT."


def test_the_state_of_an_object_is_shared_outside_candidates() -> None:
    bot = _Keeping()
    app = app_of(("a", bot.first), ("b", bot.second))
    traced = trace_langgraph(app)
    assert [traced.invoke({})["seen"][4], app.invoke({})["seen"][4], traced.invoke({})["seen"][4]] == [1, 2, 3]
    bot.prompt = "Another text was set."
    assert traced.invoke({})["seen"][3] == "ANOTHER TEXT WAS SET."


class _Selves:
    def __init__(self) -> None:
        self.prompt = PROMPT
        self.selves: list[Any] = []

    def __call__(self, state: State) -> Any:
        self.selves.append(self)
        return {"seen": self.prompt}


def test_a_candidate_has_one_object_for_all_of_its_runs() -> None:
    bot = _Selves()
    traced = trace_langgraph(app_of(("a", bot)))
    with applying({"a.prompt": OTHER}):
        assert [traced.invoke({})["seen"] for _ in range(2)] == [OTHER, OTHER]
    assert bot.selves[0] is bot.selves[1] is not bot


class _Reader:
    def __init__(self) -> None:
        self.prompt = PROMPT

    def _read(self) -> str:
        return self.prompt

    def __call__(self, state: State) -> Any:
        return {"seen": self._read()}


def test_a_class_of_the_apps_may_have_any_method() -> None:
    assert seen(trace_langgraph(app_of(("a", _Reader()))), a__prompt=OTHER) == OTHER


# -- what a class can be asked --------------------------------------------------------------------


class _Base:
    PROMPT = PROMPT
    made: ClassVar[list[str]] = []
    calls = 0

    def __init_subclass__(cls, **options: Any) -> None:
        _Base.made.append(cls.__name__)


class _Bot(_Base, abc.ABC):
    @classmethod
    def build(cls, text: str) -> str:
        cls.calls += 1
        return f"{cls.PROMPT} {text}"

    @staticmethod
    def constant() -> str:
        return "This is said by a static method."

    @property
    def said(self) -> str:
        return "This is said by a property."

    def __call__(self, state: State) -> Any:
        type(self).calls += 1
        kinds = [isinstance(self, _Bot), hasattr(type(self), "own")]
        return {"seen": [self.PROMPT, type(self).PROMPT, self.build("x"), self.constant(), self.said, *kinds]}


def test_texts_are_read_from_the_class_of_an_object_too() -> None:
    bot = _Bot()
    bot.own = "Only the object has this text."  # type: ignore[attr-defined]
    made = list(_Base.made)
    app = app_of(("a", bot))
    plain = app.invoke({})["seen"]
    traced = trace_langgraph(app)
    assert traced.invoke({})["seen"] == plain
    assert (_Bot.calls, _Base.calls) == (4, 0)
    assert _Base.made == made, "the app's registry would know of a class that is none of its own"
    assert seen(traced, a__PROMPT=OTHER, a__constant__text="Static words.", a__said__text="Words of a property.") == [
        OTHER,
        OTHER,
        f"{OTHER} x",
        "Static words.",
        "Words of a property.",
        True,
        False,
    ]


class _Closing:
    def __init__(self) -> None:
        self.state = {"open": True}
        self.prompt = PROMPT

    def __del__(self) -> None:
        self.state["open"] = False

    def __call__(self, state: State) -> Any:
        return {"seen": [self.prompt, self.state["open"]]}


def test_a_traced_app_that_is_dropped_closes_nothing() -> None:
    app = app_of(("a", _Closing()))
    traced = trace_langgraph(app)
    assert seen(traced, a__prompt=OTHER) == [OTHER, True]
    del traced
    gc.collect()
    assert app.invoke({})["seen"] == [PROMPT, True]


class _Slotted:
    __slots__ = ("model",)


class _Half(_Slotted):
    def __init__(self) -> None:
        self.model = "m"
        self.prompt = PROMPT

    def __call__(self, state: State) -> Any:
        return {"seen": [self.prompt, self.model]}


class _Meta(type):
    known: ClassVar[list[str]] = []

    def __init__(cls, name: str, bases: Any, members: Any) -> None:
        super().__init__(name, bases, members)
        _Meta.known.append(name)


class _Known(metaclass=_Meta):
    prompt = PROMPT

    def __call__(self, state: State) -> Any:
        return {"seen": [self.prompt, len(_Meta.known)]}


@pytest.mark.parametrize("kind", [_Half, _Known])
def test_objects_that_no_other_can_stand_for_are_left_alone(kind: Any) -> None:
    app = app_of(("a", kind()))
    plain = app.invoke({})["seen"]
    assert trace_langgraph(app).invoke({})["seen"] == plain


# -- classes that hold texts ----------------------------------------------------------------------


class NotFound(Exception):
    """An error with a text."""

    hint = "Nothing was found, try other words."


class Prompts:
    """Only holds texts."""

    system = PROMPT
    style = "Keep it short and simple."
    calls = 0


class Voice(StrEnum):
    """Texts that are members."""

    WARM = "Speak like a friendly neighbour."


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    Prompts.system, Prompts.style, Prompts.calls = PROMPT, "Keep it short and simple.", 0


MADE = Prompts()
BY_CLASS = {Prompts: "known"}


def _caught(state: State) -> Any:
    try:
        raise NotFound
    except NotFound:
        return {"seen": NotFound.hint}


def _asked(state: State) -> Any:
    Prompts.calls += 1
    made = Prompts()
    kinds = [isinstance(MADE, Prompts), isinstance(made, Prompts), BY_CLASS[Prompts]]
    return {"seen": [Prompts.system, Prompts.calls, *kinds, issubclass(type(made), Prompts), made.style]}


def _set(state: State) -> Any:
    Prompts.style = Prompts.style.upper()
    return {"seen": [Prompts.style, Prompts.system]}


def _member(state: State) -> Any:
    voice = Voice.WARM
    return {"seen": [voice.value, voice is Voice.WARM, Voice("Speak like a friendly neighbour.").name]}


@pytest.mark.parametrize("node", [_caught, _asked, _set, _member])
def test_a_class_that_holds_texts(node: Any) -> None:
    app = app_of(("a", node))
    plain = app.invoke({})["seen"]
    Prompts.calls, Prompts.style = 0, "Keep it short and simple."
    assert trace_langgraph(app).invoke({})["seen"] == plain


def test_the_candidates_texts_are_read_from_a_class() -> None:
    traced = trace_langgraph(app_of(("a", _set), ("b", _asked)))
    assert seen(traced, a__Prompts__system=OTHER)[0] == OTHER
    assert (Prompts.calls, Prompts.style) == (1, "KEEP IT SHORT AND SIMPLE.")


# -- settings -------------------------------------------------------------------------------------


class Settings(BaseModel):
    """Settings of an app."""

    system: str = PROMPT
    calls: int = 0


def test_the_texts_of_a_pydantic_model() -> None:
    settings = Settings()

    def count(state: State) -> Any:
        settings.calls += 1
        return {"plain": settings.system}

    def show(state: State) -> Any:
        return {"seen": [settings.system, settings.calls, isinstance(settings, Settings)]}

    app = app_of(("a", count), ("b", show))
    traced = trace_langgraph(app)
    assert {one.name for one in traced.prompts} == {"a.settings.system"}
    assert traced.invoke({})["seen"] == [PROMPT, 1, True]
    values = {"a.settings.system": OTHER}
    with applying(values):
        assert traced.invoke({})["seen"] == [OTHER, 2, True]
    assert app.invoke({})["seen"] == [PROMPT, 2, True]
    settings.system = "Another text was set."
    with applying({"a.settings.system": "Yet other words, please."}):
        assert traced.invoke({})["seen"][0] == "Another text was set."
