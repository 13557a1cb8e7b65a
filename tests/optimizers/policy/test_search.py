"""Search led by a critic: in a world whose best answer is known, on the embedded engine, with a critic's adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from optograph.errors import UserError
from optograph.optimizers.policy import AdapterCritic, BestOfLM, StepBeam, best_of_k, step_beam_search
from optograph.optimizers.policy.base import base_model
from optograph.serving import (
    BaseLM,
    Capabilities,
    Completion,
    ModelIdentity,
    Request,
    ScriptedLM,
    TokenLogprob,
    Usage,
    load_lm,
)
from tests.optimizers.policy.exports import make_adapter, make_llama

END = 0
Writer = Callable[[str, random.Random], str]


class World(BaseLM):
    """A model whose tokens are characters and whose answers end with the character 0.

    Args:
        write: Gives, for what was written so far, all that the model would write if nobody stopped it.
        stops_told: Whether log-probabilities hold the tokens of the stop string too.
    """

    def __init__(self, write: Writer, *, stops_told: bool = True) -> None:
        super().__init__("world", Capabilities(logprobs=True, token_ids=True, max_logprobs=5))
        self.write, self.stops_told = write, stops_told
        self.asked: list[Request] = []

    async def identity(self) -> ModelIdentity:
        return ModelIdentity("world", "world")

    async def _complete(self, request: Request) -> Completion:
        self.asked.append(request)
        chance = random.Random(f"{request.text}{request.sampling_seed}")
        texts, reasons, written = [], [], []
        for _ in range(request.n):
            whole = self.write(request.text.removeprefix("Q:"), chance)
            stops = [whole.find(one) + len(one) for one in request.stop if one in whole]
            cut = min([*stops, len(whole)])
            reason = "stop"
            if cut > request.max_tokens:
                cut, reason = request.max_tokens, "length"
            ids = whole[:cut]
            ended = next((one for one in request.stop if reason == "stop" and ids.endswith(one)), chr(END))
            texts.append(ids.removesuffix(ended))
            reasons.append(reason)
            written.append(ids)
        told = [w if self.stops_told else t for w, t in zip(written, texts, strict=True)]
        return Completion(
            texts=tuple(texts),
            finish_reasons=tuple(reasons),
            token_ids=tuple(tuple(map(ord, one)) for one in written),
            logprobs=tuple(tuple(TokenLogprob(sign, -1.0) for sign in one) for one in told),
            usage=Usage(len(request.text), sum(map(len, written))),
            latency_s=0.0,
            identity=await self.identity(),
            prompt_token_ids=tuple(map(ord, request.text)),
        )


class Judge:
    """A critic that is told what a state, as text, is worth."""

    def __init__(self, worth: Callable[[str], float]) -> None:
        self.worth = worth
        self.seen: list[str] = []

    def values(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        texts = ["".join(map(chr, one)).removeprefix("Q:") for one in sequences]
        self.seen += texts
        return [
            [self.worth("".join(map(chr, one[: place + 1])).removeprefix("Q:")) for place in range(len(one))]
            for one in sequences
        ]


def digits(count: int) -> Writer:
    """A model that writes so many lines with a digit each, all alike likely, and ends."""

    def write(so_far: str, chance: random.Random) -> str:
        return "".join(f"{chance.randrange(10)}\n" for _ in range(count - so_far.count("\n"))) + chr(END)

    return write


def expected_sum(count: int) -> Judge:
    """The exact value of a state under `digits`: the sum of the digits so far, and 4.5 for each that is to come."""

    def worth(text: str) -> float:
        there = [int(one) for one in text if one.isdigit()]
        return sum(there) + 4.5 * (count - len(there))

    return Judge(worth)


def test_the_beam_finds_the_best_answer_where_as_many_samples_do_not() -> None:
    lm, critic = World(digits(4)), expected_sum(4)
    found = step_beam_search(lm, critic, "Q:", {END}, StepBeam(beams=4, samples=60))
    assert (found.best.text, found.best.value, found.best.finished) == ("9\n9\n9\n9\n", 36.0, True)
    assert found.best.steps == 5  # the fifth step is the end itself
    assert [request.n for request in lm.asked] == [60] * (1 + 4 * 4)
    assert found.usage.completion_tokens == 60 * (2 * (1 + 3 * 4) + 4)
    values = [answer.value for answer in found.answers]
    assert values == sorted(values, reverse=True)
    same = Request(prompt="Q:", temperature=1.0, seed=0)
    plain = best_of_k(World(digits(4)), expected_sum(4), same, 60 * len(lm.asked))
    assert 18 < plain.best.value < 36


def test_a_wider_beam_looks_further() -> None:
    """A first digit of 0 earns most in the end, but a short-sighted critic sees it only after the second."""

    def worth(text: str) -> float:
        lines = text.rstrip("\0").split("\n")[:-1]
        return float(100 if lines[:1] == ["0"] and len(lines) > 1 else sum(map(int, lines)))

    narrow = step_beam_search(World(digits(2)), Judge(worth), "Q:", {END}, StepBeam(beams=1, samples=40))
    wide = step_beam_search(World(digits(2)), Judge(worth), "Q:", {END}, StepBeam(beams=10, samples=40))
    assert (narrow.best.text, wide.best.text[:2], wide.best.value) == ("9\n9\n", "0\n", 100.0)


def test_finished_answers_wait_in_a_pool_and_the_highest_value_wins() -> None:
    def write(so_far: str, chance: random.Random) -> str:
        return chance.choice(["go on\n", f"end{chr(END)}"])

    critic = Judge(lambda text: 1.0 - 0.1 * text.count("go on"))
    found = step_beam_search(World(write), critic, "Q:", {END}, StepBeam(beams=4, steps=3))
    assert (found.best.text, found.best.value, found.best.steps) == ("end", 1.0, 1)
    assert found.answers[0] is found.best
    assert {answer.text for answer in found.answers} == {"end", "go on\nend", "go on\ngo on\nend", "go on\n" * 3}


def test_where_nothing_was_finished_the_best_beginning_is_given() -> None:
    found = step_beam_search(World(digits(30)), expected_sum(30), "Q:", {END}, StepBeam(beams=8, steps=2))
    assert (found.best.text, found.best.finished) == ("9\n9\n", False)


def test_a_step_that_is_too_long_goes_on_as_the_next() -> None:
    lm = World(lambda so_far, chance: "abcdefg"[len(so_far) :] + chr(END))
    found = step_beam_search(lm, Judge(len), "Q:", {END}, StepBeam(beams=2, step_tokens=3))
    assert (found.best.text, found.best.finished, found.best.steps) == ("abcdefg", True, 3)
    assert [request.text for request in lm.asked] == ["Q:", "Q:abc", "Q:abcdef"]


def test_steps_may_end_with_a_line_or_a_period() -> None:
    def write(so_far: str, chance: random.Random) -> str:
        return "One. Two\nThree."[len(so_far) :] + chr(END)

    options = StepBeam(beams=1, step_ends=("\n", ". "))
    critic = Judge(len)
    found = step_beam_search(World(write), critic, "Q:", {END}, options)
    assert (found.best.text, found.best.steps) == ("One. Two\nThree.", 3)
    assert critic.seen == ["One. ", "One. Two\n", "One. Two\nThree.\0"]
    with pytest.raises(UserError, match="does not say which of"):
        step_beam_search(World(write, stops_told=False), Judge(len), "Q:", {END}, options)
    one = step_beam_search(World(write, stops_told=False), Judge(len), "Q:", {END}, StepBeam(beams=1))
    assert one.best.text == "One. Two\nThree."  # with one end it need not be told


def test_equal_beginnings_are_looked_at_once() -> None:
    critic = Judge(len)
    step_beam_search(World(lambda so_far, chance: f"same{chr(END)}"), critic, "Q:", {END}, StepBeam(beams=6))
    assert critic.seen == ["same\0"]


def test_a_workflow_gets_the_best_of_k() -> None:
    inner = World(digits(1))
    lm = BestOfLM(inner, expected_sum(1), 12)
    given = lm.ask(Request(prompt="Q:", temperature=1.0, seed=0, token_ids=True))
    assert (given.text, given.token_ids, len(given.texts)) == ("9\n", ((57, 10, END),), 1)
    assert given.usage.completion_tokens == 36  # all that were sampled are paid
    assert lm.ask(Request(prompt="Q:", temperature=1.0, seed=0)).token_ids == (None,)
    lm.ask(Request(prompt="Q:", temperature=0.0))
    lm.ask(Request(prompt="Q:", temperature=1.0, n=2))
    assert [request.n for request in inner.asked] == [12, 12, 1, 2]
    assert asyncio.run(lm.identity()) == asyncio.run(inner.identity())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="a step beam needs"):
        StepBeam(beams=0)
    with pytest.raises(UserError, match="a step beam needs"):
        StepBeam(step_ends=("",))
    with pytest.raises(UserError, match="temperature above 0"):
        best_of_k(World(digits(1)), Judge(len), Request(prompt="Q:"), 3)
    with pytest.raises(UserError, match="k of at least 1"):
        BestOfLM(World(digits(1)), Judge(len), 0)
    with pytest.raises(UserError, match="finite values"):
        best_of_k(World(digits(1)), Judge(lambda text: float("nan")), Request(prompt="Q:", temperature=1.0), 3)
    dumb = ScriptedLM(["x"], capabilities=Capabilities())
    with pytest.raises(UserError, match="cannot give token ids"):
        step_beam_search(dumb, Judge(len), "Q:", {END})


def test_a_search_on_the_embedded_engine() -> None:
    lm = load_lm("local/smollm2-135m")
    prompt = "One line for each number.\n1\n2\n3\n4\n"
    lengths: list[int] = []

    class Longest:
        def values(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
            lengths.extend(len(one) for one in sequences)
            return [[float(place) for place in range(len(one))] for one in sequences]

    found = step_beam_search(lm, Longest(), prompt, {2}, StepBeam(beams=2, steps=3, step_tokens=16))
    assert found.best.value == max(
        answer.value for answer in found.answers if answer.finished or not found.best.finished
    )
    assert all("<|im_end|>" not in answer.text for answer in found.answers)
    assert min(lengths) > 12
    assert any(answer.text.count("\n") == answer.steps == 3 for answer in found.answers)
    asyncio.run(lm.aclose())


def test_an_adapter_critic_values_states_as_its_base_computes_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = make_llama(tmp_path / "base", base_model("local/smollm2-135m").folder)
    folder = make_adapter(base, tmp_path / "critic", strength=0.3)
    head = torch.randn((1, 64), generator=torch.Generator().manual_seed(1))
    save_file({"weight": head}, folder / "head.safetensors")
    critic = AdapterCritic(base, folder, batch_size=2)
    sequences = [[5, 6, 7, 8, 9], [5, 6], [100, 200, 300]]
    values = critic.values(sequences)
    assert [len(one) for one in values] == [5, 2, 3]
    from optograph.optimizers.policy.merging import merged_model

    merged: Any = merged_model(base, folder)
    for ids, found in zip(sequences, values, strict=True):
        with torch.no_grad():
            hidden = merged.base_model(torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(torch.tensor(found), hidden @ head[0], atol=1e-4)
    plain: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        without = plain.base_model(torch.tensor([sequences[0]])).last_hidden_state[0] @ head[0]
    assert not torch.allclose(torch.tensor(values[0]), without, atol=0.1)  # the adapter counts
    with pytest.raises(UserError, match="is no critic"):
        AdapterCritic(base, base)
    save_file({"weight": head[:, :32].contiguous()}, folder / "head.safetensors")
    with pytest.raises(UserError, match="belongs to another base"):
        AdapterCritic(base, folder)
