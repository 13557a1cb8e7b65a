"""``optograph export``: the right candidate, in safe files, that load back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optograph.cli.plainfiles import FILE_NAME, safe_names, write_files
from optograph.errors import StorageError, UserError
from optograph.graphs import CodeSpec, Parameter, ParameterContainer
from optograph.storage import CandidateRow, DecisionRow, Journal

Command = Callable[..., Any]


def test_the_best_candidate_loads_back(here: Command, finished: Path, folder: Path) -> None:
    done = here("export", "moods-001", "--to", "best", "--json")
    assert done.code == 0, done.err
    files = {Path(one).name for one in done.data["files"]}
    assert files == {"judge.instruction.txt", "judge.demos.json", "parameters.json", "README.txt"}
    assert (folder / "best" / "judge.instruction.txt").read_text() == "Judge carefully.\n"
    assert json.loads((folder / "best" / "judge.demos.json").read_text()) == []
    values = json.loads((folder / "best" / "parameters.json").read_text())

    class Own(ParameterContainer):
        def __init__(self) -> None:
            self.text = Parameter("old", name="judge.instruction")
            self.other = Parameter(1.0, name="weight")

    workflow = Own()
    workflow.load_state_dict({**workflow.state_dict(), "judge.instruction": values["judge.instruction"]})
    assert workflow.text.data == "Judge carefully."
    about = (folder / "best" / "README.txt").read_text()
    for words in ("moods-001", done.data["candidate"], "accepted", "dev score", "0.5000 before, 1.0000 after"):
        assert words in about


def test_a_named_candidate_and_what_cannot_be_named(here: Command, finished: Path, folder: Path) -> None:
    first = json.loads((finished / "result.json").read_text())["start"]["id"]
    done = here("export", "moods-001", "--candidate", first[:6], "--json")
    assert done.code == 0, done.err
    assert done.data["candidate"] == first
    assert (finished / "export" / "judge.instruction.txt").read_text() == "Judge.\n"
    assert "sealed test" not in (finished / "export" / "README.txt").read_text()
    unknown = here("export", "moods-001", "--candidate", "zzz")
    assert unknown.code == 2
    assert first in unknown.err
    with Journal.open(finished) as journal:
        for name in ("aaa1", "aaa2"):
            journal.add_candidate(CandidateRow(id=name, values=journal.put({"x": 1})))
    several = here("export", "moods-001", "--candidate", "aaa")
    assert several.code == 2
    assert "could be any of aaa1, aaa2" in several.err


def test_nothing_is_overwritten_unasked(here: Command, finished: Path, folder: Path) -> None:
    assert here("export", "moods-001", "--to", "best").code == 0
    assert here("export", "moods-001", "--to", "best").code == 0, "equal files are no conflict"
    mine = folder / "best" / "judge.instruction.txt"
    mine.write_text("my own words")
    refused = here("export", "moods-001", "--to", "best")
    assert refused.code == 2
    assert "--force" in refused.err
    assert mine.read_text() == "my own words"
    assert here("export", "moods-001", "--to", "best", "--force").code == 0
    assert mine.read_text() == "Judge carefully.\n"


def test_nothing_to_export_yet(here: Command, folder: Path) -> None:
    Journal.open(folder / "runs" / "new-001").close()
    done = here("export", "new-001")
    assert done.code == 2
    assert "no candidate yet" in done.err


def test_kinds_decide_the_files_while_a_run_goes_on(here: Command, folder: Path) -> None:
    code = "def f(x):\n    return x + 1\n"
    assert CodeSpec.kind == "code"
    with Journal.open(folder / "runs" / "live-001") as journal:
        rows = [{"name": "f", "kind": "code"}, {"name": "text", "kind": "text"}, {"name": "label", "kind": "choice"}]
        journal.set_meta("report", {"payload": journal.put({"report": {"title": "live", "parameters": rows}})})
        values = {"f": code, "text": "words", "label": "red", "../../rate": 0.5, "README": "x"}
        journal.add_candidate(CandidateRow(id="c1", values=journal.put(values), origin="seed"))
        decision = DecisionRow(
            step=0, optimizer="o", candidate="c1", incumbent=None, verdict="seed", reason="r", score=0.25, n=4
        )
        journal.add_decision(decision)
        done = here("export", "live-001", "--to", "out", "--json")
    assert done.code == 0, done.err
    names = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    assert names["f.py"] == code
    assert names["text.txt"] == "words\n"
    assert names["label.json"] == '"red"\n'
    assert names["rate.json"] == "0.5\n"
    assert json.loads(names["parameters.json"]) == values
    readme = next(name for name, text in names.items() if text == "x\n")
    assert readme != "README.txt"
    assert "0.2500 on 4 examples" in names["README.txt"]


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    target = tmp_path / "out"
    target.mkdir()
    (target / "a.txt").symlink_to(secret)
    with pytest.raises(UserError, match="--force"):
        write_files(target, {"a.txt": "new"})
    write_files(target, {"a.txt": "new"}, force=True)
    assert secret.read_text() == "untouched"
    assert not (target / "a.txt").is_symlink()
    assert (target / "a.txt").read_text() == "new"
    os.mkfifo(target / "b.txt")
    with pytest.raises(UserError, match="--force"):
        write_files(target, {"b.txt": "new"})
    (target / "c.txt").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_files(target, {"c.txt": "new"}, force=True)
    assert sorted(path.name for path in target.iterdir()) == ["a.txt", "b.txt", "c.txt"]


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a", "", ".hidden", "a/b", "a\x00", "x" * 65, "a\nb", "ä"])
def test_bad_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot write a file called"):
        write_files(tmp_path / "out", {name: "x"})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_files(tmp_path / "file" / "out", {"a.txt": "x"})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=90), unique=True, max_size=12), st.sampled_from(["txt", "py", "json"]))
def test_every_parameter_gets_a_safe_name_of_its_own(names: list[str], suffix: str) -> None:
    found = safe_names(dict.fromkeys(names, suffix), taken=("parameters.json", "README.txt"))
    assert list(found) == names
    assert all(FILE_NAME.fullmatch(one) for one in found.values())
    lowered = [one.lower() for one in found.values()] + ["parameters.json", "readme.txt"]
    assert len(set(lowered)) == len(lowered)
