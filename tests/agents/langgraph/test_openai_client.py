"""The raw OpenAI client inside nodes: its calls are noted, its results are the same, its prompts are swapped."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
from pydantic import BaseModel

from optograph.agents.langgraph import trace_langgraph
from optograph.graphs import Feedback, applying, propagate, tracing
from optograph.testing import LoopbackServer
from tests.agents.langgraph.small import State, chain

MODEL = "test-model"
SYSTEM = "Answer the question in one short sentence."
NEW = "Answer as a pirate would."
USAGE = {"include_usage": True}
client: Any = None
aclient: Any = None


def echo(body: dict[str, Any]) -> str:
    """Answer with a digest of the messages, so that other prompts give other answers."""
    if any("fail" in str(one["content"]) for one in body.get("messages", ())):
        return "400"
    digest = hashlib.sha256(json.dumps(body.get("messages") or body.get("prompt")).encode()).hexdigest()[:8]
    return f"alpha beta {digest}"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server."""
    with LoopbackServer(echo) as running:
        yield running


class Ran(NamedTuple):
    """What a run gave: the result, what was noted of each call, what was sent, the traced app and the tape."""

    result: Any
    notes: list[dict[str, Any]]
    sent: list[dict[str, Any]]
    app: Any
    tape: Any


Runs = Callable[..., Ran]


@pytest.fixture
def run(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Run an app of one node once, with clients of its own."""

    def go(node: Callable[[], Any], *, traced: bool = True, question: str = "Why?", **values: str) -> Ran:
        async def inside() -> Ran:
            options: Any = {"base_url": server.url, "api_key": "x", "max_retries": 0}
            with openai.OpenAI(**options) as made:
                async with openai.AsyncOpenAI(**options) as amade:
                    monkeypatch.setitem(globals(), "client", made)
                    monkeypatch.setitem(globals(), "aclient", amade)
                    app = chain(("a", node()))
                    whole = trace_langgraph(app) if traced else app
                    before = len(server.received)
                    with tracing() as tape, applying({f"a.{name}": value for name, value in values.items()}):
                        given = {"plain": question}
                        sync = app.nodes["a"].bound.func is not None
                        result = whole.invoke(given) if sync else await whole.ainvoke(given)
            sent = [one.body for one in server.received[before:]]
            notes = [note for value in tape for note in (value.info or {}).get("calls", ())]
            return Ran(result, notes, sent, whole, tape)

        return asyncio.run(inside())

    return go


def asked(state: State, **more: Any) -> dict[str, Any]:
    """Return the arguments of a call."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": state["plain"]}]
    return {"model": MODEL, "messages": messages, **more}


def by_global(state: State) -> State:
    """Ask the client of the module."""
    answer = client.chat.completions.create(**asked(state, extra_body={"return_token_ids": True}))
    return {"plain": answer.choices[0].message.content}


async def aby_global(state: State) -> State:
    """Ask the async client of the module."""
    answer = await aclient.chat.completions.create(**asked(state, n=2))
    return {"plain": " | ".join(one.message.content for one in answer.choices)}


def by_stream(state: State) -> State:
    """Ask for a stream."""
    stream = client.chat.completions.create(
        **asked(state, stream=True, stream_options=USAGE, extra_body={"return_token_ids": True})
    )
    return {"plain": "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)}


async def aby_stream(state: State) -> State:
    """Ask for an async stream."""
    text = ""
    async with await aclient.chat.completions.create(**asked(state, stream=True, stream_options=USAGE)) as stream:
        async for piece in stream:
            text += (piece.choices[0].delta.content or "") if piece.choices else ""
    return {"plain": text}


def by_prompt(state: State) -> State:
    """Ask the completions API."""
    answer = client.completions.create(model=MODEL, prompt=f"Answer in one short sentence: {state['plain']}")
    return {"plain": answer.choices[0].text}


def by_copy(state: State) -> State:
    """Ask a copy of the client."""
    answer = client.with_options(timeout=30).chat.completions.create(**asked(state))
    return {"plain": answer.choices[0].message.content}


def closed_over(inner: Any) -> Callable[[State], State]:
    """Return a node with the client, or a part or a method of it, in its closure."""

    def node(state: State) -> State:
        create = inner if callable(inner) else getattr(inner, "chat", inner)
        create = getattr(create, "completions", create)
        return {"plain": getattr(create, "create", create)(**asked(state)).choices[0].message.content}

    return node


NODES: dict[str, Callable[[], Callable[[State], Any]]] = {
    "global": lambda: by_global,
    "async": lambda: aby_global,
    "stream": lambda: by_stream,
    "astream": lambda: aby_stream,
    "prompt": lambda: by_prompt,
    "copy": lambda: by_copy,
    "closure": lambda: closed_over(client),
    "chat": lambda: closed_over(client.chat),
    "resource": lambda: closed_over(client.chat.completions),
    "method": lambda: closed_over(client.chat.completions.create),
}


@pytest.mark.parametrize("way", sorted(NODES))
def test_calls_are_noted_and_nothing_else_changes(run: Runs, way: str) -> None:
    expected = run(NODES[way], traced=False)
    assert expected.result["plain"].count("alpha beta") == (2 if way == "async" else 1)
    found = run(NODES[way])
    assert found.result == expected.result
    assert found.sent == expected.sent
    (note,) = found.notes
    assert note["model"] == MODEL
    assert " | ".join(note["texts"]) == found.result["plain"]
    assert note["finish_reasons"] == ["stop"] * len(note["texts"])
    assert note["usage"][0] > 0 and note["usage"][1] == 3 * len(note["texts"])
    assert note["latency_s"] > 0
    if way == "prompt":
        assert note["prompt"] == "Answer in one short sentence: Why?"
    else:
        assert note["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Why?"}]
    if way in ("global", "stream"):
        assert [len(ids) for ids in note["token_ids"]] == [3]
    assert found.app.computed == ()


@pytest.mark.parametrize("way", sorted(NODES))
def test_prompts_are_found_and_swapped(run: Runs, way: str) -> None:
    usual = run(NODES[way])
    (name,) = {one.name for one in usual.app.prompts}
    text = NEW if way != "prompt" else f"{NEW} {{state['plain']}}"
    other = run(NODES[way], **{name.removeprefix("a."): text})
    (sent,) = other.sent
    assert (sent.get("prompt") or sent["messages"][0]["content"]).startswith(NEW)
    assert other.result != usual.result
    (call,) = [value for value in other.tape if "calls" in (value.info or {})]
    assert propagate(call, Feedback(0.0, "Too long."), other.app.parameters()).parameters == (name,)
    assert run(NODES[way]).result == usual.result


def test_candidates_that_run_at_once_do_not_mix(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with openai.OpenAI(base_url=server.url, api_key="x") as made:
        monkeypatch.setitem(globals(), "client", made)
        traced = trace_langgraph(chain(("a", by_global)))

        def ask(number: int) -> None:
            with applying({"a.asked.SYSTEM": f"Candidate number {number} says so."}):
                traced.invoke({"plain": f"question {number}"})

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(60)))
    pairs = {tuple(one["content"] for one in received.body["messages"]) for received in server.received}
    assert pairs == {(f"Candidate number {number} says so.", f"question {number}") for number in range(60)}


def test_a_failed_call_is_noted_and_raises_as_before(run: Runs) -> None:
    for traced in (False, True):
        with pytest.raises(openai.BadRequestError):
            run(NODES["global"], traced=traced, question="please fail")


def test_what_a_server_lacks_fails_as_before(run: Runs) -> None:
    seen: list[Any] = []

    def node(state: State) -> State:
        try:
            client.responses.create(model=MODEL, instructions=SYSTEM, input=state["plain"])
        except openai.NotFoundError as error:
            seen.append(error.status_code)
        return {}

    run(lambda: node, traced=False)
    (note,) = run(lambda: node).notes
    assert seen == [404, 404]
    assert note["error"].startswith("NotFoundError: ")
    assert note["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_responses_api_is_noted(streamed: bool) -> None:
    whole = {
        "id": "r",
        "object": "response",
        "created_at": 0,
        "model": MODEL,
        "status": "completed",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Because.", "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": 7,
            "output_tokens": 2,
            "total_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    ended = json.dumps({"type": "response.completed", "sequence_number": 1, "response": whole})

    def answer(request: httpx2.Request) -> httpx2.Response:
        if streamed:
            text = f"event: response.completed\ndata: {ended}\n\n"
            return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})
        return httpx2.Response(200, json=whole)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    with openai.OpenAI(base_url="http://127.0.0.1/v1", api_key="x", http_client=transport) as mine:

        def node(state: State) -> State:
            given: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": state["plain"]}]}]
            answer = mine.responses.create(model=MODEL, instructions=SYSTEM, input=given, stream=streamed)
            return {"plain": next(iter(answer)).response.output_text if streamed else answer.output_text}  # type: ignore

        with tracing() as tape:
            assert trace_langgraph(chain(("a", node))).invoke({"plain": "Why?"})["plain"] == "Because."
    (note,) = [note for value in tape for note in (value.info or {}).get("calls", ())]
    assert note["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Why?"}]
    assert (note["texts"], note["usage"]) == (["Because."], [7, 2])


def test_structured_answers_are_noted(run: Runs) -> None:
    class Reply(BaseModel):
        word: str

    def node(state: State) -> State:
        answer = client.chat.completions.parse(**asked(state, response_format=Reply))
        return {"plain": answer.choices[0].message.parsed.word}

    expected = run(lambda: node, traced=False)
    found = run(lambda: node)
    assert found.result == expected.result and found.sent == expected.sent
    assert json.loads(found.notes[0]["texts"][0]) == {"word": found.result["plain"]}


def test_a_stream_that_is_left_early_is_noted_as_far_as_it_was_read(run: Runs) -> None:
    def node(state: State) -> State:
        with client.chat.completions.create(**asked(state, stream=True)) as stream:
            text = ""
            for piece in stream:
                text += piece.choices[0].delta.content or ""
                if "beta" in text:
                    break
        return {"plain": text}

    found = run(lambda: node)
    (note,) = found.notes
    assert note["texts"] == ["alpha beta"] == [found.result["plain"]]
    assert "finish_reasons" not in note and "usage" not in note and "error" not in note


def test_a_stream_that_breaks_off_is_noted_as_failed() -> None:
    def node(state: State) -> State:
        text = ""
        try:
            for piece in mine.chat.completions.create(**asked(state, stream=True)):
                text += piece.choices[0].delta.content or ""
        except openai.APIError as error:
            text += f"! {type(error).__name__}"
        return {"plain": text}

    with (
        LoopbackServer("cut-body") as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as mine,
    ):
        expected = chain(("a", node)).invoke({"plain": "Why?"})["plain"]
        with tracing() as tape:
            assert trace_langgraph(chain(("a", node))).invoke({"plain": "Why?"})["plain"] == expected
    (note,) = [note for value in tape for note in (value.info or {}).get("calls", ())]
    assert note["texts"] == [expected.partition("!")[0]] and note["error"].startswith(expected.rpartition(" ")[2])


def test_messages_that_can_be_read_once_are_sent_and_noted(run: Runs) -> None:
    def node(state: State) -> State:
        more = asked(state)
        more["messages"] = iter([{"role": "assistant", "content": None, "tool_calls": []}, *more["messages"]])
        return {"plain": client.chat.completions.create(**more).choices[0].message.content}

    found = run(lambda: node)
    assert [one["content"] for one in found.notes[0]["messages"]] == ["", SYSTEM, "Why?"]
    assert found.sent == run(lambda: node, traced=False).sent


def test_a_client_looks_like_itself_and_stays_itself(run: Runs) -> None:
    def node(state: State) -> State:
        facts = [isinstance(client, openai.OpenAI), isinstance(client.chat, type(client.chat)), client.api_key == "x"]
        client.timeout = 17.0
        stream = client.chat.completions.create(**asked(state, stream=True))
        facts += [isinstance(stream, openai.Stream), stream.response.status_code == 200, len(list(stream)) > 3]
        return {"plain": str(all(facts))}

    found = run(lambda: node)
    assert found.result["plain"] == "True"
    assert type(client) is openai.OpenAI and client.timeout == 17.0
    assert not {"create"} & set(vars(client.chat.completions))
