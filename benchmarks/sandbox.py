"""Measure what the sandbox costs: a call of new code in a locked process, and a call in one that knows the code."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from optograph.sandbox import Limits, Sandbox, availability

CALLS, ROUNDS, PROGRAMS, SOLVES = 2000, 5, 100, 20
PAUSE_S = 0.01
DOUBLE = "def double(x):\n    return 2 * x\n"
SOLVE = """
import pyomo.environ as pyo
from pyomo.contrib.appsi.solvers import Highs

def solve(demand):
    model = pyo.ConcreteModel()
    model.x = pyo.Var(bounds=(0, 10))
    model.need = pyo.Constraint(expr=2 * model.x <= demand)
    model.goal = pyo.Objective(expr=model.x, sense=pyo.maximize)
    Highs().solve(model)
    return pyo.value(model.x)
"""


def timed(work: Callable[[int], object], count: int, pause: float = 0.0) -> list[float]:
    """Return the time of each of several calls, in seconds."""
    times = []
    for number in range(count):
        if pause:
            time.sleep(pause)  # as between two answers of a model: the pool is filled meanwhile
        begin = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - begin)
    return times


def in_worker(sandbox: Sandbox) -> list[float]:
    """Return the times of calls of one worker; the best of several rounds by their median."""
    with sandbox.worker(DOUBLE, "double") as worker:
        worker.call([0])
        return min((timed(lambda n: worker.call([n]), CALLS) for _ in range(ROUNDS)), key=statistics.median)


def warm(sandbox: Sandbox) -> list[float]:
    """Return the times to hand new code to a process from the pool and have its first result."""
    made = []

    def first_call(number: int) -> None:
        worker = sandbox.worker(f"{DOUBLE}# version {number}", "double")
        made.append(worker)
        if worker.call([number]) != 2 * number:
            raise RuntimeError("a wrong result")

    times = []
    for start in range(0, PROGRAMS, 20):
        times += timed(lambda n, start=start: first_call(start + n), 20, PAUSE_S)  # type: ignore[misc]
        while made:
            made.pop().close()
    return times


def one_shot(sandbox: Sandbox) -> list[float]:
    """Return the times of whole programs, each in a process of its own, until it is gone."""
    return timed(lambda n: sandbox.run(f"result = {n}"), PROGRAMS)


def bare(_: int) -> None:
    """Run a program in a new interpreter that nothing locks in, for comparison."""
    subprocess.run([sys.executable, "-I", "-c", "print(1)"], stdout=subprocess.DEVNULL, check=True)


def solver() -> list[float] | None:
    """Return the times of one small optimization with Pyomo and HiGHS in a fresh process, or None without them."""
    if not (importlib.util.find_spec("pyomo") and importlib.util.find_spec("highspy")):
        return None
    with Sandbox(
        imports=("pyomo.environ", "pyomo.contrib.appsi.solvers", "highspy"), limits=Limits(seconds=60)
    ) as made:

        def solve(_: int) -> None:
            with made.worker(SOLVE, "solve") as worker:
                if worker.call([7]) != 3.5:
                    raise RuntimeError("a wrong result")

        solve(0)
        return timed(solve, SOLVES, PAUSE_S)


def main() -> int:
    """Print the table and the last line; return 1 where a bar is missed."""
    can = availability()
    if not can.usable:
        print("no sandbox here:", "; ".join(can.reasons))
        return 1
    with Sandbox() as sandbox:
        begin = time.perf_counter()
        sandbox.run("")
        start = time.perf_counter() - begin
        calls, firsts, programs = in_worker(sandbox), warm(sandbox), one_shot(sandbox)
    plain = timed(bare, 20)
    solves = solver()
    rows: list[tuple[str, list[float], float, str, float | None]] = [
        ("call in a worker that knows the code", calls, 1e6, "µs", 60),
        ("new code: process from the pool, define, first call", firsts, 1e3, "ms", 5),
        ("program in a process of its own, until it is gone", programs, 1e3, "ms", None),
        ("a new interpreter, locked in by nothing", plain, 1e3, "ms", None),
    ]
    if solves is None:
        print("Pyomo and HiGHS are not installed (pip install 'optograph[solvers]'): their row is left out")
    else:
        rows.append(("Pyomo and HiGHS, fresh process with pre-imports", solves, 1e3, "ms", 25))
    users = "each worker another user" if can.separate_users else "workers are this user"
    table = Table(title=f"sandbox: Landlock {can.landlock}, seccomp, {users}; first start {start * 1e3:.0f} ms")
    for column in ("measured", "p50", "p95", "bar (p50)", "kept"):
        table.add_column(column, justify="left" if column == "measured" else "right")
    kept = True
    for what, times, scale, unit, bar in rows:
        middle = statistics.median(times) * scale
        late = statistics.quantiles(times, n=20)[-1] * scale
        passed = bar is None or middle <= bar
        kept = kept and passed
        limit = "" if bar is None else f"≤ {bar:g} {unit}"
        table.add_row(
            what, f"{middle:.3g} {unit}", f"{late:.3g} {unit}", limit, "" if bar is None else "yes" if passed else "NO"
        )
    Console(width=110).print(table)
    last = f"worker_call_us={statistics.median(calls) * 1e6:.1f} warm_call_ms={statistics.median(firsts) * 1e3:.2f}"
    print(last + ("" if solves is None else f" solve_ms={statistics.median(solves) * 1e3:.1f}"))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
