"""A shop assistant with two tools, a calculator and a price list: the smallest embedded model learns to use them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from optograph.agents import Agent, AgentOptions, Module
from optograph.serving import LM

PRICES = {
    **{"lamp": 24, "kettle": 31, "chair": 58, "ladder": 76, "blanket": 27, "teapot": 19, "mirror": 43, "basket": 12},
    **{"candle": 4, "radio": 65, "rug": 88, "broom": 9, "clock": 35, "pillow": 16, "bucket": 7, "hammer": 14},
    **{"drill": 92, "shelf": 47, "tray": 11, "vase": 22, "stool": 38, "curtain": 53, "toaster": 41, "fan": 29},
    **{"pan": 26, "knife": 13, "towel": 8, "bowl": 6, "desk": 120, "sofa": 450, "bench": 84, "jug": 15},
}
"""US dollars for one piece."""


class Question(BaseModel):
    """A customer's question."""

    question: str


class Reply(BaseModel):
    """The number that answers it."""

    number: int


def price(item: str) -> int:
    """Look something up."""
    if item not in PRICES:
        raise LookupError(f"no {item!r} in the price list")
    return PRICES[item]


def calculate(left: int, operator: Literal["add", "subtract", "multiply"], right: int) -> int:
    """Work something out."""
    return {"add": left + right, "subtract": left - right, "multiply": left * right}[operator]


class Assistant(Module):
    """Answers a question with the help of its tools."""

    def __init__(self, lm: LM) -> None:
        self.agent = Agent(
            "assistant",
            lm=lm,
            inputs=Question,
            output=Reply,
            tools=[price, calculate],
            instruction="Answer the question.",
            description="Answer a shop's customer with one number.",
            options=AgentOptions(max_steps=4, max_repeats=0, max_tokens=48, repairs=0),
        )

    def forward(self, question: str) -> Any:
        """Return the number."""
        return self.agent(question=question).number


def build(lm: LM) -> Assistant:
    """Make the workflow for a job."""
    return Assistant(lm)


def score(expected: dict[str, Any], output: Any) -> tuple[float, str]:
    """Compare the number with the solution's."""
    right = expected["answer"]["number"]
    return float(output == right), "Right." if output == right else f"The answer is {right}, not {output!r}."
