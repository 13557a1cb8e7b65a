"""Nodes and routers as ops: what they read and what a model was asked become the parents of what they gave."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.types import Command, Send

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.calls import hear_langchain, stop_hearing
from optograph.agents.langgraph.flow import GraphRun, Outer, running
from optograph.agents.langgraph.sites import Site
from optograph.agents.langgraph.unexplained import Unexplained
from optograph.agents.langgraph.views import Reads, plain, view_of
from optograph.context import enter_node, leave_node
from optograph.graphs import OpInfo, Value
from optograph.graphs.failure import error_record
from optograph.graphs.packing import SCALARS, Packed
from optograph.graphs.state import Frame, current, enter, leave
from optograph.graphs.value import Extra, make

_CALL = OpInfo("model_call", "A model was asked.")
_ROLES = {"human": "user", "ai": "assistant"}
_DEEPEST = 6


class _Traced(Runnable[Any, Any]):
    """What nodes and routers share: their function runs in a frame that notes what is read.

    Args:
        name: Name of the node in its graph.
        path: Name of the node in the whole.
        bound: What runs, as a site or as it is.
        info: The op.
        unexplained: Told what models are asked.
    """

    def __init__(self, name: str, path: str, bound: Any, info: OpInfo, unexplained: Unexplained) -> None:
        self.name = name
        self.node = name
        self.path = path
        self.info = info
        self.unexplained = unexplained
        self._bound = bound
        self._is_site = isinstance(bound, Site)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run it."""
        call = self._begin(input, config)
        if call is None:
            return self._now().invoke(input, config, **kwargs)
        frame, context, hearing = enter(call.frame), enter_node(self.path), hear_langchain()
        try:
            output = self._now().invoke(call.view, config, **kwargs)
        except BaseException as error:
            leave(frame)
            leave_node(context, None if compat.is_pause(error) else error)
            stop_hearing(hearing)
            call.failed(error)
            raise
        leave(frame)
        leave_node(context)
        stop_hearing(hearing)
        return call.done(output)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run it from async code."""
        call = self._begin(input, config)
        if call is None:
            return await self._now().ainvoke(input, config, **kwargs)
        frame, context, hearing = enter(call.frame), enter_node(self.path), hear_langchain()
        try:
            output = await self._now().ainvoke(call.view, config, **kwargs)
        except BaseException as error:
            leave(frame)
            leave_node(context, None if compat.is_pause(error) else error)
            stop_hearing(hearing)
            call.failed(error)
            raise
        leave(frame)
        leave_node(context)
        stop_hearing(hearing)
        return call.done(output)

    def _now(self) -> Any:
        return self._bound.now() if self._is_site else self._bound

    def _begin(self, given: Any, config: RunnableConfig | None) -> _Call | None:
        run = running.get()
        if run is None or config is None or not current().scope.recording:
            return None
        return self._call(run, given, config)

    @abstractmethod
    def _call(self, run: GraphRun, given: Any, config: Mapping[str, Any]) -> _Call:
        """Return the record of one run."""


class TracedNode(_Traced):
    """Runs a node of a foreign graph as an op."""

    def _call(self, run: GraphRun, given: Any, config: Mapping[str, Any]) -> _Call:
        return _Call(self, run, given, config)


class TracedRouter(_Traced):
    """Runs the path of a conditional edge as an op: the nodes that it chooses depend on it.

    Attributes:
        ends: Nodes by what the path gives, or None where it gives their names.
    """

    ends: Mapping[Any, str] | None = None

    def _call(self, run: GraphRun, given: Any, config: Mapping[str, Any]) -> _Call:
        return _Choice(self, run, given, config)


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


class _Call:
    """One run of a node.

    Attributes:
        view: What the node is given.
        frame: The op's frame.
    """

    def __init__(self, owner: _Traced, run: GraphRun, given: Any, config: Mapping[str, Any]) -> None:
        self.owner = owner
        self.run = run
        self.step, self.task, self._packet = compat.task_of(config)
        self._given = given
        self._reads: Reads = {}
        self.view = view_of(given, self._reads)
        self.frame = Frame(current().scope, {})

    def done(self, output: Any) -> Any:
        """Record what the node gave, and return it."""
        if type(output) is dict and SCALARS.issuperset(map(type, output.values())):  # the common case, made quick
            self.run.wrote(self.value(output), output, self.step, self.task)
            return output
        output = plain(output)
        value = self.value(shown(output))
        channels, targets = compat.writes_of(output)
        self.run.wrote(value, channels, self.step, self.task)
        if targets:
            self.run.decided(value, targets, self.step)
        outer = self.run.outer
        if outer is not None and isinstance(output, Command):
            channels, targets = compat.parent_writes_of(output)
            for channel in channels:
                outer.run.passed(channel, (value,), outer.step)
            outer.run.decided(value, targets, outer.step)
        return output

    def failed(self, error: BaseException) -> None:
        """Record a failure, so that feedback can start from it; a pause is none."""
        if compat.is_pause(error):
            self.frame.reads = None
            return
        value = self.value(error_record(self.owner.info.name, error, None, ""), failed=True)
        self.run.failed.append((error, value))

    def value(self, data: Any, *, failed: bool = False, own: Value | None = None) -> Value:
        """End the frame and return the op's value."""
        keys, args, writers = self._arguments(own)
        frame = self.frame
        read = tuple(frame.reads or ())
        notes = frame.info or {}
        frame.reads = None
        calls: tuple[Value, ...] = ()
        if "calls" in notes:
            self.owner.unexplained.check(self.owner.path, notes["calls"], read, self._given)
            calls = tuple(_asked(note, (*read, *writers)) for note in notes.pop("calls"))
        # A router's choice is no data, but without it the node would not have run.
        control = self.run.controls(self.owner.node, self.step) if own is None else ()
        extra = Extra(keys, (*read, *calls, *control), None, {"node": self.owner.path, **notes}, failed)
        return make(self.owner.info, args, data, extra)

    def _arguments(self, own: Value | None) -> tuple[tuple[str, ...], tuple[Any, ...], tuple[Value, ...]]:
        found: dict[str, tuple[Value, ...]] = {}
        if not self._reads:
            return (), (), ()
        sender = self.run.packet(self._given) if self._packet else None
        if sender is not None:
            found.update(dict.fromkeys(self._reads, (sender,)))
        else:
            for channel in self._reads:
                writers = self.run.writers(channel, self.step, own)
                if writers:
                    found[channel] = writers
        every = found.values()
        args = tuple([one[0] if len(one) == 1 else Packed("list", None, one) for one in every])
        return tuple(found), args, tuple([value for one in every for value in one])


class _Choice(_Call):
    """One run of a router."""

    def done(self, output: Any) -> Any:
        """Record what was chosen, and return it."""
        output = plain(output)
        value = self.value(shown(output), own=self.run.tasks.get(self.task))
        chosen = output if isinstance(output, list | tuple) else [output]
        ends = getattr(self.owner, "ends", None) or {}
        self.run.decided(value, [one if isinstance(one, Send) else ends.get(one, one) for one in chosen], self.step)
        return output


def _asked(note: dict[str, Any], parents: tuple[Value, ...]) -> Value:
    texts = note.get("texts")
    data = texts[0] if texts else note.get("error")
    return make(_CALL, (), data, Extra((), parents, None, {"calls": [note]}, "error" in note))


def shown(data: Any, depth: int = 0) -> Any:
    """Return what a node gave as plain data, as far as that is simple: messages become role and content."""
    kind = type(data)
    if kind in SCALARS or depth > _DEEPEST:
        return data
    if kind is dict:
        if SCALARS.issuperset(map(type, data.values())):
            return data
        return {key: shown(item, depth + 1) for key, item in data.items()}
    if kind is list or kind is tuple:
        return [shown(item, depth + 1) for item in data]
    if isinstance(data, BaseMessage):
        return _message(data)
    if isinstance(data, Send):
        return {"send": data.node, "packet": shown(data.arg, depth + 1)}
    if isinstance(data, Command):
        goto = data.goto if isinstance(data.goto, str) else shown(data.goto, depth + 1)
        return {"goto": goto, "update": shown(data.update, depth + 1)}
    return data


def _message(message: BaseMessage) -> dict[str, Any]:
    said: dict[str, Any] = {"role": _ROLES.get(message.type, message.type), "content": message.content}
    if getattr(message, "tool_calls", None):
        said["tool_calls"] = [{"name": one["name"], "args": one["args"]} for one in message.tool_calls]  # type: ignore[attr-defined]
    return said
