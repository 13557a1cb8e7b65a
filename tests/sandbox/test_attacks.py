"""Attacks on the sandbox, as the user who runs the tests and as an ordinary one: none may reach what it aims at."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optograph.sandbox import availability
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.ordinary import REFUSED, USER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not availability().usable, reason="; ".join(availability().reasons) or "usable")


@functools.cache
def report(user: str) -> dict[str, Any]:
    """Make all attacks in a process of their own, once for each user."""
    launcher = [str(ROOT / "tests/sandbox/ordinary.py")] if user == "ordinary" and os.geteuid() == 0 else []
    command = [sys.executable, *launcher, "-m", "tests.sandbox.runner"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == REFUSED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


USERS = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]


@pytest.mark.parametrize("user", USERS)
def test_who_attacks(user: str) -> None:
    made = report(user)
    assert made["user"] == (0 if user == "root" else USER if os.geteuid() == 0 else os.geteuid())
    assert made["locked"].keys() == {*ATTACKS, "what is left at the end"}
    assert made["locked"]["what is left at the end"] == []
    assert made["unlocked"].pop("no sandbox without permission") == ["unavailable"]
    assert len(made["unlocked"]) >= 70


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_reached(name: str, user: str) -> None:
    made = report(user)
    assert made["locked"][name] == []
    if ATTACKS[name].seen in ("always", "root" if user == "root" else "user"):
        assert made["unlocked"][name] != [], "without a sandbox its effect must be seen: else this test cannot fail"
