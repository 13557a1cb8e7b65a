"""What the journal holds, as typed records; large parts are content-addressed payloads named by their hash."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Row(BaseModel):
    """A frozen journal record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CallRow(Row):
    """One completed or failed model call."""

    key: str
    """Hash of identity, request and draw: equal keys are the same call."""
    context: dict[str, Any]
    """Fields of the ``CallContext`` that asked."""
    identity: dict[str, Any]
    """Endpoint, served name and weights that answered."""
    request: str
    """Payload hash of the request."""
    completion: str | None
    """Payload hash of the completion; None where the call failed."""
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    model: str = ""
    """Name of the model in the job, as prices and budgets know it."""
    usd: float | None = None
    """What the call cost, in US dollars; None where no price is known."""
    attempts: int = 1
    """How many requests were sent, retries included."""
    finish: str = ""
    """Why the answer ended, as the endpoint says: ``"stop"``, ``"length"`` …"""


class CandidateRow(Row):
    """One candidate: the values of the parameters, and where they came from."""

    id: str
    parents: tuple[str, ...] = ()
    origin: str = ""
    values: str
    """Payload hash of the values as JSON."""


class EvaluationRow(Row):
    """One example run under one candidate."""

    candidate: str
    split: str
    example: str
    repeat: int = 0
    feedback: dict[str, Any] | None
    """The scorer's feedback; None where the infrastructure failed and the score is missing."""
    output: str | None = None
    """Payload hash of the workflow's output."""
    subgraph: str | None = None
    """Payload hash of the subgraph that optimizers read."""
    trace: str | None = None
    """Payload hash of the whole trace."""
    error: str | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    truncated: int = 0
    """Calls whose answer was cut at its token limit."""
    order: tuple[str, ...] = ()
    """Keys of the answered calls, in an order that does not depend on how long the answers took; earlier programs wrote
    none."""

    @model_validator(mode="before")
    @classmethod
    def _without_dropped_fields(cls, data: Any) -> Any:
        """Read what earlier programs wrote: they had a field ``usd``, which nothing ever filled."""
        if isinstance(data, dict) and "usd" in data:
            return {name: value for name, value in data.items() if name != "usd"}
        return data


class DecisionRow(Row):
    """One verdict on a candidate, with its reason."""

    step: int
    optimizer: str
    candidate: str
    incumbent: str | None
    verdict: str
    reason: str
    score: float | None = None
    incumbent_score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    calls: int = 0
    seconds: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether it made the candidate the incumbent, as it does the starting one."""
        return self.verdict in ("accepted", "seed")
