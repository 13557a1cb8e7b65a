"""The check of a served adapter against a server that says what a test wants: near is not enough."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from optograph.serving.vllm.adapters import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Probe,
    ServedAdapterError,
    adapter_hash,
    served_name,
)
from optograph.serving.vllm.checking import check_served
from optograph.serving.vllm.control import Control, ServedModel


class Scripted(Control):
    """Lists one adapter, and gives fixed log-probabilities by name."""

    def __init__(self, name: str, folder: Path, says: Mapping[str, Sequence[float]]) -> None:
        super().__init__("http://127.0.0.1:9", "key")
        self.listed = [ServedModel("base", None, "base"), ServedModel(name, "base", str(folder))]
        self.says = says

    def models(self) -> list[ServedModel]:
        """List."""
        return self.listed

    def logprobs(self, model: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> list[float]:
        """Give what was set."""
        return list(self.says[model])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter with one tensor."""
    header = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    return tmp_path


def check(folder: Path, served: Sequence[float], others: Mapping[str, tuple[float, ...]], tolerance: float) -> float:
    """Check an adapter whose trainer gave -1.0 for each token."""
    name = served_name(adapter_hash(folder))
    control = Scripted(name, folder, {name: served, "base": (-9.0,) * len(served)})
    try:
        probe = Probe((1,), tuple(range(len(served))), (-1.0,) * len(served), others)
        return check_served(control, "base", name, probe, tolerance)
    finally:
        control.close()


def test_within_the_tolerance_but_nearer_to_another_is_caught(folder: Path) -> None:
    served = (-1.4, -1.4, -1.4, -1.4)
    other = (-2.1, -1.4, -1.4, -1.4)
    assert check(folder, served, {}, 0.5) == pytest.approx(0.4)
    with pytest.raises(ServedAdapterError, match="as near to those of 'start'"):
        check(folder, served, {"base": (-9.0,) * 4, "start": other}, 0.5)
    assert check(folder, (-1.1,) * 4, {"start": other}, 0.5) == pytest.approx(0.1)


def test_what_cannot_be_told_apart_is_not_held_against_the_server(folder: Path) -> None:
    assert check(folder, (-1.0009,), {"start": (-1.001,)}, 1e-3) == pytest.approx(9e-4)


def test_beyond_the_tolerance_is_caught_without_others(folder: Path) -> None:
    with pytest.raises(ServedAdapterError, match=r"differs by 0\.01 nats, and 0\.001 are allowed$"):
        check(folder, (-1.01,), {}, 1e-3)
    with pytest.raises(ServedAdapterError, match="it answers like the base model"):
        check(folder, (-9.0,), {}, 1e-3)
