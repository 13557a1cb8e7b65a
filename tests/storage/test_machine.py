"""A journal against a plain dictionary, through any order of batches, kills, reopenings and flipped bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from optograph.errors import StorageError
from optograph.storage import CallRow, DecisionRow, Journal

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(max_size=20) | st.just("long " * 2000)


class JournalMachine(RuleBasedStateMachine):
    """The model: what is committed; after damage it forgets only what the journal says is absent."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="journal-machine-"))
        self.number = 0
        self.calls: dict[str, str] = {}
        self.meta: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.decisions: list[int] = []
        self.pending: list[tuple[str, str, str]] = []

    @initialize()
    def start(self) -> None:
        self.directory = self.root / "life-0"
        self.journal = Journal.open(self.directory)
        self.batch = self.journal.batch()

    @rule(text=TEXTS)
    def add_call(self, text: str) -> None:
        self.number += 1
        key, digest = f"k{self.number}", self.batch.put(text)
        self.batch.add_call(CallRow(key=key, context={"t": text}, identity={}, request=digest, completion=digest))
        self.pending.append(("call", key, text))

    @rule(name=NAMES, text=TEXTS)
    def set_meta(self, name: str, text: str) -> None:
        self.batch.set_meta(name, text)
        self.pending.append(("meta", name, text))

    @rule(name=NAMES, text=TEXTS)
    def save_state(self, name: str, text: str) -> None:
        self.batch.save_state(name, text)
        self.number += 1
        self.batch.add_decision(
            DecisionRow(step=self.number, optimizer="o", candidate=name, incumbent=None, verdict="v", reason=text)
        )
        self.pending += [("state", name, text), ("decision", str(self.number), text)]

    @rule()
    def commit(self) -> None:
        self.batch.commit()
        for kind, name, text in self.pending:
            if kind == "decision":
                self.decisions.append(int(name))
            else:
                {"call": self.calls, "meta": self.meta, "state": self.states}[kind][name] = text
        self._begin()

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal.open(self.directory)
        assert not self.journal.damage or self.journal.damage.derived_rebuilt
        self._begin()

    @rule()
    def kill(self) -> None:
        self._open_copy()
        self._begin()

    @precondition(lambda self: self.calls)
    @rule(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), log=st.booleans(), closed=st.booleans())
    def flip(self, place: float, mask: int, log: bool, closed: bool) -> None:
        if closed:
            self.journal.close()
        self._open_copy("journal.db-wal" if log else "journal.db", place, mask)
        self._begin()
        for key, text in list(self.calls.items()):
            row = self.journal.find_call(key)
            if row is None or not self._has(row.request):
                del self.calls[key]
            else:
                assert row.context == {"t": text}
        self.meta = {name: text for name, text in self.meta.items() if self.journal.get_meta(name) is not None}
        if not self.journal.decisions():
            self.states, self.decisions = {}, []

    @invariant()
    def reads_are_right(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert {row.key for row in self.journal.calls()} >= set(self.calls)
        for key, text in self.calls.items():
            row = self.journal.find_call(key)
            assert row is not None
            assert self.journal.get(row.request) == text
        for name in ("a", "b", "c"):
            assert self.journal.get_meta(name) == self.meta.get(name)
            assert self.journal.load_state(name) == self.states.get(name)
        assert [row.step for row in self.journal.decisions()] == self.decisions

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
        shutil.rmtree(self.root)

    def _begin(self) -> None:
        self.batch = self.journal.batch()
        self.pending = []

    def _has(self, digest: str) -> bool:
        try:
            self.journal.get(digest)
        except StorageError:
            return False
        return True

    def _open_copy(self, name: str = "", place: float = 0, mask: int = 0) -> None:
        """Go on from the files as they are at this instant, which is what a killed process leaves."""
        copy = self.root / f"life-{self.number}-{len(list(self.root.iterdir()))}"
        shutil.copytree(self.directory, copy)
        self.journal.close()
        file = copy / name
        if file.is_file() and file.stat().st_size:
            data = bytearray(file.read_bytes())
            data[int(place * len(data))] ^= mask
            file.write_bytes(data)
        self.directory = copy
        self.journal = Journal.open(copy)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
