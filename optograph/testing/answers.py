"""Answers of a well-behaved OpenAI-compatible server, whole or streamed, with limits and constraints obeyed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optograph.testing.http import JsonObject, Reply, chunk, head

Labels = Callable[[JsonObject], Mapping[str, float]]


def answer(body: JsonObject, texts: list[str], *, chat: bool, labels: Labels | None = None) -> JsonObject:
    """Write the answer of a well-behaved server.

    Args:
        body: The request.
        texts: The texts before stop strings, limits and constraints.
        chat: Which of the two formats.
        labels: Log-probabilities of the first token's alternatives.
    """
    choices = [_choice(body, text, k, chat=chat, labels=labels) for k, text in enumerate(texts)]
    source = json.dumps(body.get("messages")) if chat else str(body.get("prompt"))
    written = sum(len(words(_text_of(choice))) for choice in choices)
    read = len(words(source))
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


def whole_reply(data: JsonObject, *, delay_s: float = 0.0) -> Reply:
    """Make the reply that gives an answer in one body."""
    content = json.dumps(data).encode()
    return Reply((head(200, len(content)), content), delay_s=delay_s)


def stream_reply(data: JsonObject, *, usage: bool = True, delay_s: float = 0.0) -> Reply:
    """Make the reply that gives an answer as server-sent events, a word an event.

    Args:
        data: The answer as a whole, in the chat or the raw format.
        usage: Whether the last event tells the tokens used.
        delay_s: Wait before the first byte, in seconds.
    """
    parts = [head(200, None, "text/event-stream")]
    parts += [chunk(f"data: {json.dumps(event)}\n\n".encode()) for event in events(data, usage=usage)]
    parts += [chunk(b"data: [DONE]\n\n"), chunk(b"")]
    return Reply(tuple(parts), delay_s=delay_s)


def events(data: JsonObject, *, usage: bool = True) -> Iterator[JsonObject]:
    """Cut an answer into the events of a stream."""
    frame = {key: value for key, value in data.items() if key not in ("choices", "usage", "prompt_token_ids")}
    chat = "completion" in str(data.get("object")) and str(data.get("object")).startswith("chat")
    frame["object"] = "chat.completion.chunk" if chat else "text_completion"
    first = {"prompt_token_ids": data["prompt_token_ids"]} if "prompt_token_ids" in data else {}
    if "choices" not in data:
        yield data
        return
    for choice in data["choices"]:
        for piece in _pieces(choice, chat=chat):
            yield {**frame, **first, "choices": [piece]}
            first = {}
    if not data["choices"]:
        yield {**frame, "choices": []}
    if usage:
        yield {**frame, "choices": [], "usage": data.get("usage")}


def _pieces(choice: JsonObject, *, chat: bool) -> Iterator[JsonObject]:
    index = choice["index"]
    text = _text_of(choice)
    if chat:
        yield {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    for k, word in enumerate(words(text)):
        piece: JsonObject = {"index": index, "finish_reason": None}
        piece |= {"delta": {"content": word}} if chat else {"text": word}
        if choice.get("logprobs"):
            rows = choice["logprobs"]
            piece["logprobs"] = {name: values[k : k + 1] for name, values in rows.items()}
        if "token_ids" in choice:
            piece["token_ids"] = choice["token_ids"][k : k + 1]
        if "prompt_token_ids" in choice and k == 0:
            piece["prompt_token_ids"] = choice["prompt_token_ids"]
        yield piece
    last: JsonObject = {"index": index, "finish_reason": choice["finish_reason"]}
    if chat:
        last["delta"] = {}
    else:
        last["text"] = ""
    yield last


def words(text: str) -> list[str]:
    """Cut a text into words, which are the tokens here; the white space goes to the front of each."""
    return re.findall(r"\s*\S+|\s+", text)


def _choice(body: JsonObject, text: str, k: int, *, chat: bool, labels: Labels | None) -> JsonObject:
    text, reason = _limit(_obey(body, text), body)
    choice: JsonObject = {"index": k, "finish_reason": reason}
    if chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    if body.get("logprobs"):
        top = int(body.get("top_logprobs") or body["logprobs"])
        ranked = sorted((labels(body) if labels else {}).items(), key=lambda pair: -pair[1])[:top]
        choice["logprobs"] = _logprobs(words(text), ranked, chat=chat)
    if body.get("return_token_ids"):
        choice["token_ids"] = _ids(text)
    return choice


def _logprobs(tokens: list[str], ranked: list[tuple[str, float]], *, chat: bool) -> JsonObject:
    tops = [ranked if ranked and not k else [(word, -0.1)] for k, word in enumerate(tokens)]
    values = [dict(top).get(word, dict(top).get(word.strip(), -0.1)) for word, top in zip(tokens, tops, strict=True)]
    if not chat:
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": [dict(top) for top in tops]}
    content = [
        {
            "token": word,
            "logprob": value,
            "top_logprobs": [{"token": one, "logprob": lp} for one, lp in top],
        }
        for word, value, top in zip(tokens, values, tops, strict=True)
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
    tokens = words(text)
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if limit is not None and len(tokens) > limit:
        return "".join(tokens[:limit]), "length"
    return text, "stop"


def _text_of(choice: JsonObject) -> str:
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _ids(text: str) -> list[int]:
    return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big") for word in words(text)]
