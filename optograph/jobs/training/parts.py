"""The seams of the training loop: what serves a policy, and what trains one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optograph.optimizers.policy import TrainingRow
from optograph.optimizers.policy.config import PolicyConfig
from optograph.serving import LM, Capabilities
from optograph.serving.vllm.adapters import Probe
from optograph.serving.vllm.metrics import ServerMetrics

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Told of steps done, steps in all, and the metrics of the last one; may raise to end the training."""


class PolicyServer(Protocol):
    """Serves a base model and LoRA adapters over it; `VLLMServer` is one."""

    def start(self) -> Any:
        """Start, and return when it answers."""

    def close(self) -> None:
        """End it; nothing is left behind."""

    def load_adapter(self, folder: Path) -> str:
        """Load an adapter, and return the name that it is served under: `served_name` of its hash."""

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter."""

    def check_adapter(self, name: str, probe: Probe, *, tolerance: float) -> float:
        """Make sure that the served adapter is the one that the probe was made of; returns the difference in nats.

        Raises:
            ServedAdapterError: It is not.
        """

    def lm(self, adapter: str | None = None) -> LM:
        """Return a model that answers with an adapter, or with the base."""

    def metrics(self) -> ServerMetrics:
        """Read the server's counters."""


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        folder: The adapter.
        metrics: Figures of the whole training, by name.
        history: Figures of each logged step, in order.
        probe: What the trained policy gives for some answer.
    """

    folder: Path
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    probe: Probe | None


@dataclass(frozen=True)
class Moved:
    """An extrapolated adapter, and which share of the intended step it realises (None where nobody measured it)."""

    folder: Path
    share: float | None
    probe: Probe | None


class Trainer(Protocol):
    """Trains adapters over one base model; the same rows, settings and start give the same weights."""

    @property
    def pinned(self) -> Mapping[str, str]:
        """Hashes of the base model's weights and chat template, by name."""

    def sft_rows(self, file: Path) -> Sequence[TrainingRow]:
        """Read prompts and answers to fine-tune on."""

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
        """Train from an adapter (the base model where it is None), and write the result whole or not at all.

        Args:
            rows: What the policy wrote, and earned.
            config: How to train.
            out: Folder to be made.
            start: The current policy, which training begins from.
            reference: The policy that log-ratios are measured against.
            previous: The policy before it, for momentum; None for no momentum.
            progress: Told of each logged step.
        """

    def fresh(self, config: PolicyConfig, *, out: Path) -> Trained:
        """Write a new adapter that does nothing yet, so that the base model itself can be extrapolated from."""

    def extrapolate(
        self, current: Path, previous: Path, alpha: float, *, out: Path, rows: Sequence[TrainingRow]
    ) -> Moved:
        """Move a policy on by alpha times its last step, in the space of weights."""

    def probe(self, adapter: Path) -> Probe | None:
        """Make the probe of an adapter that was made elsewhere."""

    def merge(self, adapter: Path, out: Path) -> Path:
        """Write the base model with an adapter merged into it."""


@dataclass(frozen=True)
class Parts:
    """What a job's training is done with.

    Attributes:
        trainer: Trains.
        make_server: Makes the server, not started.
        capabilities: What its models can do, known before it is started.
        embedded: Makes the embedded model, for a first round without adapters.
    """

    trainer: Trainer
    make_server: Callable[[], PolicyServer]
    capabilities: Capabilities
    embedded: Callable[[], LM] | None = None
