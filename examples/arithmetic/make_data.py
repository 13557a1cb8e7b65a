"""Writes this example's data: problems in words, and for some of them the calculation that solves them.

Run it as ``python examples/arithmetic/make_data.py``; it always writes the same rows. No question comes twice.
"""

from __future__ import annotations

import json
import random
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
APP = runpy.run_path(str(HERE / "app.py"))
SPLITS = {"demonstrations": 44, "train": 308, "dev": 110, "test": 308}
SEED = 5
NAMES = (
    *("Ann", "Ben", "Carl", "Dora", "Emil", "Faye", "Gus", "Hana", "Ivo", "Jana"),
    *("Karl", "Lena", "Mia", "Nils", "Olga", "Paul", "Rosa", "Sam", "Tina", "Udo"),
)
THINGS = ("stamps", "shells", "marbles", "cards", "coins", "pens", "apples", "plums", "buttons", "stickers", "beads")


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        wordings: Ways to ask; `{x}` and `{y}` are people, `{things}` what they have, other names are numbers.
        numbers: Smallest and largest value of each number.
        solution: The calculation.
        derived: Numbers that are worked out from the others, so that divisions leave nothing over.
    """

    wordings: tuple[str, ...]
    numbers: dict[str, tuple[int, int]]
    solution: str
    derived: dict[str, str] = field(default_factory=dict)


SMALL, MIDDLE, LARGE = (3, 9), (11, 29), (31, 98)
MINUS, PLUS, TIMES, BY = "{a} - {b}", "{a} + {b}", "{a} * {b}", "{a} / {b}"
BOTH = {"a": LARGE, "b": MIDDLE}
FACTORS = {"a": MIDDLE, "b": SMALL}
SHARED = {"each": MIDDLE, "b": SMALL}
WHOLE = {"a": "{each} * {b}"}

KINDS = (
    Kind(("Take {b} from {a}.", "What is {b} less than {a}?"), BOTH, MINUS),
    Kind(
        (
            "{x} has {a} {things}, {b} more than {y}. How many has {y}?",
            "{x} has {b} more {things} than {y}, and {a} in all. How many has {y}?",
        ),
        BOTH,
        MINUS,
    ),
    Kind(
        ("{b} of {a} {things} are broken. How many are good?", "{x} had {a} {things} and lost {b}. How many are left?"),
        BOTH,
        MINUS,
    ),
    Kind(
        (
            "{x} pays with ${a} for a ${b} book. What is the change?",
            "A ${b} lamp is paid with ${a}. How much comes back?",
        ),
        BOTH,
        MINUS,
    ),
    Kind(
        ("{x} is {a}; {y} is {b} years younger. How old is {y}?", "{x} is {a} now. How old was {x} {b} years ago?"),
        BOTH,
        MINUS,
    ),
    Kind(
        (
            "{b} of the {a} km to town are done. How far is it still?",
            "{x} has read {b} of {a} pages. How many are left to read?",
        ),
        BOTH,
        MINUS,
    ),
    Kind(
        (
            "{x} has {a} {things}; {y} has {b} more. How many has {y}?",
            "{y} has {b} more {things} than {x}, who has {a}. How many has {y}?",
        ),
        BOTH,
        PLUS,
    ),
    Kind(
        (
            "{x} gave {b} {things} away and has {a} left. How many were there before?",
            "{x} lost {b} {things}; {a} are left. How many had {x} at first?",
        ),
        BOTH,
        PLUS,
    ),
    Kind(
        ("{x} is {a}. How old is {x} in {b} years?", "{y} is {b} years younger than {x} and is {a}. How old is {x}?"),
        BOTH,
        PLUS,
    ),
    Kind(
        (
            "After ${b} off, a coat costs ${a}. What did it cost before?",
            "{x} pays ${b} less than the price, ${a}. What was the price?",
        ),
        BOTH,
        PLUS,
    ),
    Kind(
        (
            "{a} boys and {b} girls are here. How many children?",
            "{x} found {a} {things} and {y} {b}. What is their total?",
        ),
        BOTH,
        PLUS,
    ),
    Kind(
        ("{b} bags hold {a} {things} each. How many are there?", "{x} buys {a} {things} a day. How many in {b} days?"),
        FACTORS,
        TIMES,
    ),
    Kind(
        (
            "A train goes {a} km an hour. How far in {b} hours?",
            "A pump gives {a} litres a minute. How much in {b} minutes?",
        ),
        FACTORS,
        TIMES,
    ),
    Kind(
        (
            "{x} has {a} {things}; {y} has {b} times as many. How many has {y}?",
            "{y} has {b} times the {a} {things} of {x}. How many has {y}?",
        ),
        FACTORS,
        TIMES,
    ),
    Kind(
        (
            "A floor is {a} m long and {b} m wide. How many square metres?",
            "A hall has {b} rows of {a} seats. How many seats?",
        ),
        FACTORS,
        TIMES,
    ),
    Kind(
        (
            "{b} children got {a} {things} each and none is left. How many were there?",
            "Shared by {b} people, the prize is ${a} for each. How much is the prize?",
        ),
        FACTORS,
        TIMES,
    ),
    Kind(
        ("{a} {things} are shared by {b} children. How many each?", "{b} people share ${a}. How much does each get?"),
        SHARED,
        BY,
        WHOLE,
    ),
    Kind(
        (
            "A car goes {b} km a minute. How many minutes for {a} km?",
            "{x} reads {b} pages a day. How many days for {a} pages?",
        ),
        SHARED,
        BY,
        WHOLE,
    ),
    Kind(
        (
            "{x} has {a} {things}, {b} times as many as {y}. How many has {y}?",
            "{x} has {b} times as many {things} as {y}, and {a} in all. How many has {y}?",
        ),
        SHARED,
        BY,
        WHOLE,
    ),
    Kind(
        ("{b} tickets cost ${a}. What does one cost?", "{x} earns ${a} in {b} hours. How much an hour?"),
        SHARED,
        BY,
        WHOLE,
    ),
    Kind(
        ("{a} {things} go into bags of {b}. How many bags?", "{a} people sit at tables of {b}. How many tables?"),
        SHARED,
        BY,
        WHOLE,
    ),
    Kind(
        (
            "A floor of {a} square metres is {b} m wide. How long is it?",
            "{a} seats are in {b} equal rows. How many in a row?",
        ),
        SHARED,
        BY,
        WHOLE,
    ),
)


def calculate(expression: str) -> float:
    """Work an expression out with the example's own calculator."""
    return float(APP["calculate"](expression).data)


def problem(kind: Kind, rng: random.Random) -> dict[str, Any]:
    """Make one problem of a kind, with its solution and its answer."""
    first, second = rng.sample(NAMES, 2)
    values: dict[str, Any] = {"x": first, "y": second, "things": rng.choice(THINGS)}
    values |= {name: rng.randint(low, high) for name, (low, high) in kind.numbers.items()}
    for name, expression in kind.derived.items():
        values[name] = int(calculate(expression.format(**values)))
    solution = kind.solution.format(**values)
    question = rng.choice(kind.wordings).format(**values)
    return {"question": question, "answer": calculate(solution), "solution": solution}


def splits() -> dict[str, list[dict[str, Any]]]:
    """Make all rows; each kind has the same number of them in a split."""
    rng = random.Random(SEED)
    seen: set[str] = set()
    made: dict[str, list[dict[str, Any]]] = {}
    for split, count in SPLITS.items():
        rows = made[split] = []
        while len(rows) < count:
            row = problem(KINDS[len(rows) % len(KINDS)], rng)
            if row["question"] not in seen:
                seen.add(row["question"])
                rows.append(row)
        rng.shuffle(rows)
    return made


def written(split: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as its file has it: only demonstrations show the calculation."""
    if split != "demonstrations":
        return {"id": f"{split}{number:03d}", "question": row["question"], "answer": row["answer"]}
    messages = [
        {"role": "system", "content": APP["INSTRUCTION"]},
        {"role": "user", "content": row["question"]},
    ]
    return {"messages": messages, "answer": row["solution"]}


def main() -> None:
    """Write one file a split."""
    for split, rows in splits().items():
        lines = [json.dumps(written(split, number + 1, row)) for number, row in enumerate(rows)]
        (HERE / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
