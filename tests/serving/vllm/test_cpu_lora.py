"""LoRA on a CPU: what the server's plugin works out is what vLLM's own functions do, and nothing without an adapter."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from optograph.errors import StorageError
from optograph.serving import Completion, make_request
from optograph.serving.vllm import VLLMServer, cpu_lora, find_vllm
from optograph.serving.vllm.interpreter import environment_for
from optograph.serving.vllm.plugins import plugin_folder

COMPARE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import optograph_cpu_lora as ours
import vllm.lora.ops.torch_ops as theirs
from vllm.lora.punica_wrapper import punica_cpu
ours.install()
assert punica_cpu.sgmv_shrink is ours.sgmv_shrink and punica_cpu.bgmv_expand is ours.bgmv_expand
torch.manual_seed(0)
worst = 0.0
for indices in ([0, 0, 0], [1, 0, 1], [1, 1, 0]):
    indices, lengths = torch.tensor(indices), torch.tensor([4, 1, 6])
    each = indices.repeat_interleave(lengths)
    starts, x, scale = lengths.cumsum(0) - lengths, torch.randn(11, 24), 0.5
    a, b, y = torch.randn(2, 1, 8, 24), torch.randn(2, 1, 32, 8), torch.randn(11, 40)
    meta = (starts, lengths, indices, 3, 6, 11)
    def every(ops):
        low, one, found = torch.zeros(11, 8), torch.zeros(11, 8), []
        ops.sgmv_shrink(x, a, low, *meta, scale)
        ops.bgmv_shrink(x, a, one, each, scale)
        for add in (True, False):
            for run in (
                lambda out: ops.sgmv_expand(low, b, out, *meta, add),
                lambda out: ops.bgmv_expand(low, b, out, each, add),
                lambda out: ops.sgmv_expand_slice(low, b, out, *meta, 3, 32, add),
                lambda out: ops.bgmv_expand_slice(low, b, out, each, 3, 32, add),
            ):
                out = y.clone()
                run(out)
                found.append(out)
        return [low, one, *found]
    for mine, other in zip(every(ours), every(theirs), strict=True):
        worst = max(worst, float((mine - other).abs().max()))
print(worst)
"""


def test_all_functions_give_what_those_of_vllm_give() -> None:
    python = find_vllm().python
    done = subprocess.run(
        [python, "-c", COMPARE, str(plugin_folder())],
        env=environment_for(python) | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-5


def test_tokens_without_an_adapter_get_no_update() -> None:
    torch.manual_seed(1)
    x, a, b = torch.randn(5, 6), torch.randn(2, 1, 3, 6), torch.randn(2, 1, 7, 3)
    for indices in ([-1, 1, -1, 0, 1], [-1] * 5):
        low, out = torch.ones(5, 3), torch.ones(5, 7)
        cpu_lora.bgmv_shrink(x, a, low, torch.tensor(indices), 2.0)
        cpu_lora.bgmv_expand(low, b, out, torch.tensor(indices), True)
        for row, adapter in enumerate(indices):
            update = torch.zeros(7) if adapter < 0 else 2.0 * (b[adapter, 0] @ (a[adapter, 0] @ x[row]))
            assert torch.allclose(out[row], 1 + update, atol=1e-5)
        cpu_lora.bgmv_expand(low, b, out, torch.tensor(indices), False)
        assert not out[0].any() or indices[0] >= 0


def test_a_vllm_with_other_names_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = ModuleType("other")
    other.sgmv_shrink = known = SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.import_module", lambda name: other)
    cpu_lora.install()
    assert vars(other)["sgmv_shrink"] is known
    assert "left as they are" in caplog.text


def test_the_folder_is_made_once_and_again_where_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "cache"))
    folder = plugin_folder()
    (about,) = folder.glob("*.dist-info")
    assert {one.name for one in about.iterdir()} == {"METADATA", "entry_points.txt"}
    assert (folder / "optograph_cpu_lora.py").read_bytes() == Path(cpu_lora.__file__).read_bytes()
    assert plugin_folder() == folder and [one.name for one in folder.parent.iterdir()] == [folder.name]
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plugins").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write vLLM's plugin"):
        plugin_folder()


def test_the_base_model_beside_adapters_answers_as_alone(vllm: VLLMServer, adapters: dict[str, Path]) -> None:
    """Those of vLLM give requests without an adapter the update of the last place, so all places are taken here."""
    names = [vllm.load_adapter(adapters[name]) for name in ("first", "second")]
    assert len(names) == vllm.options.max_loras
    base, *adapted = vllm.lm(), *(vllm.lm(name) for name in names)
    questions = [f"Number {number}, and then?" for number in range(8)]

    async def together() -> list[Completion]:
        requests = [make_request(one, max_tokens=16) for one in questions]
        return list(await asyncio.gather(*(lm.complete(request) for request in requests for lm in (base, *adapted))))

    try:
        for lm in adapted:  # takes its place
            lm(questions[0], max_tokens=2)
        mixed = [one.texts[0] for one in asyncio.run(together())]
        alone = [base(one, max_tokens=16) for one in questions]
        assert mixed[::3] == alone
        for which in (1, 2):
            assert sum(one != other for one, other in zip(mixed[which::3], alone, strict=True)) >= 6
    finally:
        for name in names:
            vllm.unload_adapter(name)
