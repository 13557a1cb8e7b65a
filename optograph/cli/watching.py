"""``optograph status``: how a run stands, once or live, seen from another process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optograph.cli.output import AsJson, console, print_json, say
from optograph.cli.rundirs import RUNS, AnyRunArgument, find_run, runs_under

if TYPE_CHECKING:
    from optograph.cli.runstate import RunState

_READ_SHARE = 5
"""A refresh waits at least so many times as long as the reading took, so that watching a large run stays cheap."""

_PLAIN_EVERY_S = 10.0


def status(
    directory: AnyRunArgument = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until the run has ended.")] = False,
    every: Annotated[float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="Time between refreshes.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show how a run stands, or list all runs. The run is only read, and never disturbed.

    Example: [bold]optograph status runs/reviews-001 --watch[/bold]
    """
    if directory is None:
        _list(as_json=as_json)
        return
    run = find_run(directory)
    state = _watch(run, every, shown=not as_json) if watch else _read(run)[0]
    if as_json:
        print_json(state.model_dump(mode="json"))
        return
    from optograph.cli.drawing import draw_state

    console().print(draw_state(state))


def _list(*, as_json: bool) -> None:
    from optograph.cli.runstate import read_line

    lines = [read_line(one) for one in runs_under(RUNS)]
    if as_json:
        print_json([line.model_dump(mode="json") for line in lines])
        return
    if not lines:
        say(f"no runs under {str(RUNS)!r}: start one with `optograph run JOB`, or name the directory of a run")
        return
    from optograph.cli.drawing import draw_list

    console().print(draw_list(lines))


def _watch(run: Path, every: float, *, shown: bool) -> RunState:
    """Read again and again until the run has ended; return its last state."""
    out = console()
    if not shown or not out.is_terminal or out.is_dumb_terminal:
        return _follow(run, every, shown=shown)
    from rich.live import Live

    from optograph.cli.drawing import draw_state

    state, took = _read(run)
    with Live(draw_state(state), console=out, auto_refresh=False, transient=True) as live:
        while not state.over:
            time.sleep(max(every, _READ_SHARE * took))
            state, took = _read(run)
            live.update(draw_state(state), refresh=True)
    return state


def _follow(run: Path, every: float, *, shown: bool) -> RunState:
    """Print a plain line for each change of phase or decision, and one at most every ten seconds otherwise."""
    from optograph.cli.drawing import one_line

    out = console()
    last: tuple[str, int] | None = None
    printed = float("-inf")
    while True:
        state, took = _read(run)
        news = (state.phase, len(state.decisions))
        if shown and not state.over and (news != last or time.monotonic() - printed >= _PLAIN_EVERY_S):
            last, printed = news, time.monotonic()
            out.print(one_line(state), soft_wrap=True, markup=False)
        if state.over:
            return state
        time.sleep(max(every, _READ_SHARE * took))


def _read(run: Path) -> tuple[RunState, float]:
    """Return the state and how long reading it took, in seconds."""
    from optograph.cli.runstate import read_state

    started = time.monotonic()
    state = read_state(run)
    return state, time.monotonic() - started
