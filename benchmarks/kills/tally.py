"""Counting over killed runs: from the server's log and from copies of the journals, not from what a run says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.kills.series import Run


@dataclass(frozen=True)
class Tally:
    """What the kills cost.

    Attributes:
        runs: Finished runs.
        kills: Kills.
        requests: Requests that reached the server.
        distinct: Different calls, summed over the runs.
        repeated: Requests for calls whose answer was on disk at an earlier kill.
        answered_again: Requests for calls whose answer had been sent before an earlier kill.
        extra: Requests beyond one a call, by the kill that made them necessary.
        lost: Evaluations and calls that were on disk at a kill, and later were not or were done anew; and differences
            of the evaluations at the end to those of the run that was not killed.
        same_result: Runs whose result is that of the run that was not killed.
        same_decisions: Runs with the same decisions in the same order.
    """

    runs: int
    kills: int
    requests: int
    distinct: int
    repeated: int
    answered_again: int
    extra: tuple[int, ...]
    lost: int
    same_result: int
    same_decisions: int


def tally(runs: Sequence[Run], whole: Run, *, cut_short: bool = False) -> Tally:
    """Count over runs.

    Args:
        runs: Runs that were killed.
        whole: The run that was not.
        cut_short: Whether the budget ended the runs in the middle of an evaluation of several examples: which of these
            were done by then depends on the server alone, in runs that nobody kills too, so they are not compared.
    """
    extra = [number for run in runs for number in extra_by_kill(run)]
    return Tally(
        runs=len(runs),
        kills=sum(len(run.kills) for run in runs),
        requests=sum(len(run.log) for run in runs),
        distinct=sum(len({one.call for one in run.log}) for run in runs),
        repeated=sum(repeated(run) for run in runs),
        answered_again=sum(answered_again(run) for run in runs),
        extra=tuple(extra),
        lost=sum(lost(run, None if cut_short else whole) for run in runs),
        same_result=sum(run.result == whole.result for run in runs),
        same_decisions=sum(run.final.decisions == whole.final.decisions for run in runs),
    )


def repeated(run: Run) -> int:
    """Count requests for calls that were committed at an earlier kill."""
    count, known = 0, set[str]()
    for place, one in enumerate(run.log):
        for kill in run.kills:
            if kill.requests == place:
                known |= kill.committed.calls.keys()
        count += one.call in known
    return count


def answered_again(run: Run) -> int:
    """Count requests for calls that had been answered before an earlier kill."""
    count, known = 0, set[str]()
    for place, one in enumerate(run.log):
        for kill in run.kills:
            if kill.requests == place:
                known |= {run.log[answered].call for answered in kill.answered}
        count += one.call in known
    return count


def extra_by_kill(run: Run) -> list[int]:
    """Count the requests beyond one a call; each is charged to the kill that ended the life of the request before it.

    One that repeats a request of its own life is charged to the kill that ended that life, or to the last one.
    """
    counts = [0] * len(run.kills)
    latest: dict[str, int] = {}
    for place, one in enumerate(run.log):
        life = sum(kill.requests <= place for kill in run.kills)
        before = latest.get(one.call)
        if before is not None and counts:
            counts[min(before, len(counts) - 1)] += 1
        latest[one.call] = life
    return counts


def lost(run: Run, whole: Run | None) -> int:
    """Count rows that were committed at a kill and are not there at the end, and evaluations that were done twice.

    Where an unkilled run is given, evaluations at the end that are not among its own, or lack, count too.
    """
    gone = Counter[str]()
    for kill in run.kills:
        gone |= kill.committed.rows - run.final.rows
    ends = run.final.evaluations
    if whole is None:
        return gone.total() + (ends - Counter(set(ends))).total()
    should = whole.final.evaluations
    return gone.total() + (ends - should).total() + (should - ends).total()


def least_progress(run: Run) -> int:
    """Return the smallest number of rows that a life added before it was killed."""
    totals = [0, *(kill.committed.rows.total() for kill in run.kills)]
    return min((after - before for before, after in pairwise(totals)), default=0)


def phases(runs: Sequence[Run]) -> tuple[int, int, int, int]:
    """Count the kills before the run's first request, in the search, in the sealed test, and after the last request."""
    counts = [0, 0, 0, 0]
    for run in runs:
        for kill in run.kills:
            searched = len(kill.committed.decisions) == len(run.final.decisions)
            ended = all(one.answered for one in run.log[: kill.requests]) and kill.requests == len(run.log)
            counts[0 if kill.requests == 0 else 3 if ended else 2 if searched else 1] += 1
    return counts[0], counts[1], counts[2], counts[3]
