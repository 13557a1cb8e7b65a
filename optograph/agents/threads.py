"""A blocking function in a thread of its own, awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from optograph.serving import own_lane


class ExitCalled(RuntimeError):
    """A function called ``exit``, which would end a loop that others share.

    Attributes:
        stop: What it raised.
    """

    def __init__(self, message: str, stop: SystemExit) -> None:
        super().__init__(message)
        self.stop = stop


async def in_thread(function: Callable[[], Any], what: str = "the workflow") -> Any:
    """Run a blocking function in a daemon thread, with the caller's context variables.

    Unlike a pool's, the thread holds nobody up: one that never ends neither keeps a worker from others nor the process
    from exiting.

    Args:
        function: What to run.
        what: What it is, for a message.

    Raises:
        ExitCalled: The function called ``exit``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            context.run(own_lane)  # before it starts threads of its own
            result = context.run(function)
        except SystemExit as stop:
            error = ExitCalled(f"{what} called exit({stop.code!r})", stop)
        except StopIteration as stop:  # a future takes none, and whoever awaits it would wait for ever
            error = RuntimeError(f"{what} raised StopIteration")
            error.__cause__ = stop
        except BaseException as failure:  # noqa: BLE001 - handed over to whoever awaits
            error = failure
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="optograph-blocking", daemon=True).start()
    return await future
