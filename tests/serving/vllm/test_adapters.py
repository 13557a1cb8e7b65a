"""Adapters as files: the hash follows what they compute, what cannot be served is refused, probes compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, check_servable, served_name

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "base_model_name_or_path": "/models/base",
    "peft_version": "0.21.2",
    "lora_dropout": 0.1,
    "init_lora_weights": True,
}


def write(folder: Path, tensors: dict[str, tuple[list[int], bytes]], **changes: Any) -> Path:
    """Write an adapter with the given tensors (float32), in the given order."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    head = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + content)
    return folder


TENSORS = {"b.lora_A.weight": ([2, 1], b"12345678"), "a.lora_B": ([1, 2], b"abcdefgh")}


def test_the_hash_follows_what_the_adapter_computes(tmp_path: Path) -> None:
    first = adapter_hash(write(tmp_path / "first", TENSORS))
    moved = write(
        tmp_path / "moved",
        dict(reversed(TENSORS.items())),
        base_model_name_or_path="/elsewhere",
        peft_version="1.0",
        lora_dropout=0.0,
        target_modules=["v_proj", "q_proj"],
        a_new_setting=None,
        use_dora=False,
        inference_mode=True,
    )
    assert adapter_hash(moved) == adapter_hash(str(moved)) == first
    assert len(first) == 64 and served_name(first) == f"policy@{first[:16]}"


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        ({**TENSORS, "a.lora_B": ([1, 2], b"abcdefgX")}, {}),
        ({**TENSORS, "a.lora_B": ([2, 1], b"abcdefgh")}, {}),
        ({"b.lora_A.weight": TENSORS["b.lora_A.weight"], "c.lora_B": TENSORS["a.lora_B"]}, {}),
        (TENSORS, {"lora_alpha": 8}),
        (TENSORS, {"use_rslora": True}),
        (TENSORS, {"target_modules": ["q_proj"]}),
        (TENSORS, {"init_lora_weights": "pissa"}),
        (TENSORS, {"alpha_pattern": {"q_proj": 1}}),
    ],
)
def test_the_hash_changes_with_anything_that_matters(tmp_path: Path, tensors: Any, changes: dict[str, Any]) -> None:
    before = adapter_hash(write(tmp_path / "before", TENSORS))
    assert adapter_hash(write(tmp_path / "after", tensors, **changes)) != before


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    folder = write(tmp_path / "a", TENSORS)
    tensors = {"x": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "a": torch.ones(1)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    first = adapter_hash(folder)
    save_file(dict(reversed(tensors.items())), folder / "adapter_model.safetensors", metadata={"other": "x"})
    assert adapter_hash(folder) == first
    save_file({**tensors, "a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    assert adapter_hash(folder) != first


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no adapter"):
        adapter_hash(tmp_path)
    folder = write(tmp_path / "a", TENSORS)
    weights = folder / "adapter_model.safetensors"
    data = weights.read_bytes()
    for damaged in (data[:4], data[:60], data[:-1], b"\xff" * 64, (2).to_bytes(8, "little") + b"{}"):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged|no tensor"):
            adapter_hash(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled weights"):
        adapter_hash(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        adapter_hash(folder)
    with pytest.raises(UserError, match="64 hexadecimal digits, got 'abc'"):
        served_name("abc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "is of type 'IA3'"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"r": 32}, "rank 32, and the server takes 1 to 16: start it with max_lora_rank=32"),
        ({"rank_pattern": {"q_proj": 17}}, "rank 17"),
        ({"r": 4}, "contradicts itself: tensor 'b.lora_A.weight' has rank 2, its settings say 4"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_sent(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check_servable(write(tmp_path / "good", TENSORS), max_rank=2)
    with pytest.raises(UserError, match=message):
        check_servable(write(tmp_path / "bad", TENSORS, **changes), max_rank=16)


def test_probes_compare_and_go_to_json_and_back() -> None:
    probe = Probe((1, 2), (3, 4), (-0.5, -1.0))
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe
    assert probe.difference([-0.5, -1.25]) == 0.25
    for served in ([-0.5], [-0.5, float("nan")]):
        with pytest.raises(ServedAdapterError, match="no usable log-probabilities"):
            probe.difference(served)
    for parts in (((), (3,), (-1.0,)), ((1,), (), ()), ((1,), (3, 4), (-1.0,)), ((1,), (3,), (float("-inf"),))):
        with pytest.raises(UserError, match="probe"):
            Probe(*parts)


def test_a_probe_tells_the_policy_from_others() -> None:
    others = {"base": (-0.5, -1.25), "start": (-0.5, -1.015)}
    probe = Probe((1, 2), (3, 4), (-0.5, -1.0), others)
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe
    old = probe.to_json()
    del old["others"]
    assert Probe.from_json(old).not_told_apart(0.01) == ()
    assert probe.not_told_apart(0.01) == ("start",)
    assert probe.not_told_apart(0.005) == ()
    assert probe.not_told_apart(1.0) == ("base", "start")
    assert probe.mistaken_for([-0.5, -1.009], 0.005) == "start"
    assert probe.mistaken_for([-0.5, -1.009], 0.01) is None  # nearer to the start, which nobody could tell
    assert probe.mistaken_for([-0.5, -1.2], 0.01) == "base"
    for wrong in ((-1.0,), (-1.0, float("nan"))):
        with pytest.raises(UserError, match=r"others\['base'\] of a probe holds 2 finite"):
            Probe((1, 2), (3, 4), (-0.5, -1.0), {"base": wrong})
