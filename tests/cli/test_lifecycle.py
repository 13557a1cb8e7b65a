"""A run seen and steered from other processes: watched, stopped, interrupted, killed, and continued each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.cli import rundirs
from optograph.testing import LoopbackServer

Command = Callable[..., Any]
Start = Callable[..., subprocess.Popen[str]]

RESULT = {"before": 0.5, "after": 1.0}


class Gate:
    """A model that answers some calls and then holds the next ones until it is opened."""

    def __init__(self, answer: Callable[[dict[str, Any]], str], free: int) -> None:
        self._answer = answer
        self._free = free
        self._mutex = threading.Lock()
        self.opened = threading.Event()
        self.held = threading.Event()

    def __call__(self, request: dict[str, Any]) -> str:
        """Answer at once or hold."""
        with self._mutex:
            self._free -= 1
            hold = self._free < 0
        if hold and not self.opened.is_set():
            self.held.set()
            self.opened.wait(60)
        return self._answer(request)


@pytest.fixture
def gate(make_server: Callable[..., LoopbackServer], write_job: Callable[[str], Path], answer: Any) -> Gate:
    """A held model, behind the server that the job names."""
    made = Gate(answer, free=20)
    write_job(make_server(made).url)
    return made


@pytest.fixture
def answer() -> Callable[[dict[str, Any]], str]:
    """Answer like the model of the other tests."""

    def reply(request: dict[str, Any]) -> str:
        system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
        if "improve a program" in system:
            suggestion = {"judge.instruction": "Judge carefully."}
            return json.dumps({"reasoning": "r", "answer": "CHANGE", "suggestion": suggestion})
        return "sad" if "carefully" in system and "rain" in question else "happy"

    return reply


def begin(start: Start, gate: Gate) -> subprocess.Popen[str]:
    """Start the job and wait until its calls are held."""
    running = start("run", "job.toml", "--run-dir", "runs/mine")
    assert gate.held.wait(60)
    return running


def end(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def test_a_run_is_watched_stopped_and_continued(here: Command, start: Start, gate: Gate, folder: Path) -> None:
    running = begin(start, gate)
    state = here("status", "mine", "--json").data
    assert (state["state"], state["pid"]) == ("running", running.pid)
    assert state["best_score"] == state["start_score"] == 0.5
    assert state["calls"] >= 12
    shown = here("status", "mine")
    assert f"running (process {running.pid})" in shown.out
    assert "vllm/tiny@" in shown.out
    listed = here("status")
    assert "mine" in listed.out
    assert "running" in listed.out
    second = here("resume", "mine")
    assert second.code == 2
    assert f"process {running.pid}" in second.err

    asked = here("stop", "mine", "--json")
    assert asked.code == 0
    assert asked.data["pid"] == running.pid
    gate.opened.set()
    code, out, err = end(running)
    assert code == 0, err
    assert "optograph resume runs/mine" in err
    assert out == ""
    assert "Traceback" not in err
    assert here("status", "mine", "--json").data["state"] == "stopped"
    assert "nothing to stop" in here("stop", "mine").err
    exported = here("export", "mine", "--json")
    assert exported.code == 0, exported.err

    done = here("resume", "mine", "--json")
    assert done.code == 0, done.err
    assert {key: done.data["test"][key] for key in RESULT} == RESULT
    assert here("status", "mine", "--json").data["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_130(
    here: Command, start: Start, gate: Gate, folder: Path, number: signal.Signals
) -> None:
    running = begin(start, gate)
    running.send_signal(number)
    assert running.stderr is not None
    assert any("stopping" in line for line in running.stderr)
    gate.opened.set()
    code, out, err = end(running)
    assert code == 130, err
    assert out == ""
    assert "optograph resume runs/mine" in err
    assert "Traceback" not in err
    assert here("status", "mine", "--json").data["state"] == "interrupted"


def test_a_killed_run_is_seen_as_interrupted_and_continued(
    here: Command, start: Start, gate: Gate, folder: Path
) -> None:
    running = begin(start, gate)
    running.kill()
    end(running)
    gate.opened.set()
    state = here("status", "mine").out
    assert "interrupted" in state
    assert "optograph resume runs/mine" in state
    done = here("resume", "mine", "--json", "--set", "budget.calls=900")
    assert done.code == 0, done.err
    assert {key: done.data["test"][key] for key in RESULT} == RESULT
    assert here("status", "mine", "--json").data["limits"][0]["limit"] == 900


def test_watching_ends_with_the_run(here: Command, start: Start, gate: Gate, folder: Path) -> None:
    running = begin(start, gate)
    threading.Timer(0.5, gate.opened.set).start()
    plain = here("status", "mine", "--watch", "--every", "0.1")
    assert plain.code == 0, plain.err
    assert "mine | running" in plain.out
    assert "finished" in plain.out
    assert "\x1b" not in plain.out
    code, _, err = end(running)
    assert code == 0, err
    watched = here("status", "mine", "--watch", "--json")
    assert watched.data["state"] == "finished"


def test_the_writer_is_known_by_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "writer.lock"
    assert rundirs.writer_of(tmp_path) is None
    lock.write_text("no number")
    assert rundirs.writer_of(tmp_path) is None
    lock.write_text(str(os.getpid()))
    if Path("/proc/self/fd").is_dir():
        assert rundirs.writer_of(tmp_path) is None, "this process lives, but does not hold the lock"
    with lock.open():
        assert rundirs.writer_of(tmp_path) == os.getpid()
    child = subprocess.Popen(["true"])
    child.wait()
    lock.write_text(str(child.pid))
    assert rundirs.writer_of(tmp_path) is None
