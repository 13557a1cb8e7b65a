"""``optograph serve``: says where and how, keeps the key in a file of its owner alone, and ends cleanly on a signal."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from optograph.cli.serving import metrics_line
from optograph.serving.vllm import ServerMetrics
from tests.serving.vllm.program import stand_in


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the model's place, and a small program in vLLM's."""
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "cache"))
    return stand_in(tmp_path, monkeypatch)


def serve(model: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "optograph", "serve", str(model), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], signal_: int) -> tuple[str, str]:
    process.send_signal(signal_)
    return process.communicate(timeout=30)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_one_document_then_a_clean_end(model: Path, signal_: int) -> None:
    with serve(model, "--json", "--name", "mine") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        path = Path(said["key_file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = path.read_text().strip()
        asked = urllib.request.Request(f"{said['url']}/models", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["data"][0]["id"] == said["model"] == "mine"
        assert said["adapters"] == [] and said["device"] == "gpu"
        out, err = end(process, signal_)
    assert process.returncode == 0, err
    assert out == "" and key not in err and "stopping" in err
    assert not path.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(said["pid"], 0)


def test_what_a_person_reads(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    with serve(model, "--key-file", str(path)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = path.read_text().strip()
        end(process, signal.SIGINT)
    text = "".join(lines)
    assert len(key) >= 32 and key not in text
    assert f'export VLLM_API_KEY="$(cat {path})"' in text
    assert "http://127.0.0.1:" in text and "vllm/base@http://127.0.0.1:" in text


def test_a_file_that_is_there_is_never_taken_for_the_key(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    path.write_text("old")
    with serve(model, "--json", "--key-file", str(path)) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "is there already" in json.loads(out)["error"]["message"]
    assert path.read_text() == "old"


def test_a_failed_start_is_an_error_without_a_traceback(model: Path) -> None:
    (model / "how").write_text("fail")
    with serve(model, "--json") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "RuntimeError: no such architecture" in json.loads(out)["error"]["message"]
    assert "Traceback" not in err


def test_a_server_that_ends_by_itself_is_an_error(model: Path) -> None:
    with serve(model, "--json", "--every", "0.1") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        os.kill(said["pid"], signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "has ended (exit code" in err and "Traceback" not in err
    assert not Path(said["key_file"]).exists()


def test_the_line_of_counters() -> None:
    def counters(written: int) -> ServerMetrics:
        return ServerMetrics(
            running=2,
            waiting=1,
            kv_use=0.125,
            prefix_queries=400,
            prefix_hits=100,
            prompt_tokens=500,
            generated_tokens=written,
        )

    assert metrics_line(counters(150), counters(100), 4.0) == (
        "running 2  waiting 1  KV cache 12%  prefix hits 25% of 400 tokens  12.5 tokens/s  150 written"
    )
