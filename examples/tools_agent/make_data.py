"""Writes this example's data: questions about sums and prices, each with the calls that answer it.

Run it as ``python examples/tools_agent/make_data.py``; it always writes the same rows.
"""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PRICES: dict[str, int] = runpy.run_path(str(HERE / "app.py"))["PRICES"]
SPLITS = {"train": 40, "dev": 40, "test": 60}
SEED = 7
SUMS = {
    "add": ("What is {a} plus {b}?", "Add {a} and {b}.", "How much is {a} and {b} together?"),
    "subtract": ("What is {a} minus {b}?", "Take {b} from {a}.", "How much is {a} less {b}?"),
    "multiply": ("What is {a} times {b}?", "Multiply {a} by {b}.", "How much is {a} multiplied by {b}?"),
}
ASKS = (
    "What does a {item} cost?",
    "How much is a {item}?",
    "Tell me the price of a {item}.",
    "I want a {item}. The price?",
)
BUYS = ("What do {n} {item}s cost?", "How much are {n} {item}s?", "Tell me the price of {n} {item}s.")

Solved = tuple[str, list[dict[str, Any]]]
"""A question, and the calls that answer it."""


def call(tool: str, result: int, **arguments: Any) -> dict[str, Any]:
    """Return a call as a demonstration shows it."""
    return {"tool": tool, "arguments": arguments, "result": result}


def worked_out(left: int, operator: str, right: int) -> dict[str, Any]:
    """Return a call of the calculator."""
    result = {"add": left + right, "subtract": left - right, "multiply": left * right}[operator]
    return call("calculate", result, left=left, operator=operator, right=right)


def a_sum(rng: random.Random) -> Solved:
    """Make a question that the calculator answers."""
    operator = rng.choice(list(SUMS))
    left, right = (
        (rng.randint(3, 30), rng.randint(3, 30))
        if operator == "multiply"
        else (rng.randint(50, 400), rng.randint(3, 49))
    )
    return rng.choice(SUMS[operator]).format(a=left, b=right), [worked_out(left, operator, right)]


def a_price(rng: random.Random) -> Solved:
    """Make a question that the price list answers."""
    item = rng.choice(list(PRICES))
    return rng.choice(ASKS).format(item=item), [call("price", PRICES[item], item=item)]


def a_purchase(rng: random.Random) -> Solved:
    """Make a question that needs the price list first, then the calculator."""
    item, count = rng.choice(list(PRICES)), rng.randint(3, 12)
    calls = [call("price", PRICES[item], item=item), worked_out(PRICES[item], "multiply", count)]
    return rng.choice(BUYS).format(n=count, item=item), calls


def splits() -> dict[str, list[dict[str, Any]]]:
    """Make all rows; no question comes twice."""
    rng = random.Random(SEED)
    seen: set[str] = set()
    made: dict[str, list[dict[str, Any]]] = {}
    for split, count in SPLITS.items():
        rows = made[split] = []
        while len(rows) < count:
            question, calls = (a_sum, a_price, a_sum, a_price, a_purchase)[len(rows) % 5](rng)
            if question in seen:
                continue
            seen.add(question)
            solution = {"calls": calls, "answer": {"number": calls[-1]["result"]}}
            rows.append({"id": f"{split}{len(rows) + 1:02d}", "question": question, "solution": solution})
    return made


def main() -> None:
    """Write one file a split."""
    for split, rows in splits().items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (HERE / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
