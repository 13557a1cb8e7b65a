"""`trace_langgraph`: a compiled LangGraph app, as it is, becomes a workflow that can be optimized."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from typing import Any

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.building import Builder
from optograph.agents.langgraph.finding import Finder, FoundPrompt
from optograph.agents.langgraph.runner import GraphRunner, Outcome
from optograph.agents.langgraph.unexplained import Computed, Unexplained
from optograph.agents.module import Module
from optograph.agents.threads import in_thread
from optograph.errors import UserError
from optograph.graphs import Parameter, Spec, Value, op, to_plain
from optograph.graphs.packing import inside, unwrap


def trace_langgraph(
    app: Any,
    *,
    rename: Mapping[str, str] | None = None,
    freeze: Collection[str] = (),
    extra: Mapping[str, Spec] | None = None,
    output: str | Callable[[Any], Any] | None = None,
    inputs: Callable[..., Any] | None = None,
    config: Mapping[str, Any] | None = None,
    context: Any = None,
) -> TracedGraph:
    """Make a compiled LangGraph app traceable and its prompts learnable, without a change to it.

    Each node becomes an op; what it really reads and writes makes the edges. Texts that its code reads, from globals,
    closures, constants, defaults, partials, templates, messages, bound models and attributes, become parameters named
    ``NODE.VARIABLE``; inside `applying(candidate)` the code finds the candidate's texts in their place. The app itself,
    its functions and its modules stay as they are.

    Args:
        app: What ``StateGraph.compile()`` gave.
        rename: Other names for parameters, by their usual ones.
        freeze: Parameters that stay as they are.
        extra: Further settings to learn, by ``NODE.VARIABLE`` or ``NODE.VARIABLE.ATTRIBUTE``, with what they may be:
            ``{"answer.model.temperature": FloatSpec(0, 1)}``.
        output: What `traced(...)` gives: a key of the final state, or a function of it; None: the whole state.
        inputs: Makes the graph's input from the keyword arguments of `traced(...)`; None: they are its keys.
        config: Configuration of those runs.
        context: Runtime context of those runs, where the app has a ``context_schema``.

    Raises:
        UserError: It is no compiled app, or a name is not in it.
    """
    if not compat.is_compiled(app):
        hint = ": call .compile() first" if hasattr(app, "compile") else ""
        raise UserError(f"trace_langgraph() takes a compiled StateGraph, not {type(app).__name__}{hint}")
    finder = Finder(dict(rename or {}), frozenset(freeze), dict(extra or {}))
    builder = Builder(finder, Unexplained())
    runner = builder.runner(app)
    finder.check()
    options: dict[str, Any] = {} if context is None else {"context": context}
    return TracedGraph(runner, finder, builder, output, inputs, config, options)


def inspect_langgraph(app: Any) -> tuple[FoundPrompt, ...]:
    """Return every text of an app that can be learned, with each node that reads it.

    Raises:
        UserError: It is no compiled app.
    """
    return trace_langgraph(app).prompts


class TracedGraph(Module):
    """A LangGraph app as a module; made by `trace_langgraph`.

    ``invoke``, ``ainvoke``, ``stream`` and ``astream`` take and give what the app's own do. Calling it takes the
    input's keys and gives a traced value, so it is a workflow for `optimize` and the evaluator.
    """

    def __init__(
        self,
        runner: GraphRunner,
        finder: Finder,
        builder: Builder,
        output: str | Callable[[Any], Any] | None,
        inputs: Callable[..., Any] | None,
        config: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> None:
        self._learnable: dict[str, Parameter] = finder.parameters
        self._runner = runner
        self._found = tuple(finder.found)
        self._files = finder.files | {one.file for one in finder.found}
        self._builder = builder
        self._output = output
        self._pick = op(name="pick_output")(output) if callable(output) else None
        self._inputs = inputs
        self._config = config
        self._options = options

    @property
    def app(self) -> Any:
        """The original app."""
        return self._runner.app

    @property
    def prompts(self) -> tuple[FoundPrompt, ...]:
        """Every text that was found, with each node that reads it."""
        return self._found

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the app's code stands in, as far as it was searched."""
        return tuple(sorted(self._files))

    @property
    def computed(self) -> tuple[Computed, ...]:
        """Prompts that reached a model in the runs so far, and come from no parameter and no state."""
        return self._builder.unexplained.found

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Run the app and return what its own ``invoke`` returns."""
        return self._runner.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Run the app and return what its own ``ainvoke`` returns."""
        return await self._runner.ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Run the app and give what its own ``stream`` gives."""
        return self._runner.stream(input, config, **kwargs)

    def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Run the app and give what its own ``astream`` gives."""
        return self._runner.astream(input, config, **kwargs)

    def __call__(self, **inputs: Any) -> Any:
        """Run the app and return the traced output.

        Raises:
            OpError: A node failed; feedback can start from its ``value``.
        """
        given, parents = self._given(inputs)
        run = self._runner.run(given, self._config, parents=parents, typed=True, **self._options)
        return self._result(run)

    async def acall(self, **inputs: Any) -> Any:
        """Like calling it, from async code; an app of sync nodes runs in a thread."""
        given, parents = self._given(inputs)
        if self._builder.async_only:
            run = await self._runner.arun(given, self._config, parents=parents, typed=True, **self._options)
        else:
            run = await in_thread(
                lambda: self._runner.run(given, self._config, parents=parents, typed=True, **self._options)
            )
        return self._result(run)

    def _given(self, inputs: dict[str, Any]) -> tuple[Any, tuple[Value, ...]]:
        parents = tuple(value for one in inputs.values() for value in inside(unwrap(one)[1]))
        plain = {name: to_plain(one) for name, one in inputs.items()}
        return (plain if self._inputs is None else self._inputs(**plain)), parents

    def _result(self, run: Outcome) -> Any:
        if run.value is None:
            if callable(self._output):
                return self._output(run.output)
            return run.output if self._output is None else run.output[self._output]
        if self._pick is not None:
            return self._pick(run.value)
        return run.value if self._output is None else run.value[self._output]
