"""The trainers minimize the project's own losses: what TRL computes, what runs cut into calls give, what moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from optograph.errors import UserError
from optograph.optimizers.policy import (
    OREOOptions,
    PolicyConfig,
    TrainingRow,
    extrapolate_adapter,
    momentum_dpo_loss,
    oreo_losses,
    preference_rows,
    train_policy,
)
from optograph.optimizers.policy.base import BaseModelFiles, base_model
from optograph.optimizers.policy.models import (
    CRITIC,
    POLICY,
    add_frozen,
    load_base,
    load_tokenizer,
    lora_config,
    with_policy,
)
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.optimizers.policy.references import score_rows
from optograph.optimizers.policy.steps import step_starts
from optograph.optimizers.policy.trainers.common import arguments, packed
from optograph.optimizers.policy.trainers.oreo import OREOData, OREOTrainer, PolicyCritic
from optograph.optimizers.policy.trainers.preference import MomentumDPOTrainer, dpo_arguments, paired_dataset
from optograph.serving.vllm.adapters import adapter_hash
from tests.optimizers.policy.tiny import make_base, row, sums

CONFIG = PolicyConfig.of("sft", learning_rate=5e-3, batch_size=8, epochs=3, dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base: BaseModelFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two rounds: the one before, and the current one."""
    folder = tmp_path_factory.mktemp("adapters")
    first = train_policy(sums(8), CONFIG, base=base, out=folder / "first")
    second = train_policy(sums(8, seed=1), CONFIG, base=base, out=folder / "second", start=first.folder)
    return first.folder, second.folder


def loaded(base: BaseModelFiles, adapter: Path | None) -> Any:
    with quiet_libraries():
        return with_policy(load_base(base, dtype=torch.float32, device=torch.device("cpu")), CONFIG, adapter)


def totals(model: Any, rows: list[TrainingRow], adapter: str | None = POLICY) -> torch.Tensor:
    return torch.tensor([one.total for one in score_rows(model, rows, adapter, batch_size=4)])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_loss_that_trl_computes_is_momentum_dpos(
    alpha: float, base: BaseModelFiles, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    model = loaded(base, adapters[1])
    add_frozen(model, "previous", adapters[0])
    pairs = preference_rows(sums(4, seed=2))
    chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    current = totals(model, chosen), totals(model, rejected)
    previous = totals(model, chosen, "previous"), totals(model, rejected, "previous")
    data = paired_dataset(pairs, current, previous, alpha)
    common = arguments(CONFIG, tmp_path, torch.device("cpu"), torch.float32, 1)
    with quiet_libraries():
        args = dpo_arguments(common, batch_size=4, beta=0.1)
        trainer = MomentumDPOTrainer(model, args, data, load_tokenizer(base))
        with torch.no_grad():  # as after some steps of training
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_B" in name:
                    parameter.mul_(1.5)
        compute: Any = trainer.compute_loss
        theirs = float(compute(model, trainer.data_collator(list(data))).detach())
    ours = momentum_dpo_loss(
        totals(model, chosen), totals(model, rejected), current=current, previous=previous, beta=0.1, alpha=alpha
    )
    assert theirs == pytest.approx(float(ours.loss), abs=1e-5)
    assert theirs != pytest.approx(0.6931, abs=1e-3)
    assert "ref" not in model.peft_config and trainer.references_computed == 0


def test_without_momentum_it_is_iterative_dpo(
    base: BaseModelFiles, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    def train(name: str, method: str, previous: Path | None = None, **options: Any) -> str:
        settings = CONFIG.model_copy(update={"method": method, **options})
        out = tmp_path / name
        return train_policy(sums(4), settings, base=base, out=out, start=adapters[1], previous=previous).hash

    plain = train("dpo", "dpo")
    assert train("still", "momentum_dpo", adapters[0], alpha=0.0) == plain
    assert train("first", "momentum_dpo", alpha=0.3) == plain  # no round before: no momentum
    assert train("moving", "momentum_dpo", adapters[0], alpha=0.3) != plain


def test_trl_itself_gives_the_same_dpo_step(base: BaseModelFiles, adapters: tuple[Path, Path], tmp_path: Path) -> None:
    """The same start, data and order, with TRL's own reference pass: the same weights to rounding."""
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DPOTrainer

    class Recorded(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *rest: Any, **options: Any) -> Any:
            return dataset

    rows = sums(4)
    settings = CONFIG.model_copy(update={"method": "dpo", "epochs": 1, "batch_size": 4})
    made = train_policy(rows, settings, base=base, out=tmp_path / "ours", start=adapters[1])
    model = loaded(base, adapters[1])
    nothing = torch.zeros(4), torch.zeros(4)
    columns = paired_dataset(preference_rows(rows), nothing, nothing, 0.0)
    data: Dataset = columns.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
    common = arguments(settings, tmp_path, torch.device("cpu"), torch.float32, 1)
    with quiet_libraries():
        args = dpo_arguments(common, batch_size=4, beta=0.1)
        Recorded(model, args=args, train_dataset=data, processing_class=load_tokenizer(base)).train()
    saved = load_file(made.folder / "adapter_model.safetensors")
    theirs = {name.replace(".default", ""): one for name, one in model.named_parameters() if ".default." in name}
    assert set(saved) == set(theirs)
    assert all(torch.allclose(saved[name], theirs[name].detach(), atol=1e-5) for name in saved)


def test_runs_cut_into_calls_train_as_whole_ones(base: BaseModelFiles, tmp_path: Path) -> None:
    """One row of two answers with a tool's text between, or two rows: the same losses and the same gradients."""
    whole, parts = [], []
    for number in range(4):
        one = row(f"{number}+1=", "5", float(number % 2), example=f"e{number}")
        said = row("seen:", "", 0.0).input_ids
        more = row("7", "7", 0.0).input_ids
        ids = one.input_ids + said + more
        mask = (*one.action_mask, *(False,) * len(said), *(True,) * len(more))
        count = {"run_tokens": one.actions + len(more)}
        whole.append(one.model_copy(update={"input_ids": ids, "action_mask": mask, **count}))
        last = (False,) * (len(ids) - len(more)) + (True,) * len(more)
        parts += [
            one.model_copy(update=count),
            one.model_copy(update={"input_ids": ids, "action_mask": last, "call": 1, **count}),
        ]
    found = []
    for rows in (whole, parts):
        model = loaded(base, None)
        torch.manual_seed(1)
        with quiet_libraries():
            model.add_adapter(CRITIC, lora_config(CONFIG))
            both = PolicyCritic(model).double()
            references = score_rows(model, rows, None, batch_size=4, hidden=True)
            with torch.no_grad():
                torch.nn.init.normal_(both.head.weight)
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        torch.nn.init.normal_(parameter, std=0.02)
            data = OREOData(rows, references, size=99, seed=0, kl_counts=True)
            args = {
                **arguments(CONFIG, tmp_path, torch.device("cpu"), torch.float32, 1),
                "remove_unused_columns": False,
            }
            from transformers import TrainingArguments

            trainer = OREOTrainer(
                both, TrainingArguments(**args), data, OREOOptions(beta=0.1, kl_weight=0.01), critic_learning_rate=1e-3
            )
            loss = trainer.compute_loss(both, data[0])
        loss.backward()
        found.append([loss.detach(), *(one.grad for one in both.parameters() if one.grad is not None)])
    assert len(found[0]) == len(found[1]) > 40
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-10)
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm()  # Llama's norms are in float32 whatever the rest is in


def test_extrapolation_is_pefts_cat(base: BaseModelFiles, adapters: tuple[Path, Path], tmp_path: Path) -> None:
    moved = extrapolate_adapter(adapters[1], adapters[0], 0.3, tmp_path / "moved", base=base, rows=sums(8))
    model = loaded(base, adapters[1])
    add_frozen(model, "previous", adapters[0])
    add_frozen(model, "moved", moved.folder)
    model.base_model.add_weighted_adapter([POLICY, "previous"], [1.3, -0.3], "cat", combination_type="cat")
    rows = sums(4, seed=3)
    assert torch.allclose(totals(model, rows, "moved"), totals(model, rows, "cat"), atol=1e-4)
    assert not torch.allclose(totals(model, rows, "moved"), totals(model, rows), atol=1e-2)
    assert moved.rank == 16 and moved.cut == 0.0 and moved.hash == adapter_hash(moved.folder)
    assert moved.realised_share is not None and 0.2 < moved.realised_share < 2.0
    cut = extrapolate_adapter(adapters[1], adapters[0], 0.3, tmp_path / "cut", rank=8)
    assert cut.rank == 8 and 0 < cut.cut < 0.5 and cut.realised_share is None
    add_frozen(model, "cut", cut.folder)
    near = (totals(model, rows, "cut") - totals(model, rows, "moved")).abs().max()
    assert near < (totals(model, rows, None) - totals(model, rows, "moved")).abs().max()


def test_extrapolation_from_the_base_and_by_nothing(adapters: tuple[Path, Path], tmp_path: Path) -> None:
    alone = extrapolate_adapter(adapters[0], None, 0.5, tmp_path / "alone")
    before, after = (load_file(one / "adapter_model.safetensors") for one in (adapters[0], alone.folder))
    name = next(name for name in before if name.endswith("lora_A.weight"))
    pair = name.replace("lora_A", "lora_B")
    assert torch.allclose(after[pair] @ after[name], 1.5 * 2.0 * before[pair] @ before[name], atol=1e-5)
    still = extrapolate_adapter(adapters[1], adapters[0], 0.0, tmp_path / "still")
    assert still.rank == 8
    with pytest.raises(UserError, match="momentum"):
        extrapolate_adapter(adapters[1], adapters[0], 1.0, tmp_path / "never")
    with pytest.raises(UserError, match="exists already"):
        extrapolate_adapter(adapters[1], adapters[0], 0.1, still.folder)


@pytest.mark.parametrize("method", ["oreo", "ipo", "sppo"])
def test_a_base_with_dropout_begins_at_its_reference(method: str, tmp_path: Path) -> None:
    """One batch, the same as that of the references; and so with an adapter from elsewhere that has dropout too."""
    base = make_base(tmp_path / "base", attention_dropout=0.1)
    settings = PolicyConfig.of(method, batch_size=32, epochs=1, dtype="float32")
    name = "margin" if method == "ipo" else "logratio"
    assert train_policy(sums(4), settings, base=base, out=tmp_path / "a").history[0][name] == 0.0
    start = train_policy(sums(4), CONFIG, base=base, out=tmp_path / "start").folder
    given = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps({**given, "lora_dropout": 0.1}))
    went_on = train_policy(sums(4), settings, base=base, out=tmp_path / "b", start=start)
    assert went_on.history[0][name] == pytest.approx(0.0, abs=1e-5)


def test_no_dropout_of_the_base_is_left(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = load_base(base_model(tmp_path), dtype=torch.float32, device=torch.device("cpu")).train()
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert (model.config.resid_pdrop, model.config.embd_pdrop, model.config.attn_pdrop) == (0.0, 0.0, 0.0)


def test_steps_begin_after_lines_and_sentences() -> None:
    texts = ["ask", "Add", " 3", ".", "5", ".", " Then", "\n", "\n", "done", "tool", "end"]
    mask = [False, *[True] * 9, False, True]
    starts = step_starts(range(len(texts)), mask, texts.__getitem__)
    assert [texts[place] for place, start in enumerate(starts) if start] == ["Add", " Then", "done", "end"]
    ended = step_starts(range(4), [False, True, True, True], ["ask", "Add", " 3", "<end>"].__getitem__, {3})
    assert ended == [False, True, False, True]


def test_steps_and_responses_are_trained(base: BaseModelFiles, tmp_path: Path) -> None:
    rows = [row(f"{one}+1=", f"{one}.\n{one + 1}", float(one % 2), example=f"e{one}") for one in range(4)]
    made = {
        level: train_policy(
            rows, PolicyConfig.of("oreo", level=level, epochs=1, dtype="float32"), base=base, out=tmp_path / level
        )
        for level in ("token", "step", "response")
    }
    assert len({one.hash for one in made.values()}) == 3


def test_batches_hold_whole_groups_of_about_the_same_length() -> None:
    groups = [[(group, length) for _ in range(1 + group % 3)] for group, length in enumerate([5, 90, 7, 80, 6, 85, 8])]
    batches = packed(groups, 4, lambda item: item[1], seed=0)
    flat = [item for batch in batches for item in batch]
    assert sorted(flat) == sorted(item for group in groups for item in group)
    assert all(len({id(batch) for batch in batches if item in batch}) == 1 for item in flat)
    assert all(len(batch) <= 4 for batch in batches)
    short = [batch for batch in batches if all(length < 10 for _, length in batch)]
    assert len(short) >= 2 and packed(groups, 4, lambda item: item[1], seed=0) == batches


def test_oreo_loss_is_the_projects(base: BaseModelFiles, tmp_path: Path) -> None:
    """A policy at its reference and a critic of zeros: both losses are the mean of squared rewards."""
    made = train_policy(
        sums(4), PolicyConfig.of("oreo", epochs=1, batch_size=8, dtype="float32"), base=base, out=tmp_path / "a"
    )
    zero = torch.zeros(2, 3)
    ours = oreo_losses(zero, zero, torch.tensor([[0, 1, 1]] * 2), torch.tensor([1.0, 0.0]), OREOOptions(kl_weight=0.0))
    first = made.history[0]
    assert first["policy_loss"] == pytest.approx(float(ours.policy), abs=1e-3)
    assert first["value_loss"] == pytest.approx(float(ours.value), abs=1e-3)
    assert first["kl"] == pytest.approx(0.0, abs=1e-5) and first["beta_effective"] == 0.03
