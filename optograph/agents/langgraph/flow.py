"""The data-flow of one run: who wrote each channel, in which step, and so what each node's reads depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from optograph.graphs import OpInfo, Tape, Value
from optograph.graphs.packing import Packed, inside

START, END = "__start__", "__end__"
_INPUT = OpInfo("input", "The input of the graph.")

Writers = tuple[Value, ...]
_SEVERAL: tuple[float, Value | None] = (float("inf"), None)


class GraphRun:
    """What has been written so far in one run of one graph.

    A node sees what was written in earlier steps; a channel with a reducer keeps every writer, any other one the
    writers of the newest step.

    Attributes:
        failed: Errors of nodes, with the values that stand for them.
        tasks: The newest value of each task.
        newest: For the common case: step and writer of the newest write of a channel, where they are all that a later
            step can see of it.
        steered: Whether somebody may have sent the run to a node.

    Args:
        path: Path of the graph, such as ``"outer/"``; empty for the whole.
        accumulating: Channels with a reducer.
        given: The input.
        outer: For a subgraph, the run around it; None: the input stands for what no node wrote.
    """

    def __init__(self, path: str, accumulating: frozenset[str], given: Any, outer: Outer | None = None) -> None:
        self.path = path
        self.outer = outer
        self.failed: list[tuple[BaseException, Value]] = []
        self.tasks: dict[str, Value] = {}
        self.newest: dict[str, tuple[float, Value | None]] = dict.fromkeys(accumulating, _SEVERAL)
        self.steered = outer is not None
        self._accumulating = accumulating
        self._writers: dict[str, list[tuple[float, Value]]] = {}
        self._controls: dict[str, list[tuple[float, Value]]] = {}
        self._packets: dict[int, tuple[Any, Value]] = {}
        self._step = -1.0
        self.begin(given)

    def begin(self, given: Any, parents: Writers = ()) -> None:
        """Take in an input, and the values that it was made of: of the run, or of a later turn on the same thread."""
        self._given = _keys(given)
        self._input: Value | None = None
        self._data = given
        self._parents = parents
        self.failed.clear()
        if self._given and self._writers:
            self._forget()
        for channel in self._given:
            if channel in self._writers:
                self.newest[channel] = _SEVERAL
                self._writers[channel].append((self._step + 0.5, self.input()))

    def _forget(self) -> None:
        """Let go of what no later turn can see: who sent whom, and all but the newest writers of a channel."""
        self.tasks.clear()
        self._controls.clear()
        self._packets.clear()
        for channel, wrote in self._writers.items():
            if channel not in self._accumulating:
                newest = max(at for at, _ in wrote)
                wrote[:] = [one for one in wrote if one[0] == newest]

    def input(self) -> Value:
        """Return the value that stands for the input."""
        if self._input is None:
            self._input = leaf(self._data, f"{self.path}{START}", self._parents)
        return self._input

    def writers(self, channel: str, step: float, own: Value | None = None) -> Writers:
        """Return who wrote what a reader in this step sees.

        Args:
            channel: The channel.
            step: Number of the reader's step.
            own: A writer of this very step that the reader sees all the same: a router sees its own node's writes.
        """
        wrote = self._writers.get(channel, ())
        if channel in self._accumulating:
            seen = [value for at, value in wrote if at < step or value is own]
            return tuple(dict.fromkeys((*self._source(channel), *seen)))
        newest: float | None = None
        found: list[Value] = []
        for at, value in reversed(wrote):  # in the order of their steps
            if value is own:
                return (value,)
            if at < step:
                if newest is not None and at != newest:
                    break
                newest = at
                found.append(value)
        if not found:
            return self._source(channel)
        return (found[0],) if len(found) == 1 else tuple(dict.fromkeys(reversed(found)))

    def wrote(self, value: Value, channels: Iterable[str], step: float, task: str) -> None:
        """Note that a node wrote channels."""
        if step > self._step:
            self._step = step
        self.tasks[task] = value
        wrote = (step, value)
        for channel in channels:
            known = self._writers.get(channel)
            if known is None:
                known = self._writers[channel] = []
            known.append(wrote)
            before = self.newest.get(channel)
            self.newest[channel] = wrote if before is None or before[0] < step else _SEVERAL

    def passed(self, channel: str, writers: Writers, step: float) -> None:
        """Note what a subgraph wrote to a channel of this graph, on behalf of the nodes in it."""
        self._step = max(self._step, step)
        self.newest[channel] = _SEVERAL
        self._writers.setdefault(channel, []).extend((step, value) for value in writers)

    def decided(self, value: Value, targets: Iterable[Any], step: float) -> None:
        """Note that a node or router sent the run to these nodes; a ``Send`` has a packet."""
        self.steered = True
        for target in targets:
            name = getattr(target, "node", target)
            if isinstance(name, str):
                self._controls.setdefault(name, []).append((step, value))
            if hasattr(target, "arg"):
                self._packets[id(target.arg)] = (target.arg, value)

    def controls(self, node: str, step: float) -> Writers:
        """Return who sent the run to a node that runs in this step."""
        outside = () if self.outer is None else self.outer.controls
        waiting = self._controls.get(node)
        if not waiting:
            return outside
        newest = max((at for at, _ in waiting if at < step), default=None)
        return (*outside, *dict.fromkeys(value for at, value in waiting if at == newest))

    def packet(self, arg: Any) -> Value | None:
        """Return who sent a packet."""
        known = self._packets.get(id(arg))
        return known[1] if known is not None and known[0] is arg else None

    def _source(self, channel: str) -> Writers:
        if self.outer is not None:
            outside = self.outer.writers(channel)
            if outside is not None:
                return outside
        return (self.input(),) if channel in self._given or "__root__" in self._given else ()


class Outer:
    """What a subgraph that is a node of another graph sees of that one.

    Args:
        run: The run around it.
        step: Its step there.
        channels: The channels that both have.
        controls: Who sent the run around it to this subgraph.
    """

    def __init__(self, run: GraphRun, step: float, channels: frozenset[str], controls: Writers = ()) -> None:
        self.run, self.step, self.channels, self.controls = run, step, channels, controls

    def writers(self, channel: str) -> Writers | None:
        """Return who wrote a channel outside; None where only the subgraph has it."""
        return self.run.writers(channel, self.step) if channel in self.channels else None


def _keys(given: Any) -> frozenset[str]:
    """Return the channels that an input writes; one that only goes on (None, a command) writes none."""
    if given is None or type(given).__name__ == "Command":
        return frozenset()
    if isinstance(given, Mapping):
        return frozenset(given)
    fields = getattr(type(given), "model_fields", None) or getattr(type(given), "__dataclass_fields__", None)
    return frozenset(fields or ("__root__",))


running: ContextVar[GraphRun | None] = ContextVar("optograph_graph_run", default=None)
"""The run that nodes belong to."""


def leaf(data: Any, node: str, parents: tuple[Value, ...] = ()) -> Value:
    """Return the value of an input."""
    from optograph.graphs.value import Extra, make

    return make(_INPUT, (), data, Extra(reads=parents, name=None, info={"node": node}))


def node_of(value: Value) -> str | None:
    """Return the name of the node whose run a value is, or None for other values."""
    info = value.info
    return None if info is None else info.get("node")


def dataflow(trace: Tape | Value) -> set[tuple[str, str, str]]:
    """Return who read what from whom.

    Args:
        trace: A tape that heard a run of a traced graph, or the value that such a run gave.

    Returns:
        Triples of the node that wrote, the node that read, and the channel. ``"__start__"`` stands for the input and
        ``"__end__"`` for the output of the whole graph; nodes of a subgraph are named ``OUTER/INNER``.
    """
    values = _ancestors(trace) if isinstance(trace, Value) else trace
    edges: set[tuple[str, str, str]] = set()
    for value in values:
        name = node_of(value)
        if name is None or name.endswith("?") or (name != END and name.endswith((START, END))):
            continue
        for writer, channel in _sources(value):
            edges.add((writer, name, channel))
    return edges


def _ancestors(value: Value) -> Iterator[Value]:
    stack, seen = [value], {value}
    while stack:
        one = stack.pop()
        yield one
        for parent in one.parents:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)


def _sources(value: Value) -> Iterator[tuple[str, str]]:
    """Give the nodes that a node's keyed arguments come from; a graph inside a node stands for its own nodes."""
    extra = value._extra
    if extra is None:
        return
    for key, arg in zip(extra.keys, value._args, strict=True):
        writers = list(inside(arg)) if isinstance(arg, Value | Packed) else []
        for writer in writers:
            if (node_of(writer) or "").endswith("?"):  # a packet: a router only passes on what it read
                yield from _sources(writer)
            else:
                yield from ((name, key) for name in _origins(writer))
    for read in extra.reads:
        name = node_of(read)
        if name is not None and name != END and name.endswith(END):
            yield from _sources(read)


def _origins(writer: Value) -> Iterator[str]:
    name = node_of(writer)
    if name is None:
        return
    if name.endswith(START):  # of a graph that a node calls: what that node had read by then
        before = [one for one in writer.parents if node_of(one) is not None]
        if not before:
            yield START
        for one in before:
            yield from _origins(one)
    else:
        yield name
