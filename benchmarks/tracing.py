"""Measure the traced graph against trace-opt 0.1.3.8, side by side on this machine, and hold it to its bars."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import tracemalloc
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from optograph.graphs import Feedback, Parameter, Subgraph, Value, no_tracing, op, propagate, render

PEER_PACKAGE = "trace-opt==0.1.3.8"
PEER_SCRIPT = '''
import json, time
from opto.trace import bundle, node
from opto.trace.nodes import GRAPH

@bundle()
def total(a, b):
    """Add two numbers."""
    return a + b

def binary(n):
    x = node(1)
    for _ in range(n):
        x = x + 1

def call(n):
    x = node(1)
    for _ in range(n):
        total(x, 2)

def best(work, n, rounds):
    times = []
    for _ in range(rounds):
        GRAPH.clear()
        start = time.perf_counter()
        work(n)
        times.append((time.perf_counter() - start) / n)
    return min(times) * 1e6

print(json.dumps({"binary": best(binary, PEER_OPS, PEER_ROUNDS), "call": best(call, PEER_OPS, PEER_ROUNDS)}))
'''
OPS = 100_000
ROUNDS = 9
PEER_ROUNDS = 2
MICRO = 1e6


@dataclass(frozen=True)
class Row:
    """One measured figure and its bar.

    Attributes:
        what: What was measured.
        figure: The figure.
        bar: The figure allowed.
        unit: Unit of both.
        at_least: Whether the bar is a floor.
        peer: What the peer needs for the same, in words.
    """

    what: str
    figure: float
    bar: float
    unit: str
    at_least: bool = False
    peer: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bar is kept."""
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar


@op
def total(a: Any, b: Any) -> Any:
    """Add two numbers."""
    return a + b


def plain_total(a: Any, b: Any) -> Any:
    """Add two numbers, untraced."""
    return a + b


def binary(n: int) -> Any:
    """Make a chain of binary operators."""
    x: Any = Value(1)
    for _ in range(n):
        x = x + 1
    return x


def calls(n: int) -> None:
    """Call an op of two arguments."""
    x = Value(1)
    for _ in range(n):
        total(x, 2)


def calls_off(n: int) -> None:
    """Call the op with recording off."""
    x = Value(1)
    with no_tracing():
        for _ in range(n):
            total(x, 2)


def calls_plain(n: int) -> None:
    """Call the plain function."""
    x = 1
    for _ in range(n):
        plain_total(x, 2)


def chained_calls(n: int) -> Any:
    """Make a chain of op calls."""
    x: Any = Value(1)
    for _ in range(n):
        x = total(x, 1)
    return x


def best(work: Callable[[], Any], rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the shortest time of several rounds, in seconds."""
    times = []
    for _ in range(rounds):
        gc.collect()
        start = clock()
        result = work()
        times.append(clock() - start)
        del result
    return min(times)


def chain(parameter: Parameter, n: int) -> Any:
    """Return the end of a chain of n ops."""
    x: Any = parameter + 1
    for _ in range(n - 1):
        x = x + 1
    return x


def diamonds(parameter: Parameter, n: int) -> Any:
    """Return the end of n ops in diamonds: two ways from each value to the next."""
    x: Any = parameter + 0
    for _ in range(n // 3):
        left, right = x + 1, x * 1
        x = left - right
    return x


def backward(build: Callable[[Parameter, int], Any]) -> tuple[float, float]:
    """Return the time of one propagate over 100k ops, in seconds, and how many times that of 10k ops it is.

    The growth is taken from processor time: other programs on the machine hit a long run more than a short one.
    """
    parameter = Parameter(1, name="k")
    small, big = (partial(propagate, build(parameter, n), Feedback(1.0), [parameter]) for n in (OPS // 10, OPS))
    growth = best(big, ROUNDS, time.process_time) / best(small, ROUNDS, time.process_time)
    return best(big), growth


def memory(build: Callable[[int], Any]) -> tuple[float, float]:
    """Return the bytes an op takes while held, and the bytes left after 100k ops were dropped."""
    build(100)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = build(OPS)
    taken = tracemalloc.get_traced_memory()[0] - before
    del held
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / OPS, left


def many_uses() -> tuple[float, float]:
    """Return the time to propagate and render one parameter used 10,000 times: in one graph, and in a batch."""
    uses = OPS // 10
    parameter = Parameter(0.5, name="k")
    output: Any = Value(0, name="zero")
    for i in range(uses):
        output = output + parameter * i
    outputs = [total(parameter, i) for i in range(uses)]

    def show(graphs: list[Subgraph]) -> None:
        render(graphs, budget_tokens=4000)

    one = best(lambda: show([propagate(output, Feedback(1.0), [parameter])]), 3)
    batch = best(lambda: show([propagate(output, Feedback(1.0), [parameter]) for output in outputs]), 3)
    return one, batch


def peer(environment: Path) -> dict[str, float]:
    """Return the peer's times per op in microseconds; install it in its own environment where it is not."""
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    probe = subprocess.run([python, "-c", "import opto.trace"], capture_output=True, check=False)
    if probe.returncode:
        print(f"installing {PEER_PACKAGE} into {environment} ...", flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER_PACKAGE, "graphviz"], check=True)
    script = environment / "peer.py"  # a file: the peer reads the source of what it traces
    settings = f"PEER_OPS, PEER_ROUNDS = {OPS}, {PEER_ROUNDS}"
    script.write_text(f"{settings}\n{PEER_SCRIPT}", encoding="utf-8")
    answer = subprocess.run([python, script], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return figures


def side_by_side() -> dict[str, float]:
    """Return our times per op in microseconds, with as many ops in a graph as the peer's."""
    works = {"binary": binary, "call": calls, "off": calls_off, "plain": calls_plain}
    return {name: best(partial(work, OPS)) / OPS * MICRO for name, work in works.items()}


def measure(environment: Path) -> tuple[list[Row], str]:
    """Return all figures, and the last line."""
    theirs = peer(environment)
    ours = side_by_side()
    chain_s, chain_growth = backward(chain)
    diamonds_s, diamonds_growth = backward(diamonds)
    bytes_binary, left_binary = memory(binary)
    bytes_call, left_call = memory(chained_calls)
    one, batch = many_uses()
    late_ours, late_theirs = side_by_side(), peer(environment)  # again, later: a busy moment should not decide
    ours = {name: min(figure, late_ours[name]) for name, figure in ours.items()}
    theirs = {name: min(figure, late_theirs[name]) for name, figure in theirs.items()}
    ratios = [theirs[name] / ours[name] for name in ("binary", "call")]
    off_us = ours["off"] - ours["plain"]
    left = max(left_binary, left_call) / 1e6
    rows = [
        Row("binary operator", ours["binary"], 2, "µs", peer=f"{theirs['binary']:.0f} µs"),
        Row("@op call, two arguments", ours["call"], 3, "µs", peer=f"{theirs['call']:.0f} µs"),
        Row("binary operator: times faster", ratios[0], 70, "x", at_least=True),
        Row("@op call: times faster", ratios[1], 70, "x", at_least=True),
        Row("recording off, over the plain call", off_us, 0.5, "µs"),
        Row("propagate, chain of 100k ops", chain_s, 1, "s"),
        Row("propagate, diamonds of 100k ops", diamonds_s, 1, "s"),
        Row("chain: time of 100k over 10k", chain_growth, 13, "x"),
        Row("diamonds: time of 100k over 10k", diamonds_growth, 13, "x"),
        Row("bytes held by a binary operator", bytes_binary, 600, "B"),
        Row("bytes held by an @op call", bytes_call, 600, "B"),
        Row("left after 100k ops were dropped", left, 2, "MB"),
        Row("10,000 uses in one graph: propagate, render", one, 1, "s"),
        Row("10,000 runs in one batch: propagate, render", batch, 1, "s"),
    ]
    last = (
        f"op_ratio={min(ratios):.1f} backward_100k_s={max(chain_s, diamonds_s):.3f} "
        f"growth={max(chain_growth, diamonds_growth):.1f} bytes_per_op={max(bytes_binary, bytes_call):.0f}"
    )
    return rows, last


def main() -> int:
    """Print the table and the last line; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--env", type=Path, default=root / ".venv-trace-opt", help="environment of the peer")
    rows, last = measure(parser.parse_args().env)
    table = Table(title=f"optograph against {PEER_PACKAGE} (best of {ROUNDS} rounds)")
    for column in ("measured", "optograph", "bar", "trace-opt", "kept"):
        table.add_column(column, justify="left" if column == "measured" else "right")
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        kept = "yes" if row.passed else "NO"
        table.add_row(row.what, f"{row.figure:.3g} {row.unit}", f"{sign} {row.bar:g} {row.unit}", row.peer, kept)
    Console(width=100).print(table)
    print(last)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
