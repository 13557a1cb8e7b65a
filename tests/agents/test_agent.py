"""Agents: typed decisions and tools, every turn traced, every limit typed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from pydantic import BaseModel, field_validator

from optograph.agents import Agent, AgentOptions, AgentStep, AgentStopped, Module, Tool
from optograph.errors import BudgetExceeded, ModelError, ServingError, UserError
from optograph.evals import Evaluator, Example, SealedSplit, Task, Trial, exact
from optograph.graphs import Candidate, Feedback, OpError, Parameter, Value, applying, op, propagate, tracing
from optograph.serving import Budget, BudgetLimits, Capabilities, JournaledLM, Request, ScriptedLM, load_lm
from optograph.storage import Journal


class Question(BaseModel):
    """A question about numbers."""

    question: str


class Reply(BaseModel):
    """A number."""

    number: float

    @field_validator("number")
    @classmethod
    def _known(cls, number: float) -> float:
        if number == 13:
            raise ValueError("13 is never right")
        return number


def calculate(left: float, operator: Literal["add", "divide"], right: float) -> float:
    """Work something out.

    Args:
        left: A number.
    """
    return left + right if operator == "add" else left / right


async def price(item: str) -> float:
    """Look up a price."""
    await asyncio.sleep(0)
    return {"lamp": 24.0, "rug": 88.0}[item]


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({tool: arguments})


ADD = call("calculate", left=1, operator="add", right=2)
LAMP = call("price", item="lamp")


def answer(number: float) -> str:
    return call("answer", number=number)


def make(lm: ScriptedLM, *, tools: Sequence[Any] = (calculate, price), **options: Any) -> Agent:
    return Agent(
        "helper",
        lm=lm,
        inputs=Question,
        output=Reply,
        tools=tools,
        instruction="Use the tools.",
        options=AgentOptions(**options),
    )


def last_text(lm: ScriptedLM) -> str:
    return lm.requests[-1].messages[-1].content


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


def ancestors(value: Value) -> set[Value]:
    found: set[Value] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack.extend(one.parents)
    return found


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


def test_the_budget_ends_it() -> None:
    lm = ScriptedLM(lambda request: ADD)
    with Journal.memory() as journal:
        journaled = JournaledLM(lm, journal, Budget(BudgetLimits(calls=2)))
        with pytest.raises(BudgetExceeded):
            make(journaled, max_repeats=None)(question="?")  # type: ignore[arg-type]
        rows = journal.calls()
    assert [row.context["node"] for row in rows] == ["helper", "helper"]


@pytest.mark.parametrize(
    ("options", "replies", "reason", "tools_used"),
    [
        ({"max_steps": 2}, [ADD, LAMP], "max_steps", 2),
        ({"max_tool_calls": 1}, [ADD, LAMP], "max_tool_calls", 1),
        ({"max_tool_calls": 0}, [ADD], "max_tool_calls", 0),
        ({"max_repeats": 1}, [ADD, ADD, ADD], "repeated_call", 2),
        ({"max_repeats": 0}, [ADD, LAMP, LAMP], "repeated_call", 2),
    ],
)
def test_limits_end_with_a_typed_outcome(
    options: dict[str, Any], replies: list[str], reason: str, tools_used: int
) -> None:
    result = make(ScriptedLM(replies), **options).run(question="?")
    assert (result.output, result.stop_reason, len(result.steps)) == (None, reason, tools_used)
    names = {one.name for one in ancestors(result.value)}
    assert {"helper", "helper.decide", "helper.instruction"} <= names
    with pytest.raises(OpError, match="agent 'helper' stopped") as caught:
        make(ScriptedLM(replies), **options)(question="?")
    assert isinstance(caught.value.original, AgentStopped)
    assert caught.value.original.stop_reason == reason


def test_the_same_call_after_another_one_is_no_loop() -> None:
    result = make(ScriptedLM([ADD, LAMP, ADD, answer(3)]), max_repeats=0).run(question="?")
    assert result.stop_reason == "answered"
    assert make(ScriptedLM([ADD] * 5 + [answer(3)]), max_repeats=None).run(question="?").stop_reason == "answered"


def test_the_answer_can_be_forced_at_the_end() -> None:
    lm = ScriptedLM([ADD, answer(3)])
    result = make(lm, max_steps=2, force_answer=True).run(question="?")
    assert result.output == Reply(number=3)
    assert "calculate" not in lm.requests[1].messages[0].content
    assert "anyOf" not in json.dumps((lm.requests[1].schema or lm).to_json())  # type: ignore[union-attr]
    assert make(ScriptedLM([ADD, answer(3)]), max_tool_calls=1, force_answer=True).run(question="?").output


def test_the_deadline_ends_it_in_the_midst_of_a_slow_tool() -> None:
    async def sleep(seconds: float) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return "done"

    lm = ScriptedLM([ADD, call("sleep", seconds=60)])
    started = time.monotonic()
    result = make(lm, tools=[calculate, sleep], deadline_s=0.3).run(question="?")
    assert time.monotonic() - started < 20
    assert (result.stop_reason, len(result.steps)) == ("deadline", 1)
    assert "helper.calculate" in {one.name for one in ancestors(result.value)}


def test_a_tools_own_timeout_is_an_observation() -> None:
    def fetch() -> str:
        """Fetch."""
        raise TimeoutError("slow")

    result = make(ScriptedLM([call("fetch"), answer(0)]), tools=[fetch], deadline_s=60).run(question="?")
    assert result.steps[0].error == "TimeoutError: slow"


def test_long_results_are_cut_for_the_model_only() -> None:
    def read() -> str:
        """Read."""
        return "x" * 100

    lm = ScriptedLM([call("read"), answer(0)])
    result = make(lm, tools=[read], max_result_chars=10).run(question="?")
    assert result.steps[0].result == "x" * 100
    assert last_text(lm) == f"Result: {'x' * 10}… (90 characters left out)"


def test_a_conversation_that_has_grown_too_long_is_the_agents_failure() -> None:
    long = ServingError("the prompt is too long", kind="context_length")
    assert make(ScriptedLM([ADD, long])).run(question="?").stop_reason == "no_decision"
    with pytest.raises(ServingError):
        make(ScriptedLM([long]))(question="?")


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


def obedient(request: Request) -> str:
    """Call the tool that the instruction names with the number of the question, then answer with the result."""
    wanted = request.messages[0].content.split(".")[0]
    said = request.messages[-1].content
    if said.startswith("Result: "):
        return answer(float(said.removeprefix("Result: ")))
    return call("scale", number=float(said), factor=float(wanted))


def test_concurrent_candidates_do_not_see_each_other() -> None:
    unit = Parameter(1.0, name="unit")

    def scale(number: float, factor: float) -> float:
        """Scale a number."""
        time.sleep(0.001)
        return float(number * factor * unit.data)

    agent = make(ScriptedLM(obedient), tools=[scale])

    async def one(number: int) -> tuple[float, float]:
        with applying({"helper.instruction": f"{number}. Use it.", "unit": 10.0 + number}):
            value = await agent.acall(question=str(number + 1))
        return value.data.number, float((number + 1) * number * (10 + number))

    async def everyone() -> list[tuple[float, float]]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    results = asyncio.run(everyone())
    assert [got for got, _ in results] == [wanted for _, wanted in results]


def test_threads_with_candidates_of_their_own_do_not_see_each_other() -> None:
    def scale(number: float, factor: float) -> float:
        """Scale a number."""
        return number * factor

    agent = make(ScriptedLM(obedient), tools=[scale])

    def one(number: int) -> float:
        with applying({"helper.instruction": f"{number}. Use it."}):
            return float(agent(question="2").number.data)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(one, range(100))) == [2.0 * number for number in range(100)]


def test_tools_may_ask_models_and_other_agents() -> None:
    inner = make(ScriptedLM(lambda request: answer(7)))
    lm = ScriptedLM(["seven"])

    @op
    def consult(question: str) -> float:
        """Ask somebody else."""
        return float(inner(question=question).number.data + len(lm("How much?")))

    outer = Agent(
        "outer",
        lm=ScriptedLM([call("consult", question="?"), answer(12)]),
        inputs=Question,
        output=Reply,
        tools=[consult],
        instruction="Consult.",
    )
    value = outer(question="?")
    assert value.data == Reply(number=12)
    assert {"helper.decide", "helper.instruction", "outer.instruction"} <= {one.name for one in ancestors(value)}


class Shop(Module):
    def __init__(self, lm: ScriptedLM) -> None:
        self.discount = Parameter(0.5, name="shop.discount")
        self.agent = make(lm, tools=[self.sale])

    def sale(self, net: float) -> float:
        """Give the price of the day."""
        return float(net * self.discount.data)

    def forward(self, question: str) -> Any:
        return self.agent(question=question).number


def test_an_agent_in_a_module_and_a_tool_with_a_parameter() -> None:
    shop = Shop(ScriptedLM([call("sale", net=10), answer(5)]))
    assert sorted(shop.named_parameters()) == [
        "helper.demos",
        "helper.instruction",
        "helper.sale.description",
        "shop.discount",
    ]
    assert sorted(shop.agent.named_parameters()) == sorted(shop.named_parameters())
    assert [type(one).__name__ for one in shop.modules()] == ["Shop", "Agent"]
    assert "shop.discount" in {one.name for one in ancestors(shop(question="?"))}


@pytest.mark.parametrize("wrap", [lambda agent: agent, lambda agent: lambda question: agent(question=question)])
def test_an_evaluator_scores_a_limit_as_a_failure(wrap: Callable[[Agent], Any]) -> None:
    agent = make(ScriptedLM(lambda request: ADD if "loop" in request.text else answer(3)))
    rows = [Example(str(number), {"question": text}, {"number": 3.0}) for number, text in enumerate(["loop", "go"])]
    task = Task(rows, [Example("d", {"question": "d"}, 1)], SealedSplit([Example("t", {"question": "t"}, 1)]), exact())
    evaluator = Evaluator(wrap(agent), task, agent.named_parameters())
    (evaluation,) = evaluator.evaluate([Trial(Candidate({}), "train", ("0", "1"), want_trace=True)])
    failed, _ = evaluation.results
    assert failed.feedback is not None
    assert (failed.feedback.score, failed.feedback.failure_type) == (0.0, "AgentStopped")
    assert failed.calls == 4
    assert failed.subgraph is not None
    assert evaluation.missing == 0


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
