"""An existing LangGraph app is optimized in place: its whole job runs, and its own file knows nothing of it."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel

from optograph.jobs import load_job, run_job
from optograph.storage import Journal
from optograph.testing import LoopbackServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "langgraph_qa"
APP = EXAMPLE / "qa_app.py"
BETTER = "Read the passage, then reply with one short sentence."


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (EXAMPLE / "data" / f"{name}.jsonl").read_text().splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def holds(text: str, part: str) -> bool:
    said, wanted = words(text), words(part)
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said)))


def test_the_whole_job_and_the_app_stays_as_it_is(tmp_path: Path) -> None:
    answers = {row["question"]: row["answer"] for split in ("train", "dev", "test") for row in rows(split)}
    before = APP.read_bytes()

    def reply(request: dict[str, Any]) -> str:
        system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
        if system.startswith("Rewrite"):
            return json.dumps({"instruction": BETTER})
        passage, asked = question.removeprefix("Passage: ").split("\n\nQuestion: ")
        return f"It is {answers[asked]}." if "short" in system else f"Well, {passage}"

    few = [
        f'task.{split}={{path="data/{split}.jsonl", limit={limit}}}'
        for split, limit in (("train", 12), ("dev", 12), ("test", 16))
    ]
    with LoopbackServer(reply, models=("tiny",)) as server:
        overrides = [*few, f"models.task=vllm/tiny@{server.url}", "optimizer.steps=1"]
        result = run_job(load_job(EXAMPLE / "job.toml", overrides), EXAMPLE, tmp_path / "run")
    assert dict(result.best.values)["answer.ANSWER"] == BETTER
    assert result.test[0].mean == 0.0
    assert result.test[1].mean == 1.0
    assert result.difference.low > 0
    assert APP.read_bytes() == before
    with Journal.open(tmp_path / "run") as journal:
        nodes = {call.context["node"] for call in journal.calls() if call.context["role"] == "task"}
    assert nodes == {"answer"}
    assert "answer.ANSWER" in (tmp_path / "run" / "report.html").read_text()


def test_the_app_is_an_ordinary_one() -> None:
    assert not re.search(r"optograph", APP.read_text())
    app = runpy.run_path(str(APP))["build"]
    model = FakeListChatModel(responses=["It was Edda Moller."])
    state = app(model).invoke({"question": "Who was the last keeper of Halder Lighthouse?"})
    assert state["answer"] == "It was Edda Moller."
    assert state["grounded"] is True
    made_up = FakeListChatModel(responses=["A pirate called Jack.", "Jack Sparrow."])
    state = app(made_up).invoke({"question": "Who was the last keeper of Halder Lighthouse?"})
    assert (state["answer"], state["tries"], state["grounded"]) == ("I do not know.", 2, False)
    assert state["passage"] == "Halder Lighthouse stands on the northern tip of Tarrow island."


def test_the_data_is_what_its_page_says() -> None:
    documents = {row["title"]: row["text"] for row in rows("documents")}
    splits = {split: rows(split) for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in splits.items()} == {"train": 66, "dev": 106, "test": 152}
    asked = [row["question"] for found in splits.values() for row in found]
    assert len(set(asked)) == len(asked)
    homes = {split: {row["document"] for row in found} for split, found in splits.items()}
    assert sum(len(home) for home in homes.values()) == len(documents) == len(set().union(*homes.values()))
    best = runpy.run_path(str(APP))["Collection"](EXAMPLE / "data" / "documents.jsonl").best
    missed = 0
    for row in (row for found in splits.values() for row in found):
        assert holds(documents[row["document"]], row["answer"]), row
        assert not holds(row["question"], row["answer"]), row
        missed += best(row["question"]) != documents[row["document"]]
    assert missed <= 1


def test_the_score() -> None:
    score = runpy.run_path(str(EXAMPLE / "score.py"))["short_and_right"]
    assert score("rye bread", "It bakes Rye bread.")[0] == 1.0
    assert score("rye bread", "It bakes bread of rye.")[0] == 0.0
    assert score("17", "There are 171 players.")[0] == 0.0
    long = "It is rye bread that the bakery on Mill Street is known for in town"
    assert score("rye bread", long) == (0.0, "The answer is right, but has 14 words; at most 10 can be shown.")
