"""The report in a terminal: the closing tables of a run, and the live view of a running one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from optograph.report.model import RunReport, TestResult
from optograph.report.record import clean_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

_SPARKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_PLAIN_SECONDS = 10.0
_MAX_POINTS = 400


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """Return the last ``width`` values as small bars, from the least to the greatest; empty for no values."""
    shown = list(values)[-width:] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return _SPARKS[len(_SPARKS) // 2] * len(shown)
    return "".join(_SPARKS[min(len(_SPARKS) - 1, int((value - low) / (high - low) * len(_SPARKS)))] for value in shown)


# The closing tables ---------------------------------------------------------------------------------------------


def print_summary(report: RunReport, console: Console) -> None:
    """Print the result of a run: scores before and after, the interval, accepted changes, and what it cost.

    Args:
        report: The run.
        console: Where to print; its width decides how much is cut.
    """
    from rich.text import Text

    from optograph.report import svg, views

    console.print()
    heading = Text(report.title, style="bold")
    if report.run:
        heading.append(f"  {report.run}", style="dim")
    heading.append(f"  {report.status}", style="green" if report.status == "finished" else "yellow")
    console.print(heading)
    console.print(_score_table(report))
    console.print(Text(views.headline(report), style=_verdict_style(report.test)))
    if report.accepted_steps:
        console.print()
        console.print(_accepted_table(report))
    if report.usage:
        console.print()
        console.print(_usage_table(report))
    if report.failures:
        console.print()
        words = ", ".join(f"{row.kind} {svg.count(row.total)}" for row in report.failures)
        console.print(Text(f"Failures in the search and the test: {words}"))
    for sentence in views.fact_sentences(report):
        console.print(Text(sentence, style="dim"))
    if report.duration_s:
        console.print()
        console.print(Text(f"Took {svg.duration(report.duration_s)}", style="dim"))


def _verdict_style(test: TestResult | None) -> str:
    from optograph.report.charts import verdict

    return {"gain": "green", "loss": "red", "unclear": "yellow"}[verdict(test)] if test else ""


def open_table(*columns: tuple[str, bool]) -> Table:
    """Return an open table; a column is (heading, whether it holds numbers)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for heading, numeric in columns:
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    return table


def _score_table(report: RunReport) -> Table:
    from rich.text import Text

    from optograph.report import svg, views

    table = open_table(
        (report.metric_name, False),
        ("n", True),
        ("majority", True),
        ("before", True),
        ("after", True),
        ("difference", True),
        ("95 % interval", True),
    )
    before, after = views.dev_scores(report)
    if before is not None or after is not None:
        gap = svg.signed(after - before) if before is not None and after is not None else svg.DASH
        size = svg.count(report.splits.dev) if report.splits.dev else svg.DASH
        table.add_row("dev", size, svg.DASH, svg.score(before), svg.score(after), gap, svg.DASH)
    test = report.test
    if test is not None:
        table.add_row(
            Text("sealed test", style="bold"),
            svg.count(test.n),
            svg.score(test.majority),
            svg.score(test.before),
            Text(svg.score(test.after), style="bold"),
            Text(svg.signed(test.difference), style=_verdict_style(test)),
            f"{svg.signed(test.low)} to {svg.signed(test.high)}",
        )
    return table


def _accepted_table(report: RunReport) -> Table:
    from rich.text import Text

    from optograph.report import svg, views

    names = views.short_names(report)
    table = open_table(("accepted step", True), ("candidate", False), ("by", False), ("dev", True), ("why", False))
    for row in report.accepted_steps:
        table.add_row(
            str(row.step),
            Text(names.get(row.candidate, row.candidate[:12])),
            Text(svg.clip(row.optimizer, 20)),
            svg.score(row.dev_score),
            Text(svg.clip(row.reason, 100)),
        )
    return table


def _usage_table(report: RunReport) -> Table:
    from rich.text import Text

    from optograph.report import svg

    priced = any(row.usd is not None for row in report.usage)
    columns = [("role", False), ("model", False), ("calls", True), ("prompt", True), ("answer", True), ("time", True)]
    table = open_table(*columns, *([("price", True)] if priced else []))
    for row in report.usage:
        cells: list[str | Text] = [
            Text(row.role),
            Text(svg.clip(row.model, 48)),
            svg.count(row.calls),
            svg.count(row.prompt_tokens),
            svg.count(row.completion_tokens),
            svg.duration(row.seconds),
        ]
        table.add_row(*cells, *([svg.money(row.usd)] if priced else []))
    return table


# The live view ----------------------------------------------------------------------------------------------------


class LiveView:
    """Show a running job: stage, step, best score, its history, the evaluation in flight, calls, tokens and time.

    In a terminal one block is redrawn in place. Elsewhere plain lines are printed: one for each new stage or step, and
    one at most every ten seconds for the evaluation in flight. All methods may be called from any thread.

    Example:
        ```python
        with LiveView(console, title="reviews") as view:
            view.update(stage="optimize", step=1, steps=8, incumbent=0.46)
            view.advance(12, 90)
        ```
    """

    def __init__(
        self, console: Console | None = None, *, title: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the view; nothing is shown before ``with``.

        Args:
            console: Where to show it; standard error by default, so that output can be piped.
            title: Name of the job.
            clock: Seconds that only grow; for tests.
        """
        if console is None:
            from rich.console import Console

            console = Console(stderr=True)
        self._console = console
        self._title = clean_text(title)
        self._clock = clock
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._start = clock()
        self._last_line = float("-inf")
        self._stage = ""
        self._step: int | None = None
        self._steps: int | None = None
        self._incumbent: float | None = None
        self._scores: list[float] = []
        self._calls = 0
        self._max_calls: int | None = None
        self._tokens = 0
        self._note = ""
        self._done = 0
        self._total = 0

    def __enter__(self) -> Self:
        """Start showing."""
        self._start = self._clock()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing and clear the block."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def update(
        self,
        *,
        stage: str | None = None,
        step: int | None = None,
        steps: int | None = None,
        incumbent: float | None = None,
        score: float | None = None,
        calls: int | None = None,
        max_calls: int | None = None,
        tokens: int | None = None,
        note: str | None = None,
    ) -> None:
        """Change what is shown; a field that is None stays as it is.

        Args:
            stage: What the job does now, such as ``"optimize"`` or ``"sealed test"``; a new one clears the bar.
            step: Number of the current step.
            steps: Number of steps there will be at most.
            incumbent: Score of the best candidate so far.
            score: Score of the candidate just measured; added to the history.
            calls: Model calls so far.
            max_calls: Budget of model calls.
            tokens: Tokens so far.
            note: One line about what just happened.
        """
        with self._lock:
            stage, note = (None if text is None else clean_text(text) for text in (stage, note))
            news = (stage is not None and stage != self._stage) or (step is not None and step != self._step)
            if stage is not None and stage != self._stage:
                self._done = self._total = 0
            self._stage = self._stage if stage is None else stage
            self._step = self._step if step is None else step
            self._steps = self._steps if steps is None else steps
            self._incumbent = self._incumbent if incumbent is None else incumbent
            self._calls = self._calls if calls is None else calls
            self._max_calls = self._max_calls if max_calls is None else max_calls
            self._tokens = self._tokens if tokens is None else tokens
            self._note = self._note if note is None else note
            if score is not None:
                self._scores = [*self._scores, score][-_MAX_POINTS:]
            if self._live is None and (news or note):
                self._print_line(note or "")

    def advance(self, done: int, total: int) -> None:
        """Show how far the evaluation in flight is.

        Args:
            done: Examples finished.
            total: Examples in all; 0 hides the bar.
        """
        with self._lock:
            self._done, self._total = done, total
            if self._live is None and total and self._clock() - self._last_line >= _PLAIN_SECONDS:
                self._print_line("")

    def log(self, text: str) -> None:
        """Print a line that stays, above the live block."""
        from rich.text import Text

        self._console.print(Text(clean_text(text)))

    def _facts(self) -> list[str]:
        """Return the figures of the moment as short texts."""
        from optograph.report import svg

        facts: list[str] = []
        if self._step is not None:
            facts.append(f"step {self._step}" + (f"/{self._steps}" if self._steps else ""))
        if self._incumbent is not None:
            facts.append(f"best {svg.score(self._incumbent)}")
        if self._calls:
            limit = f"/{svg.count(self._max_calls)}" if self._max_calls else ""
            facts.append(f"{svg.count(self._calls)}{limit} calls")
        if self._tokens:
            facts.append(f"{svg.count(self._tokens)} tokens")
        facts.append(svg.duration(self._clock() - self._start))
        return facts

    def _print_line(self, note: str) -> None:
        from rich.text import Text

        self._last_line = self._clock()
        parts = [self._title, self._stage, *self._facts()]
        if self._total:
            parts.append(f"{self._done}/{self._total} examples")
        parts.append(note)
        self._console.print(Text(" | ".join(part for part in parts if part)), soft_wrap=True)

    def _picture(self) -> RenderableType:
        """Draw the block; runs on the refresh thread."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            head = Table.grid(padding=(0, 1))
            name = Text(self._title, style="bold")
            if self._stage:
                name.append(f"  {self._stage}" if self._title else self._stage, style="cyan")
            head.add_row(Spinner("dots", style="cyan"), name)
            rows: list[RenderableType] = [head, Text("  " + "  \u00b7  ".join(self._facts()), style="dim")]
            if self._scores:
                line = Text("  scores ", style="dim")
                line.append(sparkline(self._scores), style="cyan")
                rows.append(line)
            if self._total:
                bar = Table.grid(padding=(0, 1))
                bar.add_row(
                    Text(" "),
                    ProgressBar(total=self._total, completed=self._done, width=32),
                    Text(f"{self._done}/{self._total}", style="dim"),
                )
                rows.append(bar)
            if self._note:
                rows.append(Text(f"  {self._note}", style="italic dim", overflow="ellipsis", no_wrap=True))
            return Group(*rows)
