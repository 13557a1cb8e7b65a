"""Diagrams as inline SVG: the tree of candidates and the traced graph of one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from optograph.report.layout import Box, Layout, Point, Size, layered_layout
from optograph.report.model import CandidateRow, RunReport, TraceEdge, TraceNode, TraceView
from optograph.report.svg import clip, count, curve, join, number, score, tag

MAX_TRACE_NODES = 120
_MAX_LEAVES = 6
_FEEDBACK = "\x00feedback"  # no clean identifier holds a NUL
_KINDS = {
    "input": "input",
    "op": "operation",
    "parameter": "parameter",
    "model-call": "model call",
    "output": "output",
}


def kind_name(kind: str) -> str:
    """Return the readable name of a node kind."""
    return _KINDS.get(kind, "operation")


# Candidates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Candidates of one parent that are drawn as one: not accepted, and nobody came from them."""

    id: str
    parent: str
    members: tuple[CandidateRow, ...]


def lineage(report: RunReport) -> set[str]:
    """Return the final candidate and all its ancestors."""
    known = {row.id: row for row in report.candidates}
    found: set[str] = set()
    waiting = [report.final.id] if report.final else []
    while waiting:
        identifier = waiting.pop()
        if identifier in known and identifier not in found:
            found.add(identifier)
            waiting.extend(known[identifier].parents)
    return found


def candidate_tree(report: RunReport, anchors: Mapping[str, str], names: Mapping[str, str]) -> Markup | None:
    """Draw the candidates by parents, from left to right; each links to its entry in the list.

    Args:
        report: The run.
        anchors: Candidate identifier to fragment (``"#c3"``).
        names: Candidate identifier to the short name to draw.

    Returns:
        The tree, or None when there are fewer than two candidates. Many rejected siblings are drawn as one box.
    """
    if len(report.candidates) < 2:
        return None
    line = lineage(report)
    single, crowds = _crowds(report.candidates, line)
    sizes = [Size(row.id, 134, 44) for row in single] + [Size(crowd.id, 134, 34) for crowd in crowds]
    edges = [(parent, row.id) for row in single for parent in row.parents]
    edges += [(crowd.parent, crowd.id) for crowd in crowds]
    layout = layered_layout(sizes, edges, direction="right", gap=12, layer_gap=42, margin=4)
    parts: list[Markup] = []
    for route in layout.routes:
        name = "edge on-line" if route.src in line and route.dst in line else "edge"
        parts.append(tag("path", d=curve(route.points, sideways=True), class_=name))
    for row in single:
        parts.append(_candidate(row, layout.boxes[row.id], anchors[row.id], names[row.id], row.id in line))
    for crowd in crowds:
        parts.append(_crowd(crowd, layout.boxes[crowd.id]))
    label = f"Tree of {len(report.candidates)} candidates by parents; the list below holds them all"
    return _picture(parts, layout, label, "tree")


def _crowds(rows: Sequence[CandidateRow], line: set[str]) -> tuple[list[CandidateRow], list[_Crowd]]:
    parents = {parent for row in rows for parent in row.parents}
    families: dict[str, list[CandidateRow]] = {}
    for row in rows:
        if len(row.parents) == 1 and not row.accepted and row.id not in parents and row.id not in line:
            families.setdefault(row.parents[0], []).append(row)
    hidden: set[str] = set()
    crowds: list[_Crowd] = []
    for parent, members in families.items():
        if len(members) <= _MAX_LEAVES:
            continue
        measured = [row for row in members if row.dev_score is not None]
        shown = {row.id for row in sorted(measured, key=lambda row: -(row.dev_score or 0.0))[: _MAX_LEAVES - 2]}
        rest = tuple(row for row in members if row.id not in shown)
        hidden.update(row.id for row in rest)
        crowds.append(_Crowd(f"{_FEEDBACK}{parent}", parent, rest))
    return [row for row in rows if row.id not in hidden], crowds


def _candidate(row: CandidateRow, box: Box, anchor: str, name: str, on_line: bool) -> Markup:
    states = [
        "final" if row.final else "",
        "accepted" if row.accepted else "rejected",
        "on-line" if on_line else "",
    ]
    what = "final" if row.final else "accepted" if row.accepted else "not accepted" if row.parents else "start"
    text = f"Candidate {name}, {row.origin or 'unknown origin'}, dev score {score(row.dev_score)}, {what}"
    x, y = box.x, box.y
    return tag(
        "a",
        tag("title", text),
        tag("rect", x=x, y=y, width=box.width, height=box.height, rx=9, class_="box"),
        tag("text", name, x=x + 12, y=y + 18, class_="name"),
        tag("text", score(row.dev_score), x=x + box.width - 12, y=y + 18, class_="value", text_anchor="end"),
        tag("text", clip(row.origin, 18), x=x + 12, y=y + 34, class_="origin"),
        href=anchor,
        class_=" ".join(["candidate", *filter(None, states)]),
        aria_label=text,
    )


def _crowd(crowd: _Crowd, box: Box) -> Markup:
    known = [row.dev_score for row in crowd.members if row.dev_score is not None]
    span = f", scores {score(min(known))} to {score(max(known))}" if known else ""
    text = f"{count(len(crowd.members))} not accepted"
    x, y = box.center
    return tag(
        "g",
        tag("title", text + span),
        tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=9, class_="box"),
        tag("text", text, x=x, y=y + 4, class_="origin", text_anchor="middle"),
        class_="candidate crowd",
    )


# The traced graph -------------------------------------------------------------------------------------------------


def visible_nodes(trace: TraceView) -> list[TraceNode]:
    """Return the nodes to draw: all of them, or the feedback path and its surroundings where there are too many."""
    if len(trace.nodes) <= MAX_TRACE_NODES:
        return list(trace.nodes)
    near: dict[str, set[str]] = {}
    for edge in trace.edges:
        near.setdefault(edge.src, set()).add(edge.dst)
        near.setdefault(edge.dst, set()).add(edge.src)
    path = {node.id for node in trace.nodes if node.on_feedback_path}
    shore = {other for identifier in path for other in near.get(identifier, ())}

    def rank(pair: tuple[int, TraceNode]) -> tuple[int, int]:
        index, node = pair
        return (0 if node.id in path else 1 if node.id in shore else 2), index

    chosen = sorted(enumerate(trace.nodes), key=rank)[:MAX_TRACE_NODES]
    return [node for _, node in sorted(chosen, key=lambda pair: pair[0])]


def trace_graph(trace: TraceView, numbers: Mapping[str, int]) -> Markup | None:
    """Draw the traced graph of one example from top to bottom, with the feedback path marked.

    Args:
        trace: The graph.
        numbers: Node identifier to its number; a node's button controls the element ``n<number>``.

    Returns:
        The graph, or None when it has no nodes.
    """
    nodes = visible_nodes(trace)
    if not nodes:
        return None
    kept = {node.id: node for node in nodes}
    edges = [edge for edge in trace.edges if edge.src in kept and edge.dst in kept]
    sizes = [Size(node.id, _node_width(node), 50) for node in kept.values()]
    pairs = [(edge.src, edge.dst) for edge in edges]
    ends = _feedback_ends(list(kept.values()), edges) if trace.feedback or trace.score is not None else []
    if ends:
        sizes.append(Size(_FEEDBACK, 150, 34))
        pairs += [(end, _FEEDBACK) for end in ends]
    layout = layered_layout(sizes, pairs, gap=26, layer_gap=56, margin=10)
    labels = {(edge.src, edge.dst): edge.label for edge in reversed(edges)}
    leaving, entering = Counter(src for src, _ in pairs), Counter(dst for _, dst in pairs)
    parts = [_markers()]
    texts: list[Markup] = []
    for route in layout.routes:
        back = route.dst == _FEEDBACK
        on_path = back or (kept[route.src].on_feedback_path and kept[route.dst].on_feedback_path)
        name = "edge feedback-edge" if back else "edge on-path" if on_path else "edge"
        points = tuple(reversed(route.points)) if back else route.points
        marker = "url(#arrow-path)" if on_path else "url(#arrow)"
        parts.append(tag("path", d=curve(_short_of(points)), class_=name, marker_end=marker))
        if text := labels.get((route.src, route.dst), ""):
            at_end = leaving[route.src] > entering[route.dst]
            texts.append(_edge_label(text, route.points, at_end=at_end))
    parts.extend(texts)
    parts.extend(_node(node, layout.boxes[node.id], numbers[node.id]) for node in kept.values())
    if ends:
        parts.append(_feedback_box(trace, layout.boxes[_FEEDBACK]))
    label = f"Traced graph with {len(nodes)} nodes; choose a node to read its value"
    return _picture(parts, layout, label, "trace")


def _node_width(node: TraceNode) -> float:
    return min(208.0, max(116.0, 34 + 7.6 * len(clip(node.label, 24))))


def _feedback_ends(nodes: Sequence[TraceNode], edges: Sequence[TraceEdge]) -> list[str]:
    """Return where the feedback enters: the last nodes of the feedback path, else the outputs."""
    path = {node.id for node in nodes if node.on_feedback_path}
    leaving = {edge.src for edge in edges if edge.dst in path}
    ends = [node.id for node in nodes if node.id in path and node.id not in leaving]
    return ends or [node.id for node in nodes if node.kind == "output"]


def _short_of(points: Sequence[Point]) -> list[Point]:
    """Return the points with the last one moved back a little, to leave room for the arrow head."""
    if len(points) < 2:
        return list(points)
    (_, y0), (x1, y1) = points[-2], points[-1]
    step = 6.0 if y1 > y0 else -6.0
    return [*points[:-1], (x1, y1 - step)]


def _markers() -> Markup:
    def arrow(identifier: str, name: str) -> Markup:
        head = tag("path", d="M0 0L8 4L0 8Z", class_=name)
        attributes: dict[str, str] = {"markerUnits": "userSpaceOnUse", "refX": "2", "refY": "4"}
        return tag("marker", head, id=identifier, markerWidth=8, markerHeight=8, orient="auto", **attributes)

    return tag("defs", arrow("arrow", "arrow"), arrow("arrow-path", "arrow on-path"))


def _edge_label(text: str, points: Sequence[Point], *, at_end: bool) -> Markup:
    """Write the name of an edge on its first bend, or on its last one where many edges leave the same node."""
    (x0, y0), (x1, y1) = points[-2:] if at_end else points[:2]
    share = 0.6 if at_end else 0.4
    bend = 3 * share**2 - 2 * share**3  # how far the curve has gone across
    x, y = x0 + bend * (x1 - x0), y0 + share * (y1 - y0) + 4
    return tag("text", clip(text, 16), x=x, y=y, class_="edge-label", text_anchor="middle")


def _node(node: TraceNode, box: Box, index: int) -> Markup:
    label = clip(node.label, 24)
    on_path = ", on the feedback path" if node.on_feedback_path else ""
    text = f"{kind_name(node.kind)} {node.label}{on_path}"
    radius = 25 if node.kind in ("input", "output") else 9
    x = box.center[0]
    return tag(
        "g",
        tag("title", text),
        tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=radius, class_="box"),
        tag("text", kind_name(node.kind), x=x, y=box.y + 19, class_="kind", text_anchor="middle"),
        tag("text", label, x=x, y=box.y + 36, class_="name", text_anchor="middle"),
        class_=f"node {node.kind}" + (" on-path" if node.on_feedback_path else ""),
        role="button",
        tabindex=0,
        aria_label=text,
        aria_controls=f"n{index}",
        aria_pressed="false",
        data_node=f"n{index}",
    )


def _feedback_box(trace: TraceView, box: Box) -> Markup:
    text = "feedback" if trace.score is None else f"feedback {score(trace.score)}"
    x, y = box.center
    return tag(
        "g",
        tag("title", clip(trace.feedback, 300) or text),
        tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=17, class_="box"),
        tag("text", text, x=x, y=y + 4.5, class_="name", text_anchor="middle"),
        class_="node feedback",
    )


def _picture(parts: Sequence[Markup], layout: Layout, label: str, name: str) -> Markup:
    return tag(
        "svg",
        join(parts),
        viewBox=f"0 0 {number(layout.width)} {number(layout.height)}",
        width=layout.width,
        height=layout.height,
        role="group",
        aria_label=label,
        class_=name,
    )
