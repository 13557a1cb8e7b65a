"""What can be learned in a foreign app: the finder keeps the parameters, by the place where each text was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optograph.agents.langgraph.locating import locate
from optograph.agents.langgraph.places import Place, Where
from optograph.agents.langgraph.sites import Copies
from optograph.errors import UserError
from optograph.graphs import Parameter, Spec, TextSpec

_SHORTEST = 12
_LETTERS = re.compile(r"[^\W\d_]{2,}\s+\S*[^\W\d_]")
_NAMED = re.compile(r"prompt|instruction|system|template|message|persona|role|style|guid|rule|rubric", re.IGNORECASE)
_MAX_CHARS = 4000


@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """A text in an app that can be learned.

    Attributes:
        name: Name of its parameter: ``NODE.VARIABLE``; a text that several nodes share has the name of the first.
        node: The node whose code reads it; ``OUTER/INNER`` in a subgraph.
        variable: The variable, or ``text``, ``text2`` … for what is written in the code itself.
        file: File of the code that reads it, or an empty string.
        line: Line of the text, or of the function that reads it.
        text: The text; pieces in braces are filled in by the app.
        where: What holds it.
        frozen: Whether the user took it out of what may be changed.
    """

    name: str
    node: str
    variable: str
    file: str
    line: int
    text: str
    where: Where
    frozen: bool = False


@dataclass
class Finder:
    """Keeps parameters by name and by place.

    Attributes:
        rename: New names of parameters, by their usual ones.
        freeze: Names of parameters that stay as they are.
        extra: Specs of further settings, by ``NODE.VARIABLE`` or ``NODE.VARIABLE.ATTRIBUTE``.
        parameters: The parameters by name.
        found: Each text with each node that reads it.
        copies: Copies of the app's objects for each candidate.
        words: Names that the graph goes by, of nodes and of branches: to change one would send it nowhere.
        files: Files of the code that was searched.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    freeze: Collection[str] = ()
    extra: Mapping[str, Spec] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    found: list[FoundPrompt] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.copies = Copies()
        self.words: set[str] = set()
        self._places: dict[tuple[Hashable, ...], tuple[str, Parameter | None]] = {}
        self._names: set[str] = set()
        self._used: set[str] = set()

    def text(self, text: str, place: Place, placeholders: tuple[str, ...] = ()) -> Parameter | None:
        """Return the parameter of a text; None where it is frozen, or is the name of a node."""
        if text in self.words:
            return None
        known = self._places.get(place.key)
        if known is None:
            name = self._name(place)
            parameter = None if self._is_frozen(name, place) else self._parameter(text, name, place, placeholders)
            known = self._places[place.key] = (name, parameter)
        name, parameter = known
        file, line = locate(text, place)
        self.found.append(
            FoundPrompt(name, place.node, place.variable, file, line, text, place.where, frozen=parameter is None)
        )
        return parameter

    def setting(self, value: Any, place: Place) -> Parameter | None:
        """Return the parameter of a setting that the user asked for at this very place, or None."""
        usual = f"{place.node}.{place.variable}"
        spec = self.extra.get(usual)
        if spec is None:
            return None
        self._used.add(usual)
        known = self._places.get(place.key)
        if known is None:
            name = self._name(place)
            parameter = Parameter(value, name=name, spec=spec, description=f"Setting of node {place.node!r}.")
            known = self._places[place.key] = (name, parameter)
            self.parameters[name] = parameter
        return known[1]

    def settings_below(self, place: Place) -> list[str]:
        """Return the names of the attributes of this object that the user asked for."""
        start = f"{place.node}.{place.variable}."
        return [one[len(start) :] for one in self.extra if one.startswith(start)]

    def check(self) -> None:
        """Make sure that everything that the user named is there.

        Raises:
            UserError: A name is not.
        """
        names = {one.name for one in self.found} | set(self.parameters)
        usual = {f"{one.node}.{one.variable}" for one in self.found} | self._used
        for what, given in (("rename", self.rename), ("freeze", self.freeze), ("extra", self.extra)):
            for name in given:
                if name not in names | usual:
                    raise UserError(f"{what} names {name!r}, which is not in the app; it has {sorted(names)!r}")

    def _is_frozen(self, name: str, place: Place) -> bool:
        return name in self.freeze or f"{place.node}.{place.variable}" in self.freeze

    def _name(self, place: Place) -> str:
        usual = f"{place.node}.{place.variable}"
        name = self.rename.get(usual, usual)
        number = 2
        while name in self._names:
            name = f"{self.rename.get(usual, usual)}_{number}"
            number += 1
        self._names.add(name)
        return name

    def _parameter(self, text: str, name: str, place: Place, placeholders: tuple[str, ...]) -> Parameter:
        spec = TextSpec(max_chars=max(_MAX_CHARS, 2 * len(text)), placeholders=placeholders)
        parameter = Parameter(text, name=name, spec=spec, description=f"Text that node {place.node!r} uses.")
        self.parameters[name] = parameter
        return parameter


def looks_like_prompt(text: str) -> bool:
    """Whether a text is words for a reader, rather than a key, a path or a piece of format."""
    return len(text.strip()) >= _SHORTEST and _LETTERS.search(text) is not None


def names_prompts(name: str) -> bool:
    """Whether a variable's name says that it holds prompts."""
    return _NAMED.search(name) is not None
