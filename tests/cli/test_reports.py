"""``optograph report``, ``diff``, ``estimate`` and ``models``: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.serving import fetch
from optograph.storage import Journal
from optograph.testing import LoopbackServer

Command = Callable[..., Any]


def test_a_report_is_made_again(here: Command, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def no_browser(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr(webbrowser, "open", no_browser)
    (finished / "report.html").unlink()
    done = here("report", "moods-001")
    assert (done.code, done.out) == (0, "runs/moods-001/report.html\n")
    assert "Judge carefully." in (finished / "report.html").read_text()
    assert opened == []
    again = here("report", "moods-001", "--open", "--json")
    assert again.data == {"report": "runs/moods-001/report.html"}
    assert opened == [(finished / "report.html").resolve().as_uri()]
    assert "open runs/moods-001/report.html yourself" in again.err


def test_a_report_of_a_run_that_goes_on(here: Command, folder: Path) -> None:
    with Journal.open(folder / "runs" / "new-001"):
        done = here("report", "new-001")
    assert done.code == 0, done.err
    assert (folder / "runs" / "new-001" / "report.html").is_file()


@pytest.fixture
def worse(finished: Path) -> Path:
    """A run like the finished one whose result is wrong on every example."""
    target = finished.with_name("moods-002")
    shutil.copytree(finished, target)
    report = json.loads((target / "report.json").read_text())
    report["run"] = "moods-002"
    report["test"] |= {"after": 0.0}
    report["examples"] = [row | {"after_score": 0.0} for row in report["examples"]]
    (target / "report.json").write_text(json.dumps(report))
    return target


def test_two_runs_are_compared(here: Command, finished: Path, worse: Path) -> None:
    found = here("diff", "moods-001", "moods-002", "--json")
    assert found.code == 0, found.err
    test = found.data["scores"][0]
    assert (test["split"], test["difference"], test["n"]) == ("test", -1.0, 16)
    shown = here("diff", str(finished), "moods-002")
    assert "moods-002" in shown.out
    assert "-1.000" in shown.out.replace("\u2212", "-")


def test_a_check_fails_where_the_second_is_worse(here: Command, finished: Path, worse: Path) -> None:
    same = here("diff", "moods-001", "moods-001", "--check")
    assert same.code == 0, same.err
    assert here("diff", "moods-002", "moods-001", "--check").code == 0
    failed = here("diff", "moods-001", "moods-002", "--check", "--json")
    assert failed.code == 1
    assert "'moods-002' scores 0.000 on test, 'moods-001' scores 1.000" in failed.err
    assert failed.data["scores"][0]["difference"] == -1.0


def test_exported_files_are_compared(here: Command, finished: Path, folder: Path) -> None:
    start = json.loads((finished / "result.json").read_text())["start"]["id"]
    assert here("export", "moods-001", "--to", "best").code == 0
    assert here("export", "moods-001", "--to", "first", "--candidate", start).code == 0
    found = here("diff", "first", "best/parameters.json", "--json")
    assert found.code == 0, found.err
    rows = {row["name"]: (row["state"], row["a"], row["b"]) for row in found.data["parameters"]}
    assert rows["judge.instruction"] == ("changed", "Judge.", "Judge carefully.")
    mixed = here("diff", "moods-001", "best", "--json")
    assert {row["state"] for row in mixed.data["parameters"]} == {"same"}
    unscored = here("diff", "first", "best", "--check")
    assert unscored.code == 1
    assert "no scores" in unscored.err


@pytest.mark.parametrize("content", ["no json", "[1, 2]", "\x00\xff"])
def test_a_file_that_is_no_export(here: Command, finished: Path, folder: Path, content: str) -> None:
    (folder / "odd.json").write_text(content)
    done = here("diff", "moods-001", "odd.json")
    assert (done.code, done.out) == (2, "")
    assert "parameters.json" in done.err


def test_an_estimate(here: Command, server: LoopbackServer) -> None:
    found = here("estimate", "job.toml", "--set", "budget.calls=40", "--json")
    assert found.code == 0, found.err
    assert isinstance(found.data, dict)
    shown = here("estimate", "job.toml")
    assert "task" in shown.out
    assert server.calls == 0
    probed = here("estimate", "job.toml", "--probe", "2", "--json")
    assert probed.code == 0, probed.err
    assert server.calls > 0
    assert here("estimate", "nowhere.toml").code == 2
    assert here("estimate", "job.toml", "--probe", "-1").code == 2


def test_models(here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("models", "list", "--json").data[0]["name"] == "smollm2-135m"
    assert "local/smollm2-135m" in here("models", "list").out
    monkeypatch.setattr(fetch, "fetch_model", lambda name: tmp_path / f"{name}.gguf")
    assert here("models", "pull", "local/smollm2-135m").out == f"{tmp_path}/smollm2-135m.gguf\n"
    assert here("models", "pull", "smollm2-135m", "--json").data["path"] == f"{tmp_path}/smollm2-135m.gguf"
    monkeypatch.undo()


def test_an_unknown_model(here: Command) -> None:
    done = here("models", "pull", "smolm2")
    assert done.code == 2
    assert "did you mean 'local/smollm2-135m'" in done.err
