"""Streamed steps: the pieces make up the answer, and the result is the one that is not streamed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from optograph.agents import Step, StepOptions
from optograph.errors import ModelError, UserError
from optograph.graphs import OpError, Value, applying
from optograph.serving import (
    LM,
    Capabilities,
    Deadline,
    JournaledLM,
    OpenAILM,
    Request,
    Retry,
    ScriptedLM,
    make_request,
    streaming_to,
)
from optograph.storage import Journal
from optograph.testing import LoopbackServer

TEXT = "one two three four five"


class Question(BaseModel):
    """A question."""

    text: str


class Free(BaseModel):
    """Free text."""

    reply: str


class Number(BaseModel):
    """A number."""

    number: int


class Mood(BaseModel):
    """A mood."""

    mood: Literal["happy", "sad"]


def step(lm: LM, output: type[BaseModel] = Free, **options: Any) -> Step:
    return Step("ask", lm=lm, inputs=Question, output=output, instruction="Go.", options=StepOptions(**options))


def connect(server: LoopbackServer, **options: Any) -> OpenAILM:
    defaults: dict[str, Any] = {"base_url": server.url, "flavour": "vllm", "retry": Retry(attempts=3, base_s=0.005)}
    return OpenAILM("test-model", **(defaults | options))


async def read(asked: Step, **inputs: str) -> tuple[list[str], Value]:
    stream = asked.astream(**inputs)
    pieces = [piece async for piece in stream]
    return pieces, stream.result


@pytest.mark.parametrize("stream", [False, True])
def test_the_pieces_make_up_the_answer(stream: bool) -> None:
    with LoopbackServer(TEXT) as server:
        asked = step(connect(server, stream=stream))
        pieces, value = asyncio.run(read(asked, text="?"))
        assert server.received[0].body["stream"] is True
        plain = asked(text="?")
        assert ("stream" in server.received[1].body) is stream
    assert pieces == ["one", " two", " three", " four", " five"]
    assert value.data == plain.data == Free(reply=TEXT)
    assert [one.name for one in value.parents] == [one.name for one in plain.parents]
    assert (value.info or {})["calls"][0]["texts"] == [TEXT]


def test_json_streams_as_text_and_ends_typed() -> None:
    with LoopbackServer('{"number": 4}') as server:
        pieces, value = asyncio.run(read(step(connect(server), Number), text="?"))
    assert pieces == ['{"number":', " 4}"]
    assert value.number.data == 4


def test_the_first_piece_comes_before_the_answer_is_whole() -> None:
    with LoopbackServer("hang-mid") as server:
        asked = step(connect(server, retry=Retry(attempts=1), deadline=Deadline(between_tokens_s=30)))

        async def first() -> str:
            async with asked.astream(text="?") as stream:
                async with asyncio.timeout(10):
                    return await anext(stream)

        assert asyncio.run(first()) == "alpha"


@pytest.mark.parametrize("fault", ["half", "cut-body", "hang-mid"])
def test_an_empty_piece_says_that_the_answer_begins_anew(fault: str) -> None:
    left = [fault, TEXT]
    with LoopbackServer(lambda body: left.pop(0)) as server:
        asked = step(connect(server, deadline=Deadline(between_tokens_s=0.2)))
        pieces, value = asyncio.run(read(asked, text="?"))
    again = pieces.index("")
    assert pieces[0] == "alpha"
    assert "".join(pieces[again:]) == value.reply.data == TEXT


def test_an_answer_that_is_repaired_begins_anew() -> None:
    lm = ScriptedLM(["four", '{"number": 4}'])
    assert asyncio.run(read(step(lm, Number), text="?"))[0] == ["four", "", '{"number": 4}']
    left = ["many words", '{"number": 4}']
    with LoopbackServer(lambda body: left.pop(0)) as server:  # told of no schema, so that it holds to none
        asked = step(connect(server, capabilities=Capabilities()), Number)
        pieces, value = asyncio.run(read(asked, text="?"))
    assert pieces == ["many", " words", "", '{"number":', " 4}"]
    assert value.number.data == 4


@pytest.mark.parametrize("flavour", ["openai", "vllm"])
def test_a_choice(flavour: Any) -> None:
    with LoopbackServer("sad") as server:
        pieces, value = asyncio.run(read(step(connect(server, flavour=flavour), Mood), text="?"))
    assert (pieces, value.mood.data) == (["sad"], "sad")


def test_a_scored_label_comes_as_one_piece() -> None:
    lm = ScriptedLM(lambda request: "happy", labels=lambda request: {"happy": -2.0, "sad": -0.5})
    asked = step(lm, Mood, answer="score")
    assert asyncio.run(read(asked, text="?"))[0] == ["sad"]
    asked.calibrate([{"text": "a"}, {"text": "b"}])
    assert asyncio.run(read(asked, text="?"))[0] == ["happy"]  # all alike: the first label


def test_models_that_do_not_stream_give_one_piece_and_so_does_the_journal() -> None:
    assert asyncio.run(read(step(ScriptedLM([TEXT])), text="?"))[0] == [TEXT]
    with LoopbackServer(TEXT) as server, Journal.memory() as journal:
        asked = step(JournaledLM(connect(server), journal))
        assert len(asyncio.run(read(asked, text="?"))[0]) == 5
        assert asyncio.run(read(asked, text="?"))[0] == [TEXT]
        assert server.calls == 1


def test_the_candidate_is_that_of_the_call() -> None:
    lm = ScriptedLM(lambda request: request.messages[0].content)
    asked = step(lm)

    async def late() -> str:
        with applying({"ask.instruction": "Go slowly."}):
            stream = asked.astream(text="?")
        return "".join([piece async for piece in stream])

    assert asyncio.run(late()) == "Go slowly."


def test_many_streams_at_once_keep_apart() -> None:
    with LoopbackServer(lambda body: f"{body['messages'][-1]['content']} said") as server:
        asked = step(connect(server))

        async def everyone() -> list[tuple[list[str], Value]]:
            return await asyncio.gather(*(read(asked, text=f"n{number}") for number in range(30)))

        results = asyncio.run(everyone())
    assert ["".join(pieces) for pieces, _ in results] == [f"n{number} said" for number in range(30)]
    assert [value.reply.data for _, value in results] == [f"n{number} said" for number in range(30)]


def test_a_failure_is_raised_where_the_stream_ends() -> None:
    async def failing() -> list[str]:
        stream = step(ScriptedLM(["no", "no"]), Number).astream(text="?")
        pieces = []
        with pytest.raises(OpError) as caught:
            async for piece in stream:
                pieces.append(piece)
        assert isinstance(caught.value.original, ModelError)
        with pytest.raises(OpError):
            _ = stream.result
        return pieces

    assert asyncio.run(failing()) == ["no", "", "no"]


def test_the_result_is_there_at_the_end_only() -> None:
    async def early() -> None:
        stream = step(ScriptedLM([TEXT])).astream(text="?")
        with pytest.raises(UserError, match="read to its end"):
            _ = stream.result
        assert [piece async for piece in stream] == [TEXT]
        assert [piece async for piece in stream] == []
        assert stream.result.reply.data == TEXT

    asyncio.run(early())


def test_a_stream_that_is_left_early_asks_no_longer() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(30)
        return TEXT

    async def leave() -> None:
        lm = ScriptedLM(slow)
        stream = step(lm).astream(text="?")
        waiting = asyncio.ensure_future(anext(stream))
        while not lm.requests:
            await asyncio.sleep(0.01)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(UserError):
            _ = stream.result

    asyncio.run(asyncio.wait_for(leave(), 10))


def test_a_failure_that_nobody_reads_makes_no_noise() -> None:
    async def forget() -> None:
        stream = step(ScriptedLM(["no", "no"]), Number).astream(text="?")
        assert await anext(stream) == "no"
        await asyncio.sleep(0.2)

    asyncio.run(forget())
    gc.collect()


def heard(ask: Callable[[], Any]) -> list[str]:
    pieces: list[str] = []
    with streaming_to(pieces.append):
        ask()
    return pieces


def test_the_hook_hears_plain_calls_of_one_text() -> None:
    with LoopbackServer(TEXT) as server:
        lm = connect(server)
        assert len(heard(lambda: lm("hi"))) == 5
        assert len(heard(lambda: lm.ask(Request(prompt="hi")))) == 5
        assert heard(lambda: lm.ask(make_request("hi", n=2))) == []
        assert lm("hi") == TEXT
        assert "stream" not in server.received[-1].body
