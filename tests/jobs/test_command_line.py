"""The command line: a run from a job file over a loopback server, and one clear message for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optograph.testing import LoopbackServer

APP = """
from typing import Literal
from pydantic import BaseModel
from optograph import Module, Parameter, Step
from optograph.graphs import FloatSpec

class Note(BaseModel):
    text: str

class Mood(BaseModel):
    mood: Literal["happy", "sad"]

class Moods(Module):
    def __init__(self, lm):
        self.judge = Step("judge", lm=lm, inputs=Note, output=Mood, instruction="Judge.")
        self.weight = Parameter(0.5, name="weight", spec=FloatSpec(0.0, 1.0), trainable=False)

    def forward(self, text):
        return self.judge(text=text).mood

def build(lm):
    return Moods(lm)
"""
JOB = """
name = "moods"
[workflow]
target = "app.py:build"
[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
scorer = "choice"
[models]
task = "vllm/tiny@{url}"
[optimizer]
name = "optoprime"
steps = 2
minibatch = 4
"""
SUGGESTION = {"reasoning": "r", "answer": "CHANGE", "suggestion": {"judge.instruction": "Judge carefully."}}


def reply(request: dict[str, Any]) -> str:
    system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
    if "improve a program" in system:
        return json.dumps(SUGGESTION)
    return "sad" if "carefully" in system and "rain" in question else "happy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    for split, count in (("train", 8), ("dev", 12), ("test", 16)):
        rows = [
            {"text": f"{split} {number} {'rain' if number % 2 else 'sun'}", "label": "sad" if number % 2 else "happy"}
            for number in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def optograph(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "optograph", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_job_runs_to_a_report(folder: Path) -> None:
    with LoopbackServer(reply, models=("tiny",)) as server:
        (folder / "job.toml").write_text(JOB.format(url=server.url))
        done = optograph(folder, "run", "job.toml", "--run-dir", "out")
        again = optograph(folder, "run", "job.toml", "--run-dir", "out")
        as_json = optograph(folder, "run", "job.toml", "--json", "--set", "optimizer.steps=1")
    assert done.returncode == 0, done.stderr
    assert "sealed test" in done.stdout
    assert "out/report.html" in done.stdout
    result = json.loads((folder / "out" / "result.json").read_text())
    assert (result["test"]["before"], result["test"]["after"]) == (0.5, 1.0)
    assert result["best"]["values"]["judge.instruction"] == "Judge carefully."
    html = (folder / "out" / "report.html").read_text()
    assert "Judge carefully." in html
    assert "train 1 rain" not in html.split("<body", 1)[0]
    assert again.returncode == 2
    assert "holds an earlier run" in again.stderr
    printed = json.loads(as_json.stdout)
    assert printed["test"] == result["test"]
    assert printed["run_dir"] == "runs/moods-001"


MISTAKES = [
    (["--set", "optimizer.stepz=3"], "has no option 'stepz'"),
    (["--set", "bugdet.calls=3"], "unknown key 'bugdet'"),
    (["--set", "task.train=none.jsonl"], "does not exist"),
    (["--set", "task.scorer=best"], "unknown scorer 'best'"),
    (["--set", "workflow.target=app.py:nothing"], "has no 'nothing'"),
    (["--set", "models.task=vllm/other@{url}"], "other"),
    (["--set", "models.task=vllm/tiny@http://127.0.0.1:9/v1"], "127.0.0.1:9"),
    (["--set", "models.task=local/smolm2"], "did you mean 'local/smollm2-135m'"),
    (["--set", "models.task=gpt-9"], "names no model"),
    (["--set", "models.task=local/none.gguf"], "none.gguf"),
    (["--set", "parameters.weight=1.5"], "parameter 'weight': must be a number between 0.0 and 1.0, got 1.5"),
    (["--set", "parameters.nothing=1"], "sets parameter 'nothing'"),
    (["--set", 'optimizer.stages=[{name="fewshot"}]'], "must stand in the table of a stage"),
    (["--set", 'models.task={name="vllm/tiny@{url}", api_key="sk-1"}'], "holds no secrets"),
    (["--set", 'models.task={name="vllm/tiny@{url}", deadline={total=5}}'], "deadline"),
    (["--set", "task.test=train.jsonl"], "in both the 'train' and the 'test' split"),
]


def test_each_mistake_is_one_clear_message(folder: Path) -> None:
    with LoopbackServer(reply, models=("tiny",)) as server:
        (folder / "job.toml").write_text(JOB.format(url=server.url))
        for arguments, message in MISTAKES:
            done = optograph(folder, "run", "job.toml", *[one.replace("{url}", server.url) for one in arguments])
            assert done.returncode == 2, (arguments, done.stdout, done.stderr)
            assert message in done.stderr, (arguments, done.stderr)
            assert "Traceback" not in done.stderr, (arguments, done.stderr)
            assert done.stderr.count("error:") == 1, (arguments, done.stderr)
            assert done.stdout == "", (arguments, done.stdout)


def test_a_missing_job_file_and_help(folder: Path) -> None:
    done = optograph(folder, "run", "nowhere.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist" in done.stderr
    for arguments in (["--help"], ["run", "--help"], ["models", "--help"], ["models", "pull", "--help"]):
        done = optograph(folder, *arguments)
        assert done.returncode == 0
        assert "Usage" in done.stdout
    listed = json.loads(optograph(folder, "models", "list", "--json").stdout)
    assert listed[0]["name"] == "smollm2-135m"
