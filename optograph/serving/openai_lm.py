"""Models behind any OpenAI-compatible endpoint: OpenAI itself, vLLM, llama.cpp's server and the like."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from optograph.errors import ServingError, UserError
from optograph.secrets import register_secret, scrub
from optograph.serving import wire
from optograph.serving.base import BaseLM
from optograph.serving.breaker import Breaker
from optograph.serving.constraints import constraint_fields, is_packed, unpack
from optograph.serving.loop import run_on_background
from optograph.serving.pieces import Pieces, wanted_pieces
from optograph.serving.retry import Deadline, Retry, RetryableError, parse_retry_after, status_is_retryable
from optograph.serving.schemas import Schema
from optograph.serving.stream import StreamAssembler
from optograph.serving.transport import HttpAnswer, Transport
from optograph.serving.types import Capabilities, Completion, ModelIdentity, Request
from optograph.serving.urls import check_url, is_loopback

Flavour = Literal["openai", "vllm", "llamacpp"]

DEFAULT_URL = "https://api.openai.com/v1"

_CAPABILITIES: dict[str, Capabilities] = {
    "openai": Capabilities(json_schema=True, choice=True, logprobs=True, max_logprobs=20),
    "vllm": Capabilities(json_schema=True, choice=True, regex=True, logprobs=True, token_ids=True, max_logprobs=20),
    "llamacpp": Capabilities(json_schema=True, choice=True, logprobs=True, max_logprobs=1000),
}
_REMEMBERED_SCHEMAS = 64
_METRICS_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class _Key:
    """An API key that shows itself nowhere."""

    value: str

    def __repr__(self) -> str:
        return "_Key(…)"


class OpenAILM(BaseLM):
    """A model behind an OpenAI-compatible endpoint.

    Redirects are not followed, and the answer must come from the model that was asked. The API key is registered as a
    secret, so that it is blanked in all that is written.

    Args:
        model: The name under which the endpoint serves the model.
        base_url: Where, such as ``"http://127.0.0.1:8000/v1"``; by default ``OPENAI_BASE_URL``, or OpenAI itself.
        api_key: By default ``OPENAI_API_KEY`` (for vLLM ``VLLM_API_KEY`` first); an endpoint on this machine and a vLLM
            server need none.
        flavour: Which additions the server knows. ``"vllm"``: ``structured_outputs`` for choices and regular
            expressions, token ids. ``"llamacpp"``: grammars. ``"openai"``: a choice, or a JSON schema that is no object
            at its root, is packed into a JSON object of one field and unpacked again (log-probabilities and token ids
            stay those of the packed form).
        name: What the user calls the model; ``"openai/MODEL"`` by default.
        max_concurrency: Most calls in flight at once.
        adaptive: Whether fewer than that are made where the server cannot take them; see `Limiter`.
        stream: Whether answers are streamed: the same answers, but a server that stalls is found out by the deadlines
            between tokens.
        retry: When a failed attempt is made again.
        deadline: How long to wait.
        breaker: When the endpoint counts as down; None: never.
        extra_body: Further fields of every request's body.
        capabilities: What the endpoint can do, where it differs from what its flavour usually can.

    Raises:
        UserError: For a bad URL, a missing key or an unknown flavour.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        flavour: Flavour = "openai",
        name: str | None = None,
        max_concurrency: int = 32,
        adaptive: bool = True,
        stream: bool = False,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        deadline: Deadline = Deadline(),  # noqa: B008 - frozen
        breaker: Breaker | None = Breaker(),  # noqa: B008 - frozen
        extra_body: dict[str, Any] | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        if flavour not in _CAPABILITIES:
            raise UserError(f"flavour is one of {', '.join(_CAPABILITIES)}, got {flavour!r}")
        if not model or not isinstance(model, str):
            raise UserError(f"the model's name must be a non-empty string, got {model!r}")
        super().__init__(
            name or f"{'vllm' if flavour == 'vllm' else 'openai'}/{model}",
            capabilities or _CAPABILITIES[flavour],
            max_concurrency=max_concurrency,
            retry=retry,
            deadline=deadline,
            breaker=breaker,
            adaptive=adaptive,
        )
        self.model = model
        self.flavour = flavour
        self.stream = stream
        self.base_url = check_url(base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL)
        self._key = _Key(_find_key(api_key, self.base_url, flavour))
        register_secret(self._key.value)
        self._extra_body = _checked_body(extra_body)
        self._identity = ModelIdentity(self.base_url, self.model)
        self._is_openai = urlsplit(self.base_url).hostname == "api.openai.com"
        self._constraints: dict[int, tuple[Schema, dict[str, Any]]] = {}
        self._transport = Transport(self.base_url, {"Authorization": f"Bearer {self._key.value}"}, deadline)
        self._poller: asyncio.Task[None] | None = None

    async def identity(self) -> ModelIdentity:
        """Name endpoint and model; an endpoint does not tell which weights it holds."""
        return self._identity

    async def served_models(self) -> tuple[str, ...]:
        """List the names of the models that the endpoint serves.

        Raises:
            ServingError: When it does not answer, or not in the usual form.
        """
        listed = await run_on_background(self._list_models())
        return tuple(str(one["id"]) for one in listed)

    async def prices(self) -> dict[str, tuple[float, float]]:
        """List the prices that some endpoints give with their models.

        Returns:
            For each model with a price, by name: US dollars per million tokens read, and per million tokens written.

        Raises:
            ServingError: When the endpoint does not answer, or not in the usual form.
        """
        listed = await run_on_background(self._list_models())
        found = ((str(one["id"]), wire.prices_of(one)) for one in listed)
        return {name: price for name, price in found if price is not None}

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        await run_on_background(self._close())

    def __repr__(self) -> str:
        return f"OpenAILM({self.model!r}, base_url={self.base_url!r}, flavour={self.flavour!r})"

    async def _complete(self, request: Request) -> Completion:
        if self.flavour == "vllm" and self.limiter is not None and self.limiter.adaptive and self._poller is None:
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        data = await self._ask("/completions" if request.prompt is not None else "/chat/completions", request)
        completion = wire.parse_completion(data, request, self._answerer(data))
        if request.schema is not None:
            schema = request.schema
            if is_packed(schema, self.flavour):
                completion = replace(completion, texts=tuple(unpack(text, schema) for text in completion.texts))
            wire.check_constraint(completion, schema)
        return completion

    def _body(self, request: Request, *, stream: bool) -> dict[str, Any]:
        body = wire.request_body(request)
        body["model"] = self.model
        if request.schema is not None:
            body.update(self._constraint(request.schema))
        if self._is_openai and request.prompt is None:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if request.token_ids:
            body["return_token_ids"] = True
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        body.update(self._extra_body)
        return body

    def _constraint(self, schema: Schema) -> dict[str, Any]:
        """Return the fields for a schema, which are made once for each."""
        known = self._constraints.get(id(schema))
        if known is not None and known[0] is schema:
            return known[1]
        fields = constraint_fields(schema, self.flavour)
        if fields is None:
            raise UserError(f"model {self.name!r} cannot hold its answer to {schema!r}")
        if len(self._constraints) >= _REMEMBERED_SCHEMAS:
            self._constraints.clear()
        self._constraints[id(schema)] = (schema, fields)
        return fields

    def _answerer(self, data: dict[str, Any]) -> ModelIdentity:
        """Check that the model that was asked is the one that answered."""
        answered = data.get("model", self.model)
        if answered == self.model:
            return self._identity
        good = isinstance(answered, str) and (
            self.flavour == "llamacpp"  # serves one model and gives it a name of its own
            or (self.flavour == "openai" and answered.startswith(f"{self.model}-"))  # a dated version
        )
        if not good:
            raise ServingError(
                f"{self.base_url} was asked for model {self.model!r}, but {answered!r} answered", kind="wrong_model"
            )
        return ModelIdentity(self.base_url, answered)

    async def _ask(self, path: str, request: Request) -> dict[str, Any]:
        pieces = self._listened(request)
        stream = None
        if self.stream or pieces is not None:
            stream = StreamAssembler(self.base_url, request.n, on_text=None if pieces is None else pieces.add)
        answer = await self._transport.post(path, self._body(request, stream=stream is not None), stream=stream)
        if answer.streamed is not None:
            return answer.streamed
        if answer.status != 200:
            raise await self._status_error(answer)
        return wire.decode(answer.text, self.base_url)

    def _listened(self, request: Request) -> Pieces | None:
        """Return who is to hear the answer as it is written; what comes packed is heard when it is whole."""
        pieces = wanted_pieces()
        if pieces is None or request.n > 1 or is_packed(request.schema, self.flavour):
            return None
        pieces.begin()
        return pieces

    async def _list_models(self) -> list[dict[str, Any]]:
        answer = await self._transport.get("/models")
        if answer.status != 200:
            said = scrub(wire.excerpt(" ".join(answer.text.split()), 300))
            raise ServingError(f"{self.base_url} does not list its models ({answer.status}): {said}", kind="http")
        listed = wire.decode(answer.text, self.base_url).get("data")
        if not isinstance(listed, list):
            raise wire.bad_response(f"{self.base_url} lists its models in an unknown form")
        return [one for one in listed if isinstance(one, dict) and "id" in one]

    async def _status_error(self, answer: HttpAnswer) -> ServingError:
        status = answer.status
        said = scrub(wire.excerpt(" ".join(answer.text.split()), 300))
        if 300 <= status < 400:
            message = f"{self.base_url} redirects elsewhere ({status}), which is not followed: give the final URL"
            return ServingError(message, kind="redirect")
        if status in (401, 403):
            message = f"{self.base_url} refused the API key ({status}); check OPENAI_API_KEY or api_key"
            return ServingError(message, kind="auth")
        if status == 404:
            return ServingError(await self._explain_missing(said), kind="unknown_model")
        if status_is_retryable(status):
            kind = "rate_limit" if status == 429 else "timeout" if status == 408 else "server"
            wait = parse_retry_after(answer.retry_after)
            message = f"{self.base_url} answered {status}: {said}"
            return RetryableError(message, kind=kind, retry_after_s=wait, status=status)
        message = f"{self.base_url} refused the request for model {self.model!r} ({status}): {said}"
        return ServingError(message, kind="bad_request")

    async def _explain_missing(self, said: str) -> str:
        start = f"{self.base_url} knows no model {self.model!r} (404)"
        try:
            async with asyncio.timeout(5):
                names = [str(one["id"]) for one in await self._list_models()]
        except (ServingError, TimeoutError):
            return f"{start}: {said}; check the model's name and that the URL ends as the server wants it, often in /v1"
        return f"{start}; it serves {', '.join(map(repr, names)) or 'none'}"

    async def _poll(self) -> None:
        """Ask vLLM whether requests wait in it, while calls are under way; one that does not tell is left alone."""
        limiter = self.limiter
        while limiter is not None:
            await asyncio.sleep(_METRICS_EVERY_S)
            if limiter.in_flight == 0:
                limiter.congested = False
                self._poller = None
                return
            try:
                answer = await self._transport.get("/metrics", root=True)
            except ServingError:
                limiter.congested = False
                continue
            waiting = wire.waiting_requests(answer.text) if answer.status == 200 else None
            limiter.congested = bool(waiting)
            if waiting is None:
                return  # `_poller` stays set: it is not asked again

    async def _close(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.cancel()
        await self._transport.close()


def _checked_body(extra: dict[str, Any] | None) -> dict[str, Any]:
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"extra_body must be plain JSON data, got {extra!r}: {error}") from None
    return dict(extra or {})


def _find_key(api_key: str | None, base_url: str, flavour: str) -> str:
    own = os.environ.get("VLLM_API_KEY") if flavour == "vllm" else None
    key = api_key or own or os.environ.get("OPENAI_API_KEY")
    if key:
        return key
    if flavour != "openai" or is_loopback(base_url):
        return "EMPTY"
    raise UserError(f"{base_url} needs an API key: set OPENAI_API_KEY, or pass api_key=…")
