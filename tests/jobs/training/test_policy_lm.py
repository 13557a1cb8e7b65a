"""What is asked of a policy: seeds and token ids, the adapter of the candidate in force, and who gets which."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import BaseModel

from optograph.agents import Step, StepOptions
from optograph.context import call_context
from optograph.errors import ServingError, StorageError
from optograph.graphs import Candidate, applying
from optograph.jobs.training.parameters import adapter_parameters, adapters_in
from optograph.jobs.training.policy_lm import AdapterLM, PolicyLM, Sampling
from optograph.jobs.training.serving import Serving
from optograph.jobs.training.store import AdapterStore
from optograph.serving import Budget, Request, ScriptedLM, counting_draws
from optograph.stopping import StopRequest
from optograph.storage import Journal
from tests.jobs.training.toys import ToyServer, skill_of, write_adapter

ASKED = Request(prompt="train 1?", max_tokens=4)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """Where adapters are."""
    return AdapterStore(tmp_path / "run")


@pytest.fixture
def server() -> ToyServer:
    """A server."""
    return ToyServer([])


@pytest.fixture
def lm(store: AdapterStore, server: ToyServer) -> PolicyLM:
    """A policy with two adapters; the judge is not trained."""
    serving = Serving(lambda: server, store, lambda hash_: None, 0.1)
    names: dict[str | None, str] = {"plan": "one", "solve": "two"}
    parameters = adapter_parameters(["one", "two"])
    inner = AdapterLM("local/toy", ScriptedLM([]).capabilities, serving, parameters, names.get, "w")
    return PolicyLM(inner, Journal.memory(), Budget(), StopRequest(), seed=7)


def asked(lm: PolicyLM) -> list[Request]:
    """Return the requests that were recorded, in order."""
    return [Request.from_json(lm.journal.get(row.request)) for row in lm.journal.calls()]


def test_equal_questions_of_a_rollout_are_different_draws(lm: PolicyLM) -> None:
    lm.sampling = Sampling(0.7)
    for example in ("a", "b"):
        with counting_draws(), call_context(example=example, node="plan"):
            for _ in range(2):
                asyncio.run(lm.complete(ASKED))
    first, second, other, _ = asked(lm)
    assert (first.seed, first.draw, second.draw) == (second.seed, 0, 1)
    assert first.sampling_seed != second.sampling_seed
    assert other.seed != first.seed
    assert {one.temperature for one in asked(lm)} == {0.7}
    again = len(lm.journal.calls())
    with counting_draws(), call_context(example="a", node="plan"):
        asyncio.run(lm.complete(ASKED))
    assert len(lm.journal.calls()) == again


def test_only_trained_nodes_are_sampled_and_seeds_of_the_workflow_stay(lm: PolicyLM) -> None:
    lm.sampling = Sampling(1.0, logprobs=False)
    with counting_draws(), call_context(node="judge"):
        asyncio.run(lm.complete(ASKED))
        asyncio.run(lm.complete(Request(prompt="train 1?", max_tokens=4, temperature=0.5, seed=3)))
    with call_context(role="optimizer", node="plan"):
        asyncio.run(lm.complete(ASKED))
    judged, seeded, proposed = asked(lm)
    assert (judged.temperature, judged.seed, judged.token_ids, judged.logprobs) == (0.0, None, True, 0)
    assert (seeded.temperature, seeded.seed) == (0.5, 3)
    assert (proposed.temperature, proposed.token_ids) == (0.0, False)


def test_the_candidate_in_force_names_the_adapter_of_each_node(
    lm: PolicyLM, store: AdapterStore, server: ToyServer, tmp_path: Path
) -> None:
    hashes = [store.copy(write_adapter(tmp_path / str(skill), skill)) for skill in (0.0, 1.0)]
    candidate = Candidate(dict(zip(("adapter.one", "adapter.two"), hashes, strict=True)))
    assert adapters_in(candidate.values) == {"one": hashes[0], "two": hashes[1]}
    with applying(candidate), call_context(node="plan"):
        assert asyncio.run(lm.complete(ASKED)).text.startswith("no")
    with applying(candidate), call_context(node="solve"):
        answer = asyncio.run(lm.complete(ASKED))
    assert answer.text == "yes 1"
    assert answer.identity.weights == f"w+{hashes[1]}"
    assert answer.identity.served_name == f"policy@{hashes[1][:16]}"
    with call_context(node="solve"):
        assert asyncio.run(lm.identity()).weights == "w"
    assert server.log == ["start", "load 0.000", "load 1.000"]


def test_the_store_keeps_whole_adapters_by_content(store: AdapterStore, tmp_path: Path) -> None:
    one, two = (store.copy(write_adapter(tmp_path / str(skill), skill)) for skill in (0.25, 0.5))
    draft = store.draft("again")
    assert store.adopt(write_adapter(draft, 0.25)) == one
    assert not draft.exists()
    assert skill_of(store.folder(two)) == 0.5
    write_adapter(store.draft("left over"), 0.75)
    assert store.draft("left over").exists() is False
    assert store.prune({two}) == [one[:16]]
    with pytest.raises(StorageError, match="is gone"):
        store.folder(one)
    (store.path(two) / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 3}')
    with pytest.raises(StorageError, match="was changed"):
        store.folder(two)


@pytest.mark.parametrize("kind", ["start", "stopped"])
def test_a_server_that_fails_ends_the_run(
    lm: PolicyLM, server: ToyServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def fail(*given: object) -> ToyServer:
        raise ServingError("no memory", kind=kind)

    monkeypatch.setattr(server, "start" if kind == "start" else "lm", fail)
    with pytest.raises(ServingError, match="no memory") as caught:
        asyncio.run(lm.complete(ASKED))
    assert caught.value.kind == "down"


class _Question(BaseModel):
    text: str


class _Reply(BaseModel):
    answer: str


def test_the_seed_that_a_step_has_does_not_make_rollouts_alike(store: AdapterStore, lm: PolicyLM) -> None:
    plan = Step("plan", lm=lm, inputs=_Question, output=_Reply, instruction="Answer.", options=StepOptions(repairs=0))
    lm.sampling = Sampling(1.0, logprobs=False)
    for example in ("a", "b"):
        for repeat in (1, 2):
            with counting_draws(), call_context(example=example, repeat=repeat):
                plan(text="train 1?")
    assert len({one.sampling_seed for one in asked(lm)}) == 4
    lm.sampling = None
    with counting_draws(), call_context(example="a"):
        plan(text="train 2?")
    assert asked(lm)[-1].seed == StepOptions().seed
