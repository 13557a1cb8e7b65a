"""The transport and what the OpenAI-compatible model makes of it: sizes, odd servers, prices, keys."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from optograph.errors import ServingError, UserError
from optograph.secrets import scrub
from optograph.serving import Deadline, JsonSchema, OpenAILM, Retry, make_request, run_sync, schema_of
from optograph.serving.transport import HttpAnswer, Transport
from optograph.testing import LoopbackServer

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextmanager
def raw_server(content: bytes) -> Iterator[str]:
    """Answer every connection with the same bytes, and close it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(content)
        await writer.drain()
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", 0)

    server = run_sync(start())
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:

        async def stop() -> None:
            server.close()

        run_sync(stop())


def post(url: str, **options: Any) -> HttpAnswer:
    transport = Transport(url, {}, Deadline(silence_s=2.0), **options)

    async def main() -> HttpAnswer:
        try:
            return await transport.post("/x", {"a": "b"})
        finally:
            await transport.close()

    return run_sync(main())


def test_a_body_beyond_the_limit_is_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"
    with raw_server(head + b"x" * 300_000) as url:
        assert len(post(url).text) == 300_000
        with pytest.raises(ServingError, match="more than 100000 bytes") as caught:
            post(url, max_body_bytes=100_000)
    assert caught.value.kind == "bad_response"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "connection"),
        (b"no http at all\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 999999 What\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "bad_response"),
    ],
)
def test_odd_servers_are_typed(content: bytes, kind: str | None) -> None:
    with raw_server(content) as url, pytest.raises(ServingError) as caught:
        post(url)
    assert caught.value.retryable
    assert caught.value.kind == kind or (kind is None and caught.value.kind in ("connection", "bad_response"))


def test_a_body_of_bytes_that_are_no_text_is_no_crash() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe{}") as url:
        assert post(url).text.endswith("{}")


def test_a_connection_that_cannot_be_made_was_not_reached() -> None:
    with pytest.raises(ServingError, match="cannot reach") as caught:
        post("http://127.0.0.1:9/v1")
    assert getattr(caught.value, "reached", None) is False


def test_prompts_of_any_text_reach_the_server() -> None:
    odd = 'quote " back \\ nul \0 lone \ud800 smile \U0001f600 line \u2028 end'
    with LoopbackServer("ok") as server:
        OpenAILM("test-model", base_url=server.url)(odd)
        assert server.received[0].body["messages"][0]["content"] == odd


def test_prices_are_read_where_they_are_given() -> None:
    with LoopbackServer(models_extra={"pricing": {"prompt": "0.0000025", "completion": "0.00001"}}) as server:
        prices = asyncio.run(OpenAILM("test-model", base_url=server.url).prices())
    assert list(prices) == ["test-model"]
    assert prices["test-model"] == pytest.approx((2.5, 10.0))


@pytest.mark.parametrize(
    "pricing",
    [
        None,
        3,
        {},
        {"prompt": "x", "completion": "1"},
        {"prompt": "-1", "completion": "1"},
        {"prompt": "nan", "completion": "1"},
    ],
)
def test_prices_that_are_none_are_left_out(pricing: Any) -> None:
    with LoopbackServer(models_extra={"pricing": pricing}) as server:
        assert asyncio.run(OpenAILM("test-model", base_url=server.url).prices()) == {}


def test_keys_are_registered_as_secrets() -> None:
    OpenAILM("m", base_url="http://127.0.0.1:1/v1", api_key="canary-of-the-transport")
    assert scrub("it said canary-of-the-transport!") == "it said …!"


def test_extra_fields_must_be_json() -> None:
    with pytest.raises(UserError, match="plain JSON data"):
        OpenAILM("m", base_url="http://127.0.0.1:1/v1", extra_body={"x": float("nan")})
    with LoopbackServer("ok") as server:
        OpenAILM("test-model", base_url=server.url, extra_body={"top_k": 5})("hi")
        assert server.received[0].body["top_k"] == 5


def test_equal_schemas_give_equal_fields_however_many_there_are() -> None:
    with LoopbackServer("{}") as server:
        lm = OpenAILM("test-model", base_url=server.url, flavour="vllm")
        for k in range(200):
            lm.ask(make_request("hi", schema=JsonSchema({"type": "object", "title": str(k)})))
        kept = schema_of(["a", "b"])
        for _ in range(2):
            lm.ask(make_request("hi", schema=kept))
        titles = [one.body["response_format"]["json_schema"]["schema"]["title"] for one in server.received[:200]]
        assert titles == [str(k) for k in range(200)]
        assert server.received[-1].body["structured_outputs"] == {"choice": ["a", "b"]}


def test_a_connection_that_the_server_closed_meanwhile_is_made_again() -> None:
    with LoopbackServer("ok") as server:
        port = int(server.url.split(":")[2].split("/")[0])
        lm = OpenAILM("test-model", base_url=server.url, retry=Retry(attempts=3, base_s=0.01))
        assert lm("one") == "ok"
    with LoopbackServer("ok", port=port):
        assert lm("two") == "ok"


SCRIPT = """
import sys
from optograph.serving import OpenAILM
lm = OpenAILM("test-model", base_url=sys.argv[1])
print(lm("hi"))
"""


def test_a_program_that_closes_nothing_ends_without_a_word() -> None:
    with LoopbackServer("ok") as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT, server.url],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
