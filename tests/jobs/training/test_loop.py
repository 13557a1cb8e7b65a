"""The training loop: phases, verdicts, what rounds begin from, and what is kept; over a policy that is one number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving import Request, ScriptedLM
from optograph.storage import Journal
from tests.jobs.training.runs import Crash, Run, state_of
from tests.jobs.training.toys import Toy, skill_of, write_adapter


def test_two_rounds_raise_the_sealed_score(train: Run, tmp_path: Path) -> None:
    toy = Toy()
    result = train(toy)
    run = tmp_path / "run"
    assert result.difference.mean > 0
    assert result.status == "finished"
    state = state_of(run)
    assert [one.settled and one.settled.kind for one in state.rounds] == ["accepted", "accepted"]
    first, second = state.rounds
    assert first.collected is not None
    assert second.collected is not None
    assert (first.collected.first, second.collected.first) == (1, 4)
    assert (first.collected.prefix_hit_rate, second.collected.prefix_hit_rate) == (0.5, 0.5)
    assert (second.collected.reward or 0) > (first.collected.reward or 0)
    best = result.best.values["adapter.policy"]
    assert best == second.trained["policy"].adapter
    assert second.trained["policy"].start == first.trained["policy"].adapter
    assert [call["start"] is None for call in toy.trainer.calls] == [True, False]
    assert [one.name for one in (run / "adapters").iterdir()] == [best[:16]]
    assert {one.name for one in (run / "rows").iterdir()} == {"round-001.parquet", "round-002.parquet"}
    assert toy.log[0] == "start"
    assert toy.log[-1] == "close"
    assert (run / "report.html").is_file()


def test_journal_keys_hold_the_adapter(train: Run, tmp_path: Path) -> None:
    result = train(Toy())
    with Journal.read(tmp_path / "run") as journal:
        calls = journal.calls()
    weights = {call.identity["weights"] for call in calls}
    assert f"toy+none+{result.best.values['adapter.policy']}" in weights
    assert "toy+none" in weights
    assert len(weights) == 3
    assert {call.identity["served_name"] for call in calls} >= {"base"}


def test_rollouts_are_sampled_with_seeds_and_dev_is_greedy(train: Run, tmp_path: Path) -> None:
    train(Toy(), "policy.rounds=1", "policy.temperature=0.8")
    with Journal.read(tmp_path / "run") as journal:
        calls = [(call, journal.get(call.request)) for call in journal.calls()]
    rollouts = [asked for call, asked in calls if call.context["repeat"] > 0]
    others = [asked for call, asked in calls if call.context["repeat"] == 0]
    assert len(rollouts) == 24
    assert {one["temperature"] for one in rollouts} == {0.8}
    assert len({one["seed"] for one in rollouts}) == 24
    assert {one["logprobs"] for one in rollouts} == {1}
    assert {one["temperature"] for one in others} == {0.0}
    assert all(one["token_ids"] for one in (*rollouts, *others))


def test_a_round_that_loses_is_rolled_back_and_patience_ends_it(train: Run, tmp_path: Path) -> None:
    toy = Toy(lambda number: 0.5 if number == 1 else -0.4)
    result = train(toy, "policy.rounds=6", "policy.patience=2")
    state = state_of(tmp_path / "run")
    assert [one.settled and one.settled.kind for one in state.rounds] == ["accepted", "rejected", "rejected"]
    assert state.why == "no gain in 2 rounds"
    good = state.rounds[0].trained["policy"].adapter
    assert result.best.values["adapter.policy"] == good
    assert [one.trained["policy"].start for one in state.rounds] == ["", good, good]
    assert state.adapters[state.rounds[1].trained["policy"].adapter].outcome == "rolled back"
    _, second, third = (one.collected for one in state.rounds)
    assert second is not None
    assert third is not None
    assert second.first != third.first


def test_without_rollback_the_next_round_goes_on(train: Run, tmp_path: Path) -> None:
    toy = Toy(lambda number: 0.5 if number != 2 else -0.4)
    result = train(toy, "policy.rounds=3", "policy.rollback=false")
    state = state_of(tmp_path / "run")
    one, two, three = (round_.trained["policy"] for round_ in state.rounds)
    assert (two.start, three.start) == (one.adapter, two.adapter)
    assert state.adapters[two.adapter].outcome == "rejected"
    assert result.best.values["adapter.policy"] in (one.adapter, three.adapter)


def test_momentum_samples_from_the_extrapolated_policy(train: Run, tmp_path: Path) -> None:
    toy = Toy(lambda number: 0.3)
    train(toy, "policy.method=momentum_dpo", "policy.rounds=3", "policy.keep=all")
    run = tmp_path / "run"
    state = state_of(run)
    one, two, three = state.rounds
    fresh = one.links["policy"].current
    assert state.adapters[fresh].made == "fresh"
    trained = [fresh, *(round_.trained["policy"].adapter for round_ in state.rounds)]
    skills = [skill_of(run / "adapters" / hash_[:16]) for hash_ in trained]
    links = [round_.links["policy"] for round_ in state.rounds]
    assert [link.current for link in links] == trained[:3]
    assert [link.previous for link in links] == [None, *trained[:2]]
    for link, before, now in zip(links[1:], skills, skills[1:], strict=False):
        sampled = skill_of(run / "adapters" / link.sampling[:16])
        assert sampled == pytest.approx(now + 0.3 * (now - before), abs=1e-6)
    assert links[0].sampling == fresh
    assert [round_.realised for round_ in (one, two, three)] == [{}, {"policy": 0.9}, {"policy": 0.9}]
    with Journal.read(run) as journal:
        candidates = {row.id: journal.get(row.values) for row in journal.candidates()}
    sampling = [candidates[one.collected.candidate]["adapter.policy"] for one in state.rounds if one.collected]
    assert sampling == [link.sampling for link in links]
    calls = toy.trainer.calls
    assert [call["start"] for call in calls] == [pytest.approx(skill, abs=1e-6) for skill in skills[:3]]
    assert [call["reference"] for call in calls] == [call["start"] for call in calls]
    assert calls[0]["previous"] is None
    assert [call["previous"] for call in calls[1:]] == [pytest.approx(skill, abs=1e-6) for skill in skills[:2]]


def test_alpha_zero_and_rollbacks_have_no_momentum(train: Run, tmp_path: Path) -> None:
    train(Toy(), "policy.method=momentum_dpo", "policy.alpha=0", directory=tmp_path / "still")
    assert all(one.links["policy"].previous is None for one in state_of(tmp_path / "still").rounds)
    toy = Toy(lambda number: 0.4 if number == 1 else -0.5)
    train(toy, "policy.method=momentum_dpo", "policy.rounds=3", directory=tmp_path / "back")
    one, two, three = (round_ for round_ in state_of(tmp_path / "back").rounds)
    assert two.links["policy"].previous == one.links["policy"].current
    assert three.links["policy"].previous is None
    assert three.links["policy"].current == one.trained["policy"].adapter
    assert three.links["policy"].sampling == three.links["policy"].current


def test_the_reference_is_the_last_policy_or_the_first(train: Run, tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "given", 0.4)
    for reference, same in (("last", True), ("start", False)):
        toy = Toy()
        options = (f"policy.start.adapter={given}", f"policy.reference={reference}")
        train(toy, *options, directory=tmp_path / reference)
        first, second = toy.trainer.calls
        assert first["reference"] == first["start"] == pytest.approx(0.4)
        assert (second["reference"] == second["start"]) is same
        assert same or second["reference"] == pytest.approx(0.4)


def test_a_wrong_adapter_is_caught_and_the_run_can_go_on(train: Run, tmp_path: Path) -> None:
    toy = Toy()
    toy.server.wrong = lambda skill: 0.3
    with pytest.raises(ServingError, match="not what was trained"):
        train(toy)
    assert state_of(tmp_path / "run").phase == "serve"
    assert "unload" in toy.log[-2]
    result = train(Toy())
    assert result.status == "finished"


def test_the_start_is_an_adapter_or_made_of_rows(train: Run, job: Path, tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "given", 0.6)
    result = train(Toy(), f"policy.start.adapter={given}", "policy.rounds=1", directory=tmp_path / "one")
    state = state_of(tmp_path / "one")
    hash_ = str(result.start.values["adapter.policy"])
    assert state.adapters[hash_].made == "given"
    assert skill_of(tmp_path / "one" / "adapters" / hash_[:16]) == pytest.approx(0.6)
    (job.parent / "sft.jsonl").write_text("a\nb\n", encoding="utf-8")
    toy = Toy()
    settings = ("policy.start.rows=sft.jsonl", "policy.start.epochs=3", "policy.rounds=1")
    result = train(toy, *settings, directory=tmp_path / "two")
    assert [call["method"] for call in toy.trainer.calls] == ["sft", "oreo"]
    state = state_of(tmp_path / "two")
    assert state.adapters[str(result.start.values["adapter.policy"])].made == "sft"
    assert state.rounds[0].trained["policy"].start == result.start.values["adapter.policy"]
    (job.parent / "sft.jsonl").write_text("a\nc\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"policy.start rows"):
        train(Toy(), *settings, directory=tmp_path / "two")


def test_another_base_is_refused(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train(Toy())
    toy = Toy()
    monkeypatch.setattr(type(toy.trainer), "pinned", property(lambda self: {"policy.base weights": "other"}))
    with pytest.raises(UserError, match=r"policy\.base weights.*toy.*other"):
        train(toy)


def test_a_finished_run_asks_nothing_and_more_rounds_go_on(train: Run, tmp_path: Path) -> None:
    first = train(Toy(), "policy.rounds=1")
    again = Toy()
    assert train(again, "policy.rounds=1").best.id == first.best.id
    assert not again.server.asked
    assert not again.trainer.calls
    more = Toy()
    with pytest.raises(UserError, match=r"policy\.rounds: 1 → 3"):
        train(more, "policy.rounds=3")
    train(more, "policy.rounds=3", changed={"policy.rounds"})
    whole = Toy()
    result = train(whole, "policy.rounds=3", directory=tmp_path / "whole")
    assert len(more.trainer.calls) == 2
    assert state_of(tmp_path / "run").incumbent == result.best.to_json()


def test_what_is_kept(train: Run, tmp_path: Path) -> None:
    for keep, count in (('"best"', 1), ("2", 2), ('"all"', 3)):
        directory = tmp_path / f"keep-{count}"
        train(Toy(lambda number: 0.4), "policy.rounds=3", f"policy.keep={keep}", directory=directory)
        assert len(list((directory / "adapters").iterdir())) == count


def test_a_server_may_be_stopped_while_training(train: Run) -> None:
    toy = Toy()
    train(toy, 'policy.server.while_training="stop"', "policy.rounds=1")
    assert [one for one in toy.log if one in ("start", "close")] == ["start", "close", "start", "close"]


@pytest.mark.parametrize("method", ["oreo", "momentum_dpo"])
def test_the_embedded_engine_may_answer_what_comes_before_training(train: Run, tmp_path: Path, method: str) -> None:
    toy = Toy()

    def reply(request: Request) -> str:
        number = str(request.prompt).split()[1].rstrip("?")
        return f"yes {number}" if (request.seed or 0) % 2 else "no"

    toy.embedded = lambda: ScriptedLM(reply, name="embedded")
    credit = "broadcast" if method == "oreo" else "graph"
    train(toy, 'policy.first="embedded"', f"policy.method={method}", f"policy.credit={credit}")
    with Journal.read(tmp_path / "run") as journal:
        names = [call.identity["served_name"] for call in journal.calls() if 0 < call.context["repeat"] <= 3]
        later = [call.identity["served_name"] for call in journal.calls() if call.context["repeat"] > 3]
    assert set(names) == {"embedded"}
    assert "embedded" not in later


def test_a_budget_ends_training_and_more_of_it_goes_on(train: Run, tmp_path: Path) -> None:
    whole = train(Toy(), directory=tmp_path / "whole")
    toy = Toy()
    result = train(toy, "budget.calls=120")
    assert result.status == "budget"
    assert len(toy.server.asked) <= 120
    train(Toy(), "budget.calls=100000", changed={"budget.calls"})
    one, other = ((tmp_path / name / "result.json").read_text() for name in ("run", "whole"))
    assert json.loads(one) == json.loads(other)
    assert whole.best.id == json.loads(one)["best"]["id"]


def test_removed_rows_are_made_again_and_damaged_adapters_are_refused(train: Run, tmp_path: Path) -> None:
    toy = Toy()

    def die(step: int) -> None:
        raise Crash

    toy.trainer.during = die
    with pytest.raises(Crash):
        train(toy)
    run = tmp_path / "run"
    (run / "rows" / "round-001.parquet").write_bytes(b"nonsense")
    again = Toy()

    def die_later(number: int) -> None:
        if again.trainer.calls:
            raise Crash

    again.server.during = die_later
    assert state_of(run).phase == "train"
    with pytest.raises(BaseException) as caught:
        train(again)
    assert isinstance(caught.value, Crash) or isinstance(caught.value.__cause__, Crash)
    assert state_of(run).phase == "evaluate"
    (adapter,) = (run / "adapters").iterdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(Exception, match=r"damaged|changed"):
        train(Toy())
