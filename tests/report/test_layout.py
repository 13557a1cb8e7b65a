"""The layout never overlaps nodes, runs one way, and stands cycles, loops and unknown nodes."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optograph.report.layout import Layout, Size, layered_layout

EDGES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=45)


def place(
    count: int, edges: list[tuple[int, int]], direction: Literal["down", "right"] = "down", width: float = 60
) -> Layout:
    nodes = [Size(str(index), width + 7 * (index % 4), 20 + 3 * (index % 3)) for index in range(count)]
    return layered_layout(nodes, [(str(a), str(b)) for a, b in edges], direction=direction)


def check_boxes(layout: Layout) -> None:
    boxes = list(layout.boxes.values())
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)
    for box in boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= layout.width + 1e-6
        assert box.y + box.height <= layout.height + 1e-6


@given(count=st.integers(0, 15), edges=EDGES, direction=st.sampled_from(["down", "right"]))
@settings(max_examples=200, deadline=None)
def test_boxes_never_overlap(count: int, edges: list[tuple[int, int]], direction: Literal["down", "right"]) -> None:
    layout = place(count, edges, direction)
    assert list(layout.boxes) == [str(index) for index in range(count)]
    check_boxes(layout)
    drawn = {(route.src, route.dst) for route in layout.routes}
    assert drawn == {(str(a), str(b)) for a, b in edges if a != b and a < count and b < count}


@given(edges=EDGES)
@settings(max_examples=150, deadline=None)
def test_edges_of_a_graph_without_cycles_run_downwards(edges: list[tuple[int, int]]) -> None:
    layout = place(15, [(min(pair), max(pair)) for pair in edges])
    for route in layout.routes:
        heights = [y for _, y in route.points]
        assert heights == sorted(heights)
        src, dst = layout.boxes[route.src], layout.boxes[route.dst]
        assert route.points[0] == pytest.approx((src.center[0], src.y + src.height))
        assert route.points[-1] == pytest.approx((dst.center[0], dst.y))


def test_a_cycle_is_drawn_with_one_edge_against_the_flow() -> None:
    layout = place(3, [(0, 1), (1, 2), (2, 0)])
    check_boxes(layout)
    back = next(route for route in layout.routes if (route.src, route.dst) == ("2", "0"))
    assert back.points[0][1] > back.points[-1][1]


def test_nothing_gives_an_empty_picture() -> None:
    layout = place(0, [])
    assert not layout.boxes
    assert layout.routes == ()
    assert layout.width >= 0


def test_sources_stand_just_above_what_they_feed() -> None:
    layout = place(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layout.boxes["4"].y == pytest.approx(layout.boxes["2"].y, abs=10)


def test_a_chain_is_straight_and_a_diamond_is_symmetric() -> None:
    chain = layered_layout([Size(name, 50, 20) for name in "abc"], [("a", "b"), ("b", "c")])
    assert len({round(box.center[0], 6) for box in chain.boxes.values()}) == 1
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    diamond = layered_layout([Size(name, 50, 20) for name in "abcd"], edges)
    middle = (diamond.boxes["b"].center[0] + diamond.boxes["c"].center[0]) / 2
    assert diamond.boxes["a"].center[0] == pytest.approx(middle)
    assert diamond.boxes["d"].center[0] == pytest.approx(middle)


def test_crossings_are_taken_out() -> None:
    names = ["a", "b", "c", "x", "y", "z"]
    edges = [("a", "z"), ("b", "y"), ("c", "x")]
    layout = layered_layout([Size(name, 40, 20) for name in names], edges)
    tops = sorted("abc", key=lambda name: layout.boxes[name].x)
    partners = {"a": "z", "b": "y", "c": "x"}
    assert sorted("xyz", key=lambda name: layout.boxes[name].x) == [partners[name] for name in tops]


def test_the_same_graph_is_placed_the_same() -> None:
    edges = [(index, (index * 7 + 3) % 40) for index in range(40)] + [(index, index + 1) for index in range(39)]
    first, second = place(40, edges), place(40, edges)
    assert first == second
    check_boxes(first)


def test_a_long_chain_needs_no_recursion() -> None:
    layout = place(3000, [(index, index + 1) for index in range(2999)])
    assert len(layout.routes) == 2999
