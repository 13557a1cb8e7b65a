"""What an agent's model is asked in one turn, and how its decision is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from optograph.agents.calling import Action, is_json, menu_schema, menu_text, read_call, write_call
from optograph.agents.prompting import checked_inputs, problems_of, render_inputs
from optograph.agents.tools import result_text
from optograph.context import call_context, current_context
from optograph.errors import ModelError, ServingError
from optograph.serving import Message, Request

if TYPE_CHECKING:
    from optograph.agents.agent import Agent

_ANSWER = "answer"


class DemoCall(BaseModel):
    """A tool call in a demonstration."""

    model_config = ConfigDict(extra="forbid")
    tool: str
    arguments: dict[str, Any] = {}
    result: Any = None


class Solution(BaseModel):
    """How a demonstration's question is solved."""

    model_config = ConfigDict(extra="forbid")
    calls: list[DemoCall] = []
    answer: dict[str, Any]


class Decision(dict[str, Any]):
    """What a model decided: ``{"tool": name, "arguments": {…}}`` or ``{"answer": output}``, checked.

    Attributes:
        written: The call as the model wrote it, which later turns show: word for word, so that a server that keeps the
            conversation's tokens need not read them again.
    """

    def __init__(self, made: Mapping[str, Any], written: str) -> None:
        super().__init__(made)
        self.written = written


def demo_problem(demo: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the solution of a demonstration, or return None."""
    try:
        Solution.model_validate(demo.get("solution"))
    except ValidationError as error:
        return (
            f"a demonstration's solution must be {{'calls': [{{'tool', 'arguments', 'result'}}, …], 'answer': {{…}}}}: "
            f"{problems_of(error, 'solution')}"
        )
    return None


class Decider:
    """Asks an agent's model for its next decision.

    Args:
        agent: The agent; its model is looked up at each call, since a run puts its journal before it.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._answer = Action(_ANSWER, "ends the task with this answer.", agent.output.model_json_schema())
        every = [tool.action(tool.description) for tool in agent.tools.values()]
        self._schemas = {True: menu_schema([*every, self._answer]), False: menu_schema([self._answer])}

    async def decide(
        self,
        *,
        instruction: str,
        tools: Mapping[str, str],
        demos: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        turns: Sequence[Mapping[str, Any]],
    ) -> Decision:
        """Ask for the next decision.

        Args:
            instruction: What to do.
            tools: Descriptions of the tools that may be called, by name; none where only the answer is wanted.
            demos: Solved examples.
            inputs: The question's fields.
            turns: What has happened so far: for each turn its ``decision``, and the tool's ``result`` or ``error``.

        Raises:
            ModelError: No usable decision after the repairs.
        """
        agent = self._agent
        fields = checked_inputs(f"agent {agent.name!r}", agent.inputs, inputs)
        actions = [*(agent.tools[name].action(text) for name, text in tools.items()), self._answer]
        messages = self._messages(instruction, actions, demos, fields, turns)
        with call_context(node=agent.name, parent=current_context().node):
            try:
                return await self._ask(messages, actions)
            except ServingError as error:
                if error.kind == "context_length" and turns:  # of the agent's own making: it read or wrote too much
                    raise ModelError(f"the conversation has grown too long: {error}") from error
                raise

    async def _ask(self, messages: tuple[Message, ...], actions: Sequence[Action]) -> Decision:
        options, lm = self._agent.options, self._agent.lm
        schema = self._schemas[len(actions) > 1] if lm.capabilities.json_schema else None
        for attempt in range(options.repairs + 1):
            request = Request(
                messages=messages,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                seed=options.seed,
                schema=schema,
            )
            completion = await lm.complete(request)
            try:
                if completion.truncated:
                    raise ModelError(f"it was cut off at {options.max_tokens} tokens")
                return self._read(completion.text, actions)
            except ModelError as error:
                if attempt == options.repairs:
                    raise
                complaint = f"That cannot be used: {error}. Reply again, with one JSON object only."
                messages = (*messages, Message("assistant", completion.text), Message("user", complaint))
        raise ModelError("nothing was asked: repairs must be at least 0")

    def _read(self, text: str, actions: Sequence[Action]) -> Decision:
        agent = self._agent
        action, arguments = read_call(text, actions)
        written = text.strip() if is_json(text) else write_call(action.name, arguments)
        if action.name != _ANSWER:
            checked = agent.tools[action.name].check(arguments)
            return Decision({"tool": action.name, "arguments": checked}, written)
        try:
            return Decision({"answer": agent.output.model_validate(arguments)}, written)
        except ValidationError as error:
            raise ModelError(
                f"the answer does not fit {agent.output.__name__}: {problems_of(error, 'answer')}"
            ) from error

    def _messages(
        self,
        instruction: str,
        actions: Sequence[Action],
        demos: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any],
        turns: Sequence[Mapping[str, Any]],
    ) -> tuple[Message, ...]:
        messages = [Message("system", f"{instruction.strip()}\n\n{menu_text(actions)}".strip())]
        for demo in demos:
            messages += self._demo(demo, list(fields))
        messages.append(Message("user", render_inputs(fields)))
        for turn in turns:
            error = turn.get("error")
            text = self._result(turn.get("result")) if error is None else f"Error: {error['error']}: {error['message']}"
            messages += [Message("assistant", turn["decision"].written), Message("user", text)]
        return tuple(messages)

    def _demo(self, demo: Mapping[str, Any], names: Sequence[str]) -> list[Message]:
        problem = demo_problem(demo)
        if problem:  # a candidate's, not the user's: it fails one example, and is scored
            raise ValueError(problem)
        solution = Solution.model_validate(demo["solution"])
        messages = [Message("user", render_inputs({name: demo[name] for name in names if name in demo}))]
        for call in solution.calls:
            messages.append(Message("assistant", write_call(call.tool, call.arguments)))
            messages.append(Message("user", self._result(call.result)))
        return [*messages, Message("assistant", write_call(_ANSWER, solution.answer))]

    def _result(self, result: Any) -> str:
        return f"Result: {result_text(result, self._agent.options.max_result_chars)}"
