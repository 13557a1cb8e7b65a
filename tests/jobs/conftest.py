"""Spans of a small run, collected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from optograph.evals import EvaluatorOptions, Task
from optograph.jobs import RunOptions, RunResult, Telemetry, optimize
from optograph.serving import Request, ScriptedLM

STAGES: list[tuple[str, dict[str, Any]]] = [("optoprime", {"steps": 1, "minibatch": 4})]


class Spans:
    """Collects the spans of a run."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        """Return the finished ones."""
        return self.exporter.get_finished_spans()

    def named(self, start: str) -> list[ReadableSpan]:
        """Return those whose names begin so."""
        return [one for one in self.all() if one.name.startswith(start)]

    def chain(self, one: ReadableSpan) -> list[str]:
        """Return the operations from a span up to the root, example ids behind them."""
        known = {context.span_id: other for other in self.all() if (context := other.get_span_context()) is not None}
        names: list[str] = []
        at: ReadableSpan | None = one
        while at is not None:
            attributes = dict(at.attributes or {})
            names.append(str(attributes.get("optograph.example.id") or attributes.get("optograph.node") or at.name))
            at = known[at.parent.span_id] if at.parent is not None else None
        return names

    def options(self, *, content: bool = False, concurrency: int = 4, **more: Any) -> RunOptions:
        """Return options of a run that makes spans."""
        telemetry = Telemetry(otel=True, content=content, provider=self.provider)
        return RunOptions(telemetry=telemetry, evaluation=EvaluatorOptions(concurrency), **more)


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Where spans go."""
    found = Spans()
    yield found
    found.provider.shutdown()


def proposing(obedient: ScriptedLM) -> ScriptedLM:
    """Answer as the obedient model, and propose a careful instruction."""
    script = obedient._script
    assert script is not None

    def reply(request: Request) -> Any:
        if "improve a program" in request.text:
            suggestion = {"judge.instruction": "Judge carefully."}
            return json.dumps({"reasoning": "r", "blame": [], "answer": "CHANGE", "suggestion": suggestion})
        return script(request)

    return ScriptedLM(reply, name="obedient")


@pytest.fixture
def run(make_moods: Callable[[ScriptedLM], Any], task: Task, task_lm: ScriptedLM) -> Callable[..., RunResult]:
    """Run the small workflow."""

    def started(options: RunOptions) -> RunResult:
        return optimize(make_moods(proposing(task_lm)), task, optimizer=STAGES, options=options)

    return started
