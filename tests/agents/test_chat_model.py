"""ChatModel: a LangChain chat model over our models: messages, settings, streams, errors, journal."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, RemoveMessage, SystemMessage

from optograph.agents import ChatModel, recording_calls
from optograph.errors import BudgetExceeded, ServingError, UserError
from optograph.graphs import op
from optograph.serving import (
    Budget,
    BudgetLimits,
    CallEvent,
    Deadline,
    JournaledLM,
    OpenAILM,
    Retry,
    ScriptedLM,
    observing,
)
from optograph.storage import Journal
from optograph.testing import LoopbackServer
from tests.agents.chatting import TEXT, asked, multiply


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
