"""``optograph doctor``: what is good, what is broken and how to put it right, with servers that really lack things."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from optograph import sandbox
from optograph.cli import checks
from optograph.sandbox import launcher
from optograph.serving import cache
from optograph.testing import LoopbackServer

Command = Callable[..., Any]


def by_name(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the checks by their name without the model's."""
    return {one["name"].rpartition(": ")[2]: one for one in data["checks"]}


def test_a_good_job(here: Command, server: LoopbackServer) -> None:
    done = here("doctor", "job.toml", "--json")
    found = by_name(done.data)
    assert done.code == 0, found
    assert done.data["ok"] is True
    good = {"Python", "disk space", "run folder", "job file", "data", "workflow", "endpoint", "answers"}
    assert {name for name in good if found[name]["ok"] is not True} == set()
    assert found["JSON schema"]["ok"] is found["choice"]["ok"] is found["log-probabilities"]["ok"] is True
    assert found["streaming"]["ok"] is True
    assert "judge.instruction (text)" in found["workflow"]["detail"]
    assert found["data"]["detail"] == "8 train, 12 dev and 16 test examples"
    shown = here("doctor", "job.toml")
    assert shown.code == 0
    assert "✔ Python" in shown.out
    assert shown.out.rstrip().endswith("Everything that is needed is here.")
    assert "\x1b" not in shown.out


def test_a_job_with_mistakes(here: Command, server: LoopbackServer, folder: Path) -> None:
    bad = here("doctor", "job.toml", "--set", "task.dev=none.jsonl", "--set", "workflow.target=app.py:x", "--json")
    assert bad.code == 1
    found = by_name(bad.data)
    assert found["data"]["ok"] is found["workflow"]["ok"] is False
    assert "none.jsonl" in found["data"]["detail"]
    assert found["answers"]["ok"] is True, "the rest is looked at all the same"
    unreadable = here("doctor", "job.toml", "--set", "optimizer.seed=-1", "--json")
    assert unreadable.code == 1
    assert by_name(unreadable.data)["job file"]["ok"] is False
    (folder / "plain.py").write_text("def build(lm):\n    return lambda text: text\n")
    empty = here("doctor", "job.toml", "--set", "workflow.target=plain.py:build")
    assert empty.code == 1
    assert "no trainable parameters" in empty.out
    assert "✘ workflow" in empty.out
    assert "→ derive it from Module" in empty.out
    assert here("doctor", "nowhere.toml").code == 2


def test_a_dead_endpoint(here: Command) -> None:
    done = here("doctor", "--model", "vllm/tiny@http://127.0.0.1:9/v1", "--json")
    assert done.code == 1
    found = by_name(done.data)
    assert found["endpoint"]["ok"] is False
    assert "127.0.0.1:9" in found["endpoint"]["detail"]
    assert "start the server" in found["endpoint"]["fix"]
    assert "answers" not in found
    assert "error" not in done.data


def test_a_wrong_model_and_a_wrong_string(here: Command, server: LoopbackServer) -> None:
    done = here("doctor", "--model", f"vllm/huge@{server.url}", "--model", "gpt-9", "--json")
    assert done.code == 1
    found = by_name(done.data)
    assert found["endpoint"]["detail"] == "it serves tiny"
    assert found["gpt-9"]["ok"] is False


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("500", "answers"),
        ("garbage", "answers"),
        ("", "answers"),
    ],
)
def test_a_broken_server(here: Command, make_server: Callable[..., LoopbackServer], answer: str, broken: str) -> None:
    server = make_server(lambda body: answer)
    done = here("doctor", "--model", f"vllm/tiny@{server.url}", "--json")
    assert done.code == 1
    assert by_name(done.data)[broken]["ok"] is False


@pytest.fixture
def stubborn() -> Iterator[str]:
    """The URL of a server that answers "well, perhaps" whatever the constraint, and gives no log-probabilities."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.answer({"object": "list", "data": [{"id": "tiny"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            message = {"role": "assistant", "content": "well, perhaps"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self.answer({"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": usage})

        def answer(self, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_a_server_that_ignores_what_it_is_asked_for(here: Command, stubborn: str) -> None:
    done = here("doctor", "--model", f"vllm/tiny@{stubborn}", "--json")
    found = by_name(done.data)
    assert done.code == 1
    assert found["answers"]["ok"] is True
    assert found["JSON schema"]["ok"] is found["choice"]["ok"] is False
    assert "structured output" in found["choice"]["fix"]
    assert found["log-probabilities"]["ok"] is None, "few jobs need them"
    assert found["streaming"]["ok"] is True, "an answer in one piece is an answer"


def test_a_key_is_never_shown(
    here: Command, make_server: Callable[..., LoopbackServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    server.api_key = "sk-the-right-one-12345678"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-9f8e7d6c5b4a3210")
    done = here("doctor", "--model", f"openai/tiny@{server.url}", "--json")
    found = by_name(done.data)
    assert done.code == 1
    assert found["API key"]["ok"] is True
    assert found["answers"]["ok"] is False
    assert "canary" not in done.out + done.err
    monkeypatch.delenv("OPENAI_API_KEY")
    missing = here("doctor", "--model", "openai/gpt-x@https://models.example.com/v1", "--json")
    assert missing.code == 1
    assert by_name(missing.data)["API key"]["fix"] == "export OPENAI_API_KEY=…"


def test_embedded_models(here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "cache"))
    assert cache.cache_dir() == tmp_path / "cache"
    absent = here("doctor", "--json")
    assert absent.code == 0, "an embedded model that nobody asked for is not needed"
    assert by_name(absent.data)["file"]["ok"] is None
    needed = here("doctor", "--model", "local/smollm2-135m", "--json")
    assert needed.code == 1
    assert by_name(needed.data)["file"]["fix"] == "optograph models pull smollm2-135m"
    path = tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert "SHA-256" in by_name(here("doctor", "--json").data)["file"]["detail"]
    for name, words in (("local/nothing", "no local model"), ("local/none.gguf", "no file 'none.gguf'")):
        done = here("doctor", "--model", name, "--json")
        assert done.code == 1
        assert words in by_name(done.data)["file"]["detail"]


def test_a_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert checks.check_engine(needed=False).ok is None
    needed = checks.check_engine(needed=True)
    assert needed.ok is False
    assert "optograph[local]" in needed.fix


def test_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "try_sandbox", lambda: None)
    for usable, needed, expected in ((True, None, True), (False, None, None), (False, True, False)):
        reasons = () if usable else ("the kernel has no Landlock",)
        found = sandbox.Availability(usable, 4, True, False, None, True, reasons)
        monkeypatch.setattr(sandbox, "availability", lambda found=found: found)
        assert checks.check_sandbox(needed=needed).ok is expected
    broken = checks.check_sandbox(needed=True)
    assert broken.detail == "the kernel has no Landlock"
    assert "allow_unsandboxed" in broken.fix
    works = sandbox.Availability(True, 4, True, False, None, True)
    monkeypatch.setattr(sandbox, "availability", lambda: works)
    monkeypatch.setattr(checks, "try_sandbox", lambda: "a line of code could not be run")
    assert checks.check_sandbox(needed=True).ok is False


@pytest.mark.skipif(not sandbox.availability().usable, reason="this system cannot lock code in")
def test_the_sandbox_is_really_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.try_sandbox() is None
    for line, timeout_s, problem in (
        ("while True: pass", 0.2, "took longer than 0.2 s and was killed"),
        ("import os; os._exit(3)", 30.0, "ended with exit status 3"),
        ("result = open('/etc/passwd').read()", 30.0, "PermissionError"),
        ("result = 41", 30.0, "it gave 41, not 42"),
    ):
        monkeypatch.setattr(checks, "_SANDBOX_LINE", line)
        monkeypatch.setattr(checks, "_SANDBOX_TIMEOUT_S", timeout_s)
        found = checks.try_sandbox() or "nothing is wrong"
        assert found.startswith("a line of code could not be run: ")
        assert problem in found
    monkeypatch.setattr(launcher, "_BOOT", "raise SystemExit('the zygote does not start')")
    assert "could not be run" in (checks.try_sandbox() or "")
    assert checks.check_sandbox(needed=True).ok is False


def test_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "not" / "there"
    assert checks.check_space(missing).ok is True
    assert checks.check_writing(missing).ok is True
    assert not missing.exists()
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 10**18)
    assert checks.check_space(tmp_path).ok is False
    monkeypatch.setattr(checks, "SLOW_COMMIT_S", 0.0)
    slow = checks.check_writing(tmp_path)
    assert slow.ok is None
    assert "slow" in slow.fix
    (tmp_path / "file").touch()
    assert checks.check_writing(tmp_path / "file").ok is False


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_packages().ok is True
    wanted = ["rich>=999", "no-such-package>=1", 'torch>=2; extra == "train"', "typer>=0.1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    found = checks.check_packages()
    assert found.ok is False
    assert "no-such-package is missing" in found.detail
    assert "does not fit 'rich>=999'" in found.detail
    assert "torch" not in found.detail
