"""Graphs as Mermaid and Graphviz text."""

from __future__ import annotations

import json
from typing import Any

from optograph.errors import UserError
from optograph.graphs.diff import nodes_of
from optograph.graphs.showing import literal
from optograph.graphs.trace import Node, is_failure

_MOST_NODES = 200
_LABEL = 60
_MERMAID_SHAPES = {"op": ("[", "]"), "parameter": ("([", "])"), "input": ("[/", "/]"), "failure": ("{{", "}}")}
_DOT_SHAPES = {"op": "box", "parameter": "ellipse", "input": "parallelogram", "failure": "octagon"}


def to_mermaid(source: Any, *, max_nodes: int = _MOST_NODES) -> str:
    """Return a graph as the text of a Mermaid flowchart, top down.

    Args:
        source: A value, a tape, a `Trace`, a `Subgraph`, or the JSON data of one of the latter two.
        max_nodes: Most nodes drawn, at least 1: the last ones; a node stands for the rest.

    Raises:
        UserError: The source is not traced, or `max_nodes` is below 1.
    """
    nodes, left_out = _chosen(source, max_nodes)
    number = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["flowchart TD"]
    if left_out:
        lines.append(f'    more["… {left_out} more nodes"]')
    for node in nodes:
        opening, closing = _MERMAID_SHAPES[_kind(node)]
        lines.append(f'    {number[node.id]}{opening}"{_mermaid_text(_label(node))}"{closing}')
    for node in nodes:
        for parent in node.parents():
            lines.append(f"    {number.get(parent, 'more')} --> {number[node.id]}")
    return "\n".join(_unique(lines)) + "\n"


def to_graphviz(source: Any, *, max_nodes: int = _MOST_NODES) -> str:
    """Return a graph as the text of a Graphviz digraph (the DOT language), top down.

    Args:
        source: A value, a tape, a `Trace`, a `Subgraph`, or the JSON data of one of the latter two.
        max_nodes: Most nodes drawn, at least 1: the last ones; a node stands for the rest.

    Raises:
        UserError: The source is not traced, or `max_nodes` is below 1.
    """
    nodes, left_out = _chosen(source, max_nodes)
    number = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["digraph trace {", "    rankdir=TB;"]
    if left_out:
        lines.append(f'    more [shape=plaintext, label="… {left_out} more nodes"];')
    for node in nodes:
        label = _dot_text(_label(node))
        lines.append(f'    {number[node.id]} [shape={_DOT_SHAPES[_kind(node)]}, label="{label}"];')
    for node in nodes:
        for parent in node.parents():
            lines.append(f"    {number.get(parent, 'more')} -> {number[node.id]};")
    return "\n".join([*_unique(lines), "}"]) + "\n"


def _chosen(source: Any, max_nodes: int) -> tuple[tuple[Node, ...], int]:
    if max_nodes < 1:
        raise UserError(f"max_nodes must be at least 1, got {max_nodes!r}")
    nodes = nodes_of(source)
    left_out = max(0, len(nodes) - max_nodes)
    return nodes[left_out:], left_out


def _kind(node: Node) -> str:
    if is_failure(node):
        return "failure"
    if node.parameter is not None:
        return "parameter"
    return "input" if node.op is None or node.frozen else "op"


def _label(node: Node) -> str:
    text = literal(node.data, _LABEL)
    return f"{node.id}\n{text if len(text) <= 2 * _LABEL else text[: 2 * _LABEL] + '…'}"


def _mermaid_text(text: str) -> str:
    """Return text in which every sign that Mermaid could read as syntax is a numbered entity."""
    safe = "".join(c if c.isalnum() or c in " _.,:=-+*/()'\n…" else f"#{ord(c)};" for c in text)
    return safe.replace("\n", "<br/>")


def _dot_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))
