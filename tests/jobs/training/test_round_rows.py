"""What rounds learn from: rows that teach nothing, ties, and nodes with adapters of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.optimizers.policy import TrainingRow, read_rows
from optograph.storage import Journal
from tests.jobs.training.runs import Run, state_of
from tests.jobs.training.toys import Toy, write_adapter

NODES = ("plan", "judge", "solve")


def test_rounds_without_differences_train_nothing(train: Run, job: Path, tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "given", 1.0)
    toy = Toy()
    result = train(toy, f"policy.start.adapter={given}", "policy.method=dpo")
    assert not toy.trainer.calls
    assert result.best.id == result.start.id
    settled = [one.settled for one in state_of(tmp_path / "run").rounds]
    assert all(one is not None and one.reason.startswith("Nothing to learn") for one in settled)


def test_an_adapter_whose_rows_teach_nothing_is_left_as_it_is(job: Path, train: Run, tmp_path: Path) -> None:
    """The planner's answers all earn the same, which KTO refuses; the solver is trained all the same."""
    app = job.parent / "app.py"
    text = app.read_text(encoding="utf-8")
    text = text.replace(
        "        with call_context",
        "        with call_context(node='plan'):\n"
        "            await lm.complete(Request(prompt=question, max_tokens=4))\n"
        "        with call_context",
    )
    text += (
        "\n\ndef score(expected, output):\n"
        "    good = float(output == expected)\n"
        "    return og.Feedback({'plan': 0.5, 'solve': good}, aggregate='solve')\n"
    )
    app.write_text(text, encoding="utf-8")
    toy = Toy()
    settings = ('policy.adapters={solve = "solver"}', 'policy.credit="per_node"', 'task.scorer="app.py:score"')
    result = train(toy, *settings, "policy.method=kto", "policy.rounds=1")
    (round_,) = state_of(tmp_path / "run").rounds
    assert list(round_.trained) == ["solver"]
    assert result.best.values["adapter.policy"] == ""
    assert [call["rows"] for call in toy.trainer.calls] == [24]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("policy.method=sft", "policy.threshold=2"), "no answer earned as much as the threshold 2.0"),
        (("policy.method=kto", "policy.threshold=-1"), "KTO needs good and bad answers"),
        (("policy.drop_ties=true",), "all answers to a prompt earned the same"),
    ],
)
def test_rounds_that_teach_nothing_say_why(train: Run, tmp_path: Path, settings: tuple[str, ...], reason: str) -> None:
    given = write_adapter(tmp_path / "given", 1.0)
    toy = Toy()
    train(toy, f"policy.start.adapter={given}", "policy.rounds=1", *settings)
    assert not toy.trainer.calls
    settled = state_of(tmp_path / "run").round.settled
    assert settled is not None
    assert settled.reason.startswith(f"Nothing to learn from: {reason}")


def test_examples_with_equal_rollouts_may_be_left_out(train: Run, tmp_path: Path) -> None:
    """What the rows lose is what taught nothing: each example that is left has answers that earned more and less."""
    trained: dict[bool, list[TrainingRow]] = {}
    for drop in (False, True):
        train(Toy(), f"policy.drop_ties={str(drop).lower()}", "policy.rounds=1", directory=tmp_path / str(drop))
        trained[drop] = read_rows(tmp_path / str(drop) / "rows" / "round-001.parquet")
    assert len(trained[False]) == 24
    rewards = {
        row.example: {one.reward for one in trained[False] if one.example == row.example} for row in trained[False]
    }
    assert trained[True] == [row for row in trained[False] if len(rewards[row.example]) == 2]
    assert 0 < len(trained[True]) < 24


def test_nodes_have_adapters_of_their_own(job: Path, train: Run, tmp_path: Path) -> None:
    app = job.parent / "app.py"
    text = app.read_text(encoding="utf-8")
    text = text.replace(
        "        with call_context",
        "        for node in ('plan', 'judge'):\n"
        "            with call_context(node=node):\n"
        "                await lm.complete(Request(prompt=question, max_tokens=4))\n"
        "        with call_context",
    )
    app.write_text(text, encoding="utf-8")
    toy = Toy()
    result = train(toy, 'policy.nodes=["plan", "solve"]', 'policy.adapters={solve = "solver"}', "policy.rounds=1")
    assert {"adapter.policy", "adapter.solver"} <= set(result.best.values)
    assert [call["rows"] for call in toy.trainer.calls] == [24, 24]
    with Journal.read(tmp_path / "run") as journal:
        calls = journal.calls()
    served = {node: {call.identity["served_name"] for call in calls if call.context["node"] == node} for node in NODES}
    adapters = {name: f"policy@{str(result.best.values[name])[:16]}" for name in ("adapter.policy", "adapter.solver")}
    assert served == {
        "judge": {"base"},
        "plan": {"base", adapters["adapter.policy"]},
        "solve": {"base", adapters["adapter.solver"]},
    }
