"""One life of a GEPA run on the kill test's task: it resumes by its own means, and leaves its result in a file.

Runs in the peer's environment, by its path; it imports nothing of this project.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Model:
    """The loopback endpoint, over one kept connection a thread."""

    def __init__(self, url: str, name: str) -> None:
        self._at = urlsplit(url)
        self._name = name
        self._kept = threading.local()

    def ask(self, messages: list[dict[str, str]], choices: list[str] | None = None) -> str:
        """Ask for one completion."""
        body: dict[str, Any] = {"model": self._name, "messages": messages, "temperature": 0.0, "max_tokens": 256}
        if choices:
            body["structured_outputs"] = {"choice": choices}
        connection = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = http.client.HTTPConnection(self._at.hostname or "", self._at.port)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{self._at.path}/chat/completions", json.dumps(body).encode(), headers)
        data = json.loads(connection.getresponse().read())
        return str(data["choices"][0]["message"]["content"])

    def reflect(self, prompt: str | list[dict[str, str]]) -> str:
        """Answer GEPA's question for a better instruction."""
        return self.ask([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)


class Adapter:
    """The same two steps with the same messages, as GEPA's adapter; examples run at once as in the other run."""

    propose_new_texts = None

    def __init__(self, model: Model, settings: dict[str, Any], batch_class: Any) -> None:
        self._model = model
        self._settings = settings
        self._batch_class = batch_class
        self._pool = ThreadPoolExecutor(settings["concurrency"])

    def evaluate(self, batch: list[dict[str, str]], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Run a candidate on examples."""
        outputs = list(self._pool.map(lambda row: self._run(row, candidate), batch))
        scores = [float(one["team"] == row["label"]) for one, row in zip(outputs, batch, strict=True)]
        traces = [{"row": row, "output": one} for one, row in zip(outputs, batch, strict=True)]
        return self._batch_class(outputs=outputs, scores=scores, trajectories=traces if capture_traces else None)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, str]]]:
        """Show inputs, outputs and what was right."""
        records = [
            {
                "Inputs": trace["row"]["text"],
                "Generated Outputs": json.dumps(trace["output"]),
                "Feedback": f"The right team is {trace['row']['label']}.",
            }
            for trace in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, records)

    def _run(self, row: dict[str, str], candidate: dict[str, str]) -> dict[str, str]:
        tone = self._step(candidate["tone"], row["text"], self._settings["tones"])
        return {
            "tone": tone,
            "team": self._step(candidate["route"], f"[{tone}] {row['text']}", self._settings["teams"]),
        }

    def _step(self, instruction: str, text: str, choices: list[str]) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        return self._model.ask(messages, choices)


def main(settings_file: Path, run_dir: Path) -> None:
    """Run or resume, and write what came out."""
    gepa, core = importlib.import_module("gepa"), importlib.import_module("gepa.core.adapter")
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    model = Model(settings["url"], settings["model"])
    result = gepa.optimize(
        seed_candidate=settings["instructions"],
        trainset=settings["train"],
        valset=settings["dev"],
        adapter=Adapter(model, settings, core.EvaluationBatch),
        reflection_lm=model.reflect,
        reflection_minibatch_size=settings["minibatch"],
        max_metric_calls=settings["budget"],
        cache_evaluation=settings["cache"],
        run_dir=str(run_dir),
        seed=settings["seed"],
    )
    score = result.val_aggregate_scores[result.best_idx]
    data = {"best": result.best_candidate, "score": score, "counted": result.total_metric_calls}
    draft = run_dir / "outcome.tmp"
    draft.write_text(json.dumps(data, sort_keys=True), encoding="utf-8")
    draft.replace(run_dir / "outcome.json")
    sys.stdout.flush()
    os._exit(0)  # the pool's threads are idle


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
