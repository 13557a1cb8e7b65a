"""``optograph run`` over a loopback server, and one clear message for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph import jobs
from optograph.errors import RunStopped, ServingError
from optograph.testing import LoopbackServer

Command = Callable[..., Any]


def test_a_job_runs_to_a_report_and_goes_on_in_its_directory(
    process: Command, folder: Path, server: LoopbackServer
) -> None:
    done = process("run", "job.toml", "--run-dir", "out")
    assert done.code == 0, done.err
    assert "sealed test" in done.out
    assert "out/report.html" in done.out
    assert "\x1b" not in done.out + done.err
    result = json.loads((folder / "out" / "result.json").read_text())
    assert (result["test"]["before"], result["test"]["after"]) == (0.5, 1.0)
    assert result["best"]["values"]["judge.instruction"] == "Judge carefully."
    html = (folder / "out" / "report.html").read_text()
    assert "Judge carefully." in html
    assert "train 1 rain" not in html.split("<body", 1)[0]
    calls = server.calls
    again = process("run", "job.toml", "--run-dir", "out", "--json")
    assert again.code == 0, again.err
    assert again.data == {**result, "run_dir": "out"}
    assert server.calls == calls, "what the journal holds is not paid twice"


def test_json_is_the_one_document_on_stdout(here: Command, server: LoopbackServer) -> None:
    done = here("run", "job.toml", "--json", "--set", "optimizer.steps=1")
    assert done.code == 0, done.err
    assert done.data["run_dir"] == "runs/moods-001"
    assert done.data["test"]["after"] == 1.0
    assert "sealed test" in done.err
    assert "Run directory: runs/moods-001" in done.err


def test_fork_and_replay_name_another_run(here: Command, finished: Path, server: LoopbackServer) -> None:
    both = here("run", "job.toml", "--fork", "moods-001", "--replay", "moods-001")
    assert both.code == 2
    assert "exclude each other" in both.err
    missing = here("run", "job.toml", "--fork", "moods-002")
    assert missing.code == 2
    assert "did you mean 'runs/moods-001'" in missing.err


def test_what_reaches_the_job(
    here: Command, finished: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fake(job: Any, base: Path, run_dir: Path, view: Any, **more: Any) -> None:
        seen.update(base=base, run_dir=run_dir, **more)
        raise RunStopped("the run was stopped: for a test")

    monkeypatch.setattr(jobs, "run_job", fake)
    done = here("run", "job.toml", "--fork", "moods-001", "--run-dir", str(finished), "--set", "budget.calls=9")
    assert done.code == 0, done.err
    assert seen["fork"] == Path("runs/moods-001")
    assert seen["replay"] is None
    assert seen["changed"] == {"budget.calls"}
    assert seen["run_dir"] == finished
    assert f"optograph resume {finished}" in done.err


def test_a_failed_endpoint_says_how_to_continue(here: Command, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*arguments: Any, **more: Any) -> None:
        raise ServingError("the endpoint is down", kind="down")

    monkeypatch.setattr(jobs, "resume_job", fake)
    done = here("resume", "moods-001", "--json")
    assert done.code == 2
    assert "the endpoint is down" in done.err
    assert "optograph resume runs/moods-001" in done.err
    assert done.data["error"]["type"] == "ServingError"
    assert "optograph resume runs/moods-001" in done.data["error"]["message"]


def test_a_second_interrupt_ends_at_once(here: Command, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "resume_job", fake)
    done = here("resume", "moods-001", "--json")
    assert done.code == 130
    assert done.data == {"status": "interrupted", "run_dir": "runs/moods-001"}
    assert "optograph resume runs/moods-001" in done.err


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


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[one[1][:24] for one in MISTAKES])
def test_each_mistake_is_one_clear_message(
    here: Command, server: LoopbackServer, arguments: list[str], message: str
) -> None:
    done = here("run", "job.toml", *[one.replace("{url}", server.url) for one in arguments])
    assert done.code == 2, (done.out, done.err)
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.err.count("error:") == 1
    assert done.out == ""


def test_mistakes_in_a_process_of_its_own(process: Command) -> None:
    missing = process("run", "nowhere.toml")
    assert (missing.code, missing.out) == (2, "")
    assert "does not exist" in missing.err
    assert "Traceback" not in missing.err
    unknown = process("rnu", "job.toml")
    assert (unknown.code, unknown.out) == (2, "")
    assert "rnu" in unknown.err
