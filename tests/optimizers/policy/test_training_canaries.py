"""What is relied on in TRL, PEFT and transformers, so that a new version of theirs says what broke."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.models import CRITIC, POLICY, activate, load_base, lora_config, under, with_policy
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.optimizers.policy.scoring import action_logprobs, hidden_before
from tests.optimizers.policy.tiny import make_base, sums


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


def two_adapters(base: BaseModelFiles) -> Any:
    config = PolicyConfig.of("oreo")
    with quiet_libraries():
        model = with_policy(load_base(base, dtype=torch.float32, device=torch.device("cpu")), config, None)
        model.add_adapter(CRITIC, lora_config(config))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_trainers_can_be_kept_from_tokenizing_and_take_references_as_columns() -> None:
    for trainer in (DPOTrainer, KTOTrainer):
        assert list(inspect.signature(trainer._prepare_dataset).parameters)[:2] == ["self", "dataset"]
        assert "self.precompute_ref_logps" in inspect.getsource(trainer._compute_loss)
    pair = {"prompt_ids": [3, 4], "chosen_ids": [5], "rejected_ids": [6, 7]}
    collated = DataCollatorForPreference(pad_token_id=0)(
        [{**pair, "ref_chosen_logps": -1.5, "ref_rejected_logps": -2.5}]
    )
    assert collated["ref_chosen_logps"].tolist() == [-1.5] and collated["ref_rejected_logps"].tolist() == [-2.5]
    assert collated["completion_mask"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    answer = {"prompt_ids": [3], "completion_ids": [4], "KL_completion_ids": [5], "label": True}
    unpaired = DataCollatorForUnpairedPreference(pad_token_id=0)([{**answer, "ref_logps": -1.0, "ref_KL_logps": -2.0}])
    assert unpaired["ref_KL_logps"].tolist() == [-2.0] and unpaired["KL_input_ids"].tolist() == [[3, 5]]
    assert "prompts" in inspect.signature(GRPOTrainer._tokenize_prompts).parameters
    assert "skip_prepare_dataset" in inspect.getsource(SFTTrainer.__init__)


def test_a_loss_can_say_that_it_is_not_scaled_for_accumulation() -> None:
    assert "loss_is_scaled_for_ga" in inspect.getsource(Trainer.training_step)
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert {"train_sampling_strategy", "use_cpu", "warmup_steps", "logging_nan_inf_filter"} <= names


def test_peft_alone_freezes_the_other_adapter_and_activate_does_not(base: BaseModelFiles) -> None:
    model = two_adapters(base)
    activate(model, CRITIC)
    activate(model, POLICY)
    with under(model, None):
        pass
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" not in name)
    model.set_adapter(POLICY)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if f".{CRITIC}." in name)


@pytest.mark.parametrize("adapter", [CRITIC, None])
def test_a_failure_under_another_adapter_leaves_the_model_as_it_was(base: BaseModelFiles, adapter: str | None) -> None:
    model = two_adapters(base)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with pytest.raises(RuntimeError, match="within"), under(model, adapter):
        raise RuntimeError("within")
    assert model.active_adapter == POLICY
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained


def test_another_adapter_gives_other_hidden_states_and_none_the_bases(base: BaseModelFiles) -> None:
    model = two_adapters(base)
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.tensor([[False, False, True, True]])
    found = {}
    for name in (POLICY, CRITIC, None):
        with under(model, name), torch.no_grad():
            found[name] = hidden_before(model, ids, mask)
    plain = load_base(base, dtype=torch.float32, device=torch.device("cpu"))
    assert torch.equal(found[None], hidden_before(plain, ids, mask))
    assert not torch.allclose(found[POLICY], found[CRITIC]) and not torch.allclose(found[POLICY], found[None])


def test_scores_are_those_of_the_whole_model_whatever_the_padding(base: BaseModelFiles) -> None:
    model = two_adapters(base)
    rows = sorted(sums(4), key=lambda row: len(row.input_ids))[::7]
    length = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([[*row.input_ids, *(0,) * (length - len(row.input_ids))] for row in rows])
    mask = torch.tensor([[*row.action_mask, *(False,) * (length - len(row.input_ids))] for row in rows])
    found = action_logprobs(model, hidden_before(model, ids, mask), ids[mask])
    expected = []
    for row in rows:
        one = torch.tensor([row.input_ids])
        logprobs = model(input_ids=one, attention_mask=torch.ones_like(one)).logits.log_softmax(-1)
        expected += [
            logprobs[0, place - 1, row.input_ids[place]] for place, wrote in enumerate(row.action_mask) if wrote
        ]
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def test_switching_adapters_under_checkpointing_goes_wrong_unless_switched_back(base: BaseModelFiles) -> None:
    """The hazard that OREO's trainer avoids: layers computed again with the adapter that is active by then."""
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[False, True, True, True]])

    def gradient(*, checkpoint: bool, back: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = two_adapters(base)
        model.train()
        if checkpoint:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        activate(model, POLICY)
        loss = action_logprobs(model, hidden_before(model, ids, mask), ids[mask]).sum()
        activate(model, CRITIC)
        if back:
            activate(model, POLICY)
        torch.autograd.backward(loss)
        grads = [one.grad for name, one in model.named_parameters() if f".{POLICY}." in name and one.grad is not None]
        return torch.cat([one.flatten() for one in grads])

    right = gradient(checkpoint=False, back=False)
    assert torch.allclose(gradient(checkpoint=True, back=True), right, atol=1e-5)
    wrong = gradient(checkpoint=True, back=False)
    assert wrong.shape != right.shape or not torch.allclose(wrong, right, rtol=0.05)


def test_pefts_linear_combination_is_wrong_with_a_negative_weight(base: BaseModelFiles) -> None:
    """Why extrapolation is `cat`; once this fails, PEFT has mended it (peft#3004)."""
    model = two_adapters(base)
    weights = {"names": [POLICY, CRITIC], "weights": [1.3, -0.3]}
    for kind in ("cat", "linear"):
        model.base_model.add_weighted_adapter(weights["names"], weights["weights"], kind, combination_type=kind)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    delta = {name: layer.get_delta_weight(name) for name in (POLICY, CRITIC, "cat", "linear")}
    exact = 1.3 * delta[POLICY] - 0.3 * delta[CRITIC]
    assert torch.allclose(delta["cat"], exact, atol=1e-6)
    assert (delta["linear"] - exact).norm() > 0.1 * exact.norm()


def test_an_adapter_on_all_linear_layers_leaves_the_output_layer(base: BaseModelFiles) -> None:
    with quiet_libraries():
        model = get_peft_model(
            load_base(base, dtype=torch.float32, device=torch.device("cpu")),
            LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    assert isinstance(model.get_output_embeddings(), torch.nn.Linear)


def test_nothing_is_reported_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import _telemetry

    monkeypatch.delenv("CI", raising=False)
    started: list[object] = []
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", lambda: started.append(1), raising=False)
    with quiet_libraries():
        _telemetry.send_telemetry("trl/test", library_name="trl", library_version="1")
    assert not started
    assert Path(inspect.getfile(_telemetry)).exists()
