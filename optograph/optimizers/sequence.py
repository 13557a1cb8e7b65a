"""Optimizers in sequence: each starts from the best candidate of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.evals import Evaluation, Task, Trial
from optograph.graphs import Candidate, Feedback
from optograph.optimizers.base import Optimizer, OptimizerContext, Plan, Verdict

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


@dataclass
class InSequence(Optimizer):
    """Runs stages one after the other over one workflow, so that one candidate holds what each of them found.

    Attributes:
        stages: The optimizers, in order.
    """

    stages: list[Optimizer] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("a sequence needs at least one optimizer")
        self.name = self.stages[0].name
        self._stage = 0

    def bind(self, context: OptimizerContext, incumbent: Candidate) -> None:
        """Start the first stage; the others are bound too, so that a mistake in one shows before anything is paid."""
        super().bind(context, incumbent)
        for stage in self.stages:
            stage.bind(context, incumbent)

    def rounds(self) -> int:
        """The sum of the stages' rounds."""
        return sum(stage.rounds() for stage in self.stages)

    def plan(self, task: Task) -> Plan | None:
        """The stages' plans one after the other; None where a stage cannot know."""
        whole = Plan()
        for stage in self.stages:
            plan = stage.plan(task)
            if plan is None:
                return None
            whole = whole.then(plan)
        return whole

    def ask(self) -> list[Trial]:
        """Ask the current stage; where it has finished, start the next."""
        while True:
            trials = self._current.ask()
            if trials or self._stage == len(self.stages) - 1:
                return trials
            self._begin(self._stage + 1)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Tell the current stage."""
        self._current.tell(evaluations)
        self.nomination = self._current.nomination

    def decided(self, verdict: Verdict) -> None:
        """Pass the verdict on."""
        super().decided(verdict)
        self._current.decided(verdict)

    def advised(self, feedback: Feedback) -> None:
        """Pass on what a person said; later stages hear it when they begin."""
        super().advised(feedback)
        self._current.advised(feedback)

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any] | None:
        """The graph of the current stage."""
        return self._current.graph()

    def take_notes(self) -> list[tuple[str, dict[str, Any]]]:
        """Hand over the stages' records."""
        return [*super().take_notes(), *(note for stage in self.stages for note in stage.take_notes())]

    def state_dict(self) -> dict[str, Any]:
        """Return the stage and its state."""
        return super().state_dict() | {"stage": self._stage, "current": self._current.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        super().load_state_dict(state)
        self._begin(state["stage"])
        self._current.load_state_dict(state["current"])

    def _begin(self, stage: int) -> None:
        self._stage = stage
        self.name = self._current.name
        self._current.bind(self.context, self.incumbent)
        self._current.advice = list(self.advice)

    @property
    def _current(self) -> Optimizer:
        return self.stages[self._stage]
