"""Looking at a journal while another process, or nobody, writes it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from optograph.errors import StorageError
from optograph.storage import CallRow, Journal

MakeCall = Callable[[str, str, str | None], CallRow]

WRITE = """
import sys
from optograph.storage import CallRow, Journal
with Journal.open(sys.argv[1]) as journal:
    print("open", flush=True)
    for index in range(400):
        batch = journal.batch()
        digest = batch.put({"n": index, "text": "x" * 500})
        batch.add_call(CallRow(key=f"k{index}", context={}, identity={}, request=digest, completion=digest))
        batch.add_event("tick", n=index)
        batch.commit()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_there_must_be_a_journal(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no journal in"):
        Journal.read(tmp_path)
    (tmp_path / "journal.db").write_bytes(b"")
    with pytest.raises(StorageError, match="there is no journal in"):
        Journal.read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db"]


def test_a_view_refuses_to_write_and_leaves_no_trace(tmp_path: Path, make_call: MakeCall) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add_call(make_call("k", "r", "c"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with Journal.read(tmp_path) as view:
        assert view.find_call("k") is not None
        assert view.directory == tmp_path
        for write in (view.batch, lambda: view.put(1), lambda: view.add_event("e"), lambda: view.set_meta("a", 1)):
            with pytest.raises(StorageError, match="open for reading only"):
                write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_view_sees_what_a_later_writer_adds(tmp_path: Path, make_call: MakeCall) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add_call(make_call("k0", "r", "c"))
    with Journal.read(tmp_path) as view:
        assert len(view.calls()) == 1
        for life in range(1, 4):
            with Journal.open(tmp_path) as journal:
                journal.add_call(make_call(f"k{life}", "r", "c"))
                assert len(view.calls()) == life + 1
                assert view.lives == life + 1
            assert len(view.calls()) == life + 1


def test_a_view_beside_a_busy_writer_of_another_process(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "open\n"
    done = threading.Event()
    output = writer.stdout

    def wait() -> None:
        output.readline()
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    seen = 0
    with Journal.read(tmp_path) as view:
        while not done.is_set():
            calls = view.calls()
            assert [row.key for row in calls] == [f"k{index}" for index in range(len(calls))]
            assert len(calls) >= seen
            seen = len(calls)
            ticks = view.events("tick")
            assert [one["n"] for one in ticks] == list(range(len(ticks)))
            if calls:
                assert view.get(calls[-1].request)["n"] == seen - 1
        assert len(view.calls()) == 400
        with pytest.raises(StorageError, match=f"in use by process {writer.pid}"):
            Journal.open(tmp_path)
        writer.stdin.close()
        assert writer.wait() == 0
        assert len(view.calls()) == 400
    writer.stdout.close()
