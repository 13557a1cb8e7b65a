"""Token ids of the embedded engine: those that it really read and wrote, and those of the trainer's tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from optograph.errors import ServingError
from optograph.serving import LlamaCppLM, Message, Request, load_lm, make_request
from optograph.serving.tokenizing import EngineTokenizer

END_OF_TURN = 2
TURNS = (
    Message("system", "Be brief.\n"),
    Message("user", "  Ünïcödé, 数字 12345 and <|im_end|> in the text\n\n"),
    Message("assistant", "Yes."),
    Message("user", "What is 2 + 2?"),
)


@pytest.fixture(scope="module")
def lm() -> Iterator[LlamaCppLM]:
    made = load_lm("local/smollm2-135m")
    assert isinstance(made, LlamaCppLM)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def tokenizer(lm: LlamaCppLM) -> Any:
    """The tokenizer that transformers makes of the same file, which is what training uses."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(lm.path.parent), gguf_file=lm.path.name)


@pytest.mark.parametrize("messages", [TURNS, TURNS[1:2], TURNS[3:]], ids=["turns", "odd text", "no system"])
def test_ids_of_a_chat_are_those_of_the_trainers_tokenizer(
    lm: LlamaCppLM, tokenizer: Any, messages: tuple[Message, ...]
) -> None:
    given = lm.ask(Request(messages=messages, max_tokens=3, token_ids=True))
    turns = [one.to_json() for one in messages]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert given.prompt_token_ids == tuple(ids)
    assert given.usage.prompt_tokens == len(ids)


def test_ids_of_a_raw_prompt_and_of_what_the_engine_keeps(lm: LlamaCppLM, tokenizer: Any) -> None:
    text = "Q: what is 2 + 2?\nA:"
    for _ in range(2):  # the second time, the engine has read it before
        given = lm.ask(Request(prompt=text, max_tokens=20, stop=("\n",), token_ids=True))
        assert given.prompt_token_ids == tuple(tokenizer.encode(text))
    (ids,) = given.token_ids
    assert ids is not None
    assert tokenizer.decode(ids) == f"{given.text}\n"  # the stop string is no part of the text, but was written


def test_the_engine_answers_the_ids_as_it_answers_the_messages(lm: LlamaCppLM) -> None:
    """The recorded ids given as the prompt itself lead to the very same tokens."""
    given = lm.ask(Request(messages=TURNS, max_tokens=24, token_ids=True))
    assert lm._engine is not None
    body = {"prompt": list(given.prompt_token_ids or ()), "max_tokens": 24, "temperature": 0.0, "verbose": True}
    again = lm._engine._call("completions", {**body, "return_tokens": False})
    assert again["__verbose"]["tokens_evaluated"] == len(body["prompt"])  # type: ignore[arg-type]
    assert again["choices"][0]["text"].strip() == given.text.strip()


def test_the_token_that_ends_a_turn_is_an_action_only_where_the_model_wrote_it(lm: LlamaCppLM, tokenizer: Any) -> None:
    whole = lm.ask(make_request("Say only: yes", max_tokens=60, token_ids=True))
    assert whole.finish_reasons == ("stop",)
    (ids,) = whole.token_ids
    assert ids is not None
    assert ids[-1] == END_OF_TURN == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == whole.text
    cut = lm.ask(make_request("Say only: yes", max_tokens=2, token_ids=True))
    assert cut.finish_reasons == ("length",)
    assert cut.token_ids == (ids[:2],)


def test_all_texts_of_a_request_have_ids(lm: LlamaCppLM) -> None:
    given = lm.ask(make_request("Write a name.", n=3, temperature=1.0, seed=1, max_tokens=4, token_ids=True))
    assert given.prompt_token_ids
    assert all(ids and 1 <= len(ids) <= 4 for ids in given.token_ids)
    assert lm.ask(make_request("Write a name.", max_tokens=2)).prompt_token_ids is None


class _Liar(BaseHTTPRequestHandler):
    """A server that tokenizes to other tokens than were read, or refuses."""

    answers: Mapping[str, tuple[int, bytes]] = {
        "/apply-template": (200, b'{"prompt": "hello"}'),
        "/tokenize": (200, b'{"tokens": [1, 2]}'),
        "/detokenize": (200, b'{"content": "hullo"}'),
    }

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


@pytest.mark.parametrize(
    ("change", "seen", "message"),
    [
        ({}, {"tokens_evaluated": 2, "prompt": "hello"}, "or others"),
        ({}, {"tokens_evaluated": 3, "prompt": "hullo"}, "to 2 tokens, but had read 3"),
        ({"/apply-template": (500, b'{"error": "x"}')}, {}, "refused /apply-template"),
        ({"/tokenize": (200, b"no JSON")}, {}, "did not answer /tokenize"),
    ],
)
def test_ids_that_are_not_what_was_read_are_refused(
    change: dict[str, tuple[int, bytes]], seen: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Liar, "answers", {**_Liar.answers, **change})
    server = HTTPServer(("127.0.0.1", 0), _Liar)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        asked = EngineTokenizer(f"http://127.0.0.1:{server.server_port}", "key")
        with pytest.raises(ServingError, match=message) as caught:
            asked.prompt_ids({"messages": []}, seen)
        assert caught.value.kind == "bad_response"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
