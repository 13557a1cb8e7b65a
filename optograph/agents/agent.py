"""An agent: a model that uses tools, turn by turn, until it answers or comes to a limit; every turn is traced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from optograph.agents.deciding import Decider, demo_problem
from optograph.agents.module import Module
from optograph.agents.recording import recording_calls
from optograph.agents.tools import Tool, use
from optograph.context import call_context
from optograph.errors import ModelError, UserError
from optograph.graphs import DemosSpec, OpError, Parameter, TextSpec, TracedFunction, Value, op, to_plain
from optograph.serving import LM, run_sync

StopReason = Literal["answered", "max_steps", "max_tool_calls", "repeated_call", "deadline", "no_decision"]

_LIMITS = {
    "max_steps": "it made {max_steps} decisions and gave no answer",
    "max_tool_calls": "it used its {max_tool_calls} tool calls and asked for another one",
    "repeated_call": "it made the same call {times} times in a row",
    "deadline": "it gave no answer within {deadline_s:g} s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent works, and where it ends.

    Attributes:
        max_steps: Most decisions in one run, the answer included; at least 1.
        max_tool_calls: Most tool calls in one run, at least 0; None: as many as there are steps.
        max_repeats: How often the same call may be made again at once (same tool, same arguments); at least 0. None:
            as often as it likes.
        force_answer: Whether only the answer is offered where nothing else could follow: at the last step, and when all
            tool calls are used.
        max_tokens: Most tokens of a decision, at least 1.
        temperature: 0 (the likeliest decision) to 2.
        seed: Sampling seed.
        repairs: How often a decision that cannot be used is asked for again, with what was wrong; at least 0.
        deadline_s: Longest time for one run in seconds, above 0; None: no limit. A tool's thread may outlive it.
        max_result_chars: Longest result of a tool that the model is shown, in characters; at least 1.
    """

    max_steps: int = 8
    max_tool_calls: int | None = None
    max_repeats: int | None = 2
    force_answer: bool = False
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = 0
    repairs: int = 1
    deadline_s: float | None = None
    max_result_chars: int = 4000

    def __post_init__(self) -> None:
        low = {"max_steps": 1, "max_tool_calls": 0, "max_repeats": 0, "max_tokens": 1, "repairs": 0}
        for name, least in {**low, "max_result_chars": 1}.items():
            value = getattr(self, name)
            unlimited = value is None and name in ("max_tool_calls", "max_repeats")
            if not unlimited and not (isinstance(value, int) and value >= least):
                raise UserError(f"an agent's {name} must be a whole number, at least {least}, got {value!r}")
        if not 0 <= self.temperature <= 2:
            raise UserError(f"an agent's temperature must be from 0 to 2, got {self.temperature!r}")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise UserError(f"an agent's deadline_s must be above 0 or None, got {self.deadline_s!r}")


@dataclass(frozen=True, slots=True)
class AgentStep:
    """One tool call of a run.

    Attributes:
        tool: Name of the tool.
        arguments: What it was called with.
        result: What it returned; None where it failed.
        error: ``"TYPE: message"`` where it failed, else None.
    """

    tool: str
    arguments: dict[str, Any]
    result: Any = None
    error: str | None = None


class AgentStopped(ModelError):
    """An agent came to a limit without an answer.

    Attributes:
        stop_reason: Which limit.
    """

    def __init__(self, message: str, stop_reason: StopReason) -> None:
        super().__init__(message)
        self.stop_reason = stop_reason


@dataclass(frozen=True, slots=True)
class AgentResult:
    """How a run of an agent ended.

    Attributes:
        output: The answer, or None where the agent came to a limit.
        stop_reason: ``"answered"``, the name of the limit, ``"repeated_call"``, or ``"no_decision"`` (nothing that the
            model wrote could be used).
        steps: The tool calls, in order.
        value: The traced answer, or the traced failure: feedback goes back from either.
        error: What calling the agent raises, or None where it answered.
    """

    output: BaseModel | None
    stop_reason: StopReason
    steps: tuple[AgentStep, ...]
    value: Value
    error: OpError | None = None


class Agent(Module):
    """A model with tools, whose instruction, tool descriptions and demonstrations can be learned.

    Each turn the model makes one decision: it calls a tool, or it answers. A decision is one JSON object, held to the
    tools' argument types and the output type where the model's endpoint can do that, else read and asked for again with
    what was wrong. Decisions and tool calls are ops, so that feedback finds the one to blame. A tool that raises shows
    the model the error's type and message; only errors that are not the workflow's (`UserError`, `BudgetExceeded`,
    `ServingError` …) end the run.

    Args:
        name: Name of the agent; its parameters are ``NAME.instruction``, ``NAME.TOOL.description`` and ``NAME.demos``.
        lm: The model.
        inputs: Pydantic type of the input; calling the agent takes its fields as keyword arguments.
        output: Pydantic type of the answer.
        tools: `Tool` objects or functions; at least one.
        instruction: The starting instruction.
        demos: Solved examples: the fields of the input, and ``solution``, an object of ``calls`` (a list of objects
            with ``tool``, ``arguments`` and ``result``) and ``answer`` (the fields of the output).
        description: What the agent is for; optimizers read it.
        options: Limits and sampling.

    Raises:
        UserError: Two tools have one name, a name is taken, or a demonstration does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        lm: LM,
        inputs: type[BaseModel],
        output: type[BaseModel],
        tools: Sequence[Tool | Callable[..., Any]],
        instruction: str,
        demos: Sequence[Mapping[str, Any]] = (),
        description: str = "",
        options: AgentOptions = AgentOptions(),
    ) -> None:
        self.name = name
        self.lm = lm
        self.inputs = inputs
        self.output = output
        self.options = options
        self.tools = _named(name, tools)
        if "solution" in inputs.model_fields:
            raise UserError(f"agent {name!r}: rename the input field 'solution'; demonstrations have one of that name")
        self.instruction = Parameter(
            instruction, name=f"{name}.instruction", spec=TextSpec(), description=f"Instruction of agent {name!r}."
        )
        self.descriptions = {
            tool.name: Parameter(
                tool.description,
                name=f"{name}.{tool.name}.description",
                spec=TextSpec(),
                description=f"What agent {name!r} is told about its tool {tool.name!r}.",
            )
            for tool in self.tools.values()
        }
        required = all(field.is_required() for field in inputs.model_fields.values())
        self.demos = Parameter(
            [dict(demo) for demo in demos],
            name=f"{name}.demos",
            spec=DemosSpec(fields=(*inputs.model_fields, "solution") if required else None),
            description=f"Solved examples shown to agent {name!r}.",
        )
        for demo in self.demos.base:
            if problem := demo_problem(demo):
                raise UserError(f"agent {name!r}: {problem}")
        text = description or (inputs.__doc__ or "").strip().split("\n")[0]
        about = f"{text} (a model decides what to do next)".strip()
        self._decide = op(name=f"{name}.decide", description=about, source="")(Decider(self).decide)
        self._uses: dict[str, TracedFunction] = {
            tool.name: tool.traced(f"{name}.{tool.name}") for tool in self.tools.values()
        }
        self._finish = op(source="", name=name, description=f"{text} (it gives {output.__name__})".strip())(_finish)

    def __call__(self, **inputs: Any) -> Value:
        """Work until there is an answer, and give it as a traced value.

        Raises:
            OpError: Around an `AgentStopped` (a limit) or another ``ModelError`` (no usable decision).
            ServingError: The endpoint failed.
        """
        return run_sync(self.acall(**inputs))

    async def acall(self, **inputs: Any) -> Value:
        """Like calling the agent, from async code."""
        result = await self.arun(**inputs)
        if result.error is not None:
            raise result.error
        return result.value

    def run(self, **inputs: Any) -> AgentResult:
        """Work until there is an answer or a limit, and tell how it ended."""
        return run_sync(self.arun(**inputs))

    async def arun(self, **inputs: Any) -> AgentResult:
        """Like `run`, from async code."""
        run = _Run()
        with recording_calls():
            try:
                async with asyncio.timeout(self.options.deadline_s) as scope:
                    return await self._work(inputs, run)
            except TimeoutError:
                if not scope.expired():
                    raise
                return self._stopped("deadline", run)

    async def _work(self, inputs: Mapping[str, Any], run: _Run) -> AgentResult:
        options = self.options
        fields = {name: Value(one, name=name) if to_plain(one) is one else one for name, one in inputs.items()}
        for number in range(1, options.max_steps + 1):
            spent = options.max_tool_calls is not None and len(run.steps) >= options.max_tool_calls
            may_call = not (options.force_answer and (spent or number == options.max_steps))
            try:
                decision: Value = await self._decide(
                    instruction=self.instruction,
                    tools=self.descriptions if may_call else {},
                    demos=self.demos,
                    inputs=fields,
                    turns=list(run.turns),
                )
            except OpError as error:
                if not isinstance(error.original, ModelError):
                    raise
                return AgentResult(None, "no_decision", tuple(run.steps), error.value, error)
            made = decision.data
            if "answer" in made:
                value: Value = self._finish(answer=decision["answer"])
                return AgentResult(made["answer"], "answered", tuple(run.steps), value)
            if spent:
                return self._stopped("max_tool_calls", run, decision)
            if run.repeated(made) > (options.max_repeats if options.max_repeats is not None else options.max_steps):
                return self._stopped("repeated_call", run, decision)
            await self._use(decision, run)
        return self._stopped("max_steps", run)

    async def _use(self, decision: Value, run: _Run) -> None:
        """Call the tool that a decision names, and note what came of it."""
        made = decision.data
        tool = self.tools[made["tool"]]
        given = decision["arguments"]
        arguments = {name: given[name] for name in made["arguments"]}
        try:
            with call_context(node=f"{self.name}.{tool.name}", parent=self.name):
                result = await use(self._uses[tool.name], arguments)
        except OpError as error:
            record = error.value.data
            run.steps.append(AgentStep(tool.name, made["arguments"], None, f"{record['error']}: {record['message']}"))
            run.turns.append({"decision": decision, "error": error.value})
        else:
            run.steps.append(AgentStep(tool.name, made["arguments"], result.data))
            run.turns.append({"decision": decision, "result": result})

    def _stopped(self, reason: StopReason, run: _Run, last: Value | None = None) -> AgentResult:
        """Make the failure of a run that came to a limit, with all its turns behind it."""
        turns = [*run.turns, *([] if last is None else [{"decision": last}])]
        options = self.options
        said = _LIMITS[reason].format(
            max_steps=options.max_steps,
            max_tool_calls=options.max_tool_calls,
            times=run.times,
            deadline_s=options.deadline_s or 0,
        )
        try:
            self._finish(turns=turns, stopped=reason, why=f"agent {self.name!r} stopped: {said}")
        except OpError as error:
            return AgentResult(None, reason, tuple(run.steps), error.value, error)
        raise UserError(f"agent {self.name!r} cannot be stopped ({reason})")  # `_finish` always fails here


class _Run:
    """What has happened so far in one run."""

    def __init__(self) -> None:
        self.turns: list[dict[str, Value]] = []
        self.steps: list[AgentStep] = []
        self.times = 0
        self._last = ""

    def repeated(self, decision: Mapping[str, Any]) -> int:
        """Count a call; return how often it has been made again at once."""
        key = json.dumps(to_jsonable_python(decision, fallback=repr), sort_keys=True)
        self.times = self.times + 1 if key == self._last else 1
        self._last = key
        return self.times - 1


def _finish(
    answer: BaseModel | None = None, turns: Sequence[Any] = (), stopped: StopReason | None = None, why: str = ""
) -> BaseModel | None:
    if stopped is not None:
        raise AgentStopped(why, stopped)
    return answer


def _named(agent: str, tools: Sequence[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    named: dict[str, Tool] = {}
    for one in tools:
        tool = one if isinstance(one, Tool) else Tool(one)
        if tool.name in named or tool.name == "answer":
            why = "two tools have" if tool.name in named else "the answer itself has"
            raise UserError(f"agent {agent!r}: {why} the name {tool.name!r}; give Tool(function, name=…)")
        named[tool.name] = tool
    if not named:
        raise UserError(f"agent {agent!r} has no tools; give it at least one function, or use a Step")
    return named
