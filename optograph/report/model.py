"""The data of a run report: plain, validated records that any job can fill in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Characters that no HTML file or terminal may receive: C0 and C1 controls but tab and line feed, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"

NodeKind = Literal["input", "op", "parameter", "model-call", "output"]


def clean_text(text: str) -> str:
    r"""Return the text with line ends made ``\n`` and unprintable characters replaced by U+FFFD.

    Terminal escapes, NUL bytes and lone surrogates come out of models and data files; none of them may reach a
    terminal or a file in UTF-8.
    """
    return _UNSAFE.sub(_REPLACEMENT, text.replace("\r\n", "\n").replace("\r", "\n"))


def plain(value: Any) -> Any:
    """Return ``value`` as JSON data with clean texts; what JSON cannot hold becomes text.

    Rows of this module pass through untouched, so that a report may be built from rows or from dicts.
    """
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, (bool, int, Row)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {clean_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray)):
        return clean_text(repr(bytes(value)))
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return clean_text(str(value))


class Row(BaseModel):
    """Base of every record: frozen, no unknown fields, finite numbers, clean texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        return plain(data) if isinstance(data, Mapping) else data


class ModelRow(Row):
    """A model that took part: its role (``"task"``, ``"optimizer"``, ``"judge"``), name and weights identity."""

    role: str
    name: str
    identity: str = ""


class Splits(Row):
    """Number of examples in each split."""

    train: int = Field(default=0, ge=0)
    dev: int = Field(default=0, ge=0)
    test: int = Field(default=0, ge=0)


class Baseline(Row):
    """A score that asks no model: by default, always answering the most frequent class.

    Attributes:
        score: Its score, on the sealed test where there is one, else on the dev split.
        name: What the baseline does, in a few words.
    """

    score: float
    name: str = "majority class"


class StepRow(Row):
    """One decision of the run, in order.

    Attributes:
        step: Number of the step, from 0.
        optimizer: Name of the optimizer that proposed the candidate.
        candidate: Identifier of the candidate.
        parent: Identifier of the candidate it came from.
        dev_score: Its mean score on the dev split; None when nothing was measured.
        dev_low: Lower end of the 95 % interval of ``dev_score``.
        dev_high: Upper end of the 95 % interval of ``dev_score``.
        n: Number of examples behind ``dev_score``.
        incumbent_score: Dev score of the best accepted candidate after this step.
        decision: ``"seed"``, ``"accepted"``, ``"rejected"``, or another short word.
        reason: Why, in one or two sentences.
        calls_so_far: Model calls since the start of the run.
        seconds: Seconds since the start of the run.
    """

    step: int
    optimizer: str = ""
    candidate: str = ""
    parent: str | None = None
    dev_score: float | None = None
    dev_low: float | None = None
    dev_high: float | None = None
    n: int = Field(default=0, ge=0)
    incumbent_score: float | None = None
    decision: str = ""
    reason: str = ""
    calls_so_far: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)


class CandidateRow(Row):
    """A candidate: the values of all parameters, where they came from and how they did.

    Attributes:
        id: Identifier, unique in the report.
        parents: Identifiers of the candidates it came from; the first one is what differences are shown against.
        origin: Who made it, such as ``"seed"`` or ``"optoprime"``.
        values: Parameter name to value, as JSON data (text, code, number, list of demonstrations, ...).
        dev_score: Mean score on the dev split, or None.
        accepted: Whether it became the incumbent.
        final: Whether it is the run's result.
    """

    id: str
    parents: list[str] = []
    origin: str = ""
    values: dict[str, Any] = {}
    dev_score: float | None = None
    accepted: bool = False
    final: bool = False


class ParameterRow(Row):
    """A parameter of the workflow: its kind (``"text"``, ``"code"``, ``"demos"``, ``"int"``, ...) and its rules."""

    name: str
    kind: str = "text"
    description: str = ""
    constraint: str = ""


class TraceNode(Row):
    """A node of the traced graph.

    Attributes:
        id: Identifier, unique in the graph.
        label: Short name to draw.
        kind: What it is; decides how it is drawn.
        detail: Its value or source, possibly cut.
        on_feedback_path: Whether the feedback passed through it on its way back.
    """

    id: str
    label: str
    kind: NodeKind = "op"
    detail: str = ""
    on_feedback_path: bool = False


class TraceEdge(Row):
    """A value that flowed from node ``src`` into node ``dst``, under an argument name."""

    src: str
    dst: str
    label: str = ""


class TraceView(Row):
    """The traced graph of one example.

    Attributes:
        nodes: All nodes.
        edges: All edges; one that names an unknown node is left out.
        example: Identifier of the example.
        feedback: Text of the feedback that the example got.
        score: Score that the example got.
    """

    nodes: list[TraceNode] = []
    edges: list[TraceEdge] = []
    example: str = ""
    feedback: str = ""
    score: float | None = None


class ExampleRow(Row):
    """One example under the starting and the final candidate.

    Attributes:
        id: Identifier.
        input: What went in: a text, named fields, or other JSON data.
        expected: The right answer.
        before: Answer of the starting candidate.
        after: Answer of the final candidate.
        before_score: Score of ``before``; None when it is missing.
        after_score: Score of ``after``; None when it is missing.
        failure_type: Type of the failure of ``after``, if it failed.
        feedback: What the scorer said about ``after``.
    """

    id: str
    input: Any = ""
    expected: str = ""
    before: str = ""
    after: str = ""
    before_score: float | None = None
    after_score: float | None = None
    failure_type: str | None = None
    feedback: str = ""


class TestResult(Row):
    """The sealed test, read once at the end.

    Attributes:
        before: Mean score of the starting candidate.
        after: Mean score of the final candidate.
        difference: ``after - before``, paired by example.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of the 95 % interval of the difference.
        n: Number of examples.
        majority: Score of always giving the most frequent class, or None.
        method: How the interval was made.
    """

    __test__: ClassVar[bool] = False  # not a test case, whatever pytest makes of the name

    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int = Field(ge=0)
    majority: float | None = None
    method: str = "paired bootstrap"


class UsageRow(Row):
    """What one role spent on one model; ``usd`` is None where the price is unknown."""

    role: str
    model: str = ""
    calls: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    usd: float | None = None


class RunReport(Row):
    """Everything that the HTML report and the closing table of the command line show.

    Only ``title`` is required: a run that stopped early reports what it has.

    Attributes:
        title: Heading.
        run: Name of the run.
        task: What the workflow does, in one sentence.
        seed: Random seed.
        created: When, as an ISO 8601 text.
        workflow: Where the workflow comes from, such as ``"examples/reviews/app.py:build"``.
        status: ``"finished"`` or why it ended otherwise, in a few words.
        models: Models by role.
        splits: Sizes of the splits.
        metric_name: What a score measures; higher is better.
        perfect_score: The score of a right answer: it tells right from wrong examples.
        baseline: A score that asks no model.
        steps: Decisions in order.
        candidates: All candidates, parents first.
        parameters: Parameters of the workflow.
        trace: The traced graph of one example.
        examples: Per-example results before and after.
        test: Result on the sealed test.
        usage: Cost by role and model.
        failures: Failure type to count.
        duration_s: Active seconds of the run.
        schema_version: Version of this format.
    """

    title: str
    run: str = ""
    task: str = ""
    seed: int | None = None
    created: str = ""
    workflow: str = ""
    status: str = "finished"
    models: list[ModelRow] = []
    splits: Splits = Splits()
    metric_name: str = "score"
    perfect_score: float = 1.0
    baseline: Baseline | None = None
    steps: list[StepRow] = []
    candidates: list[CandidateRow] = []
    parameters: list[ParameterRow] = []
    trace: TraceView | None = None
    examples: list[ExampleRow] = []
    test: TestResult | None = None
    usage: list[UsageRow] = []
    failures: dict[str, int] = {}
    duration_s: float = Field(default=0.0, ge=0)
    schema_version: int = 1

    def candidate(self, identifier: str | None) -> CandidateRow | None:
        """Return the candidate of that identifier, or None."""
        return next((row for row in self.candidates if row.id == identifier), None)

    @property
    def first(self) -> CandidateRow | None:
        """The starting candidate: the first one without parents."""
        return next((row for row in self.candidates if not row.parents), None)

    @property
    def final(self) -> CandidateRow | None:
        """The candidate marked final, or else the last accepted one."""
        marked = [row for row in self.candidates if row.final] or [row for row in self.candidates if row.accepted]
        return marked[-1] if marked else None

    @property
    def accepted_steps(self) -> list[StepRow]:
        """The steps that changed the incumbent, without the starting one."""
        return [row for row in self.steps if row.decision == "accepted"]
