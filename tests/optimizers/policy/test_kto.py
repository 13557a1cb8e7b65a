"""KTO's batches and the mismatched answers by which it estimates the KL divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.optimizers.policy import PolicyConfig, TrainingRow, train_policy
from optograph.optimizers.policy.trainers import supervised
from tests.optimizers.policy.tiny import make_base, row


def samples(*counts: int) -> list[TrainingRow]:
    """Return rows of prompts with so many different answers each."""
    return [
        row(f"{prompt}+{prompt}=", f"{prompt}{place}", float(place % 2), example=f"e{prompt}", repeat=place)
        for prompt, count in enumerate(counts)
        for place in range(count)
    ]


def parts(made: TrainingRow) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return prompt and answer."""
    return made.input_ids[: made.prompt_length], made.input_ids[made.prompt_length :]


def test_no_part_of_a_batch_holds_a_single_row() -> None:
    for size in range(2, 17):
        for count in range(2, 70):
            found = supervised.kto_size(count, size)
            assert count % found != 1, (count, size)
            assert 2 <= found <= size or all(count % fewer == 1 for fewer in range(2, size + 1))
            assert found == size or count % size == 1
    assert supervised.kto_size(17, 8) == 7


@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (3, 1, 2, 2), (1,) * 8, (5, 2, 1), (7, 1), (2, 2, 2, 2, 2, 2, 1)])
def test_no_prompt_is_measured_with_an_answer_of_its_own(counts: tuple[int, ...]) -> None:
    rows = supervised.kto_order(samples(*counts), 8, seed=0)
    others = supervised.mismatched(rows, 8)
    answers = {parts(one) for one in rows}
    assert [parts(one)[0] for one in others] == [parts(one)[0] for one in rows]
    assert not answers & {parts(one) for one in others}
    if max(counts) <= 4 and len(rows) <= 8:  # then the batch's own answers will do, each once, as TRL advises
        assert sorted(parts(one)[1] for one in others) == sorted(parts(one)[1] for one in rows)


def test_equal_answers_to_different_prompts_are_not_given_to_each_other() -> None:
    rows = [row(prompt, answer, 1.0) for prompt, answer in (("a", "yes"), ("b", "yes"), ("c", "no"), ("d", "yes"))]
    others = supervised.mismatched(rows, 2)
    assert all(parts(one)[1] != parts(other)[1] for one, other in zip(rows, others, strict=True))


def test_a_single_prompt_is_measured_with_its_other_answers() -> None:
    rows = samples(3)
    assert all(
        parts(one)[1] != parts(other)[1] for one, other in zip(rows, supervised.mismatched(rows, 8), strict=True)
    )
    with pytest.raises(UserError, match="all of them are the same"):
        supervised.mismatched([rows[0], rows[0]], 2)


def test_batches_are_what_was_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine rows with a batch size of four: TRL alone would train on one by itself."""
    seen: list[int] = []
    compute: Any = supervised.RecordedKTOTrainer._compute_loss

    def counted(trainer: Any, model: Any, batch: dict[str, Any], *rest: Any) -> Any:
        seen.append(len(batch["label"]))
        return compute(trainer, model, batch, *rest)

    monkeypatch.setattr(supervised.RecordedKTOTrainer, "_compute_loss", counted)
    config = PolicyConfig.of("kto", epochs=2, batch_size=4, dtype="float32")
    train_policy(samples(3, 3, 3), config, base=make_base(tmp_path / "base"), out=tmp_path / "a")
    assert seen == [3, 3, 3] * 2
