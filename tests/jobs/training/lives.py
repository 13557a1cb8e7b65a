"""Lives of a training, each a child process of its own; one JSON line in for each life, one out with its exit status.

The parent imports everything, opens nothing and starts no thread, so that a child is what a fresh process is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import datasets
import langgraph.checkpoint.sqlite
import langgraph.graph
import pyarrow.parquet

from optograph.jobs import load_job, reporting
from optograph.jobs.training import phases, rowset
from optograph.jobs.training import reporting as training_reporting
from optograph.jobs.training.loop import TrainLoop
from optograph.jobs.training.train import train_job
from optograph.storage import failpoints
from tests.jobs.training.toys import Toy

REAL = sys.argv[1:] == ["real"]
"""Whether lives train a real model; what that needs takes seconds to import."""
LOADED: list[Any] = [datasets, langgraph.checkpoint.sqlite, langgraph.graph, pyarrow.parquet, reporting]
LOADED += [training_reporting]
if REAL:
    import trl

    from optograph.optimizers.policy import training
    from optograph.optimizers.policy.base import base_model
    from tests.jobs.training.tiny import Tiny

    LOADED += [trl, training]
FINISHED = 4


def die() -> None:
    """End as a process ends that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Kills this process in a phase of a round: at its begin, during it, within its last write, or right after that."""

    def __init__(self, toy: Any, number: int, phase: str, when: str) -> None:
        self.number, self.phase, self.when = number, phase, when
        self.now: tuple[int, str] = (0, "")
        toy.server.during = self._asked
        toy.trainer.during = lambda step: self._in(step == 2)
        self._count = 0
        toy.server.loading = lambda: self._in(self.phase == "serve")
        tell, save, keep = TrainLoop.tell, TrainLoop.save, rowset.keep_rows

        def kept(*given: Any) -> Any:
            made = keep(*given)
            self._in(self.phase == "rows")
            return made

        def told(loop: TrainLoop, phase: str, *rest: Any) -> None:
            self.now = (len(loop.state.rounds), phase)
            if self.when == "begin" and self.now == (self.number, self.phase):
                die()
            tell(loop, phase, *rest)

        def saved(loop: TrainLoop, *given: Any, **more: Any) -> None:
            here = self.now == (self.number, self.phase)
            if here and self.when == "commit":
                failpoints._armed = failpoints._Armed("journal.commit:1")
            save(loop, *given, **more)
            if here and self.when == "written":
                die()

        for holder, name, new in ((TrainLoop, "tell", told), (TrainLoop, "save", saved), (phases, "keep_rows", kept)):
            setattr(holder, name, new)

    def _asked(self, number: int) -> None:
        if self.now == (self.number, self.phase):
            self._count += 1
        self._in(self._count == 5)

    def _in(self, there: bool) -> None:
        if there and self.when == "during" and self.now == (self.number, self.phase):
            die()


def live(how: dict[str, Any]) -> int:
    """Live one life; returns the exit status."""
    toy = Tiny(base_model(how["base"])) if REAL else Toy(lambda number: 0.4)
    if how.get("kill"):
        Killer(toy, *how["kill"])
    os.environ.update(how.get("environment", {}))
    job = Path(how["job"])
    try:
        train_job(load_job(job, how["set"]), job.parent, how["directory"], make_parts=toy.parts)
    finally:
        with Path(how["asked"]).open("a", encoding="ascii") as file:
            file.writelines(f"{one}\n" for one in toy.server.asked)
    return FINISHED


def main() -> None:
    """Live as long as there are lines."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = live(json.loads(line))
            except BaseException:  # noqa: BLE001 - a child must not go on with the parent's loop
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
