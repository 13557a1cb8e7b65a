"""Agents side by side and within each other: candidates do not mix, and parameters are found."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from optograph.agents import Agent, Module
from optograph.graphs import Parameter, applying, op
from optograph.serving import Request, ScriptedLM
from tests.agents.helping import Question, Reply, ancestors, answer, call, make


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
