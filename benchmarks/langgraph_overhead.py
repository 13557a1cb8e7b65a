"""Measure what tracing costs a LangGraph node, beside the same graph untraced, in one run.

A chain of 100 trivial nodes runs plain and traced in turns, so that a drift of the machine meets both. The slowest of
the fastest tenth of the runs counts: whatever else the machine does only adds time, on either side. Traced runs are
recorded whole: each node's reads, writes and prompts. A second graph, whose nodes each read a prompt, is run under a
candidate, so that the swapped texts are part of what is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from rich.console import Console
from rich.table import Table

from optograph.agents.langgraph import TracedGraph, trace_langgraph
from optograph.graphs import applying, tracing

NODES = 100
BAR_US = 20.0
PROMPT_BAR_US = 30.0
"""For a node whose prompt is swapped as well."""
PROMPT = "Say in one sentence what the number means."


class State(TypedDict, total=False):
    """What the nodes hand on."""

    number: int
    text: str


def count(state: State) -> dict[str, Any]:
    """Add one."""
    return {"number": state["number"] + 1}


def write(state: State) -> dict[str, Any]:
    """Add one, and write a prompt that a candidate may change."""
    return {"number": state["number"] + 1, "text": PROMPT}


def chain(node: Any, nodes: int) -> Any:
    """Return a compiled chain of so many nodes."""
    builder = StateGraph(State)
    names = [f"n{number}" for number in range(nodes)]
    for name in names:
        builder.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(app: Any, traced: TracedGraph, values: dict[str, str], nodes: int, rounds: int) -> tuple[float, float]:
    """Return microseconds a node, plain and traced."""
    config: Any = {"recursion_limit": 10 * nodes}

    def run_traced() -> Any:
        with applying(values), tracing() as tape:
            found = traced.invoke({"number": 0}, config)
        if len(tape) < nodes or found["number"] != nodes:
            raise RuntimeError("a node is not in the trace")

    plain, ours = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: app.invoke({"number": 0}, config)))
        ours.append(timed(run_traced))
    return 1e6 * _fast(plain) / nodes, 1e6 * _fast(ours) / nodes


def _fast(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=10)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether the bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args(arguments)
    table = Table(title=f"a chain of {given.nodes} nodes, {given.rounds} runs each, in turns")
    for column in ("nodes", "plain µs a node", "traced µs a node", "added"):
        table.add_column(column, justify="left" if column == "nodes" else "right")
    added = {}
    for name, node in (("read and write a number", count), ("and read a prompt, under a candidate", write)):
        app = chain(node, given.nodes)
        traced = trace_langgraph(app)
        values = dict.fromkeys(traced.named_parameters(), "Say it in two words.")
        measure(app, traced, values, given.nodes, 5)
        plain, ours = measure(app, traced, values, given.nodes, given.rounds)
        added[node.__name__] = ours - plain
        table.add_row(name, f"{plain:.1f}", f"{ours:.1f}", f"{ours - plain:.1f}")
    Console(width=110).print(table)
    figures = {"added_us": added["count"], "added_with_prompt_us": added["write"]}
    print(" ".join(f"{name}={value:.1f}" for name, value in figures.items()))
    return 0 if added["count"] <= BAR_US and added["write"] <= PROMPT_BAR_US else 1


if __name__ == "__main__":
    sys.exit(main())
