"""Every served adapter is checked, or it is on record that it could not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.jobs.training.records import STATE, AdapterRecord, TrainState
from optograph.jobs.training.section import ServerSection
from optograph.jobs.training.serving import Serving, recorded_probes
from optograph.jobs.training.store import AdapterStore
from optograph.serving.vllm import ServedAdapterError
from optograph.serving.vllm.adapters import Probe
from optograph.storage import Journal
from tests.jobs.training.toys import ToyServer, write_adapter

TOLERANCE = 1e-3


class Loop:
    """An adapter of skill 0.5 in a run, as the journal knows it."""

    def __init__(self, folder: Path, made: str, probe: Probe | None) -> None:
        self.store = AdapterStore(folder)
        self.hash = self.store.adopt(write_adapter(self.store.draft("one"), 0.5))
        journal = Journal.memory()
        batch = journal.batch()
        payload = None if probe is None else batch.put(probe.to_json())
        record = AdapterRecord.model_validate({"name": "policy", "made": made, "round": 1, "probe": payload})
        batch.save_state(STATE, TrainState(adapters={self.hash: record}).model_dump(mode="json"))
        batch.commit()
        self.server = ToyServer([])
        self.serving = Serving(lambda: self.server, self.store, recorded_probes(journal), TOLERANCE)


@pytest.mark.parametrize("made", ["given", "sft", "trained", "extrapolated"])
def test_an_adapter_without_a_probe_is_refused(tmp_path: Path, made: str) -> None:
    loop = Loop(tmp_path, made, None)
    with pytest.raises(ServedAdapterError, match="its probe is missing"):
        loop.serving.model(loop.hash)
    assert loop.server.loaded == {}
    assert loop.serving.ready(loop.hash) is None


def test_one_that_does_nothing_yet_needs_none(tmp_path: Path) -> None:
    loop = Loop(tmp_path, "fresh", None)
    loop.serving.model(loop.hash)
    assert loop.serving.difference(loop.hash) is None
    assert loop.serving.not_told_apart(loop.hash) == ("base",)


def test_it_is_kept_whom_the_probe_does_not_tell_apart(tmp_path: Path) -> None:
    loop = Loop(tmp_path, "trained", Probe((1, 2), (3,), (-0.5,), {"start": (-0.501,), "base": (-0.6,)}))
    loop.serving.model(loop.hash)
    assert loop.serving.difference(loop.hash) == 0.0
    assert loop.serving.not_told_apart(loop.hash) == ("start",)


def test_the_usual_tolerance() -> None:
    assert ServerSection(device="cpu").allowed_difference == ServerSection(dtype="float32").allowed_difference == 1e-3
    assert ServerSection(device="gpu").allowed_difference == 0.5
    assert ServerSection(tolerance=0.2).allowed_difference == 0.2
