"""How a run is done, who watches it, and what it found: the records that the parts of a run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from optograph.errors import UserError
from optograph.evals import Evaluation, EvaluatorOptions, Interval
from optograph.graphs import Candidate
from optograph.jobs.paths import path_of
from optograph.optimizers import AcceptanceRule, LoopEvent, Reviewer
from optograph.serving import BudgetLimits, PriceTable


class View(Protocol):
    """Watches a run."""

    def loop(self, event: LoopEvent) -> None:
        """Told what the loop does."""

    def progress(self, done: int, total: int) -> None:
        """Told as examples finish."""

    def phase(self, text: str) -> None:
        """Told which part of the run begins."""

    def spent(self, calls: int, tokens: int) -> None:
        """Told what has been spent so far."""


class SilentView:
    """Shows nothing."""

    def loop(self, event: LoopEvent) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""

    def phase(self, text: str) -> None:
        """Ignore it."""

    def spent(self, calls: int, tokens: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The job that a run comes from, kept so that it can be resumed by its directory alone.

    Attributes:
        job: The job as JSON data, overrides applied.
        base: Folder that the job's paths are relative to.
        file: The job file.
        changed: Dotted names of settings that a resumed run may change, such as ``"budget.calls"``.
        command: Whether the job was run, or its policy trained.
    """

    job: Mapping[str, Any]
    base: Path
    file: Path | None = None
    changed: frozenset[str] = frozenset()
    command: Literal["run", "train"] = "run"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a run tells OpenTelemetry.

    Attributes:
        otel: Whether it makes spans; None: where the environment has ``OPTOGRAPH_OTEL=1``.
        content: Whether spans hold messages, feedback and error texts too; known secrets are blanked.
        provider: OpenTelemetry tracer provider that makes them; None for the one that the program has set, or else one
            that sends them where the ``OTEL_EXPORTER_OTLP_…`` variables say.
    """

    otel: bool | None = None
    content: bool = False
    provider: Any = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is done. Directories may be given as text; they are kept as paths.

    Attributes:
        seed: Seed of all randomness.
        evaluation: Concurrency and deadline.
        rule: How sure an acceptance must be.
        limits: Budget of the whole run, the final test included.
        prices: What tokens cost; needed for a limit in USD.
        run_dir: Directory of the journal and the report; None keeps everything in memory and writes no report. A
            directory that holds the same run already is continued.
        title: Heading of the report.
        workflow_name: Where the workflow comes from, for the report.
        fork: Directory of a run to start from: its best values, and its answers for calls that are the same.
        replay: Directory of a run that gives all answers; a call that it does not hold is an error.
        origin: The job that this comes from, where there is one.
        telemetry: Whether the run makes OpenTelemetry spans.
        on_event: Told what happens, with scores, for loggers of experiments; what it raises ends the run.
        review: Whether a person judges each candidate that passed the acceptance test: ``"never"``; ``"accepted"``,
            where the run ends with ``WaitingForReview`` and goes on once the review is in the run directory; or a
            function that is asked there and then.

    Raises:
        UserError: A directory is no path, both ``fork`` and ``replay`` are given, or ``review`` is none of these.
    """

    seed: int = 0
    evaluation: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    limits: BudgetLimits = field(default_factory=BudgetLimits)
    prices: PriceTable = field(default_factory=PriceTable)
    run_dir: Path | None = None
    title: str = ""
    workflow_name: str = ""
    fork: Path | None = None
    replay: Path | None = None
    origin: Origin | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)
    on_event: Callable[[RunEvent], None] | None = None
    review: Literal["never", "accepted"] | Reviewer = "never"

    def __post_init__(self) -> None:
        for name in ("run_dir", "fork", "replay"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, path_of(given, name))
        if self.fork is not None and self.replay is not None:
            raise UserError("a run either forks or replays another one: give fork or replay, not both")
        if not callable(self.review) and self.review not in ("never", "accepted"):
            raise UserError(f"review must be 'never', 'accepted' or a function of a ReviewRequest, not {self.review!r}")


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        best: The accepted candidate.
        start: The candidate it began with.
        status: ``"finished"`` or ``"budget"``.
        dev: Evaluations of start and best on the dev split.
        test: Evaluations of start and best on the sealed test.
        difference: Best minus start on the sealed test, paired by example, with its 95 % interval.
        report: Path of the HTML report, or None.
    """

    best: Candidate
    start: Candidate
    status: str
    dev: tuple[Evaluation | None, Evaluation | None]
    test: tuple[Evaluation, Evaluation]
    difference: Interval
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run.

    Attributes:
        kind: ``"begin"``, what the loop does (see ``LoopEvent``), or ``"end"``.
        step: Acceptance tests so far.
        calls: Model calls paid so far.
        tokens: Tokens used so far.
        scores: Mean scores by name, as far as they are known. At a verdict: ``dev`` (the candidate's) and ``incumbent``
            (of the best so far). At the end: ``dev_before``, ``dev_after``, ``test_before``, ``test_after``, and
            ``test_difference`` with its 95 % interval from ``test_low`` to ``test_high``.
        settings: At the beginning: title, task, optimizer, seed, sizes of the splits and models, by name.
        loop: What the loop does, with the whole verdict.
        result: At the end: the result of the run.
    """

    kind: str
    step: int = 0
    calls: int = 0
    tokens: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    loop: LoopEvent | None = None
    result: RunResult | None = None
