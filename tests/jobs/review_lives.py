"""Lives of a run with reviews, each a child process of its own; one JSON line in for each life, one out with its end.

The parent imports everything, opens nothing and starts no thread, so that a child is what a fresh process is.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import langgraph.checkpoint.sqlite
import langgraph.graph

from optograph import Example, ScriptedLM, SealedSplit, Task, choice, op
from optograph.errors import WaitingForReview
from optograph.graphs import Parameter, ParameterContainer
from optograph.jobs import RunOptions, optimize, reporting
from optograph.optimizers import Review, ReviewRequest, file_review, pending_review
from optograph.serving import Request
from optograph.storage import Journal, failpoints

LOADED = (langgraph.checkpoint.sqlite, langgraph.graph, reporting)
WAITING, FINISHED, ANSWERED = 3, 4, 5
WORDS = ("carefully", "carefully and kindly", "carefully, please")


class Moods(ParameterContainer):
    """Says of a note how its writer feels; well where its instruction is careful."""

    def __init__(self) -> None:
        self.instruction = Parameter("Judge.", name="instruction")

    def __call__(self, text: str) -> Any:
        return judge(text, self.instruction)


@op
def judge(text: str, instruction: str) -> str:
    """Say how the writer feels."""
    return "sad" if "carefully" in instruction and "rain" in text else "happy"


def notes(prefix: str, count: int) -> list[Example]:
    """Return notes, every other one sad."""
    return [
        Example(f"{prefix}{n}", {"text": f"{'rain' if n % 2 else 'sun'} {prefix}{n}"}, "sad" if n % 2 else "happy")
        for n in range(count)
    ]


def propose(request: Request) -> dict[str, Any]:
    """Propose careful instructions; the last one follows what was said in a review."""
    heard = "Name both moods" in request.messages[-1].content
    word = WORDS[(request.draw // 3) % len(WORDS)]
    text = f"Judge {word}: happy or sad?" if heard else f"Judge {word}."
    return {"reasoning": "r", "answer": "CHANGE", "suggestion": {"instruction": text}}


def say(request: ReviewRequest) -> Review:
    """Answer as the person of this test does: an edit that fails, words, and at last an edit that passes."""
    if request.step == 1 and not request.edits:
        return Review("edit", values={"instruction": "Judge hastily."}, by="ana")
    if request.step == 1:
        return Review("reject", "Name both moods.", by="ana")
    return Review("edit", values={"instruction": "Judge carefully: sad or happy?"}, by="ben")


def run(directory: Path, how: Mapping[str, Any]) -> int:
    """Go on with the run; with ``asking``, the reviewer is a function, which dies where ``dies`` says so."""

    def reviewer(request: ReviewRequest) -> Review:
        print("asked", file=sys.stderr, flush=True)
        if how.get("hangs"):
            time.sleep(600)
        return say(request)

    task = Task(notes("a", 8), notes("b", 12), SealedSplit(notes("c", 8)), choice(["happy", "sad"]), "moods")
    options = RunOptions(run_dir=directory, review=reviewer if how.get("asking") else "accepted")
    optimizer = [("optoprime", {"steps": 3, "minibatch": 4})]
    try:
        optimize(Moods(), task, optimizer=optimizer, optimizer_lm=ScriptedLM(propose), options=options)
    except WaitingForReview:
        return WAITING
    return FINISHED


def answer(directory: Path) -> int:
    """Answer what the run waits for."""
    with Journal.open(directory) as journal:
        pending = pending_review(journal)
        if pending is None:
            raise SystemExit("nothing to answer")
        file_review(journal, pending[0], say(pending[0]))
    return ANSWERED


class Counting(failpoints._Armed):
    """Counts the passes of a failpoint, and dies at one of them where it is armed."""

    def __init__(self, name: str, hit: int | None) -> None:
        self.name, self.left, self.passes = name, -1 if hit is None else hit, 0

    def passing(self, name: str) -> None:
        self.passes += name == self.name
        super().passing(name)


def live(how: Mapping[str, Any], back: int) -> None:
    """Be a child."""
    code = 1
    days = how.get("days", 0)
    if days:
        real = time.time
        time.time = lambda: real() + 86_400 * days
    armed = Counting(how.get("failpoint", "journal.committed"), how.get("hit"))
    failpoints._armed = armed
    try:
        directory = Path(how["directory"])
        code = run(directory, how) if how["do"] == "run" else answer(directory)
    except BaseException:  # noqa: BLE001 - the child must never go on as a second parent
        traceback.print_exc()
    finally:
        os.write(back, str(armed.passes).encode())
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until the input ends."""
    while line := sys.stdin.readline():
        how = json.loads(line)
        front, back = os.pipe()
        pid = os.fork()
        if pid == 0:
            live(how, back)
        os.close(back)
        if how.get("hangs"):
            print(json.dumps({"pid": pid}), flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        passes = os.read(front, 64)
        os.close(front)
        print(json.dumps({"status": status, "passes": int(passes or 0)}), flush=True)


if __name__ == "__main__":
    main()
