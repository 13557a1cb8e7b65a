"""The embedded model: llama.cpp in this process, no server to start and no network to reach."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from optograph.errors import ServingError, UserError
from optograph.serving import wire
from optograph.serving.base import BaseLM
from optograph.serving.cache import sha256_of
from optograph.serving.engine import Engine, EngineOptions, Route, engine_for
from optograph.serving.retry import Deadline
from optograph.serving.schemas import Choice, JsonSchema, Regex, Schema
from optograph.serving.types import Capabilities, Completion, ModelIdentity, Request, Usage

_CAPABILITIES = Capabilities(
    json_schema=True, choice=True, regex=True, logprobs=True, token_ids=True, max_logprobs=1000
)


class LlamaCppLM(BaseLM):
    """A GGUF file run by llama.cpp in this process (the extra ``local``: xllamacpp).

    The model is loaded at the first call. Models made for the same file share one engine, which ends with the last of
    them. Sampling is plain (temperature and top_p only). Log-probabilities are the model's own, before a schema bans
    tokens, so that the alternatives of the first token can score labels. Token ids are those that the engine read and
    wrote, the end-of-turn token included where the model ended by itself.

    Args:
        path: The GGUF file.
        name: What the user calls the model; ``"local/FILE"`` by default.
        n_parallel: Requests that are worked on at once; further ones wait.
        n_ctx: Tokens of context for each of them, prompt and answer together.
        threads: Threads that compute; as many as there are processors by default.
        deadline: How long to wait; of its fields only ``total_s`` means anything here.

    Raises:
        UserError: For a missing file, a bad number, or a missing engine.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        n_parallel: int = 8,
        n_ctx: int = 2048,
        threads: int | None = None,
        deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    ) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"there is no model file {str(path)!r}; give the path of a .gguf file")
        threads = threads if threads is not None else os.cpu_count() or 1
        for what, value in (("n_parallel", n_parallel), ("n_ctx", n_ctx), ("threads", threads)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{what} must be a whole number, at least 1, got {value!r}")
        super().__init__(name or f"local/{file.name}", _CAPABILITIES, max_concurrency=n_parallel, deadline=deadline)
        self.path = file
        options = EngineOptions(path=file, n_parallel=n_parallel, n_ctx=n_ctx, threads=threads)
        self._engine: Engine | None = engine_for(options)
        self._identity: ModelIdentity | None = None

    async def identity(self) -> ModelIdentity:
        """Name the file and the SHA-256 of its content."""
        if self._identity is None:
            digest = await asyncio.to_thread(sha256_of, self.path)
            self._identity = ModelIdentity("local", self.path.name, f"sha256:{digest}")
        return self._identity

    async def aclose(self) -> None:
        """Let go of the engine; it ends when no other model uses it."""
        self._engine = None

    async def _complete(self, request: Request) -> Completion:
        if self._engine is None:
            raise UserError(f"model {self.name!r} is closed; make a new one")
        identity = await self.identity()
        bodies = [_body(request, k) for k in range(request.n)]
        route: Route = "chat" if request.prompt is None else "completions"
        answers = await asyncio.gather(*(self._engine.call(route, body) for body in bodies))
        parts = [_parse(answer, request, identity) for answer in answers]
        whole = replace(
            parts[0],
            texts=tuple(part.texts[0] for part in parts),
            finish_reasons=tuple(part.finish_reasons[0] for part in parts),
            token_ids=tuple(part.token_ids[0] for part in parts),
            logprobs=tuple(part.logprobs[0] for part in parts),
            prompt_token_ids=parts[0].prompt_token_ids,
            usage=Usage(parts[0].usage.prompt_tokens, sum(part.usage.completion_tokens for part in parts)),
        )
        # llama.cpp drops, without a word, a grammar that it cannot compile
        wire.check_constraint(whole, request.schema, json_too=True)
        return whole


def _body(request: Request, k: int) -> dict[str, Any]:
    """Write the request for the k-th of its texts: a request of its own, so that all counts are exact."""
    body = wire.request_body(replace(request, n=1))
    body |= {"cache_prompt": True, "top_k": 0, "min_p": 0.0, "verbose": request.token_ids}
    if request.token_ids:
        body["return_tokens"] = True
    if request.sampling_seed is not None:
        body["seed"] = (request.sampling_seed + 7_368_787 * k) % 2**31
    if request.schema is not None:
        body["grammar"] = _grammar(request.schema)
    return body


def _grammar(schema: Schema) -> str:
    match schema:
        case JsonSchema():
            return _json_grammar(schema.schema)
        case Choice(options=options):
            return wire.choice_grammar(options)
        case Regex(pattern=pattern):
            return _regex_grammar(pattern)


def _json_grammar(schema: dict[str, Any]) -> str:
    """Write the llguidance grammar of JSON on one line: small models otherwise spend their tokens on line feeds."""
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"%llguidance {{}}\nstart: %json {json.dumps({**schema, 'x-guidance': layout})}"


def _regex_grammar(pattern: str) -> str:
    """Write the llguidance grammar of one regular expression."""
    escaped = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern).replace("\n", r"\n")
    return f"%llguidance {{}}\nstart: /{escaped}/"


def _parse(answer: dict[str, Any], request: Request, identity: ModelIdentity) -> Completion:
    error = answer.get("error")
    if error is not None:
        raise _refused(error)
    if request.token_ids:
        choice = {**answer["choices"][0], "token_ids": answer.get("__verbose", {}).get("tokens")}
        answer = {**answer, "choices": [choice]}
    return wire.parse_completion(answer, replace(request, n=1), identity)


def _refused(error: Any) -> ServingError:
    said = error.get("message", error) if isinstance(error, dict) else error
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        return ServingError(
            f"the prompt is too long: {said}; shorten it, or make the model with a larger n_ctx",
            kind="context_length",
        )
    code = error.get("code") if isinstance(error, dict) else None
    passing = isinstance(code, int) and code >= 500
    kind = "server" if passing else "bad_request"
    return ServingError(f"llama.cpp refused the request: {said}", kind=kind, retryable=passing)
