"""On a GPU: ``vllm serve`` in bfloat16, an adapter asserted and served; skipped where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.serving.vllm import Installation, ServedAdapterError, VLLMServer, find_vllm

TOLERANCE = 0.25
"""Nats; trainer in float32, server in bfloat16."""


@pytest.fixture(scope="module")
def gpu_vllm() -> Installation:
    """A vLLM that is built for GPUs, and a GPU."""
    if shutil.which("nvidia-smi") is None or subprocess.run(["nvidia-smi", "-L"], check=False).returncode != 0:
        pytest.skip("there is no NVIDIA GPU")
    try:
        found = find_vllm()
    except UserError:
        pytest.skip("no vLLM is installed: pip install vllm, and give its interpreter in OPTOGRAPH_VLLM_PYTHON")
    if found.cpu:
        pytest.skip("the vLLM that was found is built for CPUs: give another in OPTOGRAPH_VLLM_PYTHON")
    return found


@pytest.mark.gpu
def test_an_adapter_is_asserted_and_served_in_bfloat16(
    gpu_vllm: Installation, tiny_model: Path, adapters: dict[str, Path], reference: Any
) -> None:
    extra = ["--gpu-memory-utilization", "0.3"]
    with VLLMServer(tiny_model, python=gpu_vllm.python, device="gpu", max_model_len=1024, extra=extra) as server:
        name = server.load_adapter(adapters["first"])
        probe = reference.probe(adapters["first"])
        assert server.check_adapter(name, probe, tolerance=TOLERANCE) < TOLERANCE
        with pytest.raises(ServedAdapterError, match="is not what was trained"):
            server.check_adapter(name, reference.probe(adapters["second"]), tolerance=TOLERANCE)
        assert server.lm(name)("hello", schema=["yes", "no"]) in ("yes", "no")
        assert server.metrics().generated_tokens > 0
        server.unload_adapter(name)
        assert server.adapters() == []
