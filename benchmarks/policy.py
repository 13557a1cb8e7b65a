"""What training a policy is worth, seed by seed: OREO, and momentum DPO beside its two controls, on the sealed test.

The arithmetic example without its acceptance test: each seed fine-tunes SmolLM2-135M on the 44 demonstrations, then
every arm starts from there. Arms of DPO run the same rounds on rollouts of their own policies: momentum (alpha 0.3),
iterative DPO (alpha 0), and iterative DPO with beta times 0.7, which is the control that momentum must be compared
with, since it is a larger step as well. Settings are those of the example's jobs. The first round of momentum and of
iterative DPO is one and the same training: there is no step yet that could go on.

Fails where OREO or momentum DPO does not gain over the start: the 95 % paired-bootstrap interval over the examples,
averaged over the seeds, must lie above 0. What momentum is worth beside its controls is reported, not asserted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from optograph.evals import Evaluation, Evaluator, EvaluatorOptions, Trial, paired_bootstrap
from optograph.graphs import Candidate
from optograph.jobs import load_job, load_task
from optograph.jobs.targets import call_with, resolve
from optograph.jobs.training.defaults import PolicyTrainer
from optograph.jobs.training.rowset import without_ties
from optograph.optimizers.policy import TrainingRow, base_model, training_rows, with_token_ids
from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.extrapolation import extrapolate_adapter
from optograph.optimizers.policy.training import TrainedPolicy, train_policy
from optograph.serving import LM, JournaledLM
from optograph.serving.vllm import VLLMServer
from optograph.storage import Journal

FOLDER = Path(__file__).parent.parent / "examples" / "arithmetic"
TOLERANCE = 1e-3
"""Largest difference between trainer and server, in nats; both compute in float32."""
ROLLOUTS, ANSWERS = "rollouts", "answers"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        job: Which of the example's jobs has the settings.
        changes: What differs from them.
        beta: Factor on the job's beta.
    """

    job: str
    changes: dict[str, Any]
    beta: float = 1.0


ARMS = {
    "oreo": Arm("oreo", {}),
    "momentum": Arm("momentum_dpo", {}),
    "iterative": Arm("momentum_dpo", {"alpha": 0.0}),
    "matched": Arm("momentum_dpo", {"alpha": 0.0}, beta=0.7),
}
MUST_GAIN = ("oreo", "momentum")


class Bench:
    """The example's workflow on a server, with adapters that come and go.

    Args:
        folder: Where adapters are written.
        server: The server, started.
        train: Train examples that are used; all by default.
    """

    def __init__(self, folder: Path, server: VLLMServer, train: int | None) -> None:
        job = load_job(FOLDER / "oreo.toml", [])
        self.folder, self.server = folder, server
        self.task = load_task(job.task, FOLDER)
        self.examples = tuple(one.id for one in self.task.train[:train])
        self.test = self.task.test.unseal("benchmark")
        self.base = base_model(job.models.task_model().name)
        self._collected: dict[tuple[Path, int], list[TrainingRow]] = {}
        self._trained: dict[tuple[PolicyConfig, Path, Path | None], TrainedPolicy] = {}
        self._scores: dict[Path, list[float]] = {}
        self._build = resolve(job.workflow.target, FOLDER)

    def start(self, seed: int) -> TrainedPolicy:
        """Fine-tune on the demonstrations."""
        section = load_job(FOLDER / "oreo.toml", []).policy
        assert section is not None and section.start is not None
        config = section.first_training().model_copy(update={"seed": seed})
        rows = PolicyTrainer(self.base).sft_rows(FOLDER / str(section.start.rows))
        return train_policy(rows, config, base=self.base, out=self.folder / f"start-{seed}")

    def serve(self, policy: Path) -> tuple[str, LM]:
        """Load an adapter, and return its served name and its model."""
        for name in self.server.adapters():
            self.server.unload_adapter(name)
        name = self.server.load_adapter(policy)
        return name, self.server.lm(name)

    def score(self, made: TrainedPolicy) -> list[float]:
        """Answer the sealed test greedily, with the policy that was trained and no other."""
        if made.folder in self._scores:
            return self._scores[made.folder]
        name, lm = self.serve(made.folder)
        self.server.check_adapter(name, made.probe, tolerance=TOLERANCE)
        trial = Trial(Candidate({}), "test", tuple(one.id for one in self.test))
        evaluator = self._evaluator(lm, Journal.memory(), ANSWERS, 0)
        found = self._scores[made.folder] = scores(evaluator.evaluate_sealed([trial], self.test)[0])
        return found

    def rollouts(self, policy: Path, samples: int, seed: int) -> list[TrainingRow]:
        """Sample answers to the train examples, and make rows of them; all arms share those of the start."""
        if (policy, seed) in self._collected:
            return self._collected[policy, seed]
        (_, lm), journal = self.serve(policy), Journal.memory()
        for repeat in range(samples):
            trial = Trial(Candidate({}), "train", self.examples, repeat)
            self._evaluator(lm, journal, ROLLOUTS, seed * samples + repeat).evaluate([trial])
        rows = self._collected[policy, seed] = without_ties(training_rows(journal).rows)
        return rows

    def _evaluator(self, lm: LM, journal: Journal, kind: str, seed: int) -> Evaluator:
        if kind == ROLLOUTS:
            lm = with_token_ids(lm)
        workflow = call_with(self._build, {"lm": JournaledLM(lm, journal)})
        options = workflow.write.options
        workflow.write.options = replace(options, temperature=1.0 if kind == ROLLOUTS else 0.0, seed=seed)
        return Evaluator(workflow, self.task, {}, journal, EvaluatorOptions(concurrency=48))

    def run(self, name: str, seed: int, start: TrainedPolicy) -> list[list[float]]:
        """Train one arm from the start; returns the scores on the test after each round."""
        arm = ARMS[name]
        section = load_job(FOLDER / f"{arm.job}.toml", []).policy
        assert section is not None
        config = section.training(seed)
        config = config.model_copy(update={**arm.changes, "beta": config.beta_or_default * arm.beta})
        momentum = config.method == "momentum_dpo" and config.alpha > 0
        before: TrainedPolicy | None = None
        now, after = start, []
        for number in range(1, section.rounds + 1):
            out = self.folder / f"{name}-{seed}-{number}"
            previous = before.folder if momentum and before is not None else None
            sampled = now.folder
            if previous is not None:
                moved = extrapolate_adapter(now.folder, previous, config.alpha, out.with_name(f"{out.name}-sampled"))
                sampled = moved.folder
            rows = self.rollouts(sampled, section.samples, 1000 * seed + number)
            config = config.model_copy(update={"seed": 1000 * seed + number})
            before, now = now, self._train(rows, config, out, now.folder, previous)
            after.append(self.score(now))
        return after

    def _train(
        self, rows: list[TrainingRow], config: PolicyConfig, out: Path, start: Path, previous: Path | None
    ) -> TrainedPolicy:
        """Train, or give what another arm trained in the very same way."""
        unused = {"alpha": 0.0} if previous is None and config.method == "momentum_dpo" else {}
        way = (config.model_copy(update=unused), start, previous)
        if way not in self._trained:
            self._trained[way] = train_policy(rows, config, base=self.base, out=out, start=start, previous=previous)
        return self._trained[way]


def main() -> int:
    """Run all arms and print the table."""
    options = arguments()
    table = Table("arm", "seed", "start", "after each round", "gain", "95 % interval", "s")
    starts: list[list[float]] = []
    rounds: dict[str, list[list[list[float]]]] = {name: [] for name in options.arms}
    with tempfile.TemporaryDirectory(prefix="optograph-bench-") as folder:
        base = base_model("local/smollm2-135m")
        with VLLMServer(base.folder, max_model_len=256, max_lora_rank=16, max_loras=1) as server:
            bench = Bench(Path(folder), server, options.train)
            for seed in options.seeds:
                start = bench.start(seed)
                starts.append(bench.score(start))
                for name in options.arms:
                    began = time.monotonic()
                    rounds[name].append(bench.run(name, seed, start))
                    cells = row(starts[-1], rounds[name][-1])
                    table.add_row(name, str(seed), *cells, f"{time.monotonic() - began:.0f}")
                    print(f"{name} seed {seed}: {cells}", file=sys.stderr, flush=True)
    pooled = {name: [mean(list(one)) for one in zip(*runs, strict=True)] for name, runs in rounds.items()}
    for name, after in pooled.items():
        table.add_row(name, "all", *row(mean(starts), after), "", style="bold")
    Console(width=120).print(table)
    gains = {name: paired_bootstrap(mean(starts), after[-1]) for name, after in pooled.items()}
    figures = [f"{name}_gain={one.mean:.3f} {name}_low={one.low:.3f}" for name, one in gains.items()]
    for control in {"iterative", "matched"} & set(pooled) if "momentum" in pooled else ():
        one = paired_bootstrap(pooled[control][-1], pooled["momentum"][-1])
        print(f"momentum less {control}: {one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})")
        figures.append(f"momentum_over_{control}={one.mean:.3f}")
    print(f"seeds={len(options.seeds)}", *figures)
    return 0 if all(gains[name].low > 0 for name in MUST_GAIN if name in gains) else 1


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--train", type=int, help="use so many train examples only")
    return parser.parse_args()


def scores(evaluation: Evaluation) -> list[float]:
    """Return an evaluation's scores; none may be missing."""
    if evaluation.missing:
        raise SystemExit(f"{evaluation.missing} scores are missing, so nothing can be compared")
    return [float(score) for score in evaluation.scores if score is not None]


def mean(rows: list[list[float]]) -> list[float]:
    """Average example by example."""
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def row(start: list[float], after: list[list[float]]) -> list[str]:
    """Format the scores of one row."""
    difference = paired_bootstrap(start, after[-1])
    return [
        f"{sum(start) / len(start):.3f}",
        " ".join(f"{sum(one) / len(one):.3f}" for one in after),
        f"{difference.mean:+.3f}",
        f"{difference.low:+.3f} to {difference.high:+.3f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
