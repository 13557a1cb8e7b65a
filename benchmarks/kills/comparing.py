"""The peer, killed as often on the same task and server, and its figures beside ours under the same counting."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from benchmarks.kills.contenders import PEER_PACKAGE, Peer, peer_python
from benchmarks.kills.series import Run, Series
from benchmarks.kills.server import LoggingServer

PEER_BUDGET = 300
"""Evaluations that the peer may make."""


@dataclass(frozen=True)
class Account:
    """What a contender's kills cost, counted from the server's log.

    Attributes:
        kills: Kills.
        runs: Finished runs.
        whole: Requests of the unkilled run.
        mean: Requests of a killed run.
        repeated: Requests beyond one a call, less those of the unkilled run, summed over the runs.
        lost: Evaluations that were answered and that the record at the end does not count, less the unkilled run's.
        overshoot: Most evaluations beyond the budget, in the unkilled run and in the killed ones.
        same: Runs that came to the unkilled run's result.
        steady: Whether a second unkilled run came to it.
    """

    kills: int
    runs: int
    whole: int
    mean: float
    repeated: int
    lost: int
    overshoot: tuple[int, int]
    same: int
    steady: bool


def account(
    runs: Sequence[Run], counted: Sequence[int], whole: Run, whole_counted: int, budget: int, steady: bool
) -> Account:
    """Count over a contender's runs.

    Args:
        runs: The killed runs.
        counted: For each of them, the evaluations that its record counts at the end.
        whole: The unkilled run.
        whole_counted: What its record counts.
        budget: Evaluations allowed.
        steady: Whether a second unkilled run came to the same result.
    """
    return Account(
        kills=sum(len(run.kills) for run in runs),
        runs=len(runs),
        whole=len(whole.log),
        mean=sum(len(run.log) for run in runs) / len(runs),
        repeated=sum(max(0, _beyond_one(run) - _beyond_one(whole)) for run in runs),
        lost=sum(paid(run) - known for run, known in zip(runs, counted, strict=True))
        - len(runs) * (paid(whole) - whole_counted),
        overshoot=(max(0, paid(whole) - budget), max(0, *(paid(run) - budget for run in runs))),
        same=sum(run.result == whole.result for run in runs),
        steady=steady,
    )


def _beyond_one(run: Run) -> int:
    return len(run.log) - len({one.call for one in run.log})


def paid(run: Run) -> int:
    """Count the evaluations that the server has answered: their second call."""
    return sum(one.kind == "route" for one in run.log)


def recorded(run: Run) -> int:
    """Count the evaluations' second calls that our journal holds."""
    routes = {one.call for one in run.log if one.kind == "route"}
    return sum(count for call, count in run.final.calls.items() if call in routes)


def kill_peer(
    folder: Path, server: LoggingServer, environment: Path, kills: int, seed: int, progress: Progress
) -> Account:
    """Kill runs of the peer so many times."""
    bar = progress.add_task("gepa: kills", total=kills)
    contender = Peer(peer_python(environment), server.url, folder, seed=seed, budget=PEER_BUDGET)
    series = Series(contender, server, folder, random.Random(seed))
    whole, _ = series.whole("whole")
    again, series.window_s = series.whole("again")
    series.killed = lambda: progress.advance(bar)
    first = series.runs
    runs = series.until(kills)
    names = [folder / f"killed-{number}" for number in range(first + 1, series.runs + 1)]
    return account(
        runs,
        [contender.counted(run) for run in names],
        whole,
        contender.counted(folder / "whole"),
        PEER_BUDGET,
        again.result == whole.result,
    )


def side_by_side(ours: Account, theirs: Account) -> Table:
    """Return the table of both."""
    table = Table(title=f"optograph beside {PEER_PACKAGE}: same task, same server")
    for column in ("counted from the server's log", "optograph", "gepa"):
        table.add_column(column, justify="left" if column.startswith("counted") else "right")
    pair = (ours, theirs)
    table.add_row("kills, finished runs", *(f"{one.kills}, {one.runs}" for one in pair))
    table.add_row("two unkilled runs give the same result", *("yes" if one.steady else "NO" for one in pair))
    table.add_row("requests of the unkilled run", *(str(one.whole) for one in pair))
    table.add_row("requests of a killed run, mean", *(f"{one.mean:.0f}" for one in pair))
    table.add_row("calls repeated because of kills", *(str(one.repeated) for one in pair))
    table.add_row("… a kill", *(f"{one.repeated / one.kills:.1f}" for one in pair))
    table.add_row("evaluations paid and lost", *(str(one.lost) for one in pair))
    table.add_row("… a kill", *(f"{one.lost / one.kills:.1f}" for one in pair))
    table.add_row("evaluations over budget: unkilled", *(str(one.overshoot[0]) for one in pair))
    table.add_row("evaluations over budget: most, killed", *(str(one.overshoot[1]) for one in pair))
    table.add_row("runs with the unkilled run's result", *(f"{one.same} of {one.runs}" for one in pair))
    return table
