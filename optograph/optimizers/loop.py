"""The outer loop as a LangGraph graph: ask → evaluate → tell → accept → (ask | stop). Its state holds ids only.

The journal holds all that a later process needs: the loop's state, its decisions and the optimizer's records are
written in one batch, so a killed loop goes on from the last whole step, and what it does again is answered from the
journal.
LangGraph's checkpoints are there to look at; nothing is ever read back from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from optograph.errors import BudgetExceeded
from optograph.evals import Evaluation, Evaluator, Trial
from optograph.graphs import Candidate
from optograph.optimizers.accept import AcceptanceRule, judge
from optograph.optimizers.base import Optimizer, Verdict
from optograph.optimizers.checkpoints import checkpointing
from optograph.storage import DecisionRow, Journal, content_hash

RECURSION_LIMIT = 100_000
STATE = "loop"


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
    start_dev: Evaluation
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
        limits: What the run may use, as JSON data; a search that the budget ended goes on only under other limits.
        measured: Told the dev evaluation of the starting point and of each candidate before it is accepted, so that the
            final test's cost can be put aside; may raise ``BudgetExceeded``.
    """

    optimizer: Optimizer
    evaluator: Evaluator
    journal: Journal
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    observer: Callable[[LoopEvent], None] | None = None
    spent: Callable[[], int] = lambda: 0
    limits: Any = None
    measured: Callable[[Evaluation], None] | None = None

    def __post_init__(self) -> None:
        self._trials: list[Trial] = []
        self._evaluations: list[Evaluation] = []
        self._dev = tuple(example.id for example in self.evaluator.task.dev)
        self._step = 0
        self._start = self.optimizer.incumbent
        self._ended: str | None = None
        self._state: dict[str, Any] = {}

    def run(self) -> LoopResult:
        """Run to the end, from the start or from where the journal says, and return what was found.

        Raises:
            BudgetExceeded: The budget covers not even the starting point and the final test.
            ServingError: The endpoint is down; what was learned so far is journalled.
            RunStopped: The run was asked to end; likewise.
            StorageError: The journal or the checkpoint file cannot be written.
        """
        saved = self.journal.load_state(STATE)
        if saved is not None:
            self._restore(saved)
        self._tell("accept")
        (start_dev,) = self.evaluator.evaluate([self._on_dev(self._start)])
        if self._ended is None:
            self._measure(start_dev)
            if saved is None:
                self._record_start(start_dev)
            self._search()
        best = self.optimizer.incumbent
        return LoopResult(best, self._start, self._known(best), start_dev, self._ended or "finished")

    def _search(self) -> None:
        try:
            if self.optimizer.incumbent.id != self._start.id:
                self._measure(self._known(self.optimizer.incumbent))
            self._invoke()
            self._ended = "finished"
        except BudgetExceeded as error:
            self._ended = "budget"
            self.journal.add_event("budget", reason=str(error))
        # The last whole step is what counts: what a spent budget cut off is done again, should the run go on.
        self._state |= {"ended": self._ended, "limits": self.limits}
        self.journal.save_state(STATE, self._state)

    def _measure(self, evaluation: Evaluation | None) -> None:
        if self.measured is not None and evaluation is not None:
            self.measured(evaluation)

    def _restore(self, saved: dict[str, Any]) -> None:
        self._state = saved
        self._step = saved["step"]
        self._start = Candidate.from_json(saved["start"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["ended"] == "finished" or saved.get("limits") == self.limits:
            self._ended = saved["ended"]

    def _save(self, verdict: Verdict | None = None, incumbent: str | None = None, kind: str | None = None) -> None:
        """Write the optimizer's records, the decision and the state: all of them, or none."""
        batch = self.journal.batch()
        for name, data in self.optimizer.take_notes():
            batch.add_event(name, **data)
        if verdict is not None:
            batch.add_decision(self._decision(verdict, incumbent, kind or verdict.kind))
        optimizer = self.optimizer.state_dict()
        self._state = {"step": self._step, "start": self._start.to_json(), "optimizer": optimizer, "ended": None}
        batch.save_state(STATE, self._state)
        batch.commit()

    def _invoke(self) -> None:
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(_State)
        for name in ("ask", "evaluate", "tell", "accept"):
            graph.add_node(name, getattr(self, f"_{name}_node"))
        # A loop that was killed between a nomination and its verdict begins with the acceptance test.
        graph.add_conditional_edges(START, lambda state: "accept" if state["nominated"] else "ask", ["accept", "ask"])
        graph.add_conditional_edges("ask", lambda state: END if state["finished"] else "evaluate", ["evaluate", END])
        graph.add_edge("evaluate", "tell")
        graph.add_conditional_edges("tell", lambda state: "accept" if state["nominated"] else "ask", ["accept", "ask"])
        graph.add_edge("accept", "ask")
        nomination = self.optimizer.nomination
        first: Any = {"trials": [], "nominated": None if nomination is None else nomination.id, "finished": False}
        with checkpointing(self.journal.directory) as checkpointer:
            thread = {"thread_id": f"life-{self.journal.lives}"}
            config: Any = {"recursion_limit": RECURSION_LIMIT, "configurable": thread}
            options: Any = {} if checkpointer is None else {"durability": "sync"}
            graph.compile(checkpointer=checkpointer).invoke(first, config, **options)

    # -- nodes ------------------------------------------------------------------------------------

    def _ask_node(self, state: _State) -> dict[str, Any]:
        self._tell("ask")
        self._trials = self.optimizer.ask()
        ids = [content_hash([trial.candidate.id, trial.split, trial.examples, trial.repeat]) for trial in self._trials]
        if not ids:
            self._save()
        return {"trials": ids, "finished": not ids}

    def _evaluate_node(self, state: _State) -> dict[str, Any]:
        self._tell("evaluate")
        self._evaluations = self.evaluator.evaluate(self._trials)
        return {}

    def _tell_node(self, state: _State) -> dict[str, Any]:
        self.optimizer.tell(self._evaluations)
        self._save()
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
            if verdict.kind == "accepted":
                self._measure(after)
            self._step += 1
            self.optimizer.decided(verdict)
            self._save(verdict, incumbent.id)
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

    def _record_start(self, evaluation: Evaluation) -> None:
        verdict = Verdict("accepted", "The starting point.", self._start, evaluation.mean, n=len(self._dev))
        self._save(verdict, None, "seed")

    def _decision(self, verdict: Verdict, incumbent: str | None, kind: str) -> DecisionRow:
        return DecisionRow(
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
            seconds=self.journal.active_s,
        )

    def _tell(self, kind: str, verdict: Verdict | None = None) -> None:
        if self.observer is not None:
            self.observer(LoopEvent(kind, self.optimizer.name, self._step, self.optimizer.rounds(), verdict))
