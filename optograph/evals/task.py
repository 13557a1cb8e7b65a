"""A task is data and a scorer; its test split is sealed until the final report opens it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optograph.errors import UserError
from optograph.graphs import Feedback

Scorer = Callable[["Example", Any], Feedback]
"""Judges one output of the workflow against its example; higher scores are better."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task.

    Attributes:
        id: Name, unique within its split.
        input: Keyword arguments that the workflow is called with.
        expected: What the scorer compares the output with; None where nothing is expected.
    """

    id: str
    input: dict[str, Any]
    expected: Any = None


class SealedSplit:
    """The test split: its size can be seen, its rows only by ``unseal``, and each opening is counted."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = tuple(examples)
        self.openings: list[str] = []

    def __len__(self) -> int:
        return len(self._examples)

    def __repr__(self) -> str:
        return f"SealedSplit({len(self)} examples)"

    def peek(self) -> tuple[Example, ...]:
        """Return the rows to be checked for their form only; no opening is counted."""
        return self._examples

    def unseal(self, reason: str) -> tuple[Example, ...]:
        """Return the rows, and note the reason for the opening."""
        self.openings.append(reason)
        return self._examples


@dataclass(frozen=True)
class Task:
    """Data and a scorer.

    Attributes:
        train: Examples that optimizers may read and learn from.
        dev: Held-out examples that decide which candidate is accepted.
        test: Examples that only the final report reads.
        scorer: Judges an output; higher is better.
        name: Shown in reports.
        disjoint: Whether no input may be in two splits.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    test: SealedSplit
    scorer: Scorer
    name: str = "task"
    disjoint: bool = True
    _index: dict[str, dict[str, Example]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        home: dict[str, str] = {}
        for split, rows in (("train", self.train), ("dev", self.dev), ("test", self.test.peek())):
            if not rows:
                raise UserError(f"the {split!r} split is empty: give it at least one example")
            twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
            if twice:
                raise UserError(f"example ids in the {split!r} split are not unique: {twice[:3]!r}; rename them")
            for row in rows if self.disjoint else ():
                other = home.setdefault(repr(row.input), split)
                if other != split:
                    raise UserError(
                        f"the input of example {row.id!r} is in both the {other!r} and the {split!r} split, so its "
                        "answer can be learned by heart: make the splits disjoint, or say disjoint=False"
                    )
            if split != "test":
                self._index[split] = {row.id: row for row in rows}

    def example(self, split: str, example_id: str) -> Example:
        """Return one example of the train or dev split.

        Raises:
            UserError: The split is sealed or the id is unknown.
        """
        try:
            return self._index[split][example_id]
        except KeyError:
            raise UserError(f"no example {example_id!r} in split {split!r} (train and dev can be read)") from None


def answers_of(examples: Sequence[Example], most: int = 12) -> tuple[str, ...]:
    """Return the expected answers in order of their first use where they are a few fixed texts, else nothing."""
    answers = dict.fromkeys(row.expected for row in examples if isinstance(row.expected, str))
    repeated = len(answers) <= min(most, len(examples) // 3)
    return tuple(answers) if repeated and all(isinstance(row.expected, str) for row in examples) else ()


def majority_baseline(examples: Sequence[Example]) -> float | None:
    """Return the score of always giving the most frequent expected answer, or None where answers hardly repeat."""
    counts = Counter(repr(row.expected) for row in examples)
    if not counts or len(counts) > max(2, len(examples) // 4):
        return None
    return counts.most_common(1)[0][1] / len(examples)
