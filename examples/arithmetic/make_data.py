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
SPLITS = {"demonstrations": 36, "train": 306, "dev": 108, "test": 306}
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


KINDS = (
    Kind(
        (
            "{n} {things} cost ${p} each. What is the change from ${paid}?",
            "{x} pays with ${paid} for {n} {things} at ${p} each. How much comes back?",
        ),
        {"n": (3, 9), "p": (3, 11), "hundreds": (1, 3)},
        "{paid} - {n} * {p}",
        {"paid": "{hundreds} * 100"},
    ),
    Kind(
        (
            "{x} has {a} {things}, {y} has {b} more. How many together?",
            "{x} owns {a} {things}; {y} owns {b} more than {x}. How many do both own?",
        ),
        {"a": (20, 90), "b": (3, 19)},
        "{a} + {a} + {b}",
    ),
    Kind(
        (
            "{x} has {a} {things}, {y} has {b} fewer. How many together?",
            "{x} found {a} {things} and {y} {b} less. What is their total?",
        ),
        {"a": (40, 90), "b": (3, 19)},
        "{a} + {a} - {b}",
    ),
    Kind(
        (
            "Take {b} from {a}.",
            "{x} has {a} {things}, which is {b} more than {y} has. How many has {y}?",
        ),
        {"a": (40, 99), "b": (3, 30)},
        "{a} - {b}",
    ),
    Kind(
        (
            "{total} {things} are shared by {n} children. How many each?",
            "{n} boxes hold {total} {things} in equal parts. How many in a box?",
        ),
        {"n": (3, 9), "each": (11, 29)},
        "{total} / {n}",
        {"total": "{n} * {each}"},
    ),
    Kind(
        (
            "{x} has {total} {things}, keeps {b} and gives the rest to {n} friends in equal parts. How many for each?",
            "Of {total} {things}, {b} are lost. {n} people share the rest. How many each?",
        ),
        {"n": (3, 9), "each": (4, 15), "b": (2, 9)},
        "({total} - {b}) / {n}",
        {"total": "{n} * {each} + {b}"},
    ),
    Kind(
        (
            "{x} has {a} {things} and buys {n} bags of {k}. How many now?",
            "There are {a} loose {things} and {n} boxes with {k} in each. How many in all?",
        ),
        {"a": (11, 60), "n": (3, 9), "k": (3, 15)},
        "{a} + {n} * {k}",
    ),
    Kind(
        (
            "{n} bags of {k} {things}; {b} are bad. How many are good?",
            "From {n} boxes of {k} {things}, {b} are sold. How many remain?",
        ),
        {"n": (4, 9), "k": (7, 15), "b": (3, 20)},
        "{n} * {k} - {b}",
    ),
    Kind(
        (
            "A train goes {v} km an hour. How far in {h} hours?",
            "A pump gives {v} litres a minute. How many litres in {h} minutes?",
        ),
        {"v": (12, 90), "h": (3, 12)},
        "{v} * {h}",
    ),
    Kind(
        (
            "A car goes {v} km an hour. How many hours for {far} km?",
            "A book has {far} pages; {x} reads {v} a day. How many days?",
        ),
        {"v": (12, 60), "h": (3, 12)},
        "{far} / {v}",
        {"far": "{v} * {h}"},
    ),
    Kind(
        (
            "A field is {a} m long and {b} m wide. How long is the fence around it?",
            "What is the perimeter of a {a} by {b} rectangle?",
        ),
        {"a": (12, 60), "b": (3, 11)},
        "2 * ({a} + {b})",
    ),
    Kind(
        (
            "A floor is {a} m long and {b} m wide. How many square metres?",
            "What is the area of a {a} by {b} rectangle?",
        ),
        {"a": (12, 60), "b": (3, 11)},
        "{a} * {b}",
    ),
    Kind(
        (
            "{x} has {a} {things}, {y} has {k} times as many. How many together?",
            "{y} owns {k} times the {a} {things} of {x}. How many do both own?",
        ),
        {"a": (11, 40), "k": (3, 9)},
        "{a} + {k} * {a}",
    ),
    Kind(
        (
            "What is the average of {a} and {b}?",
            "One day {a} guests came, the next day {b}. How many a day on average?",
        ),
        {"a": (11, 60), "b": (11, 60)},
        "({a} + {b}) / 2",
    ),
    Kind(
        (
            "A ${p} coat is {off}% off. What is the price?",
            "A shop takes {off} percent off a ${p} lamp. What does it cost now?",
        ),
        {"tens": (4, 24), "fives": (1, 9)},
        "{p} - {p} * {off} / 100",
        {"p": "{tens} * 10", "off": "{fives} * 5"},
    ),
    Kind(
        (
            "{n} friends each buy a ${a} ticket and a ${b} drink. What do they pay?",
            "A set is a ${a} cup and a ${b} plate. How much are {n} sets?",
        ),
        {"n": (3, 9), "a": (3, 19), "b": (3, 19)},
        "{n} * ({a} + {b})",
    ),
    Kind(
        (
            "{x} is {a}. {y} is {b} years younger. How old is {y} in {c} years?",
            "{y} is {b} years younger than {x}, who is {a}. What is the age of {y} {c} years from now?",
        ),
        {"a": (20, 60), "b": (3, 15), "c": (3, 15)},
        "{a} - {b} + {c}",
    ),
    Kind(
        (
            "{x} gives away half of {a} {things}, then finds {b}. How many now?",
            "Half of the {a} {things} are sold and {b} new ones come. How many are there?",
        ),
        {"half": (11, 45), "b": (3, 30)},
        "{a} / 2 + {b}",
        {"a": "2 * {half}"},
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
