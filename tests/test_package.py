"""The package as a whole: what is public, what an import costs, what the wheel holds."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import optograph

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "vllm",
    "datasets",
    "pandas",
    "langgraph",
    "openai",
    "xllamacpp",
    "jinja2",
    "rich",
    "opentelemetry",
}


def modules() -> list[str]:
    found = pkgutil.walk_packages(optograph.__path__, "optograph.")
    return [one.name for one in found if not one.name.endswith("__main__")]


@pytest.mark.parametrize(
    "name", ["optograph", *(f"optograph.{one}" for one in ("agents", "evals", "graphs", "jobs", "optimizers.policy"))]
)
def test_everything_in_all_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for one in module.__all__:
        assert getattr(module, one) is not None
    assert set(module.__all__) <= set(dir(module))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        optograph.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, json, optograph; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(seen.stdout))


def test_importing_every_part_loads_no_optional_package() -> None:
    # The adapter of LangGraph is made of LangGraph's own classes; whoever imports it has a graph of theirs.
    # Losses and trainers are made of tensors; the package that they are in gives them out when they are first used.
    tensors = ("batching", "critic", "extrapolation", "losses", "models", "oreo", "probe", "references", "scoring")
    needs = (
        "agents.langgraph",
        *(f"optimizers.policy.{one}" for one in (*tensors, "tensors", "trainers.", "training")),
    )
    names = [name for name in modules() if not name.startswith(tuple(f"optograph.{one}" for one in needs))]
    assert "optograph.optimizers.policy" in names
    code = (
        "import sys, json, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "trl", "vllm", "xllamacpp", "datasets", "langgraph"} & set(
        json.loads(seen.stdout)
    )


def test_every_file_says_what_it_is_for() -> None:
    for path in (ROOT / "optograph").rglob("*.py"):
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        assert first.startswith('"""'), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


def test_the_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"optograph"}
    assert "optograph/py.typed" in names
    assert any(name.startswith("optograph/report/templates/") and name.endswith(".j2") for name in names)


@pytest.mark.parametrize("name", ["graphs", "agents", "optimizers", "serving", "evals"])
def test_the_root_links_lead_into_the_package(name: str) -> None:
    assert (ROOT / name).resolve() == (ROOT / "optograph" / name).resolve()
