"""Those who watch a run besides its view: the caller's ``on_event``, and OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optograph.jobs.options import RunEvent, RunResult, View
from optograph.jobs.telemetry import RunSpan, run_spans
from optograph.optimizers import LoopEvent

if TYPE_CHECKING:
    from optograph.jobs.optimize import Session


@contextmanager
def watched(session: Session) -> Iterator[Watch]:
    """Tell the caller's ``on_event`` and OpenTelemetry, as far as they want to know, about what happens in a block.

    Raises:
        UserError: Spans are wanted, but OpenTelemetry is not installed or nothing would receive them.
    """
    options, settings = session.options, _settings(session)
    about = {
        "optograph.run": options.run_dir.name if options.run_dir is not None else None,
        "optograph.optimizer": session.optimizer_name,
        "optograph.seed": options.seed,
    }
    view = session.view
    with run_spans(options.telemetry, settings["title"], about) as span:
        watch = Watch(view, options.on_event, span)
        session.view = watch
        try:
            watch.tell(RunEvent("begin", settings=settings))
            yield watch
        finally:
            session.view = view


class Watch:
    """A view that shows everything to another one, and tells an ``on_event`` about it.

    Args:
        view: The view that shows.
        on_event: Told of each event; None for nobody.
        span: The run's span.
    """

    def __init__(self, view: View, on_event: Callable[[RunEvent], None] | None, span: RunSpan) -> None:
        self._view = view
        self._on_event = on_event
        self._span = span
        self._step = self._calls = self._tokens = 0

    def loop(self, event: LoopEvent) -> None:
        """Pass on what the loop does."""
        self._view.loop(event)
        self._step = event.step
        self.tell(RunEvent(event.kind, event.step, self._calls, self._tokens, _verdict_scores(event), loop=event))

    def progress(self, done: int, total: int) -> None:
        """Pass on how far the evaluation in flight is."""
        self._view.progress(done, total)

    def phase(self, text: str) -> None:
        """Pass on which part of the run begins."""
        self._view.phase(text)

    def spent(self, calls: int, tokens: int) -> None:
        """Pass on what has been spent."""
        self._calls, self._tokens = calls, tokens
        self._view.spent(calls, tokens)

    def tell(self, event: RunEvent) -> None:
        """Tell the caller's ``on_event``."""
        if self._on_event is not None:
            self._on_event(event)

    def ended(self, result: RunResult) -> RunResult:
        """Tell of the result, and return it."""
        self._span.outcome(result)
        scores = _result_scores(result)
        self.tell(RunEvent("end", self._step, self._calls, self._tokens, scores, result=result))
        return result


def _settings(session: Session) -> dict[str, Any]:
    task = session.task
    return {
        "title": session.options.title or task.name,
        "task": task.name,
        "optimizer": session.optimizer_name,
        "seed": session.options.seed,
        "train": len(task.train),
        "dev": len(task.dev),
        "test": len(task.test),
        **{f"model_{role}": lm.name for role, lm in session.models.items()},
    }


def _verdict_scores(event: LoopEvent) -> dict[str, float]:
    """Return the scores of a verdict; nothing for other events."""
    verdict = event.verdict
    if verdict is None:
        return {}
    best = verdict.score if verdict.kind == "accepted" else verdict.incumbent_score
    return _known({"dev": verdict.score, "incumbent": best})


def _result_scores(result: RunResult) -> dict[str, float]:
    """Return the scores of a whole run."""
    before, after = (None if one is None else one.mean for one in result.dev)
    return _known(
        {
            "dev_before": before,
            "dev_after": after,
            "test_before": result.test[0].mean,
            "test_after": result.test[1].mean,
            "test_difference": result.difference.mean,
            "test_low": result.difference.low,
            "test_high": result.difference.high,
        }
    )


def _known(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}
