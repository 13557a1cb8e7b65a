"""Streamed answers: put together as they would have come in one body, and every way of breaking off is typed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optograph.errors import ServingError
from optograph.serving import Deadline, OpenAILM, Request, Retry, make_request
from optograph.serving.stream import StreamAssembler
from optograph.testing import LoopbackServer
from optograph.testing.answers import answer, events

TEXT = "one two three four five"


def connect(server: LoopbackServer, **options: Any) -> OpenAILM:
    defaults: dict[str, Any] = {"base_url": server.url, "retry": Retry(attempts=3, base_s=0.005), "stream": True}
    return OpenAILM("test-model", **(defaults | options))


@pytest.mark.parametrize(
    "request_",
    [
        make_request("hi"),
        make_request("hi", n=3),
        make_request("hi", logprobs=2, token_ids=True),
        make_request("hi", max_tokens=2),
        make_request("hi", schema=["yes", "no"]),
        Request(prompt="hi", logprobs=3, n=2, token_ids=True),
        Request(prompt="hi", stop=(" four",)),
    ],
)
def test_a_streamed_answer_is_the_whole_answer(request_: Request) -> None:
    labels = {"one": -0.1, "two": -2.5, "three": -3.0}
    with LoopbackServer(TEXT, labels=lambda body: labels) as server:
        plain = connect(server, stream=False, flavour="vllm").ask(request_)
        streamed = connect(server, flavour="vllm").ask(request_)
        assert server.received[1].body["stream"] is True
        assert server.received[1].body["stream_options"] == {"include_usage": True}
    assert replace(streamed, latency_s=0.0) == replace(plain, latency_s=0.0)


def test_many_streams_share_connections() -> None:
    with LoopbackServer(TEXT) as server:
        lm = connect(server)
        assert [lm(f"{k}") for k in range(20)] == [TEXT] * 20
        running = server._running
        assert running is not None
        assert running.listener.accepted == 1


def test_a_server_that_does_not_stream_is_understood() -> None:
    with LoopbackServer(TEXT) as server:
        lm = connect(server, extra_body={"stream": False})
        assert lm("hi") == TEXT


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "rate_limit"),
        ("500", "server"),
        ("reset", "connection"),
        ("cut-body", "connection"),
        ("half", "bad_response"),
        ("garbage", "bad_response"),
        ("html", "bad_response"),
        ("wrong-json", "bad_response"),
        ("empty-choices", "bad_response"),
        ("nan-logprob", "bad_response"),
        ("hang", "timeout"),
        ("hang-mid", "timeout"),
        ("drip", "timeout"),
        ("400", "bad_request"),
        ("redirect", "redirect"),
        ("wrong-model", "wrong_model"),
    ],
)
def test_a_broken_stream_is_typed(fault: str, kind: str) -> None:
    with LoopbackServer(fault) as server:
        deadline = Deadline(silence_s=0.3, between_tokens_s=0.2, total_s=1.0)
        with pytest.raises(ServingError) as caught:
            connect(server, deadline=deadline).ask(make_request("hi"))
    assert caught.value.kind == kind


def test_a_truncated_stream_is_marked() -> None:
    with LoopbackServer("truncate") as server:
        completion = connect(server).ask(make_request("hi"))
    assert completion.truncated
    assert completion.text == "alpha beta"


@pytest.mark.parametrize("fault", ["hang-mid", "half", "cut-body", "garbage"])
def test_a_stream_that_broke_off_is_asked_for_again(fault: str) -> None:
    left = [fault, TEXT]
    with LoopbackServer(lambda body: left.pop(0)) as server:
        assert connect(server, deadline=Deadline(between_tokens_s=0.1))("hi") == TEXT


def test_a_stall_between_tokens_is_found_before_the_silence_is() -> None:
    with LoopbackServer("hang-mid") as server:
        lm = connect(server, retry=Retry(attempts=1), deadline=Deadline(between_tokens_s=0.1, silence_s=60.0))
        started = time.monotonic()
        with pytest.raises(ServingError, match=r"stopped \(between_tokens_s=0\.1\)"):
            lm("hi")
        assert time.monotonic() - started < 5.0


def stream_of(data: dict[str, Any], newline: str = "\n") -> bytes:
    lines = [f"data: {json.dumps(event)}{newline}{newline}" for event in events(data)]
    return "".join([": a comment" + newline, *lines, f"data: [DONE]{newline}{newline}"]).encode()


@given(st.text(), st.lists(st.integers(1, 40), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_the_pieces_in_which_a_stream_comes_do_not_matter(text: str, sizes: list[int], newline: str) -> None:
    data = answer({"model": "m", "messages": []}, [text, "other"], chat=True)
    content = stream_of(data, newline)
    assembler = StreamAssembler("here", 2)
    start = 0
    while start < len(content):
        size = sizes[start % len(sizes)]
        assembler.feed(content[start : start + size])
        start += size
    whole = assembler.result()
    assert [one["message"]["content"] for one in whole["choices"]] == [text, "other"]
    assert whole["usage"] == data["usage"]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "overloaded", "code": 503}}, "server"),
        ({"error": {"message": "slow down", "code": 429}}, "rate_limit"),
        ({"error": {"message": "too long", "code": 400}}, "bad_request"),
        ({"error": "out of memory"}, "server"),
        ({"choices": [{"index": "x"}]}, "bad_response"),
        ({"choices": [3]}, "bad_response"),
        ({"choices": 3}, "bad_response"),
        ({"choices": [{"delta": {"content": 5}}, {"delta": {"content": "a"}}]}, "bad_response"),
        ({"choices": [{"delta": None}]}, "bad_response"),
        ([], "bad_response"),
    ],
)
def test_bad_events_are_typed(event: Any, kind: str) -> None:
    with pytest.raises(ServingError) as caught:
        StreamAssembler("here").feed(f"data: {json.dumps(event)}\n\n".encode())
    assert caught.value.kind == kind


def test_a_line_without_end_is_refused() -> None:
    assembler = StreamAssembler("here")
    with pytest.raises(ServingError, match="a line of more than"):
        for _ in range(100):
            assembler.feed(b"x" * 100_000)


@given(st.binary())
def test_any_bytes_end_in_a_typed_failure_or_nothing(content: bytes) -> None:
    assembler = StreamAssembler("here")
    with pytest.raises(ServingError):
        assembler.feed(content)
        assembler.result()


def test_the_final_answer_must_be_finished() -> None:
    data = answer({"model": "m", "messages": []}, ["a b"], chat=True)
    assembler = StreamAssembler("here")
    assembler.feed(stream_of(data).replace(b"data: [DONE]\n\n", b""))
    with pytest.raises(ServingError, match="before the answer was whole"):
        assembler.result()
