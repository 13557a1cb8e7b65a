"""Killing runs over and over until they are finished, and writing down what happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.kills.lives import Life
from benchmarks.kills.outside import Committed
from benchmarks.kills.server import Logged, LoggingServer

SLOW_KILL_S = 0.3
MOST_SLOW_LIVES = 200


class Contender(Protocol):
    """A program that is killed."""

    @property
    def failpoints(self) -> Sequence[str]:
        """Points at which a life can be made to die, as ``NAME:HIT``."""

    def start(self, run: Path, failpoint: str | None = None, *, fresh: bool = False) -> Life:
        """Start a life of a run: its first, or one that goes on; ``fresh``: in a process that is not forked."""

    def committed(self, run: Path) -> Committed:
        """Say what a run whose process is dead has on disk."""

    def result(self, run: Path) -> bytes:
        """Return the result of a finished run."""


class KillTestError(RuntimeError):
    """A life ended in an error of its own."""


@dataclass(frozen=True)
class Kill:
    """A life that was killed.

    Attributes:
        how: ``"random"``, or the failpoint.
        requests: Length of the server's log once the life was dead.
        answered: Requests of the run so far whose answer had been sent, by place in the log.
        committed: What was on disk.
    """

    how: str
    requests: int
    answered: frozenset[int]
    committed: Committed


@dataclass
class Run:
    """A run, from its first life to its result.

    Attributes:
        log: The server's log of the run.
        kills: In order.
        result: What it came to.
        final: What was on disk at the end.
    """

    log: list[Logged] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    result: bytes = b""
    final: Committed = field(default_factory=Committed)


@dataclass
class Series:
    """Kills the runs of one contender.

    Attributes:
        contender: The program.
        server: What its runs ask.
        folder: Where the run directories go.
        rng: Draws the instants.
        window_s: Random kills come within this time after a life's start.
        killed: Told of each kill.
    """

    contender: Contender
    server: LoggingServer
    folder: Path
    rng: random.Random
    window_s: float = 0.0
    killed: Callable[[], None] = lambda: None
    runs: int = 0
    died: Counter[str] = field(default_factory=Counter)

    def whole(self, name: str, *, fresh: bool = False) -> tuple[Run, float]:
        """Run once without a kill; returns the run and the seconds it took."""
        directory = self._begin(name)
        life = self.contender.start(directory, fresh=fresh)
        life.ended(120)
        seconds = life.age
        self._expect_success(life, life.status())
        return self._finish(directory, Run()), seconds

    def until(self, kills: int, failpoint_every: int = 0) -> list[Run]:
        """Kill lives of one run after another until there were so many kills, then let the last run finish.

        Args:
            kills: At least 1.
            failpoint_every: Each so many-th life dies at a failpoint, in turn; 0: none.
        """
        done: list[Run] = []
        count = lives = armed = 0
        while count < kills:
            directory, run = self._begin(f"killed-{self.runs + 1}"), Run()
            alive = True
            while alive:
                lives += 1
                failpoint = None
                if failpoint_every and lives % failpoint_every == 0 and count < kills:
                    points = self.contender.failpoints
                    failpoint, armed = points[armed % len(points)], armed + 1
                died = self._life(directory, failpoint, spare=count >= kills)
                alive = died is not None
                if died is not None:
                    run.kills.append(self._kill(directory, died))
                    count += 1
            done.append(self._finish(directory, run))
        return done

    def slow(self, seconds: float = SLOW_KILL_S) -> Run | None:
        """Kill every life some time after its first request until the run is finished; None where it never is."""
        directory, run = self._begin("slow"), Run()
        for _ in range(MOST_SLOW_LIVES):
            before = len(self.server.log)
            life = self.contender.start(directory)
            while len(self.server.log) == before and not life.ended(0.002):
                pass
            if not life.ended(seconds):
                life.kill()
            status = life.status()
            if status != -9:
                self._expect_success(life, status)
                return self._finish(directory, run)
            run.kills.append(self._kill(directory, "slow"))
        return None

    def _begin(self, name: str) -> Path:
        self.server.settle()
        self.server.log = []
        self.runs += 1
        return self.folder / name

    def _life(self, directory: Path, failpoint: str | None, *, spare: bool) -> str | None:
        """Live once; returns how the life was killed, or None where it came to its end."""
        life = self.contender.start(directory, failpoint)
        if failpoint is None and not spare and not life.ended(self.rng.uniform(0, self.window_s)):
            life.kill()
        status = life.status()
        if status == -9:
            return failpoint or "random"
        self._expect_success(life, status)
        return None

    def _kill(self, directory: Path, how: str) -> Kill:
        self.server.settle()
        log = self.server.log
        answered = frozenset(place for place, one in enumerate(log) if one.answered)
        self.died[how] += 1
        self.killed()
        return Kill(how, len(log), answered, self.contender.committed(directory))

    def _finish(self, directory: Path, run: Run) -> Run:
        run.log, run.result = self.server.log, self.contender.result(directory)
        run.final = self.contender.committed(directory)
        return run

    @staticmethod
    def _expect_success(life: Life, status: int) -> None:
        if status:
            raise KillTestError(f"a life that nobody killed ended with status {status}; it said:\n{life.said(4000)}")
