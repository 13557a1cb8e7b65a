"""A run says what it does, for other processes to read: starting, the search in detail, the sealed test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.cli import drawing, runstate
from optograph.errors import RunStopped
from optograph.evals import Task
from optograph.jobs import RunOptions, SilentView, optimize
from optograph.jobs.reporting import load_report
from optograph.optimizers import LoopEvent
from optograph.serving import ModelIdentity, ScriptedLM
from tests.conftest import obedient

SEARCH: list[tuple[str, dict[str, Any]]] = [("fewshot", {"sets": 4, "size": 2, "first_rung": 8})]


class Reader(SilentView):
    """Reads, at whatever it is told, what another process would be shown.

    Attributes:
        states: The state by ``optograph status``.
        reports: What the report says of it.
    """

    def __init__(self, directory: Path, stop_in: str = "") -> None:
        self.directory = directory
        self.stop_in = stop_in
        self.states: list[runstate.RunState] = []
        self.reports: list[str] = []

    def look(self) -> None:
        """Read it."""
        self.states.append(runstate.read_state(self.directory))
        self.reports.append(load_report(self.directory).status)

    def phase(self, text: str) -> None:
        """Look, and stop the run where that is wanted."""
        self.look()
        if text == self.stop_in:
            raise RunStopped("the run was stopped: the test wants it", interrupted=False)

    def loop(self, event: LoopEvent) -> None:
        """Look at the state only, which costs less."""
        self.states.append(runstate.read_state(self.directory))


class Curious(ScriptedLM):
    """A model that looks when it is asked who it is, which happens while a run starts."""

    look: Callable[[], None]

    async def identity(self) -> ModelIdentity:
        """Look first."""
        self.look()
        return await super().identity()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the run is kept."""
    return tmp_path / "moods-001"


def test_each_phase_is_shown_while_it_lasts(
    make_moods: Callable[[ScriptedLM], Any], task: Task, directory: Path
) -> None:
    view = Reader(directory)
    model = Curious(obedient, name="obedient")
    model.look = view.look
    optimize(make_moods(model), task, optimizer=SEARCH, options=RunOptions(run_dir=directory), view=view)
    assert {state.state for state in view.states} == {"running"}
    phases = list(dict.fromkeys(state.phase for state in view.states))
    assert phases == ["starting", "search", "search: testing on dev", "search: trying on train", "sealed test"]
    assert set(view.reports) == {
        "still running: starting",
        "still running: search",
        "still running: sealed test",
    }
    assert drawing.one_line(view.states[-1]).count("sealed test") == 1
    ended = runstate.read_state(directory)
    assert ended.state == "finished"
    assert "sealed test" not in ended.headline
    assert load_report(directory).status == "finished"


@pytest.mark.parametrize("phase", ["search", "sealed test"])
def test_a_run_that_was_stopped_says_in_what(moods: Any, task: Task, directory: Path, phase: str) -> None:
    with pytest.raises(RunStopped):
        optimize(
            moods,
            task,
            optimizer=SEARCH,
            options=RunOptions(run_dir=directory),
            view=Reader(directory, stop_in=phase),
        )
    line = runstate.read_line(directory)
    assert (line.state, line.phase) == ("stopped", phase)
    assert line.headline.startswith(f"stopped, {phase}; ")
    assert load_report(directory).status == "stopped before its end; it can be resumed"
