"""Measure what becomes of 1,000 evaluations against a server that fails in every way, and hold it to its bars."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from optograph.agents import Module, Step, StepOptions
from optograph.errors import ServingError
from optograph.evals import Evaluator, EvaluatorOptions, Example, SealedSplit, Task, Trial, choice
from optograph.graphs import Candidate
from optograph.serving import (
    Breaker,
    CallEvent,
    Completion,
    Deadline,
    JournaledLM,
    OpenAILM,
    Request,
    Retry,
    make_request,
    observing,
    schema_of,
)
from optograph.storage import Journal
from optograph.testing import FAULTS, LoopbackServer

LABELS = ("happy", "sad")
TOTAL_S = 2.0
SILENCE_S = 0.5
EXAMPLE_S = 60.0
OVERRUN_S = 1.0


class Note(BaseModel):
    """A note."""

    text: str


class Mood(BaseModel):
    """How the writer feels, and why."""

    mood: Literal["happy", "sad"]
    sure: bool


def truth(text: str) -> str:
    """Return what the model answers to a note where nothing fails: a function of its number."""
    number = re.findall(r"note (\d+)", text)[-1]
    return LABELS[hashlib.sha256(number.encode()).digest()[0] % 2]


def reply(body: dict[str, Any]) -> str:
    """Answer as the model does."""
    label = truth(" ".join(message["content"] for message in body["messages"]))
    if "response_format" in body:
        return f'{{"mood": "{label}", "sure": true}}'
    return label


class Timed(OpenAILM):
    """A model that notes by how much a call outlasts its total deadline.

    Attributes:
        overrun_s: The largest such time in seconds; below 0 where every call was in time.
    """

    overrun_s = -TOTAL_S

    async def _attempts(self, request: Request, flight: Any) -> Completion:
        started = time.monotonic()  # the deadline starts here, when the call has its place
        try:
            return await super()._attempts(request, flight)
        finally:
            self.overrun_s = max(self.overrun_s, time.monotonic() - started - TOTAL_S)


class Stepwise(Module):
    """A workflow of one typed step."""

    def __init__(self, lm: JournaledLM) -> None:
        self.judge = Step(
            "judge", lm=lm, inputs=Note, output=Mood, instruction="Judge the note.", options=StepOptions(answer="json")
        )

    def forward(self, text: str) -> Any:
        """Return the mood."""
        return self.judge(text=text).mood


def plain(lm: JournaledLM) -> Callable[..., Any]:
    """Make a workflow that asks the model itself."""
    schema = schema_of(LABELS)

    async def judge(text: str) -> str:
        return (await lm.complete(make_request(f"Judge: {text}", schema=schema))).text

    return judge


@dataclass
class Seen:
    """What became of the evaluations.

    Attributes:
        evaluations: How many there were.
        outcomes: How many ended in each way.
        wrong: Scored as if nothing had happened, with another answer than the server's; must be none.
        untyped: Failed without a type; must be none.
        longest_s: Longest evaluation in seconds.
    """

    evaluations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    longest_s: float = 0.0


class Failures:
    """Remembers the kind of each example's last failed call."""

    def __init__(self) -> None:
        self.kinds: dict[str | None, str] = {}
        self.calls: Counter[str] = Counter()

    def __call__(self, event: CallEvent) -> None:
        """Note a call that failed."""
        if event.error is not None:
            kind = event.error.kind if isinstance(event.error, ServingError) else type(event.error).__name__
            self.kinds[event.context.example] = kind
            self.calls[kind] += 1


def run(workflow: Any, prefix: str, count: int, seen: Seen, failures: Failures, concurrency: int) -> None:
    """Evaluate a workflow on so many notes, and look at each result."""
    texts = {f"{prefix}{k}": f"this is note {k} of {prefix}" for k in range(count)}
    rows = [Example(name, {"text": text}, truth(text)) for name, text in texts.items()]
    other = [Example(f"{prefix}-{name}", {"text": f"note 0 for {name}"}, "sad") for name in ("dev", "test")]
    task = Task(rows, other[:1], SealedSplit(other[1:]), choice(list(LABELS)))
    evaluator = Evaluator(
        workflow, task, {}, Journal.memory(), EvaluatorOptions(concurrency=concurrency, deadline_s=EXAMPLE_S)
    )
    with observing(failures):
        (evaluation,) = evaluator.evaluate([Trial(Candidate({}), "train", tuple(texts))])
    for result in evaluation.results:
        seen.evaluations += 1
        seen.longest_s = max(seen.longest_s, result.seconds)
        expected = truth(texts[result.example])
        if result.feedback is None:
            seen.outcomes[f"missing: {failures.kinds.get(result.example, '?')}"] += 1
            if not result.error or result.example not in failures.kinds:
                seen.untyped.append(result.example)
        elif result.feedback.failure_type and result.error:
            seen.outcomes[f"failed: {result.feedback.failure_type}"] += 1
        elif result.truncated:
            seen.outcomes["scored, marked as truncated"] += 1
        elif result.output == expected:
            seen.outcomes["scored"] += 1
        else:
            seen.outcomes["scored silently"] += 1
            seen.wrong.append(f"{result.example}: {result.output!r} instead of {expected!r}")


def measure(count: int, rate: float, *, stream: bool, concurrency: int, seed: int) -> tuple[Seen, Counter[str], Timed]:
    """Evaluate two workflows against the broken server.

    Returns:
        What became of the evaluations, the faults that the server gave, and the model.
    """
    seen, failures = Seen(), Failures()
    with LoopbackServer(reply, fault_rate=rate, seed=seed, latency_s=0.002) as server:
        lm = Timed(
            "test-model",
            base_url=server.url,
            flavour="vllm",
            stream=stream,
            max_concurrency=concurrency,
            retry=Retry(attempts=4, base_s=0.02),
            deadline=Deadline(
                connect_s=SILENCE_S,
                silence_s=SILENCE_S,
                first_token_s=SILENCE_S,
                between_tokens_s=SILENCE_S,
                total_s=TOTAL_S,
            ),
            breaker=Breaker(probe_s=0.05, probe_cap_s=0.5),
        )
        journaled = JournaledLM(lm, Journal.memory())
        half = count // 2
        run(plain(journaled), "plain", half, seen, failures, concurrency)
        run(Stepwise(journaled), "step", count - half, seen, failures, concurrency)
        given = Counter(one.fault for one in server.received if one.fault is not None)
    return seen, given, lm


def show(title: str, seen: Seen, given: Counter[str]) -> None:
    """Print what became of the evaluations, and the faults behind it."""
    table = Table(title=title)
    for column in ("outcome", "evaluations"):
        table.add_column(column, justify="left" if column == "outcome" else "right")
    for outcome, number in sorted(seen.outcomes.items(), key=lambda pair: (-pair[1], pair[0])):
        table.add_row(outcome, str(number))
    console = Console(width=110)
    console.print(table)
    console.print("faults given: " + ", ".join(f"{mode} {given[mode]}" for mode in FAULTS))
    for line in (*seen.wrong, *seen.untyped):
        console.print(f"NOT GOOD: {line}")


def main() -> int:
    """Print the tables and the last line; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.3, help="share of requests that fail")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = untyped = evaluations = failed = truncated = modes = 0
    overrun_s, longest_s, started = -TOTAL_S, 0.0, time.monotonic()
    for stream in (False, True):
        seen, given, lm = measure(
            options.evaluations,
            options.rate,
            stream=stream,
            concurrency=options.concurrency,
            seed=options.seed + stream,
        )
        show(f"{'streamed' if stream else 'whole'} answers, {options.rate:.0%} of requests fail", seen, given)
        evaluations += seen.evaluations
        wrong += len(seen.wrong)
        untyped += len(seen.untyped)
        truncated += seen.outcomes["scored, marked as truncated"]
        failed += sum(number for outcome, number in seen.outcomes.items() if not outcome.startswith("scored"))
        modes = max(modes, len(given))
        overrun_s, longest_s = max(overrun_s, lm.overrun_s), max(longest_s, seen.longest_s)
    good = (
        evaluations == 2 * options.evaluations
        and wrong == untyped == 0
        and overrun_s <= OVERRUN_S
        and longest_s <= EXAMPLE_S + OVERRUN_S
        and (modes == len(FAULTS) or options.evaluations < 500)
    )
    print(
        f"evaluations={evaluations} modes={modes} failed_typed={failed - untyped} truncated_marked={truncated} "
        f"untyped={untyped} scored_silently={wrong} max_overrun_s={max(0.0, overrun_s):.3f} "
        f"longest_s={longest_s:.1f} seconds={time.monotonic() - started:.0f}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
