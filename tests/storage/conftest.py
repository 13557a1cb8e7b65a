"""A journal with known content, and the comparison of what is read with what was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import StorageError
from optograph.storage import CallRow, CandidateRow, Damage, DecisionRow, EvaluationRow, Journal

BATCHES = 40


@dataclass
class Content:
    """What was written, as plain data."""

    calls: dict[str, str] = field(default_factory=dict)
    payloads: dict[str, Any] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def write(self, journal: Journal) -> None:
        """Fill a journal with batches of all kinds of records."""
        for number in range(BATCHES):
            self._write_batch(journal, number)

    def _write_batch(self, journal: Journal, number: int) -> None:
        batch = journal.batch()
        asked = {"question": number, "text": "x" * (50 * number)}
        answer = {"answer": number, "text": f"y{number}" * (1500 if number % 20 == 0 else 5)}
        request, completion = batch.put(asked), batch.put(answer)
        self.payloads |= {request: asked, completion: answer}
        batch.add_call(call(f"k{number}", request, completion))
        self.calls[f"k{number}"] = completion
        batch.add_candidate(CandidateRow(id=f"c{number // 10}", values=request))
        self.scores[number] = number / BATCHES
        batch.add_evaluation(
            EvaluationRow(
                candidate=f"c{number // 10}",
                split="dev",
                example=f"e{number}",
                feedback={"score": number / BATCHES},
                output=completion,
            )
        )
        if number % 5 == 0:
            batch.add_decision(decision(number))
            batch.save_state("loop", {"step": number, "text": "s" * 3000})
            batch.add_event("tick", step=number)
        if number == 0:
            batch.set_meta("job", {"text": "j" * 6000})
        batch.commit()

    def check(self, journal: Journal) -> int:
        """Check that every read is right or absent; returns the number of calls that are there."""
        found = 0
        for key, completion in self.calls.items():
            row = journal.find_call(key)
            if row is not None:
                assert row.completion == completion
                found += 1
        for number, score in self.scores.items():
            one = journal.find_evaluation(f"c{number // 10}", "dev", f"e{number}", 0)
            assert one is None or one.feedback == {"score": score}
            assert one is None or one.output is None or journal.get(one.output) == self.payloads[one.output]
        for digest, data in self.payloads.items():
            try:
                assert journal.get(digest) == data
            except StorageError as error:
                assert "damaged" in str(error) or "not in the journal" in str(error)
        assert journal.get_meta("job") in (None, {"text": "j" * 6000})
        assert {row.key for row in journal.calls()} <= set(self.calls)
        self._check_derived(journal)
        return found

    def _check_derived(self, journal: Journal) -> None:
        state, decisions, ticks = journal.load_state("loop"), journal.decisions(), journal.events("tick")
        if state is None:
            assert not decisions
            assert not ticks
        else:
            steps = list(range(0, state["step"] + 1, 5))
            assert [row.step for row in decisions] == steps
            assert [tick["step"] for tick in ticks] == steps


def call(key: str, request: str, completion: str | None) -> CallRow:
    """Return a call row."""
    return CallRow(key=key, context={"role": "task"}, identity={}, request=request, completion=completion)


def decision(step: int) -> DecisionRow:
    """Return a decision row."""
    return DecisionRow(step=step, optimizer="o", candidate="c", incumbent=None, verdict="accepted", reason="r")


@dataclass
class Kept:
    """Directories as a closed journal, a killed process, and a kill after a checkpoint leave them."""

    content: Content
    closed: Path
    killed: Path
    checkpointed: Path

    def copy(self, kind: str, to: Path) -> Path:
        """Return a fresh copy of one of them."""
        shutil.rmtree(to, ignore_errors=True)
        return shutil.copytree(getattr(self, kind), to)

    def read_twice(self, directory: Path) -> tuple[int, Damage]:
        """Check a directory by opening it, and again what that left; returns the calls found, and the damage."""
        with Journal.open(directory) as journal:
            found = self.content.check(journal)
            damage = journal.damage
        with Journal.open(directory) as journal:
            assert self.content.check(journal) == found
            assert journal.damage == damage
        return found, damage


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return journals with known content."""
    root = tmp_path_factory.mktemp("kept")
    content = Content()
    with Journal.open(root / "closed") as journal:
        content.write(journal)
        shutil.copytree(root / "closed", root / "killed")  # a kill leaves just what the files hold
        writer = journal._writer
        assert writer is not None
        writer._store.checkpoint("PASSIVE")
        shutil.copytree(root / "closed", root / "checkpointed")
    return Kept(content, root / "closed", root / "killed", root / "checkpointed")


@pytest.fixture
def make_call() -> Callable[[str, str, str | None], CallRow]:
    """Return the maker of call rows."""
    return call


@pytest.fixture
def make_decision() -> Callable[[int], DecisionRow]:
    """Return the maker of decision rows."""
    return decision
