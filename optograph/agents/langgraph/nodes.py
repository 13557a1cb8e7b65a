"""Nodes and routers as ops: what they read and what a model was asked become the parents of what they gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.flow import GraphRun, Outer, running
from optograph.agents.langgraph.noderuns import ChoiceRun, NodeRun
from optograph.agents.langgraph.sites import Site
from optograph.agents.langgraph.unexplained import Unexplained
from optograph.context import enter_node, leave_node
from optograph.graphs import OpInfo
from optograph.graphs.state import current, enter, leave
from optograph.serving import own_lane


class _Traced(Runnable[Any, Any]):
    """What nodes and routers share: their function runs in a frame that notes what is read.

    Args:
        name: Name of the node in its graph.
        path: Name of the node in the whole.
        bound: What runs, as a site or as it is.
        info: The op.
        unexplained: Told what models are asked.
    """

    _record: type[NodeRun] = NodeRun

    def __init__(self, name: str, path: str, bound: Any, info: OpInfo, unexplained: Unexplained) -> None:
        self.name = name
        self.node = name
        self.path = path
        self.info = info
        self.unexplained = unexplained
        self._bound = bound.now() if isinstance(bound, Site) and bound.fixed else bound
        self._is_site = isinstance(self._bound, Site)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run it."""
        run, scope = running.get(), current().scope
        if run is None or config is None or not scope.recording:
            return self._now().invoke(input, config, **kwargs)
        call = self._record(self, run, input, config, scope)
        frame, context = enter(call), enter_node(self.path)
        try:
            output = (self._bound.now() if self._is_site else self._bound).invoke(call.view, config, **kwargs)
        except BaseException as error:
            leave(frame)
            leave_node(context, None if compat.is_pause(error) else error)
            call.failed(error)
            raise
        leave(frame)
        leave_node(context)
        return call.done(output)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run it from async code."""
        run, scope = running.get(), current().scope
        if run is None or config is None or not scope.recording:
            return await self._now().ainvoke(input, config, **kwargs)
        call = self._record(self, run, input, config, scope)
        frame, context = enter(call), enter_node(self.path)
        try:
            output = await self._now().ainvoke(call.view, config, **kwargs)
        except BaseException as error:
            leave(frame)
            leave_node(context, None if compat.is_pause(error) else error)
            call.failed(error)
            raise
        leave(frame)
        leave_node(context)
        return call.done(output)

    def _now(self) -> Any:
        return self._bound.now() if self._is_site else self._bound


class TracedNode(_Traced):
    """Runs a node of a foreign graph as an op."""


class TracedRouter(_Traced):
    """Runs the path of a conditional edge as an op: the nodes that it chooses depend on it.

    Attributes:
        ends: Nodes by what the path gives, or None where it gives their names.
    """

    ends: Mapping[Any, str] | None = None
    _record = ChoiceRun


class TracedSubgraph(Runnable[Any, Any]):
    """Runs a graph that is a node of another one: its nodes read from, and write to, the nodes around it.

    Args:
        name: Name of the node.
        path: Path of the nodes in it, such as ``"outer/"``.
        graph: The rebuilt graph.
        accumulating: Its channels with a reducer.
        shared: Channels that both graphs have.
    """

    def __init__(self, name: str, path: str, graph: Any, accumulating: frozenset[str], shared: frozenset[str]) -> None:
        self.name = name
        self._node = name
        self._path = path
        self._graph = graph
        self._accumulating = accumulating
        self._shared = shared

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph."""
        outer, inner = self._enter(input, config)
        if inner is None:
            return self._graph.invoke(input, config, **kwargs)
        token = running.set(inner)
        try:
            output = self._graph.invoke(input, config, **kwargs)
        except BaseException:
            outer.failed += inner.failed
            raise
        finally:
            running.reset(token)
        return self._leave(outer, inner, output)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph from async code."""
        outer, inner = self._enter(input, config)
        if inner is None:
            return await self._graph.ainvoke(input, config, **kwargs)
        token = running.set(inner)
        try:
            output = await self._graph.ainvoke(input, config, **kwargs)
        except BaseException:
            outer.failed += inner.failed
            raise
        finally:
            running.reset(token)
        return self._leave(outer, inner, output)

    def _enter(self, given: Any, config: RunnableConfig | None) -> tuple[Any, GraphRun | None]:
        own_lane()  # its own nodes may run at once
        outer = running.get()
        if outer is None or config is None or not current().scope.recording:
            return outer, None
        around = Outer(outer, compat.step_of(config), self._shared, outer.controls(self._node, compat.step_of(config)))
        return outer, GraphRun(self._path, self._accumulating, given, around)

    def _leave(self, outer: GraphRun, inner: GraphRun, output: Any) -> Any:
        step = inner.outer.step if inner.outer is not None else 0.0
        channels, targets = compat.writes_of(output)
        for channel in channels:
            if channel in self._shared:
                writers = inner.writers(channel, float("inf"))
                if writers != outer.writers(channel, step):
                    outer.passed(channel, writers, step)
        if targets and inner.tasks:
            outer.decided(list(inner.tasks.values())[-1], targets, step)
        return output
