"""Module.save and Module.load: all or nothing, and nothing that does not fit."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from optograph.agents import Module
from optograph.errors import StorageError, UserError
from optograph.graphs import ChoiceSpec, IntSpec, JsonSpec, Parameter, applying, op
from optograph.secrets import register_secret


class Limits(BaseModel):
    low: float
    high: float


@op(trainable=True)
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


class Everything(Module):
    """One parameter of each kind."""

    def __init__(self) -> None:
        self.text = Parameter("Be brief. ü\n", name="text")
        self.count = Parameter(3, name="count", spec=IntSpec(0, 10))
        self.rate = Parameter(0.1, name="rate")
        self.flag = Parameter(True, name="flag")
        self.choice = Parameter("a", name="choice", spec=ChoiceSpec(("a", "b")))
        self.demos = Parameter([{"question": "?", "answer": 1}], name="demos")
        self.limits = Parameter(Limits(low=0, high=1), name="limits")
        self.rest = Parameter({"deep": [1, {"er": None}]}, name="rest", spec=JsonSpec("dict"))
        self.inner = [double]


def changed() -> Everything:
    module = Everything()
    module.text.set("Be long.")
    module.count.set(7)
    module.rate.set(1 / 3)
    module.flag.set(False)
    module.choice.set("b")
    module.limits.set(Limits(low=-1, high=2))
    module.demos.set([{"question": "\ud83d"}])
    module.rest.set({})
    return module


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "workflow.json"
    assert changed().save(path) == path
    module = Everything()
    module.load(path)
    assert module.state_dict() == changed().state_dict()
    assert module.limits.data == Limits(low=-1, high=2)
    assert module.inner[0](2).data == 4
    Everything().save(path)
    module.load(str(path))
    assert module.state_dict() == Everything().state_dict()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    data = json.loads(changed().save(tmp_path / "w.json").read_text())
    assert (data["format"], data["version"]) == ("optograph.parameters", 1)
    assert data["parameters"]["count"] == {"kind": "int", "value": 7}
    assert set(data["parameters"]) == set(Everything().named_parameters())
    assert stat.S_IMODE((tmp_path / "w.json").stat().st_mode) == 0o644


def test_own_values_are_saved_whatever_candidate_is_applied(tmp_path: Path) -> None:
    with applying({"count": 9}):
        Everything().save(tmp_path / "w.json")
    module = changed()
    module.load(tmp_path / "w.json")
    assert module.count.data == 3


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(lambda data: data["parameters"].pop("rate")), r"lacks \['rate'\] and has unknown \[\]"),
        (edit(lambda data: data["parameters"].update(more=1)), r"unknown \['more'\]"),
        (edit(lambda data: data["parameters"]["count"].update(value=11)), "does not fit parameter 'count': must be"),
        (edit(lambda data: data["parameters"]["limits"].update(value={"low": 1})), "does not fit parameter 'limits'"),
        (edit(lambda data: data["parameters"]["double.code"].update(value="import os")), "parameter 'double.code'"),
        (edit(lambda data: data["parameters"]["count"].update(kind="float")), "as 'float', but here it is 'int'"),
        (edit(lambda data: data["parameters"].update(count=7)), "does not give kind and value of parameter 'count'"),
        (edit(lambda data: data.update(version=2)), "is of version 2"),
        (edit(lambda data: data.update(format="other")), "holds no saved parameters"),
        (lambda path: path.write_text("[]"), "holds no saved parameters"),
        (lambda path: path.write_text('{"format": NaN}'), "cannot be read as saved parameters"),
        (lambda path: path.write_text(path.read_text()[:100]), "cannot be read as saved parameters"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read as saved parameters"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_what_does_not_fit_loads_nothing(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = changed().save(tmp_path / "w.json")
    damage(path)
    module = Everything()
    with pytest.raises(UserError, match=message):
        module.load(path)
    assert module.state_dict() == Everything().state_dict()


def test_a_save_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Everything().save(tmp_path / "w.json")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr(os, "fsync", full)
        changed().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder.*workflow\.json"):
        Everything().save(tmp_path)
    with pytest.raises(StorageError, match="cannot write"):
        Everything().save("/proc/none/w.json")


def test_a_number_that_json_does_not_know_is_refused(tmp_path: Path) -> None:
    module = Everything()
    module.limits.set(Limits(low=0, high=float("inf")))
    with pytest.raises(UserError, match="parameter 'limits' cannot be written as JSON"):
        module.save(tmp_path / "w.json")


def test_an_api_key_is_not_written(tmp_path: Path) -> None:
    register_secret("sk-very-secret-value-123")
    module = Everything()
    module.text.set("Use sk-very-secret-value-123 here.")
    with pytest.raises(UserError, match="parameter 'text' holds an API key"):
        module.save(tmp_path / "w.json")
    assert not list(tmp_path.iterdir())
