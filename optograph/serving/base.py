"""A model is one async function: the `LM` protocol, and the base class that adds what every model needs.

LM.complete(Request) -> Completion
BaseLM = refuse what the endpoint cannot do, hold the concurrency limit, circuit breaker, deadline and retries, check
         the answer, tell the observers; a subclass only asks its endpoint once, in `_complete`.
"""

from __future__ import annotations

import abc
import asyncio
import math
import time
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from optograph.errors import ModelError, ServingError, UserError
from optograph.serving.breaker import Breaker, CircuitBreaker
from optograph.serving.limiter import Limiter, Place
from optograph.serving.loop import run_on_background, run_sync
from optograph.serving.observing import Announced, is_announced
from optograph.serving.retry import NO_DEADLINE, NO_RETRY, Attempts, Deadline, Retry, within
from optograph.serving.schemas import Choice, JsonSchema, Regex, schema_of
from optograph.serving.types import (
    Capabilities,
    Completion,
    MessagesLike,
    ModelIdentity,
    Request,
    messages_of,
)


@runtime_checkable
class LM(Protocol):
    """A language model behind one async function.

    Contract: `complete` gives exactly `Request.n` texts or raises; `UserError` for a request that this model can never
    serve, `ServingError` when the endpoint failed (after the model's own retries), `ModelError` when it answered with
    nothing usable. It may be called from any thread and any event loop, many times at once.
    """

    @property
    def name(self) -> str:
        """What the user calls the model, such as ``"local/smollm2-135m"``."""

    @property
    def capabilities(self) -> Capabilities:
        """What the endpoint can do."""

    async def identity(self) -> ModelIdentity:
        """Tell which weights answer; known before the first call."""

    async def complete(self, request: Request) -> Completion:
        """Answer a request."""

    async def aclose(self) -> None:
        """Let go of connections and engines; the model cannot be used afterwards."""


class BaseLM(abc.ABC):
    """Base class of all models: implement `_complete` and `identity`, and set `capabilities`.

    Args:
        name: What the user calls the model.
        capabilities: What the endpoint can do.
        max_concurrency: Most calls in flight at once; further ones wait in order of arrival. None: no limit.
        retry: When a failed attempt is made again.
        deadline: How long to wait.
        breaker: When the endpoint counts as down; None, or a `retry` of one attempt: never.
        adaptive: Whether the limit on concurrency follows what the server can take, from 1 to `max_concurrency`.

    Attributes:
        breaker: State of the circuit breaker (`CircuitBreaker.state` and counters), or None where there is none.
        limiter: State of the concurrency limit, or None where there is none.
    """

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        *,
        max_concurrency: int | None = None,
        retry: Retry = NO_RETRY,
        deadline: Deadline = NO_DEADLINE,
        breaker: Breaker | None = Breaker(),  # noqa: B008 - frozen
        adaptive: bool = False,
    ) -> None:
        if max_concurrency is not None and max_concurrency < 1:
            raise UserError(f"max_concurrency must be at least 1 or None, got {max_concurrency!r}")
        self.name = name
        self.capabilities = capabilities
        self.max_concurrency = max_concurrency
        self.retry = retry
        self.deadline = deadline
        self.limiter = None if max_concurrency is None else Limiter(max_concurrency, adaptive=adaptive)
        self.breaker = None if breaker is None or retry.attempts == 1 else CircuitBreaker(breaker, name)

    def __call__(self, prompt: MessagesLike, **request_fields: Any) -> str:
        """Ask and wait for the first text of the answer.

        Args:
            prompt: One user message, or the messages of a conversation.
            **request_fields: Fields of `Request`; `schema` takes all that `schema_of` takes.

        Raises:
            UserError: For a bad field, a request that the model cannot serve, or a call on the model loop's thread.
            ServingError: When the endpoint failed.
            ModelError: When the model gave nothing usable.
        """
        return self.ask(make_request(prompt, **request_fields)).text

    def ask(self, request: Request) -> Completion:
        """Answer a request and wait for it: the blocking twin of `complete`."""
        if is_announced():
            return run_sync(self._answer(request))
        with Announced(self.name, request) as call:
            return call.ended(run_sync(self._answer(request)))

    async def complete(self, request: Request) -> Completion:
        """Answer a request; from any event loop."""
        if is_announced():
            return await run_on_background(self._answer(request))
        with Announced(self.name, request) as call:
            return call.ended(await run_on_background(self._answer(request)))

    @abc.abstractmethod
    async def identity(self) -> ModelIdentity:
        """Tell which weights answer; known before the first call."""

    async def aclose(self) -> None:  # noqa: B027 - most models hold nothing
        """Let go of connections and engines; the model cannot be used afterwards."""

    @abc.abstractmethod
    async def _complete(self, request: Request) -> Completion:
        """Ask the endpoint once; runs on the background loop."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    async def _answer(self, request: Request) -> Completion:
        """Ask within the limits of concurrency, time and retries, and check what comes back."""
        if request.schema is not None or request.logprobs or request.token_ids:
            self._refuse_impossible(request)
        flight = _Flight()
        if self.limiter is not None:
            await self.limiter.acquire()
            flight.placed = True
        started = time.monotonic()
        total_s = self.deadline.total_s
        try:
            if total_s is None:
                completion = await self._attempts(request, flight)
            else:
                completion = await within(total_s, self._attempts(request, flight), f"model {self.name!r}")
        except ServingError as error:
            if flight.attempting and self.breaker is not None:  # the total deadline came in the midst of an attempt
                probe, flight.probe = flight.probe, False
                self.breaker.failed(error, hash(request), probe=probe)
            raise
        finally:
            if flight.placed and self.limiter is not None:
                self.limiter.release()
            if flight.probe and self.breaker is not None:
                self.breaker.abandoned()
        return replace(completion, latency_s=time.monotonic() - started)

    async def _attempts(self, request: Request, flight: _Flight) -> Completion:
        """Ask until there is an answer, or no sense in asking again; a place is held while an attempt is under way."""
        limiter, breaker = self.limiter, self.breaker
        attempts: Attempts | None = None
        while True:
            if breaker is not None and not breaker.closed:
                flight.probe = await breaker.enter()
            place = None if limiter is None else limiter.sent()
            flight.attempting = True
            try:
                completion = await self._attempt(request, flight)
            except ServingError as error:
                flight.attempting = False
                free = self._note_failure(error, request, flight, place)
                attempts = attempts or Attempts(self.retry)
                wait = attempts.wait_after(error, free=free)
                if wait is None:
                    if attempts.made == 1:
                        raise
                    raise attempts.last(error) from error
            except ModelError:
                flight.attempting = flight.probe = False
                if breaker is not None:
                    breaker.succeeded()  # a refusal is an answer
                raise
            else:
                flight.attempting = flight.probe = False
                if breaker is not None:
                    breaker.succeeded()
                if limiter is not None and place is not None:
                    limiter.succeeded(place)
                return completion
            if breaker is None or breaker.closed:  # an open breaker says itself how long to wait
                await self._pause(wait, flight)

    async def _attempt(self, request: Request, flight: _Flight) -> Completion:
        """Ask once and check the answer; a probe of an endpoint that is down has a time limit of its own."""
        if not flight.probe or self.breaker is None:
            completion = await self._complete(request)
        else:
            what = f"a probe of model {self.name!r}"
            completion = await within(self.breaker.probe_limit_s, self._complete(request), what)
        _check(completion, request, self.name)
        return completion

    def _note_failure(self, error: ServingError, request: Request, flight: _Flight, place: Place | None) -> bool:
        """Tell breaker and limiter; return whether the attempt says nothing about the request.

        Raises:
            ServingError: Of kind ``"down"``.
        """
        free = False
        if self.breaker is not None:
            probe, flight.probe = flight.probe, False
            free = self.breaker.failed(error, hash(request), probe=probe)
        refused = error.kind == "rate_limit" or getattr(error, "status", None) == 503
        if refused and self.limiter is not None and place is not None:
            free = self.limiter.refused(place) or free
        return free

    async def _pause(self, wait_s: float, flight: _Flight) -> None:
        """Wait before another attempt; the place is free meanwhile."""
        if self.limiter is None:
            await asyncio.sleep(wait_s)
            return
        self.limiter.release()
        flight.placed = False
        await asyncio.sleep(wait_s)
        await self.limiter.acquire(front=True)
        flight.placed = True

    def _refuse_impossible(self, request: Request) -> None:
        can = self.capabilities
        missing = [
            what
            for what, wanted, able in (
                ("answers held to a JSON schema", isinstance(request.schema, JsonSchema), can.json_schema),
                ("answers held to a choice", isinstance(request.schema, Choice), can.choice),
                ("answers held to a regular expression", isinstance(request.schema, Regex), can.regex),
                ("log-probabilities", request.logprobs > 0, can.logprobs),
                ("token ids", request.token_ids, can.token_ids),
            )
            if wanted and not able
        ]
        if missing:
            raise UserError(f"model {self.name!r} cannot give {', '.join(missing)}; leave that out of the request")
        if request.logprobs > can.max_logprobs:
            raise UserError(
                f"model {self.name!r} gives at most {can.max_logprobs} alternatives per token, "
                f"got logprobs={request.logprobs!r}"
            )


class _Flight:
    """What a call under way holds: a place under the limit, the right to probe, an attempt."""

    __slots__ = ("attempting", "placed", "probe")

    def __init__(self) -> None:
        self.placed = False
        self.probe = False
        self.attempting = False


def make_request(prompt: MessagesLike, **fields: Any) -> Request:
    """Make a chat request from a prompt and fields of `Request`.

    Raises:
        UserError: For an unknown field or a bad value.
    """
    known = set(Request.__dataclass_fields__) - {"messages", "prompt"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UserError(f"a request has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}")
    if fields.get("schema") is not None:
        fields["schema"] = schema_of(fields["schema"])
    return Request(messages=messages_of(prompt), **fields)


def _check(completion: Completion, request: Request, name: str) -> None:
    """Refuse an answer of the wrong shape or with numbers that are none.

    Raises:
        ServingError: Of kind ``"bad_response"``.
    """
    n = request.n
    if not (
        len(completion.texts) == n
        and len(completion.finish_reasons) == n
        and len(completion.token_ids) == n
        and len(completion.logprobs) == n
    ):
        raise ServingError(
            f"model {name!r} gave {len(completion.texts)} texts where {request.n} were asked for",
            kind="bad_response",
            retryable=True,
        )
    for tokens in completion.logprobs:
        for token in tokens or ():
            values = [token.logprob, *(value for _, value in token.top)]
            if not all(math.isfinite(value) for value in values):
                raise ServingError(
                    f"model {name!r} gave a log-probability that is not finite, at token {token.token!r}",
                    kind="bad_response",
                    retryable=True,
                )
