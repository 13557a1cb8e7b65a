"""A critic that OREO trained, in use: search and credit read it in states that it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from optograph.errors import UserError
from optograph.optimizers.policy import (
    AdapterCritic,
    PolicyConfig,
    StepBeam,
    TrainedPolicy,
    TrainingRow,
    best_of_k,
    critic_advantages,
    step_beam_search,
    train_policy,
)
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.serving import BaseLM, Capabilities, Completion, ModelIdentity, Request, Usage
from tests.optimizers.policy.tiny import END, make_base, row

PROMPT = "which? "
WORTH = {"right\nso": 1.0, "wrong\nso": 0.0}


def answers() -> list[TrainingRow]:
    return [row(PROMPT, text, WORTH[text], example=text, repeat=number) for text in WORTH for number in range(4)]


class Writer(BaseLM):
    """Writes the rest of both answers in turns, up to a stop string."""

    def __init__(self) -> None:
        super().__init__("writer", Capabilities(token_ids=True))

    async def identity(self) -> ModelIdentity:
        return ModelIdentity("writer", "writer")

    async def _complete(self, request: Request) -> Completion:
        so_far = request.text.removeprefix(PROMPT)
        rests = [one.removeprefix(so_far) for one in WORTH if one.startswith(so_far)]
        wholes = [rests[place % len(rests)] for place in range(request.n)]
        texts = tuple(one.split("\n")[0] if "\n" in request.stop else one for one in wholes)
        ids = []
        for text, whole in zip(texts, wholes, strict=True):
            made = row(PROMPT, text if text == whole else f"{text}\n", 0.0)
            answer = made.input_ids[made.prompt_length :]
            ids.append(answer if text == whole else answer[:-1])
        return Completion(
            texts=texts,
            finish_reasons=("stop",) * request.n,
            token_ids=tuple(ids),
            logprobs=(None,) * request.n,
            usage=Usage(0, 0),
            latency_s=0.0,
            identity=await self.identity(),
            prompt_token_ids=row(request.text, "", 0.0).input_ids[:-1],
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["token", "step"])
def trained(
    request: pytest.FixtureRequest, base: BaseModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> TrainedPolicy:
    """A policy that stays about where it was, and a critic that has seen enough."""
    settings = {"level": request.param, "epochs": 60, "learning_rate": 1e-6, "critic_learning_rate": 1e-2}
    config = PolicyConfig.of("oreo", batch_size=8, dtype="float32", schedule="constant", **settings)
    return train_policy(answers(), config, base=base, out=tmp_path_factory.mktemp("trained") / "policy")


@pytest.fixture
def critic(trained: TrainedPolicy, base: BaseModelFiles) -> AdapterCritic:
    assert trained.critic is not None
    return AdapterCritic(base.folder, trained.critic)


def test_an_answer_is_worth_what_it_earned(critic: AdapterCritic) -> None:
    """Before the ending token the critic knows; behind it nothing was ever trained."""
    found = best_of_k(Writer(), critic, Request(prompt=PROMPT, temperature=1.0), 2)
    assert {one.text: one.value for one in found.answers} == pytest.approx(WORTH, abs=0.05)
    assert found.best.text == "right\nso"


def test_the_beam_reads_beginnings_and_ended_answers_alike(critic: AdapterCritic) -> None:
    found = step_beam_search(Writer(), critic, PROMPT, {END}, StepBeam(beams=2, samples=4))
    assert {one.text: one.value for one in found.answers} == pytest.approx(WORTH, abs=0.05)
    assert all(one.finished and one.steps == 2 for one in found.answers)
    begun = step_beam_search(Writer(), critic, PROMPT, {END}, StepBeam(beams=2, samples=4, steps=1))
    assert {one.text: one.value for one in begun.answers} == pytest.approx({"right\n": 1.0, "wrong\n": 0.0}, abs=0.05)


def test_credit_is_what_the_answer_changed(critic: AdapterCritic) -> None:
    rows = answers()
    made = critic_advantages(rows, critic, last="critic")
    assert [one.reward for one in made] == pytest.approx([one.reward - 0.5 for one in rows], abs=0.05)


def test_a_changed_critic_is_noticed_before_it_is_used(
    trained: TrainedPolicy, base: BaseModelFiles, tmp_path: Path
) -> None:
    again = PolicyConfig.of("oreo", epochs=1, dtype="float32")
    folder = Path(shutil.copytree(trained.folder, tmp_path / "policy"))
    head = folder / "critic" / "head.safetensors"
    kept = head.read_bytes()
    save_file({"weight": load_file(head)["weight"] + 0.1}, head)
    for use in (
        lambda: TrainedPolicy.load(folder),
        lambda: AdapterCritic(base.folder, folder / "critic"),
        lambda: train_policy(answers(), again, base=base, out=tmp_path / "never", start=folder),
    ):
        with pytest.raises(UserError, match="is not the one that was trained with the policy"):
            use()
    head.write_bytes(kept)
    made = train_policy(answers(), again, base=base, out=tmp_path / "made", start=folder)
    shutil.rmtree(made.folder / "critic")
    with pytest.raises(UserError, match=r"no critic is there, and [0-9a-f]{16} was recorded"):
        TrainedPolicy.load(made.folder)


def test_a_critic_of_whole_responses_says_that_it_knows_nothing_of_answers(
    base: BaseModelFiles, tmp_path: Path
) -> None:
    config = PolicyConfig.of("oreo", level="response", epochs=1, dtype="float32")
    made = train_policy(answers(), config, base=base, out=tmp_path / "policy")
    assert made.critic is not None
    with pytest.raises(UserError, match="it knows what a prompt is worth"):
        AdapterCritic(base.folder, made.critic)
