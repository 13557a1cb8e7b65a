"""An API key that the server repeats in answers and errors is found in nothing that a run writes or says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from optograph.storage import Journal
from optograph.testing import LoopbackServer

CANARY = "canary-7f3a9b-very-secret-key"
APP = """
from pydantic import BaseModel
from optograph import Module, Step

class Note(BaseModel):
    text: str

class Mood(BaseModel):
    mood: str

class Moods(Module):
    def __init__(self, lm):
        self.judge = Step("judge", lm=lm, inputs=Note, output=Mood, instruction="Judge.")

    def forward(self, text):
        if "fails" in text:
            import os
            raise RuntimeError("my key is " + os.environ["OPENAI_API_KEY"])
        return self.judge(text=text).mood

def build(lm):
    return Moods(lm)
"""
JOB = """
[workflow]
target = "app.py:build"
[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
scorer = "exact"
[models]
task = "openai/tiny"
[optimizer]
steps = 1
minibatch = 3
"""


def reply(body: dict[str, Any]) -> str:
    if "improve a program" in body["messages"][0]["content"]:
        suggestion = {"judge.instruction": f"Judge with {CANARY}."}
        return json.dumps({"reasoning": f"the key is {CANARY}", "answer": "CHANGE", "suggestion": suggestion})
    return json.dumps({"mood": f"sad {CANARY}"})


def test_a_key_stands_nowhere(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "job.toml").write_text(JOB)
    for split in ("train", "dev", "test"):
        rows = [{"text": f"{split} {number} {'fails' if number == 1 else ''}", "label": "sad"} for number in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with LoopbackServer(reply, models=("tiny",), api_key=CANARY) as server:
        environment = os.environ | {"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": server.url}
        command = [sys.executable, "-m", "optograph", "run", "job.toml", "--run-dir", "out"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert server.received[-1].authorization == f"Bearer {CANARY}"
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert {"journal.db", "report.html", "report.json", "result.json"} <= {file.name for file in files}
    for file in files:
        assert CANARY.encode() not in file.read_bytes(), file.name
    texts = []
    with Journal.read(tmp_path / "out") as journal:
        for call in journal.calls():
            texts += [journal.get(call.request), journal.get(call.completion) if call.completion else None]
        for row in journal.evaluations():
            texts += [row.model_dump(), *(journal.get(one) for one in (row.output, row.subgraph, row.trace) if one)]
        texts += [journal.get(row.values) for row in journal.candidates()]
        texts += [journal.events(), journal.load_state("loop"), journal.get_meta("fingerprint")]
    assert len(texts) > 20
    assert CANARY not in json.dumps(texts)
    assert "my key is \\u2026" in json.dumps(texts)
