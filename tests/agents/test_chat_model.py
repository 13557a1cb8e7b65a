"""ChatModel: a LangChain chat model over our models, in LangGraph apps too, sync, async, streamed and with tools."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel

from optograph.agents import ChatModel, recording_calls
from optograph.errors import BudgetExceeded, ModelError, ServingError, UserError
from optograph.graphs import op
from optograph.serving import (
    Budget,
    BudgetLimits,
    CallEvent,
    Capabilities,
    Deadline,
    JournaledLM,
    LlamaCppLM,
    OpenAILM,
    Request,
    Retry,
    ScriptedLM,
    load_lm,
    observing,
)
from optograph.storage import Journal
from optograph.testing import LoopbackServer

TEXT = "one two three"


@tool
def multiply(left: int, right: int) -> int:
    """Multiply two whole numbers."""
    return left * right


def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
    """Tell the weather."""
    return f"sun in {city}, 20 {unit}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def asked(lm: ScriptedLM, number: int = -1) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in lm.requests[number].messages]


def test_messages_go_in_and_an_ai_message_comes_out() -> None:
    lm = ScriptedLM([TEXT])
    message = ChatModel(lm).invoke(
        [
            SystemMessage("Be brief."),
            HumanMessage("Hi"),
            AIMessage("Hello"),
            HumanMessage([{"type": "text", "text": "Go"}]),
        ]
    )
    assert asked(lm) == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Go")]
    assert (message.content, message.tool_calls) == (TEXT, [])
    usage = message.usage_metadata
    assert usage is not None
    assert usage["output_tokens"] == 3
    assert usage["total_tokens"] == usage["input_tokens"] + 3
    assert message.response_metadata["model_name"] == "scripted"
    assert message.response_metadata["finish_reason"] == "stop"
    assert "token_ids" not in message.response_metadata


def test_settings_reach_the_request_and_a_call_can_change_them() -> None:
    lm = ScriptedLM(lambda request: TEXT)
    model = ChatModel(lm, temperature=0.5, max_tokens=9, seed=3, top_p=0.9, stop_sequences=("END",))
    model.invoke("hi", stop=["three"])
    model.bind(temperature=1.0, max_tokens=1).invoke("hi", seed=4)
    first, second = lm.requests
    assert (first.temperature, first.max_tokens, first.seed, first.top_p) == (0.5, 9, 3, 0.9)
    assert first.stop == ("END", "three")
    assert (second.temperature, second.max_tokens, second.seed) == (1.0, 1, 4)
    with pytest.raises(UserError, match="no setting 'temperatur'"):
        model.invoke("hi", temperatur=1.0)
    with pytest.raises(UserError, match="temperature must be"):
        model.invoke("hi", temperature=9.0)
    assert model.invoke("hi", stop=["three"]).content == "one two "


def test_token_ids_and_logprobs_where_they_are_asked_for() -> None:
    metadata = ChatModel(ScriptedLM([TEXT]), token_ids=True, logprobs=1).invoke("hi").response_metadata
    assert len(metadata["token_ids"]) == len(metadata["logprobs"]) == 3
    assert metadata["prompt_token_ids"]


def test_wrong_use_is_refused() -> None:
    model = ChatModel(ScriptedLM([TEXT]))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(UserError, match="text only"):
        model.invoke([HumanMessage([image])])
    with pytest.raises(UserError, match="at least one message"):
        model.invoke([])
    with pytest.raises(UserError, match="system, human, ai and tool"):
        model.invoke([RemoveMessage(id="1")])
    with pytest.raises(UserError, match="a message's role is one of"):
        model.invoke([ChatMessage(role="critic", content="hi")])
    with pytest.raises(UserError, match="lm is a model"):
        ChatModel(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tool_choice is"):
        model.bind_tools([multiply], tool_choice="divide")


def test_errors_of_the_model_come_through() -> None:
    with pytest.raises(ServingError, match="gone"):
        ChatModel(ScriptedLM([ServingError("gone")])).invoke("hi")
    with pytest.raises(ServingError, match="gone"):
        asyncio.run(ChatModel(ScriptedLM([ServingError("gone")])).ainvoke("hi"))


def test_a_blocking_call_on_the_model_loop_says_so() -> None:
    from optograph.serving import run_sync

    model = ChatModel(ScriptedLM([TEXT]))

    async def block() -> None:
        model.invoke("hi")

    async def block_stream() -> None:
        list(model.stream("hi"))

    for coroutine in (block, block_stream):
        with pytest.raises(UserError, match="wait for ever"):
            run_sync(coroutine())


def test_a_tool_call_comes_out_and_its_result_goes_in() -> None:
    lm = ScriptedLM(['{"multiply": {"left": 6, "right": 7}}', '{"reply": "It is 42."}'])
    model = ChatModel(lm).bind_tools([multiply, weather])
    first = model.invoke([SystemMessage("Help."), HumanMessage("6 times 7?")])
    (call,) = first.tool_calls
    assert (first.content, call["name"], call["args"]) == ("", "multiply", {"left": 6, "right": 7})
    schema = lm.requests[0].schema
    assert schema is not None
    assert '"required": ["reply"]' in json.dumps(schema.to_json())
    assert asked(lm)[0][1].startswith("Help.\n\nReply with one JSON object")
    assert '{"weather": {"city": string, "unit": "C" | "F" (optional)}}' in asked(lm)[0][1]

    result = multiply.invoke(call)
    other = ToolMessage("no network", tool_call_id="x", name="weather", status="error")
    second = model.invoke([HumanMessage("6 times 7?"), first, result, other])
    assert (second.content, second.tool_calls) == ("It is 42.", [])
    assert asked(lm)[1:] == [
        ("user", "6 times 7?"),
        ("assistant", '{"multiply": {"left": 6, "right": 7}}'),
        ("user", "Result of multiply: 42\nError of weather: no network"),
    ]


def test_ids_of_calls_are_those_of_the_request() -> None:
    ids = {
        ChatModel(ScriptedLM(['{"weather": {"city": "Bern"}}'])).bind_tools([weather]).invoke(text).tool_calls[0]["id"]
        for text in ("a", "b", "a")
    }
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        (None, {"multiply", "weather", "reply"}),
        ("auto", {"multiply", "weather", "reply"}),
        ("any", {"multiply", "weather"}),
        ("required", {"multiply", "weather"}),
        (True, {"multiply", "weather"}),
    ],
)
def test_tool_choices(choice: Any, offered: set[str]) -> None:
    lm = ScriptedLM(['{"weather": {"city": "Bern"}}'])
    ChatModel(lm).bind_tools([multiply, weather], tool_choice=choice).invoke("hi")
    schema = lm.requests[0].schema
    assert schema is not None
    assert {next(iter(one["properties"])) for one in schema.to_json()["schema"]["anyOf"]} == offered


@pytest.mark.parametrize("choice", ["weather", {"type": "function", "function": {"name": "weather"}}])
def test_one_tool_that_must_be_called_is_asked_for_its_arguments_alone(choice: Any) -> None:
    lm = ScriptedLM(['{"city": "Bern"}', '{"weather": {"city": "Bern"}}'])
    model = ChatModel(lm).bind_tools([multiply, weather], tool_choice=choice)
    for _ in range(2):
        (call,) = model.invoke("hi").tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Bern"})
    schema = lm.requests[0].schema
    assert schema is not None
    assert set(schema.to_json()["schema"]["properties"]) == {"city", "unit"}


@pytest.mark.parametrize("choice", ["none", False])
def test_no_tool_may_be_called(choice: Any) -> None:
    lm = ScriptedLM([TEXT])
    assert ChatModel(lm).bind_tools([multiply], tool_choice=choice).invoke("hi").content == TEXT
    assert lm.requests[0].schema is None
    assert asked(lm) == [("user", "hi")]


def test_a_tool_may_be_called_reply() -> None:
    def reply(to: str) -> str:
        """Reply to a letter."""
        return to

    model = ChatModel(ScriptedLM(['{"reply": {"to": "Ann"}}', '{"reply_0": "no"}'])).bind_tools([reply])
    assert model.invoke("hi").tool_calls[0]["args"] == {"to": "Ann"}
    assert model.invoke("hi").content == "no"


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ('{"divide": {}}', "there is no 'divide' here"),
        ('{"multiply": {"left": 1}}', r"lack ['right'] and have unknown []"),
        ('{"multiply": {"left": 1, "right": 2, "by": 3}}', r"lack [] and have unknown ['by']"),
        ('{"reply": {"text": "x"}}', "'reply' must be given a text"),
        ('{"multiply": ', "no complete JSON value"),
    ],
)
def test_unusable_calls_are_repaired_and_paid_for(bad: str, complaint: str) -> None:
    lm = ScriptedLM([bad, '{"multiply": {"left": 1, "right": 2}}'])
    message = ChatModel(lm).bind_tools([multiply]).invoke("hi")
    assert message.tool_calls[0]["args"] == {"left": 1, "right": 2}
    assert complaint in asked(lm)[-1][1]
    usage = message.usage_metadata
    assert usage is not None
    assert usage["output_tokens"] > 5
    with pytest.raises(ModelError):
        ChatModel(ScriptedLM([bad]), repairs=0).bind_tools([multiply]).invoke("hi")


def test_a_model_that_is_held_to_nothing_may_just_talk() -> None:
    lm = ScriptedLM(["<think>hm</think>It is 42."], capabilities=Capabilities())
    message = ChatModel(lm).bind_tools([multiply]).invoke("6 times 7?")
    assert (message.content, message.tool_calls) == ("It is 42.", [])
    assert lm.requests[0].schema is None
    with pytest.raises(ModelError):
        ChatModel(ScriptedLM(["words", "words"])).bind_tools([multiply], tool_choice="any").invoke("hi")


def test_a_call_that_was_cut_off_is_not_used() -> None:
    lm = ScriptedLM(['{"multiply": {"left": 1, "right": 2}} and more', '{"reply": "x"}'])
    assert ChatModel(lm, max_tokens=5).bind_tools([multiply]).invoke("hi").content == "x"


def test_structured_output() -> None:
    lm = ScriptedLM(lambda request: '{"name": "Ann", "age": 30}')
    model = ChatModel(lm)
    assert model.with_structured_output(Person).invoke("Who?") == Person(name="Ann", age=30)
    schema = lm.requests[0].schema
    assert schema is not None
    assert schema.to_json()["schema"]["additionalProperties"] is False
    assert model.with_structured_output(Person.model_json_schema()).invoke("Who?") == {"name": "Ann", "age": 30}
    raw = model.with_structured_output(Person, include_raw=True).invoke("Who?")
    assert isinstance(raw, dict)
    assert (raw["parsed"], raw["parsing_error"]) == (Person(name="Ann", age=30), None)
    assert isinstance(raw["raw"], AIMessage)
    assert asyncio.run(model.with_structured_output(Person).ainvoke("Who?")) == Person(name="Ann", age=30)


def test_structured_output_streams_and_batches() -> None:
    model = ChatModel(ScriptedLM(lambda request: '{"name": "Ann", "age": 30}'))
    ann = Person(name="Ann", age=30)
    structured = model.with_structured_output(Person)
    assert list(structured.stream("Who?"))[-1] == ann
    assert structured.batch(["Who?"] * 5) == [ann] * 5
    assert asyncio.run(structured.abatch(["Who?"] * 5)) == [ann] * 5


def test_streams_give_at_least_one_chunk_and_add_up_to_the_message() -> None:
    model = ChatModel(ScriptedLM(lambda request: TEXT), token_ids=True)

    async def astream() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream("hi")]

    whole = model.invoke("hi")
    for chunks in (list(model.stream("hi")), asyncio.run(astream())):
        assert len(chunks) >= 1
        joined = chunks[0]
        for chunk in chunks[1:]:
            joined += chunk
        assert joined.content == TEXT
        assert joined.usage_metadata == whole.usage_metadata
        assert joined.response_metadata == whole.response_metadata
    assert [chunk.content for chunk in ChatModel(ScriptedLM([""])).stream("hi")] == [""]


def test_a_server_streams_word_by_word() -> None:
    with LoopbackServer(TEXT) as server:
        model = ChatModel(OpenAILM("test-model", base_url=server.url, flavour="vllm"))

        async def astream() -> list[Any]:
            return [chunk.content async for chunk in model.astream("hi")]

        assert [chunk.content for chunk in model.stream("hi")] == ["one", " two", " three", ""]
        assert asyncio.run(astream()) == ["one", " two", " three", ""]
        assert model.invoke("hi").content == TEXT


def broken_off(server: LoopbackServer) -> ChatModel:
    retry = Retry(attempts=2, base_s=0.01)
    return ChatModel(OpenAILM("test-model", base_url=server.url, flavour="vllm", retry=retry))


def test_a_stream_that_breaks_off_goes_on_without_repeating_itself() -> None:
    left = ["half", "alpha beta gamma delta"]
    with LoopbackServer(lambda body: left.pop(0)) as server:
        chunks = [str(chunk.content) for chunk in broken_off(server).stream("hi")]
        assert server.calls == 2
    assert "".join(chunks) == "alpha beta gamma delta"


def test_a_stream_that_goes_on_otherwise_fails() -> None:
    left = ["half", "another answer"]
    with LoopbackServer(lambda body: left.pop(0)) as server:
        stream = broken_off(server).stream("hi")
        assert next(stream).content == "alpha"
        with pytest.raises(ServingError, match="asked for again another one came") as caught:
            list(stream)
    assert caught.value.kind == "restarted"


def test_a_stream_that_is_left_early_asks_no_longer() -> None:
    with LoopbackServer("hang-mid") as server:
        deadline = Deadline(between_tokens_s=60)
        model = ChatModel(OpenAILM("test-model", base_url=server.url, flavour="vllm", deadline=deadline))
        stream = model.stream("hi")
        assert next(stream).content == "alpha"
        stream.close()  # type: ignore[attr-defined]


def test_a_tool_call_streams_as_one_chunk() -> None:
    model = ChatModel(ScriptedLM(lambda request: '{"multiply": {"left": 6, "right": 7}}')).bind_tools([multiply])
    chunks = list(model.stream("hi"))
    assert [chunk.tool_calls for chunk in chunks if isinstance(chunk, AIMessage) and chunk.tool_calls] == [
        model.invoke("hi").tool_calls
    ]


def test_the_journal_the_budget_and_observers_see_the_calls() -> None:
    seen: list[CallEvent] = []
    with Journal.memory() as journal:
        lm = JournaledLM(ScriptedLM(lambda request: TEXT), journal, Budget(BudgetLimits(calls=2)))
        model = ChatModel(lm)
        with observing(seen.append):
            model.invoke("one")
            asyncio.run(model.ainvoke("two"))
            list(model.stream("one"))
            with pytest.raises(BudgetExceeded):
                model.invoke("three")
        assert len(journal.calls()) == 2
    assert [event.request.messages[0].content for event in seen] == ["one", "two", "one", "three"]


def test_a_call_inside_an_op_hangs_under_it() -> None:
    model = ChatModel(ScriptedLM([TEXT]))

    @op
    def shout(text: str) -> str:
        return str(model.invoke(text).content).upper()

    with recording_calls():
        value = shout("hi")
    assert (value.info or {})["calls"][0]["texts"] == [TEXT]


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


def test_langchain_is_loaded_when_the_chat_model_is() -> None:
    code = (
        "import sys, optograph, optograph.agents, optograph.jobs\n"
        "assert not any(name.startswith('langchain') for name in sys.modules)\n"
        "from optograph.agents import ChatModel\n"
        "assert 'langchain_core' in sys.modules and 'langgraph' not in sys.modules\n"
        "import optograph as og\n"
        "assert og.ChatModel is ChatModel"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
