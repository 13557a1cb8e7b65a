"""Prompts that no parameter explains: what reached a model, less what the parameters and the state hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optograph.agents.langgraph.finding import looks_like_prompt
from optograph.graphs import Value

_CHECKS = 4
_SHORTEST = 3
_LONGEST_TEXT = 100_000
_BRACES = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Computed:
    """A prompt that the app makes as it runs, so that it cannot be offered as a parameter.

    Attributes:
        node: The node that asked.
        text: The part of the message that comes neither from a parameter nor from the state.
        role: The message's role.
    """

    node: str
    text: str
    role: str


class Unexplained:
    """Looks at the first few calls of each node, and keeps what nothing explains."""

    def __init__(self) -> None:
        self._checked: dict[str, int] = {}
        self._found: dict[tuple[str, str, str], Computed] = {}

    @property
    def found(self) -> tuple[Computed, ...]:
        """What was found so far."""
        return tuple(self._found.values())

    def check(self, node: str, notes: Iterable[Mapping[str, Any]], read: Sequence[Value], state: Any) -> None:
        """Compare the messages of a node's calls with what it read.

        Args:
            node: The node.
            notes: Its calls.
            read: Values that it read, parameters among them.
            state: The state that it was given.
        """
        if self._checked.get(node, 0) >= _CHECKS:
            return
        self._checked[node] = self._checked.get(node, 0) + 1
        known = _pieces([value._data for value in read]) | _pieces([state])
        for note in notes:
            for message in note.get("messages") or ():
                text = message["content"]
                if message["role"] in ("assistant", "tool", "ai") or len(text) > _LONGEST_TEXT:
                    continue
                rest = _without(text, known)
                if looks_like_prompt(rest):
                    found = Computed(node, rest, message["role"])
                    self._found.setdefault((node, message["role"], rest[:80]), found)


def _pieces(things: Iterable[Any]) -> set[str]:
    """Return the texts inside data; what stands between placeholders counts piece by piece."""
    pieces: set[str] = set()
    stack = list(things)
    while stack and len(pieces) < 10_000:
        one = stack.pop()
        if isinstance(one, str):
            pieces.add(one)
            pieces.update(part for part in _BRACES.split(one) if len(part.strip()) >= _SHORTEST)
        elif isinstance(one, Mapping):
            stack.extend(one.values())
        elif isinstance(one, list | tuple):
            stack.extend(one)
        elif isinstance(one, int | float):
            pieces.add(str(one))
        else:
            content = getattr(one, "content", None)
            stack.extend([content] if isinstance(content, str | list) else vars(one).values() if _open(one) else [])
    return {piece for piece in pieces if len(piece) >= _SHORTEST}


def _open(one: Any) -> bool:
    return hasattr(one, "__dict__") and (hasattr(type(one), "model_fields") or hasattr(one, "__dataclass_fields__"))


def _without(text: str, known: set[str]) -> str:
    for piece in sorted(known, key=len, reverse=True):
        if piece in text:
            text = text.replace(piece, "\n")
    return " ".join(text.split())
