"""The agent that several tests use, with its tools, and the replies that a model gives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from optograph.agents import Agent, AgentOptions
from optograph.graphs import Value
from optograph.serving import ScriptedLM


class Question(BaseModel):
    """A question about numbers."""

    question: str


class Reply(BaseModel):
    """A number."""

    number: float

    @field_validator("number")
    @classmethod
    def _known(cls, number: float) -> float:
        if number == 13:
            raise ValueError("13 is never right")
        return number


def calculate(left: float, operator: Literal["add", "divide"], right: float) -> float:
    """Work something out.

    Args:
        left: A number.
    """
    return left + right if operator == "add" else left / right


async def price(item: str) -> float:
    """Look up a price."""
    await asyncio.sleep(0)
    return {"lamp": 24.0, "rug": 88.0}[item]


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({tool: arguments})


ADD = call("calculate", left=1, operator="add", right=2)


LAMP = call("price", item="lamp")


def answer(number: float) -> str:
    return call("answer", number=number)


def make(lm: ScriptedLM, *, tools: Sequence[Any] = (calculate, price), **options: Any) -> Agent:
    return Agent(
        "helper",
        lm=lm,
        inputs=Question,
        output=Reply,
        tools=tools,
        instruction="Use the tools.",
        options=AgentOptions(**options),
    )


def last_text(lm: ScriptedLM) -> str:
    return lm.requests[-1].messages[-1].content


def ancestors(value: Value) -> set[Value]:
    found: set[Value] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack.extend(one.parents)
    return found
