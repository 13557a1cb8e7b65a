"""A model behind the journal: every call is recorded before its answer is used, and the journal is the cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from optograph.context import current_context
from optograph.errors import OptographError, ServingError, StorageError
from optograph.secrets import scrub
from optograph.serving.base import LM, BaseLM
from optograph.serving.budget import Budget
from optograph.serving.types import Completion, ModelIdentity, Request, Usage
from optograph.stopping import StopRequest
from optograph.storage import CallRow, Journal, canonical_json, content_hash

_seen: ContextVar[dict[str, int] | None] = ContextVar("optograph_draws", default=None)


@contextmanager
def counting_draws() -> Iterator[None]:
    """Tell apart equal requests within one evaluation: the n-th of them is draw n, whatever else runs meanwhile."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


class JournaledLM(BaseLM):
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
        super().__init__(inner.name, inner.capabilities)
        self.inner = inner
        self.journal = journal
        self.budget = budget or Budget()
        self.cache = cache
        self.replay = replay
        self.stop = stop or StopRequest()
        self._flying: dict[str, asyncio.Future[Completion]] = {}

    async def identity(self) -> ModelIdentity:
        """Return the inner model's identity."""
        return await self.inner.identity()

    async def aclose(self) -> None:
        """Close the inner model."""
        await self.inner.aclose()

    async def _complete(self, request: Request) -> Completion:
        identity = await self.inner.identity()
        key = self._key(identity, request)
        known = self._find(self.journal, key)
        if known is not None:
            return known
        flying = self._flying.get(key)
        if flying is None:
            flying = asyncio.ensure_future(self._answer_new(key, identity, request))
            self._flying[key] = flying
            flying.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(flying)

    @staticmethod
    def _find(journal: Journal, key: str) -> Completion | None:
        row = journal.find_call(key)
        if row is None or row.completion is None:
            return None
        try:
            return Completion.from_json(journal.get(row.completion))
        except StorageError:  # the journal has counted the damage; the call is made again
            return None

    def _key(self, identity: ModelIdentity, request: Request) -> str:
        base = content_hash([identity.key, request.to_json(), current_context().repeat])
        seen = _seen.get()
        if seen is None or request.temperature == 0:
            return base
        number = seen.get(base, 0)
        seen[base] = number + 1
        return content_hash([base, number])

    async def _answer_new(self, key: str, identity: ModelIdentity, request: Request) -> Completion:
        """Answer a call that this run has not made: from the other run's journal, or from the model."""
        if self.cache is not None:
            copied = self._find(self.cache, key)
            if copied is not None:
                await self._record(key, copied.identity, request, copied, None, copied.latency_s, paid=False)
                return copied
        if self.replay:
            raise ServingError(
                f"the recorded run holds no answer to a call of {self.name!r} for example "
                f"{current_context().example!r}: the workflow, its data or the job differ from what was recorded",
                kind="replay_miss",
            )
        return await self._ask(key, identity, request)

    async def _ask(self, key: str, identity: ModelIdentity, request: Request) -> Completion:
        self.stop.check()
        reservation = await self.budget.areserve(request, role=current_context().role, model=self.name)
        started = time.monotonic()
        usage: Usage | None = None
        try:
            completion = await self.inner.complete(request)
            usage = completion.usage
        except OptographError as failure:
            error = f"{type(failure).__name__}: {failure}"
            await self._record(key, identity, request, None, error, time.monotonic() - started)
            raise
        finally:
            self.budget.settle(reservation, usage)
        completion = _without_secrets(completion)
        await self._record(key, completion.identity, request, completion, None, completion.latency_s)
        return completion

    async def _record(
        self,
        key: str,
        identity: ModelIdentity,
        request: Request,
        completion: Completion | None,
        error: str | None,
        latency_s: float,
        *,
        paid: bool = True,
    ) -> None:
        usage = completion.usage if completion is not None else Usage()
        price = self.budget.prices.find(self.name)
        batch = self.journal.batch()
        row = CallRow(
            key=key,
            context=current_context().to_json(),
            identity=identity.to_json(),
            request=batch.put(request.to_json()),
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
