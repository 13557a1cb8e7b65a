"""The loopback servers themselves: faults that can be repeated, and deterministic answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.serving import OpenAILM, Retry, make_request
from optograph.testing import FAULTS, FaultPlan, LoopbackServer, request_key
from optograph.testing.fastserver import deterministic_text, instance


def test_faults_are_a_function_of_content_and_attempt() -> None:
    first = FaultPlan(0.3, seed=1)
    second = FaultPlan(0.3, seed=1)
    keys = [f"{k}" for k in range(3000)]
    drawn = {(key, attempt): first.draw(key) for attempt in range(2) for key in keys}
    again = {(key, attempt): second.draw(key) for key in reversed(keys) for attempt in range(2)}
    assert drawn == again
    counts = Counter(drawn.values())
    assert set(counts) == {None, *FAULTS}
    assert 0.27 < 1 - counts[None] / len(drawn) < 0.33
    assert [FaultPlan(0.3, seed=2).draw(key) for key in keys] != [drawn[key, 0] for key in keys]


@pytest.mark.parametrize("options", [{"modes": ("429", "smile")}, {"modes": ()}, {"rate": 1.5}, {"rate": float("nan")}])
def test_bad_plans_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        FaultPlan(**options)


def test_how_an_answer_is_sent_is_no_part_of_its_key() -> None:
    assert request_key({"a": 1, "b": 2}) == request_key({"b": 2, "a": 1, "stream": True, "stream_options": {}})
    assert request_key({"a": 1}) != request_key({"a": 2})


def test_the_server_tells_which_faults_it_gave() -> None:
    with LoopbackServer("fine", fault_rate=0.5, faults=("500", "empty-choices"), seed=3) as server:
        lm = OpenAILM("test-model", base_url=server.url, retry=Retry(attempts=9, bad_answers=9, base_s=0.001))
        assert {lm(f"{k}") for k in range(40)} == {"fine"}
        counts = Counter(one.fault for one in server.received)
    assert counts[None] == 40
    assert set(counts) == {None, "500", "empty-choices"}


def test_there_are_many_faults() -> None:
    assert len(FAULTS) == len(set(FAULTS)) >= 16


SCHEMA = {
    "$defs": {"Mood": {"enum": ["happy", "sad"]}},
    "type": "object",
    "properties": {
        "mood": {"$ref": "#/$defs/Mood"},
        "why": {"type": "string"},
        "sure": {"type": "boolean"},
        "grade": {"type": "integer", "minimum": 1, "maximum": 5},
        "words": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"const": "x"},
    },
}


def test_deterministic_answers_obey_the_schema() -> None:
    seen = set()
    for k in range(50):
        data = instance(SCHEMA, f"{k}", SCHEMA)
        assert data == instance(SCHEMA, f"{k}", SCHEMA)
        assert data["mood"] in ("happy", "sad")
        assert 1 <= data["grade"] <= 5
        assert len(data["words"]) == 2
        assert isinstance(data["why"], str)
        assert isinstance(data["sure"], bool)
        assert data["kind"] == "x"
        seen.add(data["mood"])
    assert seen == {"happy", "sad"}


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"type": "object", "properties": {"inner": {"$ref": "#"}}}
    assert json.dumps(instance(schema, "k", schema))


def test_a_choice_is_picked_by_content() -> None:
    picked = {deterministic_text({"structured_outputs": {"choice": ["a", "b"]}}, f"{k}") for k in range(20)}
    assert picked == {"a", "b"}


def read(url: str, *, post: bool = False) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST" if post else "GET"), timeout=10) as answer:
        return json.loads(answer.read())


def test_the_fast_server_counts_and_repeats() -> None:
    command = [sys.executable, "-m", "optograph.testing.fastserver", "--latency-ms", "1", "--seed", "7"]
    command += ["--fault-rate", "0.2", "--faults", "500,cut-body"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            root = url.removesuffix("/v1")
            lm = OpenAILM("any", base_url=url, flavour="vllm", retry=Retry(attempts=9, base_s=0.001))

            async def main() -> list[str]:
                calls = (lm.complete(make_request(f"{k % 50}", schema=["yes", "no"])) for k in range(100))
                return [one.text for one in await asyncio.gather(*calls)]

            texts = asyncio.run(main())
            assert texts[:50] == texts[50:]
            assert set(texts) == {"yes", "no"}
            stats = read(f"{root}/stats")
            assert stats["requests"] == sum(stats["keys"].values()) == 100 + sum(stats["faults"].values())
            assert (len(stats["keys"]), stats["in_flight"]) == (50, 0)
            assert asyncio.run(lm.served_models()) == ("fast",)
            assert read(f"{root}/reset", post=True)["requests"] == 0
            assert asyncio.run(main()) == texts
            asyncio.run(lm.aclose())
        finally:
            process.terminate()
