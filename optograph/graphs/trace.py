"""Trace: a graph as frozen records, apart from the live values, with a JSON form and stable ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from optograph.errors import UserError
from optograph.graphs.encoding import Encoded, data_from_json, data_to_json
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.packing import Packed
from optograph.graphs.shown import shown

VERSION = 1


class Ref(str):
    """The id of a node, where it stands for the node."""

    __slots__ = ()


class ParameterRecord(NamedTuple):
    """What a trace keeps of a parameter.

    Attributes:
        name: Its name.
        kind: Kind of its spec, such as ``"text"``.
        constraint: Its spec in words.
        description: Its description.
        trainable: Whether optimizers may change it.
    """

    name: str
    kind: str
    constraint: str
    description: str
    trainable: bool


class Node(NamedTuple):
    """One value of a trace.

    Attributes:
        id: Its id, unique within the trace: the same for the same workflow on the same input.
        data: Its encoded data.
        op: The op that made it; None for a leaf.
        args: The op's arguments: `Ref` for a node, `Packed` for a container with nodes in it, else encoded data.
        keys: Names of the last arguments, those given by name.
        reads: Ids of what the op read besides its arguments.
        frozen: Whether it stands for a part of the graph that was cut off here.
        parameter: The parameter whose value it is, or None.
        info: The notes of its op, as JSON data, or None.
    """

    id: Ref
    data: Any
    op: OpInfo | None = None
    args: tuple[Any, ...] = ()
    keys: tuple[str, ...] = ()
    reads: tuple[Ref, ...] = ()
    frozen: bool = False
    parameter: ParameterRecord | None = None
    info: Any = None

    def argument(self, position: int) -> str:
        """Return the name of the argument at a position."""
        named = position - (len(self.args) - len(self.keys))
        if named >= 0:
            return self.keys[named]
        return f"args_{position}" if self.op is None else self.op.argument(position)

    def parents(self) -> tuple[Ref, ...]:
        """Return the ids of the nodes that this one came from, each once."""
        found: dict[Ref, None] = {}
        stack = list(reversed(self.args))
        while stack:
            arg = stack.pop()
            if type(arg) is Ref:
                found[arg] = None
            elif type(arg) is Packed:
                stack.extend(reversed(arg.items))
        found.update(dict.fromkeys(self.reads))
        return tuple(found)


@dataclass(frozen=True)
class Trace:
    """Everything that led to some outputs, in an order in which it could have run.

    Attributes:
        nodes: The nodes; parents come before their children.
        outputs: Ids of the outputs.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def node(self, node_id: str) -> Node:
        """Return a node by its id.

        Raises:
            UserError: There is none.
        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise UserError(f"no node {node_id!r} in this trace")

    def to_json(self) -> dict[str, Any]:
        """Return the trace as JSON data."""
        return {"version": VERSION, "outputs": list(self.outputs), **nodes_to_json(self.nodes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trace:
        """Return the trace that `to_json` wrote.

        Raises:
            UserError: The data is no trace, or of a version that this one cannot read.
        """
        return cls(nodes_from_json(data), tuple(checked(data, "outputs")))


def nodes_to_json(nodes: Iterable[Node]) -> dict[str, Any]:
    """Return nodes, and the ops that they share, as JSON data."""
    ops: dict[int, int] = {}
    infos: list[OpInfo] = []
    rows = []
    for node in nodes:
        row: dict[str, Any] = {"id": str(node.id), "data": data_to_json(node.data)}
        if node.op is not None:
            if id(node.op) not in ops:
                ops[id(node.op)] = len(infos)
                infos.append(node.op)
            row["op"] = ops[id(node.op)]
        if node.args:
            row["args"] = [_operand_to_json(arg) for arg in node.args]
        if node.keys:
            row["keys"] = list(node.keys)
        if node.reads:
            row["reads"] = [str(read) for read in node.reads]
        if node.frozen:
            row["frozen"] = True
        if node.parameter is not None:
            row["parameter"] = node.parameter._asdict()
        if node.info is not None:
            row["info"] = node.info
        rows.append(row)
    return {"ops": [info.to_json() for info in infos], "nodes": rows}


def nodes_from_json(data: Mapping[str, Any]) -> tuple[Node, ...]:
    """Return the nodes that `nodes_to_json` wrote.

    Raises:
        UserError: The data is no trace, or of a version that this one cannot read.
    """
    if checked(data, "version") != VERSION:
        raise UserError(f"trace version {data['version']!r} cannot be read here, only {VERSION}")
    try:
        infos = [OpInfo.from_json(info) for info in data["ops"]]
        nodes = tuple(_node_from_json(row, infos) for row in data["nodes"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"not a trace ({error!r}): {shown(data)}") from None
    known: set[Ref] = set()
    for node in nodes:
        if node.id in known or not known.issuperset(node.parents()):
            raise UserError(f"not a trace (node {node.id!r} comes twice, or before its parents)")
        known.add(node.id)
    return nodes


def checked(data: Any, key: str) -> Any:
    """Return a field of stored data, or raise `UserError`."""
    if not isinstance(data, Mapping) or key not in data:
        raise UserError(f"not a trace (no {key!r}): {shown(data)}")
    return data[key]


def _node_from_json(row: dict[str, Any], infos: list[OpInfo]) -> Node:
    parameter = row.get("parameter")
    return Node(
        id=Ref(row["id"]),
        data=data_from_json(row["data"]),
        op=infos[row["op"]] if "op" in row else None,
        args=tuple(_operand_from_json(arg) for arg in row.get("args", ())),
        keys=tuple(row.get("keys", ())),
        reads=tuple(Ref(read) for read in row.get("reads", ())),
        frozen=row.get("frozen", False),
        parameter=None if parameter is None else ParameterRecord(**parameter),
        info=row.get("info"),
    )


def _operand_to_json(operand: Any) -> Any:
    if type(operand) is Ref:
        return {"ref": str(operand)}
    if type(operand) is not Packed:
        return data_to_json(operand)
    keys = None if operand.keys is None else [data_to_json(key) for key in operand.keys]
    return {"pack": operand.kind, "keys": keys, "items": [_operand_to_json(item) for item in operand.items]}


def _operand_from_json(data: Any) -> Any:
    if not isinstance(data, dict):
        return data_from_json(data)
    if "ref" in data:
        return Ref(data["ref"])
    if "pack" not in data:
        return data_from_json(data)
    keys = None if data["keys"] is None else tuple(data_from_json(key) for key in data["keys"])
    return Packed(data["pack"], keys, tuple(_operand_from_json(item) for item in data["items"]))


def is_failure(node: Node) -> bool:
    """Return whether a node's op failed."""
    return type(node.data) is Encoded and node.data.type == "error"
