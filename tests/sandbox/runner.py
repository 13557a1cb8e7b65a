"""Makes every attack, locked in and not, and prints as JSON what was seen of each."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

from optograph.sandbox import Limits, Sandbox, SandboxError, availability
from tests.sandbox.attack import Attack
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.world import CANARY, World

_SUBREAPER = 36
_LIMITS = Limits(memory_mb=512, disk_mb=64)
_SLACK_SECONDS = 5.0


def children() -> set[int]:
    """Return this process's children; what loses its parent becomes one of them."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def make(attack: Attack, world: World, sandbox: Sandbox, known: set[int]) -> list[str]:
    """Make one attack, and return what it reached."""
    begin = time.monotonic()
    outcome = sandbox.run(attack.code, inputs=world.inputs(), timeout_s=attack.seconds)
    took = time.monotonic() - begin
    seen = world.changed()
    if CANARY in f"{outcome.stdout} {outcome.stderr} {outcome.result!r} {outcome.error}":
        seen.append("it read a secret")
    if attack.reached(outcome.result):
        seen.append("it says so")
    if len(outcome.stdout) > _LIMITS.printed_chars + 100:
        seen.append("it printed more than it may")
    if took > attack.seconds + _SLACK_SECONDS:
        seen.append(f"it went on for {took:.1f} s")
    stayed = children() - known
    for pid in stayed:
        seen.append("it left a process behind")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if attack.kind and (outcome.error is None or attack.kind not in ("any", outcome.error.kind)):
        seen.append(f"it ended as {outcome.error!r}, not by {attack.kind}")
    if seen:
        world.reset()
    return seen


def locked(world: World) -> dict[str, list[str]]:
    """Make all attacks in the sandbox."""
    found: dict[str, list[str]] = {}
    with Sandbox(limits=_LIMITS, readable=[str(world.library)]) as sandbox:
        sandbox.start()
        known = children()
        for name, attack in ATTACKS.items():
            found[name] = make(attack, world, sandbox, known)
    left = children() - {world.victim.pid}
    found["what is left at the end"] = [f"process {pid}" for pid in left]
    return found


def unlocked(world: World) -> dict[str, list[str]]:
    """Make the attacks that do no harm in processes that nothing locks in."""
    found: dict[str, list[str]] = {}
    can = replace(availability(), usable=False)
    with mock.patch("optograph.sandbox.pool.availability", return_value=can):
        try:
            Sandbox()
        except SandboxError as error:
            found["no sandbox without permission"] = [error.kind]
        sandbox = Sandbox(limits=_LIMITS, allow_unsandboxed=True)
    user = "root" if os.geteuid() == 0 else "user"
    with sandbox:
        sandbox.start()
        for name, attack in ATTACKS.items():
            if attack.seen in ("always", user):
                found[name] = make(replace(attack, kind=""), world, sandbox, children() | {world.victim.pid})
    return found


def main() -> None:
    """Print what was seen."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with World() as world:
        report = {"user": os.geteuid(), "locked": locked(world), "unlocked": unlocked(world)}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
