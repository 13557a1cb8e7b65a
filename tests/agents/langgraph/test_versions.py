"""The versions that are tested are the ones that pyproject.toml promises."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_LISTED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
WANTED: dict[str, str] = dict(re.findall(r"^([\w-]+)(.*)$", "\n".join(_LISTED), re.MULTILINE))
LOWEST = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8"), re.MULTILINE))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.mark.parametrize("name", sorted(WANTED.keys() & LOWEST.keys()))
def test_the_lowest_version_that_is_tested_is_the_lowest_allowed(name: str) -> None:
    assert re.match(r">=([\d.]+),<", WANTED[name])[1] == LOWEST[name]  # type: ignore[index]


def test_what_is_installed_is_in_the_range() -> None:
    ranges = {name: re.fullmatch(r">=([\d.]+),<([\d.]+)", WANTED[name]) for name in WANTED.keys() & LOWEST.keys()}
    assert len(ranges) == 4
    for name, found in ranges.items():
        assert found is not None, name
        assert numbers(found[1]) <= numbers(importlib.metadata.version(name)) < numbers(found[2]), name


def test_continuous_integration_tests_both_ends() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    made = {word for goals in re.findall(r"^make (.+)$", run, re.MULTILINE) for word in goals.split()}
    assert {"check", "test", "test-training", "test-lowest"} <= made
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-c .ci/lowest.txt" in makefile
    assert re.search(r"^\t\.venv-lowest/bin/python -m pytest .*tests/agents/langgraph$", makefile, re.MULTILINE)
