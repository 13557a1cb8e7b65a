"""What the tests of the chat model share: tools, a type, and a look at what a model was asked."""

from __future__ import annotations

from typing import Literal

from langchain_core.tools import tool
from pydantic import BaseModel

from optograph.serving import ScriptedLM

TEXT = "one two three"


@tool
def multiply(left: int, right: int) -> int:
    """Multiply two whole numbers."""
    return left * right


def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
    """Tell the weather."""
    return f"sun in {city}, 20 {unit}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def asked(lm: ScriptedLM, number: int = -1) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in lm.requests[number].messages]
