"""Labelled few-shot search: which solved examples to show, found by successive halving.

Random sets of labelled train examples compete on the other train examples; each rung keeps the better half and doubles
the examples that the survivors are judged on (successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943). The
acceptance test then judges the winner on the dev split, which the search never reads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optograph.errors import UserError
from optograph.evals import Evaluation, Example, Task, Trial
from optograph.graphs import Candidate, DemosSpec
from optograph.optimizers.base import Optimizer, OptimizerContext, Plan


@dataclass(frozen=True, slots=True)
class FewShotOptions:
    """How the search works.

    Attributes:
        parameter: Name of the demonstrations parameter; None where the workflow has just one.
        sets: Random sets that compete, at least 2.
        size: Demonstrations in a set, at least 1.
        first_rung: Examples that each set is judged on in the first rung.
        pool: Share of the train split that demonstrations are drawn from; the rest judges them.
        output_field: Output field of the step that the expected answer fills; None where it is the only field that
            is no input field.
        input_fields: Input fields of the step, by the example's field; empty where the names are the same.
    """

    parameter: str | None = None
    sets: int = 12
    size: int = 8
    first_rung: int = 16
    pool: float = 0.5
    output_field: str | None = None
    input_fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sets < 2 or self.size < 1 or self.first_rung < 1 or not 0 < self.pool < 1:
            raise UserError(
                f"few-shot search needs sets >= 2, size >= 1, first_rung >= 1 and pool between 0 and 1, not {self!r}"
            )


@dataclass
class FewShotSearch(Optimizer):
    """Searches a demonstrations parameter by successive halving; it needs no optimizer model."""

    options: FewShotOptions = field(default_factory=FewShotOptions)

    def __post_init__(self) -> None:
        self.name = "fewshot"
        self._rung = 0
        self._alive: list[Candidate] = []
        self._judges: list[str] = []
        self._finished = False

    def bind(self, context: OptimizerContext, incumbent: Candidate) -> None:
        """Draw the sets."""
        super().bind(context, incumbent)
        rng = random.Random(f"fewshot/{context.seed}")  # noqa: S311 - reproducible search, not secrets
        name = self._parameter_name()
        train = list(context.task.train)
        rng.shuffle(train)
        cut = self._cut(len(train))
        pool, judges = train[:cut], train[cut:]
        self._judges = [example.id for example in judges]
        sets = [self._draw(pool, rng) for _ in range(self.options.sets)]
        self._alive = [
            incumbent.with_values({name: demos}, origin=f"fewshot: set {number}") for number, demos in enumerate(sets)
        ]

    def rounds(self) -> int:
        """One acceptance test, of the winner."""
        return 1

    def plan(self, task: Task) -> Plan:
        """Count the rungs; sets that are drawn twice are run once.

        Raises:
            UserError: The train split is too small.
        """
        options = self.options
        pool = self._cut(len(task.train))
        judges = len(task.train) - pool
        runs, width, alive = 0, 0, options.sets
        while alive > 1:
            wider = min(judges, options.first_rung if width == 0 else 2 * width)
            runs += alive * (wider - width)
            width, alive = wider, alive // 2
        distinct = math.perm(pool, min(options.size, pool)) >= 100 * options.sets**2
        bytes_each = sum(len(repr((row.input, row.expected)).encode()) for row in task.train) // len(task.train)
        return Plan(
            train=(runs if distinct else min(judges, options.first_rung), runs),
            candidates=(options.sets if distinct else 1, options.sets),
            dev=(1 if distinct else 0, 1),
            growth=options.size * (bytes_each // 2 + 32),
        )

    def ask(self) -> list[Trial]:
        """Return one trial for each set that is left."""
        if self._finished:
            return []
        return [Trial(candidate, "train", tuple(self._judges[: self._width()])) for candidate in self._alive]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Keep the better half; nominate the last one left."""
        means = [-math.inf if one.mean is None or one.missing else one.mean for one in evaluations]
        order = sorted(range(len(means)), key=lambda index: (-means[index], index))
        self._alive = [evaluations[index].trial.candidate for index in order[: max(1, len(order) // 2)]]
        self._rung += 1
        if len(self._alive) == 1:
            self._finished = True
            self.nomination = self._alive[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the sets that are left and the rung."""
        return super().state_dict() | {
            "rung": self._rung,
            "alive": [candidate.to_json() for candidate in self._alive],
            "judges": self._judges,
            "finished": self._finished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        super().load_state_dict(state)
        self._rung = state["rung"]
        self._alive = [Candidate.from_json(one) for one in state["alive"]]
        self._judges = list(state["judges"])
        self._finished = state["finished"]

    def _cut(self, train: int) -> int:
        """Return the size of the pool; the rest of the train split judges."""
        cut = max(self.options.size, round(train * self.options.pool))
        if train - cut < self.options.first_rung:
            raise UserError(
                f"few-shot search needs {cut + self.options.first_rung} train examples (a pool of {cut} and "
                f"{self.options.first_rung} to judge on), the task has {train}: add some, or lower size and first_rung"
            )
        return cut

    def _width(self) -> int:
        return min(len(self._judges), self.options.first_rung << self._rung)

    def _parameter_name(self) -> str:
        found = [name for name, parameter in self.context.parameters.items() if isinstance(parameter.spec, DemosSpec)]
        wanted = self.options.parameter
        if wanted is None and len(found) == 1:
            return found[0]
        if wanted in found:
            return str(wanted)
        raise UserError(f"few-shot search needs one demonstrations parameter; name one of {found!r}, not {wanted!r}")

    def _draw(self, pool: Sequence[Example], rng: random.Random) -> list[dict[str, Any]]:
        """Draw a set in which the expected answers are spread as evenly as they can be."""
        by_answer: dict[str, list[Example]] = {}
        for example in rng.sample(list(pool), len(pool)):
            by_answer.setdefault(repr(example.expected), []).append(example)
        drawn: list[Example] = []
        groups = list(by_answer.values())
        while len(drawn) < self.options.size and any(groups):
            for group in groups:
                if group and len(drawn) < self.options.size:
                    drawn.append(group.pop())
        rng.shuffle(drawn)
        return [self._demo(example) for example in drawn]

    def _demo(self, example: Example) -> dict[str, Any]:
        names = self.options.input_fields
        demo = {names.get(name, name): value for name, value in example.input.items()}
        return demo | {self._output_field(demo): example.expected}

    def _output_field(self, demo: Mapping[str, Any]) -> str:
        if self.options.output_field is not None:
            return self.options.output_field
        spec = self.context.parameters[self._parameter_name()].spec
        fields = [one for one in (getattr(spec, "fields", None) or ()) if one not in demo]
        if len(fields) == 1:
            return str(fields[0])
        raise UserError(
            f"few-shot search cannot tell which output field the answer fills: set output_field to one of {fields!r}"
        )
