"""The records of a review: what a person is shown of a candidate, and what the person says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from optograph.errors import UserError
from optograph.graphs import Candidate
from optograph.optimizers.base import Verdict
from optograph.storage import content_hash

ReviewKind = Literal["approve", "reject", "edit"]


@dataclass(frozen=True)
class Review:
    """What a person says of a candidate.

    Attributes:
        verdict: ``"approve"``, ``"reject"``, or ``"edit"``, which puts other values in the candidate's place.
        comment: In words; the optimizer reads it before its next proposal.
        values: New values by parameter name, as JSON data; for edits only.
        by: Who says it; the user of the system where it is left empty.
        at: When, as an ISO 8601 time in UTC; filled in when it is written down.

    Raises:
        UserError: A field is wrong, or does not go with the verdict.
    """

    verdict: ReviewKind
    comment: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in get_args(ReviewKind):
            raise UserError(f"a review is 'approve', 'reject' or 'edit', not {self.verdict!r}")
        if not all(isinstance(one, str) for one in (self.comment, self.by, self.at)):
            raise UserError(f"comment, by and at of a review are texts, not {self!r}")
        if not isinstance(self.values, Mapping) or bool(self.values) != (self.verdict == "edit"):
            raise UserError(f"an edit needs values by parameter name, and nothing else takes some: {self!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the review as JSON data."""
        return {
            "verdict": self.verdict,
            "comment": self.comment,
            "values": dict(self.values),
            "by": self.by,
            "at": self.at,
        }

    @classmethod
    def from_json(cls, data: Any) -> Review:
        """Read what ``to_json`` wrote, or what a person's tool sends: a verdict as text, or an object with some fields.

        Raises:
            UserError: It is neither, or a field is unknown or wrong.
        """
        given = {"verdict": data} if isinstance(data, str) else data
        if isinstance(given, Review):
            return given
        known = {"verdict", "comment", "values", "by", "at"}
        if not isinstance(given, Mapping) or "verdict" not in given or set(given) - known:
            raise UserError(
                f"a review is an object with verdict, and comment, values and by where needed, not {data!r}"
            )
        return cls(**given)


@dataclass(frozen=True)
class ReviewRequest:
    """What a person is asked to judge: a candidate that passed the acceptance test, beside the incumbent.

    Attributes:
        step: Number of the acceptance test.
        optimizer: Who proposed the candidate.
        candidate: The candidate.
        incumbent: The best so far.
        reason: What the acceptance test said.
        score: Mean score of the candidate on the dev split.
        incumbent_score: The incumbent's.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        n: Examples compared.
        examples: Some examples whose score or answer changed, with both answers, as JSON data.
        parameters: Kind, description, constraint and JSON schema of each parameter, by name.
        edits: Edits of this candidate that did not pass: ``candidate`` (its id), ``outcome`` and ``reason`` of each.
    """

    step: int
    optimizer: str
    candidate: Candidate
    incumbent: Candidate
    reason: str
    score: float | None = None
    incumbent_score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    examples: tuple[Mapping[str, Any], ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edits: tuple[Mapping[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Hash of the question: the same question has the same answer."""
        edits = [one["candidate"] for one in self.edits]
        return content_hash(["review", self.step, self.incumbent.id, self.candidate.id, edits])

    @property
    def verdict(self) -> Verdict:
        """What the acceptance test said of the candidate."""
        return Verdict(
            "accepted",
            self.reason,
            self.candidate,
            self.score,
            self.incumbent_score,
            self.low,
            self.high,
            self.n,
        )

    @property
    def changed(self) -> list[str]:
        """Names of the parameters that the candidate changes."""
        before, after = self.incumbent.to_json()["values"], self.candidate.to_json()["values"]
        return [name for name in after if name not in before or before[name] != after[name]]

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON data, with its ``key`` and what ``changed``."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "key": self.key,
            "changed": self.changed,
            "candidate": self.candidate.to_json(),
            "incumbent": self.incumbent.to_json(),
            "examples": [dict(one) for one in self.examples],
            "parameters": {name: dict(one) for name, one in self.parameters.items()},
            "edits": [dict(one) for one in self.edits],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReviewRequest:
        """Read what ``to_json`` wrote."""
        return cls(
            candidate=Candidate.from_json(data["candidate"]),
            incumbent=Candidate.from_json(data["incumbent"]),
            examples=tuple(data["examples"]),
            parameters=data["parameters"],
            edits=tuple(data["edits"]),
            **{name: data[name] for name in _PLAIN},
        )


_PLAIN = ("step", "optimizer", "reason", "score", "incumbent_score", "low", "high", "n")

Reviewer = Callable[[ReviewRequest], "Review | str | Mapping[str, Any]"]
"""Answers a request: with a ``Review``, its JSON data, or a verdict as text."""
