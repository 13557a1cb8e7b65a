"""A step's answer as it is written: an async iterator of text, with the traced result at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any

from optograph.errors import UserError
from optograph.graphs import Value
from optograph.serving import Pieces, streaming_to

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("optograph_step_listener", default=None)


class StepStream(AsyncIterator[str]):
    """The pieces of a step's answer, in the order in which they are written.

    An empty piece means that what came before does not count, and the answer begins anew: it broke off, or did not fit
    and was asked for again. After the last piece, `result` holds the step's traced value. A failure is raised by the
    iteration, as `Step.acall` would raise it. Leaving early: `aclose`, or use it in ``async with``.

    Example:
        >>> stream = step.astream(text="2+2?")
        >>> async for piece in stream:
        ...     print(piece, end="")
        >>> stream.result.number
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, Value]]) -> None:
        self._ask = ask
        self._context = copy_context()  # the candidate and the scopes of whoever called `astream`
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._task: asyncio.Task[Value] | None = None

    @property
    def result(self) -> Value:
        """The step's traced value.

        Raises:
            UserError: The stream has not been read to its end.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise UserError("the result is there when the stream has been read to its end: `async for piece in stream`")
        return self._task.result()

    async def __anext__(self) -> str:
        if self._task is None:
            self._task = self._start()
        piece = await self._queue.get()
        if piece is not None:
            return piece
        self._queue.put_nowait(None)  # a stream that has ended stays so
        with suppress(asyncio.CancelledError):
            await self._task
        raise StopAsyncIteration

    def _start(self) -> asyncio.Task[Value]:
        loop = asyncio.get_running_loop()

        def hear(piece: str) -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody reads any more
                loop.call_soon_threadsafe(self._queue.put_nowait, piece)

        async def ask() -> Value:
            _listener.set(hear)
            return await self._ask()

        task = loop.create_task(ask(), context=self._context)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Value]) -> None:
        if not task.cancelled():
            task.exception()  # seen, even if nobody reads to the end
        self._queue.put_nowait(None)

    async def aclose(self) -> None:
        """Stop asking, where the answer has not come yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> StepStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@contextmanager
def heard() -> Iterator[Pieces | None]:
    """Let the answers asked for within the block be heard by the step's stream, where it is streamed."""
    listener = _listener.get()
    if listener is None:
        yield None
        return
    with streaming_to(listener) as pieces:
        yield pieces
