"""The contract of every optimizer: ask for trials, be told their evaluations, nominate a candidate."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from optograph.errors import UserError
from optograph.evals import Evaluation, Task, Trial
from optograph.graphs import Candidate, Feedback, Parameter
from optograph.serving import LM
from optograph.storage import Journal

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


@dataclass(frozen=True, slots=True)
class OptimizerContext:
    """What an optimizer works with.

    Attributes:
        parameters: The workflow's trainable parameters, by name.
        task: Data and scorer; optimizers read the train split.
        journal: Where the evidence (subgraphs) is read from.
        lm: The model that proposes; None for optimizers that need none.
        seed: Seed of all randomness.
    """

    parameters: Mapping[str, Parameter]
    task: Task
    journal: Journal
    lm: LM | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the acceptance test said of a nominated candidate.

    Attributes:
        kind: ``"accepted"``, ``"rejected"``, ``"identical"`` (nothing changed) or ``"missing"`` (scores are missing).
        reason: In words.
        candidate: The candidate.
        score: Its mean score on the dev split.
        incumbent_score: The incumbent's.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        n: Examples compared.
    """

    kind: Literal["accepted", "rejected", "identical", "missing"]
    reason: str
    candidate: Candidate
    score: float | None = None
    incumbent_score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What an optimizer will ask for, told before it is bound; pairs are the least and the most.

    Runs that the journal knows already cost nothing and are not counted; nor is the starting point's run on dev.

    Attributes:
        train: Runs of a candidate on a train example.
        candidates: New candidates that are run on any example.
        dev: New candidates that are run on the whole dev split.
        calls: Calls of its own model.
        prompt_tokens: Tokens of the prompt of such a call, roughly.
        max_tokens: Most tokens of its answer.
        growth: Most tokens by which its candidates make each prompt of the workflow longer, roughly.
    """

    train: tuple[int, int] = (0, 0)
    candidates: tuple[int, int] = (0, 0)
    dev: tuple[int, int] = (0, 0)
    calls: tuple[int, int] = (0, 0)
    prompt_tokens: tuple[int, int] = (0, 0)
    max_tokens: int = 0
    growth: int = 0

    def then(self, other: Plan) -> Plan:
        """Return the plan of one optimizer after the other; the second may find its first runs in the journal."""

        def both(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
            return one[0] + two[0], one[1] + two[1]

        asking = [one for one in (self, other) if one.calls[1]]
        return Plan(
            train=(max(self.train[0], other.train[0]), self.train[1] + other.train[1]),
            candidates=both(self.candidates, other.candidates),
            dev=both(self.dev, other.dev),
            calls=both(self.calls, other.calls),
            prompt_tokens=(
                min((one.prompt_tokens[0] for one in asking), default=0),
                max((one.prompt_tokens[1] for one in asking), default=0),
            ),
            max_tokens=max(self.max_tokens, other.max_tokens),
            growth=self.growth + other.growth,
        )


@dataclass
class Optimizer(abc.ABC):
    """Improves a candidate by asking for trials.

    The outer loop calls ``bind`` once, then ``ask`` and ``tell`` in turn. After each ``tell`` it reads ``nomination``;
    where there is one, it is tested on held-out data and the verdict goes to ``decided``. An empty list from ``ask``
    means that the optimizer has finished. Given the same state and the same journal, ``ask`` gives the same trials.

    Attributes:
        name: Shown in reports.
        incumbent: The best candidate so far.
        nomination: A candidate worth the acceptance test, or None.
        advice: What people said in reviews, in order; an optimizer that asks a model shows it.
    """

    name: str = field(default="optimizer", init=False)
    incumbent: Candidate = field(default_factory=lambda: Candidate({}), init=False)
    nomination: Candidate | None = field(default=None, init=False)
    advice: list[Feedback] = field(default_factory=list, init=False, repr=False)
    _context: OptimizerContext | None = field(default=None, init=False, repr=False)
    _notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list, init=False, repr=False)

    def bind(self, context: OptimizerContext, incumbent: Candidate) -> None:
        """Start work on a workflow from an incumbent."""
        self._context = context
        self.incumbent = incumbent

    @property
    def context(self) -> OptimizerContext:
        """What ``bind`` gave.

        Raises:
            UserError: The optimizer is not bound yet.
        """
        if self._context is None:
            raise UserError(f"optimizer {self.name!r} is not bound to a workflow: run it with optograph.optimize(...)")
        return self._context

    @abc.abstractmethod
    def ask(self) -> list[Trial]:
        """Return the trials that are needed next; an empty list ends the optimizer."""

    @abc.abstractmethod
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from the evaluations of the last ``ask``, in the order of its trials."""

    def decided(self, verdict: Verdict) -> None:
        """Learn what became of the nomination; an accepted one is the new incumbent."""
        if verdict.kind == "accepted":
            self.incumbent = verdict.candidate
        self.nomination = None

    def advised(self, feedback: Feedback) -> None:
        """Take in what a person said of a nomination; the default keeps it for later prompts, and in the state."""
        self.advice.append(feedback)

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any] | None:
        """Return the LangGraph graph behind ``ask``, to be drawn or run; None where ``ask`` is plain code."""
        return None

    def note(self, kind: str, **data: Any) -> None:
        """Leave a record for the journal; it is written together with the next state, so never twice."""
        self._notes.append((kind, data))

    def take_notes(self) -> list[tuple[str, dict[str, Any]]]:
        """Hand over the records left since the last call."""
        taken, self._notes = self._notes, []
        return taken

    def plan(self, task: Task) -> Plan | None:
        """Return what the optimizer will ask for on a task, or None where it cannot know; needs no ``bind``."""
        return None

    @abc.abstractmethod
    def rounds(self) -> int:
        """Return how many acceptance tests the optimizer expects to ask for, for progress bars."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later process needs to go on, as JSON data; subclasses add their own."""
        state = {
            "incumbent": self.incumbent.to_json(),
            "nomination": None if self.nomination is None else self.nomination.to_json(),
        }
        return state | {"advice": [one.to_json() for one in self.advice]} if self.advice else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.incumbent = Candidate.from_json(state["incumbent"])
        nomination = state["nomination"]
        self.nomination = None if nomination is None else Candidate.from_json(nomination)
        self.advice = [Feedback.from_json(one) for one in state.get("advice", ())]
