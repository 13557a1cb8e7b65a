"""The OpenAI wire format: requests to JSON bodies, JSON answers to completions, nothing bad accepted silently.

Both the chat and the raw completion format are read, with the additions of vLLM (token ids) and llama.cpp.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from optograph.errors import ModelError, ServingError
from optograph.serving.schemas import Choice, JsonSchema, Regex, Schema
from optograph.serving.types import Completion, ModelIdentity, Request, TokenLogprob, Usage

JsonObject = dict[str, Any]


def request_body(request: Request) -> JsonObject:
    """Write the fields that all OpenAI-compatible servers know (no model name, no schema)."""
    body: JsonObject = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "n": request.n,
    }
    if request.prompt is None:
        body["messages"] = [one.to_json() for one in request.messages]
    else:
        body["prompt"] = request.prompt
    if request.stop:
        body["stop"] = list(request.stop)
    if request.sampling_seed is not None:
        body["seed"] = request.sampling_seed
    if request.logprobs and request.prompt is None:
        body["logprobs"] = True
        body["top_logprobs"] = request.logprobs
    elif request.logprobs:
        body["logprobs"] = request.logprobs
    return body


def json_schema_format(schema: JsonSchema, *, strict: bool | None = None) -> JsonObject:
    """Write the ``response_format`` field for a JSON schema."""
    inner: JsonObject = {"name": schema.name, "schema": schema.schema}
    if strict is not None:
        inner["strict"] = strict
    return {"type": "json_schema", "json_schema": inner}


def choice_grammar(options: tuple[str, ...]) -> str:
    """Write the llama.cpp grammar (GBNF) that allows exactly `options`."""
    return "root ::= " + " | ".join(json.dumps(one, ensure_ascii=False) for one in options)


def decode(body: str, where: str) -> JsonObject:
    """Read a response body as a JSON object.

    Args:
        body: The text of the body.
        where: What answered, for the message.

    Raises:
        ServingError: Of kind ``"bad_response"`` when it is anything else, or holds NaN or infinity.
    """
    try:
        data = _DECODER.decode(body)
    except (ValueError, RecursionError) as error:
        raise bad_response(f"{where} answered with something that is no JSON ({error}): {excerpt(body)!r}") from None
    if not isinstance(data, dict):
        raise bad_response(f"{where} answered with JSON that is no object: {excerpt(body)!r}")
    return data


def parse_completion(data: Mapping[str, Any], request: Request, identity: ModelIdentity) -> Completion:
    """Make a completion from an answer in the chat or the raw completion format.

    Raises:
        ServingError: Of kind ``"bad_response"`` when the answer lacks what was asked for.
        ModelError: When the model refused to answer.
    """
    where = f"model {identity.served_name!r} at {identity.endpoint}"
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise bad_response(f"{where} answered without any choice: {excerpt(json.dumps(data))!r}")
    try:
        texts = tuple(_text(choice, where) for choice in choices)
        reasons = tuple(str(choice.get("finish_reason") or "stop") for choice in choices)
        ids = tuple(_ids(choice.get("token_ids")) for choice in choices)
        logprobs = tuple(_logprobs(choice.get("logprobs")) for choice in choices)
        usage = data.get("usage") or {}
        counts = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        prompt_ids = _ids(data.get("prompt_token_ids") or choices[0].get("prompt_token_ids"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise bad_response(f"{where} answered in an unknown form ({error}): {excerpt(json.dumps(data))!r}") from None
    if request.logprobs and any(one is None for one in logprobs):
        raise bad_response(f"{where} gave no log-probabilities although they were asked for")
    if request.token_ids and any(one is None for one in ids):
        raise bad_response(f"{where} gave no token ids although they were asked for")
    return Completion(
        texts=texts,
        finish_reasons=reasons,
        token_ids=ids if request.token_ids else (None,) * len(texts),
        logprobs=logprobs if request.logprobs else (None,) * len(texts),
        usage=counts,
        latency_s=0.0,
        identity=identity,
        prompt_token_ids=prompt_ids if request.token_ids else None,
    )


def check_constraint(completion: Completion, schema: Schema | None, *, json_too: bool = False) -> None:
    """Check that complete texts obey a choice or a regular expression.

    Args:
        completion: The answer.
        schema: What it was to be held to.
        json_too: Whether to check that an answer to a JSON schema is JSON; otherwise that is the caller's to check, who
            can often mend it.

    Raises:
        ServingError: Of kind ``"constraint_ignored"``: the server let through what it was asked to prevent.
    """
    for text, reason in zip(completion.texts, completion.finish_reasons, strict=True):
        match schema:
            case Choice(options=options):
                good = text in options
            case Regex(pattern=pattern):
                good = re.fullmatch(pattern, text) is not None
            case JsonSchema() if json_too:
                good = _is_json(text)
            case _:
                good = True
        if not good and reason != "length":
            raise ServingError(
                f"{completion.identity.endpoint} did not hold the answer to {schema!r}: it gave {excerpt(text)!r}; "
                "simplify the schema, use a server with constrained decoding, or leave the schema out",
                kind="constraint_ignored",
            )


def prices_of(listed: Mapping[str, Any]) -> tuple[float, float] | None:
    """Read the price in an entry of a list of models (``pricing: {prompt, completion}``, US dollars per token).

    Returns:
        US dollars per million tokens read, and per million tokens written; None where the entry gives no usable price.
    """
    pricing = listed.get("pricing")
    if not isinstance(pricing, Mapping):
        return None
    try:
        read, written = (float(pricing[name]) * 1e6 for name in ("prompt", "completion"))
    except (KeyError, TypeError, ValueError):
        return None
    good = math.isfinite(read) and math.isfinite(written) and read >= 0 and written >= 0
    return (read, written) if good else None


def waiting_requests(metrics: str) -> int | None:
    """Read from vLLM's metrics how many requests wait for a place, over all its engines; None: they do not tell."""
    found = re.findall(r"^vllm:num_requests_waiting(?:\{[^}]*\})? ([0-9.eE+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in found)) if found else None


def bad_response(message: str) -> ServingError:
    """Make the error for an unusable answer."""
    return ServingError(message, kind="bad_response", retryable=True)


def excerpt(text: str, limit: int = 200) -> str:
    """Shorten a text for an error message."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _text(choice: Mapping[str, Any], where: str) -> str:
    if "message" not in choice:
        text = choice["text"]
    else:
        message = choice["message"]
        if message.get("refusal"):
            raise ModelError(f"{where} refused to answer: {excerpt(str(message['refusal']))!r}")
        text = message.get("content")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TypeError("the text is no string")
    return text


def _ids(source: Any) -> tuple[int, ...] | None:
    return None if source is None else tuple(int(one) for one in source)


def _logprobs(source: Any) -> tuple[TokenLogprob, ...] | None:
    if source is None:
        return None
    if source.get("content") is not None:
        return tuple(
            TokenLogprob(
                str(one["token"]),
                float(one["logprob"]),
                tuple((str(top["token"]), float(top["logprob"])) for top in one.get("top_logprobs") or ()),
            )
            for one in source["content"]
        )
    if source.get("tokens") is None:
        return None
    tops = source.get("top_logprobs") or [None] * len(source["tokens"])
    return tuple(
        TokenLogprob(
            str(token),
            float(value),
            tuple(sorted(((str(k), float(v)) for k, v in (top or {}).items()), key=lambda pair: -pair[1])),
        )
        for token, value, top in zip(source["tokens"], source["token_logprobs"], tops, strict=True)
    )
