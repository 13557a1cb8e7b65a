"""The usual parts of a training: TRL and PEFT train, a vLLM server of our own serves."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.jobs.job import Job
from optograph.jobs.training.chain import uses_momentum
from optograph.jobs.training.fine_tuning import read_demonstrations, rows_of_demonstrations
from optograph.jobs.training.parts import Moved, Parts, PolicyServer, Progress, Trained
from optograph.jobs.training.section import PolicySection, ServerSection
from optograph.optimizers.policy import TrainingRow
from optograph.optimizers.policy.base import BaseModelFiles, base_model
from optograph.optimizers.policy.config import PolicyConfig
from optograph.serving import LM, Capabilities, load_lm
from optograph.serving.vllm.adapters import Probe, check_servable, read_adapter_config

if TYPE_CHECKING:
    from optograph.optimizers.policy.training import TrainedPolicy

CAPABILITIES = Capabilities(json_schema=True, choice=True, regex=True, logprobs=True, token_ids=True, max_logprobs=20)
"""What vLLM can do."""

_LARGEST_RANK = 512  # that vLLM takes
LOG = "server.log"
"""Name of the server's log in the run directory."""


def default_parts(job: Job, folder: Path, run_dir: Path) -> Parts:
    """Make trainer and server of a job.

    Args:
        job: The job, with a ``[policy]`` table.
        folder: Folder of the job file.
        run_dir: Directory of the run.

    Raises:
        UserError: The base model is not there, or what trains is not installed.
    """
    section = job.policy
    if section is None:
        raise UserError("the job has no [policy] table")
    _check_installed(section)
    name = section.base or job.models.task_model().name
    relative = folder / name
    base = base_model(relative if relative.is_dir() else name)

    options = server_options(section, folder)

    def make_server() -> PolicyServer:
        from optograph.serving.vllm import VLLMServer

        return VLLMServer(base.folder, log=run_dir / LOG, **options)

    embedded: Callable[[], LM] | None = None
    if section.first == "embedded":
        model = job.models.task_model()
        if not model.name.startswith("local/"):
            raise UserError(f"policy.first = 'embedded' needs a model in this process, not {model.name!r}")

        def embedded() -> LM:
            return load_lm(model.name, **model.options)

    return Parts(PolicyTrainer(base), make_server, CAPABILITIES, embedded)


def _check_installed(section: PolicySection) -> None:
    """Find out now, and not after hours of training, whether everything is there."""
    from optograph.serving.vllm import find_vllm

    missing = [name for name in ("torch", "transformers", "trl", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"training needs {', '.join(missing)}: pip install 'optograph[train]'")
    find_vllm(section.server.python)


def server_options(section: PolicySection, folder: Path) -> dict[str, Any]:
    """Return the server's options: those that the job gives, and ranks and numbers of adapters as it needs them.

    Args:
        section: The job's table.
        folder: Folder of the job file, which a given adapter is relative to.

    Raises:
        UserError: A given adapter cannot be served, or the job gives the server too small a rank.
    """
    server: ServerSection = section.server
    rank = _first_rank(section, folder) * (2 if uses_momentum(section) else 1)
    if rank > min(server.max_lora_rank or _LARGEST_RANK, _LARGEST_RANK):
        raise UserError(
            f"the job's adapters reach rank {rank} (a new one keeps the rank of what it began from, and momentum adds "
            f"two up), and the server takes {server.max_lora_rank or _LARGEST_RANK}: raise policy.server.max_lora_rank "
            f"(up to {_LARGEST_RANK}), or train with a smaller rank"
        )
    own = {"python", "device", "dtype", "max_model_len", "block_size", "kv_cache_gb", "threads", "ready_timeout_s"}
    options = {name: getattr(server, name) for name in own}
    return options | {
        "extra": tuple(server.extra),
        "max_lora_rank": server.max_lora_rank or rank,
        "max_loras": server.max_loras or len(section.adapter_names),
        "seed": section.seed % 2**31,
    }


def _first_rank(section: PolicySection, folder: Path) -> int:
    """Return the rank that all trained adapters have: that of what they began from."""
    if section.start is None:
        return section.rank
    if section.start.adapter is None:
        return section.first_training().rank
    given = folder / section.start.adapter
    check_servable(given, max_rank=_LARGEST_RANK)
    config = read_adapter_config(given)
    return max(int(config["r"]), *(int(one) for one in (config.get("rank_pattern") or {}).values()), 1)


class PolicyTrainer:
    """Trains over one base model with `train_policy`.

    Args:
        base: The base model.
    """

    def __init__(self, base: BaseModelFiles) -> None:
        self.base = base

    @property
    def pinned(self) -> Mapping[str, str]:
        """Hashes of the base model's weights and chat template."""
        return {
            "policy.base weights": self.base.weights_hash,
            "policy.base chat template": self.base.chat_template_hash,
        }

    def sft_rows(self, file: Path) -> Sequence[TrainingRow]:
        """Read prompts and answers, and put them through the base's chat template."""
        return rows_of_demonstrations(read_demonstrations(file), _tokenizer(self.base))

    def train(
        self,
        rows: Sequence[TrainingRow],
        config: PolicyConfig,
        *,
        out: Path,
        start: Path | None,
        reference: Path | None,
        previous: Path | None,
        progress: Progress,
    ) -> Trained:
        """Train with TRL."""
        from optograph.optimizers.policy.training import train_policy

        made = train_policy(
            rows,
            config,
            base=self.base,
            out=out,
            start=start,
            reference=reference,
            previous=previous,
            progress=progress,
        )
        return _trained(made)

    def fresh(self, config: PolicyConfig, *, out: Path) -> Trained:
        """Write an adapter that does nothing yet."""
        from optograph.optimizers.policy.models import POLICY, device_of, dtype_of, load_base, save_adapter, with_policy
        from optograph.optimizers.policy.quiet import quiet_libraries

        with quiet_libraries():
            device = device_of(config)
            model = with_policy(load_base(self.base, dtype=dtype_of(config, device), device=device), config, None)
            save_adapter(model, POLICY, out)
        return Trained(out, {}, [], self.probe(out))

    def extrapolate(
        self, current: Path, previous: Path, alpha: float, *, out: Path, rows: Sequence[TrainingRow]
    ) -> Moved:
        """Extrapolate in the space of weights."""
        from optograph.optimizers.policy.extrapolation import extrapolate_adapter

        moved = extrapolate_adapter(current, previous, alpha, out, base=self.base, rows=rows)
        return Moved(moved.folder, moved.realised_share, self.probe(moved.folder, start=current))

    def probe(self, adapter: Path, start: Path | None = None) -> Probe:
        """Probe an adapter with a sentence of the tokenizer's."""
        from optograph.optimizers.policy.probe import make_probe

        return make_probe(self.base, adapter, [sample_row(self.base)], start=start)

    def merge(self, adapter: Path, out: Path) -> Path:
        """Write base and adapter as one model."""
        from optograph.optimizers.policy.merging import merge_adapter

        return merge_adapter(self.base.folder, adapter, out)


def _trained(made: TrainedPolicy) -> Trained:
    return Trained(made.folder, made.metrics, made.history, made.probe)


def _tokenizer(base: BaseModelFiles) -> Any:
    from optograph.optimizers.policy.models import load_tokenizer
    from optograph.optimizers.policy.quiet import quiet_libraries

    with quiet_libraries():
        return load_tokenizer(base)


def sample_row(base: BaseModelFiles) -> TrainingRow:
    """Return a row of some tokens of the base's vocabulary, for adapters that have seen no rows yet."""
    tokenizer = _tokenizer(base)
    ids = tuple(
        tokenizer("To find out how much is left, take away what was used.", add_special_tokens=False)["input_ids"]
    )
    return TrainingRow(
        rollout="probe",
        example="probe",
        call=0,
        node=None,
        adapter="policy",
        policy="text",
        input_ids=ids,
        action_mask=(False,) + (True,) * (len(ids) - 1),
        reward=0.0,
        run_tokens=len(ids) - 1,
        weight=1.0,
    )
