"""The journal keeps what it is given, in order, and says when it cannot."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from optograph.errors import StorageError, UserError
from optograph.storage import CallRow, CandidateRow, DecisionRow, EvaluationRow, Journal, canonical_json, content_hash
from optograph.storage.schema import row_crc, set_meta


def call(key: str, completion: str | None = "h") -> CallRow:
    return CallRow(key=key, context={"role": "task"}, identity={}, request="r", completion=completion)


def evaluation(score: float | None, example: str = "e1") -> EvaluationRow:
    feedback = None if score is None else {"score": score, "text": ""}
    return EvaluationRow(candidate="c", split="dev", example=example, feedback=feedback)


def test_payloads_are_stored_once_and_checked() -> None:
    with Journal.memory() as journal:
        first, second = journal.put({"a": [1, "é"]}), journal.put({"a": [1, "é"]})
        assert first == second == content_hash({"a": [1, "é"]})
        assert journal.get(first) == {"a": [1, "é"]}
        with pytest.raises(StorageError, match="not in the journal"):
            journal.get("0" * 64)


def test_a_lone_surrogate_is_stored_and_read_again() -> None:
    with Journal.memory() as journal:
        journal.add_event("odd", text="\ud800")
        assert journal.events("odd") == [{"text": "\ud800"}]
        assert journal.get(journal.put("\ud800")) == "\ud800"


def test_canonical_json_refuses_nan_and_ignores_key_order() -> None:
    assert canonical_json({"b": 1, "a": 2}) == '{"a":2,"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_failed_call_is_no_answer(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add_call(call("k", None))
        assert journal.find_call("k") is None
        journal.add_call(call("k", "h1"))
        found = journal.find_call("k")
        assert found is not None
        assert found.completion == "h1"
        assert len(journal.calls()) == 2


def test_a_missing_score_is_no_evaluation() -> None:
    with Journal.memory() as journal:
        journal.add_evaluation(evaluation(None))
        assert journal.find_evaluation("c", "dev", "e1", 0) is None
        journal.add_evaluation(evaluation(0.5))
        found = journal.find_evaluation("c", "dev", "e1", 0)
        assert found is not None
        assert found.feedback == {"score": 0.5, "text": ""}
        assert journal.find_evaluation("c", "dev", "e1", 1) is None


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add_candidate(CandidateRow(id="c", values=journal.put({"x": 1})))
        journal.add_candidate(CandidateRow(id="c", values=journal.put({"x": 1})))
        journal.add_decision(
            DecisionRow(step=1, optimizer="o", candidate="c", incumbent=None, verdict="seed", reason="")
        )
        journal.save_state("optimizer", {"step": 1})
        journal.save_state("optimizer", {"step": 2})
        journal.add_event("start", pid=1)
        journal.close()
        journal.close()
    with Journal.open(tmp_path) as journal:
        assert [row.id for row in journal.candidates()] == ["c"]
        assert [row.verdict for row in journal.decisions()] == ["seed"]
        assert journal.load_state("optimizer") == {"step": 2}
        assert journal.load_state("other") is None
        assert journal.events("start") == [{"pid": 1}]


def test_a_second_process_is_told_who_writes(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom optograph.storage import Journal\nfrom optograph.errors import StorageError\n"
        "try:\n    Journal.open(sys.argv[1])\nexcept StorageError as error:\n    print(error)\n"
    )
    with Journal.open(tmp_path):
        import os

        seen = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert f"in use by process {os.getpid()}" in seen.stdout
    seen = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert seen.stdout == ""


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / "journal.db")
    set_meta(db, "schema", "99")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match=r"schema version 99.*use the program version that wrote it"):
        Journal.open(tmp_path)
    with pytest.raises(StorageError, match="schema version 99"):
        Journal.read(tmp_path)


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "writer.lock").mkdir()
    with pytest.raises(StorageError, match="cannot write in the run directory"):
        Journal.open(tmp_path)


def test_threads_share_one_journal(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:

        def work(number: int) -> None:
            for index in range(25):
                journal.add_call(call(f"{number}/{index}"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({row.key for row in journal.calls()}) == 200


def test_named_values_are_replaced_and_survive(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert journal.get_meta("status") is None
        journal.set_meta("status", {"state": "running"})
        journal.set_meta("status", {"state": "stopped", "é": [1]})
    with Journal.read(tmp_path) as view:
        assert view.get_meta("status") == {"state": "stopped", "é": [1]}
        assert view.get_meta("other") is None
    with Journal.memory() as journal, pytest.raises(UserError, match=r"'journal\.heads'"):
        journal.set_meta("journal.heads", 1)


def test_lives_and_seconds_add_up(tmp_path: Path) -> None:
    spent = 0.0
    for life in (1, 2, 3):
        with Journal.open(tmp_path) as journal:
            assert journal.lives == life
            assert journal.active_s >= spent
            time.sleep(0.02)
            spent += 0.02
            assert journal.active_s >= spent
        closed = journal.active_s
        assert journal.active_s == closed
        with Journal.read(tmp_path) as view:
            assert view.lives == life
            assert view.active_s == pytest.approx(closed, abs=1e-5)
    with Journal.memory() as journal:
        assert journal.lives == 1
        assert 0 <= journal.active_s < 60
        assert journal.directory is None


@pytest.mark.parametrize("days", [-1, 1])
def test_the_clock_of_the_wall_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    with Journal.open(tmp_path) as journal:
        journal.save_state("loop", 1)
        journal.add_event("tick", n=1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)
    with Journal.open(tmp_path) as journal:
        journal.save_state("loop", 2)
        journal.add_event("tick", n=2)
        assert journal.active_s < 60
    with Journal.open(tmp_path) as journal:
        assert journal.load_state("loop") == 2
        assert [one["n"] for one in journal.events("tick")] == [1, 2]


def test_rows_written_before_new_fields_came_load(tmp_path: Path) -> None:
    with Journal.memory() as journal:
        journal.add_call(call("k", "h"))
        found = journal.find_call("k")
        assert found is not None
        assert (found.model, found.usd, found.attempts, found.finish) == ("", None, 1, "")
        journal.add_call(
            CallRow(**{**found.model_dump(), "usd": 0.25, "finish": "length", "attempts": 3, "model": "m"})
        )
        assert journal.calls()[1].usd == 0.25
        journal.add_evaluation(evaluation(1.0))
        assert journal.evaluations()[0].truncated == 0


def test_rows_with_a_field_that_was_dropped_load(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add_evaluation(evaluation(1.0))
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        seq, key, body = db.execute("SELECT seq, key, body FROM evaluations").fetchone()
        for name, value in (("usd", None), ("price", 0.5)):
            text = json.dumps({**json.loads(body), name: value})
            crc = row_crc("evaluations", seq, key.encode(), text.encode())
            db.execute("UPDATE evaluations SET body=?, crc=?", (text, crc))
            with Journal.open(tmp_path) as journal:
                if name == "price":
                    with pytest.raises(StorageError, match="a newer program wrote it"):
                        journal.evaluations()
                else:
                    assert journal.evaluations() == [evaluation(1.0)]
                    assert journal.find_evaluation("c", "dev", "e1", 0) == evaluation(1.0)
                    assert not journal.damage


def test_odd_text_comes_back_as_it_was() -> None:
    odd = ["\ud800", "\x00", "é\n", "😀", '"', "key\\ud800"]
    with Journal.memory() as journal:
        for text in odd:
            journal.add_call(CallRow(key=text, context={"t": text}, identity={}, request="r", completion=text))
            found = journal.find_call(text)
            assert found is not None
            assert (found.completion, found.context) == (text, {"t": text})
