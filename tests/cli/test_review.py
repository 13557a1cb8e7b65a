"""``optograph review``: shows what a run waits for, takes each kind of answer, and lets the run go on."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.cli.reviewing import _value
from optograph.graphs import Candidate, ChoiceSpec
from optograph.optimizers import ReviewRequest
from optograph.storage import Journal
from optograph.testing import LoopbackServer

Command = Callable[..., Any]
RUN = "runs/moods-001"


@pytest.fixture
def waiting(here: Command, server: LoopbackServer) -> Command:
    """A run that waits for a review, and the command line beside it."""
    done = here("run", "job.toml", "--review", "--json")
    assert done.code == 0
    assert done.data["status"] == "waiting"
    assert done.data["review"]["step"] == 1
    assert f"To review: optograph review {RUN}" in done.err
    return here


def test_the_candidate_is_shown(waiting: Command, folder: Path) -> None:
    shown = waiting("review", "moods-001")
    assert shown.code == 0
    lines = [line.strip() for line in shown.out.splitlines()]
    assert "dev 0.500 → 1.000  +0.500 (95 %: +0.250 to +0.750) on 12 examples" in lines
    assert {"- Judge.", "+ Judge carefully."} <= set(lines)
    assert sum("0.000 → 1.000" in line for line in lines) == 6
    assert "--feedback TEXT" in shown.err
    document = waiting("review", "moods-001", "--json").data
    assert document["answer"] is None
    assert document["request"]["changed"] == ["judge.instruction"]
    assert document["request"]["parameters"]["judge.instruction"]["kind"] == "text"
    before = (folder / RUN / "journal.db").read_bytes()
    assert waiting("review", "moods-001").code == 0
    assert (folder / RUN / "journal.db").read_bytes() == before


def test_status_and_report_say_that_it_waits(waiting: Command, folder: Path) -> None:
    status = waiting("status", "moods-001")
    assert "waiting for review" in status.out
    assert f"To review: optograph review {RUN}" in status.out
    assert "To continue" not in status.out
    assert waiting("status", "moods-001", "--json").data["state"] == "waiting"
    assert "waiting for review" in waiting("status").out
    assert waiting("report", "moods-001").code == 0
    assert "waiting for a person's review" in (folder / RUN / "report.html").read_text().replace("&#39;", "'")
    assert waiting("review", "moods-001", "--approve", "--by", "ana").code == 0
    status = waiting("status", "moods-001")
    assert "reviewed, to be resumed" in status.out
    assert "approve, by ana at" in status.out
    assert f"To continue: optograph resume {RUN}" in status.out


def test_an_approval_with_words_and_going_on_at_once(waiting: Command, folder: Path) -> None:
    done = waiting("review", "moods-001", "--approve", "--feedback", "Good <b>work</b>.", "--by", "ana", "--go-on")
    assert done.code == 0
    assert "ana approved candidate" in done.err
    with Journal.read(folder / RUN) as journal:
        (event,) = journal.events("review")
        assert (event["comment"], event["outcome"]) == ("Good <b>work</b>.", "accepted")
        assert journal.lives == 2  # the review is no life of the run
        proposals = [row for row in journal.calls() if row.context["role"] == "optimizer"]
        assert "Good <b>work</b>." in journal.get(proposals[-1].request)["messages"][-1]["content"]
    page = (folder / RUN / "report.html").read_text()
    assert "Review: approve, by ana" in page
    assert "Good &lt;b&gt;work&lt;/b&gt;." in page
    assert "<b>work" not in page
    report = json.loads((folder / RUN / "report.json").read_text())
    assert report["steps"][1]["review"] == {key: event[key] for key in ("verdict", "by", "at", "comment")}
    ended = waiting("review", "moods-001", "--approve")
    assert ended.code == 2
    assert "waits for no review (finished" in ended.err


def test_going_on_with_an_answer_that_is_there(waiting: Command) -> None:
    assert waiting("review", "moods-001", "--go-on", "--json").data["answer"] is None
    assert waiting("review", "moods-001", "--reject").code == 0
    assert waiting("review", "moods-001", "--go-on", "--json").data["status"] == "finished"


def test_feedback_alone_sends_it_back(waiting: Command, folder: Path) -> None:
    done = waiting("review", "moods-001", "--feedback", "Too vague.", "--json")
    assert done.data["answer"]["verdict"] == "reject"
    assert done.data["answer"]["by"]
    assert waiting("resume", "moods-001").code == 0
    with Journal.read(folder / RUN) as journal:
        assert [row.verdict for row in journal.decisions()] == ["seed", "rejected"]
        assert journal.decisions()[1].reason.endswith(f"Rejected by {done.data['answer']['by']}.")


def test_an_edit_from_a_file(waiting: Command, folder: Path) -> None:
    (folder / "new.txt").write_text("Judge carefully!\n")
    assert waiting("review", "moods-001", "--edit", "judge.instruction=new.txt", "--by", "ana").code == 0
    assert waiting("review", "moods-001", "--json").data["answer"]["values"] == {
        "judge.instruction": "Judge carefully!"
    }
    assert waiting("resume", "moods-001", "--json").data["best"]["origin"] == "review"


@pytest.mark.parametrize(
    ("choices", "text", "value"),
    [
        (["1", "2"], "2", "2"),
        ([1, 2], "2", 2),
        (["2", 2], "2", "2"),
        (["1", "2"], '"2"', "2"),
        ([True, None], "null", None),
        (["null", None], "null", "null"),
        (["short", "long"], " Long", "long"),
    ],
)
def test_a_choice_is_the_one_that_the_text_names(choices: list[Any], text: str, value: Any) -> None:
    spec = ChoiceSpec(choices)
    start = Candidate({"k": choices[0]})
    described = {"k": {"kind": spec.kind, "constraint": spec.describe(), "schema": spec.json_schema()}}
    request = ReviewRequest(1, "optoprime", start, start, "", parameters=described)
    chosen = spec.from_json(_value(request, "k", text))
    assert (type(chosen), chosen) == (type(value), value)


def test_an_edit_of_a_list_is_json(waiting: Command) -> None:
    wrong = waiting("review", "moods-001", "--set", "judge.demos=rain")
    assert wrong.code == 2
    assert "must be JSON" in wrong.err
    done = waiting("review", "moods-001", "--set", 'judge.demos=[{"text": "rain", "mood": "sad"}]', "--json")
    assert done.data["answer"]["values"] == {"judge.demos": [{"text": "rain", "mood": "sad"}]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--approve", "--reject"), "exclude each other"),
        (("--approve", "--set", "judge.instruction=x"), "--approve and an edit exclude each other"),
        (("--set", "judge.instruction"), "write NAME=VALUE"),
        (("--set", "wrong=x"), "'wrong' is no parameter"),
        (("--edit", "judge.instruction=none.txt"), "cannot read 'none.txt'"),
        (("--set", "judge.instruction=Judge carefully."), "approve the candidate as it is"),
    ],
)
def test_wrong_answers(waiting: Command, options: tuple[str, ...], message: str) -> None:
    done = waiting("review", "moods-001", *options)
    assert done.code == 2
    assert message in done.err
    assert waiting("review", "moods-001", "--json").data["answer"] is None


def test_resuming_without_an_answer_waits_again_and_without_reviews_goes_on(waiting: Command) -> None:
    assert waiting("resume", "moods-001", "--json").data["status"] == "waiting"
    done = waiting("resume", "moods-001", "--no-review", "--json")
    assert done.data["status"] == "finished"
    assert done.data["best"]["values"]["judge.instruction"] == "Judge carefully."


def test_the_job_file_asks_for_reviews(here: Command, server: LoopbackServer, folder: Path) -> None:
    with (folder / "job.toml").open("a") as job:
        job.write('[review]\nwhen = "accepted"\n')
    assert here("run", "job.toml", "--json").data["status"] == "waiting"
    assert here("run", "job.toml", "--no-review", "--json").data["status"] == "finished"
    wrong = here("run", "job.toml", "--set", "review.when=always")
    assert wrong.code == 2
    assert "review.when = 'always'" in wrong.err


def test_a_person_at_a_terminal(waiting: Command, folder: Path) -> None:
    """The editor of this person is a program that writes another text."""
    editor = folder / "editor.py"
    editor.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('Judge carefully!\\n')\n")
    front, back = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "optograph", "review", "moods-001", "--by", "ana"],
        cwd=folder,
        stdin=back,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VISUAL": f"{sys.executable} {editor}"},
    )
    os.write(front, b"x\nedit\nShorter.\n")
    out, err = process.communicate(timeout=60)
    os.close(front)
    os.close(back)
    assert process.returncode == 0, err
    assert "+ Judge carefully." in out
    assert "ana edited candidate" in err
    answer = waiting("review", "moods-001", "--json").data["answer"]
    assert (answer["values"], answer["comment"]) == ({"judge.instruction": "Judge carefully!"}, "Shorter.")


def test_the_graph_is_printed(here: Command, server: LoopbackServer) -> None:
    drawn = here("graph").out
    assert drawn.startswith("---\nconfig:")
    assert "subgraph ask" in drawn
    for name in ("render", "propose", "validate", "repair", "evaluate", "tell", "accept", "review"):
        assert f"({name})" in drawn
    stages = 'optimizer.stages=[{name="fewshot"}]'
    plain = here("graph", "job.toml", "--set", stages, "--set", "optimizer.steps=1", "--json")
    assert plain.code == 2
    job = folder_job(here)
    assert "subgraph" not in here("graph", job, "--set", "optimizer.name=fewshot", "--json").data["mermaid"]


def folder_job(here: Command) -> str:
    """Take the options of OptoPrime out of the job file."""
    path = Path("job.toml")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(("steps", "mini"))))
    return str(path)
