"""One proposal, as a small LangGraph graph: propose, validate, and repair a bounded number of times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from optograph.context import call_context
from optograph.errors import ModelError
from optograph.optimizers.optoprime.answer import Answer, ParameterOutcome
from optograph.optimizers.optoprime.problem import Problem
from optograph.serving import LM, JsonSchema, Message, Request, run_sync


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


def propose(lm: LM, problem: Problem, options: ProposalOptions) -> tuple[Answer, int]:
    """Ask for new values until the answer is usable or the repairs are spent.

    Args:
        lm: The model that proposes; where it can hold its answers to the problem's schema, it is made to.
        problem: What is asked, and how the answer is read.
        options: Sampling and repairs.

    Returns:
        The answer and the number of model calls. Valid values of a partly unusable answer are kept.

    Raises:
        ServingError: The endpoint failed; nothing was changed.
        BudgetExceeded: The budget is spent; nothing was changed.
    """
    from langgraph.graph import END, START, StateGraph

    def ask(state: _State) -> dict[str, Any]:
        text = _ask(lm, problem, state["messages"], options, state["attempts"])
        return {"text": text, "attempts": state["attempts"] + 1}

    def validate(state: _State) -> dict[str, Any]:
        return {"answer": _keep_valid(state["answer"], problem.read(state["text"]))}

    def repair(state: _State) -> dict[str, Any]:
        answer = state["answer"] or problem.read(state["text"])
        return {"messages": problem.again(state["attempts"], state["messages"], state["text"], answer)}

    def route(state: _State) -> str:
        usable = state["answer"] is not None and not state["answer"].problems
        return END if usable or state["attempts"] > options.repairs else "repair"

    graph = StateGraph(_State)
    graph.add_node("propose", ask)
    graph.add_node("validate", validate)
    graph.add_node("repair", repair)
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "validate")
    graph.add_conditional_edges("validate", route, ["repair", END])
    graph.add_edge("repair", "propose")
    start: _State = {"messages": problem.messages(), "text": "", "answer": None, "attempts": 0}
    end = graph.compile().invoke(start, {"recursion_limit": 4 * options.repairs + 12})
    answer: Answer = end["answer"]
    return answer, int(end["attempts"])


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
