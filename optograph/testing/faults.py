"""Faults of an endpoint, each written once for whole and streamed answers, and drawn so that a run can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from optograph.errors import UserError
from optograph.testing.answers import stream_reply, whole_reply, words
from optograph.testing.http import JsonObject, Reply, error_reply, head

FAULTS = (
    "429",  # too many requests
    "429-retry-after",  # the same, with Retry-After: 1
    "500",
    "503",
    "400",
    "401",
    "reset",  # the connection is reset
    "hang",  # no answer at all
    "hang-mid",  # half of the answer, then silence
    "drip",  # a good answer, one byte every 50 ms
    "garbage",  # bytes that are no JSON
    "html",  # a web page with status 200
    "cut-body",  # half of the promised body, then the connection closes
    "half",  # half of the answer in a body that is whole for HTTP
    "wrong-json",  # JSON, but no completion
    "wrong-schema",  # a good body whose text is JSON of a wrong shape
    "empty-choices",
    "truncate",  # half of the text, finish_reason "length"
    "nan-logprob",
    "redirect",  # 307 to another host
    "wrong-model",  # another model answers
)


@dataclass(slots=True)
class FaultPlan:
    """Draws faults as a function of a request's content and of how often it came before.

    Attributes:
        rate: Share of requests that get a fault, from 0 to 1.
        modes: Which faults.
        seed: Another seed, other faults.
        seen: How often each content came.
    """

    rate: float = 0.0
    modes: Sequence[str] = FAULTS
    seed: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.modes if mode not in FAULTS]
        if unknown or not self.modes:
            raise UserError(f"faults are some of {', '.join(FAULTS)}; got {list(self.modes)!r}")
        if not 0.0 <= self.rate <= 1.0:
            raise UserError(f"a fault rate is from 0 to 1, got {self.rate!r}")

    def draw(self, key: str) -> str | None:
        """Count a request and say which fault it gets, or None.

        Args:
            key: Stands for the request's content, as `request_key` makes it.
        """
        attempt = self.seen[key]
        self.seen[key] += 1
        if self.rate <= 0.0:
            return None
        digest = hashlib.sha256(f"{self.seed}/{key}/{attempt}".encode()).digest()
        if int.from_bytes(digest[:8], "big") / 2**64 >= self.rate:
            return None
        return self.modes[int.from_bytes(digest[8:16], "big") % len(self.modes)]


def request_key(body: JsonObject) -> str:
    """Return the SHA-256 (hex) of a request's content; how the answer is sent (streamed or not) is no part of it."""
    content = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def good_reply(body: JsonObject, data: JsonObject, *, delay_s: float = 0.0) -> Reply:
    """Make the reply that a request asks for: in one body, or streamed."""
    if body.get("stream"):
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return stream_reply(data, usage=usage, delay_s=delay_s)
    return whole_reply(data, delay_s=delay_s)


def fault_reply(fault: str, body: JsonObject, data: JsonObject) -> Reply:
    """Make the reply of a broken server.

    Args:
        fault: One of `FAULTS`.
        body: The request.
        data: The good answer; it may be changed.
    """
    if fault in ("429", "500", "503", "400", "401"):
        return error_reply(int(fault), f"fault {fault}")
    simple = {
        "429-retry-after": error_reply(429, "slow down", {"Retry-After": "1"}),
        "redirect": error_reply(307, "elsewhere", {"Location": "http://127.0.0.1:9/v1/chat/completions"}),
        "reset": Reply((), ending="reset"),
        "hang": Reply((), ending="hang"),
        "html": _body(b"<html><body>Bad gateway</body></html>", "text/html"),
    }
    if fault in simple:
        return simple[fault]
    if fault == "garbage":
        broken = b'{"choices": [{"mess\xff\xfe'
        return _body(b"data: " + broken + b"\n\n", "text/event-stream") if body.get("stream") else _body(broken)
    good = good_reply(body, _changed(fault, data))
    if fault in ("hang-mid", "cut-body", "half", "drip"):
        return _broken_off(fault, good, streamed=bool(body.get("stream")))
    return good


def _changed(fault: str, data: JsonObject) -> JsonObject:
    """Change an answer's content."""
    if fault == "wrong-json":
        return {"object": "chat.completion", "result": "ok"}
    if fault == "empty-choices":
        return {**data, "choices": []}
    if fault == "wrong-model":
        return {**data, "model": "another-model"}
    choice = data["choices"][0]
    if fault == "truncate":
        choice["finish_reason"] = "length"
        text = _text(choice)
        parts = words(text)
        kept = parts[: (len(parts) + 1) // 2] if len(parts) > 1 else [text[: len(text) // 2]]
        _set_text(choice, "".join(kept))
    elif fault == "wrong-schema":
        _set_text(choice, '{"unexpected": 1}')
    elif fault == "nan-logprob":
        row = {"token": words(_text(choice))[0], "logprob": float("nan"), "top_logprobs": []}
        choice["logprobs"] = {"content": [row]}
    return data


def _text(choice: JsonObject) -> str:
    return str(choice["message"]["content"] if "message" in choice else choice["text"]) or "x"


def _set_text(choice: JsonObject, text: str) -> None:
    """Put another text in; what belongs to tokens that are gone goes too."""
    if "message" in choice:
        choice["message"]["content"] = text
    else:
        choice["text"] = text
    count = len(words(text))
    if choice.get("logprobs"):
        choice["logprobs"] = {name: rows[:count] for name, rows in choice["logprobs"].items()}
    if "token_ids" in choice:
        choice["token_ids"] = choice["token_ids"][:count]


def _broken_off(fault: str, good: Reply, *, streamed: bool) -> Reply:
    """Send a good reply in bytes, in part, or not to its end."""
    first, *rest = good.parts
    content = b"".join(rest)
    if fault == "drip":
        return Reply((first, *(content[k : k + 1] for k in range(len(content)))), pause_s=0.05)
    # A stream breaks between two events, a body anywhere.
    half = b"".join(rest[: len(rest) // 2]) if streamed else content[: len(content) // 2]
    if fault == "half":
        return replace(good, parts=(first, half, b"0\r\n\r\n")) if streamed else _body(half)
    return Reply((first, half), ending="hang" if fault == "hang-mid" else "close")


def _body(content: bytes, kind: str = "application/json") -> Reply:
    return Reply((head(200, len(content), kind), content))
