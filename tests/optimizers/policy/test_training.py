"""Policies are trained end to end on a random model: what is learned, that it is repeatable, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from optograph.errors import UserError
from optograph.jobs.training.store import AdapterStore
from optograph.optimizers.policy import (
    PolicyConfig,
    TrainedPolicy,
    TrainingRow,
    extrapolate_adapter,
    make_probe,
    train_policy,
)
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.serving.vllm.adapters import adapter_hash, check_servable
from tests.optimizers.policy.tiny import make_base, row, sums

LEARNS = {
    "sft": ("loss", -0.5),
    "oreo": ("value_loss", -0.1),
    "momentum_dpo": ("rewards/margins", 0.1),
    "dpo": ("rewards/margins", 0.1),
    "ipo": ("margin", 0.5),
    "sppo": ("gain", 0.02),
    "kto": ("rewards/chosen", 0.05),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


def config(method: str, **options: Any) -> PolicyConfig:
    return PolicyConfig.of(
        method, **{"learning_rate": 5e-3, "batch_size": 8, "epochs": 4, "dtype": "float32", **options}
    )


@pytest.mark.parametrize("method", LEARNS)
def test_each_method_learns_from_rows_and_leaves_an_adapter_that_can_be_served(
    method: str, base: BaseModelFiles, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    made = train_policy(
        sums(16),
        config(method),
        base=base,
        out=tmp_path / "a",
        progress=lambda step, steps, _: seen.append((step, steps)),
    )
    name, gain = LEARNS[method]
    change = made.metrics[name] - made.metrics[f"first_{name}"]
    assert change < gain if gain < 0 else change > gain, made.history
    if method not in ("sft", "oreo"):
        chosen, rejected = (made.metrics[f"logratio_{side}"] for side in ("chosen", "rejected"))
        assert chosen > rejected
        assert abs(made.metrics["first_logratio_chosen"]) < abs(chosen)
    assert made.hash == adapter_hash(made.folder)
    check_servable(made.folder, max_rank=8)
    assert seen[-1][0] == seen[-1][1] == made.history[-1]["step"]
    assert TrainedPolicy.load(made.folder) == made
    assert (made.critic is not None) == (method == "oreo")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # nothing half-made is left


_AGAIN = """
import sys
from pathlib import Path
from optograph.optimizers.policy import PolicyConfig, train_policy
from optograph.optimizers.policy.base import base_model
from tests.optimizers.policy.tiny import sums
for number, text in enumerate(sys.argv[3:]):
    config = PolicyConfig.model_validate_json(text)
    print(train_policy(sums(8), config, base=base_model(sys.argv[1]), out=Path(sys.argv[2]) / str(number)).hash)
"""


def test_the_same_rows_and_seed_give_the_same_adapter_in_another_process_too(
    base: BaseModelFiles, tmp_path: Path
) -> None:
    settings = [config(method, epochs=1, threads=1) for method in LEARNS]
    hashes = [train_policy(sums(8), one, base=base, out=tmp_path / "here" / one.method).hash for one in settings]
    command = [sys.executable, "-c", _AGAIN, str(base.folder), str(tmp_path / "there")]
    command += [one.model_dump_json() for one in settings]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.split() == hashes
    other = settings[1].model_copy(update={"seed": 1})
    assert train_policy(sums(8), other, base=base, out=tmp_path / "other").hash not in hashes


def test_grpo_samples_and_is_rewarded_by_a_function(base: BaseModelFiles, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def plain(example: str, text: str) -> float:
        asked.append((example, text))
        return sum(one.isascii() for one in text) / 4

    settings = config("grpo", epochs=8, generations=8, max_new_tokens=4, batch_size=32, learning_rate=2e-2, rank=16)
    made = train_policy(sums(8), settings, base=base, out=tmp_path / "a", reward=plain)
    assert made.metrics["reward"] > made.metrics["first_reward"] + 0.1, made.history
    assert {example for example, _ in asked} == {f"e{number}" for number in range(8)}
    again = train_policy(sums(8), settings, base=base, out=tmp_path / "b", reward=plain)
    assert again.hash == made.hash
    with pytest.raises(UserError, match="takes a reward function"):
        train_policy(sums(8), settings, base=base, out=tmp_path / "never")
    with pytest.raises(UserError, match="no multiple"):
        train_policy(sums(8), config("grpo", generations=3), base=base, out=tmp_path / "never", reward=plain)


def test_training_goes_on_from_an_adapter_and_its_critic(base: BaseModelFiles, tmp_path: Path) -> None:
    one = train_policy(sums(8), config("oreo"), base=base, out=tmp_path / "one")
    two = train_policy(sums(8, seed=1), config("oreo", rank=4), base=base, out=tmp_path / "two", start=one.folder)
    assert two.history[0]["value"] > 0.05  # a new critic says 0
    assert abs(two.history[0]["logratio"]) < 1e-4  # compared with where it begins
    far = train_policy(
        sums(8, seed=1), config("oreo"), base=base, out=tmp_path / "far", start=two.folder, reference=one.folder
    )
    assert abs(far.history[0]["logratio"]) > 1e-2
    check_servable(two.folder, max_rank=8)


def test_the_probe_is_what_the_saved_adapter_says(base: BaseModelFiles, tmp_path: Path) -> None:
    made = train_policy(sums(8), config("sft"), base=base, out=tmp_path / "a")
    plain = train_policy(sums(8), config("sft", learning_rate=1e-9), base=base, out=tmp_path / "b")
    again = make_probe(base, made.folder, sums(8))
    assert again == made.probe
    assert made.probe.difference(make_probe(base, plain.folder, sums(8)).others["base"]) > 0.1
    assert set(made.probe.others) == {"base"} and not made.probe.not_told_apart(1e-3)
    assert plain.probe.not_told_apart(1e-3) == ("base",)
    more = train_policy(sums(8), config("sft"), base=base, out=tmp_path / "c", start=made.folder)
    assert set(more.probe.others) == {"start", "base"} and not more.probe.not_told_apart(1e-3)
    one = [row for row in sums(8) if row.input_ids[row.prompt_length :] == more.probe.answer_ids]
    starts = [make_probe(base, made.folder, [row]) for row in one]
    (start,) = [probe for probe in starts if probe.prompt_ids == more.probe.prompt_ids]
    assert more.probe.others["start"] == pytest.approx(start.logprobs, abs=1e-5)
    assert more.probe.others["base"] == pytest.approx(start.others["base"], abs=1e-5)


def test_what_a_tool_said_is_never_scored(base: BaseModelFiles, tmp_path: Path) -> None:
    """Other texts of a tool's, of the same length and after the last action: not one weight may differ."""
    made = []
    for number, said in enumerate(("12", "99")):
        rows = []
        for one in sums(4):
            seen = row(f"tool:{said}", "", 0.0).input_ids
            mask = (*one.action_mask, *(False,) * len(seen))
            rows.append(one.model_copy(update={"input_ids": one.input_ids + seen, "action_mask": mask}))
        made += [
            train_policy(rows, config(method, epochs=1), base=base, out=tmp_path / f"{method}{number}").hash
            for method in ("oreo", "sft")
        ]
        with pytest.raises(UserError, match="make pairs before merge_rows"):
            train_policy(rows, config("dpo"), base=base, out=tmp_path / "never")
    assert made[0] == made[2] and made[1] == made[3]


def test_the_likelihood_of_chosen_answers_may_count_beside_the_preference(base: BaseModelFiles, tmp_path: Path) -> None:
    end = {}
    for weight in (0.0, 1.0):
        settings = config("momentum_dpo", sft_weight=weight)
        made = train_policy(sums(16), settings, base=base, out=tmp_path / f"weight{weight}")
        end[weight] = made.metrics
    assert end[1.0]["logps/chosen"] > end[0.0]["logps/chosen"] + 0.1
    assert end[1.0]["rewards/margins"] > end[1.0]["first_rewards/margins"]
    with pytest.raises(UserError, match="sft_weight is DPO's"):
        config("ipo", sft_weight=1.0)


def test_gradient_checkpointing_changes_memory_and_not_the_adapter(base: BaseModelFiles, tmp_path: Path) -> None:
    """Two adapters share the layers that are computed again: each must be active in its own way back."""
    made = [
        train_policy(
            sums(4), config("oreo", gradient_checkpointing=flag, kl_weight=0.01), base=base, out=tmp_path / name
        )
        for name, flag in (("off", False), ("on", True))
    ]
    tensors = [load_file(one.folder / "adapter_model.safetensors") for one in made]
    critics = [load_file(one.folder / "critic" / "adapter_model.safetensors") for one in made]
    for one, other in (tensors, critics):
        assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_mistakes_are_explained(base: BaseModelFiles, tmp_path: Path) -> None:
    def train(rows: list[TrainingRow], settings: PolicyConfig, **adapters: Any) -> None:
        train_policy(rows, settings, base=base, out=tmp_path / "never", **adapters)

    several = [row("1+1=", "2", 1.0), row("1+1=", "3", 0.0, adapter="other")]
    for rows, settings, adapters, message in (
        ([], config("sft"), {}, "no rows"),
        (several, config("sft"), {}, "several adapters"),
        (sums(2), config("sft", max_length=4), {}, "more than max_length"),
        ([row("1+1=", "2", 1.0)], config("dpo"), {}, "make no pair"),
        ([row("1+1=", "2", 1.0)], config("sppo"), {}, "no answer won"),
        (sums(2), config("sft"), {"previous": tmp_path}, "would not use it"),
        (sums(2), config("sft"), {"start": tmp_path}, "holds no adapter"),
        (sums(2), config("sft", threshold=2.0), {}, "none of which earned"),
        ([row("a", "b", 1.0), row("a", "c", 0.0, call=1)], config("oreo", level="response"), {}, "runs of one call"),
    ):
        with pytest.raises(UserError, match=message):
            train(rows, settings, **adapters)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        train_policy(sums(2), config("sft"), base=base, out=tmp_path / "full")
    for options, message in (({"beta": 1.0}, "no beta"), ({"rank": 0}, "rank"), ({"rnak": 1}, "rnak")):
        with pytest.raises(UserError, match=message):
            PolicyConfig.of("sft", **options)
    assert not (tmp_path / "never").exists()


def test_settings_of_the_process_are_put_back(base: BaseModelFiles, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_policy(sums(2), config("sft", epochs=1, threads=2), base=base, out=tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == 1


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    base: BaseModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    flush = os.fsync

    def noted(handle: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{handle}").readlink().name)
        flush(handle)

    monkeypatch.setattr(os, "fsync", noted)
    made = train_policy(sums(2), config("oreo", epochs=1), base=base, out=tmp_path / "a")
    assert flushed >= {path.name for path in made.folder.rglob("*")}
    flushed.clear()
    moved = extrapolate_adapter(made.folder, None, 0.3, tmp_path / "moved")
    assert flushed >= {path.name for path in moved.folder.iterdir()}
    flushed.clear()
    store = AdapterStore(tmp_path / "run")
    kept = store.folder(store.copy(made.folder))
    assert flushed >= {path.name for path in kept.rglob("*")}


def test_a_changed_adapter_is_noticed(base: BaseModelFiles, tmp_path: Path) -> None:
    made = train_policy(sums(2), config("sft", epochs=1), base=base, out=tmp_path / "a")
    other = train_policy(sums(2), config("sft", epochs=1, seed=3), base=base, out=tmp_path / "b")
    (other.folder / "adapter_model.safetensors").replace(made.folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="not the one that was trained"):
        TrainedPolicy.load(made.folder)


_SHARED = """
import os, sys
from optograph.optimizers.policy import PolicyConfig, train_policy
from optograph.optimizers.policy.base import base_model
from tests.optimizers.policy.tiny import sums
config = PolicyConfig.of("oreo", batch_size=4, dtype="float32", device="cpu", learning_rate=5e-3)
made = train_policy(sums(8), config, base=base_model(sys.argv[1]), out=sys.argv[2])
print(f"rank {os.environ['RANK']}: {made.hash} {made.history[-1]['step']:.0f}", flush=True)
"""


def test_two_processes_share_the_batches_and_agree(base: BaseModelFiles, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(_SHARED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", str(script), str(base.folder), str(tmp_path / "a")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    made = TrainedPolicy.load(tmp_path / "a")
    said = dict(re.findall(r"rank ([01]): (\w+ \d+)", done.stdout))
    assert said == dict.fromkeys("01", f"{made.hash} 2")  # four batches, two a step
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "train.py"]
