"""A step: one prompted model call with typed input and output, whose instruction and demonstrations are parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel

from optograph.agents.module import Module
from optograph.agents.prompting import (
    AnswerForm,
    answer_options,
    check_form,
    checked_inputs,
    default_form,
    read_answer,
    render_inputs,
    render_messages,
)
from optograph.agents.recording import recording_calls
from optograph.agents.scoring import calibrated, check_labels, label_logprobs, mean_prior
from optograph.agents.streaming import StepStream, heard
from optograph.context import CallContext, call_context, current_context
from optograph.errors import ModelError, UserError
from optograph.graphs import DemosSpec, Parameter, TextSpec, Value, op
from optograph.serving import LM, Choice, Completion, Message, Pieces, Request, run_sync, schema_of
from optograph.storage import content_hash
from optograph.telemetry import Spans, current_spans, making_spans


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step asks.

    Attributes:
        answer: ``"choice"`` (one of the labels of a Literal field, enforced while decoding), ``"score"`` (the label
            that is likeliest by log-probability), ``"text"`` (free text), ``"json"``, or None for the natural one.
        max_tokens: Most tokens of an answer.
        temperature: 0 for the likeliest answer.
        seed: Sampling seed.
        repairs: How often an answer that does not fit is asked for again, with what was wrong.
    """

    answer: AnswerForm | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = 0
    repairs: int = 1

    def __post_init__(self) -> None:
        if self.repairs < 0 or self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise UserError(f"a step needs repairs >= 0, max_tokens >= 1 and temperature from 0 to 2, not {self!r}")


class Step(Module):
    """A prompted call that can be learned.

    Args:
        name: Name of the step; its parameters are ``NAME.instruction`` and ``NAME.demos``.
        lm: The model.
        inputs: Pydantic type of the input; calling the step takes its fields as keyword arguments.
        output: Pydantic type of the output; the traced result holds an instance, so ``step(...).field`` is traced too.
        instruction: The starting instruction.
        demos: Solved examples with the fields of input and output.
        description: What the step is for; optimizers read it.
        options: How to ask.

    Raises:
        UserError: The answer form does not suit the output type.
    """

    def __init__(
        self,
        name: str,
        *,
        lm: LM,
        inputs: type[BaseModel],
        output: type[BaseModel],
        instruction: str,
        demos: Sequence[Mapping[str, Any]] = (),
        description: str = "",
        options: StepOptions = StepOptions(),
    ) -> None:
        self.name = name
        self.lm = lm
        self.inputs = inputs
        self.output = output
        self.options = options
        self.form: AnswerForm = options.answer or default_form(output)
        check_form(self.form, output)
        self.labels = answer_options(output) or ()
        if self.form == "score":
            check_labels(self.labels)
        clash = sorted(set(inputs.model_fields) & {*output.model_fields, "instruction", "demos"})
        if clash:
            raise UserError(
                f"step {name!r}: rename the input fields {clash!r}; outputs and the step's own parameters "
                "have these names"
            )
        fields = {**inputs.model_fields, **output.model_fields}
        all_required = all(field.is_required() for field in fields.values())
        self.instruction = Parameter(
            instruction,
            name=f"{name}.instruction",
            spec=TextSpec(),
            description=f"Instruction of step {name!r}.",
        )
        self.demos = Parameter(
            [dict(demo) for demo in demos],
            name=f"{name}.demos",
            spec=DemosSpec(fields=tuple(fields) if all_required else None),
            description=f"Solved examples shown to step {name!r}.",
        )
        self._calibration: tuple[dict[str, Any], ...] = ()
        self._priors: dict[str, tuple[float, ...]] = {}
        self._pending: dict[tuple[int, str], asyncio.Task[tuple[float, ...]]] = {}
        text = description or (inputs.__doc__ or "").strip().split("\n")[0]
        self._op = op(name=name, description=f"{text} (a model answers; it gives {output.__name__})".strip())(self._ask)

    def calibrate(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """Give unlabelled inputs from which a scored step learns each prompt's bias (batch calibration).

        Args:
            inputs: Input fields, 16 to 64 of them; labels are not looked at.

        Raises:
            UserError: The step does not score labels, or an input does not fit.
        """
        if self.form != "score":
            raise UserError(f"step {self.name!r} answers by {self.form!r}; only answer='score' can be calibrated")
        try:
            self._calibration = tuple(self._checked(one) for one in inputs)
        except ValueError as error:
            raise UserError(f"cannot calibrate: {error}") from error
        self._priors.clear()

    def __call__(self, **inputs: Any) -> Value:
        """Ask, and wait for the typed output as a traced value."""
        return run_sync(self.acall(**inputs))

    async def acall(self, **inputs: Any) -> Value:
        """Ask from async code.

        Raises:
            OpError: Around a ``ModelError`` (no valid answer after the repairs) or a ``ServingError``.
        """
        with recording_calls():
            result: Value = await self._op(instruction=self.instruction, demos=self.demos, **inputs)
        return result

    def astream(self, **inputs: Any) -> StepStream:
        """Ask, and give the answer's text as it is written, with the traced value at the end.

        Models behind HTTP stream; others, answers from a journal, and labels that are scored come as one piece.

        Returns:
            An async iterator of text; its ``result`` is what `acall` returns.
        """
        return StepStream(lambda: self.acall(**inputs))

    async def _ask(self, *, instruction: str, demos: list[dict[str, Any]], **inputs: Any) -> BaseModel:
        fields = self._checked(inputs)
        outer = current_context()
        with call_context(node=self.name, parent=outer.node):
            if self.form == "score":
                prior = await self._prior(instruction, demos) if self._calibration else None
                scores = calibrated(await self._score(instruction, demos, fields), prior)
                label = self.labels[max(range(len(scores)), key=scores.__getitem__)]
                with heard() as pieces:
                    if pieces is not None:
                        pieces.finish(label)
                return self.output.model_validate({next(iter(self.output.model_fields)): label})
            return await self._generate(self._messages(instruction, demos, fields))

    def _checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return checked_inputs(f"step {self.name!r}", self.inputs, inputs)

    def _messages(
        self, instruction: str, demos: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]
    ) -> tuple[Message, ...]:
        return render_messages(
            instruction=instruction,
            demos=demos,
            inputs=fields,
            output=self.output,
            form=self.form,
            show_schema=not self.lm.capabilities.json_schema,
        )

    async def _generate(self, messages: tuple[Message, ...]) -> BaseModel:
        can = self.lm.capabilities
        schema = None
        if self.form == "json" and can.json_schema:
            schema = schema_of(self.output)
        elif self.form == "choice" and can.choice:
            schema = Choice(self.labels)
        with heard() as pieces:
            for attempt in range(self.options.repairs + 1):
                request = Request(
                    messages=messages,
                    max_tokens=self.options.max_tokens,
                    temperature=self.options.temperature,
                    seed=self.options.seed,
                    schema=schema,
                )
                completion = await self._complete(request, pieces)
                try:
                    if completion.truncated and self.form == "json":
                        raise ModelError(f"the answer was cut off at {self.options.max_tokens} tokens")
                    return read_answer(completion.text, self.output, self.form)
                except ModelError as error:
                    if attempt == self.options.repairs:
                        raise
                    complaint = f"That answer cannot be used: {error}. Answer again, in the required form only."
                    messages = (*messages, Message("assistant", completion.text), Message("user", complaint))
        raise ModelError("no answer was asked for: repairs must be at least 0")

    async def _complete(self, request: Request, pieces: Pieces | None) -> Completion:
        """Ask the model; what it writes goes to the step's stream, where there is one."""
        if pieces is not None:
            pieces.begin()
        completion = await self.lm.complete(request)
        if pieces is not None:
            pieces.finish(completion.text)
        return completion

    async def _score(
        self, instruction: str, demos: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]
    ) -> tuple[float, ...]:
        request = Request(
            messages=self._messages(instruction, demos, fields),
            max_tokens=1,
            logprobs=min(100, self.lm.capabilities.max_logprobs),
        )
        return label_logprobs(await self.lm.complete(request), self.labels)

    async def _prior(self, instruction: str, demos: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
        """Return the prompt's prior, computed once a prompt however many examples ask for it at once."""
        key = content_hash([instruction, [render_inputs(demo) for demo in demos]])
        if key in self._priors:
            return self._priors[key]
        slot = (id(asyncio.get_running_loop()), key)
        task = self._pending.get(slot)
        if task is None:
            # In a context of its own: it serves every example, and must not be charged to the one that came first.
            clean = Context()
            asked_by = current_context()
            measured = self._measure_prior(instruction, demos, asked_by, current_spans())
            task = clean.run(asyncio.ensure_future, measured)
            self._pending[slot] = task
            task.add_done_callback(lambda _: self._pending.pop(slot, None))
        prior = await asyncio.shield(task)
        self._priors[key] = prior
        return prior

    async def _measure_prior(
        self, instruction: str, demos: Sequence[Mapping[str, Any]], asked_by: CallContext, spans: Spans | None
    ) -> tuple[float, ...]:
        context = replace(asked_by, node=f"{self.name}.calibration", example=None)
        with making_spans(spans), call_context(**asdict(context)):
            scored = await asyncio.gather(
                *(self._score(instruction, demos, fields) for fields in self._calibration),
                return_exceptions=True,
            )
        rows = [row for row in scored if not isinstance(row, BaseException)]
        for failure in scored:
            if isinstance(failure, BaseException) and not isinstance(failure, ModelError):
                raise failure
        if not rows:
            raise ModelError(f"step {self.name!r} could not be calibrated: no input gave label probabilities")
        return mean_prior(rows)
