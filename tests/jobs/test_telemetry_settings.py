"""Where spans go, and what off means: settings of telemetry, a collector, job files, events."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from optograph.errors import UserError
from optograph.jobs import RunEvent, RunOptions, RunResult, Telemetry, load_job, resume_job, run_job
from optograph.jobs.telemetry import SWITCH, wanted
from optograph.serving import ScriptedLM
from optograph.telemetry import span

# Off --------------------------------------------------------------------------------------------------------------

SMALL_RUN = """
import sys
sys.modules["opentelemetry"] = None  # whoever imports it fails; other libraries do without
from optograph import Example, RunOptions, ScriptedLM, SealedSplit, Task, Parameter, exact, optimize
prompt = Parameter("Judge.", name="prompt")
lm = ScriptedLM(lambda request: {"suggestion": {"prompt": "Well."}} if "improve" in request.text else "x")
class Flow:
    def parameters(self):
        return [prompt]
    def __call__(self, text):
        return lm(f"{prompt.data} {text}")
rows = lambda name: [Example(f"{name}{n}", {"text": f"{name} {n}"}, "x") for n in range(4)]
task = Task(rows("a"), rows("b"), SealedSplit(rows("c")), exact())
optimize(Flow(), task, optimizer=[("optoprime", {"steps": 1, "style": "compact"})], optimizer_lm=lm)
print("done")
"""


def test_nothing_of_opentelemetry_is_imported_when_off(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SMALL_RUN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "done", done.stderr


def test_off_gives_always_the_same_span(monkeypatch: pytest.MonkeyPatch) -> None:
    assert span("call", "a") is span("node", "b")
    monkeypatch.delenv(SWITCH, raising=False)
    assert not wanted(Telemetry())
    for text, on in (("1", True), ("true", True), ("0", False), (" Off ", False), ("", False)):
        monkeypatch.setenv(SWITCH, text)
        assert wanted(Telemetry()) is on
    assert wanted(Telemetry(otel=True))
    monkeypatch.setenv(SWITCH, "1")
    assert not wanted(Telemetry(otel=False))


def test_spans_that_nobody_would_receive_are_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="nothing receives them: set a tracer provider"):
        run(RunOptions(telemetry=Telemetry(otel=True)))
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(UserError, match=r"pip install 'optograph\[otel\]'"):
        run(RunOptions(telemetry=Telemetry(otel=True)))


# Where they go ----------------------------------------------------------------------------------------------------


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Take in what is sent over OTLP; give its URL and the bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_environment_sends_them_to_a_collector(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with collector() as (url, bodies):
        monkeypatch.setenv(SWITCH, "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        run(RunOptions(run_dir=tmp_path / "moods-1"))
    names: Counter[str] = Counter()
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            services = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert services["service.name"] == "optograph"
            names.update(one.name for scope in resource.scope_spans for one in scope.spans)
    assert names["invoke_workflow moods"] == 1
    assert names["run_node judge"] == names["evaluate_example"] > 16
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)  # the program's own setting is untouched


# Jobs -------------------------------------------------------------------------------------------------------------

APP = """
from pydantic import BaseModel
from optograph import Module, ScriptedLM, Step

class Note(BaseModel):
    text: str

class Mood(BaseModel):
    mood: str

class Moods(Module):
    def __init__(self):
        lm = ScriptedLM(lambda request: {"mood": "sad"}, name="always")
        self.judge = Step("judge", lm=lm, inputs=Note, output=Mood, instruction="Judge.")

    def forward(self, text):
        return self.judge(text=text).mood

def build():
    return Moods()
"""
JOB = """
[workflow]
target = "app.py:build"
[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
[models]
optimizer = "openai/none@http://127.0.0.1:9/v1"
[optimizer]
name = "fewshot"
sets = 2
size = 2
first_rung = 2
"""


def test_a_job_says_it_in_one_line_and_a_resumed_run_may_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optograph.jobs import run as run_module

    class Never(ScriptedLM):
        async def aclose(self) -> None:
            pass

    monkeypatch.setattr(run_module, "load_lm", lambda name, **options: Never(["unused"], name=name))
    monkeypatch.setenv(SWITCH, "0")
    (tmp_path / "app.py").write_text(APP)
    for split in ("train", "dev", "test"):
        rows = [{"text": f"{split} {number}", "label": "sad"} for number in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.toml").write_text(JOB + "[telemetry]\notel = true\ncontent = true\n")
    job = load_job(tmp_path / "job.toml")
    assert (job.telemetry.otel, job.telemetry.content) == (True, True)
    with pytest.raises(UserError, match=r"unknown key 'telemetry\.otl'; did you mean 'otel'"):
        load_job(tmp_path / "job.toml", ["telemetry.otl=true"])
    plain = load_job(tmp_path / "job.toml", ["telemetry.otel=false"])
    run_job(plain, tmp_path, tmp_path / "run")
    with collector() as (url, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{url}/v1/traces")
        resume_job(tmp_path / "run", overrides=["telemetry.otel=true"])
        assert bodies
        bodies.clear()
        run_job(job, tmp_path, tmp_path / "run")  # the same run, whatever it tells
        assert bodies


# on_event ---------------------------------------------------------------------------------------------------------


def test_events_bring_scores(run: Any, tmp_path: Path) -> None:
    events: list[RunEvent] = []
    result: RunResult = run(RunOptions(title="Moods", on_event=events.append))
    kinds = [one.kind for one in events]
    assert kinds[0] == "begin"
    assert kinds[-1] == "end"
    assert set(kinds) == {"begin", "ask", "evaluate", "accept", "verdict", "end"}
    begin, end = events[0], events[-1]
    assert begin.settings == {
        "title": "Moods",
        "task": "moods",
        "optimizer": "optoprime",
        "seed": 0,
        "train": 24,
        "dev": 16,
        "test": 20,
        "model_task": "obedient",
    }
    (verdict,) = [one for one in events if one.kind == "verdict"]
    assert verdict.scores == {"dev": 1.0, "incumbent": 1.0}
    assert verdict.loop is not None
    assert verdict.loop.verdict is not None
    assert verdict.step == 1
    assert verdict.calls > 0
    assert end.result == result
    assert result.test[1].mean == end.scores["test_after"]
    assert set(end.scores) == {
        *("dev_before", "dev_after", "test_before", "test_after"),
        *("test_difference", "test_low", "test_high"),
    }
    assert [one.calls for one in events] == sorted(one.calls for one in events)
