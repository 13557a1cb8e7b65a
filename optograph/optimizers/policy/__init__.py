"""Weights from journalled runs: rows for training, and the losses of OREO, momentum DPO, IPO and soft SPPO."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles, base_model
from optograph.optimizers.policy.collect import Credit, TracedCredit, broadcast, per_node, training_rows
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.counterfactual import ResamplingLM, Target, counterfactual_rows
from optograph.optimizers.policy.credit import Critic, GraphCredit, by_graph, critic_advantages, group_advantages
from optograph.optimizers.policy.export import read_rows, to_dataset, write_jsonl, write_parquet
from optograph.optimizers.policy.formats import balanced_weights, preference_dataset, sft_dataset, unpaired_dataset
from optograph.optimizers.policy.recording import with_token_ids
from optograph.optimizers.policy.rows import PreferenceRow, TrainingRow, TrainingRows, merge_rows, preference_rows
from optograph.optimizers.policy.search import BestOfLM, SearchResult, StepBeam, best_of_k, step_beam_search

if TYPE_CHECKING:
    from optograph.optimizers.policy.batching import RowBatch, batch_rows
    from optograph.optimizers.policy.critic import AdapterCritic
    from optograph.optimizers.policy.extrapolation import Extrapolated, extrapolate_adapter
    from optograph.optimizers.policy.losses import (
        PreferenceLoss,
        dpo_loss,
        ipo_loss,
        momentum_dpo_loss,
        momentum_reference,
        sppo_loss,
        win_rates,
    )
    from optograph.optimizers.policy.merging import export_gguf, merge_adapter
    from optograph.optimizers.policy.oreo import (
        OREOLosses,
        OREOOptions,
        beta_effective,
        future_logratios,
        oreo_losses,
    )
    from optograph.optimizers.policy.probe import make_probe
    from optograph.optimizers.policy.tensors import masked_sum, token_kl, token_logprobs
    from optograph.optimizers.policy.training import TrainedPolicy, train_policy

_HOME = {
    "extrapolation": ("Extrapolated", "extrapolate_adapter"),
    "critic": ("AdapterCritic",),
    "batching": ("RowBatch", "batch_rows"),
    "losses": (
        *("PreferenceLoss", "dpo_loss", "ipo_loss", "momentum_dpo_loss", "momentum_reference"),
        *("sppo_loss", "win_rates"),
    ),
    "merging": ("export_gguf", "merge_adapter"),
    "oreo": ("OREOLosses", "OREOOptions", "beta_effective", "future_logratios", "oreo_losses"),
    "probe": ("make_probe",),
    "tensors": ("masked_sum", "token_kl", "token_logprobs"),
    "training": ("TrainedPolicy", "train_policy"),
}
_MODULE = {name: f"optograph.optimizers.policy.{file}" for file, names in _HOME.items() for name in names}

__all__ = [
    "AdapterCritic",
    "BaseModelFiles",
    "BestOfLM",
    "Credit",
    "Critic",
    "Extrapolated",
    "GraphCredit",
    "OREOLosses",
    "OREOOptions",
    "PolicyConfig",
    "PreferenceLoss",
    "PreferenceRow",
    "ResamplingLM",
    "RowBatch",
    "SearchResult",
    "StepBeam",
    "Target",
    "TracedCredit",
    "TrainedPolicy",
    "TrainingRow",
    "TrainingRows",
    "balanced_weights",
    "base_model",
    "batch_rows",
    "best_of_k",
    "beta_effective",
    "broadcast",
    "by_graph",
    "counterfactual_rows",
    "critic_advantages",
    "dpo_loss",
    "export_gguf",
    "extrapolate_adapter",
    "future_logratios",
    "group_advantages",
    "ipo_loss",
    "make_probe",
    "masked_sum",
    "merge_adapter",
    "merge_rows",
    "momentum_dpo_loss",
    "momentum_reference",
    "oreo_losses",
    "per_node",
    "preference_dataset",
    "preference_rows",
    "read_rows",
    "sft_dataset",
    "sppo_loss",
    "step_beam_search",
    "to_dataset",
    "token_kl",
    "token_logprobs",
    "train_policy",
    "training_rows",
    "unpaired_dataset",
    "win_rates",
    "with_token_ids",
    "write_jsonl",
    "write_parquet",
]


def __getattr__(name: str) -> Any:
    """Load what needs torch when it is first used: rows are made and written without it."""
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULE[name])
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "trl", "peft", "accelerate", "safetensors"):
            raise
        raise UserError(f"{name!r} needs {error.name}: pip install 'optograph[train]'") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
