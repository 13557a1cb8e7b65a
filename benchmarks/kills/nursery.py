"""The process behind `benchmarks.kills.lives.Nursery`: imports once, forks a child for each line of its input."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

PARTS = (
    "aiohttp",
    "jinja2",
    "langgraph.checkpoint.sqlite",
    "langgraph.graph",
    "optograph.agents",
    "optograph.cli",
    "optograph.cli.running",
    "optograph.jobs",
    "optograph.jobs.reporting",
    "optograph.report",
    "optograph.serving.openai_lm",
    "rich.live",
    "rich.progress",
)


def main() -> None:
    """Serve until the input ends."""
    for part in PARTS:
        importlib.import_module(part)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    while line := sys.stdin.readline():
        question = json.loads(line)
        reap = question.get("reap")
        answer = _fork(question) if reap is None else os.waitpid(reap, 0)[1]
        answers.write(f"{answer}\n")
        answers.flush()


def _fork(question: dict[str, Any]) -> int:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"the nursery has {threads} threads, so a child would not be what a fresh process is")
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = _live(question)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the child must never go on as a second parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _live(question: dict[str, Any]) -> int:
    from optograph.cli import main as command_line

    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(question["cwd"])
    sys.argv = ["optograph", *question["arguments"]]
    command_line()
    return 0


if __name__ == "__main__":
    main()
