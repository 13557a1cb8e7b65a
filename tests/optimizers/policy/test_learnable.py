"""What a loop is told about rows before it trains is what the trainer itself would say."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.errors import UserError
from optograph.optimizers.policy import PolicyConfig, TrainingRow, train_policy
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.learnable import unlearnable
from tests.optimizers.policy.tiny import make_base, row

PAIR = [row("1+1=", "2", 1.0), row("1+1=", "3", 0.0, repeat=1)]
TIED = [one.model_copy(update={"reward": 0.5}) for one in PAIR]
APART = [row("1+1=", "2", 1.0), row("1+2=", "4", 0.0, example="f")]
TWICE = [PAIR[0], PAIR[0].model_copy(update={"reward": 0.0, "rollout": "c/train/e/1"})]
CASES: list[tuple[str, list[TrainingRow], dict[str, float], str]] = [
    ("dpo", PAIR, {}, ""),
    ("dpo", TIED, {}, "earned the same"),
    ("momentum_dpo", APART, {}, "earned the same"),
    ("ipo", TWICE, {}, "earned the same"),
    ("sppo", PAIR, {}, ""),
    ("sppo", TWICE, {}, ""),
    ("sppo", APART, {}, "earned the same"),
    ("kto", PAIR, {}, ""),
    ("kto", TIED, {}, "0 of 2 earned more"),
    ("kto", PAIR, {"threshold": -1.0}, "2 of 2 earned more"),
    ("kto", PAIR[:1], {}, "only one"),
    ("kto", [PAIR[0], PAIR[0].model_copy(update={"reward": 0.0})], {}, "all of them are the same"),
    ("sft", PAIR, {"threshold": 1.0}, ""),
    ("sft", PAIR, {"threshold": 2.0}, "threshold 2.0"),
    ("oreo", APART, {}, ""),
    ("oreo", [], {}, "no rows"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    """A tiny base."""
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(("method", "rows", "options", "reason"), CASES)
def test_what_cannot_be_learned_is_what_the_trainer_refuses(
    base: BaseModelFiles, tmp_path: Path, method: str, rows: list[TrainingRow], options: dict[str, float], reason: str
) -> None:
    config = PolicyConfig.of(method, batch_size=2, dtype="float32", threads=1, **options)
    found = unlearnable(rows, config)
    try:
        train_policy(rows, config, base=base, out=tmp_path / "a")
    except UserError:
        assert reason, "the trainer refuses these rows"
        assert found is not None
        assert reason in found
    else:
        assert not reason, "the trainer takes these rows"
        assert found is None


def test_rewards_that_are_all_the_same_teach_a_critic_nothing() -> None:
    assert unlearnable(TIED, PolicyConfig.of("oreo")) == "all answers earned the same"
