"""Word problems with a calculator: the model writes what to work out, the calculator works it out."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from optograph.agents import Module, Step, StepOptions
from optograph.graphs import op
from optograph.serving import LM

INSTRUCTION = "Write the calculation."
"""Short, for on this model's scale every token of a prompt costs time."""

_WORK_OUT: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class Problem(BaseModel):
    """A problem in words."""

    question: str


class Calculation(BaseModel):
    """What the calculator is asked."""

    expression: str


@op(description="A calculator for numbers, + - * / and brackets.")
def calculate(expression: str) -> float:
    """Work an expression out.

    Raises:
        ValueError: It is no expression of numbers, ``+ - * /`` and brackets, or divides by 0.
    """
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"the calculator cannot work out {expression!r}: {error}") from None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _WORK_OUT:
            return _WORK_OUT[type(sign)](_value(left), _value(right))
    raise ValueError(f"the calculator knows numbers, + - * / and brackets, not {ast.unparse(node)!r}")


class Solver(Module):
    """Answers a problem with one call of the calculator."""

    def __init__(self, lm: LM) -> None:
        self.write = Step(
            "write",
            lm=lm,
            inputs=Problem,
            output=Calculation,
            instruction=INSTRUCTION,
            description="Write the call of the calculator that answers the problem.",
            options=StepOptions(max_tokens=24, repairs=0),
        )

    def forward(self, question: str) -> Any:
        """Return what the calculator says."""
        return calculate(self.write(question=question).expression)


def build(lm: LM) -> Solver:
    """Make the workflow for a job."""
    return Solver(lm)


def score(expected: float, output: float) -> tuple[float, str]:
    """Compare the calculator's result with the right one."""
    return float(abs(output - expected) < 1e-6), f"The answer is {expected:g}, and the calculator said {output:g}."
