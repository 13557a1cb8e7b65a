"""The sandbox as its users see it: results, errors, limits, processes and their end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from optograph.errors import UserError
from optograph.sandbox import KINDS, Limits, Sandbox, SandboxError, Worker, availability
from optograph.sandbox.bubblewrap import wrapped
from optograph.sandbox.inside.codec import NotPlain, dumps, loads, mark, unmark

pytestmark = pytest.mark.skipif(not availability().usable, reason="; ".join(availability().reasons) or "usable")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(seconds=20)) as made:
        yield made


DATA: list[Any] = [
    None,
    True,
    -7,
    2**80,
    1.5,
    "é \U0001f600 \0",
    [],
    {},
    (1, (2, [3])),
    {"a": {"b": (1,)}},
    {1: 2, (3, 4): "x", None: 0},
    {"$tuple": [1], "b": 2},
    {"$x": 1},
    {1, 2},
    frozenset({"a"}),
    b"\x00\xff",
    [{"k": [(), set()]}],
]


@pytest.mark.parametrize("value", DATA)
def test_plain_data_comes_back_as_it_was(value: Any, sandbox: Sandbox) -> None:
    assert unmark(loads(dumps(mark(value)))) == value
    with sandbox.worker("def same(x):\n    return x", "same") as worker:
        got = worker.call([value])
        assert got == value
        assert type(got) is type(value)
        assert worker.call([[value, value]]) == [value, value]


def test_what_is_no_plain_data(sandbox: Sandbox) -> None:
    with sandbox.worker("def same(x):\n    return repr(x)", "same") as worker:
        for value in (object(), len, [[Limits()]], "\ud800"):
            with pytest.raises(UserError, match="sent to the sandbox"):
                worker.call([value])
        looped: list[Any] = []
        looped.append(looped)
        with pytest.raises(UserError, match="contains itself"):
            worker.call([looped])
        with pytest.raises(UserError, match="at most 1048576 bytes"):
            worker.call(["x" * (2 << 20)])
        assert worker.call([float("inf")]) == "inf"
        assert worker.call([signal.SIGINT]) == "2"
    for message in (b"NaN", b"1e999", b'"\\ud800"', b"[" * 10**5, b"9" * 10**5, b"\xff", b"", b'{"a":Infinity}'):
        with pytest.raises(NotPlain):
            loads(message)
    for marked in (
        {"$pickle": 1},
        {"$tuple": 3},
        {"$bytes": "?"},
        {"$float": "nan"},
        {"$dict": [1]},
        {"$a": 1, "b": 2},
    ):
        with pytest.raises(NotPlain):
            unmark(marked)


def test_a_worker_keeps_its_process(sandbox: Sandbox) -> None:
    source = "count = 0\ndef f(n, *, k=1):\n    global count\n    count += n * k\n    return count"
    with sandbox.worker(source, "f") as worker:
        assert [worker.call([1]), worker.call([2], {"k": 3}), worker.call([0])] == [1, 7, 7]
        reply = worker.ask([1])
        assert (reply.value, reply.stdout) == (8, "")
    assert worker.call([5]) == 5  # closed: another process, from the start
    worker.close()


def test_coroutines_are_run(sandbox: Sandbox) -> None:
    source = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return await asyncio.to_thread(abs, x)"
    with sandbox.worker(source, "f") as worker:
        assert [worker.call([-1]), worker.call([-2])] == [1, 2]


def test_what_code_finds(sandbox: Sandbox) -> None:
    source = "def f(x: Nowhere) -> Any:\n    return helper(x) + FACTOR + len(os.path.join('a', 'b')) + sqrt(4.0)"
    with sandbox.worker(
        source,
        "f",
        names={"FACTOR": 10},
        modules=[("os", "os", None), ("sqrt", "math", "sqrt"), ("missing", "no_such_module", None)],
        helpers=["def helper(x):\n    return x * FACTOR", "def broken(x=undefined): ..."],
    ) as worker:
        assert worker.call([2]) == 35.0


def test_errors_say_what_and_where(sandbox: Sandbox) -> None:
    source = "def inner(x):\n    return 1 / x\ndef f(x):\n    print('so far')\n    return inner(x)"
    with sandbox.worker(source, "f") as worker:
        assert worker.call([2]) == 0.5
        with pytest.raises(SandboxError) as caught:
            worker.call([0])
        assert (caught.value.kind, caught.value.type, caught.value.message) == (
            "exception",
            "ZeroDivisionError",
            "division by zero",
        )
        assert caught.value.lines == ((5, "f"), (2, "inner"))
        assert (caught.value.line, caught.value.stdout) == (2, "so far\n")
        assert str(caught.value) == "ZeroDivisionError: division by zero (line 2)"
        assert worker.call([1]) == 1.0
        with pytest.raises(SandboxError, match="TypeError"):
            worker.call([1, 2, 3])
    for source, match in (("def f(:", "SyntaxError"), ("x = 1", "KeyError"), ("raise SystemExit(0)", "SystemExit")):
        with sandbox.worker(source, "f") as worker, pytest.raises(SandboxError, match=match):
            worker.call()
    assert {"timeout", "memory", "unavailable"} < set(KINDS)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("while True: pass", "timeout"),
        ("return bytearray(3 << 30)", "memory"),
        ("import os; os._exit(0)", "crashed"),
        ("return 'x' * (2 << 20)", "output_too_large"),
        ("return open('/etc/passwd').read()", "refused"),
        ("return undefined", "exception"),
        ("import os; os.write(4, b'\\0\\0\\0\\1?'); os._exit(0)", "protocol"),
    ],
)
def test_every_failure_has_a_kind_and_the_next_call_works(body: str, kind: str, sandbox: Sandbox) -> None:
    with sandbox.worker(f"def f(bad):\n    if not bad: return 'fine'\n    {body}", "f") as worker:
        assert worker.call([False]) == "fine"
        with pytest.raises(SandboxError) as caught:
            worker.call([True], timeout_s=2.0 if kind == "timeout" else 20.0)
        assert caught.value.kind == kind
        assert worker.call([False]) == "fine"
        with sandbox.worker(f"def f(bad):\n    {body}", "f", timeout_s=2.0 if kind == "timeout" else None) as other:
            with pytest.raises(SandboxError) as caught:
                other.call([True])
            assert caught.value.kind == kind


def test_programs(sandbox: Sandbox) -> None:
    done = sandbox.run(
        "import sys\nprint(word)\nprint('e', file=sys.stderr)\nresult = (word, 1)", inputs={"word": "hi"}
    )
    assert (done.result, done.stdout, done.stderr, done.error) == (("hi", 1), "hi\n", "e\n", None)
    failed = sandbox.run("print('so far')\nraise ValueError('no')")
    assert failed.error is not None
    assert (failed.result, failed.stdout, failed.error.type, failed.error.line) == (None, "so far\n", "ValueError", 2)
    printed = sandbox.run("print('x' * 10**6)").stdout
    assert len(printed) < 21_000
    assert "more characters were dropped" in printed
    files = (
        "import os\nopen('a', 'w').write('x' * 1000)\nos.mkdir('d')\nos.rename('a', 'd/a')\nresult = os.listdir('.')"
    )
    assert sandbox.run(files).result == ["d"]
    assert sandbox.run("import os\nresult = os.listdir('.')").result == []
    scratch = (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d, tempfile.TemporaryFile() as f:\n    f.write(b'x')"
    )
    assert sandbox.run(scratch).error is None
    libraries = (
        "import sqlite3, xml.dom.minidom, email.mime.text, zoneinfo, decimal, hashlib\nresult = hashlib.md5().name"
    )
    assert sandbox.run(libraries).result == "md5"


def test_imports_are_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_helpers.py").write_text("def triple(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Sandbox(imports=("own_helpers", "no_such_module")) as own:
        assert list(own.start()) == ["no_such_module"]
        assert own.run("import own_helpers\nresult = own_helpers.triple(2)").result == 6
        refused = own.run(f"open({str(tmp_path / 'own_helpers.py')!r})").error
        assert refused is not None
        assert refused.kind == "refused"
    with Sandbox(readable=[str(tmp_path)]) as own:
        tmp_path.chmod(0o755)
        for folder in tmp_path.parents:
            if folder.stat().st_uid == os.geteuid() and "pytest" in str(folder):
                folder.chmod(folder.stat().st_mode | 0o011)
        assert own.run(f"result = open({str(tmp_path / 'own_helpers.py')!r}).read()").result is not None


def test_files_are_limited_and_reported() -> None:
    fill = "import time\nfor i in range(99):\n  open(str(i), 'wb').write(bytes(1 << 20))\n  time.sleep(.02)"
    with Sandbox(limits=Limits(disk_mb=5)) as own:
        error = own.run(fill).error
    assert error is not None
    if availability().separate_users and error.kind == "exception":
        assert "No space left" in error.message
    else:
        assert error.kind == "output_too_large"


def test_where_there_is_no_sandbox() -> None:
    can = replace(availability(), usable=False, reasons=("no Landlock",), bubblewrap=None)
    with mock.patch("optograph.sandbox.pool.availability", return_value=can):
        with pytest.raises(SandboxError, match="no Landlock") as caught:
            Sandbox()
        assert caught.value.kind == "unavailable"
        with Sandbox(allow_unsandboxed=True) as own:
            assert not own.locked
            assert own.run("result = open('/proc/self/status').read()").result
        with pytest.raises(UserError, match="install bubblewrap"):
            Sandbox(allow_unsandboxed=True, bubblewrap=True)
    assert availability().landlock >= 1


def test_bubblewrap_is_put_around_the_zygote() -> None:
    settings: Any = {"paths": ["/lib/p"], "search": ["/my/project"], "readable": ["/r"], "root": "/tmp/root"}
    with mock.patch("os.geteuid", return_value=1000):
        command = wrapped("/usr/bin/bwrap", ["python", "-c", "x"], settings, "/home/package")
    assert command[0] == "/usr/bin/bwrap"
    assert command[-4:] == ["--", "python", "-c", "x"]
    words = " ".join(command)
    for part in ("--unshare-net", "--unshare-pid", "--unshare-user", "--ro-bind-try /lib/p /lib/p", "--proc /proc"):
        assert part in words
    assert "--bind /tmp/root /tmp/root" in words
    assert "--bind /lib" not in words
    assert "--cap-add" not in words
    with mock.patch("os.geteuid", return_value=0):
        as_root = " ".join(wrapped("bwrap", ["python"], settings, "/home/package"))
    assert "--cap-add CAP_SETUID" in as_root
    assert "--unshare-user" not in as_root


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Limits(seconds=0), "above 0, got 0"),
        (lambda: Limits(memory_mb=1.5), "whole number"),  # type: ignore[arg-type]
        (lambda: Limits(disk_mb=2**40), "at most"),
        (lambda: Sandbox(imports="numpy"), "names of modules"),
        (lambda: Sandbox(imports=["a-b"]), "names of modules"),
        (lambda: Sandbox(readable=["/"]), "absolute paths"),
        (lambda: Sandbox(readable=["x"]), "absolute paths"),
        (lambda: Sandbox(spare=0), "from 1 to 64"),
        (lambda: Sandbox().worker(3, "f"), "source must be text"),  # type: ignore[arg-type]
        (lambda: Sandbox().run(3), "source must be text"),  # type: ignore[arg-type]
        (lambda: Sandbox().run("", timeout_s=-1), "above 0, got -1"),
        (lambda: Sandbox().worker("", "f", timeout_s=True), "above 0, got True"),
        (lambda: Sandbox().worker("", "f", names={"x": object()}), "no plain data"),
    ],
)
def test_what_is_refused(make: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        make()


def test_a_worker_is_a_context(sandbox: Sandbox) -> None:
    with sandbox.worker("def f():\n    return 1", "f") as worker:
        assert isinstance(worker, Worker)
        assert worker.call() == 1
