"""From rows to an adapter: `train_policy`."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import PrinterCallback

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.critic_files import RECORD, checked_critic, critic_hash, found_critic
from optograph.optimizers.policy.models import (
    add_frozen,
    device_of,
    dtype_of,
    load_base,
    load_tokenizer,
    with_policy,
)
from optograph.optimizers.policy.probe import make_probe
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.optimizers.policy.rows import TrainingRow
from optograph.optimizers.policy.trainers.common import Curves, Progress, summary
from optograph.optimizers.policy.trainers.setup import Session, prepare
from optograph.serving.vllm.adapters import Probe, adapter_hash
from optograph.storage import move_whole


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """An adapter that was trained.

    Attributes:
        folder: The adapter in PEFT's form, as vLLM loads it; ``training.json`` beside it says how it came about.
        hash: Its content, see `adapter_hash`.
        metrics: Means over the last quarter of training, ``first_...`` where each began, and ``seconds``.
        history: What was logged, with its ``step``.
        critic: OREO: folder of the critic's adapter and head.
        probe: What the saved adapter says to a row.
    """

    folder: Path
    hash: str
    metrics: dict[str, float]
    history: list[dict[str, float]]
    critic: Path | None
    probe: Probe

    @classmethod
    def load(cls, folder: str | Path) -> TrainedPolicy:
        """Read what `train_policy` wrote.

        Raises:
            UserError: The folder holds no trained policy, or its adapter or critic is another one than was recorded.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            probe = Probe.from_json(record["probe"])
            found = cls(folder, record["hash"], record["metrics"], record["history"], None, probe)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{str(folder)!r} holds no trained policy: {error}") from None
        if adapter_hash(folder) != found.hash:
            raise UserError(f"the adapter in {str(folder)!r} is not the one that was trained: it was changed since")
        return cls(folder, found.hash, found.metrics, found.history, checked_critic(folder), probe)


def train_policy(
    rows: Sequence[TrainingRow],
    config: PolicyConfig,
    *,
    base: BaseModelFiles,
    out: str | Path,
    start: str | Path | None = None,
    reference: str | Path | None = None,
    previous: str | Path | None = None,
    reward: Callable[[str, str], float] | None = None,
    progress: Progress | None = None,
) -> TrainedPolicy:
    """Train one adapter on rows, and write it to a folder.

    The same rows, configuration, base and adapters give the same adapter, byte for byte, on the same kind of machine
    with as many threads. The folder appears when all is done, or not at all.

    Args:
        rows: Rows of one adapter, as `training_rows` gives them. Methods on pairs make them (see `preference_rows`).
        config: How to train.
        base: The frozen base.
        out: Folder for the result; it must not exist yet, or be empty.
        start: Adapter that training begins from; a new one by default. OREO goes on with its critic if it has one,
            which must be the recorded one.
        reference: Adapter of the policy that the new one is compared with; `start` by default, the base where there is
            none. In momentum DPO the policy that the last round trained, also where `start` is its extrapolation.
        previous: Momentum DPO: adapter of the policy that the round before trained. Without it there is no momentum, as
            in the first round.
        reward: GRPO: what an answer earns, given the id of its example and its text.
        progress: Called now and then with the step, the number of steps and what is logged.

    Raises:
        UserError: Rows do not fit the method or the configuration, or a folder is not as it must be.
    """
    _check_rows(rows, config)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} exists already: an adapter never changes, so give a new folder")
    if previous is not None and config.method != "momentum_dpo":
        raise UserError(f"previous is momentum DPO's, and {config.method!r} would not use it")
    if (reward is not None) != (config.method == "grpo"):
        raise UserError("GRPO, and nothing else, takes a reward function: other methods learn from the rows' rewards")
    adapters = {"start": start, "reference": reference, "previous": previous}
    folders = {name: None if one is None else Path(one) for name, one in adapters.items()}
    lineage = {name: None if one is None else adapter_hash(one) for name, one in folders.items()}
    if config.method == "oreo" and folders["start"] is not None:
        critic = checked_critic(folders["start"])
        lineage["critic"] = None if critic is None else critic_hash(critic)
    began = time.monotonic()
    with quiet_libraries(), _numbers(config), tempfile.TemporaryDirectory(prefix="optograph-train-") as scratch:
        curves, session = _trained(rows, config, base, folders, Path(scratch), reward, progress)
        main = PartialState().is_main_process
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.")) / "policy"
        try:
            session.save(new)
            del session
            gc.collect()
            if main:
                probe = make_probe(base, new, rows, start=folders["start"])
                metrics = {**summary(curves.history), "seconds": time.monotonic() - began}
                record = _record(rows, config, base, lineage, new, metrics, curves.history, probe)
                (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                move_whole(new, folder)
        finally:
            shutil.rmtree(new.parent, ignore_errors=True)
        PartialState().wait_for_everyone()
    return TrainedPolicy.load(folder)


def _trained(
    rows: Sequence[TrainingRow],
    config: PolicyConfig,
    base: BaseModelFiles,
    folders: dict[str, Path | None],
    scratch: Path,
    reward: Callable[[str, str], float] | None,
    progress: Progress | None,
) -> tuple[Curves, Session]:
    device = device_of(config)
    PartialState(cpu=device.type == "cpu")  # before anything else makes it with a GPU
    dtype = dtype_of(config, device)
    model: Any = with_policy(load_base(base, dtype=dtype, device=device), config, folders["start"])
    for name in ("reference", "previous"):
        if (adapter := folders[name]) is not None:
            add_frozen(model, name, adapter)
    session = prepare(model, load_tokenizer(base), rows, config, folders["start"], scratch, device, dtype, reward)
    curves = Curves(progress, config.beta_or_default)
    session.trainer.remove_callback(PrinterCallback)
    session.trainer.add_callback(curves)
    session.trainer.train()
    return curves, session


def _check_rows(rows: Sequence[TrainingRow], config: PolicyConfig) -> None:
    if not rows:
        raise UserError("there are no rows to train on: TrainingRows says what was left out, and why")
    names = sorted({row.adapter for row in rows})
    if len(names) > 1:
        raise UserError(f"rows of several adapters {names!r}: train each on its own rows, as adapter_rows gives them")
    longest = max(rows, key=lambda row: len(row.input_ids))
    if len(longest.input_ids) > config.max_length:
        raise UserError(
            f"call {longest.call} of {longest.rollout!r} has {len(longest.input_ids)} tokens, more than max_length "
            f"{config.max_length}: raise it, or leave such rows out; a row that is cut has lost what earned its reward"
        )


def _record(
    rows: Sequence[TrainingRow],
    config: PolicyConfig,
    base: BaseModelFiles,
    lineage: dict[str, str | None],
    new: Path,
    metrics: dict[str, float],
    history: list[dict[str, float]],
    probe: Probe,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.model_dump_json().encode())
    return {
        "hash": adapter_hash(new),
        "config": config.model_dump(mode="json"),
        "base": {"weights": base.weights_hash, "chat_template": base.chat_template_hash},
        "critic": found_critic(new),
        "adapters": lineage,
        "rows": {"count": len(rows), "sha256": digest.hexdigest()},
        "metrics": metrics,
        "history": history,
        "probe": probe.to_json(),
    }


@contextmanager
def _numbers(config: PolicyConfig) -> Iterator[None]:
    """Fix threads and random numbers within the block; the process has its own again after it."""
    threads = torch.get_num_threads()
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        random.seed(config.seed)
        np.random.seed(config.seed)
        torch.manual_seed(config.seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(before[0])
            np.random.set_state(before[1])
