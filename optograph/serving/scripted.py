"""A model that says what it was told to say: for tests and examples, with the interface of the real ones."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from optograph.errors import ModelError, UserError
from optograph.serving.base import BaseLM
from optograph.serving.retry import NO_RETRY, Deadline, Retry
from optograph.serving.types import Capabilities, Completion, ModelIdentity, Request, TokenLogprob, Usage

Reply = str | BaseException | Mapping[str, Any] | list[Any]
Script = Callable[[Request], Reply | Awaitable[Reply]]
Labels = Callable[[Request], Mapping[str, float]]

_WORD = re.compile(r"\s*\S+|\s+")
_ALL = Capabilities(json_schema=True, choice=True, regex=True, logprobs=True, token_ids=True, max_logprobs=1000)


class ScriptedLM(BaseLM):
    """Answer from a list of replies, in order, or from a function of the request.

    A reply is a text, JSON data (written out as JSON) or an exception (raised). A function that depends on the request
    alone makes the model deterministic whatever the order of calls; it may be async. Replies are given as they are,
    also where they break the request's schema, so that tests can show what follows.

    Tokens are words here (split at white space, which goes to the front of each word), token ids are hashes of them.

    Args:
        replies: The replies, or a function that makes one; with `Request.n` texts it is asked n times.
        name: What the model is called.
        labels: Gives the log-probability of each alternative of the first token, when log-probabilities are asked for.
            Without it every token has log-probability 0.
        capabilities: What the model claims to be able to do; all by default.
        max_concurrency: Most calls in flight at once.
        retry: When a reply that is a retryable `ServingError` is followed by another attempt.
        deadline: How long an async function may take.

    Attributes:
        requests: The requests that were answered or refused, in order of arrival.
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Script,
        *,
        name: str = "scripted",
        labels: Labels | None = None,
        capabilities: Capabilities = _ALL,
        max_concurrency: int | None = None,
        retry: Retry = NO_RETRY,
        deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(name, capabilities, max_concurrency=max_concurrency, retry=retry, deadline=deadline)
        if not callable(replies) and (isinstance(replies, str) or not isinstance(replies, Sequence)):
            raise UserError(f"replies are a list or a function of the request, got {replies!r}")
        self._script = replies if callable(replies) else None
        self._replies = () if callable(replies) else tuple(replies)
        self._next = 0
        self._lock = threading.Lock()
        self._labels = labels
        self.requests: list[Request] = []

    async def identity(self) -> ModelIdentity:
        """Name the script; a scripted model has no weights."""
        return self._identity

    @property
    def _identity(self) -> ModelIdentity:
        return ModelIdentity("scripted", self.name)

    async def _complete(self, request: Request) -> Completion:
        with self._lock:
            self.requests.append(request)
        texts, reasons = [], []
        for _ in range(request.n):
            text, reason = _cut(_text(await self._reply(request)), request)
            texts.append(text)
            reasons.append(reason)
        tokens = [_words(text) for text in texts]
        return Completion(
            texts=tuple(texts),
            finish_reasons=tuple(reasons),
            token_ids=tuple(_ids(words) if request.token_ids else None for words in tokens),
            logprobs=tuple(self._logprobs(request, words) for words in tokens),
            usage=Usage(len(_words(request.text)), sum(len(words) for words in tokens)),
            latency_s=0.0,
            identity=self._identity,
            prompt_token_ids=_ids(_words(request.text)) if request.token_ids else None,
        )

    async def _reply(self, request: Request) -> Reply:
        if self._script is None:
            reply = self._take(request)
        else:
            made = self._script(request)
            reply = await made if inspect.isawaitable(made) else made
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _take(self, request: Request) -> Reply:
        with self._lock:
            if self._next >= len(self._replies):
                raise ModelError(
                    f"scripted model {self.name!r} is out of replies: it had {len(self._replies)}, "
                    f"and was asked once more: {_shorten(request.text)!r}"
                )
            self._next += 1
            return self._replies[self._next - 1]

    def _logprobs(self, request: Request, words: list[str]) -> tuple[TokenLogprob, ...] | None:
        if request.logprobs == 0:
            return None
        plain = [TokenLogprob(word, 0.0, ((word, 0.0),)) for word in words]
        if self._labels is None or not plain:
            return tuple(plain)
        labels = self._labels(request)
        ranked = sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))[: request.logprobs]
        first = words[0]
        own = labels.get(first, labels.get(first.strip(), ranked[-1][1] if ranked else 0.0))
        return (TokenLogprob(first, own, tuple(ranked)), *plain[1:])


def _text(reply: Reply) -> str:
    if isinstance(reply, str):
        return reply
    return json.dumps(reply, ensure_ascii=False)


def _cut(text: str, request: Request) -> tuple[str, str]:
    """Apply stop strings and the token limit."""
    places = [place for place in (text.find(stop) for stop in request.stop) if place >= 0]
    if places:
        text = text[: min(places)]
    words = _words(text)
    if len(words) > request.max_tokens:
        return "".join(words[: request.max_tokens]), "length"
    return text, "stop"


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _ids(words: list[str]) -> tuple[int, ...]:
    return tuple(int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) >> 1 for word in words)


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
