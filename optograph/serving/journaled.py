"""A model behind the journal: every call is recorded before its answer is used, and the journal is the cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from optograph.context import current_context
from optograph.errors import OptographError, ServingError, StorageError
from optograph.secrets import scrub
from optograph.serving.base import LM
from optograph.serving.budget import Budget
from optograph.serving.ordering import asking
from optograph.serving.types import Completion, ModelIdentity, Request, Usage
from optograph.serving.wrapping import WrappingLM
from optograph.stopping import StopRequest
from optograph.storage import CallRow, Journal, canonical_json, content_hash, text_hash

_seen: ContextVar[dict[str, int] | None] = ContextVar("optograph_draws", default=None)


@contextmanager
def counting_draws() -> Iterator[None]:
    """Tell apart equal requests within one evaluation: the n-th of them is draw n, whatever else runs meanwhile."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def next_draw(key: str) -> int:
    """Return how often this was called with a key before, within one evaluation; 0 outside of any."""
    seen = _seen.get()
    if seen is None:
        return 0
    number = seen.get(key, 0)
    seen[key] = number + 1
    return number


@dataclass(frozen=True, slots=True)
class _Call:
    """A call; `asked` is the request as canonical JSON."""

    key: str
    identity: ModelIdentity
    request: Request
    asked: str


class JournaledLM(WrappingLM):
    """Answers from the journal where it can, and otherwise asks the inner model and records what came back.

    Equal calls have equal keys: identity of the weights, request, repeat, and the number of the draw. Two
    equal calls at the same time are one call. The inner model keeps its own retries, deadlines and limits.

    Args:
        inner: The model that is asked.
        journal: Where calls are recorded.
        budget: Ledger that each paid call is charged to.
        cache: Journal of another run that is looked into as well; what is found there is copied.
        replay: Whether a call that neither journal holds is an error, so that nothing is ever asked.
        stop: When it says so, no new call is begun.
    """

    def __init__(
        self,
        inner: LM,
        journal: Journal,
        budget: Budget | None = None,
        *,
        cache: Journal | None = None,
        replay: bool = False,
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__(inner)
        self.journal = journal
        self.budget = budget or Budget()
        self.cache = cache
        self.replay = replay
        self.stop = stop or StopRequest()
        self._flying: dict[str, asyncio.Future[Completion | None]] = {}

    async def _complete(self, request: Request) -> Completion:
        identity = await self.inner.identity()
        asked = canonical_json(request.to_json())
        key = self._key(identity, request, asked)
        with asking(key):
            return await self._known_or_new(_Call(key, identity, request, asked))

    async def _known_or_new(self, call: _Call) -> Completion:
        while True:
            known = self._find(self.journal, call.key)
            if known is not None:
                return known
            flying = self._flying.get(call.key)
            if flying is None:
                return await self._lead(call)
            answer = await asyncio.shield(flying)
            if answer is not None:
                return answer

    async def _lead(self, call: _Call) -> Completion:
        """Make a call that others may wait for; where it is given up, one of them makes it."""
        flying = self._flying[call.key] = asyncio.get_running_loop().create_future()
        answer: Completion | None = None
        try:
            answer = await self._answer_new(call)
        except Exception as error:
            flying.set_exception(error)
            flying.exception()  # seen, even if nobody waits
            raise
        finally:
            del self._flying[call.key]
            if not flying.done():
                flying.set_result(answer)
        return answer

    @staticmethod
    def _find(journal: Journal, key: str) -> Completion | None:
        row = journal.find_call(key)
        if row is None or row.completion is None:
            return None
        try:
            return Completion.from_json(journal.get(row.completion))
        except StorageError:  # the journal has counted the damage; the call is made again
            return None

    @staticmethod
    def _key(identity: ModelIdentity, request: Request, asked: str) -> str:
        base = text_hash(f"[{canonical_json(identity.key)},{asked},{current_context().repeat}]")
        if _seen.get() is None or request.temperature == 0:
            return base
        return content_hash([base, next_draw(base)])

    async def _answer_new(self, call: _Call) -> Completion:
        """Answer a call that this run has not made: from the other run's journal, or from the model."""
        if self.cache is not None:
            copied = self._find(self.cache, call.key)
            if copied is not None:
                await self._record(call, copied, None, copied.latency_s, paid=False)
                return copied
        if self.replay:
            raise ServingError(
                f"the recorded run holds no answer to a call of {self.name!r} for example "
                f"{current_context().example!r}: the workflow, its data or the job differ from what was recorded",
                kind="replay_miss",
            )
        return await self._ask(call)

    async def _ask(self, call: _Call) -> Completion:
        self.stop.check()
        reservation = await self.budget.areserve(call.request, role=current_context().role, model=self.name)
        started = time.monotonic()
        usage: Usage | None = None
        try:
            completion = await self.inner.complete(call.request)
            usage = completion.usage
        except OptographError as failure:
            error = f"{type(failure).__name__}: {failure}"
            await self._record(call, None, error, time.monotonic() - started)
            raise
        finally:
            self.budget.settle(reservation, usage)
        completion = _without_secrets(completion)
        await self._record(call, completion, None, completion.latency_s)
        return completion

    async def _record(
        self, call: _Call, completion: Completion | None, error: str | None, latency_s: float, *, paid: bool = True
    ) -> None:
        usage = completion.usage if completion is not None else Usage()
        price = self.budget.prices.find(self.name)
        batch = self.journal.batch()
        row = CallRow(
            key=call.key,
            context=current_context().to_json(),
            identity=(call.identity if completion is None else completion.identity).to_json(),
            request=batch.put_text(call.asked),
            completion=None if completion is None else batch.put(completion.to_json()),
            error=error,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            latency_s=latency_s,
            model=self.name,
            usd=None if price is None or not paid else price.usd(usage.prompt_tokens, usage.completion_tokens),
            attempts=1 if paid else 0,
            finish="" if completion is None else ",".join(completion.finish_reasons),
        )
        batch.add_call(row)
        await batch.acommit()


def _without_secrets(completion: Completion) -> Completion:
    """Blank secrets that a model repeats, before the answer is used: a later run reads the same text in the journal."""
    if all(scrub(text) == text for text in completion.texts):
        return completion
    return Completion.from_json(json.loads(scrub(canonical_json(completion.to_json()))))
