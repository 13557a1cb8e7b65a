"""Threads and tasks that share a parameter never see each other's candidate, values or feedback."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from optograph.graphs import Candidate, Feedback, Parameter, Value, annotate, applying, op, propagate, render, run_scope

ROUNDS = 20
"""How often the whole is run."""

THREADS, STEPS, TASKS = 8, 200, 200
SHARED = Parameter("base", name="shared")


@op
def inner(token: str) -> str:
    return f"{SHARED.data}/{token}"


@op
def outer(token: str) -> str:
    annotate(token=token)
    return inner(token).upper().lower() + "!"  # type: ignore[no-any-return]


@op
async def waiting(token: str) -> str:
    annotate(token=token)
    await asyncio.sleep(0)
    first = inner(token)
    await asyncio.sleep(0)
    return first.upper().lower() + "!"  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def nervous() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def wrong(out: Value, token: str, want: str) -> list[Any]:
    """Return what is not this run's own."""
    graph = propagate(out, Feedback(0.5, f"feedback {token}"), [SHARED])
    leaves = [node.data for node in graph.nodes if node.parameter is not None]
    strange = [leaf for leaf in leaves if leaf != want]
    facts = (out.data, out.info, graph.feedback.text, len(leaves))
    if facts != (f"{want}/{token}!", {"token": token}, f"feedback {token}", 1):
        strange.append(facts)
    return strange


def test_threads() -> None:
    problems: list[Any] = []

    def work(number: int) -> None:
        try:
            for step in range(STEPS):
                token, want = f"t{number}-{step}", f"c{number}-{step}"
                with applying(Candidate({"shared": want})):
                    out = outer(token)
                problems.extend(wrong(out, token, want))
        except BaseException as error:  # noqa: BLE001 - a crash in a thread must fail the test
            problems.append(error)

    with run_scope([SHARED]):
        for _ in range(ROUNDS):
            threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert problems == []
    assert SHARED.data == "base"


def test_tasks() -> None:
    async def work(number: int) -> list[Any]:
        token, want = f"t{number}", f"c{number}"
        with applying(Candidate({"shared": want})):
            out = await waiting(token)
            there = await asyncio.to_thread(outer, token) if number % 10 == 0 else out
        return wrong(out, token, want) + wrong(there, token, want)

    async def main() -> list[list[Any]]:
        return await asyncio.gather(*(work(number) for number in range(TASKS)))

    with run_scope([SHARED]):
        for _ in range(ROUNDS):
            assert [found for found in asyncio.run(main()) if found] == []


def test_one_graph_many_feedbacks() -> None:
    out = outer("x")
    texts: list[str] = []

    def work(number: int) -> None:
        for step in range(50):
            graph = propagate(out, Feedback(step, f"{number}-{step}"), [SHARED])
            texts.append(render([graph], budget_tokens=500).sections["feedback"].rpartition(". ")[2])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(f"{number}-{step}" for number in range(THREADS) for step in range(50))
