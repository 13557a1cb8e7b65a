"""The sandbox's processes: what they inherit, who they are, and that none of them outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.sandbox import Limits, Sandbox, WorkerGroup, availability
from optograph.sandbox.inside.folders import remove, usage

pytestmark = pytest.mark.skipif(not availability().usable, reason="; ".join(availability().reasons) or "usable")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(seconds=20)) as made:
        yield made


def zygote(sandbox: Sandbox) -> int:
    launcher = sandbox._launcher
    assert launcher is not None
    return launcher._process.pid


def processes_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def eventually(check: Any) -> None:
    until = time.monotonic() + 20
    while not check():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie waits only to be reaped)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_one_worker_leaves_nothing_for_the_next(sandbox: Sandbox) -> None:
    tamper = (
        "import sys, json, builtins, os, threading, time\n"
        "json.EVIL = builtins.EVIL = sys.EVIL = 1\nsys.path.insert(0, os.getcwd())\n"
        "open('statistics.py', 'w').write('EVIL = 1')\nos.environ['EVIL'] = '1'\n"
        "json.dumps = None\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    assert sandbox.run(tamper).error is None
    look = (
        "import sys, json, builtins, os, statistics\n"
        "result = [hasattr(m, 'EVIL') for m in (json, builtins, sys, statistics)]\n"
        "result += ['EVIL' in os.environ, json.dumps(1)]"
    )
    assert sandbox.run(look).result == [False] * 5 + ["1"]


def test_no_key_and_no_descriptor_is_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-canary")
    look = (
        "import os, sys\nopen_ones = []\nfor d in range(256):\n  try: os.fstat(d); open_ones.append(d)\n"
        "  except OSError: pass\n"
        "result = [dict(os.environ), open_ones, sys.argv, [m for m in sys.modules if m.startswith('optograph')]]"
    )
    with Sandbox() as own:
        environment, descriptors, argv, modules = own.run(look).result
    assert "sk-canary" not in str(environment)
    assert set(environment) <= {
        *("PATH", "LANG", "HOME", "TMPDIR", "OPENBLAS_NUM_THREADS"),
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
    }
    assert descriptors[:5] == [0, 1, 2, 3, 4]
    assert len(descriptors) <= 9  # and those that lead to libraries, where another user could not reach them
    assert modules == []
    assert "sk-canary" not in str(argv)


def test_threads_do_not_mix(sandbox: Sandbox) -> None:
    group = WorkerGroup(lambda: sandbox.worker("def f(x):\n    return x * x", "f"), most=3)
    wrong: list[Any] = []

    def work(start: int) -> None:
        for number in range(start, start + 50):
            if group.ask([number], {}).value != number * number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    group.close()


def test_processes_end_with_their_worker(sandbox: Sandbox) -> None:
    worker = sandbox.worker("import os\ndef f():\n    return os.getpid(), os.getcwd()", "f")
    pid, folder = worker.call()
    seen = Path(f"/proc/{zygote(sandbox)}/root{folder}") if os.geteuid() == 0 else Path(folder)
    assert seen.is_dir()
    assert pid in processes_of(zygote(sandbox))
    worker.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not seen.exists()
    forgotten = sandbox.worker("import os\ndef f():\n    return os.getpid()", "f")
    pid = forgotten.call()
    del forgotten
    sandbox.run("")
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_zygote_takes_all_along_and_another_starts() -> None:
    with Sandbox() as own:
        worker = own.worker("import os\ndef f():\n    return os.getpid()", "f")
        pid = worker.call()
        others = processes_of(zygote(own))
        os.kill(zygote(own), signal.SIGKILL)
        eventually(lambda: all(gone(child) for child in (pid, *others)))
        assert worker.call() != pid
        root = own._launcher._root if own._launcher else ""
        assert Path(root).exists()
    assert not Path(root).exists()
    with pytest.raises(UserError, match="closed"):
        worker.call()


PARENT = """
import os, sys, time
from optograph.sandbox import Sandbox
sandbox = Sandbox()
worker = sandbox.worker("import os\\ndef f():\\n    return [os.getpid(), os.getppid(), os.getcwd()]", "f")
print(*worker.call(), flush=True)
if sys.argv[1] == "wait":
    if os.fork() == 0: time.sleep(5); os._exit(0)  # holds all descriptors that were not closed
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["wait", "end"])
def test_all_ends_with_the_main_process(how: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as output:
        child, zygote_pid, folder = output.readline().split()
    if how == "wait":
        parent.kill()
    parent.wait()
    eventually(lambda: gone(int(child)) and gone(int(zygote_pid)))
    eventually(lambda: not Path(folder).parent.exists())


def test_each_worker_is_another_user(sandbox: Sandbox) -> None:
    users = [sandbox.run("import os\nresult = (os.getuid(), os.geteuid(), os.getgroups())").result for _ in range(2)]
    if not availability().separate_users:
        assert users[0][0] == os.getuid()
        return
    assert len({user[0] for user in users}) == 2
    assert all(user[0] == user[1] and user[0] >= 60000 and not user[2] for user in users)


def test_folders_are_counted_and_removed_whatever_is_in_them(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    secret = tmp_path / "kept"
    secret.write_text("x")
    (top / "link").symlink_to(secret)
    (top / "shut").mkdir()
    (top / "shut" / "file").write_bytes(bytes(10_000))
    (top / "shut").chmod(0)
    here = Path.cwd()
    os.chdir(top)
    try:
        for _ in range(3000):
            Path("deep").mkdir()
            os.chdir("deep")
    finally:
        os.chdir(here)
    with pytest.raises(OSError, match="too long"):
        usage(str(top), 10_000)
    assert usage(str(top), 100)[1] >= 100
    remove(str(top))
    remove(str(top))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_worker_is_renewed_before_its_processor_time_is_used_up() -> None:
    with Sandbox(limits=Limits(cpu_seconds=1)) as own:
        source = "import os, time\ndef f():\n    time.sleep(.3)\n    return os.getpid()"
        with own.worker(source, "f") as worker:
            assert len({worker.call() for _ in range(3)}) == 2


def test_a_fork_of_the_main_process_makes_its_own(sandbox: Sandbox) -> None:
    script = (
        "import os\nfrom optograph.sandbox import Sandbox\n"
        "sandbox = Sandbox()\nworker = sandbox.worker('import os\\ndef f(x): return [x, os.getppid()]', 'f')\n"
        "first = worker.call([1])\nreader, writer = os.pipe()\n"
        "if os.fork() == 0:\n  os.write(writer, repr(worker.call([2])).encode())\n  sandbox.close()\n  os._exit(0)\n"
        "os.wait()\nother = eval(os.read(reader, 99))\n"
        "assert (first[0], other[0]) == (1, 2) and first[1] != other[1], (first, other)\n"
        "assert worker.call([3]) == [3, first[1]]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
