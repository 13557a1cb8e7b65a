"""ChatModel in LangGraph apps, and on the embedded model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from optograph.agents import ChatModel
from optograph.serving import LlamaCppLM, Request, ScriptedLM, load_lm
from tests.agents.chatting import Person, multiply, weather


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def make_app(model: ChatModel, *, is_async: bool = False) -> Any:
    """A model with a tool, as LangGraph's documentation writes one."""
    bound = model.bind_tools([multiply])

    def call(state: State) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    async def acall(state: State) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    def use(state: State) -> dict[str, Any]:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        return {"messages": [multiply.invoke(one) for one in last.tool_calls]}

    def more(state: State) -> str:
        last = state["messages"][-1]
        return "use" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(State)
    graph.add_node("call", acall if is_async else call)
    graph.add_node("use", use)
    graph.add_edge(START, "call")
    graph.add_conditional_edges("call", more, ["use", END])
    graph.add_edge("use", "call")
    return graph.compile()


def tool_user(request: Request) -> str:
    """Multiply six by seven, then tell the result."""
    said = request.messages[-1].content
    if said.startswith("Result of multiply: "):
        return json.dumps({"reply": f"It is {said.rpartition(' ')[2]}."})
    return '{"multiply": {"left": 6, "right": 7}}'


QUESTION = {"messages": [("user", "What is 6 times 7?")]}


def test_in_a_langgraph_app() -> None:
    model = ChatModel(ScriptedLM(tool_user))
    states = [
        make_app(model).invoke(QUESTION),
        asyncio.run(make_app(model).ainvoke(QUESTION)),
        asyncio.run(make_app(model, is_async=True).ainvoke(QUESTION)),
    ]
    for state in states:
        assert [one.type for one in state["messages"]] == ["human", "ai", "tool", "ai"]
        assert state["messages"][-1].content == "It is 42."


def test_langgraph_streams_messages() -> None:
    app = make_app(ChatModel(ScriptedLM(tool_user)))
    pieces = [chunk for chunk, _ in app.stream(QUESTION, stream_mode="messages")]
    assert any(isinstance(one, AIMessageChunk) and one.tool_call_chunks for one in pieces)
    assert any(one.content == "It is 42." for one in pieces)

    async def astream() -> list[Any]:
        return [chunk async for chunk, _ in app.astream(QUESTION, stream_mode="messages")]

    assert any(one.content == "It is 42." for one in asyncio.run(astream()))


@pytest.fixture(scope="module")
def small() -> Iterator[LlamaCppLM]:
    lm = load_lm("local/smollm2-135m", n_parallel=1)
    assert isinstance(lm, LlamaCppLM)
    yield lm
    asyncio.run(lm.aclose())


def test_on_the_embedded_model(small: LlamaCppLM) -> None:
    model = ChatModel(small, max_tokens=40, token_ids=True)
    message = model.invoke([SystemMessage("Answer in one word."), HumanMessage("What colour is the sky?")])
    assert "blue" in str(message.content).lower()
    assert message.response_metadata["identity"]["weights"].startswith("sha256:b179c952")
    assert message.response_metadata["token_ids"]
    usage = message.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 10
    assert "".join(str(chunk.content) for chunk in model.stream("Say hello.")) == model.invoke("Say hello.").content


def test_tools_and_structured_output_on_the_embedded_model(small: LlamaCppLM) -> None:
    model = ChatModel(small, max_tokens=60)
    message = model.bind_tools([multiply, weather], tool_choice="multiply").invoke("What is 12 times 5?")
    assert set(message.tool_calls[0]["args"]) == {"left", "right"}
    assert all(isinstance(one, int) for one in message.tool_calls[0]["args"].values())
    person = model.with_structured_output(Person).invoke("Ann is 30 years old.")
    assert isinstance(person, Person)
    assert person.name == "Ann"


def test_a_langgraph_app_on_the_embedded_model(small: LlamaCppLM) -> None:
    class Facts(TypedDict):
        text: str
        person: Person
        line: str

    model = ChatModel(small, max_tokens=40)

    async def read(state: Facts) -> dict[str, Any]:
        return {"person": await model.with_structured_output(Person).ainvoke(state["text"])}

    def greet(state: Facts) -> dict[str, Any]:
        return {"line": model.invoke(f"Write a one-line greeting for {state['person'].name}.").content}

    graph = StateGraph(Facts)
    graph.add_node("read", read)
    graph.add_node("greet", greet)
    graph.add_edge(START, "read")
    graph.add_edge("read", "greet")
    state = asyncio.run(graph.compile().ainvoke({"text": "Ann is 30 years old."}))  # type: ignore[call-overload]
    assert state["person"].name == "Ann"
    assert state["line"]
