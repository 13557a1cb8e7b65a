"""SIGKILL of the process that started a real vLLM server leaves none of the server's processes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OWNER = """
import sys, time
from pathlib import Path
from optograph.serving.vllm import VLLMServer
server = VLLMServer(Path(sys.argv[1]), kv_cache_gb=0.25, max_model_len=512).start()
print(server.pid, server._process._guard.pid, server.lm()("hello", max_tokens=2) is not None, flush=True)
time.sleep(600)
"""


def processes() -> dict[int, int]:
    """Return the parent of each live process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = int(parent)
    return found


def below(root: int) -> set[int]:
    """Return a process and all that descend from it."""
    parents = processes()
    found, new = set(), {root}
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in new}
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_sigkill_of_the_parent_leaves_no_process(tiny_model: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tiny_model)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        server, guard, answered = owner.stdout.readline().split()
        assert answered == "True"
        family = below(int(guard))
        assert int(server) in family and len(family) >= 4  # guard, API server, engine, worker
        os.kill(owner.pid, signal.SIGKILL)
        assert owner.wait() == -signal.SIGKILL
        until = time.monotonic() + 30
        while family & set(processes()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not family & set(processes())
    finally:
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()
