"""A small job over a loopback server, and two ways to call the command line: in this process, and as a process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from optograph import cli
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
    """Suggest a careful judge; judge well where the instruction is careful, else say happy."""
    system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
    if "improve a program" in system:
        return json.dumps(SUGGESTION)
    return "sad" if "carefully" in system and "rain" in question else "happy"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


class Command(Protocol):
    """Calls the command line and returns how it ended."""

    def __call__(self, *arguments: str) -> Done:
        """Call it with these arguments."""


def fill(folder: Path) -> None:
    """Write the workflow and its data."""
    (folder / "app.py").write_text(APP)
    for split, count in (("train", 8), ("dev", 12), ("test", 16)):
        rows = [
            {"text": f"{split} {number} {'rain' if number % 2 else 'sun'}", "label": "sad" if number % 2 else "happy"}
            for number in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a workflow and its data."""
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def make_server() -> Iterator[Callable[..., LoopbackServer]]:
    """Start loopback servers that end with the test."""
    running: list[LoopbackServer] = []

    def make(answer: Callable[[dict[str, Any]], str] = reply) -> LoopbackServer:
        server = LoopbackServer(answer, models=("tiny",))
        server.__enter__()
        running.append(server)
        return server

    yield make
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture
def server(make_server: Callable[..., LoopbackServer], folder: Path) -> LoopbackServer:
    """A server, and the job file that names it."""
    made = make_server()
    (folder / "job.toml").write_text(JOB.format(url=made.url))
    return made


@pytest.fixture
def write_job(folder: Path) -> Callable[[str], Path]:
    """Write the job file for a server's URL."""

    def write(url: str) -> Path:
        path = folder / "job.toml"
        path.write_text(JOB.format(url=url))
        return path

    return write


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line in this process, in the folder of the job."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["optograph", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else int(bool(code)), out, err)

    return call


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line as a process of its own; it ends with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "optograph", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=folder, text=True, **(pipes | more))
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def process(start: Callable[..., subprocess.Popen[str]]) -> Command:
    """Call the command line as a process of its own, and wait for its end."""

    def call(*arguments: str) -> Done:
        one = start(*arguments)
        out, err = one.communicate(timeout=120)
        return Done(one.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run that came to its end, made once for all tests."""
    from optograph.jobs import load_job, run_job

    folder = tmp_path_factory.mktemp("finished")
    fill(folder)
    with LoopbackServer(reply, models=("tiny",)) as server:
        (folder / "job.toml").write_text(JOB.format(url=server.url))
        job = load_job(folder / "job.toml", ["budget.calls=500"])
        run_job(job, folder, folder / "runs" / "moods-001", job_file=folder / "job.toml")
    return folder / "runs" / "moods-001"


@pytest.fixture
def finished(_finished: Path, folder: Path) -> Path:
    """A copy of a finished run, as ``runs/moods-001`` of the folder."""
    target = folder / "runs" / "moods-001"
    shutil.copytree(_finished, target)
    return target
