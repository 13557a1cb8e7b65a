"""The training loop: collect → rows → train → serve → evaluate → decide, round after round, each phase journalled.

What a phase found and the state that names the next one are written in one batch, so that a killed run goes on with
the phase that it was in. Rollouts that are in the journal are not asked again; a training that was cut off is made
again and gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from optograph.errors import BudgetExceeded, UserError
from optograph.evals import Evaluation, Evaluator, Trial
from optograph.graphs import Candidate
from optograph.jobs.optimize import FinalTest, Session
from optograph.jobs.training.parameters import adapter_values
from optograph.jobs.training.parts import Trainer
from optograph.jobs.training.policy_lm import PolicyLM
from optograph.jobs.training.prompts import MakeOptimizer
from optograph.jobs.training.records import STATE, TrainState
from optograph.jobs.training.rounds import needed_adapters, opened_again
from optograph.jobs.training.section import PolicySection
from optograph.jobs.training.serving import Serving
from optograph.jobs.training.store import AdapterStore
from optograph.optimizers import LoopEvent, LoopResult, Verdict
from optograph.optimizers.records import Decision
from optograph.serving import LM
from optograph.storage import Batch

WORDS: Mapping[str, str] = {
    "start": "making the first adapter",
    "baseline": "testing the start on dev",
    "extrapolate": "extrapolating",
    "collect": "collecting rollouts",
    "rows": "making rows",
    "train": "training",
    "serve": "serving the new weights",
    "evaluate": "testing on dev",
    "decide": "deciding",
    "prompts": "optimizing prompts",
}
"""What a run says that it does in each phase."""


@dataclass
class TrainLoop:
    """Trains the policy of a session.

    Attributes:
        session: The run.
        section: The job's table about training.
        evaluator: Runs rollouts and dev evaluations.
        lm: The policy as the workflow asks it.
        serving: Serves adapters.
        store: Keeps adapters.
        trainer: Trains adapters.
        start_folder: Adapter to begin with, or None.
        start_rows: File to fine-tune on first, or None.
        embedded: Makes the model of a first round without a server.
        make_optimizer: Makes what works on the prompts between rounds.
        state: Where the loop stands.
    """

    session: Session
    section: PolicySection
    evaluator: Evaluator
    lm: PolicyLM
    serving: Serving
    store: AdapterStore
    trainer: Trainer
    start_folder: Path | None = None
    start_rows: Path | None = None
    embedded: Callable[[], LM] | None = None
    make_optimizer: MakeOptimizer | None = None

    def __post_init__(self) -> None:
        saved = self.session.journal.load_state(STATE)
        self.state = TrainState() if saved is None else TrainState.model_validate(saved)
        self.final_test = FinalTest(self.session)
        self.limits = self.session.budget.limits.to_json()

    def run(self) -> LoopResult:
        """Run to the end, from the start or from where the journal says, and return what was found.

        Raises:
            BudgetExceeded: The budget covers not even the starting point and the final test.
            ServingError: The server is down, or serves something else than was trained.
            RunStopped: The run was asked to end.
            StorageError: An adapter or the journal was damaged, or cannot be written.
        """
        from optograph.jobs.training.phases import PHASES

        self._take_up()
        while not self.state.status:
            self.session.books.stop.check()
            phase = self.state.phase
            self.tell(phase)
            try:
                PHASES[phase](self)
            except BudgetExceeded as error:
                if self.state.incumbent is None:
                    raise
                self.session.journal.add_event("budget", reason=str(error))
                self.save(self.state.but(status="budget", why=str(error), limits=self.limits))
        self.prune()
        start, best = self.start, self.incumbent
        before, after = self.on_dev(start, best)
        return LoopResult(best, start, after, before, self.state.status)

    def _take_up(self) -> None:
        """Go on where the state says; a run that had ended goes on where it may do more now."""
        state = self.state
        if state.status == "budget" and state.limits != self.limits:
            self.save(state.but(status="", why="", limits=None))
        elif state.status == "finished":
            going = opened_again(state, self.section)
            if going is not None:
                self.save(going)
        if not self.state.status and self.state.start is not None:
            for evaluation in self.on_dev(self.start, self.incumbent):
                self.final_test.put_aside(evaluation)

    # -- candidates -------------------------------------------------------------------------------

    @property
    def start(self) -> Candidate:
        """The starting point."""
        return _candidate(self.state.start)

    @property
    def incumbent(self) -> Candidate:
        """The best so far."""
        return _candidate(self.state.incumbent)

    @property
    def trained(self) -> Candidate:
        """The best so far with what the round has trained."""
        hashes = {name: link.current for name, link in self.state.round.links.items()}
        made = {name: one.adapter for name, one in self.state.round.trained.items()}
        return self.with_adapters(hashes | made, self.section.method)

    def with_adapters(self, hashes: Mapping[str, str], origin: str) -> Candidate:
        """Return the best so far with these adapters."""
        values = adapter_values(hashes)
        incumbent = self.incumbent
        same = all(incumbent.values.get(name) == value for name, value in values.items())
        return incumbent if same else incumbent.with_values(values, origin=origin)

    def on_dev(self, *candidates: Candidate) -> list[Evaluation]:
        """Evaluate candidates on dev; what the journal holds is not run again."""
        examples = tuple(example.id for example in self.session.task.dev)
        return self.evaluator.evaluate([Trial(one, "dev", examples) for one in candidates])

    # -- records ----------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        """Directory of the run."""
        directory = self.session.journal.directory
        if directory is None:
            raise UserError("training keeps adapters and rows in files: give the run a directory")
        return directory

    def save(
        self,
        state: TrainState,
        batch: Batch | None = None,
        *decisions: Decision,
        outcome: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the state, what the phase found and the decisions: all of it, or nothing."""
        batch = batch or self.session.journal.batch()
        calls, seconds = self.session.budget.calls, self.session.journal.active_s
        batch.add_event(f"training.{self.state.phase}", round=len(self.state.rounds), outcome=dict(outcome))
        for one in decisions:
            batch.add_decision(one.row(step=state.tests, optimizer=self.section.method, calls=calls, seconds=seconds))
        batch.save_state(STATE, state.model_dump(mode="json"))
        batch.commit()
        self.state = state

    def tell(self, phase: str, verdict: Verdict | None = None) -> None:
        """Say which phase begins, or what the verdict is."""
        number = len(self.state.rounds)
        if verdict is None:
            self.session.begin((f"round {number}: " if number else "") + WORDS[phase])
        self.session.view.loop(LoopEvent(phase, self.section.method, number, self.section.rounds, verdict))

    def prune(self) -> None:
        """Unload and remove adapters that the job's rule does not keep and nothing needs any more."""
        self.serving.only(needed_adapters(self.state, "best"))
        self.store.prune(needed_adapters(self.state, self.section.keep))


def _candidate(json: Mapping[str, Any] | None) -> Candidate:
    if json is None:
        raise UserError("the run has no starting point yet")
    return Candidate.from_json(json)
