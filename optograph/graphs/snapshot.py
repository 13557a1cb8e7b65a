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
        parents: The parents of each.
    """

    def __init__(self, outputs: Iterable[Value]) -> None:
        roots = list(outputs)
        self.parents: dict[Value, tuple[Value, ...]] = {}
        self.order: list[Value] = []
        depth = self._visit(roots)
        if self._sort_parents(depth):
            self.order = []
            self._visit(roots)

    def _visit(self, roots: list[Value]) -> dict[Value, int]:
        """Walk depth first, without recursion; return the length of each value's history."""
        known, order = self.parents, self.order
        depth: dict[Value, int] = {}
        stack = roots[::-1]
        while stack:
            value = stack[-1]
            seen = depth.get(value)
            if seen is None:
                depth[value] = -1
                parents = known.get(value)
                if parents is None:
                    parents = known[value] = parents_of(value)
                for parent in reversed(parents):
                    if parent not in depth:
                        stack.append(parent)
                continue
            stack.pop()
            if seen < 0:
                parents = known[value]
                if len(parents) == 1:
                    depth[value] = depth[parents[0]] + 1
                else:
                    depth[value] = max([depth[parent] for parent in parents], default=-1) + 1
                order.append(value)
        return depth

    def _sort_parents(self, depth: dict[Value, int]) -> bool:
        """Put parents with a longer history first; return whether any had to move."""
        moved = False
        for value, parents in self.parents.items():
            if len(parents) > 1:
                depths = [depth[parent] for parent in parents]
                if depths != sorted(depths, reverse=True):
                    moved = True
                    pairs = sorted(zip(depths, parents, strict=True), key=lambda pair: -pair[0])
                    self.parents[value] = tuple(parent for _, parent in pairs)
        return moved


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
    refs = _names(order)
    nodes = []
    for value in order:
        extra = value._extra
        if extra is None and type(value) is Value and value not in frozen:  # the common case, written out
            args = tuple([refs[arg] if type(arg) is Value else _operand(arg, refs) for arg in value._args])
            row = (refs[value], encode(value._data), value._op, args, (), (), False, None, None)
            nodes.append(tuple.__new__(Node, row))
        else:
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
        used = {parent for parents in ancestry.parents.values() for parent in parents}
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


def _names(order: list[Value]) -> dict[Value, Ref]:
    """Give every value a unique id: parameters their names, then named leaves, then ops by number."""
    refs: dict[Value, Ref] = {}
    parameters = [value for value in order if isinstance(value, ParameterValue)]
    taken = {value.parameter.name for value in parameters}
    bases = {info: _base(info.name) for info in {value._op for value in order} if info is not None}
    taken.update(bases.values())
    counts: dict[str, int] = {}
    given: set[str] = set()
    for leaf in parameters:
        name = leaf.parameter.name
        refs[leaf] = Ref(_free(name, taken, counts) if name in given else name)
        given.add(name)
    for value in order:
        info, extra = value._op, value._extra
        if info is not None and info is not METHOD and (extra is None or extra.name is None):
            refs[value] = Ref(_free(bases[info], taken, counts))
        elif value not in refs:
            base = _base(value.name)
            refs[value] = Ref(base if info is None and base not in taken else _free(base, taken, counts))
            taken.add(refs[value])
    return refs


def _base(name: str) -> str:
    return _UNSAFE.sub("_", name.rpartition(".")[2]).strip("_") or "value"


def _free(base: str, taken: set[str], counts: dict[str, int]) -> str:
    number = counts.get(base, 0) + 1
    name = f"{base}_{number}"
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    counts[base] = number
    taken.add(name)
    return name
