"""Batches: all or nothing, in order, from any thread and loop, and read again at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from optograph.errors import StorageError, UserError
from optograph.storage import CallRow, CandidateRow, DecisionRow, Journal, content_hash

MakeCall = Callable[[str, str, str | None], CallRow]
MakeDecision = Callable[[int], DecisionRow]


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    made = Journal.open(tmp_path) if request.param == "file" else Journal.memory()
    request.addfinalizer(made.close)
    return made


def test_nothing_is_there_before_the_commit_and_all_after(journal: Journal, make_call: MakeCall) -> None:
    batch = journal.batch()
    digest = batch.put({"a": 1})
    batch.add_call(make_call("k", digest, digest))
    batch.set_meta("name", [1])
    batch.save_state("loop", {"s": 1})
    batch.add_event("tick", n=1)
    assert journal.find_call("k") is None
    assert journal.get_meta("name") is None
    with pytest.raises(StorageError, match="not in the journal"):
        journal.get(digest)
    assert batch.commit() == [1, 1, 1]
    assert journal.find_call("k") is not None
    assert journal.get(digest) == {"a": 1}
    assert (journal.get_meta("name"), journal.load_state("loop"), journal.events("tick")) == ([1], {"s": 1}, [{"n": 1}])
    with pytest.raises(UserError, match="committed before"):
        batch.commit()


def test_a_batch_that_cannot_be_json_adds_nothing(journal: Journal, make_call: MakeCall) -> None:
    batch = journal.batch()
    with pytest.raises(ValueError, match="not JSON compliant"):
        batch.put(float("nan"))
    with pytest.raises(TypeError):
        batch.put(object())
    batch.add_call(make_call("k", "r", None))
    assert batch.commit() == [1]


def test_a_candidate_is_written_once(journal: Journal) -> None:
    row = CandidateRow(id="c", values="v")
    batch = journal.batch()
    batch.add_candidate(row)
    batch.add_candidate(row)
    assert batch.commit() == [1, 1]
    journal.add_candidate(row)
    assert len(journal.candidates()) == 1


def test_later_changes_of_an_object_are_not_seen(journal: Journal) -> None:
    data = {"a": [1]}
    batch = journal.batch()
    digest = batch.put(data)
    data["a"].append(2)
    batch.commit()
    assert digest == content_hash({"a": [1]})
    assert journal.get(digest) == {"a": [1]}


def test_large_and_small_payloads_come_back(journal: Journal) -> None:
    for data in ("", 0, None, "é" * 3000, {"x": "y" * 1_000_000}, ["z" * 4093], "\ud800"):
        assert journal.get(journal.put(data)) == data


def test_one_row_methods_work_on_a_running_loop(journal: Journal, make_call: MakeCall) -> None:
    async def work() -> None:
        assert journal.add_call(make_call("k", "r", "c")) == 1
        assert journal.find_call("k") is not None

    asyncio.run(work())


def test_threads_and_a_loop_commit_at_once(journal: Journal, make_call: MakeCall, make_decision: MakeDecision) -> None:
    numbers: list[int] = []

    def in_thread(name: int) -> None:
        for index in range(8):
            batch = journal.batch()
            key = f"t{name}/{index}"
            batch.add_call(make_call(key, batch.put([key, "q"]), batch.put([key, "a"])))
            numbers.extend(batch.commit())
            assert journal.find_call(key) is not None

    async def in_task(name: int) -> None:
        for index in range(8):
            batch = journal.batch()
            key = f"a{name}/{index}"
            batch.add_decision(make_decision(index))
            batch.add_call(make_call(key, batch.put([key, "q"]), batch.put([key, "a"])))
            numbers.append((await batch.acommit())[1])
            assert journal.find_call(key) is not None

    async def tasks() -> None:
        await asyncio.gather(*(in_task(name) for name in range(32)))

    threads = [threading.Thread(target=in_thread, args=(name,)) for name in range(64)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 96 * 8 + 1))
    calls = journal.calls()
    assert len(calls) == 96 * 8
    for row in calls:
        assert row.completion is not None
        assert journal.get(row.completion) == [row.key, "a"]
    for name in range(64):  # each committer's records stand in the order of its commits
        own = [row.key for row in calls if row.key.startswith(f"t{name}/")]
        assert own == [f"t{name}/{index}" for index in range(8)]
    assert len(journal.decisions()) == 32 * 8


def test_a_cancelled_wait_does_not_take_the_batch_back(journal: Journal, make_call: MakeCall) -> None:
    async def work() -> None:
        batch = journal.batch()
        batch.add_call(make_call("k", "r", "c"))
        task = asyncio.ensure_future(batch.acommit())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
            raise asyncio.CancelledError  # the journal in memory was faster

    asyncio.run(work())
    journal.add_call(make_call("later", "r", "c"))
    assert [row.key for row in journal.calls()] == ["k", "later"]


def test_a_loop_that_ended_does_not_stop_the_writer(tmp_path: Path, make_call: MakeCall) -> None:
    with Journal.open(tmp_path) as journal:

        async def work(key: str) -> None:
            batch = journal.batch()
            batch.add_call(make_call(key, "r", "c"))
            asyncio.ensure_future(batch.acommit())  # noqa: RUF006 - nobody waits, on purpose
            await asyncio.sleep(0)

        for index in range(20):
            asyncio.run(work(f"k{index}"))
        assert journal.add_call(make_call("last", "r", "c")) == 21


def test_a_closed_journal_refuses_to_write_and_read(tmp_path: Path, make_call: MakeCall) -> None:
    journal = Journal.open(tmp_path)
    batch = journal.batch()
    batch.add_call(make_call("k", "r", "c"))
    journal.close()
    with pytest.raises(StorageError, match="closed"):
        batch.commit()
    with pytest.raises(StorageError, match="closed"):
        journal.find_call("k")

    async def later() -> None:
        await journal.batch().acommit()

    with pytest.raises(StorageError, match="closed"):
        asyncio.run(later())


def test_a_closed_journal_is_one_file(tmp_path: Path, make_call: MakeCall) -> None:
    with Journal.open(tmp_path) as journal:
        for index in range(50):
            journal.add_call(make_call(f"k{index}", "r", "c"))
            journal.find_call(f"k{index}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.db", "writer.lock"]


def test_an_abandoned_journal_closes_itself(tmp_path: Path, make_call: MakeCall) -> None:
    journal = Journal.open(tmp_path)
    journal.add_call(make_call("k", "r", "c"))
    del journal
    with Journal.open(tmp_path) as again:
        assert len(again.calls()) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_cannot_use_its_parents_journal(tmp_path: Path, make_call: MakeCall) -> None:
    journal = Journal.open(tmp_path)
    journal.add_call(make_call("k", "r", "c"))
    child = os.fork()
    if child == 0:
        status = 0
        for use in (journal.calls, lambda: journal.put(1)):
            try:
                use()
            except StorageError as error:
                status += "parent process" in str(error)
        journal.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert journal.add_call(make_call("k2", "r", "c")) == 2
    journal.close()
    with Journal.read(tmp_path) as view:
        assert len(view.calls()) == 2
