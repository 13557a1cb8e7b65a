"""A model is one async function: the `LM` protocol, and the base class that adds what every model needs.

LM.complete(Request) -> Completion
BaseLM = refuse what the endpoint cannot do, hold the concurrency limit, deadline and retries, check the
answer,
         tell the observers; a subclass only asks its endpoint once, in `_complete`.
"""

from __future__ import annotations

import abc
import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from optograph.context import CallContext, current_context
from optograph.errors import ServingError, UserError
from optograph.serving.loop import run_on_background, run_sync
from optograph.serving.retry import NO_DEADLINE, NO_RETRY, Deadline, Retry, with_retries, within
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

    Contract: `complete` gives exactly `Request.n` texts or raises; `UserError` for a request that this model
        can never
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


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A finished model call, as observers see it.

    Attributes:
        request: What was asked.
        completion: The answer, or None when the call failed.
        error: Why it failed, or None.
        context: Who asked.
        model: Name of the model.
    """

    request: Request
    completion: Completion | None
    error: BaseException | None
    context: CallContext
    model: str = ""


Observer = Callable[[CallEvent], None]

_observers: ContextVar[tuple[Observer, ...]] = ContextVar("optograph_call_observers", default=())
_inside: ContextVar[bool] = ContextVar("optograph_inside_call", default=False)


@contextmanager
def observing(callback: Observer) -> Iterator[None]:
    """Have `callback` told about every model call that finishes within a ``with`` block.

    The scope is a context variable: tasks and `asyncio.to_thread` inherit it, other threads do not see it. The callback
    runs in the caller's own thread and context, right after the call; where one model wraps another (a cache, say),
    only the outer call is announced. Observers nest; the outer one is told first.
    """
    token = _observers.set((*_observers.get(), callback))
    try:
        yield
    finally:
        _observers.reset(token)


class BaseLM(abc.ABC):
    """Base class of all models: implement `_complete` and `identity`, and set `capabilities`.

    Args:
        name: What the user calls the model.
        capabilities: What the endpoint can do.
        max_concurrency: Most calls in flight at once; further ones wait in order of arrival. None: no limit.
        retry: When a failed attempt is made again.
        deadline: How long to wait.
    """

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        *,
        max_concurrency: int | None = None,
        retry: Retry = NO_RETRY,
        deadline: Deadline = NO_DEADLINE,
    ) -> None:
        if max_concurrency is not None and max_concurrency < 1:
            raise UserError(f"max_concurrency must be at least 1 or None, got {max_concurrency!r}")
        self.name = name
        self.capabilities = capabilities
        self.max_concurrency = max_concurrency
        self.retry = retry
        self.deadline = deadline
        self._places = None if max_concurrency is None else asyncio.Semaphore(max_concurrency)

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
        with self._announced(request) as call:
            call.completion = run_sync(self._answer(request))
        return call.completion

    async def complete(self, request: Request) -> Completion:
        """Answer a request; from any event loop."""
        with self._announced(request) as call:
            call.completion = await run_on_background(self._answer(request))
        return call.completion

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
        self._refuse_impossible(request)
        if self._places is None:
            return await self._within_deadline(request)
        async with self._places:
            return await self._within_deadline(request)

    async def _within_deadline(self, request: Request) -> Completion:
        started = time.monotonic()
        work = with_retries(self.retry, lambda: self._attempt(request))
        completion = await within(self.deadline.total_s, work, f"model {self.name!r}")
        return replace(completion, latency_s=time.monotonic() - started)

    async def _attempt(self, request: Request) -> Completion:
        completion = await self._complete(request)
        _check(completion, request, self.name)
        return completion

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

    @contextmanager
    def _announced(self, request: Request) -> Iterator[_Call]:
        call = _Call()
        if _inside.get():
            yield call
            return
        token = _inside.set(True)
        try:
            try:
                yield call
            finally:
                _inside.reset(token)
        except BaseException as error:
            self._tell(request, None, error)
            raise
        self._tell(request, call.completion, None)

    def _tell(self, request: Request, completion: Completion | None, error: BaseException | None) -> None:
        event = CallEvent(request, completion, error, current_context(), self.name)
        for observer in _observers.get():
            observer(event)


class _Call:
    """Where the answer of a call under way is put."""

    completion: Completion


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
    counts = {
        len(one) for one in (completion.texts, completion.finish_reasons, completion.token_ids, completion.logprobs)
    }
    if counts != {request.n}:
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
