"""The job file's tables about training: ``[policy]``, ``[policy.start]`` and ``[policy.server]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from optograph.optimizers.policy.config import PolicyConfig

_SHARED = (
    *("rank", "lora_alpha", "target_modules", "learning_rate", "epochs", "batch_size", "warmup", "schedule"),
    *("weight_decay", "max_grad_norm", "seed", "max_length", "dtype", "device", "threads", "gradient_checkpointing"),
)
"""Settings that the first training takes from the table above it, unless it has its own."""


class StartSection(BaseModel):
    """Where the first round begins: an adapter, or one made by supervised fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="allow")

    adapter: str | None = None
    """Folder of a LoRA adapter as PEFT saves it."""
    rows: str | None = None
    """``.jsonl`` file of ``{"prompt", "answer"}``, or ``{"messages", "answer"}``, to fine-tune on before the first
    round; other keys of this table are settings of that training."""

    @property
    def settings(self) -> dict[str, Any]:
        """What differs in the first training: fields of `PolicyConfig`."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_of_both(self) -> StartSection:
        if (self.adapter is None) == (self.rows is None):
            raise ValueError("give an adapter or rows, one of the two")
        if self.adapter is not None and self.settings:
            raise ValueError(f"an adapter is taken as it is, so {sorted(self.settings)!r} means nothing beside it")
        return self


class ServerSection(BaseModel):
    """How the policy is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str | None = None
    """Interpreter that has vLLM; found where it is left out."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    dtype: str = "auto"
    max_model_len: int = Field(default=2048, ge=16)
    max_lora_rank: int | None = Field(default=None, ge=1)
    """Largest rank of an adapter; what the job needs where it is left out."""
    max_loras: int | None = Field(default=None, ge=1)
    """Adapters in one batch; one for each of the job's where it is left out."""
    block_size: int | None = Field(default=None, ge=1)
    kv_cache_gb: float = Field(default=1.0, gt=0)
    threads: int | None = Field(default=None, ge=1)
    ready_timeout_s: float = Field(default=300.0, gt=0)
    extra: list[str] = []
    """Further arguments of the server."""
    tolerance: float | None = Field(default=None, gt=0)
    """Largest difference, in nats, of a token's log-probability between trainer and server: 0.001 for a server in
    float32 (which is a CPU's), else 0.5."""
    while_training: Literal["keep", "stop"] = "keep"
    """Whether the server stays up while weights are trained: ``stop`` frees its memory."""

    @property
    def allowed_difference(self) -> float:
        """The tolerance, or the usual one."""
        if self.tolerance is not None:
            return self.tolerance
        gpu = self.device == "gpu" or (self.device == "auto" and Path("/dev/nvidiactl").exists())
        exact = self.dtype == "float32" or (self.dtype == "auto" and not gpu)
        return 1e-3 if exact else 0.5


class PolicySection(PolicyConfig):
    """How weights are trained, and the rounds in which that is done; beside the fields of `PolicyConfig`."""

    rounds: int = Field(default=3, ge=1)
    samples: int = Field(default=4, ge=1)
    """Rollouts of each train example in a round."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Sampling temperature of the trained nodes while rollouts are collected."""
    reference: Literal["last", "start"] = "last"
    """Policy that log-ratios are measured against: the one that the round began from, or the one before all rounds."""
    history: int = Field(default=1, ge=1)
    """Rounds of rollouts that are trained on, the newest included."""
    drop_ties: bool = False
    """Whether examples whose rollouts all earned the same are left out: they teach little, and cost as much as others.
    Methods on pairs leave them out anyway."""
    credit: Literal["broadcast", "per_node", "graph"] = "broadcast"
    """Credit of a rollout's calls: its score, the named scores of their nodes, or what goes back through its graph.
    OREO takes the score only: its critic shares it out."""
    nodes: list[str] | None = None
    """Nodes that are trained; all where it is left out. Others are answered by the base model."""
    adapters: dict[str, str] = Field({})
    """Adapter of each node; nodes that are not named share one, ``policy``."""
    base: str | None = None
    """Base model; the task's model where it is left out."""
    start: StartSection | None = None
    first: Literal["server", "embedded"] = "server"
    """Who answers the first round's rollouts: ``embedded`` where there is no adapter to begin with."""
    patience: int = Field(default=0, ge=0)
    """Rounds without a gain after which training stops; 0 for never."""
    rollback: bool = True
    """Whether a round that was not accepted is taken back; otherwise the next one goes on from what it trained."""
    keep: Literal["best", "all"] | int = "best"
    """Adapters that stay on the disk: those of start and best, all, or the newest ones of this number as well."""
    alternate: bool = False
    """Whether the job's optimizer works on the prompts after each round, with the weights that were accepted."""
    merge: bool = False
    """Whether the best adapter is merged into a model of its own at the end (``RUN/merged``)."""
    server: ServerSection = ServerSection()

    @field_validator("adapters")
    @classmethod
    def _named(cls, adapters: dict[str, str]) -> dict[str, str]:
        for name in adapters.values():
            if not name.isidentifier():
                raise ValueError(f"an adapter's name is letters, digits and '_', not {name!r}")
        return adapters

    @field_validator("keep")
    @classmethod
    def _some(cls, keep: Any) -> Any:
        if isinstance(keep, int) and keep < 1:
            raise ValueError("the number of adapters to keep is at least 1")
        return keep

    @model_validator(mode="after")
    def _fits(self) -> PolicySection:
        if self.nodes is not None and set(self.adapters) - set(self.nodes):
            raise ValueError(
                f"adapters names nodes that are not trained: {sorted(set(self.adapters) - set(self.nodes))!r}"
            )
        if self.method == "momentum_dpo" and (self.history > 1 or self.reference != "last"):
            raise ValueError("momentum DPO learns from the last policy only: leave history at 1, reference at 'last'")
        if self.method == "grpo":
            raise ValueError("GRPO samples for itself, so it has no rounds here: see docs/training.md")
        if self.method == "oreo" and self.credit != "broadcast":
            raise ValueError(
                f"OREO learns from the reward of the whole run, and its own critic shares it out over the calls, so "
                f"credit {self.credit!r} would give it a wrong target: leave credit at 'broadcast', or take another "
                "method"
            )
        if self.first == "embedded" and self.start is not None:
            raise ValueError("the embedded engine cannot load the adapter of [policy.start]: leave first at 'server'")
        return self

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the adapters that are trained, sorted."""
        shared = self.nodes is None or bool(set(self.nodes) - set(self.adapters))
        return tuple(sorted({*self.adapters.values(), *(("policy",) if shared else ())}))

    def adapter_of(self, node: str | None) -> str | None:
        """Return the adapter of a node, or None where the node is not trained."""
        if node is not None and node in self.adapters:
            return self.adapters[node]
        return "policy" if self.nodes is None or node in self.nodes else None

    def training(self, seed: int) -> PolicyConfig:
        """Return the settings of a round's training."""
        own = {name: getattr(self, name) for name in PolicyConfig.model_fields}
        return PolicyConfig.of(**(own | {"seed": seed}))

    def first_training(self) -> PolicyConfig:
        """Return the settings of the supervised fine-tuning before the first round.

        Raises:
            UserError: A setting of ``[policy.start]`` is unknown or out of range.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        settings = {} if self.start is None else self.start.settings
        return PolicyConfig.of("sft", **(shared | settings))
