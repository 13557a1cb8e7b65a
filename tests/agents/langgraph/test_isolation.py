"""A hundred candidates at once over one app: none sees a prompt of another."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from optograph.agents.langgraph import inspect_langgraph, trace_langgraph
from tests.agents.langgraph.apps.models import Call
from tests.agents.langgraph.harness import APPS, App, Ran, arun_with, run_with

COUNT = 100
_NUMBER = re.compile(r"K(\d+)K ")
_DIGEST = re.compile(r"\[[0-9a-f]{8}\]")


def numbered(text: str, number: int) -> str:
    """Return a text with a number at its first word."""
    head = len(text) - len(text.lstrip())
    return f"{text[:head]}K{number}K {text[head:]}"


def candidates(app: App, compiled: Any) -> list[dict[str, str]]:
    """Return a hundred sets of values, each with its number before every prompt of the app."""
    found = [one for one in inspect_langgraph(compiled) if (one.node, one.text) in app.prompts]
    assert found
    return [{one.name: numbered(one.text, number) for one in found} for number in range(COUNT)]


def without_number(calls: list[Call], number: int) -> tuple[list[Call], set[int]]:
    """Return the calls with the number of their candidate and all digests taken away, and the numbers seen."""
    seen = {int(found) for call in calls for _, text in call.messages for found in _NUMBER.findall(text)}
    clean = [
        call._replace(
            messages=tuple(
                (kind, _DIGEST.sub("[]", text.replace(f"K{number}K ", "K "))) for kind, text in call.messages
            ),
            options=call.options.replace(f"K{number}K ", "K "),
        )
        for call in calls
    ]
    return sorted(clean), seen


def check(runs: list[Ran], alone: list[Call]) -> None:
    expected, numbers = without_number(alone, 0)
    assert numbers == {0}
    leaks = []
    for number, one in enumerate(runs):
        calls, seen = without_number(one.calls, number)
        if seen != {number} or calls != expected:
            leaks.append((number, sorted(seen)))
    assert leaks == []


@pytest.mark.parametrize("name", sorted(name for name in APPS if APPS[name].sync))
def test_threads(name: str) -> None:
    app = APPS[name]
    compiled = app.build()
    traced = trace_langgraph(compiled)
    values = candidates(app, compiled)
    alone = run_with(app, traced, values[0]).calls
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda one: run_with(app, traced, one), values))
    check(runs, alone)
    assert not any(_NUMBER.search(text) for call in run_with(app, traced, {}).calls for _, text in call.messages)


@pytest.mark.parametrize("name", sorted(APPS))
def test_tasks(name: str) -> None:
    app = APPS[name]
    compiled = app.build()
    traced = trace_langgraph(compiled)
    values = candidates(app, compiled)

    async def together() -> tuple[list[Call], list[Ran]]:
        # A sync node that waits for a sync task holds a thread: with few threads LangGraph itself would wait for ever.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * COUNT + 16))
        alone = (await arun_with(app, traced, values[0])).calls
        return alone, await asyncio.gather(*(arun_with(app, traced, one) for one in values))

    alone, runs = asyncio.run(together())
    check(runs, alone)


def test_the_app_itself_runs_unchanged_beside_its_candidates() -> None:
    app = APPS["map_reduce"]
    compiled = app.build()
    traced = trace_langgraph(compiled)
    values = candidates(app, compiled)
    expected = run_with(app, compiled, {}).calls
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda pair: run_with(app, (compiled, traced)[pair[0] % 2], pair[1]), enumerate(values)))
    for number, one in enumerate(runs):
        assert (one.calls == expected) == (number % 2 == 0)
