"""OptoPrime: one proposal a step from the traced program and its feedback (Cheng et al. 2024, arXiv 2406.16218)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from optograph.errors import UserError
from optograph.evals import Evaluation, Task, Trial, answers_of
from optograph.graphs import Candidate, DemosSpec, Parameter, Subgraph, TextSpec, render
from optograph.graphs.showing import SECTIONS
from optograph.optimizers.base import Optimizer, OptimizerContext, Plan, Verdict
from optograph.optimizers.optoprime.answer import Answer
from optograph.optimizers.optoprime.memory import Memory, MemoryEntry
from optograph.optimizers.optoprime.problem import Problem, SuggestionProblem
from optograph.optimizers.optoprime.prompt import Evidence, compact_messages, full_messages
from optograph.optimizers.optoprime.propose import ProposalOptions, Proposing
from optograph.optimizers.optoprime.rewrite import RewriteProblem
from optograph.serving import Message

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


@dataclass(frozen=True, slots=True)
class OptoPrimeOptions:
    """How OptoPrime works.

    Attributes:
        steps: Proposals to make.
        parameters: Names (or patterns with ``*``) of the parameters to improve; empty for all but demonstrations.
        minibatch: Train examples whose runs are shown in a step, and on which a proposal must do no worse.
        style: ``"full"`` shows the traced program; ``"compact"`` is a short prompt for small models, about
            one parameter; an instruction is rewritten after the pattern of other tasks' instructions.
        one_at_a_time: Whether a step may change one parameter only, in turn; always so in the compact style.
        memory: Finished steps that later prompts show.
        budget_tokens: Longest rendering of the runs, in tokens.
        mask: Sections to leave out, such as ``"code"`` or ``"feedback"`` (the paper's masked ablation).
        temperature: Of the proposals.
        max_tokens: Longest proposal.
        repairs: How often an unusable answer is sent back.
    """

    steps: int = 8
    parameters: tuple[str, ...] = ()
    minibatch: int = 8
    style: Literal["full", "compact"] = "full"
    one_at_a_time: bool = False
    memory: int = 4
    budget_tokens: int = 3000
    mask: tuple[str, ...] = ()
    temperature: float = 0.7
    max_tokens: int = 1024
    repairs: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minibatch < 1 or self.memory < 0 or self.repairs < 0:
            raise UserError(
                f"OptoPrime needs steps and minibatch of at least 1, memory and repairs of at least 0: {self!r}"
            )
        if not 0 <= self.temperature <= 2 or self.max_tokens < 1 or self.budget_tokens < 64:
            raise UserError(
                f"OptoPrime needs temperature from 0 to 2, max_tokens >= 1 and budget_tokens >= 64: {self!r}"
            )
        unknown = sorted(set(self.mask) - set(SECTIONS))
        if unknown:
            raise UserError(f"mask names unknown sections {unknown!r}; known are {list(SECTIONS)!r}")
        if self.style not in ("full", "compact"):
            raise UserError(f"style must be 'full' or 'compact', not {self.style!r}")


@dataclass
class OptoPrime(Optimizer):
    """Shows a model the runs of a minibatch and their feedback, and takes new values from its answer.

    A step: run the incumbent on a minibatch with traces; one call (and bounded repairs) for new values; run them on the
    same minibatch; nominate them if they do no worse. Every step leaves an ``optoprime.step`` event in the journal.
    """

    options: OptoPrimeOptions = field(default_factory=OptoPrimeOptions)

    def __post_init__(self) -> None:
        self.name = "optoprime"
        self._step = 0
        self._batch: tuple[str, ...] = ()
        self._observed: Evaluation | None = None
        self._challenger: Candidate | None = None
        self._tried: set[str] = set()
        self._memory = Memory(self.options.memory)
        self._note: dict[str, Any] = {}

    def bind(self, context: OptimizerContext, incumbent: Candidate) -> None:
        """Start from an incumbent.

        Raises:
            UserError: There is no model to propose with, or no parameter to improve.
        """
        super().bind(context, incumbent)
        if context.lm is None:
            raise UserError(
                "OptoPrime needs a model that proposes: set models.optimizer in the job, or pass optimizer_lm"
            )
        self._tried.add(incumbent.id)
        self._targets()

    def rounds(self) -> int:
        """At most one acceptance test a step."""
        return self.options.steps

    def plan(self, task: Task) -> Plan:
        """Each step runs the incumbent and at most one proposal on a minibatch."""
        options = self.options
        batch, steps = min(options.minibatch, len(task.train)), options.steps
        if options.style == "compact":
            prompt, growth = (100, 3000), min(200, options.max_tokens)
        else:  # the runs, the instructions, what was tried, and an answer that is sent back
            tried = options.memory * (options.max_tokens + 100)
            growth = options.max_tokens
            prompt = (200, 2 * options.budget_tokens + 1000 + tried + options.max_tokens + 500)
        return Plan(
            train=(batch, 2 * batch * steps),
            candidates=(0, steps),
            dev=(0, steps),
            calls=(steps, steps * (options.repairs + 1)),
            prompt_tokens=prompt,
            max_tokens=options.max_tokens,
            growth=growth,
        )

    def ask(self) -> list[Trial]:
        """Return the incumbent's minibatch with traces, or the proposal's on the same minibatch."""
        while self._step < self.options.steps:
            if self._observed is None:
                self._batch = self._sample()
                return [Trial(self.incumbent, "train", self._batch, want_trace=True)]
            if self._challenger is None:
                self._propose(self._observed)
            if self._challenger is not None:
                return [Trial(self._challenger, "train", self._batch)]
            self._next_step()
        return []

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take in the observed runs, or compare the proposal with them."""
        (evaluation,) = evaluations
        if self._observed is None:
            self._observed = evaluation
            return
        challenger, before = self._challenger, self._observed.mean
        missing = evaluation.missing + self._observed.missing
        if challenger is None or evaluation.mean is None or before is None or missing:
            self._close("missing", "Scores are missing because the endpoint failed.")
            return
        changed = {name: self._plain(challenger, name) for name in self._note["changed"]}
        gate = f"{before:.3f} → {evaluation.mean:.3f} on the minibatch"
        self._memory.add(MemoryEntry(changed, evaluation.mean, _first_failure(evaluation)))
        if evaluation.mean >= before:
            self.nomination = challenger
            self._close("nominated", gate)
        else:
            self._close("worse", gate)

    def decided(self, verdict: Verdict) -> None:
        """Learn what became of the nomination; values that a person put in its place are not proposed again."""
        super().decided(verdict)
        self._tried.add(verdict.candidate.id)

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the graph of a proposal: render, propose, validate, repair.

        It asks about the runs that were observed last, and changes nothing: the loop's next ``ask`` proposes as ever.
        """
        lm = None if self._context is None else self._context.lm
        return Proposing(self._latest_problem, lm, self._sampling()).graph()

    def state_dict(self) -> dict[str, Any]:
        """Return the step, the memory, and what was tried."""
        return super().state_dict() | {
            "step": self._step,
            "memory": self._memory.to_json(),
            "tried": sorted(self._tried),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``; a step that was half done is done again from the journal."""
        super().load_state_dict(state)
        self._step = state["step"]
        self._memory = Memory.from_json(self.options.memory, state["memory"])
        self._tried = set(state["tried"])
        self._observed = self._challenger = None

    # -- a step -----------------------------------------------------------------------------------

    def _propose(self, observed: Evaluation) -> None:
        names = self._names()
        proposing = Proposing(lambda: self._problem(observed, names), self.context.lm, self._sampling())
        found = proposing.run()
        shown = proposing.problem.shown if proposing.problem is not None else {}
        self._note = {"step": self._step, "parameters": list(shown.values()), "changed": []}
        if found is None:
            self._record("unchanged", "None of the parameters had a part in the outputs.")
            return
        answer, calls = found
        self._note |= {
            "outcomes": {shown[alias]: [one.kind, one.reason] for alias, one in answer.outcomes.items()},
            "reasoning": answer.reasoning,
            "blame": [shown[alias] for alias in answer.blame],
            "calls": calls,
            "changed": sorted(shown[alias] for alias in answer.updates),
        }
        self._adopt(answer, shown)

    def _names(self) -> list[str]:
        targets = self._targets()
        return [targets[self._step % len(targets)]] if self._single else targets

    def _latest_problem(self) -> Problem:
        if self._observed is None:
            raise UserError(
                "OptoPrime has observed no runs yet, so there is nothing to render: call ask and tell first"
            )
        return self._problem(self._observed, self._names())

    def _adopt(self, answer: Answer, shown: Mapping[str, str]) -> None:
        if not answer.updates:
            kinds = sorted({one.kind for one in answer.outcomes.values()})
            reasons = "; ".join(dict.fromkeys(one.reason for one in answer.outcomes.values() if one.reason))
            self._record("/".join(kinds), reasons)
            return
        values = {
            shown[alias]: self.context.parameters[shown[alias]].spec.to_json(value)
            for alias, value in answer.updates.items()
        }
        child = self.incumbent.with_values(values, origin=f"optoprime: step {self._step + 1}")
        if child.id in self._tried:
            self._record("unchanged", "The proposed values were tried before.")
            return
        self._tried.add(child.id)
        self._challenger = child

    def _problem(self, observed: Evaluation, names: Sequence[str]) -> Problem:
        if self.options.style == "compact":
            return self._compact_problem(observed, names[0])
        hashes = [result.subgraph for result in observed.results if result.subgraph is not None]
        if not hashes:
            raise UserError(
                "the workflow's outputs are not traced, so there is no program to show: return the value that steps "
                "and ops give (not its .data), or use style='compact'"
            )
        subgraphs = [Subgraph.from_json(self.context.journal.get(one)) for one in hashes]
        frozen = [name for name in self.context.parameters if name not in names]
        rendering = render(subgraphs, budget_tokens=self.options.budget_tokens, mask=self.options.mask, frozen=frozen)
        return self._suggestion(full_messages(rendering, self._memory, self.advice), rendering.names)

    def _compact_problem(self, observed: Evaluation, name: str) -> Problem:
        spec, value = self.context.parameters[name].spec, self._value(self.incumbent, name)
        train = self.context.task.train
        if isinstance(spec, TextSpec):
            texts = [part for row in train for part in row.input.values() if isinstance(part, str)]
            return RewriteProblem(
                name,
                spec,
                value,
                source=self.context.parameters[name].base,
                answers=answers_of(train),
                texts=texts,
                seed=f"{self.context.seed}/{self._step}",
                wishes=[one.text for one in self.advice],
            )
        evidence = [Evidence(self.context.task.example("train", one.example), one) for one in observed.results]
        return self._suggestion(compact_messages(name, value, spec, evidence, self._memory, self.advice), {name: name})

    def _suggestion(self, messages: tuple[Message, ...], shown: Mapping[str, str]) -> Problem:
        specs = {alias: self.context.parameters[name].spec for alias, name in shown.items()}
        current = {alias: self._value(self.incumbent, name) for alias, name in shown.items()}
        return SuggestionProblem(messages, shown, specs, current)

    def _close(self, result: str, reason: str) -> None:
        self._record(result, reason)
        self._next_step()

    def _record(self, result: str, reason: str) -> None:
        self.note(
            "optoprime.step",
            **self._note,
            result=result,
            reason=reason,
            candidate=None if self._challenger is None else self._challenger.id,
            batch=list(self._batch),
            after=len(self.context.journal.decisions()),
        )

    def _next_step(self) -> None:
        self._step += 1
        self._observed = self._challenger = None

    # -- what it works on -------------------------------------------------------------------------

    @property
    def _single(self) -> bool:
        return self.options.one_at_a_time or self.options.style == "compact"

    def _targets(self) -> list[str]:
        known: Mapping[str, Parameter] = self.context.parameters
        patterns = self.options.parameters
        if patterns:
            found = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
        else:
            found = [name for name, parameter in known.items() if not isinstance(parameter.spec, DemosSpec)]
        if not found:
            raise UserError(f"no parameter matches {list(patterns)!r}; the workflow has {sorted(known)!r}")
        return found

    def _value(self, candidate: Candidate, name: str) -> Any:
        parameter = self.context.parameters[name]
        return parameter.spec.from_json(self._plain(candidate, name))

    def _plain(self, candidate: Candidate, name: str) -> Any:
        if name in candidate.values:
            return candidate.to_json()["values"][name]
        parameter = self.context.parameters[name]
        return parameter.spec.to_json(parameter.base)

    def _sample(self) -> tuple[str, ...]:
        train = [example.id for example in self.context.task.train]
        rng = random.Random(f"optoprime/{self.context.seed}/{self._step}")  # noqa: S311 - reproducible search
        return tuple(rng.sample(train, min(self.options.minibatch, len(train))))

    def _sampling(self) -> ProposalOptions:
        options = self.options
        return ProposalOptions(
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            repairs=options.repairs,
            seed=0 if self._context is None else self._context.seed,
            draw=self._step,
        )


def _first_failure(evaluation: Evaluation) -> str:
    for result in evaluation.results:
        if result.feedback is not None and result.feedback.failure_type:
            return result.feedback.text[:200]
    return ""
