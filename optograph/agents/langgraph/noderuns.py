"""What is kept of one run of a node or router: what it read and asked become the parents of what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Command, Send

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.flow import GraphRun
from optograph.agents.langgraph.views import DictView, Reads, plain, view_of
from optograph.graphs import OpInfo, Value
from optograph.graphs.failure import error_record
from optograph.graphs.packing import SCALARS, Packed
from optograph.graphs.state import Frame, Scope
from optograph.graphs.value import Extra, make

_CALL = OpInfo("model_call", "A model was asked.")
_ROLES = {"human": "user", "ai": "assistant"}
_DEEPEST = 6
_quick_tuple = tuple.__new__  # a third of the time of a named tuple's own
_UNKNOWN: tuple[float, Value | None] = (0.0, None)


class NodeRun(Frame):
    """One run of a node, which is the frame of its op too.

    Attributes:
        view: What the node is given.
    """

    __slots__ = ("_given", "_packet", "_reads", "owner", "run", "step", "task", "view")

    def __init__(self, owner: Any, run: GraphRun, given: Any, config: Mapping[str, Any], scope: Scope) -> None:
        self.scope = scope
        self.reads = {}
        self.info = None
        self.owner = owner
        self.run = run
        self.step, self.task, self._packet = compat.task_of(config)
        self._given = given
        self._reads: Reads = {}
        if type(given) is dict:  # the common case, made quick
            self.view = DictView(given)
            self.view._reads = self._reads
        else:
            self.view = view_of(given, self._reads)

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
            self.reads = None
            return
        value = self.value(error_record(self.owner.info.name, error, None, ""), failed=True)
        self.run.failed.append((error, value))

    def value(self, data: Any, *, failed: bool = False, own: Value | None = None) -> Value:
        """End the frame and return the op's value."""
        run, step = self.run, self.step
        sender = run.packet(self._given) if self._packet else None
        quick = own is None and sender is None
        keys: list[str] = []
        args: list[Any] = []
        every: list[Value] = []
        for channel in self._reads:
            at, value = run.newest.get(channel, _UNKNOWN)
            if quick and value is not None and at < step:
                keys.append(channel)
                args.append(value)
                every.append(value)
                continue
            writers = run.writers(channel, step, own) if sender is None else (sender,)
            if writers:
                keys.append(channel)
                args.append(writers[0] if len(writers) == 1 else Packed("list", None, writers))
                every += writers
        # A router's choice is no data, but without it the node would not have run.
        control = run.controls(self.owner.node, step) if own is None and run.steered else ()
        read, notes = tuple(self.reads or ()), {"node": self.owner.path}
        self.reads = None
        if self.info is not None:
            read += self._asked(notes, read, every)
        extra: Extra = _quick_tuple(Extra, (tuple(keys), read + control, None, notes, failed))
        return make(self.owner.info, tuple(args), data, extra)

    def _asked(self, notes: dict[str, Any], read: tuple[Value, ...], writers: list[Value]) -> tuple[Value, ...]:
        noted = dict(self.info or ())
        calls = noted.pop("calls", ())
        notes.update(noted)
        if calls:
            self.owner.unexplained.check(self.owner.path, calls, read, self._given)
        return tuple(_asked(note, (*read, *writers)) for note in calls)


class ChoiceRun(NodeRun):
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
