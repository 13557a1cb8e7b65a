"""What OptoPrime remembers: values that were tried and how they did, written only after a finished step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """One finished step.

    Attributes:
        values: The values that were tried, as JSON data, by parameter name.
        score: Mean score on the step's minibatch.
        feedback: What was said of it, in short.
    """

    values: Mapping[str, Any]
    score: float
    feedback: str


@dataclass
class Memory:
    """The last ``size`` finished steps; size 0 remembers nothing."""

    size: int
    entries: list[MemoryEntry] = field(default_factory=list)

    def add(self, entry: MemoryEntry) -> None:
        """Remember a finished step, and forget the oldest beyond the size."""
        self.entries = [*self.entries, entry][-self.size :] if self.size else []

    def text(self) -> str:
        """Return the memory as lines for a prompt, newest last."""
        return "\n".join(
            f"- {json.dumps(dict(one.values), ensure_ascii=False)} scored {one.score:.3f}. {one.feedback}".rstrip()
            for one in self.entries
        )

    def best(self, name: str, most: int) -> list[tuple[Any, float]]:
        """Return the best values tried for one parameter with their scores, best last."""
        tried = {json.dumps(one.values[name]): one.score for one in self.entries if name in one.values}
        ranked = sorted(tried.items(), key=lambda pair: pair[1])[-most:]
        return [(json.loads(value), score) for value, score in ranked]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the entries as JSON data."""
        return [{"values": dict(one.values), "score": one.score, "feedback": one.feedback} for one in self.entries]

    @classmethod
    def from_json(cls, size: int, data: list[dict[str, Any]]) -> Memory:
        """Read what ``to_json`` wrote."""
        return cls(size, [MemoryEntry(**entry) for entry in data])
