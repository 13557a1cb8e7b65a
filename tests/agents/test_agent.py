"""Agents: typed decisions and tools, every turn traced, demonstrations as turns."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from optograph.agents import Agent, AgentOptions, AgentStep, Tool
from optograph.errors import BudgetExceeded, ModelError, ServingError, UserError
from optograph.graphs import Feedback, OpError, Value, applying, propagate, tracing
from optograph.serving import Capabilities, ScriptedLM, load_lm
from tests.agents.helping import ADD, LAMP, Question, Reply, ancestors, answer, calculate, call, last_text, make, price


def test_it_calls_tools_and_answers_with_a_typed_value() -> None:
    lm = ScriptedLM([LAMP, call("calculate", left=24, operator="add", right=1), answer(25)])
    result = make(lm).run(question="A lamp and 1?")
    assert result.output == Reply(number=25)
    assert (result.stop_reason, result.error) == ("answered", None)
    assert result.steps == (
        AgentStep("price", {"item": "lamp"}, 24.0),
        AgentStep("calculate", {"left": 24.0, "operator": "add", "right": 1.0}, 25.0),
    )
    assert [(one.role, one.content) for one in lm.requests[-1].messages[1:]] == [
        ("user", "A lamp and 1?"),
        ("assistant", LAMP),
        ("user", "Result: 24.0"),
        ("assistant", '{"calculate": {"left": 24, "operator": "add", "right": 1}}'),
        ("user", "Result: 25.0"),
    ]


def test_calling_it_gives_the_traced_output_as_a_step_does() -> None:
    value = make(ScriptedLM([LAMP, answer(24)]))(question="?")
    assert isinstance(value, Value)
    assert value.data == Reply(number=24)
    assert value.number.data == 24
    assert asyncio.run(make(ScriptedLM([answer(1)])).acall(question="?")).data == Reply(number=1)


def test_a_decision_is_held_to_the_types_of_the_tools_and_the_answer() -> None:
    lm = ScriptedLM([answer(1)])
    make(lm)(question="?")
    schema = lm.requests[0].schema
    assert schema is not None
    text = json.dumps(schema.to_json())
    assert '"enum": ["add", "divide"]' in text
    assert '"required": ["answer"]' in text
    assert "Reply with one JSON object" in lm.requests[0].messages[0].content

    lm = ScriptedLM([answer(1)], capabilities=Capabilities())
    make(lm)(question="?")
    assert lm.requests[0].schema is None


def test_every_decision_and_every_tool_call_is_an_op() -> None:
    bad = call("price", item="sofa")
    with tracing() as tape:
        value = make(ScriptedLM([bad, LAMP, answer(24)]))(question="?")
    names = [one.name for one in tape if one.op is not None and one.name.startswith("helper")]
    assert names == ["helper.decide", "helper.price", "helper.decide", "helper.price", "helper.decide", "helper"]
    behind = ancestors(value)
    failed = [one for one in behind if one.name == "helper.price" and isinstance(one.data, dict)]
    assert [one.data["error"] for one in failed] == ["KeyError"]
    decisions = [one for one in behind if one.name == "helper.decide"]
    assert all(len((one.info or {})["calls"]) == 1 for one in decisions)


def test_feedback_reaches_the_instruction_and_the_descriptions() -> None:
    agent = make(ScriptedLM([LAMP, answer(24)]))
    value = agent(question="?")
    feedback = Feedback(score=0.0, text="Wrong.")
    subgraph = propagate(value, feedback, agent.parameters())
    assert set(subgraph.parameters) == {
        "helper.instruction",
        "helper.calculate.description",
        "helper.price.description",
        "helper.demos",
    }


def test_the_parameters_have_their_names_and_descriptions_are_used() -> None:
    lm = ScriptedLM([answer(1), answer(1)])
    agent = make(lm)
    assert sorted(agent.named_parameters()) == [
        "helper.calculate.description",
        "helper.demos",
        "helper.instruction",
        "helper.price.description",
    ]
    assert agent.named_parameters()["helper.calculate.description"].data == "Work something out."
    with applying({"helper.price.description": "Prices in euros.", "helper.instruction": "Be quick."}):
        agent(question="?")
    agent(question="?")
    changed, plain = (request.messages[0].content for request in lm.requests)
    assert changed.startswith("Be quick.")
    assert "Prices in euros." in changed
    assert "Prices in euros." not in plain
    assert plain.startswith("Use the tools.")


def test_wrong_arguments_are_asked_for_again_with_what_was_wrong() -> None:
    lm = ScriptedLM([call("calculate", left="one", operator="add", right=2), ADD, answer(3)])
    result = make(lm).run(question="?")
    assert result.output == Reply(number=3)
    assert len(result.steps) == 1
    assert "left: Input should be a valid number" in lm.requests[1].messages[-1].content
    assert len(lm.requests[2].messages) == 4  # the repair is no part of the conversation


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (call("divide", a=1), "there is no 'divide' here; use one of 'calculate', 'price', 'answer'"),
        ("I think it is 3.", "no complete JSON value"),
        (answer(13), "13 is never right"),
        (call("answer", figure=3), "number: Field required"),
    ],
)
def test_unusable_decisions_are_repaired(reply: str, complaint: str) -> None:
    lm = ScriptedLM([reply, answer(3)])
    assert make(lm)(question="?").number.data == 3
    assert complaint in last_text(lm)


def test_a_decision_that_was_cut_off_is_not_used() -> None:
    lm = ScriptedLM([f'{{"answer": {{"number": 3}}}} {"and so on " * 9}', answer(4)])
    assert make(lm, max_tokens=5)(question="?").number.data == 4
    assert "cut off at 5 tokens" in last_text(lm)


def test_without_a_usable_decision_it_ends_typed() -> None:
    lm = ScriptedLM([LAMP, "no", "no"])
    agent = make(lm)
    result = agent.run(question="?")
    assert (result.output, result.stop_reason) == (None, "no_decision")
    assert result.steps == (AgentStep("price", {"item": "lamp"}, 24.0),)
    assert result.error is not None
    assert isinstance(result.error.original, ModelError)
    assert "helper.price" in {one.name for one in ancestors(result.value)}
    with pytest.raises(OpError, match="no complete JSON"):
        make(ScriptedLM(["no", "no"]))(question="?")


def test_a_failing_tool_is_an_observation() -> None:
    lm = ScriptedLM([call("calculate", left=1, operator="divide", right=0), answer(0)])
    result = make(lm).run(question="?")
    assert result.output == Reply(number=0)
    assert result.steps[0].error == "ZeroDivisionError: float division by zero"
    assert last_text(lm) == "Error: ZeroDivisionError: float division by zero"


@pytest.mark.parametrize("error", [UserError("fix it"), BudgetExceeded("spent"), ServingError("gone")])
def test_errors_that_are_not_the_workflows_end_the_run(error: Exception) -> None:
    def fetch(name: str) -> str:
        """Fetch something."""
        raise error

    with pytest.raises(type(error), match=str(error)):
        make(ScriptedLM([call("fetch", name="x")]), tools=[fetch])(question="?")


DEMO: dict[str, Any] = {
    "question": "1 and 2?",
    "solution": {
        "calls": [{"tool": "calculate", "arguments": {"left": 1, "operator": "add", "right": 2}, "result": 3}],
        "answer": {"number": 3},
    },
}


def test_demonstrations_are_shown_as_turns() -> None:
    lm = ScriptedLM([answer(1)])
    with applying({"helper.demos": [DEMO]}):
        make(lm)(question="?")
    assert [one.content for one in lm.requests[0].messages[1:]] == [
        "1 and 2?",
        ADD,
        "Result: 3",
        answer(3),
        "?",
    ]


def test_a_demonstration_that_does_not_fit_fails_the_example_or_is_refused_early() -> None:
    agent = make(ScriptedLM([answer(1)]))
    unfit = [{"question": "?", "solution": {"reply": 3}}]
    with applying({"helper.demos": unfit}), pytest.raises(OpError, match="a demonstration's solution must be"):
        agent(question="?")
    with pytest.raises(UserError, match="a demonstration's solution must be"):
        Agent(
            "a",
            lm=agent.lm,
            inputs=Question,
            output=Reply,
            tools=[price],
            instruction="?",
            demos=[{"question": "?", "solution": 3}],
        )


def test_wrong_use_is_refused_early() -> None:
    lm = ScriptedLM([])
    with pytest.raises(UserError, match="has no tools"):
        make(lm, tools=[])
    with pytest.raises(UserError, match="two tools have the name 'price'"):
        make(lm, tools=[price, Tool(calculate, name="price")])
    with pytest.raises(UserError, match="the answer itself has the name 'answer'"):
        make(lm, tools=[Tool(price, name="answer")])

    class Taken(BaseModel):
        solution: str

    with pytest.raises(UserError, match="rename the input field 'solution'"):
        Agent("a", lm=lm, inputs=Taken, output=Reply, tools=[price], instruction="?")
    for bad in (
        {"max_steps": 0},
        {"max_steps": None},
        {"max_tokens": 1.5},
        {"repairs": -1},
        {"temperature": 3.0},
        {"deadline_s": 0.0},
        {"max_tool_calls": -1},
    ):
        with pytest.raises(UserError, match=next(iter(bad))):
            AgentOptions(**bad)
    with pytest.raises(OpError, match="does not fit Question"):
        make(lm)(wrong="?")


def test_on_the_embedded_model_every_decision_can_be_used() -> None:
    lm = load_lm("local/smollm2-135m", n_parallel=1)
    agent = Agent(
        "helper",
        lm=lm,
        inputs=Question,
        output=Reply,
        tools=[calculate, price],
        instruction="Use a tool, then answer with its result.",
        demos=[DEMO, {"question": "What is 4 plus 5?", "solution": {**DEMO["solution"], "answer": {"number": 9}}}],
        options=AgentOptions(max_tokens=60, max_steps=3, repairs=0),
    )
    try:
        results = [agent.run(question=text) for text in ("What is 7 plus 12?", "1 and 1?", "How much is a lamp?")]
    finally:
        asyncio.run(lm.aclose())
    assert all(result.stop_reason != "no_decision" for result in results)
    assert results[0].steps[0].tool == "calculate"
    assert isinstance(results[0].steps[0].arguments["left"], float)
