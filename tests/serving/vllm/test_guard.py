"""The guard ends a command and all that it started: when stopped, when its owner is killed, when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from optograph.serving.vllm.process import GuardedProcess

# A process with a child in a session of its own, both deaf to SIGTERM where wanted; each writes its id into a folder.
TREE = """
import os, signal, subprocess, sys, time
folder, deaf = sys.argv[1], sys.argv[2] == "deaf"
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
for pid in (os.getpid(), child.pid):
    open(os.path.join(folder, str(pid)), "w").close()
print("ready", flush=True)
time.sleep(600)
"""
OWNER = """
import os, sys, time
from pathlib import Path
from optograph.serving.vllm.process import GuardedProcess
folder = Path(sys.argv[1])
process = GuardedProcess([sys.executable, "-c", sys.argv[2], str(folder), "deaf"], dict(os.environ), folder / "log",
                         grace_s=0.3)
if sys.argv[3] == "fork" and os.fork() == 0:  # a copy of the owner's end of the pipe
    time.sleep(600)
print(process._guard.pid, flush=True)
time.sleep(600)
"""


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


def pids(folder: Path) -> list[int]:
    return [int(one.name) for one in folder.iterdir() if one.name.isdigit()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree(folder: Path, how: str = "deaf") -> GuardedProcess:
    process = GuardedProcess(
        [sys.executable, "-c", TREE, str(folder), how], dict(os.environ), folder / "log", grace_s=0.3
    )
    assert wait_for(lambda: len(pids(folder)) == 2)
    return process


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize("how", ["deaf", "willing"])
def test_stop_ends_the_whole_tree(tmp_path: Path, how: str) -> None:
    process = tree(tmp_path, how)
    assert process.poll() is None and process.pid in pids(tmp_path)
    assert wait_for(lambda: process.tail() == "ready")
    process.stop()
    process.stop()
    assert process.poll() is not None
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_what_nobody_holds_is_stopped(tmp_path: Path) -> None:
    process = tree(tmp_path)
    del process
    assert not any(alive(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_sigkill_of_the_owner_ends_the_whole_tree(tmp_path: Path, how: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), TREE, how], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert owner.stdout is not None
        guard = int(owner.stdout.readline())
        assert wait_for(lambda: len(pids(tmp_path)) == 2)
        os.kill(owner.pid, signal.SIGKILL)
        assert owner.wait() == -signal.SIGKILL
        assert wait_for(lambda: not any(alive(pid) for pid in [*pids(tmp_path), guard]))
    finally:
        os.killpg(owner.pid, signal.SIGKILL) if how == "fork" else owner.kill()
        assert owner.stdout is not None
        owner.stdout.close()


def test_a_command_that_ends_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("an old line\n")
    code = "import subprocess, sys; subprocess.Popen(['sleep', '600']); print('sk-0123456789abcdefghij'); sys.exit(3)"
    process = GuardedProcess([sys.executable, "-c", code], dict(os.environ), tmp_path / "log", grace_s=0.2)
    assert wait_for(lambda: process.poll() is not None)
    assert process.poll() == 3
    assert process.tail() == "…"
    process.stop()


def test_the_guards_own_death_reaches_the_command(tmp_path: Path) -> None:
    process = tree(tmp_path, "willing")
    os.kill(process._guard.pid, signal.SIGKILL)
    assert wait_for(lambda: not alive(process.pid))
    process.stop()
    for pid in pids(tmp_path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/no/such/program"):
        GuardedProcess(["/no/such/program"], dict(os.environ), tmp_path / "log")
