"""Running a rebuilt graph: the same methods and the same results as the original's, with a data-flow beside them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.flow import END, GraphRun, running
from optograph.agents.langgraph.noderuns import shown
from optograph.agents.recording import recording_calls
from optograph.graphs import OpError, OpInfo, Value
from optograph.graphs.failure import error_text
from optograph.graphs.packing import Packed
from optograph.graphs.state import current
from optograph.graphs.value import Extra, make
from optograph.serving import branching, own_lane

_OUTPUT = OpInfo("output", "The output of the graph.")
_THREADS = 256
_NO_MORE = object()


@dataclass
class Outcome:
    """What one run gave.

    Attributes:
        output: The plain result.
        value: The value that stands for it, or None where nothing is recorded.
    """

    output: Any
    value: Value | None


class GraphRunner(Runnable[Any, Any]):
    """Stands for a compiled graph where it is called.

    Args:
        app: The original.
        built: The rebuilt copy.
        path: Path of its nodes, such as ``"answer/"`` for a graph that node ``answer`` calls; empty for the whole.
    """

    def __init__(self, app: Any, built: Any, path: str = "") -> None:
        self.name = app.get_name()
        self.path = path
        self.app = app
        self.built = built
        self._reducing = compat.reducing_channels(app)
        self._outputs = compat.output_channels(app)
        self._threads: OrderedDict[str, GraphRun] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("built", "app"):
            raise AttributeError(name)
        return getattr(self.built, name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph, as its own ``invoke`` does."""
        return self.run(input, config, **kwargs).output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph, as its own ``ainvoke`` does."""
        return (await self.arun(input, config, **kwargs)).output

    def run(
        self,
        given: Any,
        config: Any = None,
        *,
        parents: tuple[Value, ...] = (),
        typed: bool = False,
        only: str | None = None,
        **kwargs: Any,
    ) -> Outcome:
        """Run the graph.

        Args:
            given: Its input.
            config: Its configuration.
            parents: Values that the input was made of.
            typed: Whether a failure is an ``OpError`` that feedback can start from, instead of the app's own.
            only: Key of the output that counts; its value comes from no node that wrote only others.
            **kwargs: What ``invoke`` takes.
        """
        run = self._start(given, config, parents)
        if run is None:
            with branching(compat.branch_here):
                return Outcome(self.built.invoke(given, config, **kwargs), None)
        token = running.set(run)
        try:
            with recording_calls(), branching(compat.branch_here):
                output = self.built.invoke(given, config, **kwargs)
        except Exception as error:
            self._failed(run, error, typed)
            raise
        finally:
            running.reset(token)
        return Outcome(output, self._finish(run, output, only))

    async def arun(
        self,
        given: Any,
        config: Any = None,
        *,
        parents: tuple[Value, ...] = (),
        typed: bool = False,
        only: str | None = None,
        **kwargs: Any,
    ) -> Outcome:
        """Like ``run``, from async code."""
        run = self._start(given, config, parents)
        if run is None:
            with branching(compat.branch_here):
                return Outcome(await self.built.ainvoke(given, config, **kwargs), None)
        token = running.set(run)
        try:
            with recording_calls(), branching(compat.branch_here):
                output = await self.built.ainvoke(given, config, **kwargs)
        except Exception as error:
            self._failed(run, error, typed)
            raise
        finally:
            running.reset(token)
        return Outcome(output, self._finish(run, output, only))

    def run_apart(self, given: Any, config: Any = None, **kwargs: Any) -> Outcome:
        """Like ``run``, on a thread of its own where the graph has a checkpointer; the thread is deleted after it."""
        config, thread = self._apart(config)
        try:
            return self.run(given, config, **kwargs)
        finally:
            if thread is not None:
                self._threads.pop(thread, None)
                with suppress(NotImplementedError):  # not every checkpointer can
                    self.built.checkpointer.delete_thread(thread)

    async def arun_apart(self, given: Any, config: Any = None, **kwargs: Any) -> Outcome:
        """Like ``run_apart``, from async code."""
        config, thread = self._apart(config)
        try:
            return await self.arun(given, config, **kwargs)
        finally:
            if thread is not None:
                self._threads.pop(thread, None)
                with suppress(NotImplementedError):
                    await self.built.checkpointer.adelete_thread(thread)

    def _apart(self, config: Mapping[str, Any] | None) -> tuple[Any, str | None]:
        if not isinstance(getattr(self.built, "checkpointer", None), BaseCheckpointSaver):
            return config, None
        thread = uuid4().hex
        given = {**((config or {}).get("configurable") or {}), "thread_id": thread}
        given.pop("checkpoint_id", None)  # of another thread
        return {**(config or {}), "configurable": given}, thread

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Run the graph, as its own ``stream`` does."""
        run = self._start(input, config, ())
        if run is None:
            yield from self.built.stream(input, config, **kwargs)
            return
        # What the generator sets must not be seen by whoever takes its items.
        context, scopes = _inside(run)
        items = context.run(self.built.stream, input, config, **kwargs)
        try:
            while (item := context.run(next, items, _NO_MORE)) is not _NO_MORE:
                yield item
        finally:
            context.run(items.close)
            context.run(scopes.close)
        self._finish(run, None)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Run the graph, as its own ``astream`` does."""
        run = self._start(input, config, ())
        if run is None:
            async for item in self.built.astream(input, config, **kwargs):
                yield item
            return
        context, scopes = _inside(run)
        items = context.run(self.built.astream, input, config, **kwargs)
        loop = asyncio.get_running_loop()
        try:
            while (item := await loop.create_task(_next(items), context=context)) is not _NO_MORE:
                yield item
        finally:
            await loop.create_task(items.aclose(), context=context)
            context.run(scopes.close)
        self._finish(run, None)

    # -- the record -------------------------------------------------------------------------------

    def _start(self, given: Any, config: Mapping[str, Any] | None, parents: tuple[Value, ...]) -> GraphRun | None:
        own_lane()  # before nodes run at once
        frame = current()
        if not frame.scope.recording:
            return None
        if self.path and frame.reads:
            parents = tuple(frame.reads)
        thread = compat.thread_of(config) if getattr(self.built, "checkpointer", None) else None
        known = None if thread is None else self._threads.get(thread)
        if thread is not None and known is not None:
            self._threads.move_to_end(thread)
            known.begin(given, parents)
            return known
        run = GraphRun(self.path, self._reducing, given)
        run.begin(given, parents)
        if thread is not None:
            self._threads[thread] = run
            while len(self._threads) > _THREADS:
                self._threads.popitem(last=False)
        return run

    def _finish(self, run: GraphRun, output: Any, only: str | None = None) -> Value:
        channels = self._outputs
        if only is not None and isinstance(output, Mapping) and only in output:
            channels, output = (only,), {only: output[only]}
        found = {channel: writers for channel in channels if (writers := run.writers(channel, float("inf")))}
        args = tuple(one[0] if len(one) == 1 else Packed("list", None, one) for one in found.values())
        info = {"node": f"{self.path}{END}"}
        value = make(_OUTPUT, args, shown(output), Extra(tuple(found), (), None, info))
        reads = current().reads
        if reads is not None:
            reads[value] = None
        return value

    @staticmethod
    def _failed(run: GraphRun, error: Exception, typed: bool) -> None:
        failed, run.failed = run.failed, []
        for known, value in reversed(failed) if typed else ():
            if _is_from(error, known):  # a node that failed and was tried again is not to blame for what came later
                raise OpError(error_text(value._data), value=value, original=error) from error


def _inside(run: GraphRun) -> tuple[Context, ExitStack]:
    context = copy_context()
    stack = ExitStack()
    context.run(running.set, run)
    context.run(stack.enter_context, recording_calls())
    context.run(stack.enter_context, branching(compat.branch_here))
    return context, stack


def _is_from(error: BaseException | None, known: BaseException) -> bool:
    """Whether an error is another one, or was raised while that one was handled."""
    seen: set[int] = set()
    stack = [error]
    while stack:
        one = stack.pop()
        if one is known:
            return True
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            stack += [one.__cause__, one.__context__]
    return False


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await anext(items)
    except StopAsyncIteration:
        return _NO_MORE
