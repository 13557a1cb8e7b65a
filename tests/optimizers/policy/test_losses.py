"""DPO, IPO and soft SPPO: values by hand, fixed points, masks, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy import (
    dpo_loss,
    ipo_loss,
    masked_sum,
    momentum_dpo_loss,
    sppo_loss,
    token_kl,
    token_logprobs,
    win_rates,
)
from tests.optimizers.policy.tabular import minimize, number


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_values_by_hand() -> None:
    margin = (-1.0 - -1.5) - (-2.0 - -1.7)
    dpo = dpo_loss(one(-1.0), one(-2.0), one(-1.5), one(-1.7), beta=0.5)
    assert number(dpo.loss) == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * margin))))
    assert (number(dpo.chosen_rewards), number(dpo.rejected_rewards)) == pytest.approx((0.25, -0.15))
    assert number(dpo.accuracy) == 1.0
    ipo = ipo_loss(one(-1.0), one(-2.0), one(-1.5), one(-1.7), beta=0.5)
    assert number(ipo.loss) == pytest.approx((margin - 1.0) ** 2)
    sppo = sppo_loss(torch.tensor([0.4, -0.3]), torch.tensor([0.9, 0.2]), eta=2.0)
    assert number(sppo) == pytest.approx(((0.4 - 0.8) ** 2 + (-0.3 + 0.6) ** 2) / 2)


def test_weights_count_pairs() -> None:
    pair = torch.tensor([[-1.0, -2.0], [-2.0, -1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    both = dpo_loss(pair[0], pair[1], pair[2], pair[3], beta=1.0, weights=torch.tensor([2.0, 0.0]))
    assert number(both.loss) == pytest.approx(number(both.losses[0]))


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_ipo_stops_at_the_preference(p: float) -> None:
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    start = torch.log_softmax(torch.zeros(2, dtype=torch.float64), -1)
    weights = torch.tensor([p, 1 - p], dtype=torch.float64)

    def loss() -> Tensor:
        now = logits.log_softmax(-1)
        return ipo_loss(now, now.flip(0), start, start.flip(0), beta=0.4, weights=weights).loss

    minimize(loss, [logits])
    found = logits.detach().log_softmax(-1)
    assert number(found[0] - found[1]) == pytest.approx((p - 0.5) / 0.4, abs=1e-6)


def test_soft_sppo_reaches_a_target_that_a_policy_can_have() -> None:
    # win rates for which exp(eta * (P - 1/2)) sums to one under the reference
    start = torch.log_softmax(torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64), -1)
    wanted = torch.log_softmax(torch.tensor([0.5, 0.1, 0.2, -0.3], dtype=torch.float64), -1)
    eta = 4.0
    wins = (wanted - start) / eta + 0.5
    assert bool(((wins > 0) & (wins < 1)).all())
    logits = start.clone().requires_grad_()
    minimize(lambda: sppo_loss(logits.log_softmax(-1) - start, wins, eta=eta, weights=start.exp()), [logits])
    assert number((logits.log_softmax(-1) - wanted).abs().max()) < 1e-6


def test_win_rates_are_means_over_all_answers() -> None:
    scores = torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    found = win_rates(scores)
    second = (1 / (1 + math.exp(-1.0)) + 0.5 + 1 / (1 + math.exp(-3.0))) / 3
    assert number(found[0, 1]) == pytest.approx(second)
    assert number(found.mean()) == pytest.approx(0.5)


def test_token_logprobs_and_kl_stand_at_their_tokens() -> None:
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, generator=made, dtype=torch.float64)
    other = torch.randn(2, 4, 5, generator=made, dtype=torch.float64)
    ids = torch.randint(0, 5, (2, 4), generator=made)
    found = token_logprobs(logits, ids)
    assert found[:, 0].tolist() == [0.0, 0.0]
    assert number(found[1, 2]) == pytest.approx(number(logits[1, 1].log_softmax(-1)[ids[1, 2]]))
    kl = token_kl(logits, other)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits[:, :-1]), torch.distributions.Categorical(logits=other[:, :-1])
    )
    assert torch.allclose(kl[:, 1:], wanted)
    assert token_logprobs(logits.bfloat16(), ids).dtype == torch.float32


@pytest.mark.parametrize("name", ["dpo", "ipo", "momentum"])
def test_tokens_of_observations_are_never_scored(name: str) -> None:
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 6, (4, 9), generator=made)
    mask = torch.tensor([[0, 0, 1, 1, 0, 0, 1, 1, 0]]).expand(4, 9)  # prompt, call, tool's result, answer, padding
    logits = torch.randn(4, 9, 6, generator=made, dtype=torch.float64)
    reference = torch.randn(4, 9, 6, generator=made, dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        policy = masked_sum(token_logprobs(logits, ids), mask).chunk(2)
        old = masked_sum(token_logprobs(reference, ids), mask).chunk(2)
        if name == "momentum":
            found = momentum_dpo_loss(policy[0], policy[1], current=old, previous=old, beta=0.1, alpha=0.3)  # type: ignore[arg-type]
        else:
            found = {"dpo": dpo_loss, "ipo": ipo_loss}[name](policy[0], policy[1], old[0], old[1], beta=0.1)
        return found.loss

    clean = logits.clone().requires_grad_()
    value = loss(clean)
    (gradient,) = torch.autograd.grad(value, clean)
    predicts = torch.cat([mask[:, 1:], torch.zeros(4, 1, dtype=torch.long)], 1).bool()
    assert bool((gradient[~predicts] == 0).all())
    assert bool((gradient[predicts] != 0).any(-1).all())
    dirty = torch.where(predicts[..., None], logits, 1e4 * torch.rand(4, 9, 6, generator=made, dtype=torch.float64))
    assert bool(loss(dirty) == value)


def test_what_does_not_fit_is_refused() -> None:
    pair = (one(-1.0), one(-2.0), one(-1.5), one(-1.7))
    for beta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="beta must be a finite number above 0"):
            dpo_loss(*pair, beta=beta)
    with pytest.raises(UserError, match=r"rejected must have shape \(1,\), got \(2,\)"):
        dpo_loss(pair[0], torch.zeros(2), pair[2], pair[3], beta=1.0)
    with pytest.raises(UserError, match="sum over the tokens first"):
        ipo_loss(*(torch.zeros(2, 3),) * 4, beta=1.0)
    with pytest.raises(UserError, match="see the constant Z"):
        momentum_dpo_loss(pair[0], pair[1], current=pair[:2], previous=pair[:2], beta=1.0, alpha=0.3, loss="sppo")
    with pytest.raises(UserError, match="eta must be"):
        sppo_loss(pair[0], pair[1], eta=0.0)
    with pytest.raises(UserError, match="scores must have shape"):
        win_rates(torch.zeros(3))
    with pytest.raises(UserError, match="mask must have shape"):
        masked_sum(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(UserError, match="logits must have shape"):
        token_logprobs(torch.zeros(2, 3), torch.zeros(2, 3))
