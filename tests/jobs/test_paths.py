"""Directories and files may be given as text wherever a path is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.evals import Task
from optograph.jobs import RunOptions, load_job, optimize, resume_job, run_job
from optograph.jobs.estimate import estimate_job
from optograph.jobs.paths import path_of
from optograph.jobs.reporting import load_report, rebuild_report
from optograph.serving import ScriptedLM
from optograph.testing import LoopbackServer

APP = """
from pydantic import BaseModel
from optograph import ScriptedLM, Step

class Note(BaseModel):
    text: str

class Mood(BaseModel):
    mood: str

def build():
    lm = ScriptedLM(lambda request: {"mood": "sad"}, name="always")
    return Step("judge", lm=lm, inputs=Note, output=Mood, instruction="Judge.")
"""
JOB = """
[workflow]
target = "app.py:build"
[task]
source = "data.jsonl"
train = {{limit = 4}}
dev = {{start = 4, limit = 4}}
test = {{start = 8, limit = 4}}
[models]
optimizer = "openai/test-model@{url}"
[optimizer]
name = "fewshot"
sets = 2
size = 1
first_rung = 2
"""


def test_a_run_takes_its_directories_as_text(
    make_moods: Callable[[ScriptedLM], Any], task: Task, task_lm: ScriptedLM, tmp_path: Path
) -> None:
    def run(**directories: Any) -> RunOptions:
        options = RunOptions(**directories)
        result = optimize(
            make_moods(task_lm), task, optimizer=[("fewshot", {"sets": 2, "size": 1, "first_rung": 2})], options=options
        )
        assert result.report == options.run_dir / "report.html" if options.run_dir else result.report is None
        return options

    first = run(run_dir=str(tmp_path / "first"))
    assert first == RunOptions(run_dir=tmp_path / "first")
    run(run_dir=str(tmp_path / "second"), fork=str(tmp_path / "first"))
    run(run_dir=str(tmp_path / "third"), replay=str(tmp_path / "first"))
    assert load_report(str(tmp_path / "third")) == load_report(tmp_path / "third")
    assert rebuild_report(str(tmp_path / "third")) == tmp_path / "third" / "report.html"


def test_a_job_takes_them_as_text(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    rows = [{"text": f"day {number}", "label": "sad"} for number in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with LoopbackServer("unused") as server:
        (tmp_path / "job.toml").write_text(JOB.format(url=server.url))
        base, directory, file = (str(tmp_path / name) for name in (".", "run", "job.toml"))
        job = load_job(file)
        assert estimate_job(job, base).train == 4
        first = run_job(job, base, directory, job_file=file)
        assert resume_job(directory).best == first.best
        assert run_job(job, base, f"{directory}-2", replay=directory).best == first.best
    with pytest.raises(UserError, match="run_dir must be a path or its text"):
        run_job(job, base, "")


@pytest.mark.parametrize("name", ["run_dir", "fork", "replay"])
@pytest.mark.parametrize("given", [3, "", b"runs/first", ["runs"]])
def test_what_is_no_path_is_refused(name: str, given: Any) -> None:
    with pytest.raises(UserError, match=f"{name} must be a path or its text"):
        RunOptions(**{name: given})


def test_a_path_stays_as_it_is(tmp_path: Path) -> None:
    assert path_of(tmp_path, "x") == tmp_path
    assert path_of("a/b", "x") == Path("a/b")
