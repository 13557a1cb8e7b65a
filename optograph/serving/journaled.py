"""A model behind the journal: every call is recorded before its answer is used, and the journal is the cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict

from optograph.context import current_context
from optograph.errors import OptographError
from optograph.serving.base import LM, BaseLM
from optograph.serving.budget import Budget
from optograph.serving.types import Completion, ModelIdentity, Request, Usage
from optograph.storage import CallRow, Journal, content_hash

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
    """

    def __init__(self, inner: LM, journal: Journal, budget: Budget | None = None) -> None:
        super().__init__(inner.name, inner.capabilities)
        self.inner = inner
        self.journal = journal
        self.budget = budget or Budget()
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
        row = self.journal.find_call(key)
        if row is not None and row.completion is not None:
            return Completion.from_json(self.journal.get(row.completion))
        flying = self._flying.get(key)
        if flying is None:
            flying = asyncio.ensure_future(self._ask(key, identity, request))
            self._flying[key] = flying
            flying.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(flying)

    def _key(self, identity: ModelIdentity, request: Request) -> str:
        base = content_hash([identity.key, request.to_json(), current_context().repeat])
        seen = _seen.get()
        if seen is None or request.temperature == 0:
            return base
        number = seen.get(base, 0)
        seen[base] = number + 1
        return content_hash([base, number])

    async def _ask(self, key: str, identity: ModelIdentity, request: Request) -> Completion:
        reservation = self.budget.reserve(request)
        started = time.monotonic()
        usage: Usage | None = None
        completion: Completion | None = None
        error: str | None = None
        try:
            completion = await self.inner.complete(request)
            usage = completion.usage
            return completion
        except OptographError as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            self.budget.settle(reservation, usage)
            if completion is not None or error is not None:
                self._record(key, identity, request, completion, error, time.monotonic() - started)

    def _record(
        self,
        key: str,
        identity: ModelIdentity,
        request: Request,
        completion: Completion | None,
        error: str | None,
        latency_s: float,
    ) -> None:
        usage = completion.usage if completion is not None else Usage()
        self.journal.add_call(
            CallRow(
                key=key,
                context=asdict(current_context()),
                identity=(completion.identity if completion is not None else identity).to_json(),
                request=self.journal.put(request.to_json()),
                completion=None if completion is None else self.journal.put(completion.to_json()),
                error=error,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                latency_s=latency_s if completion is None else completion.latency_s,
            )
        )
