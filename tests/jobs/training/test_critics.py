"""Critics in a run: kept by their content beside the policy that they were trained with, pinned and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.errors import StorageError, UserError
from optograph.jobs import load_job
from optograph.jobs.training import chain
from optograph.jobs.training.records import STATE, Link, Training, TrainState
from optograph.jobs.training.store import AdapterStore
from optograph.jobs.training.train import train_job
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.critic_files import critic_hash
from optograph.storage import Journal
from tests.jobs.training.toys import Toy, write_adapter, write_job


def with_critic(folder: Path, skill: float, critic: bytes) -> Path:
    """Write an adapter with a critic."""
    write_adapter(folder, skill)
    write_adapter(folder / "critic", skill)
    (folder / "critic" / "head.safetensors").write_bytes(critic)
    return folder


def test_the_same_policy_with_another_critic_loses_neither(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "run")
    given = [with_critic(tmp_path / name, 0.5, name.encode()) for name in ("one", "two")]
    critics = [critic_hash(one / "critic") for one in given]
    policy, same = (store.copy(one) for one in given)
    assert policy == same
    assert critics[0] != critics[1]
    for critic in critics:
        folder = store.folder(policy, critic)
        assert critic_hash(folder / "critic") == critic
    assert store.folder(policy) == store.path(policy)
    assert [store.copy(one) for one in given] == [policy, policy]  # as after a kill
    assert len(list(store.root.iterdir())) == 2
    assert not store.prune({policy})
    (store.folder(policy, critics[1]) / "critic" / "head.safetensors").write_bytes(b"changed")
    with pytest.raises(StorageError, match="is gone, or was changed"):
        store.folder(policy, critics[1])
    assert store.copy(given[1]) == policy
    assert critic_hash(store.folder(policy, critics[1]) / "critic") == critics[1]
    assert len(store.prune(())) == 2


def test_a_critic_goes_on_with_its_policy() -> None:
    config = PolicyConfig.of("oreo")
    before = {"policy": Link(current="a", sampling="a", critic="of a")}
    made = {"policy": Training(adapter="b", start="a", previous=None, history="", rows=1, critic="of b")}
    assert chain.after_round(config, before, made, rolled_back=False)["policy"].critic == "of b"
    assert chain.after_round(config, before, made, rolled_back=True)["policy"].critic == "of a"


def test_the_critic_of_a_given_start_is_pinned(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", sizes=(4, 6, 4))
    given = with_critic(tmp_path / "given", 0.4, b"head")
    settings = [f"policy.start.adapter={given}", "policy.rounds=1"]
    train_job(load_job(job, settings), job.parent, tmp_path / "run", make_parts=Toy().parts)
    with Journal.read(tmp_path / "run") as journal:
        state = TrainState.model_validate(journal.load_state(STATE))
    assert state.rounds[0].links["policy"].critic == critic_hash(given / "critic")
    (given / "critic" / "head.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match=r"policy\.start critic"):
        train_job(load_job(job, settings), job.parent, tmp_path / "run", make_parts=Toy().parts)
