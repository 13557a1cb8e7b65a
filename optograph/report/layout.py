"""Layered layout of a directed graph: longest-path layers, barycenter order, no overlaps, curved edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["down", "right"]
Point = tuple[float, float]

_SWEEPS = 12
_DUMMY_BREADTH = 14.0


@dataclass(frozen=True, slots=True)
class Size:
    """A node to place: its identifier, width and height in pixels."""

    id: str
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Box:
    """A placed node; ``x`` and ``y`` are its top left corner."""

    id: str
    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> Point:
        """The middle of the box."""
        return self.x + self.width / 2, self.y + self.height / 2

    def overlaps(self, other: Box) -> bool:
        """Tell whether two boxes share any area."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True, slots=True)
class Route:
    """A drawn edge: the points it passes, from the border of ``src`` to the border of ``dst``."""

    src: str
    dst: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Placed nodes and edges, and the size of the picture."""

    boxes: Mapping[str, Box]
    routes: tuple[Route, ...]
    width: float
    height: float


class _Graph:
    """Nodes and dummy nodes by number, in layers; edges join neighbouring layers only."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]], layers: Sequence[int]) -> None:
        self.breadth: list[float] = []
        self.layer: list[int] = list(layers)
        self.above: list[list[int]] = [[] for _ in sizes]
        self.below: list[list[int]] = [[] for _ in sizes]
        self.chains: dict[tuple[int, int], list[int]] = {}
        for src, dst in edges:
            chain = [src]
            for depth in range(layers[src] + 1, layers[dst]):
                self.layer.append(depth)
                self.above.append([])
                self.below.append([])
                chain.append(len(self.layer) - 1)
            chain.append(dst)
            self.chains[src, dst] = chain
            for upper, lower in itertools.pairwise(chain):
                self.below[upper].append(lower)
                self.above[lower].append(upper)
        count = max(self.layer, default=-1) + 1
        self.rows: list[list[int]] = [[] for _ in range(count)]
        for node, depth in enumerate(self.layer):
            self.rows[depth].append(node)


def layered_layout(
    nodes: Iterable[Size],
    edges: Iterable[tuple[str, str]],
    *,
    direction: Direction = "down",
    gap: float = 28.0,
    layer_gap: float = 56.0,
    margin: float = 16.0,
) -> Layout:
    """Place the nodes of a graph in layers so that edges run one way and boxes never overlap.

    Edges that name unknown nodes and self-loops are left out; edges that close a cycle are drawn against the flow.

    Args:
        nodes: Nodes with their sizes in pixels; of two with the same identifier the first counts.
        edges: Pairs (from, to) of identifiers.
        direction: Where edges run to.
        gap: Pixels between neighbours in a layer.
        layer_gap: Pixels between layers.
        margin: Pixels around the picture.

    Source: Sugiyama, Tagawa and Toda (1981); the coordinates of a layer are the least-squares solution under the
    order, found by pooling adjacent violators.
    """
    sizes = list({size.id: size for size in reversed(list(nodes))}.values())[::-1]
    number = {size.id: index for index, size in enumerate(sizes)}
    pairs = list(dict.fromkeys((number[a], number[b]) for a, b in edges if a in number and b in number and a != b))
    forward = _acyclic(len(sizes), pairs)
    graph = _Graph(sizes, list(dict.fromkeys(forward.values())), _layers(len(sizes), set(forward.values())))
    sideways = direction == "right"
    graph.breadth = [size.height if sideways else size.width for size in sizes]
    graph.breadth += [_DUMMY_BREADTH] * (len(graph.layer) - len(sizes))
    _order(graph)
    across = _coordinates(graph, gap)
    depth = [size.width if sideways else size.height for size in sizes]
    return _place(graph, sizes, pairs, forward, across, depth, layer_gap, margin, sideways)


def _acyclic(count: int, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Map each edge to itself, or to its reverse where it closes a cycle (depth-first, without recursion)."""
    following: list[list[int]] = [[] for _ in range(count)]
    for src, dst in pairs:
        following[src].append(dst)
    state = [0] * count
    result = {pair: pair for pair in pairs}
    for root in range(count):
        if state[root]:
            continue
        state[root] = 1
        stack = [(root, iter(following[root]))]
        while stack:
            node, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                state[node] = 2
                stack.pop()
            elif state[step] == 1:
                result[node, step] = (step, node)
            elif state[step] == 0:
                state[step] = 1
                stack.append((step, iter(following[step])))
    return result


def _layers(count: int, pairs: set[tuple[int, int]]) -> list[int]:
    """Return the longest-path layer of each node, sources drawn down to just above what they feed."""
    following: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for src, dst in sorted(pairs):
        following[src].append(dst)
        waiting[dst] += 1
    sources = {node for node in range(count) if not waiting[node]}
    layer = [0] * count
    ready = sorted(sources)
    for node in ready:
        for dst in following[node]:
            layer[dst] = max(layer[dst], layer[node] + 1)
            waiting[dst] -= 1
            if not waiting[dst]:
                ready.append(dst)
    for node in sources:
        if following[node]:
            layer[node] = min(layer[dst] for dst in following[node]) - 1
    return layer


def _order(graph: _Graph) -> None:
    """Order each layer by the barycenter of its neighbours, sweeping down and up; the best order seen stays."""
    best, fewest = [list(row) for row in graph.rows], _crossings(graph)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        rows = graph.rows if downwards else graph.rows[::-1]
        neighbours = graph.above if downwards else graph.below
        for fixed, row in itertools.pairwise(rows):
            place = {node: index for index, node in enumerate(fixed)}
            here = {node: index for index, node in enumerate(row)}
            row.sort(key=lambda node: _mean([place[n] for n in neighbours[node]], here[node]))
        crossings = _crossings(graph)
        if crossings < fewest:
            best, fewest = [list(row) for row in graph.rows], crossings
    graph.rows = best


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(graph: _Graph) -> int:
    """Count crossing edges between neighbouring layers, with a Fenwick tree: O(E log V)."""
    total = 0
    for upper, lower in zip(graph.rows, graph.rows[1:], strict=False):
        place = {node: index for index, node in enumerate(lower)}
        tree = [0] * (len(lower) + 1)
        seen = 0
        for node in upper:
            ends = sorted(place[n] for n in graph.below[node])
            for end in ends:
                total += seen - _prefix(tree, end + 1)
            for end in ends:
                seen += 1
                index = end + 1
                while index < len(tree):
                    tree[index] += 1
                    index += index & -index
    return total


def _prefix(tree: Sequence[int], index: int) -> int:
    total = 0
    while index > 0:
        total += tree[index]
        index -= index & -index
    return total


def _coordinates(graph: _Graph, gap: float) -> list[float]:
    """Return the centre of each node across the flow: near its neighbours, in order, never overlapping."""
    across = [0.0] * len(graph.layer)
    for row in graph.rows:
        _settle(graph, row, across, [0.0] * len(row), gap)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for row in graph.rows if downwards else graph.rows[::-1]:
            wanted = []
            for node in row:
                near = graph.above[node] if downwards else graph.below[node]
                wanted.append(_mean([across[n] for n in near], across[node]))
            _settle(graph, row, across, wanted, gap)
    for row in graph.rows:
        wanted = [_mean([across[n] for n in graph.above[node] + graph.below[node]], across[node]) for node in row]
        _settle(graph, row, across, wanted, gap)
    return across


def _settle(graph: _Graph, row: Sequence[int], across: list[float], wanted: Sequence[float], gap: float) -> None:
    """Move a row as near to the wanted centres as its order and gaps allow (isotonic least squares)."""
    offsets: list[float] = []
    reach = 0.0
    for index, node in enumerate(row):
        if index:
            reach += (graph.breadth[row[index - 1]] + graph.breadth[node]) / 2 + gap
        offsets.append(reach)
    blocks: list[tuple[float, int]] = []  # (sum, count) of pooled targets
    for index, target in enumerate(wanted):
        total, count = target - offsets[index], 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before, size = blocks.pop()
            total, count = total + before, count + size
        blocks.append((total, count))
    index = 0
    for total, count in blocks:
        for _ in range(count):
            across[row[index]] = total / count + offsets[index]
            index += 1


def _place(
    graph: _Graph,
    sizes: Sequence[Size],
    pairs: Sequence[tuple[int, int]],
    forward: Mapping[tuple[int, int], tuple[int, int]],
    across: Sequence[float],
    depth: Sequence[float],
    layer_gap: float,
    margin: float,
    sideways: bool,
) -> Layout:
    """Turn centres and layers into boxes and routes that start at the margin."""
    thickness = [max((depth[node] for node in row if node < len(sizes)), default=0.0) for row in graph.rows]
    starts: list[float] = []
    position = margin
    for thick in thickness:
        starts.append(position)
        position += thick + layer_gap
    end = position - layer_gap + margin if thickness else 2 * margin
    lows = [across[node] - graph.breadth[node] / 2 for node in range(len(across))]
    highs = [across[node] + graph.breadth[node] / 2 for node in range(len(across))]
    shift = margin - min(lows, default=0.0)
    breadth = max(highs, default=0.0) + shift + margin

    def point(along: float, over: float) -> Point:
        return (along, over) if sideways else (over, along)

    boxes: dict[str, Box] = {}
    for node, size in enumerate(sizes):
        level = graph.layer[node]
        along = starts[level] + (thickness[level] - depth[node]) / 2
        x, y = point(along, across[node] + shift - graph.breadth[node] / 2)
        boxes[size.id] = Box(size.id, x, y, size.width, size.height)

    routes: list[Route] = []
    for pair in pairs:
        chain = graph.chains[forward[pair]]
        points: list[Point] = []
        for node in chain:
            level, over = graph.layer[node], across[node] + shift
            top = starts[level] + (thickness[level] - depth[node]) / 2 if node < len(sizes) else starts[level]
            bottom = top + (depth[node] if node < len(sizes) else thickness[level])
            if node != chain[0]:
                points.append(point(top, over))
            if node != chain[-1]:
                points.append(point(bottom, over))
        if forward[pair] != pair:
            points.reverse()
        routes.append(Route(sizes[pair[0]].id, sizes[pair[1]].id, tuple(points)))
    width, height = point(end, breadth)
    return Layout(boxes, tuple(routes), width, height)
