"""LangChain's own chat model for OpenAI's API inside nodes: calls are noted, prompts and settings are swapped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import FloatSpec, applying, tracing
from optograph.testing import LoopbackServer
from tests.agents.langgraph.small import State, chain

langchain_openai = pytest.importorskip("langchain_openai")  # wants a newer langchain-core than the lowest we allow

SYSTEM = "Answer the question in one short sentence."
NEW = "Answer as a pirate would."


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server that says what it was told."""
    with LoopbackServer(lambda body: f"alpha {body['messages'][0]['content'].split()[-1]}") as running:
        yield running


def node_of(model: Any, way: str) -> Callable[[State], Any]:
    """Return a node that asks a model in one of its ways."""

    def asked(state: State) -> list[tuple[str, str]]:
        return [("system", SYSTEM), ("user", state["plain"])]

    def node(state: State) -> State:
        if way == "stream":
            return {"plain": "".join(piece.text for piece in model.stream(asked(state)))}
        return {"plain": model.invoke(asked(state)).content}

    async def anode(state: State) -> State:
        if way == "astream":
            return {"plain": "".join([piece.text async for piece in model.astream(asked(state))])}
        return {"plain": (await model.ainvoke(asked(state))).content}

    return anode if way.startswith("a") else node


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_calls_are_noted_and_prompts_and_settings_swapped(server: LoopbackServer, way: str) -> None:
    options = {"model": "test-model", "base_url": server.url, "api_key": "x", "temperature": 0.1}

    async def run() -> Any:
        model = langchain_openai.ChatOpenAI(**options, stream_usage=True)
        app = chain(("a", node_of(model, way)))
        traced = trace_langgraph(app, extra={"a.model.temperature": FloatSpec(0, 1)})
        names = {one.text: one.name for one in traced.prompts}
        results = []
        for one, values in ((app, {}), (traced, {}), (traced, {names[SYSTEM]: NEW, "a.model.temperature": 0.9})):
            with tracing() as tape, applying(values):
                given = {"plain": "Why?"}
                results.append(await one.ainvoke(given) if way.startswith("a") else one.invoke(given))
        await model.root_async_client.close()
        model.root_client.close()
        return results, [note for value in tape for note in (value.info or {}).get("calls", ())]

    (expected, usual, other), (note,) = asyncio.run(run())
    assert usual == expected
    assert (usual["plain"], other["plain"]) == ("alpha sentence.", "alpha would.")
    assert [one.body["temperature"] for one in server.received] == [0.1, 0.1, 0.9]
    assert note["messages"] == [{"role": "system", "content": NEW}, {"role": "user", "content": "Why?"}]
    assert (note["model"], note["texts"], note["finish_reasons"]) == ("test-model", ["alpha would."], ["stop"])
    assert note["usage"][0] > 0 and note["usage"][1] == 2
