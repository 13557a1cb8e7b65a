"""How a run stands, read from its journal while another process may be writing in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from optograph.cli.rundirs import writer_of
from optograph.errors import StorageError
from optograph.report import FailureRow, LimitRow, RunFacts, TestResult, UsageRow
from optograph.report.record import Row
from optograph.report.sums import known_sum

if TYPE_CHECKING:
    from optograph.storage import DecisionRow, EvaluationRow, Journal

State = Literal["running", "waiting", "stopped", "interrupted", "failed", "budget", "finished", "unreadable"]

WORDS = {
    "running": "running",
    "waiting": "waiting for review",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
    "budget": "finished: the budget was spent",
    "finished": "finished",
    "unreadable": "cannot be read",
}
_ENDED = ("finished", "budget")
_SEARCHING = ("proposing", "trying on train", "testing on dev")


class Decision(Row):
    """One verdict: the step, who proposed, the candidate, the verdict with its reason, and the scores on dev."""

    step: int
    optimizer: str
    candidate: str
    verdict: str
    reason: str
    score: float | None = None
    incumbent_score: float | None = None


class RunLine(Row):
    """How a run stands, in short.

    Attributes:
        run: Name of the run.
        directory: Its directory.
        state: ``"running"``, ``"waiting"`` (for a review), ``"stopped"`` (by a stop file), ``"interrupted"`` (by a
            signal, or killed), ``"failed"``, ``"budget"`` (at its end, the budget spent), ``"finished"`` or
            ``"unreadable"``.
        pid: Process that writes in it, or None.
        phase: What it does, or did when it ended.
        error: Why it failed or cannot be read; empty otherwise.
        start_score: Mean score of the starting candidate on dev, or None.
        best_score: Likewise of the best candidate so far.
        best: Identifier of the best candidate so far, or None.
        decisions_made: Number of decisions.
        active_s: Seconds at work, summed over restarts.
        lives: How often it was started.
        review: What waits for a person: ``candidate``, ``step``, ``optimizer``, and of an answer that is not used yet
            ``verdict``, ``by`` and ``at``; None where nothing does.
    """

    run: str
    directory: str
    state: State
    pid: int | None = None
    phase: str = ""
    error: str = ""
    start_score: float | None = None
    best_score: float | None = None
    best: str | None = None
    decisions_made: int = 0
    active_s: float = 0.0
    lives: int = 0
    review: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is writing any more."""
        return self.state != "running"

    @property
    def can_resume(self) -> bool:
        """Whether there is something to continue."""
        return self.state in ("stopped", "interrupted", "failed") or (self.state == "waiting" and self.answered)

    @property
    def answered(self) -> bool:
        """Whether a review was written that the run has not used yet."""
        return bool((self.review or {}).get("by"))

    @property
    def words(self) -> str:
        """The state in a few words."""
        return "reviewed, to be resumed" if self.state == "waiting" and self.answered else WORDS[self.state]

    @property
    def headline(self) -> str:
        """The state in one line."""
        from optograph.report import svg

        words = self.words
        if self.state == "running" and self.pid is not None:
            words += f" (process {self.pid})"
        if self.phase and self.state not in (*_ENDED, "waiting"):
            words += f", {self.phase}"
        if self.best_score is not None and self.start_score is not None:
            words += f"; dev {svg.score(self.start_score)} → {svg.score(self.best_score)}"
        return f"{words}; {svg.duration(self.active_s)} at work"


class RunState(RunLine):
    """How a run stands, in full.

    Attributes:
        title: Heading of its report.
        job: The job file, or empty.
        optimizer: Who made the last decision.
        decisions: All decisions in order.
        calls: Model calls paid so far.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        usd: US dollars spent; None where a price is not known.
        usage: The same by role and model.
        limits: The budget and what of it was used.
        evaluations: Examples that have been run.
        failures: Failed examples of the search by type.
        failed_calls: Failed model calls by type.
        facts: Restarts and repairs.
        test: Result on the sealed test, once the run has ended.
        report: Path of the HTML report, or None.
    """

    title: str = ""
    job: str = ""
    optimizer: str = ""
    decisions: list[Decision] = Field(default_factory=list)
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    usage: list[UsageRow] = Field(default_factory=list)
    limits: list[LimitRow] = Field(default_factory=list)
    evaluations: int = 0
    failures: list[FailureRow] = Field(default_factory=list)
    failed_calls: dict[str, int] = Field(default_factory=dict)
    facts: RunFacts = RunFacts()
    test: TestResult | None = None
    report: str | None = None


def read_line(directory: Path) -> RunLine:
    """Return how a run stands in short; one that cannot be read says so instead of raising."""
    from optograph.storage import Journal

    try:
        with Journal.read(directory) as journal:
            return RunLine.model_validate(_short(directory, journal, journal.decisions()))
    except StorageError as error:
        return RunLine(run=directory.resolve().name, directory=str(directory), state="unreadable", error=str(error))


def read_state(directory: Path) -> RunState:
    """Return how a run stands in full.

    Raises:
        StorageError: The journal cannot be read.
    """
    from optograph.jobs import report_rows as rows_of
    from optograph.jobs.reporting import stored_setup
    from optograph.storage import Journal

    with Journal.read(directory) as journal:
        decisions = journal.decisions()
        setup = stored_setup(journal) or {}
        evaluations = rows_of.latest_evaluations(journal)
        search = [row for row in evaluations if row.split in rows_of.SEARCH_SPLITS]
        usage = rows_of.usage_rows(journal)
        short = _short(directory, journal, decisions)
        ended = short["state"] in _ENDED
        page = directory / "report.html"
        return RunState.model_validate(
            short
            | {
                "phase": _in_detail(short, journal, evaluations),
                "title": setup.get("report", {}).get("title") or short["run"],
                "job": str(rows_of.meta(journal, "job").get("file") or ""),
                "optimizer": decisions[-1].optimizer if decisions else "",
                "decisions": [_decision(row) for row in decisions],
                "calls": sum(row.calls for row in usage),
                "prompt_tokens": sum(row.prompt_tokens for row in usage),
                "completion_tokens": sum(row.completion_tokens for row in usage),
                "usd": known_sum(row.usd for row in usage),
                "usage": usage,
                "limits": rows_of.limit_rows(_limits(journal, setup), usage, journal.active_s),
                "evaluations": len(evaluations),
                "failures": rows_of.failure_rows(search),
                "failed_calls": _failed_calls(journal),
                "facts": rows_of.fact_row(journal),
                "test": _sealed_result(directory) if ended else None,
                "report": str(page) if page.is_file() else None,
            }
        )


def _short(directory: Path, journal: Journal, decisions: list[DecisionRow]) -> dict[str, Any]:
    from optograph.jobs.report_rows import meta

    status, pid = meta(journal, "status"), writer_of(directory)
    accepted = [row for row in decisions if row.accepted]
    state = _state(status.get("state"), alive=pid is not None, ended=(directory / "result.json").is_file())
    review = None if state in _ENDED else _review(journal)
    if review is not None and state == "interrupted":
        state = "waiting"  # killed while it began to wait
    return {
        "run": directory.resolve().name,
        "directory": str(directory),
        "state": state,
        "pid": pid,
        "phase": str(status.get("phase") or ""),
        "error": str(status.get("error") or ""),
        "start_score": decisions[0].score if decisions else None,
        "best_score": accepted[-1].score if accepted else None,
        "best": accepted[-1].candidate if accepted else None,
        "decisions_made": len(decisions),
        "active_s": journal.active_s,
        "lives": journal.lives,
        "review": review,
    }


def _review(journal: Journal) -> dict[str, Any] | None:
    """Return what a run wants a person to judge, and the answer where there is one."""
    from optograph.optimizers import pending_review

    pending = pending_review(journal)
    if pending is None:
        return None
    request, answer = pending
    said = {} if answer is None else {"verdict": answer.verdict, "by": answer.by, "at": answer.at}
    return {"candidate": request.candidate.id, "step": request.step, "optimizer": request.optimizer} | said


def _state(recorded: Any, *, alive: bool, ended: bool) -> str:
    """Return the state; what the run wrote last counts unless the process that wrote "running" is gone."""
    if alive:
        return "running"
    if recorded in WORDS and recorded != "running":
        return str(recorded)
    return "finished" if recorded is None and ended else "interrupted"


def _in_detail(short: dict[str, Any], journal: Journal, evaluations: list[EvaluationRow]) -> str:
    """Return what a run says that it does; of a search that goes on, also which part of it."""
    phase: str = short["phase"]
    if short["state"] != "running" or phase not in ("", "search"):
        return phase
    stage = _stage(journal, evaluations)
    return f"{phase}: {stage}" if phase and stage in _SEARCHING else phase or stage


def _stage(journal: Journal, evaluations: list[EvaluationRow]) -> str:
    """Say what a run does, by its latest records."""
    calls = journal.calls()
    if calls and calls[-1].context.get("role") == "optimizer":
        return _SEARCHING[0]
    words = dict(zip(("train", "dev"), _SEARCHING[1:], strict=True)) | {"test": "sealed test"}
    return words.get(evaluations[-1].split, "") if evaluations else "starting"


def _decision(row: DecisionRow) -> Decision:
    return Decision(
        step=row.step,
        optimizer=row.optimizer,
        candidate=row.candidate,
        verdict=row.verdict,
        reason=row.reason,
        score=row.score,
        incumbent_score=row.incumbent_score,
    )


def _limits(journal: Journal, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the limits that the run knows of, or else those of its job."""
    from optograph.jobs.report_rows import meta

    if "limits" in setup:
        return list(setup["limits"])
    budget = meta(journal, "job").get("job", {}).get("budget", {})
    roles = [("", budget), *((role, budget.get(role) or {}) for role in ("task", "optimizer", "judge"))]
    return [
        {"what": what, "limit": limits[what], "role": role}
        for role, limits in roles
        for what in ("calls", "tokens", "usd", "minutes")
        if limits.get(what) is not None
    ]


def _failed_calls(journal: Journal) -> dict[str, int]:
    """Count failed model calls by the type of their error."""
    kinds = Counter((call.error or "").partition(":")[0] for call in journal.calls() if call.completion is None)
    return dict(kinds.most_common())


def _sealed_result(directory: Path) -> TestResult | None:
    from optograph.jobs.reporting import load_report

    try:
        return load_report(directory).test
    except StorageError:  # the status is told all the same
        return None
