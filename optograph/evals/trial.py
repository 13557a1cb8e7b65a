"""What is to be evaluated (a trial) and what came of it (an evaluation), as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optograph.graphs import Candidate, Feedback


@dataclass(frozen=True, slots=True)
class Trial:
    """A request to run some examples under one candidate.

    Attributes:
        candidate: Values of the parameters.
        split: ``"train"`` or ``"dev"`` (``"test"`` only in the final report).
        examples: Ids of the examples, in order.
        repeat: Which repetition this is, from 0; another repeat draws new samples.
        want_trace: Whether the subgraph of each example is needed.
    """

    candidate: Candidate
    split: str
    examples: tuple[str, ...]
    repeat: int = 0
    want_trace: bool = False


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """What one example gave.

    Attributes:
        example: Id of the example.
        feedback: The scorer's verdict; None where the infrastructure failed and nothing can be said (missing).
        output: The workflow's output as JSON data.
        subgraph: Journal hash of the subgraph, where one was asked for and the output was traced.
        trace: Journal hash of the whole trace, likewise.
        error: What failed, in one line; None where nothing did.
        calls: Model calls made.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens received.
        seconds: Wall-clock time.
        truncated: Answers that were cut off at their token limit.
        order: Keys of the answered calls, in an order that does not depend on how long the answers took.
    """

    example: str
    feedback: Feedback | None
    output: Any = None
    subgraph: str | None = None
    trace: str | None = None
    error: str | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    truncated: int = 0
    order: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The feedback's total, or None where the result is missing."""
        return None if self.feedback is None else self.feedback.total


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one trial, in the order of its examples."""

    trial: Trial
    results: tuple[ExampleResult, ...]

    @property
    def scores(self) -> tuple[float | None, ...]:
        """One score an example; None where missing."""
        return tuple(result.score for result in self.results)

    @property
    def missing(self) -> int:
        """How many examples could not be scored."""
        return sum(score is None for score in self.scores)

    @property
    def mean(self) -> float | None:
        """Mean score of the examples that could be scored, or None if there are none."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else None
