"""Kill runs with SIGKILL until they are finished, and count from outside what that cost; a peer beside them on request.

A real job (few-shot search and OptoPrime, about 300 evaluations of two model calls each, eight at once) runs through
the command line against a server that outlives all lives. First it runs unkilled; then lives are killed at random
instants (also while they start) and, every fourth, at one of the journal's failpoints, until the wanted number of kills
is reached; a run that finishes before that is followed by a new one. Every tenth kill falls on a job with a budget that
ends it early.

Nothing is taken from what the program says. The server logs each request; right after each kill the journal's files are
copied, and read with nothing but sqlite3. So:

* ``repeated_calls``: requests for a call whose answer was on disk at an earlier kill. Bar: 0.
* ``lost_evaluations``: calls and evaluations on disk at a kill that were not there at the end, or had been done anew,
  and whatever differs from the evaluations of the unkilled run (where a budget does not cut these off). Bar: 0.
* ``extra_per_kill_max``: requests beyond one a call, charged to the kill that made them necessary. Bar: 8, the calls
  that are in flight at once.
* ``identical``: whether each ``result.json`` is that of the unkilled run, to the byte, and each decision too. Bar: 1.
* ``slow_lives_finished``: whether a run finishes of which every life is killed 300 ms after its first request, with at
  least one new row on disk a life. Bar: 1.
* ``over_budget``: most recorded calls of a run beyond its budget. Bar: 0.

How lives are made: a process imports the program and its heavy parts, starts no thread, opens no file, and forks a
child for each life (see `benchmarks.kills.lives.Nursery`); lives that die at a failpoint are fresh processes.

``--peer gepa`` runs GEPA on the same task, prompts and server, killed as often at random instants of its own running
time and resumed as it documents it (the same ``run_dir``), with its cache of evaluations on. Its unkilled run repeats
some calls by itself; these are not held against it. Its state names no calls, so for both programs the table counts
requests: an evaluation is two calls; a repeated call is a request beyond one a call, beyond what the unkilled run
repeats; a lost evaluation is one that was paid and that the record at the end does not count; the budget is overshot by
what was paid beyond it (ours: beyond what the unkilled run paid).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.kills.comparing import account, kill_peer, recorded, side_by_side  # noqa: E402 - found by the line above
from benchmarks.kills.contenders import Optograph  # noqa: E402
from benchmarks.kills.lives import Nursery  # noqa: E402
from benchmarks.kills.series import KillTestError, Run, Series  # noqa: E402
from benchmarks.kills.server import MODEL, LoggingServer  # noqa: E402
from benchmarks.kills.tally import Tally, least_progress, phases, tally  # noqa: E402
from benchmarks.kills.workload import CONCURRENCY, write_job  # noqa: E402
from optograph.storage.failpoints import FAILPOINTS  # noqa: E402

CALLS = 5000
TIGHT = 0.7
"""Share of the unkilled run's calls that the job with a tight budget may make."""
SLOW_LATENCY_S = 0.05
MANY = 150
"""From so many kills on, every failpoint must have killed."""


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        whole: The run that was not killed.
        runs: The runs that were.
        counted: What the kills cost.
        slow: The run of short lives, or None where it never came to its end.
        tight: The runs with a tight budget, and what their kills cost.
        budget: Calls that these may make.
        again_identical: Whether a second unkilled run, in a fresh process, came to the same bytes.
        kinds: Kills, by how.
        seconds: Of everything.
    """

    whole: Run
    runs: list[Run]
    counted: Tally
    slow: Run | None
    tight: tuple[list[Run], Tally]
    budget: int
    again_identical: bool
    kinds: dict[str, int]
    seconds: float

    @property
    def slow_finished(self) -> bool:
        """Whether the short lives came to the same result, each with progress."""
        slow = self.slow
        return slow is not None and slow.result == self.whole.result and least_progress(slow) >= 1

    @property
    def identical(self) -> bool:
        """Whether all results and decisions are those of the unkilled run."""
        return self.again_identical and all(one.same_result == one.same_decisions == one.runs for one in self.tallies)

    @property
    def tallies(self) -> list[Tally]:
        """What the kills of all runs cost."""
        slow = [] if self.slow is None else [tally([self.slow], self.whole)]
        return [self.counted, self.tight[1], *slow]

    @property
    def repeated(self) -> int:
        """Requests for calls that were committed."""
        return sum(one.repeated for one in self.tallies)

    @property
    def lost(self) -> int:
        """Committed rows lost or done anew."""
        return sum(one.lost for one in self.tallies)

    @property
    def extra(self) -> list[int]:
        """Extra requests of each kill."""
        return [number for one in self.tallies for number in one.extra]

    @property
    def points(self) -> set[str]:
        """Names of the failpoints at which lives died."""
        return {how.partition(":")[0] for how in self.kinds} - {"random"}

    @property
    def all_points(self) -> bool:
        """Whether lives died at every failpoint; a short test does not come to all of them."""
        return self.points == set(FAILPOINTS) or sum(self.kinds.values()) < MANY

    @property
    def over_budget(self) -> int:
        """Most recorded calls beyond the tight budget."""
        return max(0, *(run.final.calls.total() - self.budget for run in self.tight[0]))

    def last_line(self) -> str:
        """Return the figures as ``name=value`` pairs."""
        extra = self.extra
        return (
            f"repeated_calls={self.repeated} lost_evaluations={self.lost} "
            f"extra_per_kill_max={max(extra)} extra_per_kill_mean={sum(extra) / len(extra):.2f} "
            f"identical={int(self.identical)} slow_lives_finished={int(self.slow_finished)} "
            f"over_budget={self.over_budget} kills={self.counted.kills + self.tight[1].kills} "
            f"runs={self.counted.runs + self.tight[1].runs} seconds={self.seconds:.0f}"
        )

    def passed(self) -> bool:
        """Whether every bar is kept."""
        counts = self.repeated == self.lost == self.over_budget == 0 and max(self.extra) <= CONCURRENCY
        return counts and self.identical and self.slow_finished and self.all_points


def measure(folder: Path, server: LoggingServer, options: argparse.Namespace, progress: Progress) -> Figures:
    """Run, kill, count."""
    begun = time.monotonic()
    rng = random.Random(options.seed)
    bar = progress.add_task("optograph: kills", total=options.kills)
    few = max(1, options.kills // 10)
    with Nursery() as nursery:

        def series(name: str, calls: int) -> Series:
            job = write_job(folder / name / "job", server.url, MODEL, seed=options.seed, calls=calls)
            contender = Optograph(job, nursery, folder / name, rng)
            return Series(contender, server, folder / name, rng, killed=lambda: progress.advance(bar))

        main = series("runs", CALLS)
        whole, _ = main.whole("whole", fresh=True)
        again, main.window_s = main.whole("again")
        runs = main.until(options.kills - few, failpoint_every=4)
        budget = round(TIGHT * len(whole.log))
        tight = series("tight", budget)
        ended, tight.window_s = tight.whole("whole")
        tight_runs = tight.until(few)
        main.killed, server.latency_s = lambda: None, SLOW_LATENCY_S
        kinds = dict(main.died + tight.died)
        slow = main.slow()
        server.latency_s = options.latency_ms / 1000
    return Figures(
        whole=whole,
        runs=runs,
        counted=tally(runs, whole),
        slow=slow,
        tight=(tight_runs, tally(tight_runs, ended, cut_short=True)),
        budget=budget,
        again_identical=again.result == whole.result,
        kinds=kinds,
        seconds=time.monotonic() - begun,
    )


def show(figures: Figures) -> None:
    """Print the table."""
    slow, extra, tallies = figures.slow, figures.extra, figures.tallies
    kills, runs = sum(one.kills for one in tallies), sum(one.runs for one in tallies)
    table = Table(title=f"{kills} kills over {runs} runs, those of the slow lives included")
    for column in ("measured", "figure", "bar", "kept"):
        table.add_column(column, justify="left" if column == "measured" else "right")

    def row(what: str, figure: str, bar: str = "", kept: bool | None = None) -> None:
        table.add_row(what, figure, bar, "" if kept is None else ("yes" if kept else "NO"))

    at_random = figures.kinds.get("random", 0)
    row("unkilled run: evaluations", str(figures.whole.final.evaluations.total()))
    row("unkilled run: requests", str(len(figures.whole.log)))
    row("kills at random instants", str(at_random))
    row("kills at failpoints", str(sum(figures.kinds.values()) - at_random))
    reached = f"{len(figures.points)} of {len(FAILPOINTS)}"
    row("failpoints that killed", reached, "all" if sum(figures.kinds.values()) >= MANY else "", figures.all_points)
    whole_runs = [*figures.runs, *figures.tight[0]]
    row("kills while starting, searching, testing, ending", ", ".join(str(one) for one in phases(whole_runs)))
    row("requests for calls that were committed", str(figures.repeated), "0", figures.repeated == 0)
    row("committed calls and evaluations lost or redone", str(figures.lost), "0", figures.lost == 0)
    row("extra requests a kill: most", str(max(extra)), f"≤ {CONCURRENCY}", max(extra) <= CONCURRENCY)
    row("extra requests a kill: mean", f"{sum(extra) / len(extra):.2f}")
    same, decided = sum(one.same_result for one in tallies), sum(one.same_decisions for one in tallies)
    row("results identical to the byte", f"{same} of {runs}", "all", same == runs and figures.again_identical)
    row("same decisions", f"{decided} of {runs}", "all", decided == runs)
    row(f"budget of {figures.budget} calls overrun by", str(figures.over_budget), "0", figures.over_budget == 0)
    lives = "never finished" if slow is None else f"finished after {len(slow.kills)} kills"
    row("every life killed after 300 ms", lives, "finishes", figures.slow_finished)
    least = 0 if slow is None else least_progress(slow)
    row("… new rows on disk a life, at least", str(least), "≥ 1", least >= 1)
    Console(width=100).print(table)


def compare(
    folder: Path, server: LoggingServer, options: argparse.Namespace, progress: Progress, figures: Figures
) -> Table:
    """Kill the peer, and put both side by side."""
    whole, runs = figures.whole, figures.runs
    ours = account(
        runs, [recorded(run) for run in runs], whole, recorded(whole), recorded(whole), figures.again_identical
    )
    return side_by_side(ours, kill_peer(folder, server, options.env, options.kills, options.seed, progress))


def main() -> int:
    """Print the tables and the last line; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the job and of the instants")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="mean time of a model call")
    parser.add_argument("--peer", choices=["gepa"], help="kill the peer as often, and compare")
    parser.add_argument("--env", type=Path, default=ROOT / ".venv-killtest", help="environment of the peer")
    parser.add_argument("--keep", type=Path, help="folder for all runs, instead of one that is deleted")
    options = parser.parse_args()
    if options.kills < 2 or options.latency_ms <= 0:
        parser.error("--kills must be at least 2 and --latency-ms above 0")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="killtest-") as temporary:
        folder = options.keep or Path(temporary)
        view = Progress(*columns, console=Console(stderr=True), transient=True)
        with LoggingServer(options.latency_ms / 1000) as server, view as progress:
            figures = measure(folder / "optograph", server, options, progress)
            table = compare(folder / "peer", server, options, progress, figures) if options.peer else None
    show(figures)
    if table is not None:
        Console(width=100).print(table)
    print(figures.last_line())
    return 0 if figures.passed() else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KillTestError as failure:
        sys.exit(str(failure))
