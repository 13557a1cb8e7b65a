"""Every example runs as its users run it: from its job file, with the data that it ships."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from optograph.errors import UserError, WaitingForReview
from optograph.jobs import RunResult, load_job, resume_job, run_job
from optograph.sandbox import SandboxError
from optograph.storage import Journal
from optograph.testing import LoopbackServer

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, run_dir: Path, *overrides: str) -> RunResult:
    path = EXAMPLES / name / "job.toml"
    return run_job(load_job(path, list(overrides)), path.parent, run_dir)


def suggestion(**values: Any) -> str:
    return json.dumps({"reasoning": "from the feedback", "answer": "CHANGE", "suggestion": values})


def optimizes(request: dict[str, Any]) -> bool:
    return "improve a program" in request["messages"][0]["content"]


def test_reviews_on_the_embedded_model(tmp_path: Path) -> None:
    few = [
        f'task.{split}={{path="data/{split}.jsonl", limit={limit}}}'
        for split, limit in (("train", 40), ("dev", 16), ("test", 24))
    ]
    stages = (
        'optimizer.stages=[{name="optoprime", style="compact", steps=1, minibatch=8, repairs=1, max_tokens=60}, '
        '{name="fewshot", sets=2, size=4, first_rung=8}]'
    )
    result = run("reviews", tmp_path / "run", *few, stages)
    assert len(result.test[1].results) == 24
    assert result.test[1].missing == 0
    with Journal.open(tmp_path / "run") as journal:
        calls = journal.calls()
        assert {call.context["role"] for call in calls} == {"task", "optimizer"}
        assert all(call.identity["weights"].startswith("sha256:b179c952") for call in calls)
        assert any(call.context["node"] == "judge.calibration" for call in calls)
        texts = [
            journal.get(call.request)["messages"][-1]["content"] for call in calls if call.context["node"] == "judge"
        ]
    assert not any(re.search(r"\S+@\S+|\b\d{4,}\b", text) for text in texts)
    html = (tmp_path / "run" / "report.html").read_text()
    assert "Content-Security-Policy" in html
    assert "judge.instruction" in html


def test_review_by_a_person_on_the_embedded_model(tmp_path: Path) -> None:
    folder = EXAMPLES / "review"
    person = runpy.run_path(str(folder / "person.py"))
    few = [
        f'task.{split}={{path="../reviews/data/{split}.jsonl", limit={limit}}}'
        for split, limit in (("train", 20), ("dev", 12), ("test", 8))
    ]
    job = load_job(
        folder / "job.toml",
        [*few, "optimizer.seed=2", "optimizer.sets=2", "optimizer.size=9", "acceptance.confidence=0.5"],
    )
    with pytest.raises(WaitingForReview) as caught:
        run_job(job, folder, tmp_path / "run")
    assert caught.value.request["changed"] == ["judge.demos"]
    verdicts: list[tuple[str, str]] = []
    decided: list[tuple[str, str]] = []
    while not (tmp_path / "run" / "result.json").exists():
        assert len(verdicts) < 3
        person["main"](tmp_path / "run")
        with contextlib.suppress(WaitingForReview):
            resume_job(tmp_path / "run")
        with Journal.read(tmp_path / "run") as journal:
            verdicts = [(one["verdict"], one["by"]) for one in journal.events("review")]
            decided = [(row.verdict, row.optimizer) for row in journal.decisions()]
    assert verdicts[0] == ("edit", "house rules")
    assert ("accepted", "review") in decided or ("rejected", "review") in decided
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert not any(person["PRIVATE"].search(demo["text"]) for demo in result["best"]["values"]["judge.demos"])
    assert "Review: edit, by house rules" in (tmp_path / "run" / "report.html").read_text()


def test_reviews_data_is_what_it_says() -> None:
    data = EXAMPLES / "reviews" / "data"
    rows = {
        split: [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "dev", "test")
    }
    everything = [row for split in rows.values() for row in split]
    assert len(everything) >= 240
    assert len({row["id"] for row in everything}) == len(everything)
    words = [frozenset(re.findall(r"\w+", row["text"].lower())) for row in everything]
    near = [
        (one["id"], other["id"])
        for number, (one, mine) in enumerate(zip(everything, words, strict=True))
        for other, yours in zip(everything[:number], words[:number], strict=True)
        if len(mine & yours) >= 0.6 * len(mine | yours)
    ]
    assert near == []
    for split in rows.values():
        positive = sum(row["label"] == "positive" for row in split)
        assert 0.45 <= positive / len(split) <= 0.55


def test_tickets_over_a_server(tmp_path: Path) -> None:
    words = {
        "invoice": "billing",
        "charged": "billing",
        "password": "account",
        "parcel": "shipping",
        "error": "technical",
    }

    def reply(request: dict[str, Any]) -> str:
        question = request["messages"][-1]["content"].lower()
        if request["messages"][0]["content"].startswith("Rewrite"):
            return '{"instruction": "Careful now: is it billing, technical, account, shipping or feedback?"}'
        if "careful" not in request["messages"][0]["content"].lower():
            return "feedback"
        return next((team for word, team in words.items() if word in question), "feedback")

    with LoopbackServer(reply, models=("tiny",)) as server:
        stage = 'optimizer.stages=[{name="optoprime", style="compact", steps=1}]'
        result = run("tickets", tmp_path / "run", f"models.task=vllm/tiny@{server.url}", stage)
    assert result.difference.low > 0
    assert str(result.best.values["route.instruction"]).startswith("Careful now")


def test_counting_from_a_file(tmp_path: Path) -> None:
    rows = [{"input": f"I have {n} apples and {n % 3} pears. How many?", "target": str(n + n % 3)} for n in range(60)]
    (tmp_path / "object_counting.json").write_text(json.dumps({"examples": rows}))

    def reply(request: dict[str, Any]) -> str:
        if optimizes(request):
            assert "read_number" in request["messages"][-1]["content"]
            return suggestion(**{"solve.instruction": "Think step by step, then give the total."})
        numbers = [int(one) for one in re.findall(r"\d+", request["messages"][-1]["content"])]
        if "step by step" in request["messages"][0]["content"]:
            return f"{numbers[0]} + {numbers[1]} = {sum(numbers)}"
        return str(numbers[0])

    with LoopbackServer(reply, models=("tiny",)) as server:
        result = run(
            "counting",
            tmp_path / "run",
            f"task.source={tmp_path / 'object_counting.json'}",
            "task.rows_key=examples",
            "task.train={limit=20}",
            "task.dev={start=20, limit=20}",
            "task.test={start=40, limit=20}",
            f"models.task=vllm/tiny@{server.url}",
            "optimizer.steps=1",
        )
    assert result.test[1].mean == 1.0
    assert result.difference.low > 0


def test_sensor_by_a_scripted_model(tmp_path: Path) -> None:
    replies = [suggestion(gain=1.8), suggestion(gain="1.8", offset=-60), suggestion(gain=1.8, offset="-12.5")]
    left = iter(replies)

    def reply(request: dict[str, Any]) -> str:
        assert "degrees where the true temperature is" in request["messages"][1]["content"]
        return next(left, "TERMINATE")

    with LoopbackServer(reply, models=("tiny",)) as server:
        models = f"models.task=vllm/tiny@{server.url}"
        result = run(
            "sensor", tmp_path / "run", models, f"models.optimizer=vllm/tiny@{server.url}", "optimizer.steps=3"
        )
        repair = server.received[-2].body["messages"][-1]["content"]
    assert "offset: must be a number between -50.0 and 50.0, got -60" in repair
    assert result.best.values == {"gain": 1.8, "offset": -12.5}
    assert result.test[1].mean == 0.0


FIXED = '''def minutes(text: str) -> int:
    """Return the number of minutes in a duration such as '45m', '2h' or '1h 30m'."""
    hours, _, rest = text.rpartition("h")
    return 60 * int(hours or 0) + int(rest.strip().rstrip("m") or 0)
'''


def repair(tmp_path: Path, *overrides: str) -> RunResult:
    def reply(request: dict[str, Any]) -> str:
        prompt = request["messages"][1]["content"]
        assert "invalid literal for int()" in prompt
        name = next(name for name in re.findall(r"[\w.]+", prompt.rsplit("The variables are:", 1)[1]))
        return suggestion(**{name.rstrip("."): FIXED})

    with LoopbackServer(reply, models=("tiny",)) as server:
        models = f"models.task=vllm/tiny@{server.url}"
        return run(
            "repair",
            tmp_path / "run",
            models,
            f"models.optimizer=vllm/tiny@{server.url}",
            "optimizer.steps=1",
            *overrides,
        )


def test_repair_of_a_function_until_its_tests_pass(tmp_path: Path) -> None:
    result = repair(tmp_path)
    assert result.test[0].mean is not None
    assert result.test[0].mean < 1.0
    assert result.test[1].mean == 1.0


def test_repair_in_this_process_needs_permission(tmp_path: Path) -> None:
    error = SandboxError("no sandbox here: no Landlock", kind="unavailable")
    with mock.patch("optograph.graphs.sandboxed._sandbox", side_effect=error):
        with pytest.raises(UserError, match="allow_unsandboxed"):
            repair(tmp_path / "refused")
        result = repair(tmp_path / "allowed", "workflow.allow_unsandboxed=true")
    assert result.test[1].mean == 1.0
