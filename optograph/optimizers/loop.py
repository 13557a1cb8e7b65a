"""The outer loop as a LangGraph graph: ask → evaluate → tell → accept → (ask | stop). Its state holds ids only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from optograph.errors import BudgetExceeded
from optograph.evals import Evaluation, Evaluator, Trial
from optograph.graphs import Candidate
from optograph.optimizers.accept import AcceptanceRule, judge
from optograph.optimizers.base import Optimizer, Verdict
from optograph.storage import DecisionRow, Journal, content_hash

RECURSION_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """Something that happened in the loop, for progress views.

    Attributes:
        kind: ``"ask"``, ``"evaluate"``, ``"accept"`` or ``"verdict"``.
        optimizer: Name of the optimizer at work.
        step: Acceptance tests so far.
        total: Acceptance tests expected.
        verdict: The verdict, where there is one.
    """

    kind: str
    optimizer: str
    step: int
    total: int
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How a loop ended.

    Attributes:
        best: The incumbent at the end.
        start: The candidate it began with.
        best_dev: Evaluation of the best on the dev split.
        start_dev: Evaluation of the start on the dev split.
        status: ``"finished"``, or ``"budget"`` where the budget was spent first.
    """

    best: Candidate
    start: Candidate
    best_dev: Evaluation | None
    start_dev: Evaluation | None
    status: str


class _State(TypedDict):
    trials: list[str]
    nominated: str | None
    finished: bool


@dataclass
class Loop:
    """Runs an optimizer over an evaluator until it finishes or the budget is spent.

    Attributes:
        optimizer: Bound to its workflow already.
        evaluator: Runs the trials.
        journal: Where decisions and states go.
        rule: How sure an acceptance must be.
        observer: Told what happens.
        spent: Gives the calls paid so far, for the record.
    """

    optimizer: Optimizer
    evaluator: Evaluator
    journal: Journal
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    observer: Callable[[LoopEvent], None] | None = None
    spent: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self._trials: list[Trial] = []
        self._evaluations: list[Evaluation] = []
        self._dev = tuple(example.id for example in self.evaluator.task.dev)
        self._step = 0
        self._started = time.monotonic()

    def run(self) -> LoopResult:
        """Run to the end and return what was found.

        Raises:
            ServingError: The endpoint is down; what was learned so far is journalled.
        """
        start = self.optimizer.incumbent
        status = "finished"
        start_dev: Evaluation | None = None
        try:
            self._tell("accept")
            (start_dev,) = self.evaluator.evaluate([self._on_dev(start)])
            self._record_start(start, start_dev)
            self._graph().invoke(
                {"trials": [], "nominated": None, "finished": False}, {"recursion_limit": RECURSION_LIMIT}
            )
        except BudgetExceeded as error:
            status = "budget"
            self.journal.add_event("budget", reason=str(error))
        best = self.optimizer.incumbent
        return LoopResult(best, start, self._known(best), start_dev, status)

    def _graph(self) -> Any:
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(_State)
        for name in ("ask", "evaluate", "tell", "accept"):
            graph.add_node(name, getattr(self, f"_{name}_node"))
        graph.add_edge(START, "ask")
        graph.add_conditional_edges("ask", lambda state: END if state["finished"] else "evaluate", ["evaluate", END])
        graph.add_edge("evaluate", "tell")
        graph.add_conditional_edges("tell", lambda state: "accept" if state["nominated"] else "ask", ["accept", "ask"])
        graph.add_edge("accept", "ask")
        return graph.compile()

    # -- nodes ------------------------------------------------------------------------------------

    def _ask_node(self, state: _State) -> dict[str, Any]:
        self._tell("ask")
        self._trials = self.optimizer.ask()
        ids = [content_hash([trial.candidate.id, trial.split, trial.examples, trial.repeat]) for trial in self._trials]
        return {"trials": ids, "finished": not ids}

    def _evaluate_node(self, state: _State) -> dict[str, Any]:
        self._tell("evaluate")
        self._evaluations = self.evaluator.evaluate(self._trials)
        return {}

    def _tell_node(self, state: _State) -> dict[str, Any]:
        self.optimizer.tell(self._evaluations)
        self.journal.save_state("optimizer", self.optimizer.state_dict())
        nomination = self.optimizer.nomination
        return {"nominated": None if nomination is None else nomination.id}

    def _accept_node(self, state: _State) -> dict[str, Any]:
        candidate, incumbent = self.optimizer.nomination, self.optimizer.incumbent
        if candidate is not None:
            self._tell("accept")
            after = before = None
            if candidate.id != incumbent.id:
                before, after = self.evaluator.evaluate([self._on_dev(incumbent), self._on_dev(candidate)])
            verdict = judge(candidate, incumbent, after, before, self.rule)
            self._step += 1
            self._record(verdict, incumbent)
            self.optimizer.decided(verdict)
            self.journal.save_state("optimizer", self.optimizer.state_dict())
            self._tell("verdict", verdict)
        return {"nominated": None}

    # -- records ----------------------------------------------------------------------------------

    def _on_dev(self, candidate: Candidate) -> Trial:
        return Trial(candidate, "dev", self._dev)

    def _known(self, candidate: Candidate) -> Evaluation | None:
        """Return the dev evaluation of an accepted candidate; it is in the journal already."""
        rows = [self.journal.find_evaluation(candidate.id, "dev", example, 0) for example in self._dev]
        if any(row is None for row in rows):
            return None
        return self.evaluator.evaluate([self._on_dev(candidate)])[0]

    def _record_start(self, start: Candidate, evaluation: Evaluation) -> None:
        self._add_decision(
            Verdict("accepted", "The starting point.", start, evaluation.mean, n=len(self._dev)), None, "seed"
        )

    def _record(self, verdict: Verdict, incumbent: Candidate) -> None:
        self._add_decision(verdict, incumbent.id, verdict.kind)

    def _add_decision(self, verdict: Verdict, incumbent: str | None, kind: str) -> None:
        self.journal.add_decision(
            DecisionRow(
                step=self._step,
                optimizer=self.optimizer.name,
                candidate=verdict.candidate.id,
                incumbent=incumbent,
                verdict=kind,
                reason=verdict.reason,
                score=verdict.score,
                incumbent_score=verdict.incumbent_score,
                low=verdict.low,
                high=verdict.high,
                n=verdict.n,
                calls=self.spent(),
                seconds=time.monotonic() - self._started,
            )
        )

    def _tell(self, kind: str, verdict: Verdict | None = None) -> None:
        if self.observer is not None:
            self.observer(LoopEvent(kind, self.optimizer.name, self._step, self.optimizer.rounds(), verdict))
