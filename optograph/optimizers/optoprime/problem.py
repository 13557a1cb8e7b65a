"""What one step asks of the model: the messages, the form of the answer, and how it is read and asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optograph.graphs import Spec
from optograph.optimizers.optoprime.answer import Answer, answer_schema, read_answer
from optograph.optimizers.optoprime.prompt import repair_messages
from optograph.serving import Message

Messages = tuple[Message, ...]


class Problem(Protocol):
    """A question about some parameters."""

    @property
    def shown(self) -> Mapping[str, str]:
        """Names of the parameters, by the names under which the messages show them."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""

    def messages(self) -> Messages:
        """Return the question."""

    def again(self, attempt: int, asked: Messages, text: str, answer: Answer) -> Messages:
        """Return what is asked after an unusable answer; attempts count from 1."""

    def read(self, text: str) -> Answer:
        """Read an answer into typed outcomes."""


@dataclass(frozen=True)
class SuggestionProblem:
    """Asks for an object of new values; an unusable answer goes back with what was wrong.

    Attributes:
        question: The messages.
        shown: Names of the parameters, by the names that the messages use.
        specs: What each may hold, by the same names.
        current: The values now, by the same names.
    """

    question: Messages
    shown: Mapping[str, str]
    specs: Mapping[str, Spec]
    current: Mapping[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of reasoning, blame, decision and new values."""
        return answer_schema(self.specs)

    def messages(self) -> Messages:
        """Return the question."""
        return self.question

    def again(self, attempt: int, asked: Messages, text: str, answer: Answer) -> Messages:
        """Return the question with the unusable answer and its problems."""
        return repair_messages(self.question, text, answer.problems)

    def read(self, text: str) -> Answer:
        """Read an answer into typed outcomes."""
        return read_answer(text, self.specs, self.current)
