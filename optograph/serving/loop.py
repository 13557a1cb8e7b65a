"""One long-lived event loop in a background thread, so that plain functions can call async models."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from optograph.errors import UserError
from optograph.serving.ordering import follow_tasks, own_lane

T = TypeVar("T")


class _Background:
    """The loop and its daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        follow_tasks(self.loop)
        self.thread = threading.Thread(target=self._run, name="optograph-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def close(self) -> None:
        """Cancel what still runs, then stop the loop and its thread."""
        if self.loop.is_closed() or not self.thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result(timeout=5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=5)
        if not self.thread.is_alive():
            self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=4)
        await self.loop.shutdown_asyncgens()


_starting = threading.Lock()


@functools.lru_cache(maxsize=1)
def _make() -> _Background:
    background = _Background()
    atexit.register(background.close)
    return background


def _background() -> _Background:
    with _starting:  # lru_cache alone may build two when two threads come first
        return _make()


if hasattr(os, "register_at_fork"):
    # A forked child has no copy of the thread: it starts a loop of its own when it needs one.
    os.register_at_fork(after_in_child=_make.cache_clear)


def on_background_loop() -> bool:
    """Tell whether the caller runs on the background loop's own thread."""
    return threading.current_thread() is _background().thread


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the background loop, with the caller's context variables, and do not wait for it.

    Returns:
        Its future; the caller takes the result or cancels it.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, _background().loop)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for its result.

    The caller's context variables are carried along (changes that the coroutine makes to them stay with it). An
    interrupt of the waiting thread cancels the coroutine.

    Args:
        coroutine: What to run, once.

    Returns:
        The coroutine's result.

    Raises:
        UserError: On the background loop's own thread, which would wait for itself for ever.
    """
    if on_background_loop():
        coroutine.close()
        raise UserError(
            "a blocking model call was made on the thread of the model loop itself and would wait for ever: "
            "inside async code write `await lm.complete(Request(...))` instead of `lm(...)`"
        )
    own_lane()
    future = start(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def run_on_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that must run on the background loop, from whichever loop the caller is on.

    Network clients and semaphores belong to one loop; this keeps them on the background loop for all callers. The
    caller's context variables are carried along, and its cancellation too.
    """
    if on_background_loop():
        return await coroutine
    own_lane()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, _background().loop))
