"""Models behind any OpenAI-compatible endpoint: OpenAI itself, vLLM, llama.cpp's server and the like."""

from __future__ import annotations

import asyncio
import json
import os
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from optograph.errors import ServingError, UserError
from optograph.serving import wire
from optograph.serving.base import BaseLM
from optograph.serving.loop import run_on_background
from optograph.serving.retry import Deadline, Retry, RetryableError, parse_retry_after, status_is_retryable
from optograph.serving.schemas import Choice, JsonSchema, Regex
from optograph.serving.types import Capabilities, Completion, ModelIdentity, Request
from optograph.serving.urls import check_url, is_loopback

if TYPE_CHECKING:
    import openai

Flavour = Literal["openai", "vllm", "llamacpp"]

DEFAULT_URL = "https://api.openai.com/v1"

_CAPABILITIES: dict[str, Capabilities] = {
    "openai": Capabilities(json_schema=True, choice=True, logprobs=True, max_logprobs=20),
    "vllm": Capabilities(json_schema=True, choice=True, regex=True, logprobs=True, token_ids=True, max_logprobs=20),
    "llamacpp": Capabilities(json_schema=True, choice=True, logprobs=True, max_logprobs=1000),
}
_PACKED = "answer"


@dataclass(frozen=True, slots=True)
class _Key:
    """An API key that shows itself nowhere."""

    value: str

    def __repr__(self) -> str:
        return "_Key(…)"

    def scrub(self, text: str) -> str:
        return text.replace(self.value, "…") if len(self.value) >= 8 else text


class OpenAILM(BaseLM):
    """A model behind an OpenAI-compatible endpoint.

    Answers are not streamed. Redirects are not followed, and the answer must come from the model that was asked. The
    client's own retries are off: `retry` decides.

    Args:
        model: The name under which the endpoint serves the model.
        base_url: Where, such as ``"http://127.0.0.1:8000/v1"``; by default ``OPENAI_BASE_URL``, or OpenAI itself.
        api_key: By default ``OPENAI_API_KEY`` (for vLLM ``VLLM_API_KEY`` first); an endpoint on this machine and a vLLM
            server need none.
        flavour: Which additions the server knows. ``"vllm"``: ``structured_outputs`` for choices and regular
            expressions, token ids. ``"llamacpp"``: grammars. ``"openai"``: a choice is packed into a JSON object of one
            field and unpacked again (its log-probabilities and token ids stay those of the packed form).
        name: What the user calls the model; ``"openai/MODEL"`` by default.
        max_concurrency: Most calls in flight at once.
        retry: When a failed attempt is made again.
        deadline: How long to wait.
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
        retry: Retry = Retry(),  # noqa: B008 - frozen
        deadline: Deadline = Deadline(),  # noqa: B008 - frozen
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
        )
        self.model = model
        self.flavour = flavour
        self.base_url = check_url(base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL)
        self._key = _Key(_find_key(api_key, self.base_url, flavour))
        self._extra_body = dict(extra_body or {})
        self._client: openai.AsyncOpenAI | None = None

    async def identity(self) -> ModelIdentity:
        """Name endpoint and model; an endpoint does not tell which weights it holds."""
        return ModelIdentity(self.base_url, self.model)

    async def served_models(self) -> tuple[str, ...]:
        """List the names of the models that the endpoint serves.

        Raises:
            ServingError: When it does not answer, or not in the usual form.
        """
        return await run_on_background(self._served_models())

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await run_on_background(client.close())

    def __repr__(self) -> str:
        return f"OpenAILM({self.model!r}, base_url={self.base_url!r}, flavour={self.flavour!r})"

    async def _complete(self, request: Request) -> Completion:
        path = "/completions" if request.prompt is not None else "/chat/completions"
        body = {"model": self.model, **wire.request_body(request), **self._constraint(request)}
        if urlsplit(self.base_url).hostname == "api.openai.com" and request.prompt is None:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if request.token_ids:
            body["return_token_ids"] = True
        data = await self._post(path, body | self._extra_body)
        completion = wire.parse_completion(data, request, self._answerer(data))
        if isinstance(request.schema, Choice) and self.flavour == "openai":
            completion = replace(completion, texts=tuple(_unpack(text) for text in completion.texts))
        wire.check_constraint(completion, request.schema)
        return completion

    def _constraint(self, request: Request) -> dict[str, Any]:
        match request.schema, self.flavour:
            case None, _:
                return {}
            case JsonSchema() as schema, flavour:
                strict = _allows_strict(schema.schema) if flavour == "openai" else None
                return {"response_format": wire.json_schema_format(schema, strict=strict or None)}
            case Choice(options=options), "vllm":
                return {"structured_outputs": {"choice": list(options)}}
            case Regex(pattern=pattern), "vllm":
                return {"structured_outputs": {"regex": pattern}}
            case Choice(options=options), "llamacpp":
                return {"grammar": wire.choice_grammar(options)}
            case Choice(options=options), _:
                return {"response_format": wire.json_schema_format(_pack(options), strict=True)}
        raise UserError(f"model {self.name!r} cannot hold its answer to {request.schema!r}")

    def _answerer(self, data: dict[str, Any]) -> ModelIdentity:
        """Check that the model that was asked is the one that answered."""
        answered = data.get("model", self.model)
        good = isinstance(answered, str) and (
            answered == self.model
            or self.flavour == "llamacpp"  # serves one model and gives it a name of its own
            or (self.flavour == "openai" and answered.startswith(f"{self.model}-"))  # a dated version
        )
        if not good:
            raise ServingError(
                f"{self.base_url} was asked for model {self.model!r}, but {answered!r} answered", kind="wrong_model"
            )
        return ModelIdentity(self.base_url, answered)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import openai

        try:
            text = await self._open_client().post(path, cast_to=str, body=body)
        except openai.APIStatusError as error:
            raise await self._status_error(error) from None
        except openai.APITimeoutError:
            raise RetryableError(
                f"{self.base_url} was silent for too long (connect_s={self.deadline.connect_s}, "
                f"silence_s={self.deadline.silence_s})",
                kind="timeout",
            ) from None
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except openai.OpenAIError as error:
            raise wire.bad_response(self._key.scrub(f"{self.base_url}: {error}")) from None
        return wire.decode(text, self.base_url)

    async def _served_models(self) -> tuple[str, ...]:
        import openai

        try:
            text = await self._open_client().get("/models", cast_to=str)
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except openai.OpenAIError as error:
            message = self._key.scrub(f"{self.base_url} does not list its models: {error}")
            raise ServingError(message, kind="http") from None
        listed = wire.decode(text, self.base_url).get("data")
        if not isinstance(listed, list):
            raise wire.bad_response(f"{self.base_url} lists its models in an unknown form")
        return tuple(str(one["id"]) for one in listed if isinstance(one, dict) and "id" in one)

    async def _status_error(self, error: openai.APIStatusError) -> ServingError:
        status = error.status_code
        said = self._key.scrub(wire.excerpt(" ".join(error.response.text.split()), 300))
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
            wait = parse_retry_after(error.response.headers.get("retry-after"))
            return RetryableError(f"{self.base_url} answered {status}: {said}", kind=kind, retry_after_s=wait)
        message = f"{self.base_url} refused the request for model {self.model!r} ({status}): {said}"
        return ServingError(message, kind="bad_request")

    async def _explain_missing(self, said: str) -> str:
        start = f"{self.base_url} knows no model {self.model!r} (404)"
        try:
            async with asyncio.timeout(5):
                names = await self._served_models()
        except (ServingError, TimeoutError):
            return f"{start}: {said}; check the model's name and that the URL ends as the server wants it, often in /v1"
        return f"{start}; it serves {', '.join(map(repr, names)) or 'none'}"

    def _connection_error(self, error: openai.APIConnectionError) -> ServingError:
        cause = error.__cause__ or error
        said = self._key.scrub(f"{type(cause).__name__}: {cause}".rstrip(": "))
        return RetryableError(
            f"cannot reach {self.base_url} ({said}); check that the server runs and that the URL is right",
            kind="connection",
        )

    def _open_client(self) -> openai.AsyncOpenAI:
        """Give the client, which lives on the background loop."""
        if self._client is None:
            import openai

            timeout = openai.Timeout(self.deadline.silence_s, connect=self.deadline.connect_s)
            self._client = openai.AsyncOpenAI(
                api_key=self._key.value,
                base_url=self.base_url,
                max_retries=0,
                timeout=timeout,
                http_client=openai.DefaultAsyncHttpxClient(
                    follow_redirects=False,
                    timeout=timeout,
                    trust_env=not is_loopback(self.base_url),  # no proxy lies between this machine and itself
                ),
            )
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _close_later, loop, self._client).atexit = False
        return self._client


def _close_later(loop: asyncio.AbstractEventLoop, client: openai.AsyncOpenAI) -> None:
    if loop.is_running() and not client.is_closed():
        asyncio.run_coroutine_threadsafe(client.close(), loop)


def _find_key(api_key: str | None, base_url: str, flavour: str) -> str:
    own = os.environ.get("VLLM_API_KEY") if flavour == "vllm" else None
    key = api_key or own or os.environ.get("OPENAI_API_KEY")
    if key:
        return key
    if flavour != "openai" or is_loopback(base_url):
        return "EMPTY"
    raise UserError(f"{base_url} needs an API key: set OPENAI_API_KEY, or pass api_key=…")


def _pack(options: tuple[str, ...]) -> JsonSchema:
    return JsonSchema(
        {
            "type": "object",
            "properties": {_PACKED: {"type": "string", "enum": list(options)}},
            "required": [_PACKED],
            "additionalProperties": False,
        },
        _PACKED,
    )


def _unpack(text: str) -> str:
    """Take the choice out of its JSON object; a text that holds none (cut off, say) stays as it is."""
    try:
        data = json.loads(text)
    except ValueError:
        return text
    packed = data.get(_PACKED) if isinstance(data, dict) else None
    return packed if isinstance(packed, str) else text


def _allows_strict(schema: Any) -> bool:
    """Tell whether OpenAI's strict mode takes a schema: every object closed, every property required."""
    if isinstance(schema, list):
        return all(_allows_strict(one) for one in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
    return all(
        _allows_strict(one) for key, one in schema.items() if key not in ("default", "enum", "const", "examples")
    )
