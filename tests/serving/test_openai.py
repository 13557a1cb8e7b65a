"""The OpenAI-compatible model against a loopback server: wire format, faults, security."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from optograph.errors import ModelError, ServingError, UserError
from optograph.serving import (
    Choice,
    Completion,
    Deadline,
    JsonSchema,
    OpenAILM,
    Regex,
    Request,
    Retry,
    load_lm,
    make_request,
)
from optograph.serving.wire import decode, parse_completion
from optograph.testing import FAULTS, LoopbackServer

QUICK = Retry(attempts=3, base_s=0.01)
KEY = "sk-canary-0123456789"


def connect(server: LoopbackServer, *, model: str = "test-model", **options: Any) -> OpenAILM:
    defaults: dict[str, Any] = {"base_url": server.url, "retry": QUICK, "api_key": KEY}
    return OpenAILM(model, **(defaults | options))


def script(*replies: str) -> Callable[[dict[str, Any]], str]:
    """Reply in order; the last reply repeats."""
    left = list(replies)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


def test_what_is_sent() -> None:
    with LoopbackServer("hello") as server:
        lm = connect(server)
        lm([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], seed=3, stop=("x",), max_tokens=9)
        lm.ask(Request(prompt="once", logprobs=2))
        chat, raw = server.received
    assert chat.path == "/v1/chat/completions"
    assert chat.body == {
        "model": "test-model",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "n": 1,
        "seed": 3,
        "stop": ["x"],
    }
    assert chat.authorization == f"Bearer {KEY}"
    assert (raw.path, raw.body["prompt"], raw.body["logprobs"]) == ("/v1/completions", "once", 2)


@pytest.mark.parametrize(
    ("flavour", "schema", "field", "value"),
    [
        ("vllm", Choice(("a", "b")), "structured_outputs", {"choice": ["a", "b"]}),
        ("vllm", Regex("ok"), "structured_outputs", {"regex": "ok"}),
        ("llamacpp", Choice(("ok", 'b"')), "grammar", 'root ::= "ok" | "b\\""'),
        (
            "vllm",
            JsonSchema({"type": "object"}, "thing"),
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "thing", "schema": {"type": "object"}}},
        ),
    ],
)
def test_constraints_on_the_wire(flavour: Any, schema: Any, field: str, value: Any) -> None:
    with LoopbackServer("ok") as server:
        connect(server, flavour=flavour).ask(make_request("hi", schema=schema))
        assert server.received[0].body[field] == value


def test_a_choice_is_packed_and_unpacked_for_openai() -> None:
    with LoopbackServer("good") as server:
        completion = connect(server).ask(make_request("hi", schema=["bad", "good"], n=2))
        sent = server.received[0].body["response_format"]["json_schema"]
    assert completion.texts == ("good", "good")
    assert sent["strict"] is True
    assert sent["schema"]["properties"]["answer"]["enum"] == ["bad", "good"]


def test_a_schema_without_an_object_at_its_root_is_packed_and_unpacked_for_openai() -> None:
    either = {
        "anyOf": [{"$ref": "#/$defs/Left"}, {"type": "array", "items": {"type": "string"}}],
        "$defs": {"Left": {"type": "object", "properties": {"left": {"type": "string"}}, "required": ["left"]}},
    }
    with LoopbackServer('{"answer": {"left": "ü"}}') as server:
        assert connect(server)("hi", schema=either) == '{"left": "ü"}'
        assert connect(server, flavour="vllm")("hi", schema=either) == '{"answer": {"left": "ü"}}'
        packed, plain = (one.body["response_format"]["json_schema"]["schema"] for one in server.received)
    assert (packed["type"], packed["required"], packed["additionalProperties"]) == ("object", ["answer"], False)
    assert packed["properties"]["answer"] == {"anyOf": either["anyOf"]}
    assert packed["$defs"] == either["$defs"]
    assert plain == either


def test_strict_mode_is_asked_for_only_where_openai_takes_it() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    with LoopbackServer("{}") as server:
        lm = connect(server)
        lm("hi", schema={**closed, "additionalProperties": False})
        lm("hi", schema=closed)
        first, second = (one.body["response_format"]["json_schema"].get("strict") for one in server.received)
    assert (first, second) == (True, None)


def test_a_server_that_ignores_a_choice_is_found_out() -> None:
    with LoopbackServer("prose") as server:
        lm = connect(server, flavour="llamacpp")  # the loopback server knows no grammar
        with pytest.raises(ServingError, match="did not hold the answer") as caught:
            lm("hi", schema=["yes", "no"])
    assert (caught.value.kind, server.calls) == ("constraint_ignored", 1)


@pytest.mark.parametrize(
    "fault", ["429", "500", "reset", "garbage", "html", "empty-choices", "nan-logprob", "cut-body"]
)
def test_a_fault_that_passes_is_overcome(fault: str) -> None:
    with LoopbackServer(script(fault, "fine")) as server:
        completion = connect(server).ask(make_request("hi", logprobs=1))
        assert (completion.text, server.calls) == ("fine", 2)


@pytest.mark.parametrize(
    ("fault", "kind", "calls"),
    [
        ("429", "rate_limit", 3),
        ("500", "server", 3),
        ("reset", "connection", 3),
        ("cut-body", "connection", 3),
        ("garbage", "bad_response", 2),
        ("html", "bad_response", 2),
        ("empty-choices", "bad_response", 2),
        ("nan-logprob", "bad_response", 2),
        ("400", "bad_request", 1),
        ("401", "auth", 1),
        ("redirect", "redirect", 1),
        ("wrong-model", "wrong_model", 1),
    ],
)
def test_a_fault_that_stays_is_typed(fault: str, kind: str, calls: int) -> None:
    with LoopbackServer(fault) as server:
        with pytest.raises(ServingError) as caught:
            connect(server).ask(make_request("hi", logprobs=1))
        assert (caught.value.kind, server.calls) == (kind, calls)
        assert KEY not in str(caught.value)
        assert caught.value.retryable == (calls > 1)


def test_a_cut_text_is_marked() -> None:
    with LoopbackServer("truncate") as server:
        completion = connect(server).ask(make_request("hi"))
    assert completion.truncated
    assert completion.finish_reasons == ("length",)


def test_retry_after_is_obeyed() -> None:
    with LoopbackServer(script("429-retry-after", "fine")) as server:
        started = time.monotonic()
        assert connect(server)("hi") == "fine"
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_the_total_deadline_stops_what_never_ends(fault: str) -> None:
    with LoopbackServer(fault) as server:
        lm = connect(server, deadline=Deadline(total_s=0.5))
        started = time.monotonic()
        with pytest.raises(ServingError, match="total deadline") as caught:
            lm("hi")
        assert time.monotonic() - started < 1.5
        assert caught.value.kind == "timeout"


def test_silence_is_bounded_and_tried_again() -> None:
    with LoopbackServer(script("hang", "fine")) as server:
        assert connect(server, deadline=Deadline(silence_s=0.3))("hi") == "fine"


def test_an_unreachable_endpoint_says_what_to_do() -> None:
    lm = OpenAILM("m", base_url="http://127.0.0.1:9/v1", retry=QUICK)
    with pytest.raises(
        ServingError, match=r"cannot reach http://127.0.0.1:9/v1 .*check that the server runs"
    ) as caught:
        lm("hi")
    assert caught.value.kind == "connection"


def test_an_unknown_model_lists_the_known_ones() -> None:
    with LoopbackServer("hi", models=("alpha", "beta")) as server:
        with pytest.raises(ServingError, match=r"knows no model 'gamma' \(404\); it serves 'alpha', 'beta'") as caught:
            connect(server, model="gamma")("hi")
        assert caught.value.kind == "unknown_model"
        assert asyncio.run(connect(server).served_models()) == ("alpha", "beta")


def test_an_adapter_is_served_under_its_own_name() -> None:
    with LoopbackServer("hi", models=("base", "adapter-7")) as server:
        lm = connect(server, model="adapter-7", flavour="vllm")
        assert lm.ask(make_request("hi")).identity.served_name == "adapter-7"


def test_a_dated_version_counts_as_the_model_asked_for() -> None:
    identity_of = OpenAILM("gpt-x", base_url="http://127.0.0.1:1/v1")._answerer
    assert identity_of({"model": "gpt-x-2026-01-01"}).served_name == "gpt-x-2026-01-01"
    for other in ("gpt-xl", "gpt", 3, None):
        with pytest.raises(ServingError, match="'gpt-x'"):
            identity_of({"model": other})


def test_the_concurrency_limit_holds_on_the_wire() -> None:
    running, peak = [0], [0]

    def reply(body: dict[str, Any]) -> str:
        running[0] += 1
        peak[0] = max(peak[0], running[0])
        time.sleep(0.02)
        running[0] -= 1
        return "ok"

    with LoopbackServer(reply) as server:
        lm = connect(server, max_concurrency=4)

        async def main() -> list[Completion]:
            return await asyncio.gather(*(lm.complete(make_request("hi")) for _ in range(24)))

        assert len(asyncio.run(main())) == 24
    assert 2 <= peak[0] <= 4


def test_the_key_shows_nowhere() -> None:
    with LoopbackServer("ok", api_key="another-key") as server:
        lm = connect(server)
        with pytest.raises(ServingError, match="check OPENAI_API_KEY") as caught:
            lm("hi")
    assert KEY not in f"{lm!r} {vars(lm)!r} {caught.value!r}"


def test_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer("ok", api_key="from-the-environment") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
        monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
        assert load_lm("openai/test-model")("hi") == "ok"
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        load_lm("openai/gpt-x")


def test_no_key_is_needed_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LoopbackServer("ok") as server:
        assert load_lm(f"vllm/test-model@{server.url}")("hi") == "ok"
        assert server.received[0].authorization == "Bearer EMPTY"


def test_no_proxy_is_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with LoopbackServer("ok") as server:
        assert connect(server)("hi") == "ok"


def test_a_model_that_nobody_closed_leaves_no_warning() -> None:
    with LoopbackServer("ok") as server, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lm = connect(server)
        lm("hi")
        del lm
        gc.collect()
        time.sleep(0.05)
        gc.collect()
    assert [str(one.message) for one in seen] == []


def test_a_closed_model_can_be_used_again() -> None:
    with LoopbackServer("ok") as server:
        lm = connect(server)
        lm("hi")
        asyncio.run(lm.aclose())
        assert lm("hi") == "ok"


def test_every_fault_is_typed_and_none_scores() -> None:
    """A storm: a third of all answers fail in some way; each call ends with a text or a typed error."""
    faults = [one for one in FAULTS if one not in ("hang", "hang-mid", "drip", "429-retry-after", "wrong-schema")]
    count = [0]

    def reply(body: dict[str, Any]) -> str:
        count[0] += 1
        return faults[count[0] // 3 % len(faults)] if count[0] % 3 == 0 else "fine"

    with LoopbackServer(reply) as server:
        lm = connect(server)

        async def main() -> list[Completion | BaseException]:
            calls = (lm.complete(make_request(f"{k}")) for k in range(120))
            return await asyncio.gather(*calls, return_exceptions=True)

        results = asyncio.run(main())
    for one in results:
        if isinstance(one, Completion):
            assert one.text == "fine" or one.truncated or one.text == "alpha beta gamma delta"
        else:
            assert isinstance(one, ServingError)
    assert sum(isinstance(one, Completion) for one in results) > 80


BAD_BODIES = [
    "",
    "[]",
    "null",
    "nan",
    '{"choices": NaN}',
    "[" * 100_000,
    '{"choices": [{"message": {"content": 5}}]}',
    '{"choices": [3]}',
    '{"choices": {"a": 1}}',
    '{"choices": [{"message": "text"}]}',
    '{"choices": [{}]}',
    '{"choices": [{"text": "a"}], "usage": {"prompt_tokens": "many"}}',
    '{"choices": [{"text": "a"}], "usage": 7}',
    '{"choices": [{"text": "a", "logprobs": {"content": [{"token": "a"}]}}]}',
    '{"choices": [{"text": "a", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1]}}]}',
    '{"choices": [{"text": "a", "token_ids": ["x"]}]}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_unusable_bodies_are_typed(body: str) -> None:
    identity = asyncio.run(OpenAILM("m", base_url="http://127.0.0.1:1/v1").identity())
    with pytest.raises(ServingError) as caught:
        parse_completion(decode(body, "the server"), Request(prompt="x"), identity)
    assert caught.value.kind == "bad_response"
    assert len(str(caught.value)) < 600


def test_a_refusal_is_the_models_error() -> None:
    identity = asyncio.run(OpenAILM("m", base_url="http://127.0.0.1:1/v1").identity())
    with pytest.raises(ModelError, match="refused"):
        parse_completion({"choices": [{"message": {"refusal": "I won't"}}]}, Request(prompt="x"), identity)
