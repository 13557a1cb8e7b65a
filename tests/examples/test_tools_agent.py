"""The agent's example: its data is exact, and demonstrations teach a model over a server to use the tools."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from optograph.jobs import load_job, run_job
from optograph.storage import Journal
from optograph.testing import LoopbackServer

FOLDER = Path(__file__).parents[2] / "examples" / "tools_agent"


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{split}.jsonl").read_text().splitlines()]


def test_the_data_is_what_the_script_writes() -> None:
    made = runpy.run_path(str(FOLDER / "make_data.py"))["splits"]()
    assert {split: rows(split) for split in made} == made
    everything = [row for split in made.values() for row in split]
    assert len({row["question"] for row in everything}) == len(everything) == 140


def test_the_solutions_are_right() -> None:
    app = runpy.run_path(str(FOLDER / "app.py"))
    tools = {"price": app["price"], "calculate": app["calculate"]}
    for split in ("train", "dev", "test"):
        for row in rows(split):
            calls = row["solution"]["calls"]
            assert [tools[call["tool"]](**call["arguments"]) for call in calls] == [call["result"] for call in calls]
            assert row["solution"]["answer"]["number"] == calls[-1]["result"]
            numbers = {int(one) for one in re.findall(r"\d+", row["question"])}
            given = {one for call in calls for one in call["arguments"].values() if isinstance(one, int)}
            assert numbers <= given
            assert all(call["arguments"]["item"] in row["question"] for call in calls if call["tool"] == "price")


def test_the_score_is_exact() -> None:
    score = runpy.run_path(str(FOLDER / "app.py"))["score"]
    solution = {"calls": [], "answer": {"number": 42}}
    assert score(solution, 42) == (1.0, "Right.")
    assert score(solution, 41)[0] == score(solution, None)[0] == 0.0
    assert "42" in score(solution, 41)[1]


def imitator(request: dict[str, Any]) -> str:
    """Use a tool as soon as a demonstration shows how: a copy of the small model's behaviour, without its mistakes."""
    turns = [one["content"] for one in request["messages"][1:]]
    if turns[-1].startswith("Result: "):
        return json.dumps({"answer": {"number": int(turns[-1].removeprefix("Result: "))}})
    shown = " ".join(turns[:-1])
    numbers = [int(one) for one in re.findall(r"\d+", turns[-1])]
    item = re.search(r"\ba (\w+)", turns[-1])
    if item and '{"price"' in shown:
        return json.dumps({"price": {"item": item.group(1)}})
    if len(numbers) == 2 and '{"calculate"' in shown:
        return json.dumps({"calculate": {"left": numbers[0], "operator": "multiply", "right": numbers[1]}})
    return json.dumps({"answer": {"number": 0}})


def test_the_job_over_a_server(tmp_path: Path) -> None:
    with LoopbackServer(imitator, models=("tiny",)) as server:
        job = load_job(FOLDER / "job.toml", [f"models.task=vllm/tiny@{server.url}"])
        result = run_job(job, FOLDER, tmp_path / "run")
        sent = next(one.body for one in server.received if one.body)
    start, best = (one.mean for one in result.test)
    assert start == 0.0
    assert best is not None
    assert best > 0.4
    assert result.difference.low > 0
    assert len(result.best.values["assistant.demos"]) == 5
    assert [list(one["properties"]) for one in sent["response_format"]["json_schema"]["schema"]["anyOf"]] == [
        ["price"],
        ["calculate"],
        ["answer"],
    ]
    with Journal.open(tmp_path / "run") as journal:
        assert {call.context["node"] for call in journal.calls()} == {"assistant"}
    html = (tmp_path / "run" / "report.html").read_text()
    assert "assistant.decide" in html
