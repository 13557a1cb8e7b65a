"""An OpenAI-compatible server on the loopback interface that says, and fails, what a test wants."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from optograph.errors import UserError

JsonObject = dict[str, Any]
Reply = Callable[[JsonObject], str]

FAULTS = (
    "429",  # too many requests
    "429-retry-after",  # the same, with Retry-After: 1
    "500",
    "400",
    "401",
    "reset",  # the connection is reset
    "hang",  # no answer while the server lives
    "drip",  # a good answer, one byte every 50 ms
    "garbage",  # bytes that are no JSON
    "html",  # a web page with status 200
    "cut-body",  # half of the body that Content-Length promises
    "empty-choices",
    "truncate",  # half of the text, finish_reason "length"
    "nan-logprob",
    "redirect",  # 307 to another host
    "wrong-model",  # another model answers
)


@dataclass(frozen=True, slots=True)
class Received:
    """A request that reached the server.

    Attributes:
        path: Such as ``"/v1/chat/completions"``.
        body: The JSON body, empty for GET.
        authorization: The header of that name, or an empty string.
    """

    path: str
    body: JsonObject
    authorization: str


class LoopbackServer:
    """Serve a scripted model on 127.0.0.1 while a ``with`` block runs.

    It knows ``/v1/chat/completions``, ``/v1/completions``, ``/v1/models`` and ``/health``; ``n``, log-probabilities,
    stop strings, token limits, ``response_format``, vLLM's ``structured_outputs`` and ``return_token_ids``. Tokens are
    words. A text that breaks a choice or a JSON schema is replaced by one that obeys.

    Args:
        reply: The text, or a function of the request's body that gives it; one of `FAULTS` makes that fault.
        models: Names of the models served; a request for another one is answered 404.
        api_key: The key that is asked for, or None for none.
        labels: Gives the log-probabilities of the first token's alternatives.

    Attributes:
        received: The requests that arrived, in order.
    """

    def __init__(
        self,
        reply: str | Reply = "ok",
        *,
        models: tuple[str, ...] = ("test-model",),
        api_key: str | None = None,
        labels: Callable[[JsonObject], Mapping[str, float]] | None = None,
    ) -> None:
        self.reply: Reply = reply if callable(reply) else lambda body: reply
        self.models = models
        self.api_key = api_key
        self.labels = labels
        self.received: list[Received] = []
        self.closing = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, which ends in ``/v1``."""
        if self._http is None:
            raise UserError("the server runs only within its `with` block")
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        """How many completions were asked for."""
        return sum(one.path.endswith("/completions") for one in self.received)

    def __enter__(self) -> LoopbackServer:
        self.closing.clear()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        if self._http is not None and self._thread is not None:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
            self._http = None


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, owner: LoopbackServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""

    def do_GET(self) -> None:
        """Answer /health and /v1/models."""
        owner = self._note({})
        if self.path == "/health":
            self._send(200, {})
        elif self.path == "/v1/models":
            listed = [{"id": name, "object": "model"} for name in owner.models]
            self._send(200, {"object": "list", "data": listed})
        else:
            self._fail(404, "no such path")

    def do_POST(self) -> None:
        """Answer the two completion routes."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        owner = self._note(body)
        if owner.api_key is not None and self.headers.get("authorization") != f"Bearer {owner.api_key}":
            self._fail(401, f"bad key {self.headers.get('authorization')}")  # echoes it, as careless servers do
        elif self.path not in ("/v1/chat/completions", "/v1/completions"):
            self._fail(404, "no such path")
        elif body.get("model") not in owner.models:
            self._fail(404, f"The model {body.get('model')!r} does not exist.")
        else:
            texts = [owner.reply(body) for _ in range(body.get("n") or 1)]
            if texts[0] in FAULTS:
                self._fault(texts[0], body)
            else:
                self._send(200, answer(body, texts, chat="chat" in self.path, labels=owner.labels))

    def _note(self, body: JsonObject) -> LoopbackServer:
        owner = self.server.owner
        owner.received.append(Received(self.path, body, self.headers.get("authorization", "")))
        return owner

    def _fault(self, fault: str, body: JsonObject) -> None:
        owner = self.server.owner
        good = answer(body, ["alpha beta gamma delta"], chat="chat" in self.path, labels=None)
        choice = good["choices"][0]
        if fault.isdigit():
            self._fail(int(fault), f"fault {fault}")
        elif fault == "429-retry-after":
            self._fail(429, "slow down", {"Retry-After": "1"})
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":
            owner.closing.wait(60)
            self.close_connection = True
        elif fault == "drip":
            self._raw(200, json.dumps(good).encode(), pause_s=0.05)
        elif fault == "garbage":
            self._raw(200, b'{"choices": [{"mess\xff\xfe')
        elif fault == "html":
            self._raw(200, b"<html><body>Bad gateway</body></html>", kind="text/html")
        elif fault == "cut-body":
            self._raw(200, json.dumps(good).encode(), share=0.5)
        elif fault == "empty-choices":
            self._send(200, {**good, "choices": []})
        elif fault == "truncate":
            choice["finish_reason"] = "length"
            self._send(200, good)
        elif fault == "nan-logprob":
            choice["logprobs"] = {"content": [{"token": "alpha", "logprob": float("nan"), "top_logprobs": []}]}
            self._send(200, good)
        elif fault == "redirect":
            self._fail(307, "elsewhere", {"Location": "http://127.0.0.1:9/v1/chat/completions"})
        elif fault == "wrong-model":
            self._send(200, {**good, "model": "another-model"})

    def _fail(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, {"error": {"message": message, "code": status}}, headers)

    def _send(self, status: int, data: JsonObject, headers: Mapping[str, str] | None = None) -> None:
        self._raw(status, json.dumps(data).encode(), headers=headers)

    def _raw(
        self,
        status: int,
        content: bytes,
        *,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
        pause_s: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if pause_s:
            for k in range(len(content)):
                if self.server.owner.closing.is_set():
                    return
                self.wfile.write(content[k : k + 1])
                time.sleep(pause_s)
            return
        self.wfile.write(content[: int(len(content) * share)])
        if share < 1.0:
            self.close_connection = True


def answer(
    body: JsonObject,
    texts: list[str],
    *,
    chat: bool,
    labels: Callable[[JsonObject], Mapping[str, float]] | None,
) -> JsonObject:
    """Write the answer of a well-behaved server.

    Args:
        body: The request.
        texts: The texts before stop strings, limits and constraints.
        chat: Which of the two formats.
        labels: Log-probabilities of the first token's alternatives.
    """
    choices = [_choice(body, text, k, chat=chat, labels=labels) for k, text in enumerate(texts)]
    source = json.dumps(body.get("messages")) if chat else str(body.get("prompt"))
    written = sum(len(_words(_text_of(choice))) for choice in choices)
    read = len(_words(source))
    whole: JsonObject = {
        "id": "test-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": body.get("model"),
        "choices": choices,
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }
    if body.get("return_token_ids"):
        if chat:
            whole["prompt_token_ids"] = _ids(source)
        else:
            choices[0]["prompt_token_ids"] = _ids(source)
    return whole


def _choice(
    body: JsonObject,
    text: str,
    k: int,
    *,
    chat: bool,
    labels: Callable[[JsonObject], Mapping[str, float]] | None,
) -> JsonObject:
    text, reason = _limit(_obey(body, text), body)
    choice: JsonObject = {"index": k, "finish_reason": reason}
    if chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    if body.get("logprobs"):
        top = int(body.get("top_logprobs") or body["logprobs"])
        ranked = sorted((labels(body) if labels else {}).items(), key=lambda pair: -pair[1])[:top]
        choice["logprobs"] = _logprobs(_words(text), ranked, chat=chat)
    if body.get("return_token_ids"):
        choice["token_ids"] = _ids(text)
    return choice


def _logprobs(words: list[str], ranked: list[tuple[str, float]], *, chat: bool) -> JsonObject:
    tops = [ranked if ranked and not k else [(word, -0.1)] for k, word in enumerate(words)]
    values = [dict(top).get(word, dict(top).get(word.strip(), -0.1)) for word, top in zip(words, tops, strict=True)]
    if not chat:
        return {"tokens": words, "token_logprobs": values, "top_logprobs": [dict(top) for top in tops]}
    content = [
        {
            "token": word,
            "logprob": value,
            "top_logprobs": [{"token": one, "logprob": lp} for one, lp in top],
        }
        for word, value, top in zip(words, values, tops, strict=True)
    ]
    return {"content": content}


def _obey(body: JsonObject, text: str) -> str:
    """Replace a text that breaks the request's constraint by one that obeys it."""
    structured = body.get("structured_outputs") or {}
    options = structured.get("choice")
    if options:
        return text if text in options else str(options[0])
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        try:
            data = json.loads(text)
        except ValueError:
            return json.dumps(_instance(schema, text))
        needed = schema.get("required", ())
        good = not needed or (isinstance(data, dict) and set(needed) <= set(data))
        return text if good else json.dumps(_instance(schema, text))
    return text


def _instance(schema: JsonObject, text: str) -> Any:
    """Make the simplest value of a JSON schema; `text` itself where an enumeration or a string allows it."""
    if "enum" in schema:
        return text if text in schema["enum"] else schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object":
        return {name: _instance(inner, text) for name, inner in schema.get("properties", {}).items()}
    simple: dict[Any, Any] = {"array": [], "integer": 0, "number": 0.0, "boolean": True, "null": None}
    return simple.get(kind, text)


def _limit(text: str, body: JsonObject) -> tuple[str, str]:
    for stop in body.get("stop") or ():
        text = text.split(stop)[0]
    words = _words(text)
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if limit is not None and len(words) > limit:
        return "".join(words[:limit]), "length"
    return text, "stop"


def _text_of(choice: JsonObject) -> str:
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+", text)


def _ids(text: str) -> list[int]:
    return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big") for word in _words(text)]
