"""Momentum DPO: the coefficients that its theory gives, wrong variants told apart, and the gain on sampled pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy import (
    PreferenceLoss,
    dpo_loss,
    masked_sum,
    momentum_dpo_loss,
    momentum_reference,
    token_logprobs,
)
from tests.optimizers.policy.tabular import minimize, number

BETA = 0.7
WORDS = 3
ANSWERS = list(itertools.product(range(WORDS), repeat=2))


class Answers:
    """A language model of answers of two tokens: a table for the first, and one for the second after each first."""

    def __init__(self, seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        self.ids = torch.tensor([(0, *answer) for answer in ANSWERS])
        self.mask = torch.tensor([[0, 1, 1]]).expand(len(ANSWERS), 3)
        self.start = torch.randn(1 + WORDS, WORDS, generator=made, dtype=torch.float64)
        self.rewards = torch.rand(len(ANSWERS), generator=made, dtype=torch.float64)

    def logprobs(self, table: Tensor) -> Tensor:
        """Log-probability of each answer, by the functions that score a real model."""
        rows = torch.stack([torch.zeros(len(ANSWERS), dtype=torch.long), 1 + self.ids[:, 1]], 1)
        logits = torch.nn.functional.pad(table[rows], (0, 0, 0, 1))
        return masked_sum(token_logprobs(logits, self.ids), self.mask)


PAIRS = torch.tensor([(i, j) for i in range(len(ANSWERS)) for j in range(len(ANSWERS)) if i != j])
References = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
Round = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor], Tensor], PreferenceLoss]


def train(task: Answers, rounds: int, reference: References, loss: Round) -> tuple[list[Tensor], list[Tensor]]:
    """Run rounds on the whole population: each pair, in both orders, with its chance under the sampling policy.

    Returns the trained and the sampling policies, as log-probabilities of the answers; both begin with the start.
    """
    trained = [task.logprobs(task.start).detach()]
    sampling = [trained[0]]
    table = task.start.clone()
    wins = torch.sigmoid(task.rewards[PAIRS[:, 0]] - task.rewards[PAIRS[:, 1]])
    for _ in range(rounds):
        chance = sampling[-1].exp()
        weights = chance[PAIRS[:, 0]] * chance[PAIRS[:, 1]] * wins
        table = table.clone().requires_grad_()

        def population(table: Tensor = table, weights: Tensor = weights) -> Tensor:
            return loss(task.logprobs(table), trained, sampling, weights).loss * len(PAIRS)

        for _ in range(3):
            minimize(population, [table])
        table = table.detach()
        trained.append(task.logprobs(table))
        sampling.append(reference(trained, sampling).log_softmax(-1))
    return trained, sampling


def coefficient(task: Answers, policy: Tensor, start: Tensor) -> float:
    """How many times the reward stands in beta * log(policy / start); what is left must be a constant."""
    moved = BETA * (policy - start)
    moved, rewards = moved - moved.mean(), task.rewards - task.rewards.mean()
    found = (moved @ rewards) / (rewards @ rewards)
    assert number((moved - found * rewards).abs().max()) < 1e-3
    return number(found)


def momentum(alpha: float) -> tuple[References, Round]:
    """The project's own: references in the space of sequences, from the two policies trained last."""

    def reference(trained: Sequence[Tensor], sampling: Sequence[Tensor]) -> Tensor:
        return momentum_reference(trained[-1], trained[-2], alpha)

    def loss(policy: Tensor, trained: Sequence[Tensor], sampling: Sequence[Tensor], weights: Tensor) -> PreferenceLoss:
        current, previous = trained[-1], trained[max(len(trained) - 2, 0)]
        won, lost = PAIRS[:, 0], PAIRS[:, 1]
        return momentum_dpo_loss(
            policy[won],
            policy[lost],
            current=(current[won], current[lost]),
            previous=(previous[won], previous[lost]),
            beta=BETA,
            alpha=alpha,
            weights=weights,
        )

    return reference, loss


def plain(policy: Tensor, trained: Sequence[Tensor], sampling: Sequence[Tensor], weights: Tensor) -> PreferenceLoss:
    """DPO against the sampling policy, whatever that is."""
    won, lost = PAIRS[:, 0], PAIRS[:, 1]
    return dpo_loss(policy[won], policy[lost], sampling[-1][won], sampling[-1][lost], beta=BETA, weights=weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reward_has_the_coefficients_of_theorem_4_1(seed: int) -> None:
    task = Answers(seed)
    trained, sampling = train(task, 3, *momentum(0.3))
    found = [coefficient(task, policy, trained[0]) for policy in trained[1:]]
    assert found == pytest.approx([1.0, 2.3, 3.69], rel=0.01)
    assert coefficient(task, sampling[3], trained[0]) == pytest.approx(3.69 + 0.3 * 1.39, rel=0.01)


WRONG: dict[str, tuple[References, float]] = {
    "momentum from the extrapolated policy": (lambda hat, pi: momentum_reference(hat[-1], pi[-1], 0.3), 3.6),
    "an average of the policies": (lambda hat, pi: 0.7 * hat[-1] + 0.3 * hat[-2], 2.49),
    "no momentum": (lambda hat, pi: hat[-1], 3.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_variants_have_other_coefficients(name: str) -> None:
    task = Answers(0)
    reference, wanted = WRONG[name]
    trained, _ = train(task, 3, reference, plain)
    found = coefficient(task, trained[3], trained[0])
    assert found == pytest.approx(wanted, rel=0.01)
    assert abs(found / 3.69 - 1) > 0.02  # the bar of 1 % tells it apart


def test_returning_the_extrapolated_policy_is_told_apart() -> None:
    task = Answers(0)
    trained, sampling = train(task, 3, *momentum(0.3))
    returned = coefficient(task, sampling[3], trained[0])
    assert returned == pytest.approx(4.107, rel=0.01)
    assert abs(returned / coefficient(task, trained[3], trained[0]) - 1) > 0.1


def test_the_projects_own_loss_is_plain_dpo_against_the_extrapolated_policy() -> None:
    task = Answers(1)
    own, _ = train(task, 3, *momentum(0.3))
    other, _ = train(task, 3, momentum(0.3)[0], plain)
    assert number((own[3] - other[3]).abs().max()) < 1e-4


def test_without_momentum_it_is_iterative_dpo() -> None:
    task = Answers(0)
    own, _ = train(task, 3, *momentum(0.0))

    def against_last_round(
        policy: Tensor, trained: Sequence[Tensor], sampling: Sequence[Tensor], weights: Tensor
    ) -> PreferenceLoss:
        return plain(policy, trained, [trained[-1]], weights)

    iterative, _ = train(task, 3, lambda hat, pi: hat[-1], against_last_round)
    for one, other in zip(own, iterative, strict=True):
        assert bool((one == other).all())


def test_the_constant_of_the_extrapolated_reference_does_not_matter() -> None:
    draw = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for loss in ("dpo", "ipo"):
        one, other = (
            momentum_dpo_loss(
                draw[0],
                draw[1],
                current=(draw[2] + shift, draw[3] + shift),
                previous=(draw[4] - shift, draw[5] - shift),
                beta=0.2,
                alpha=0.3,
                loss=loss,
            )
            for shift in (0.0, 7.0)
        )
        assert torch.allclose(one.losses, other.losses, atol=1e-12)


# Sampled pairs ----------------------------------------------------------------------------------------------------

SEEDS, PROMPTS, ARMS, FEATURES, SAMPLED = 40, 8, 16, 8, 1000


def gaps(alpha: float, beta: float, rounds: int = 4) -> Tensor:
    """Train log-linear policies on sampled pairs, 40 seeds at once; returns what the policy lacks, (rounds, seeds)."""
    made = torch.Generator().manual_seed(7)
    features = torch.randn(SEEDS, PROMPTS, ARMS, FEATURES, generator=made, dtype=torch.float64)
    truth = torch.randn(SEEDS, FEATURES, generator=made, dtype=torch.float64) / FEATURES**0.5
    rewards = torch.einsum("spaf,sf->spa", features, truth)

    def logprobs(theta: Tensor) -> Tensor:
        return torch.einsum("spaf,sf->spa", features, theta).log_softmax(-1)

    def pick(table: Tensor, which: Tensor) -> Tensor:
        return table.reshape(SEEDS, -1).gather(1, which).reshape(-1)

    trained = [torch.zeros(SEEDS, FEATURES, dtype=torch.float64)] * 2
    found = []
    for _ in range(rounds):
        current, previous = logprobs(trained[-1]), logprobs(trained[-2])
        policy = momentum_reference(current, previous, alpha).softmax(-1)
        prompts = torch.randint(0, PROMPTS, (SEEDS, SAMPLED), generator=made)
        chances = policy.gather(1, prompts[..., None].expand(-1, -1, ARMS)).reshape(-1, ARMS)
        arms = torch.multinomial(chances, 2, replacement=True, generator=made).reshape(SEEDS, SAMPLED, 2)
        pairs = prompts[..., None] * ARMS + arms
        scores = rewards.reshape(SEEDS, -1).gather(1, pairs.reshape(SEEDS, -1)).reshape(pairs.shape)
        first_wins = torch.rand(SEEDS, SAMPLED, generator=made, dtype=torch.float64) < torch.sigmoid(
            scores[..., 0] - scores[..., 1]
        )
        won = torch.where(first_wins, pairs[..., 0], pairs[..., 1])
        lost = torch.where(first_wins, pairs[..., 1], pairs[..., 0])
        theta = trained[-1].clone().requires_grad_()
        references = [(pick(table, won), pick(table, lost)) for table in (current, previous)]

        def loss(
            theta: Tensor = theta,
            won: Tensor = won,
            lost: Tensor = lost,
            references: list[tuple[Tensor, Tensor]] = references,
        ) -> Tensor:
            now = logprobs(theta)
            chosen, rejected = pick(now, won), pick(now, lost)
            current, previous = references
            return momentum_dpo_loss(chosen, rejected, current=current, previous=previous, beta=beta, alpha=alpha).loss

        minimize(loss, [theta], 60)
        trained.append(theta.detach())
        now = logprobs(trained[-1]).exp()
        found.append((rewards.max(-1).values - (now * rewards).sum(-1)).mean(-1))
    return torch.stack(found)


def test_momentum_closes_the_gap_faster_on_sampled_pairs() -> None:
    without, with_momentum = gaps(0.0, 2.0), gaps(0.3, 2.0)
    assert torch.allclose(without[0], with_momentum[0])
    faster = (with_momentum < without).sum(-1)
    assert bool((faster[1:] >= 38).all()), faster


def test_a_larger_step_does_the_same() -> None:
    matched, with_momentum = gaps(0.0, 2.0 * 0.7), gaps(0.3, 2.0)
    assert number(matched[3].mean()) < 1.05 * number(with_momentum[3].mean())


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_momentum_is_from_0_to_1(alpha: float) -> None:
    with pytest.raises(UserError, match="from 0 to less than 1"):
        momentum_reference(torch.zeros(2), torch.zeros(2), alpha)
