"""Measure a step of MomentumDPO and of OREO against a DPO step of TRL itself: same model, data and batch, in one run.

Each trainer lives in a process of its own, so that its peak memory is its own; they take turns, a step each, while the
others wait. Passes of the model without gradients are counted: those are the reference's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BAR = 1.10
KINDS = {
    "trl": "TRL DPO",
    "trl-precomputed": "TRL DPO, its references precomputed",
    "momentum": "MomentumDPO",
    "oreo": "OREO, the same answers",
}


@dataclass
class Run:
    """One process with one trainer."""

    process: subprocess.Popen[str]
    prepared: int = 0
    times: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    memory: float = 0.0

    def ask(self) -> list[str]:
        """Let it go on, and read what it says."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> list[str]:
        """Read one line of ours; libraries may print others."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return line[1:].split()
        raise SystemExit(f"a trainer ended early: {self.process.wait()}")


def main() -> int:
    """Print the table and the last line; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="local/smollm2-135m", help="base model, as base_model takes it")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a batch")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each trainer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]), options)
        return 0
    with tempfile.TemporaryDirectory() as name:
        adapters(Path(name), options)
        runs = measure(Path(name), options)
    return report(runs, options)


def adapters(folder: Path, options: argparse.Namespace) -> None:
    """Train the two policies of the rounds before, a step each."""
    from optograph.optimizers.policy import PolicyConfig, base_model, train_policy

    base, rows = base_model(options.base), pairs_of(options)
    for number, start in enumerate((None, folder / "0")):
        config = PolicyConfig(
            method="sft", seed=number, threads=options.threads, batch_size=16, warmup=0, dtype=options.dtype
        )
        train_policy(rows[:16], config, base=base, out=folder / str(number), start=start)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Run]:
    """Start all trainers, and let them take turns."""
    shared = ["--base", options.base, "--pairs", str(options.pairs), "--steps", str(options.steps)]
    shared += ["--threads", str(options.threads), "--dtype", options.dtype]
    runs: dict[str, Run] = {}
    for kind in KINDS:
        command = [sys.executable, __file__, *shared, "--worker", kind, str(folder)]
        runs[kind] = Run(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        runs[kind].prepared = int(runs[kind].hear()[0])  # ready, before the next one starts
    order = list(runs)
    for step in range(options.steps + 1):
        for kind in order[step % len(order) :] + order[: step % len(order)]:
            seconds, passes = runs[kind].ask()
            if step:  # the first one warms up
                runs[kind].times.append(float(seconds))
                runs[kind].passes.append(int(passes))
    for run in runs.values():
        run.memory = float(run.ask()[0])
        run.process.wait()
    return runs


def report(runs: dict[str, Run], options: argparse.Namespace) -> int:
    """Print what was measured."""
    table = Table(title=f"{options.pairs} pairs a step, {options.base}, {options.dtype}, {options.threads} threads")
    for column in ("trainer", "s/step", "of TRL", "peak MB", "of TRL", "reference passes", "before training"):
        table.add_column(column, justify="left" if column == "trainer" else "right")
    raw = runs["trl"]
    # The median of each turn's ratio: a busy moment spoils a turn, not the figure.
    ratios = {
        kind: statistics.median(one / other for one, other in zip(run.times, raw.times, strict=True))
        for kind, run in runs.items()
    }
    for kind, run in runs.items():
        figures = [f"{statistics.median(run.times):.2f}", f"{ratios[kind]:.2f}", f"{run.memory:.0f}"]
        figures += [
            f"{run.memory / raw.memory:.2f}",
            f"{sum(run.passes) / len(run.passes):.0f} a step",
            str(run.prepared),
        ]
        table.add_row(KINDS[kind], *figures)
    Console(width=120).print(table)
    ours, best = runs["momentum"], runs["trl-precomputed"]
    time_ratio, memory_ratio = ratios["momentum"], ours.memory / raw.memory
    precomputed = statistics.median(one / other for one, other in zip(ours.times, best.times, strict=True))
    print(
        f"momentum_time={time_ratio:.3f} momentum_memory={memory_ratio:.3f} "
        f"momentum_over_precomputed={precomputed:.3f} "
        f"momentum_reference_passes={sum(ours.passes)} trl_reference_passes={sum(raw.passes)} "
        f"oreo_time={ratios['oreo']:.3f} oreo_memory={runs['oreo'].memory / raw.memory:.3f}"
    )
    kept = (
        max(time_ratio, memory_ratio, precomputed) <= BAR and not sum(ours.passes) and sum(raw.passes) >= options.steps
    )
    return 0 if kept else 1


def pairs_of(options: argparse.Namespace) -> list[Any]:
    """Return rows of two answers each to prompts, one batch of pairs: about 48 tokens a row."""
    from optograph.optimizers.policy import TrainingRow, base_model
    from optograph.optimizers.policy.models import load_tokenizer

    tokenizer = load_tokenizer(base_model(options.base))
    rows = []
    for number in range(options.pairs):
        turn = {"role": "user", "content": f"How much is {number} plus {number + 3}?"}
        prompt = tokenizer.apply_chat_template([turn], add_generation_prompt=True, return_dict=False)
        for reward, total in ((1.0, 2 * number + 3), (0.0, 2 * number + 4)):
            answer = tokenizer(f"That makes {total} in all.", add_special_tokens=False)["input_ids"]
            ids, mask = (*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer)
            common = {"call": 0, "node": None, "adapter": "policy", "policy": "p", "weight": 1.0}
            changes = {"input_ids": ids, "action_mask": mask, "reward": reward, "run_tokens": len(answer)}
            rollout = f"c/train/{number}/{reward}"
            rows.append(TrainingRow.model_validate({"rollout": rollout, "example": str(number), **common, **changes}))
    return rows


def work(kind: str, folder: Path, options: argparse.Namespace) -> None:
    """Be one trainer: say when it is ready, then make a step for each line that comes in."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from optograph.optimizers.policy import PolicyConfig, base_model
    from optograph.optimizers.policy.models import (
        add_frozen,
        device_of,
        dtype_of,
        load_base,
        load_tokenizer,
        with_policy,
    )
    from optograph.optimizers.policy.quiet import quiet_libraries
    from optograph.optimizers.policy.trainers.setup import prepare

    torch.set_num_threads(options.threads)
    rows, base = pairs_of(options), base_model(options.base)
    method = "oreo" if kind == "oreo" else "momentum_dpo"
    size = options.pairs * (2 if kind == "oreo" else 1)  # the same answers
    config = PolicyConfig.of(method, batch_size=size, epochs=options.steps + 1, dtype=options.dtype, seed=0)
    device = device_of(config)
    dtype = dtype_of(config, device)
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += not torch.is_grad_enabled()

    class Turns(TrainerCallback):
        def on_step_begin(self, *args: Any, **rest: Any) -> None:
            sys.stdin.readline()
            self.began, self.before = time.perf_counter(), passes

        def on_step_end(self, *args: Any, **rest: Any) -> None:
            print(f"@{time.perf_counter() - self.began} {passes - self.before}", flush=True)

    with quiet_libraries(), tempfile.TemporaryDirectory() as scratch:
        model: Any = with_policy(load_base(base, dtype=dtype, device=device), config, folder / "1")
        model.get_base_model().base_model.register_forward_pre_hook(count)
        if kind == "momentum":
            add_frozen(model, "previous", folder / "0")
        if kind.startswith("trl"):
            precomputed = kind == "trl-precomputed"
            trainer = raw_trainer(model, load_tokenizer(base), rows, config, Path(scratch), precomputed=precomputed)
        else:
            made = prepare(model, load_tokenizer(base), rows, config, folder / "1", Path(scratch), device, dtype)
            trainer = made.trainer
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Turns())
        print(f"@{passes}", flush=True)
        trainer.train()
    sys.stdin.readline()
    print(f"@{peak_memory()}", flush=True)


def peak_memory() -> float:
    """Return this process's peak in MB; `getrusage` would count what the process that started it had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def raw_trainer(model: Any, tokenizer: Any, rows: list[Any], config: Any, scratch: Path, *, precomputed: bool) -> Any:
    """Return TRL's own DPO trainer, given the token ids so that both sides see the same."""
    import torch
    from trl.trainer.dpo_trainer import DPOTrainer

    from optograph.optimizers.policy import preference_dataset, preference_rows
    from optograph.optimizers.policy.models import device_of, dtype_of
    from optograph.optimizers.policy.trainers.common import arguments
    from optograph.optimizers.policy.trainers.preference import dpo_arguments

    class Recorded(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *rest: Any, **options: Any) -> Any:
            return dataset

    pairs = preference_rows(rows)
    data = preference_dataset(pairs).add_column("length", [len(pair.chosen.input_ids) for pair in pairs])
    device: torch.device = device_of(config)
    common = arguments(config, scratch, device, dtype_of(config, device), int(config.epochs))
    args = dpo_arguments(common, batch_size=config.batch_size, beta=config.beta_or_default)
    args.precompute_ref_log_probs = precomputed
    return Recorded(model, args=args, train_dataset=data, processing_class=tokenizer)


if __name__ == "__main__":
    sys.exit(main())
