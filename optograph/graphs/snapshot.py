"""From live values to frozen records: the ancestors in order, their stable ids, their encoded data."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

from optograph.errors import UserError
from optograph.graphs.encoding import encode, encoded_error
from optograph.graphs.failure import OpError
from optograph.graphs.operators import METHOD
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.packing import Packed, Traceable, unwrap
from optograph.graphs.parameter import ParameterValue
from optograph.graphs.pausing import collection_paused
from optograph.graphs.shown import shown
from optograph.graphs.state import Tape
from optograph.graphs.trace import Node, ParameterRecord, Ref, Trace
from optograph.graphs.value import Extra, Value, make, parents_of

COLLECT = OpInfo("collect", "The outputs together.", ("outputs",))
_UNSAFE = re.compile(r"\W+", re.ASCII)


class Ancestry:
    """Some values with all their ancestors.

    Attributes:
        order: All of them, parents first, in an order that depends on the graph alone: of several parents the one
            with the longest history comes first, so that loops come out one turn after the other.
    """

    def __init__(self, outputs: Iterable[Value]) -> None:
        roots = list(outputs)
        self._sorted: dict[Value, tuple[Value, ...]] = {}
        self.order = self._visit(roots)
        if self._sorted:
            self.order = self._visit(roots)

    def parents(self, value: Value) -> tuple[Value, ...]:
        """Return the parents of a value, those with a longer history first."""
        return self._sorted.get(value) or parents_of(value)

    def _visit(self, roots: list[Value]) -> list[Value]:
        """Walk depth first, without recursion; note parents that are not sorted by their history."""
        order: list[Value] = []
        depth: dict[Value, int] = {}  # length of the history; -1 while a value waits for its parents
        stack: list[Any] = roots[::-1]
        while stack:
            value = stack.pop()
            if type(value) is tuple:  # the parents of the value below are done
                parents, value = value, stack.pop()
                if len(parents) == 1:
                    depth[value] = depth[parents[0]] + 1
                else:
                    depth[value] = self._compare(value, parents, [depth[parent] for parent in parents]) + 1
                order.append(value)
            elif value not in depth:
                parents = self._sorted.get(value) or parents_of(value)
                depth[value] = -1
                stack.append(value)
                stack.append(parents)
                for parent in reversed(parents):
                    if parent not in depth:
                        stack.append(parent)
        return order

    def _compare(self, value: Value, parents: tuple[Value, ...], depths: list[int]) -> int:
        if depths != sorted(depths, reverse=True):
            pairs = sorted(zip(depths, parents, strict=True), key=lambda pair: -pair[0])
            self._sorted[value] = tuple(parent for _, parent in pairs)
        return max(depths, default=-1)


def as_value(output: Any) -> Value:
    """Return the value that stands for an output: a value, a parameter, a failed op's error, or containers of values.

    Raises:
        UserError: Nothing in the output is traced.
    """
    if isinstance(output, OpError):
        return output.value
    if isinstance(output, Value):
        return output
    plain, node = unwrap(output)
    if node is plain:
        raise UserError(f"the output is not traced: {shown(output)}; return the value that an op gives, not its data")
    return node if isinstance(node, Value) else make(COLLECT, (node,), plain)


def to_plain(output: Any) -> Any:
    """Return plain data: values and parameters, also inside lists, tuples and dicts, replaced by their data."""
    if isinstance(output, Traceable):
        return output._node()._data
    return unwrap(output)[0]


def snapshot(order: list[Value], frozen: Container[Value] = frozenset()) -> tuple[tuple[Node, ...], dict[Value, Ref]]:
    """Return values as nodes, and the ids given to them.

    Args:
        order: The values, parents first.
        frozen: Those that are cut off: they lose their arguments.
    """
    names = _Names(order)
    refs = names.refs
    nodes = []
    for value in order:  # parents come first, so their ids are known
        extra = value._extra
        if extra is None and type(value) is Value and value not in frozen and value._op is not None:
            refs[value] = ref = names.number(value._op, value)  # the common case, written out
            args = tuple([refs[arg] if type(arg) is Value else _operand(arg, refs) for arg in value._args])
            row = (ref, encode(value._data), value._op, args, (), (), False, None, None)
            nodes.append(tuple.__new__(Node, row))
            continue
        if value not in refs and value._op is not None:
            refs[value] = names.number(value._op, value)
        nodes.append(_node(value, refs, value in frozen))
    return tuple(nodes), refs


def _node(value: Value, refs: dict[Value, Ref], frozen: bool) -> Node:
    extra = value._extra or Extra()
    data = encoded_error(value._data) if extra.failed else encode(value._data)
    info = None
    if extra.info is not None:
        encoded = encode(extra.info)
        info = encoded.json if not encoded.sha256 else {"excerpt": encoded.excerpt}
    record = _parameter_record(value) if isinstance(value, ParameterValue) else None
    if frozen:
        return Node(refs[value], data, value._op, (), (), (), True, record, info)
    args = tuple(_operand(arg, refs) for arg in value._args)
    reads = tuple(refs[read] for read in extra.reads)
    return Node(refs[value], data, value._op, args, extra.keys, reads, False, record, info)


def trace_of(source: Any) -> Trace:
    """Return the whole trace of an output, or of everything on a tape."""
    if isinstance(source, Trace):
        return source
    outputs = list(source.values) if isinstance(source, Tape) else [as_value(source)]
    with collection_paused():
        ancestry = Ancestry(outputs)
        nodes, refs = snapshot(ancestry.order)
    if isinstance(source, Tape):
        used = {parent for value in ancestry.order for parent in ancestry.parents(value)}
        outputs = [value for value in outputs if value not in used]
    return Trace(nodes, tuple(dict.fromkeys(str(refs[value]) for value in outputs)))


def trace_to_json(source: Any) -> dict[str, Any]:
    """Return a trace as JSON data, with ids that are the same whenever the same workflow does the same.

    Args:
        source: An output (a value, an `OpError`, a list or dict of values), a tape (its dead branches included),
            or a `Trace`.

    Raises:
        UserError: Nothing in the source is traced.
    """
    return trace_of(source).to_json()


def trace_from_json(data: Any) -> Trace:
    """Return the trace that `trace_to_json` wrote; the live graph is not needed.

    Raises:
        UserError: The data is no trace, or of a version that this one cannot read.
    """
    return Trace.from_json(data)


def _parameter_record(value: ParameterValue) -> ParameterRecord:
    parameter = value.parameter
    return ParameterRecord(
        parameter.name,
        parameter.spec.kind,
        parameter.spec.describe(),
        parameter.description,
        parameter.trainable,
    )


def _operand(arg: Any, refs: dict[Value, Ref]) -> Any:
    if isinstance(arg, Value):
        return refs[arg]
    if type(arg) is not Packed:
        return encode(arg)
    done: dict[int, Packed] = {}
    stack = [arg]
    while stack:
        packed = stack[-1]
        waiting = [item for item in packed.items if type(item) is Packed and id(item) not in done]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        keys = None if packed.keys is None else tuple(encode(key) for key in packed.keys)
        items = [done[id(item)] if type(item) is Packed else _operand(item, refs) for item in packed.items]
        done[id(packed)] = Packed(packed.kind, keys, tuple(items))
    return done[id(arg)]


class _Names:
    """Unique ids: parameters get their names, then other leaves theirs, then ops are numbered.

    Attributes:
        refs: The ids given so far: at first those of the leaves.
    """

    def __init__(self, order: list[Value]) -> None:
        self.refs: dict[Value, Ref] = {}
        infos = {value._op for value in order}
        leaves = [value for value in order if value._op is None] if None in infos else []
        self._bases = {info: _base(info.name) for info in infos if info is not None}
        self._counts: dict[str, int] = {}
        parameters = [leaf for leaf in leaves if isinstance(leaf, ParameterValue)]
        self._taken = {leaf.parameter.name for leaf in parameters} | set(self._bases.values())
        given: set[str] = set()
        for parameter in parameters:
            name = parameter.parameter.name
            self.refs[parameter] = Ref(self._free(name) if name in given else name)
            given.add(name)
        for leaf in leaves:
            if leaf not in self.refs:
                base = _base(leaf.name)
                name = self._free(base) if base in self._taken else base
                self.refs[leaf] = Ref(name)
                self._taken.add(name)

    def number(self, info: OpInfo, value: Value) -> Ref:
        """Return a new id for the value of an op. Numbered ids of different bases cannot meet."""
        return Ref(self._free(_base(value.name) if info is METHOD else self._bases[info]))

    def _free(self, base: str) -> str:
        number = self._counts.get(base, 0) + 1
        while (name := f"{base}_{number}") in self._taken:
            number += 1
        self._counts[base] = number
        return name


def _base(name: str) -> str:
    return _UNSAFE.sub("_", name.rpartition(".")[2]).strip("_") or "value"
