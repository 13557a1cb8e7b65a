"""The data of a run report: plain, validated records that any job can fill in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from optograph.report.credit import Credit
from optograph.report.record import Row
from optograph.report.reviewed import ReviewRow
from optograph.report.training import TrainingView

NodeKind = Literal["input", "op", "parameter", "model-call", "output"]
RunState = Literal["running", "waiting", "stopped", "interrupted", "failed", "budget", "finished"]


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
        gain: Dev score minus that of the incumbent it was tested against, paired by example.
        gain_low: Lower end of the 95 % interval of ``gain``.
        gain_high: Upper end of the 95 % interval of ``gain``.
        review: What a person said, where one was asked.
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
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    review: ReviewRow | None = None


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
    parents: list[str] = Field(default_factory=list)
    origin: str = ""
    values: dict[str, Any] = Field(default_factory=dict)
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

    nodes: list[TraceNode] = Field(default_factory=list)
    edges: list[TraceEdge] = Field(default_factory=list)
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
        truncated: Model answers behind ``after`` that were cut off at their length limit.
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
    truncated: int = Field(default=0, ge=0)


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
    """What one role spent on one model; ``usd`` is None where the price is unknown, ``failed`` counts calls in vain."""

    role: str
    model: str = ""
    calls: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    usd: float | None = None
    failed: int = Field(default=0, ge=0)


class LimitRow(Row):
    """One limit of the budget and what of it was used.

    Attributes:
        what: ``"calls"``, ``"tokens"``, ``"usd"`` or ``"minutes"``.
        used: Amount used so far, in that unit.
        limit: The most that may be used.
        role: The role that the limit binds; empty where it binds the whole run.
    """

    what: str
    used: float = Field(default=0.0, ge=0)
    limit: float = Field(gt=0)
    role: str = ""


class FailureRow(Row):
    """How often one type of failure occurred.

    Attributes:
        kind: Type, such as ``"timeout"``, ``"missing"`` or ``"truncated"``.
        search: Examples on the train and dev splits that ended so.
        before: Examples of the sealed test, under the starting candidate.
        after: Examples of the sealed test, under the final candidate.
    """

    kind: str
    search: int = Field(default=0, ge=0)
    before: int = Field(default=0, ge=0)
    after: int = Field(default=0, ge=0)

    @property
    def total(self) -> int:
        """All of them."""
        return self.search + self.before + self.after


class RunFacts(Row):
    """What happened to the run as a process.

    Attributes:
        lives: How many times it was started, the first time included.
        damaged_rows: Records of the journal that were found damaged and asked for again.
        damaged_payloads: Stored texts that were found damaged, likewise.
        quarantined: Name of the file that a broken journal was moved to; empty where there is none.
        copied_calls: Calls that were answered from the record of another run.
        repeated_calls: Calls that were answered and had to be made again.
        rebuilt: Whether decisions had to be worked out again from the evaluations.
        notes: Anything else worth knowing, one sentence each.
    """

    lives: int = Field(default=1, ge=0)
    damaged_rows: int = Field(default=0, ge=0)
    damaged_payloads: int = Field(default=0, ge=0)
    quarantined: str = ""
    copied_calls: int = Field(default=0, ge=0)
    repeated_calls: int = Field(default=0, ge=0)
    rebuilt: bool = False
    notes: list[str] = Field(default_factory=list)

    @property
    def restarts(self) -> int:
        """How many times it was started again."""
        return max(0, self.lives - 1)

    @property
    def damaged(self) -> int:
        """All damaged records."""
        return self.damaged_rows + self.damaged_payloads


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
        state: Whether the run goes on, waits for a review, was stopped, interrupted or failed, or came to its end
            (having spent its budget, or not).
        status: The same in a few words.
        models: Models by role.
        splits: Sizes of the splits.
        metric_name: What a score measures; higher is better.
        perfect_score: The score of a right answer: it tells right from wrong examples.
        baseline: A score that asks no model.
        steps: Decisions in order.
        candidates: All candidates, parents first.
        parameters: Parameters of the workflow.
        trace: The traced graph of one example.
        credit: What the evidence says about each node of the workflow.
        training: The rounds of the policy's training, in a run that trains one.
        examples: Per-example results before and after.
        examples_split: The split that ``examples`` come from: ``"test"``, or ``"dev"`` while the test is sealed.
        test: Result on the sealed test.
        usage: Cost by role and model.
        limits: The budget and what was used of it.
        failures: Failures by type.
        facts: Restarts and repairs.
        settings: The job's settings by dotted key, as JSON data.
        duration_s: Active seconds of the run.
        schema_version: Version of this format.
    """

    title: str
    run: str = ""
    task: str = ""
    seed: int | None = None
    created: str = ""
    workflow: str = ""
    state: RunState = "finished"
    status: str = "finished"
    models: list[ModelRow] = Field(default_factory=list)
    splits: Splits = Splits()
    metric_name: str = "score"
    perfect_score: float = 1.0
    baseline: Baseline | None = None
    steps: list[StepRow] = Field(default_factory=list)
    candidates: list[CandidateRow] = Field(default_factory=list)
    parameters: list[ParameterRow] = Field(default_factory=list)
    trace: TraceView | None = None
    credit: Credit | None = None
    training: TrainingView | None = None
    examples: list[ExampleRow] = Field(default_factory=list)
    examples_split: Literal["test", "dev"] = "test"
    test: TestResult | None = None
    usage: list[UsageRow] = Field(default_factory=list)
    limits: list[LimitRow] = Field(default_factory=list)
    failures: list[FailureRow] = Field(default_factory=list)
    facts: RunFacts = RunFacts()
    settings: dict[str, Any] = Field(default_factory=dict)
    duration_s: float = Field(default=0.0, ge=0)
    schema_version: int = 2

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, data: Any) -> Any:
        """Take in reports of the first version, whose failures were counts of the final test."""
        if not isinstance(data, Mapping) or not isinstance(data.get("failures"), Mapping):
            return data
        rows = [{"kind": kind, "after": number} for kind, number in data["failures"].items()]
        return {**data, "failures": rows, "schema_version": 2}

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
    def ended(self) -> bool:
        """Whether the run came to its end, so that the sealed test has been read."""
        return self.state in ("finished", "budget")

    @property
    def accepted_steps(self) -> list[StepRow]:
        """The steps that changed the incumbent, without the starting one."""
        return [row for row in self.steps if row.decision == "accepted"]
