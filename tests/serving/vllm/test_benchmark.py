"""The benchmark of serving, in small, on a tiny model: both sides do the same work, and the cache is counted right."""

from __future__ import annotations

from benchmarks.serving import prefix, throughput
from optograph.serving.vllm import VLLMServer


def test_both_sides_get_the_same_tokens(vllm: VLLMServer) -> None:
    found = throughput(vllm, requests=6, tokens=8, concurrency=3, rounds=1)
    assert len(found.bare) == len(found.ours) == 1 and min(*found.bare, *found.ours) > 0
    assert found.share == found.ours[0] / found.bare[0]


def test_hits_are_those_of_the_shared_prefix(vllm: VLLMServer) -> None:
    found = prefix(vllm, words=60, repeats=2)
    assert found.tokens > 256 and found.apart_hits == 0
    assert found.shared_hits >= 2 * 256
    assert found.ratio > 0
