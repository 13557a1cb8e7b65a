"""Thread pools of the standard library inside nodes: their threads get the node's context, and so its candidate."""

from __future__ import annotations

import types
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from langchain_core.runnables.config import ContextThreadPoolExecutor

from optograph.agents.langgraph.sites import ModuleSite, Site


def pool_site(thing: Any) -> Site | None:
    """Return the site of the standard library's class of thread pools, of a module it is in, or of a pool; or None."""
    if thing is ThreadPoolExecutor:
        return _Fixed(ContextThreadPoolExecutor)
    if type(thing) is ThreadPoolExecutor:
        return _Fixed(_PoolView(thing))
    if isinstance(thing, types.ModuleType):
        if thing.__name__ == "concurrent.futures":
            return ModuleSite(thing, {"ThreadPoolExecutor": _Fixed(ContextThreadPoolExecutor)})
        if thing.__name__ == "concurrent" and hasattr(thing, "futures"):
            return ModuleSite(thing, {"futures": pool_site(thing.futures) or _Fixed(thing.futures)})
    return None


class _Fixed(Site):
    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def now(self) -> Any:
        """Return what stands for it."""
        return self._thing


class _PoolView(ThreadPoolExecutor):
    """Stands for a pool that the app has made: what it is given runs there, in the context of whoever gives it."""

    __slots__ = ("_pool",)

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.__dict__ = pool.__dict__
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the pool."""
        return self._pool.submit(copy_context().run, fn, *args, **kwargs)
