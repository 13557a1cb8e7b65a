"""What a vLLM server says of itself: queue, KV cache, prefix cache, tokens."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from optograph.errors import ServingError

_LINE = re.compile(r"^vllm:(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)
_COUNTERS = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "kv_use": "kv_cache_usage_perc",
    "prefix_queries": "prefix_cache_queries_total",
    "prefix_hits": "prefix_cache_hits_total",
    "prompt_tokens": "prompt_tokens_total",
    "generated_tokens": "generation_tokens_total",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetrics:
    """A server's counters at one moment, over all its engines.

    Attributes:
        running: Requests that are being worked on.
        waiting: Requests that wait for a place.
        kv_use: Share of the KV cache in use, 0 to 1.
        prefix_queries: Prompt tokens looked up in the prefix cache since the server started.
        prefix_hits: Those of them that were found, and so not computed again.
        prompt_tokens: Prompt tokens read since the start, found ones included.
        generated_tokens: Tokens written since the start.
    """

    running: int
    waiting: int
    kv_use: float
    prefix_queries: int
    prefix_hits: int
    prompt_tokens: int
    generated_tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens looked up that the prefix cache held; 0 where none was looked up."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0


def parse_metrics(text: str) -> ServerMetrics:
    """Read vLLM's metrics in the Prometheus text format.

    Raises:
        ServingError: A counter is missing: the server is no vLLM, or one that we do not know.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in _LINE.findall(text):
        found[name].append(float(value))
    missing = [name for name in _COUNTERS.values() if name not in found]
    if missing:
        raise ServingError(
            f"the server's /metrics lack vLLM's counter {missing[0]!r}: is it a vLLM of 0.18 or newer?",
            kind="bad_response",
        )
    whole = {field: int(sum(found[name])) for field, name in _COUNTERS.items() if field != "kv_use"}
    return ServerMetrics(kv_use=max(found[_COUNTERS["kv_use"]]), **whole)
