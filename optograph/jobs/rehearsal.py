"""A rehearsal: the workflow runs on a few train examples with a stand-in for its model, and its requests are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from optograph.agents import Agent, Module, Step
from optograph.context import current_context
from optograph.errors import OptographError
from optograph.evals import Evaluator, EvaluatorOptions, Example, Task, Trial
from optograph.graphs import Candidate, Feedback, Parameter, allow_unsandboxed
from optograph.jobs.job import Job
from optograph.serving import Choice, JsonSchema, Request, ScriptedLM
from optograph.storage import Journal

EXAMPLES = 16
DEADLINE_S = 20.0


@dataclass
class Rehearsal:
    """What was seen.

    Attributes:
        examples: Train examples that were run.
        requests: The requests of each example, by its id.
        overhead: Requests that belong to no example, such as a calibration's: they come once for each candidate.
        steps: Steps and agents of the workflow.
        failures: Examples on which the workflow failed, which may be the stand-in's fault.
        error: Why nothing could be run, or None.
    """

    examples: tuple[str, ...] = ()
    requests: dict[str, list[Request]] = field(default_factory=dict)
    overhead: list[Request] = field(default_factory=list)
    steps: list[Step | Agent] = field(default_factory=list)
    failures: int = 0
    error: str | None = None

    def all_requests(self) -> list[Request]:
        """Return the requests of all examples."""
        return [request for requests in self.requests.values() for request in requests]


class StandIn(ScriptedLM):
    """Takes a model's place: answers in the form that is asked for, and keeps the requests by example.

    Args:
        name: Name of the model whose place it takes.
    """

    def __init__(self, name: str) -> None:
        super().__init__(_answer, name=name, labels=self._equal)
        self.labels_wanted: set[str] = set()
        self.seen: dict[str | None, list[Request]] = {}
        self._mutex = threading.Lock()

    async def _complete(self, request: Request) -> Any:
        with self._mutex:
            self.seen.setdefault(current_context().example, []).append(request)
        return await super()._complete(request)

    def _equal(self, request: Request) -> Mapping[str, float]:
        return dict.fromkeys(sorted(self.labels_wanted), -3.0)


def rehearse(job: Job, workflow: Any, task: Task, lm: StandIn) -> Rehearsal:
    """Run a workflow on the first train examples without any real model.

    Args:
        job: The job.
        workflow: The workflow; what its steps ask meanwhile is the stand-in.
        task: Data.
        lm: The stand-in that the workflow was built with.
    """
    examples = tuple(example.id for example in task.train[:EXAMPLES])
    modules = list(workflow.modules()) if isinstance(workflow, Module) else []
    steps = [one for one in modules if isinstance(one, Step | Agent)]
    found = Rehearsal(examples, steps=steps)
    for step in steps:
        if isinstance(step, Step):
            lm.labels_wanted.update(step.labels)
    parameters = trainable(workflow)
    evaluator = Evaluator(
        workflow, replace(task, scorer=_no_score), parameters, Journal.memory(), EvaluatorOptions(4, DEADLINE_S)
    )
    allowed = allow_unsandboxed() if job.workflow.allow_unsandboxed else nullcontext()
    with _asking(steps, lm), allowed:
        try:
            (evaluation,) = evaluator.evaluate([Trial(starting_point(parameters), "train", examples)])
            found.failures = sum(one.error is not None for one in evaluation.results)
        except OptographError as error:
            found.error = f"{type(error).__name__}: {error}"
    found.requests = {name: lm.seen.get(name, []) for name in examples}
    found.overhead = lm.seen.get(None, [])
    return found


def trainable(workflow: Any) -> dict[str, Parameter]:
    """Return the parameters that candidates may set, by name."""
    find = getattr(workflow, "parameters", None)
    return {one.name: one for one in find() if one.trainable} if callable(find) else {}


def starting_point(parameters: Mapping[str, Parameter]) -> Candidate:
    """Return the candidate that a run starts with."""
    return Candidate({name: one.spec.to_json(one.base) for name, one in parameters.items()}, origin="starting point")


@contextmanager
def _asking(steps: list[Step | Agent], lm: StandIn) -> Iterator[None]:
    """Have the steps ask the stand-in for a while."""
    before = [step.lm for step in steps]
    for step in steps:
        step.lm = lm
    try:
        yield
    finally:
        for step, real in zip(steps, before, strict=True):
            step.lm = real


def _no_score(example: Example, output: Any) -> Feedback:
    return Feedback(score=0.0)


def _answer(request: Request) -> str:
    if isinstance(request.schema, Choice):
        return request.schema.options[0]
    if isinstance(request.schema, JsonSchema):
        import json

        return json.dumps(instance_of(request.schema.schema, request.schema.schema))
    return "1"


def instance_of(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Any:
    """Make a small value that a JSON schema allows, as far as its plain keywords tell.

    Args:
        schema: The schema, or a part of it.
        root: The whole schema, for references.
        depth: Of the part; parts that are nested too deeply become null.
    """
    if depth > 12 or not isinstance(schema, Mapping):
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    reference = schema.get("$ref")
    if isinstance(reference, str):
        part: Any = root
        for name in reference.removeprefix("#/").split("/"):
            part = part.get(name, {}) if isinstance(part, Mapping) else {}
        return instance_of(part, root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return instance_of(schema[key][0], root, depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        needed = schema.get("required", properties)
        return {name: instance_of(properties.get(name, {}), root, depth + 1) for name in needed}
    if kind == "array":
        return [instance_of(schema.get("items", {}), root, depth + 1)] * max(0, int(schema.get("minItems", 0)))
    if kind in ("number", "integer"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(str(kind), "x" * max(1, int(schema.get("minLength", 1))))
