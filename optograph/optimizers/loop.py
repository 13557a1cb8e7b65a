"""The outer loop as a LangGraph graph: ask → evaluate → tell → accept → review → ask … Its state holds ids only.

The journal holds all that a later process needs: the loop's state, its decisions and the optimizer's records are
written in one batch, so a killed loop goes on from the last whole step, and what it does again is answered from the
journal.
LangGraph's checkpoints are there to look at; nothing is ever read back from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from optograph.errors import BudgetExceeded, UserError, WaitingForReview
from optograph.evals import Evaluation, Evaluator, Trial
from optograph.graphs import Candidate
from optograph.optimizers import reviews
from optograph.optimizers.accept import AcceptanceRule, judge
from optograph.optimizers.base import Optimizer, Verdict
from optograph.optimizers.checkpoints import checkpointing
from optograph.optimizers.loopgraph import LoopState, Node, apart, loop_graph
from optograph.optimizers.records import Decision, LoopEvent, LoopResult
from optograph.optimizers.reviews import Review, ReviewDesk, ReviewRequest
from optograph.storage import Journal, content_hash

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

RECURSION_LIMIT = 100_000
STATE = reviews.LOOP_STATE


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
        desk: Where candidates that passed the acceptance test are reviewed; None for a loop without reviews.
        state_name: Name of the loop's state in the journal, for a run that holds several loops.
        steps_before: Acceptance tests before this loop, in a run of which it is a part; None where it is the whole run,
            so that it records the starting point.
    """

    optimizer: Optimizer
    evaluator: Evaluator
    journal: Journal
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    observer: Callable[[LoopEvent], None] | None = None
    spent: Callable[[], int] = lambda: 0
    limits: Any = None
    measured: Callable[[Evaluation], None] | None = None
    desk: ReviewDesk | None = None
    state_name: str = STATE
    steps_before: int | None = None

    def __post_init__(self) -> None:
        self._trials: list[Trial] = []
        self._evaluations: list[Evaluation] | None = None
        self._dev = tuple(example.id for example in self.evaluator.task.dev)
        self._step = self.steps_before or 0
        self._start = self.optimizer.incumbent
        self._start_dev: Evaluation | None = None
        self._ended: str | None = None
        self._state: dict[str, Any] = {}
        self._request: ReviewRequest | None = None
        self._edits: tuple[Mapping[str, Any], ...] = ()
        self._stream: Callable[[Any], None] | None = None

    def run(self) -> LoopResult:
        """Run to the end, from the start or from where the journal says, and return what was found.

        Raises:
            BudgetExceeded: The budget covers not even the starting point and the final test.
            ServingError: The endpoint is down; what was learned so far is journalled.
            RunStopped: The run was asked to end; likewise.
            WaitingForReview: A person must judge a candidate first; likewise.
            StorageError: The journal or the checkpoint file cannot be written.
        """
        self.begin()
        if self._ended is None:
            self._search()
        return self.result()

    def begin(self) -> None:
        """Take up the journal's state and evaluate the starting point, once; the nodes of the graph do so as well.

        Raises:
            BudgetExceeded: The budget covers not even the starting point and the final test.
        """
        if self._start_dev is not None:
            return
        saved = self.journal.load_state(self.state_name)
        if saved is not None:
            self._restore(saved)
        self._tell("accept")
        (evaluation,) = self._evaluate([self._on_dev(self._start)])
        if self._ended is None:
            self._measure(evaluation)
            if saved is None and self.steps_before is None:
                verdict = Verdict("accepted", "The starting point.", self._start, evaluation.mean, n=len(self._dev))
                self._save(Decision(verdict, kind="seed"))
        self._start_dev = evaluation

    def result(self) -> LoopResult:
        """Return what was found so far.

        Raises:
            UserError: The loop has not begun.
        """
        if self._start_dev is None:
            raise UserError("the loop has not begun: call run(), or run its graph()")
        best = self.optimizer.incumbent
        return LoopResult(best, self._start, self._known(best), self._start_dev, self._ended or "finished")

    @property
    def steps(self) -> int:
        """Acceptance tests so far, with those before this loop."""
        return self._step

    def graph(self, checkpointer: Any = None) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the loop as a compiled LangGraph graph, to be drawn, streamed, or run with ``{"trials": []}``.

        Stream mode ``"updates"`` gives what each node did, as ids, and ``"custom"`` each ``LoopEvent`` as JSON data.
        Where nobody answers reviews, the graph is interrupted with what is to be reviewed; with a checkpointer it goes
        on with ``Command(resume={"verdict": "approve"})``. The journal is what counts, whatever the checkpointer holds.

        Args:
            checkpointer: LangGraph's, or None.
        """
        nodes: dict[str, Node] = {
            "start": self._start_node,
            "ask": self._ask_node,
            "evaluate": self._evaluate_node,
            "tell": self._tell_node,
            "accept": self._accept_node,
            "review": self._review_node,
        }
        return loop_graph({name: self._in_graph(node) for name, node in nodes.items()}, checkpointer)

    def _search(self) -> None:
        try:
            reached = apart(self._invoke)
        except BudgetExceeded as error:
            self._ended = "budget"
            self.journal.add_event("budget", reason=str(error))
            # The last whole step is what counts: what a spent budget cut off is done again, should the run go on.
            self._state |= {"ended": self._ended, "limits": self.limits}
            self.journal.save_state(self.state_name, self._state)
            return
        if "__interrupt__" in reached and self._request is not None:
            candidate = self._request.candidate.id
            raise WaitingForReview(f"the run waits for a review of candidate {candidate}", self._request.to_json())

    def _invoke(self) -> dict[str, Any]:
        with checkpointing(self.journal.directory) as checkpointer:
            thread = {"thread_id": f"life-{self.journal.lives}"}
            config: Any = {"recursion_limit": RECURSION_LIMIT, "configurable": thread}
            options: Any = {} if checkpointer is None else {"durability": "sync"}
            reached: dict[str, Any] = self.graph(checkpointer).invoke({"trials": []}, config, **options)
        return reached

    # -- nodes ------------------------------------------------------------------------------------

    def _in_graph(self, node: Node) -> Node:
        """Have a node begin the loop where it has not begun yet, and tell its events to whoever streams the graph."""

        def run(state: LoopState) -> dict[str, Any]:
            from langgraph.config import get_stream_writer

            self._stream = get_stream_writer()
            try:
                self.begin()
                return node(state)
            finally:
                self._stream = None

        return run

    def _start_node(self, state: LoopState) -> dict[str, Any]:
        if self._ended is None and self.optimizer.incumbent.id != self._start.id:
            self._measure(self._known(self.optimizer.incumbent))
        return {"nominated": self._nominated(), "review": None, "finished": self._ended is not None}

    def _ask_node(self, state: LoopState) -> dict[str, Any]:
        self._tell("ask")
        self._trials, self._evaluations = self.optimizer.ask(), None
        if not self._trials:
            self._ended = "finished"
            self._save()
        return {"trials": [_id(trial) for trial in self._trials], "finished": not self._trials}

    def _evaluate_node(self, state: LoopState) -> dict[str, Any]:
        self._tell("evaluate")
        self._evaluations = self._evaluate(self._asked())
        return {}

    def _tell_node(self, state: LoopState) -> dict[str, Any]:
        if self._evaluations is None:
            self._evaluations = self._evaluate(self._asked())
        self.optimizer.tell(self._evaluations)
        self._trials, self._evaluations = [], None
        self._save()
        return {"nominated": self._nominated()}

    def _accept_node(self, state: LoopState) -> dict[str, Any]:
        candidate = self.optimizer.nomination
        if candidate is None:
            return {"nominated": None, "review": None}
        self._tell("accept")
        verdict = self._test(candidate)
        if verdict.kind == "accepted" and self.desk is not None:
            self._request = self._request_for(verdict)
            self._save()
            self._tell("review")
            return {"review": self._request.key}
        self._settle(Decision(verdict, self.optimizer.incumbent.id))
        return {"nominated": None, "review": None}

    def _review_node(self, state: LoopState) -> dict[str, Any]:
        if self.optimizer.nomination is None or self.desk is None:
            return {"nominated": None, "review": None}
        if self._request is None:  # a graph that goes on in another process
            self._request = self._request_for(self._test(self.optimizer.nomination))
        review = self.desk.answer(self._request)
        if review.verdict == "edit":
            self._edit(self._request, review)
        else:
            self._answer(self._request, review)
        return {"nominated": self._nominated(), "review": None}

    def _asked(self) -> list[Trial]:
        """Return the trials of the last ``ask``; where a graph goes on in another process, it is asked again."""
        if not self._trials:
            self._trials = self.optimizer.ask()
        return self._trials

    def _nominated(self) -> str | None:
        nomination = self.optimizer.nomination
        return None if nomination is None else nomination.id

    # -- verdicts and reviews ---------------------------------------------------------------------

    def _test(self, candidate: Candidate) -> Verdict:
        """Make the acceptance test; where it is passed, the final test's cost is put aside."""
        incumbent = self.optimizer.incumbent
        after = before = None
        if candidate.id != incumbent.id:
            before, after = self._evaluate([self._on_dev(incumbent), self._on_dev(candidate)])
        verdict = judge(candidate, incumbent, after, before, self.rule)
        if verdict.kind == "accepted":
            self._measure(after)
        return verdict

    def _request_for(self, verdict: Verdict) -> ReviewRequest:
        incumbent = self.optimizer.incumbent
        before, after = self._evaluate([self._on_dev(incumbent), self._on_dev(verdict.candidate)])
        return reviews.make_request(
            verdict,
            incumbent,
            (before, after),
            self.evaluator.task,
            self.evaluator.parameters,
            step=self._step + 1,
            optimizer=self.optimizer.name,
            edits=self._edits,
        )

    def _answer(self, request: ReviewRequest, review: Review) -> None:
        """Do as a person said of the candidate."""
        verdict = reviews.with_review(request.verdict, review)
        record = reviews.record_of(request, review, verdict)
        self._settle(Decision(verdict, request.incumbent.id), feedback=(request, review), record=record)

    def _edit(self, request: ReviewRequest, review: Review) -> None:
        """Test what a person put in the candidate's place; where it does not pass, the person is asked again."""
        try:
            candidate = reviews.edited(request, review, self.evaluator.parameters)
        except UserError as error:  # a value that its parameter does not take
            verdict = Verdict("rejected", f"The edit cannot be used: {error}.", reviews.edited(request, review))
        else:  # outside the try: a scorer that fails is no fault of the edit, which is tested again after a resume
            verdict = self._test(candidate)
        verdict = reviews.with_review(verdict, review)
        record = reviews.record_of(request, review, verdict)
        decision = Decision(verdict, request.incumbent.id, optimizer=reviews.ORIGIN)
        if verdict.kind == "accepted":
            first = reviews.with_review(request.verdict, review)
            self._settle(
                Decision(first, request.incumbent.id, kind="edited"),
                decision,
                feedback=(request, review),
                record=record,
            )
            return
        tried = {"candidate": verdict.candidate.id, "outcome": verdict.kind, "reason": verdict.reason}
        self._edits = (*request.edits, tried)
        self._request = replace(request, edits=self._edits)
        self._save(decision, record=record)
        self._tell("verdict", verdict)

    def _settle(
        self,
        *decisions: Decision,
        feedback: tuple[ReviewRequest, Review] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the optimizer the last of the decisions, and write all of them down."""
        verdict = decisions[-1].verdict
        self._step += 1
        self._request, self._edits = None, ()
        self.optimizer.decided(verdict)
        said = None if feedback is None else reviews.feedback_of(*feedback)
        if said is not None:
            self.optimizer.advised(said)
        self._save(*decisions, record=record)
        self._tell("verdict", verdict)

    # -- records ----------------------------------------------------------------------------------

    def _restore(self, saved: dict[str, Any]) -> None:
        self._state = saved
        self._step = saved["step"]
        self._start = Candidate.from_json(saved["start"])
        self._edits = tuple((saved.get("review") or {}).get("edits", ()))
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["ended"] == "finished" or saved.get("limits") == self.limits:
            self._ended = saved["ended"]

    def _save(self, *decisions: Decision, record: Mapping[str, Any] | None = None) -> None:
        """Write the optimizer's records, the decisions and the state: all of them, or none."""
        batch = self.journal.batch()
        for name, data in self.optimizer.take_notes():
            batch.add_event(name, **data)
        if record is not None:
            batch.add_event(reviews.EVENT, **record)
        for one in decisions:
            # Edits are tested in the step of the candidate that they replace.
            step = self._step if self._request is None else self._request.step
            calls, seconds = self.spent(), self.journal.active_s
            batch.add_decision(one.row(step=step, optimizer=self.optimizer.name, calls=calls, seconds=seconds))
        self._state = {
            "step": self._step,
            "start": self._start.to_json(),
            "optimizer": self.optimizer.state_dict(),
            "ended": self._ended,
        }
        if self._ended is not None:
            self._state["limits"] = self.limits
        if self._request is not None:
            self._state["review"] = self._request.to_json()
        batch.save_state(self.state_name, self._state)
        batch.commit()

    def _evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        return apart(lambda: self.evaluator.evaluate(trials))

    def _measure(self, evaluation: Evaluation | None) -> None:
        if self.measured is not None and evaluation is not None:
            self.measured(evaluation)

    def _on_dev(self, candidate: Candidate) -> Trial:
        return Trial(candidate, "dev", self._dev)

    def _known(self, candidate: Candidate) -> Evaluation | None:
        """Return the dev evaluation of an accepted candidate; it is in the journal already."""
        rows = [self.journal.find_evaluation(candidate.id, "dev", example, 0) for example in self._dev]
        if any(row is None for row in rows):
            return None
        return self._evaluate([self._on_dev(candidate)])[0]

    def _tell(self, kind: str, verdict: Verdict | None = None) -> None:
        event = LoopEvent(kind, self.optimizer.name, self._step, self.optimizer.rounds(), verdict)
        if self.observer is not None:
            self.observer(event)
        if self._stream is not None:
            self._stream(event.to_json())


def _id(trial: Trial) -> str:
    return content_hash([trial.candidate.id, trial.split, trial.examples, trial.repeat])
