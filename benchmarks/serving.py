"""Measure what rollouts cost beside a bare load loop against the same vLLM server, and what a shared prefix saves.

Throughput: the same prompts, as many at once, on one server, in turns, so that a drift of the machine meets both sides.

* bare: aiohttp alone posts the bodies and reads the answers; nothing is kept.
* ours: ``Evaluator`` runs a workflow of one call for each example, through ``with_token_ids``, the journal on disk and
  the client of ``VLLMServer.lm``; token ids and log-probabilities of all calls are durable in the end.

All prompts are asked once before, so that every measured pass finds the same in the prefix cache. The bar is 90 % of
the bare loop's tokens per second, by the medians.

Prefix: prompts of a long text and a short question, one after the other, one token asked for. First every text is
another (nothing can be shared), then all have the same. Hits must be counted in the second part alone, and the median
time to the first token must fall.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from optograph.evals import Evaluator, EvaluatorOptions, Example, SealedSplit, Task, Trial
from optograph.graphs import Candidate, Feedback
from optograph.optimizers.policy import with_token_ids
from optograph.optimizers.policy.base import base_model
from optograph.serving import JournaledLM, Request, run_sync
from optograph.serving.vllm import VLLMServer
from optograph.storage import Journal

SHARE_BAR = 0.90
PREFIX_TOKENS = 256
WORDS = ("river", "stone", "cloud", "apple", "seven", "green", "slow", "under", "bridge", "night", "train", "paper")


@dataclass(frozen=True)
class Throughput:
    """Tokens written per second in each pass, by both sides."""

    bare: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def share(self) -> float:
        """Ours as a share of bare, by the medians."""
        return statistics.median(self.ours) / statistics.median(self.bare)


@dataclass(frozen=True)
class Prefix:
    """Seconds to the first token, and prompt tokens found in the cache, without and with a shared prefix."""

    tokens: int
    apart_s: tuple[float, ...]
    shared_s: tuple[float, ...]
    apart_hits: int
    shared_hits: int
    shared_queries: int

    @property
    def ratio(self) -> float:
        """Time to first token with a shared prefix, as a share of that without."""
        return statistics.median(self.shared_s) / statistics.median(self.apart_s)


def request(number: int, tokens: int) -> Request:
    """Return the request of one example."""
    rng = random.Random(number)
    text = f"Question {number}: {' '.join(rng.choices(WORDS, k=20))}. Go on with this text."
    return Request(prompt=text, max_tokens=tokens, temperature=1.0, seed=number)


async def _bare(server: VLLMServer, requests: Sequence[Request], concurrency: int) -> tuple[float, int]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    numbers = iter(requests)
    written = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def worker() -> None:
            nonlocal written
            for one in numbers:
                body: dict[str, Any] = {"model": server.options.name, "prompt": one.prompt, "seed": one.seed}
                body |= {"max_tokens": one.max_tokens, "temperature": one.temperature, "top_p": 1.0, "n": 1}
                body |= {"return_token_ids": True, "logprobs": 1}
                async with session.post(f"{server.url}/completions", json=body) as answer:
                    written += int((await answer.json())["usage"]["completion_tokens"])

        start = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return time.perf_counter() - start, written


def _ours(server: VLLMServer, requests: Sequence[Request], concurrency: int) -> tuple[float, int]:
    rows = [Example(f"e{number}", {"number": number}) for number in range(len(requests))]
    other = [Example("dev", {"number": -1})]
    with tempfile.TemporaryDirectory() as folder, Journal.open(folder) as journal:
        lm = JournaledLM(with_token_ids(server.lm(max_concurrency=concurrency), logprobs=1), journal)

        async def workflow(number: int) -> str:
            return (await lm.complete(requests[number])).text

        def score(example: Example, output: Any) -> Feedback:
            return Feedback(score=float(bool(output)))

        task = Task(rows, other, SealedSplit([Example("test", {"number": -2})]), score)
        options = EvaluatorOptions(concurrency=concurrency + concurrency // 2)  # some wait for the disk, not the model
        evaluator = Evaluator(workflow, task, {}, journal, options)
        start = time.perf_counter()
        evaluator.evaluate([Trial(Candidate({}), "train", tuple(row.id for row in rows))])
        seconds = time.perf_counter() - start
        run_sync(lm.aclose())
        calls = journal.calls()
        if len(calls) != len(requests) or any(row.error for row in calls):
            raise RuntimeError(f"{len(calls)} calls are in the journal, {len(requests)} were made")
        return seconds, sum(row.completion_tokens for row in calls)


def throughput(server: VLLMServer, *, requests: int, tokens: int, concurrency: int, rounds: int) -> Throughput:
    """Load the server in turns; both sides must write the same number of tokens, or something differs."""
    asked = [request(number, tokens) for number in range(requests)]
    asyncio.run(_bare(server, asked, concurrency))
    bare, ours = [], []
    for _ in range(rounds):
        seconds, written = asyncio.run(_bare(server, asked, concurrency))
        bare.append(written / seconds)
        seconds, kept = _ours(server, asked, concurrency)
        ours.append(kept / seconds)
        if abs(kept - written) > 0.02 * written:
            raise RuntimeError(f"the bare loop got {written} tokens, and ours {kept}")
    return Throughput(tuple(bare), tuple(ours))


def prefix(server: VLLMServer, *, words: int, repeats: int) -> Prefix:
    """Ask for first tokens, without a shared prefix and with one."""
    lm = server.lm()
    rng = random.Random(7)
    smallest = 10**9

    def first_token(text: str, number: int) -> float:
        nonlocal smallest
        asked = Request(prompt=f"{text}\nQuestion {number}: what is it?", max_tokens=1)
        start = time.perf_counter()
        said = lm.ask(asked)
        smallest = min(smallest, said.usage.prompt_tokens)
        return time.perf_counter() - start

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=words))

    begin = server.metrics()
    apart = [first_token(text(), number) for number in range(repeats)]
    middle = server.metrics()
    same = text()
    first_token(same, repeats)
    shared = [first_token(same, number) for number in range(repeats)]
    end = server.metrics()
    return Prefix(
        tokens=smallest,
        apart_s=tuple(apart),
        shared_s=tuple(shared),
        apart_hits=middle.prefix_hits - begin.prefix_hits,
        shared_hits=end.prefix_hits - middle.prefix_hits,
        shared_queries=end.prefix_queries - middle.prefix_queries,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether every bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=300, help="words of the long text; each is about a token")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args(arguments)
    console = Console(width=120)
    with VLLMServer(base_model(given.model).folder, dtype=given.dtype) as server:
        load = throughput(
            server,
            requests=given.requests,
            tokens=given.tokens,
            concurrency=given.concurrency,
            rounds=given.rounds,
        )
        saved = prefix(server, words=given.words, repeats=given.repeats)
    table = Table(title=f"{given.requests} requests of {given.tokens} tokens, {given.concurrency} at once")
    for column in ("", "tokens/s, median", "lowest", "highest", "of bare"):
        table.add_column(column, justify="left" if not column else "right")
    bare = statistics.median(load.bare)
    for name, rates in (("bare aiohttp", load.bare), ("ours: Evaluator, journal on", load.ours)):
        middle = statistics.median(rates)
        table.add_row(name, f"{middle:.1f}", f"{min(rates):.1f}", f"{max(rates):.1f}", f"{middle / bare:.1%}")
    console.print(table)
    table = Table(title=f"prompts of at least {saved.tokens} tokens, one after the other")
    for column in ("", "time to first token, median", "found in the prefix cache"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("no shared prefix", f"{1000 * statistics.median(saved.apart_s):.0f} ms", f"{saved.apart_hits} tokens")
    found = f"{saved.shared_hits} of {saved.shared_queries} tokens"
    table.add_row("a shared prefix", f"{1000 * statistics.median(saved.shared_s):.0f} ms", found)
    console.print(table)
    kept = load.share >= SHARE_BAR and saved.tokens >= PREFIX_TOKENS
    kept = kept and saved.shared_hits > 0 and saved.apart_hits == 0 and saved.ratio < 1
    figures = {
        "share_of_bare": f"{load.share:.3f}",
        "ours_tokens_s": f"{statistics.median(load.ours):.1f}",
        "bare_tokens_s": f"{bare:.1f}",
        "prefix_tokens": str(saved.tokens),
        "prefix_hits": str(saved.shared_hits),
        "hits_without_prefix": str(saved.apart_hits),
        "ttft_ratio": f"{saved.ratio:.3f}",
        "ttft_ms": f"{1000 * statistics.median(saved.shared_s):.0f}",
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
