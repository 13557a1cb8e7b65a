"""One proposal, as a small LangGraph graph: render, propose, validate, and repair a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from optograph.context import call_context
from optograph.errors import ModelError, UserError
from optograph.optimizers.loopgraph import apart
from optograph.optimizers.optoprime.answer import Answer, ParameterOutcome
from optograph.optimizers.optoprime.problem import Problem
from optograph.serving import LM, JsonSchema, Message, Request, run_sync

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


@dataclass(frozen=True, slots=True)
class ProposalOptions:
    """How proposals are sampled.

    Attributes:
        temperature: 0 to 2; above 0, so that steps differ.
        max_tokens: Most tokens of an answer.
        repairs: How often an unusable answer is sent back with what was wrong.
        seed: Sampling seed.
        draw: Number of this proposal, so that equal prompts give different samples.
    """

    temperature: float = 0.7
    max_tokens: int = 1024
    repairs: int = 2
    seed: int = 0
    draw: int = 0


class _State(TypedDict):
    messages: tuple[Message, ...]
    text: str
    answer: Answer | None
    attempts: int


@dataclass
class Proposing:
    """Asks for new values until the answer is usable or the repairs are spent.

    Attributes:
        render: Makes what is asked; one that shows no parameter is not asked.
        lm: The model that proposes; where it can hold its answers to the problem's schema, it is made to.
        options: Sampling and repairs.
        problem: What was asked, once ``run`` or the graph has made it.
    """

    render: Callable[[], Problem]
    lm: LM | None
    options: ProposalOptions
    problem: Problem | None = None

    def run(self) -> tuple[Answer, int] | None:
        """Return the answer and the number of model calls; None where there is nothing to ask.

        Valid values of a partly unusable answer are kept.

        Raises:
            ServingError: The endpoint failed; nothing was changed.
            BudgetExceeded: The budget is spent; nothing was changed.
        """
        start: _State = {"messages": (), "text": "", "answer": None, "attempts": 0}
        limit: Any = {"recursion_limit": 4 * self.options.repairs + 16}
        end = apart(lambda: self.graph().invoke(start, limit))  # prompts have no place in the loop's checkpoints
        return None if end["answer"] is None else (end["answer"], int(end["attempts"]))

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the graph: render, propose, validate, and repair a bounded number of times."""
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(_State)
        graph.add_node("render", self._render)
        graph.add_node("propose", self._propose)
        graph.add_node("validate", self._validate)
        graph.add_node("repair", self._repair)
        graph.add_edge(START, "render")
        graph.add_conditional_edges("render", lambda state: "propose" if self._made.shown else END, ["propose", END])
        graph.add_edge("propose", "validate")
        graph.add_conditional_edges("validate", lambda state: END if self._done(state) else "repair", ["repair", END])
        graph.add_edge("repair", "propose")
        return graph.compile()

    def _render(self, state: _State) -> dict[str, Any]:
        self.problem = self.render()
        return {"messages": self.problem.messages() if self.problem.shown else ()}

    def _propose(self, state: _State) -> dict[str, Any]:
        if self.lm is None:
            raise UserError("there is no model to propose with: bind the optimizer to a context with an lm")
        text = _ask(self.lm, self._made, state["messages"], self.options, state["attempts"])
        return {"text": text, "attempts": state["attempts"] + 1}

    def _validate(self, state: _State) -> dict[str, Any]:
        return {"answer": _keep_valid(state["answer"], self._made.read(state["text"]))}

    def _repair(self, state: _State) -> dict[str, Any]:
        answer = state["answer"] or self._made.read(state["text"])
        return {"messages": self._made.again(state["attempts"], state["messages"], state["text"], answer)}

    def _done(self, state: _State) -> bool:
        usable = state["answer"] is not None and not state["answer"].problems
        return usable or state["attempts"] > self.options.repairs

    @property
    def _made(self) -> Problem:
        if self.problem is None:
            raise UserError("the graph of a proposal begins with its render node")
        return self.problem


def _ask(lm: LM, problem: Problem, messages: tuple[Message, ...], options: ProposalOptions, attempt: int) -> str:
    request = Request(
        messages=messages,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
        draw=options.draw * (options.repairs + 1) + attempt,
        schema=JsonSchema(problem.schema, "suggestion") if lm.capabilities.json_schema else None,
    )
    with call_context(role="optimizer", node="optoprime"):
        try:
            return run_sync(lm.complete(request)).text
        except ModelError as error:
            return f"(no answer: {error})"


def _keep_valid(before: Answer | None, now: Answer) -> Answer:
    """Keep valid values of an earlier attempt where the repaired answer lost them."""
    if before is None or not before.updates:
        return now
    outcomes = dict(now.outcomes)
    for name, value in before.updates.items():
        if outcomes[name].kind != "updated":
            outcomes[name] = ParameterOutcome("updated", value)
    return Answer(outcomes, now.reasoning or before.reasoning, now.blame or before.blame, now.ignored)
