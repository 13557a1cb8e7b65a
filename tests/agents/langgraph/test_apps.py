"""Apps written from LangGraph's documentation alone, traced as they are: same results, true edges, prompts found."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from optograph.agents.langgraph import dataflow, inspect_langgraph, trace_langgraph
from optograph.graphs import applying
from tests.agents.langgraph.apps.models import Call, recording
from tests.agents.langgraph.harness import (
    APPS,
    FILES,
    METHODS,
    MODES,
    App,
    Ran,
    arun,
    arun_with,
    comparable,
    fingerprint,
    plain,
    run,
    run_with,
)

MARK = "ZQX "
NEW = "Quite other words, number seven."
WAYS = [(method, mode) for method in METHODS for mode in (MODES if method.endswith("stream") else ("values",))]


CASES = [(name, *way) for name, app in sorted(APPS.items()) for way in WAYS if app.sync or way[0].startswith("a")]
MORE = [(name, given) for name, app in sorted(APPS.items()) for given in range(1, len(app.inputs))]

CALLABLE = [
    name for name, app in sorted(APPS.items()) if isinstance(app.inputs[0], dict) and app.arguments() == {"config": {}}
]


@pytest.fixture(params=sorted(APPS))
def app(request: pytest.FixtureRequest) -> App:
    """Each app in turn."""
    return APPS[request.param]


def ran(app: App, compiled: Any, method: str, mode: Any = "values", **options: Any) -> Ran:
    if method.startswith("a"):
        return asyncio.run(arun(app, compiled, method, mode, **options))
    return run(app, compiled, method, mode, **options)


def usual(app: App) -> str:
    """Return the method that an app can be called with."""
    return "invoke" if app.sync else "ainvoke"


def ran_with(app: App, compiled: Any, values: dict[str, Any], **options: Any) -> Ran:
    if app.sync:
        return run_with(app, compiled, values, **options)
    return asyncio.run(arun_with(app, compiled, values, **options))


def test_there_are_enough_apps_and_they_know_nothing_of_us() -> None:
    assert len(APPS) >= 16
    for path in FILES:
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        ]
        assert not [
            name for name in names if name.split(".")[0] == "optograph" or name.startswith("langgraph.prebuilt")
        ]


@pytest.mark.parametrize(("app", "method", "mode"), CASES, indirect=["app"])
def test_results_are_the_same_and_edges_are_true(app: App, method: str, mode: Any) -> None:
    expected = ran(app, app.build(), method, mode)
    traced = trace_langgraph(app.build())
    found = ran(app, traced, method, mode)
    assert comparable(app, found.results, mode) == comparable(app, expected.results, mode)
    assert received(found) == received(expected)
    assert dataflow(found.tape) == app.edges


@pytest.mark.parametrize(("app", "given"), MORE, indirect=["app"])
def test_other_inputs_give_the_same_results_too(app: App, given: int) -> None:
    expected = ran(app, app.build(), usual(app), given=given)
    found = ran(app, trace_langgraph(app.build()), usual(app), given=given)
    assert comparable(app, found.results, "values") == comparable(app, expected.results, "values")
    assert received(found) == received(expected)
    assert dataflow(found.tape)


def test_events_of_subgraphs_are_the_same(app: App) -> None:
    events = []
    for compiled in (app.build(), trace_langgraph(app.build())):
        more = {**app.arguments(), "stream_mode": "updates", "subgraphs": True}

        async def stream(compiled: Any = compiled, more: dict[str, Any] = more) -> list[Any]:
            return [event async for event in compiled.astream(app.inputs[0], **more)]

        got = asyncio.run(stream()) if not app.sync else list(compiled.stream(app.inputs[0], **more))
        events.append(comparable(app, [got], "updates"))
    assert events[1] == events[0]


def test_async_nodes_are_refused_by_blocking_calls_as_before() -> None:
    app = APPS["async_chain"]
    for compiled in (app.build(), trace_langgraph(app.build())):
        with pytest.raises(TypeError, match="No synchronous function"):
            compiled.invoke(app.inputs[0])


def test_every_prompt_is_found_where_it_stands(app: App) -> None:
    found = inspect_langgraph(app.build())
    assert app.prompts <= {(one.node, one.text) for one in found}
    assert len({one.name for one in found}) == len({(one.name, one.text) for one in found})
    for one in found:
        if (one.node, one.text) in app.prompts:
            shared = {other.node for other in found if other.name == one.name}
            assert one.name in {f"{node}.{one.variable}" for node in shared} or re.search(r"_\d+$", one.name)
            # A text of several lines may begin on the line after its opening quotes.
            line = "\n".join(Path(one.file).read_text().splitlines()[one.line - 1 : one.line + 1])
            pieces = [piece[:12] for piece in re.split(r"\{[^}]*\}|\n", one.text) if len(piece) >= 8]
            named = f"{one.variable.split('.')[-1]} ="
            assert named in line or any(piece in line for piece in pieces), (one.name, one.file, one.line, line)


def test_parameters_are_what_was_found(app: App) -> None:
    compiled = app.build()
    found = {one.name: one.text for one in inspect_langgraph(compiled)}
    parameters = {parameter.name: parameter.base for parameter in trace_langgraph(compiled).parameters()}
    assert found.items() <= parameters.items()


def test_only_prompts_are_offered(app: App) -> None:
    texts = {one.text for one in inspect_langgraph(app.build())}
    assert texts <= {text for _, text in app.prompts | app.either} | app.other


def test_computed_prompts_are_reported(app: App) -> None:
    traced = trace_langgraph(app.build())
    assert not traced.computed
    for given in range(len(app.inputs)):
        ran(app, traced, usual(app), given=given)
    reported = {(one.node, one.text) for one in traced.computed}
    assert app.computed <= reported
    known = {(node, text[:12]) for node, text in reported}
    known |= {(one.node, one.text[:12]) for one in inspect_langgraph(app.build())}
    assert {(node, text[:12]) for node, text in app.either} <= known
    allowed = app.reworked | {node for node, _ in app.either}
    assert {(node, text) for node, text in reported - app.computed if node not in allowed} == set()


def test_the_original_is_left_as_it_was(app: App) -> None:
    compiled = app.build()
    before = fingerprint(compiled)
    expected = ran(app, compiled, usual(app))
    assert fingerprint(compiled) == before
    traced = trace_langgraph(compiled)
    values = {one.name: marked(one.text) for one in inspect_langgraph(compiled)}
    changed = ran_with(app, traced, values)
    assert any(MARK in text for call in changed.calls for _, text in call.messages)
    assert fingerprint(compiled) == before
    again = ran(app, compiled, usual(app))
    assert comparable(app, again.results, "values") == comparable(app, expected.results, "values")
    assert again.calls == expected.calls
    unmarked = ran(app, traced, usual(app))
    assert comparable(app, unmarked.results, "values") == comparable(app, expected.results, "values")


def test_a_prompt_is_changed_where_it_is_read_and_nothing_else_is(app: App) -> None:
    compiled = app.build()
    traced = trace_langgraph(compiled)
    everything = inspect_langgraph(compiled)
    usuals = [ran(app, traced, usual(app), given=given, quiet=True).calls for given in range(len(app.inputs))]
    for one in everything:
        if (one.node, one.text) not in app.prompts:
            continue
        nodes = {other.node for other in everything if other.name == one.name}
        reached = False
        for given, before in enumerate(usuals):
            calls = ran_with(app, traced, {one.name: marked(one.text)}, given=given, quiet=True).calls
            reached = reached or any(marks(call) for call in calls)
            assert {call.node for call in calls if marks(call) and not within(call, nodes)} == set(), one.name
            assert all(text.count(MARK) <= 1 for call in calls for _, text in call.messages), one.name
            assert sorted(call._replace(messages=swap(call, MARK, "")) for call in calls) == before, one.name
            if not any(one.text in text for call in before for _, text in call.messages):
                continue
            calls = ran_with(app, traced, {one.name: NEW}, given=given, quiet=True).calls
            expected = [
                call._replace(messages=swap(call, one.text, NEW)) if within(call, nodes) else call for call in before
            ]
            assert calls == sorted(expected), one.name
        assert reached, f"{one.name} reached no model"


def marked(text: str) -> str:
    """Return a text with the mark at its first word, so that what takes its indent away does as before."""
    head = len(text) - len(text.lstrip())
    return text[:head] + MARK + text[head:]


def received(one: Ran) -> list[tuple[Any, ...]]:
    """Return what the model received; LangGraph does not tell a model in a sequence its node in every mode."""
    return sorted(call[1:] for call in one.calls)


def within(call: Call, nodes: set[str]) -> bool:
    return any(call.node == node or call.node.startswith(f"{node}/") for node in nodes)


def marks(call: Call) -> int:
    return sum(text.count(MARK) for _, text in call.messages)


def swap(call: Call, old: str, new: str) -> tuple[tuple[str, str], ...]:
    return tuple((kind, text.replace(old, new)) for kind, text in call.messages)


def test_a_changed_prompt_shows_in_the_answer() -> None:
    app = APPS["chain"]
    compiled = app.build()
    traced = trace_langgraph(compiled)
    name = next(one.name for one in inspect_langgraph(compiled) if one.text == app.module.ANSWER_PROMPT)
    (result,) = run_with(app, traced, {name: NEW}).results
    assert result["answer"].endswith(NEW)


@pytest.mark.parametrize("app", CALLABLE, indirect=True)
def test_a_value_holds_the_final_state_and_comes_from_the_prompts(app: App) -> None:
    data = app.inputs[0]
    traced = trace_langgraph(app.build())
    with recording():
        value = traced(**data) if app.sync else asyncio.run(traced.acall(**data))
    expected = ran(app, app.build(), usual(app))
    assert bare(value.data) == bare(expected.results[0])
    seen, stack = {}, [value]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack.extend(node.parents)
    names = {getattr(node, "name", None) for node in seen.values()}
    reached = {
        one.name
        for one in inspect_langgraph(app.build())
        if (one.node, one.text) in app.prompts and any(within(call, {one.node}) for call in expected.calls)
    }
    assert {name for name in reached if name not in names} <= dead(app)


def bare(data: Any) -> Any:
    """Return data with messages as their texts: what a value shows of a state is plain."""
    if isinstance(data, BaseMessage):
        return data.content
    if isinstance(data, dict):
        return data["content"] if "role" in data else {key: bare(one) for key, one in data.items()}
    return [bare(one) for one in data] if isinstance(data, list | tuple) else data


def dead(app: App) -> set[str]:
    """Return the names of prompts that the first input reaches no model with."""
    compiled = app.build()
    traced = trace_langgraph(compiled)
    return {
        one.name
        for one in inspect_langgraph(compiled)
        if not any(marks(call) for call in ran_with(app, traced, {one.name: marked(one.text)}, quiet=True).calls)
    }


def test_a_candidate_is_in_force_in_every_mode() -> None:
    app = APPS["chain"]
    compiled = app.build()
    traced = trace_langgraph(compiled)
    values = {one.name: marked(one.text) for one in inspect_langgraph(compiled)}
    expected = run_with(app, traced, values).calls
    assert sum(marks(call) for call in expected) >= len(app.prompts)
    for method, mode in WAYS:
        with applying(values):
            assert ran(app, traced, method, mode).calls == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_node_raises_the_same_error(method: str) -> None:
    app = APPS["chain"]._replace(inputs=({"question": "Who is nobody"},))
    errors = []
    for compiled in (app.build(), trace_langgraph(app.build())):
        with pytest.raises(IndexError) as raised:
            ran(app, compiled, method)
        errors.append((type(raised.value), raised.value.args, plain(raised.value.__notes__)))
    assert errors[1] == errors[0]
