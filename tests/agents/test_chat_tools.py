"""ChatModel with tools and structured output: calls come out typed, or are asked for again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from optograph.agents import ChatModel
from optograph.errors import ModelError
from optograph.serving import Capabilities, ScriptedLM
from tests.agents.chatting import TEXT, Person, asked, multiply, weather


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


def test_a_tool_call_streams_as_one_chunk() -> None:
    model = ChatModel(ScriptedLM(lambda request: '{"multiply": {"left": 6, "right": 7}}')).bind_tools([multiply])
    chunks = list(model.stream("hi"))
    assert [chunk.tool_calls for chunk in chunks if isinstance(chunk, AIMessage) and chunk.tool_calls] == [
        model.invoke("hi").tool_calls
    ]
