"""What a terminal shows, and what a log file gets instead."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from optograph.report import FailureRow, LiveView, RunReport, StepRow, UsageRow, print_summary
from optograph.report.terminal import sparkline


def printed(report: RunReport, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_summary(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_summary_holds_the_figures(report: RunReport) -> None:
    text = printed(report)
    for words in (
        "sealed test",
        "0.400",
        "0.767",
        "+0.367",
        "+0.259 to +0.471",
        "0.508",
        "1,962",
        "311,840",
        "$0.0121",
    ):
        assert words in text
    assert "that excludes zero" in " ".join(text.split())
    assert "55a0c1f" in text
    assert "wrong-label 711" in text


def test_the_summary_of_nothing_is_short() -> None:
    text = printed(RunReport(title="Empty", status="stopped"))
    assert "Empty" in text
    assert "Nothing was measured yet." in text
    assert len(text.splitlines()) < 8


def test_no_markup_or_escape_reaches_the_terminal() -> None:
    bad = "[red]x[/red]\x1b[2J\x9b1m"
    report = RunReport(
        title=bad,
        run=bad,
        metric_name="score",
        steps=[StepRow(step=1, decision="accepted", reason=bad, optimizer=bad, candidate=bad, dev_score=0.5)],
        usage=[UsageRow(role=bad, model=bad)],
        failures=[FailureRow(kind=bad, search=2)],
    )
    text = printed(report)
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert text.count("[red]x[/red]") >= 5


def test_narrow_terminals_are_served(report: RunReport) -> None:
    assert max(len(line) for line in printed(report, 60).splitlines()) <= 60


def test_sparklines() -> None:
    assert sparkline([]) == ""
    assert sparkline([1, 1]) == "\u2585\u2585"
    assert sparkline([0, 0.5, 1]) == "\u2581\u2585\u2588"
    assert sparkline([5, 0, 1], width=2) == "\u2581\u2588"
    assert sparkline([1], width=0) == ""


def test_plain_lines_outside_a_terminal() -> None:
    clock, file = Clock(), io.StringIO()
    with LiveView(Console(file=file, width=100), title="reviews", clock=clock) as view:
        view.update(stage="optimize", step=1, steps=8, incumbent=0.467, calls=90, tokens=12000, max_calls=2000)
        view.update(calls=95)
        for done in range(90):
            clock.now += 0.5
            view.advance(done, 90)
        view.update(step=2, score=0.5, note="rejected: [bold]within noise")
        view.log("kept [x]")
    lines = file.getvalue().splitlines()
    assert lines[0] == "reviews | optimize | step 1/8 | best 0.467 | 90/2,000 calls | 12,000 tokens | 0.0 s"
    assert 4 <= sum("/90 examples" in line for line in lines[1:-2]) <= 5
    assert lines[-2].endswith("rejected: [bold]within noise")
    assert lines[-1] == "kept [x]"
    assert "\x1b" not in file.getvalue()


def test_the_live_block_shows_all_figures_and_is_cleared() -> None:
    file = io.StringIO()
    console = Console(
        file=file, width=100, force_terminal=True, force_interactive=True, color_system=None, legacy_windows=False
    )
    with LiveView(console, title="reviews", clock=Clock()) as view:
        view.update(stage="few-shot", step=3, incumbent=0.6, score=0.4, note="accepted [it]\x1b[2J")
        view.update(score=0.6)
        view.advance(30, 90)
        picture = Console(file=io.StringIO(), width=100)
        picture.print(view._picture())
    assert isinstance(picture.file, io.StringIO)
    text = picture.file.getvalue()
    for words in ("reviews", "few-shot", "step 3", "best 0.600", "\u2581\u2588", "30/90", "accepted [it]"):
        assert words in text
    assert "\x1b[2J" not in text
    assert "\x1b[2K" in file.getvalue()


def test_the_block_goes_away_when_the_job_fails() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    view = LiveView(console)
    with pytest.raises(RuntimeError), view:
        raise RuntimeError("job failed")
    assert view._live is None


def test_many_threads_may_report() -> None:
    file = io.StringIO()
    with LiveView(Console(file=file, width=100)) as view:

        def work(number: int) -> None:
            for index in range(100):
                view.update(score=float(index), calls=number)
                view.advance(index, 100)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(view._scores) == 400
