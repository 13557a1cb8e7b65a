"""The books of a run: its journal, its budget, the request to stop, and the recorded run that answers may come from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optograph.errors import RunStopped, StorageError, UserError, WaitingForReview
from optograph.graphs import Candidate
from optograph.jobs.fingerprint import Fingerprint, differences
from optograph.jobs.options import Origin, RunOptions, View
from optograph.serving import LM, Budget, JournaledLM
from optograph.stopping import StopRequest, stopping_on_signals
from optograph.storage import CallRow, DecisionRow, Journal

FINGERPRINT, JOB, STATUS, SOURCE = "fingerprint", "job", "status", "source"
"""Names of the journal's meta entries."""


@dataclass
class Books:
    """What every model call and evaluation of a run is entered into.

    Attributes:
        journal: Holds everything that the run learns.
        budget: The one ledger of the run.
        stop: Asked before anything new is begun.
        cache: Journal of another run whose answers are taken, or None.
        replay: Whether only recorded answers may be used.
        phase: What the run does, or did when it ended; `begin` sets it.
    """

    journal: Journal
    budget: Budget
    stop: StopRequest
    cache: Journal | None = None
    replay: bool = False
    phase: str = ""

    def wrap(self, lm: LM) -> JournaledLM:
        """Put the journal before a model."""
        if isinstance(lm, JournaledLM):
            return lm
        return JournaledLM(lm, self.journal, self.budget, cache=self.cache, replay=self.replay, stop=self.stop)

    def begin(self, phase: str) -> None:
        """Record which part of the run begins."""
        self.phase = phase
        self.set_status("running")

    def set_status(self, state: str, **more: Any) -> None:
        """Record how the run stands, for other processes to read."""
        self.journal.set_meta(STATUS, {"state": state, "pid": os.getpid(), "phase": self.phase, **more})

    def check_same_run(self, fingerprint: Fingerprint, origin: Origin | None) -> None:
        """Record what the run is started with, or make sure that it is what it was started with.

        Raises:
            UserError: Settings, data or source have changed; the message shows the difference.
        """
        known = self.journal.get_meta(FINGERPRINT)
        if known is not None:
            old = Fingerprint.model_validate(known)
            allowed = origin.changed if origin is not None else frozenset()
            same = {name: value for name, value in fingerprint.settings.items() if name in allowed}
            lines = differences(old.model_copy(update={"settings": old.settings | same}), fingerprint)
            if lines:
                raise UserError(_refusal(self.journal.directory, lines))
        self.journal.set_meta(FINGERPRINT, fingerprint.model_dump(mode="json"))
        if origin is not None:
            file = None if origin.file is None else str(origin.file.resolve())
            kept = {"job": dict(origin.job), "base": str(origin.base.resolve()), "file": file}
            self.journal.set_meta(JOB, kept | ({"command": origin.command} if origin.command != "run" else {}))

    def keep_source(self, options: RunOptions) -> None:
        """Record which other run this one takes its answers from, for when it is resumed."""
        names = {"fork": options.fork, "replay": options.replay}
        self.journal.set_meta(SOURCE, {key: None if one is None else str(one.resolve()) for key, one in names.items()})


@contextmanager
def open_books(
    options: RunOptions, view: View, journal: Journal | None = None, budget: Budget | None = None
) -> Iterator[Books]:
    """Open the books of a run for a ``with`` block; the first Ctrl-C within it ends the run cleanly.

    Args:
        options: Where the run is kept, what it may spend, which run it takes answers from.
        view: Told when the run has been asked to stop.
        journal: Journal to use instead of one in ``options.run_dir``; the caller closes it.
        budget: Ledger to use instead of a new one.

    Raises:
        StorageError: The run directory cannot be used.
        UserError: The run to fork or to replay is not there.
    """
    own = journal is None
    with _other_run(options) as cache:
        book = journal or (Journal.memory() if options.run_dir is None else Journal.open(options.run_dir))
        try:
            ledger = budget or Budget(options.limits, prices=options.prices, active_s=lambda: book.active_s)
            ledger.restore(_spent(book.calls()))
            stop = StopRequest(options.run_dir)
            if stop.file is not None:
                stop.file.unlink(missing_ok=True)
            books = Books(book, ledger, stop, cache, options.replay is not None)
            with stopping_on_signals(stop, lambda: view.phase("stopping once the calls in flight have ended")):
                yield from _watched(books)
        finally:
            if own:
                book.close()


def _watched(books: Books) -> Iterator[Books]:
    """Give the books, and record how their use ends."""
    books.begin("starting")
    try:
        yield books
    except WaitingForReview as waiting:
        books.set_status("waiting", candidate=waiting.request["candidate"]["id"])
        raise
    except RunStopped as stopped:
        books.set_status("interrupted" if stopped.interrupted else "stopped")
        raise
    except KeyboardInterrupt:
        books.set_status("interrupted")
        raise
    except StorageError:
        raise  # the journal cannot be written: there is no place to say so
    except Exception as error:
        books.set_status("failed", error=f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _other_run(options: RunOptions) -> Iterator[Journal | None]:
    """Open the journal of the run to fork or to replay, read-only."""
    directory = options.fork or options.replay
    if directory is None:
        yield None
        return
    if options.run_dir is not None and directory.resolve() == options.run_dir.resolve():
        raise UserError(f"a run cannot take its answers from itself ({str(directory)!r}): choose another run directory")
    with Journal.read(directory) as cache:
        yield cache


def _spent(calls: list[CallRow]) -> list[tuple[str, str, int, int, int]]:
    """Sum what the paid calls of a journal have used: role, model, calls, tokens in, tokens out."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for row in calls:
        if row.attempts == 0:  # copied from another run
            continue
        key = (str(row.context.get("role", "task")), row.model)
        sums.setdefault(key, Counter()).update({"calls": 1, "in": row.prompt_tokens, "out": row.completion_tokens})
    return [(role, model, one["calls"], one["in"], one["out"]) for (role, model), one in sums.items()]


def best_candidate(journal: Journal) -> tuple[Candidate, DecisionRow] | None:
    """Return the best accepted candidate so far with the decision that accepted it; None before the first."""
    accepted = [row for row in journal.decisions() if row.accepted]
    if not accepted:
        return None
    decision = accepted[-1]
    for row in journal.candidates():
        if row.id == decision.candidate:
            return Candidate(journal.get(row.values), row.parents, row.origin), decision
    return None


def _refusal(directory: Path | None, lines: list[str]) -> str:
    where = str(directory) if directory is not None else "this journal"
    shown = "\n".join(f"  {line}" for line in lines)
    return (
        f"the run in {where!r} was started with other inputs, so going on would mix two runs:\n{shown}\n"
        f"Put them back and resume, or start a new run that begins from this one: optograph run JOB --fork {where}\n"
        f"(a larger budget can be given to this run: optograph resume {where} --set budget.calls=N)"
    )
