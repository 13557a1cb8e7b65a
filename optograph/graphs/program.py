"""One subgraph as a program: names, code lines with loops folded, and the values behind them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from optograph.graphs.encoding import type_name
from optograph.graphs.folding import Line, fold
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.packing import Packed
from optograph.graphs.propagation import Subgraph
from optograph.graphs.showing import literal, one_line, operand
from optograph.graphs.trace import Node, Ref

_UNSAFE = re.compile(r"[^\w.\-]+")
_INLINE = 40
_LITERAL = 60
_COMPARED = 64


def safe_name(name: str) -> str:
    """Return a name without spaces and signs that could be taken for something else."""
    return _UNSAFE.sub("_", name).strip("_.-") or "value"


def op_key(info: OpInfo) -> tuple[str, ...]:
    """Return what makes two ops the same for a reader."""
    return (info.name, info.style, info.source, info.description)


class Program:
    """The lines and values to show of one subgraph.

    Args:
        subgraph: The subgraph.
        parameters: Shown names of the parameters, by their names; no other name will be one of these.
        ops: Shown names of the ops, by `op_key`.
        variables: Names of the parameters that are variables; others are inputs.

    Attributes:
        code: Code lines, loops folded.
        used: The ops in the code lines, each once.
        inputs: Pairs of shown name and data: frozen values, and constants given to functions.
        others: Pairs of shown name and data: what the shown lines made, without the output.
        output: Shown name of the output, and its data.
        variables: Nodes of the variables, by shown name.
    """

    def __init__(
        self,
        subgraph: Subgraph,
        parameters: dict[str, str],
        ops: dict[tuple[str, ...], str],
        variables: Collection[str],
    ) -> None:
        self._ops = ops
        self._taken = set(parameters.values()) | set(ops.values())
        self._names: dict[Ref, str] = {}
        self.inputs: list[tuple[str, Any]] = []
        self.variables: dict[str, Node] = {}
        lines: list[Node] = []
        shown_parameters: set[str] = set()
        for node in subgraph.nodes:
            name = None if node.parameter is None else node.parameter.name
            if name is not None and name not in shown_parameters:
                shown_parameters.add(name)
                self._names[node.id] = parameters[name]
                if name in variables and not node.frozen:
                    self.variables[parameters[name]] = node
            else:
                self._names[node.id] = self._free(safe_name(node.id))
            if node.op is not None and not node.frozen:
                lines.append(node)
        self._write(lines, subgraph)
        output = next(node for node in subgraph.nodes if node.id == subgraph.output)
        self.output = (self._names[output.id], output.data)

    def name_of(self, node_id: str) -> str:
        """Return the shown name of a node; an unknown id as it is."""
        return self._names.get(Ref(node_id), one_line(node_id))

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def _write(self, lines: list[Node], subgraph: Subgraph) -> None:
        """Choose the lines to show, and write them."""
        place = {node.id: index for index, node in enumerate(lines)}
        variables = {node.id for node in self.variables.values()}
        numbers: dict[tuple[str, ...], int] = {}
        infos: dict[int, int] = {}
        for node in lines:
            if node.op is not None and id(node.op) not in infos:
                infos[id(node.op)] = numbers.setdefault(op_key(node.op), len(numbers))
        shapes = []
        for node in lines:
            refs: list[int] = []
            shape = [_shape(arg, place, variables, refs) for arg in (*node.args, *node.reads)]
            shapes.append(Line((infos[id(node.op)], node.keys, *shape), tuple(refs)))
        self.code: list[str] = []
        self.used: dict[tuple[str, ...], OpInfo] = {}
        self.others: list[tuple[str, Any]] = []
        needed: dict[Ref, None] = {}
        for span in fold(shapes):
            if span.repeats:
                size = (span.stop - span.start) // span.repeats
                these = "the line above" if size == 1 else f"the {size} lines above"
                self.code.append(f"… {these} repeated {span.repeats} times, with other values")
                continue
            for node in lines[span.start : span.stop]:
                needed.update(dict.fromkeys(node.parents()))
                self.code.append(self._line(node))
                if node.id != subgraph.output:
                    self.others.append((self._names[node.id], node.data))
        by_id = {node.id: node for node in subgraph.nodes if node.id in needed or node.id == subgraph.output}
        frozen = [
            (self._names[node_id], node.data)
            for node_id, node in by_id.items()
            if node.id not in place and node.id not in variables and node.id != subgraph.output
        ]
        self.inputs[:0] = frozen

    def _line(self, node: Node) -> str:
        info = node.op
        if info is None:
            return ""
        self.used.setdefault(op_key(info), info)
        reads = [self._names[read] for read in node.reads if read not in node.args]
        note = f"  # reads {', '.join(reads)}" if reads else ""
        return f"{self._names[node.id]} = {self._expression(node, info)}{note}"

    def _expression(self, node: Node, info: OpInfo) -> str:
        if info.style == "call":
            parts = [f"{safe_name(node.argument(i))}={self._argument(node, i)}" for i in range(len(node.args))]
            return f"{self._ops[op_key(info)]}({', '.join(parts)})"
        args = [self._inline(node, i) for i in range(len(node.args))]
        if info.style == "infix":
            return f"{args[0]} {info.symbol} {args[1]}"
        if info.style == "prefix":
            return f"{info.symbol}{args[0]}"
        if info.style == "item":
            return f"{args[0]}[{args[1]}]"
        if info.style == "slice":
            bounds = ["" if node.args[i] is None else args[i] for i in (1, 2, 3)]
            return f"{args[0]}[{':'.join(bounds).removesuffix(':') if not bounds[2] else ':'.join(bounds)}]"
        attribute = safe_name(str(node.args[1]))
        if info.style == "attribute":
            return f"{args[0]}.{attribute}"
        named = len(node.args) - len(node.keys)
        parts = [
            f"{safe_name(node.argument(i))}={args[i]}" if i >= named else args[i] for i in range(2, len(node.args))
        ]
        return f"{args[0]}.{attribute}({', '.join(parts)})"

    def _inline(self, node: Node, position: int) -> str:
        """Return an operator's argument: short constants as they are."""
        arg = node.args[position]
        if type(arg) in (Ref, Packed) or len(literal(arg, _LITERAL)) <= _INLINE:
            return operand(arg, self._names, _LITERAL)
        return self._constant("constant", arg)

    def _argument(self, node: Node, position: int) -> str:
        """Return a function's argument: every constant becomes an input of its own."""
        arg = node.args[position]
        if type(arg) in (Ref, Packed):
            return operand(arg, self._names, _LITERAL)
        return self._constant(node.argument(position), arg)

    def _constant(self, name: str, data: Any) -> str:
        free = self._free(safe_name(name))
        self.inputs.append((free, data))
        return free


def _shape(arg: Any, place: dict[Ref, int], variables: set[Ref], refs: list[int]) -> Any:
    """Return what an argument looks like; add the lines that it refers to."""
    if type(arg) is Ref:
        if arg in place:
            refs.append(place[arg])
            return "line"
        return str(arg) if arg in variables else None
    if type(arg) is Packed:
        return (arg.kind, *[_shape(item, place, variables, refs) for item in arg.items[:_COMPARED]])
    return type_name(arg)
