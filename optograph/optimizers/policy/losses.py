"""Losses over whole answers: DPO, momentum DPO with its extrapolated reference, IPO and soft SPPO.

All take log-probabilities of whole answers, summed over the tokens that the policy wrote (`masked_sum` of
`token_logprobs`); what tools or people wrote is masked out there and never scored. All are pure functions.

Sources: DPO is arXiv 2305.18290, IPO 2310.12036, SPPO 2405.00675, and momentum DPO is accelerated preference
optimization, 2410.06293. (In other libraries "APO" names other methods, hence the name here.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy.tensors import check_shape, weighted_mean


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """A loss with what one wants to see of it.

    Attributes:
        loss: Scalar to minimize.
        losses: Loss of each pair, shape (B,), before weights.
        chosen_rewards: beta * log(policy / reference) of the chosen answers, (B,), detached.
        rejected_rewards: Likewise of the rejected ones.
    """

    loss: Tensor
    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of pairs in which the chosen answer has the higher reward."""
        return (self.chosen_rewards > self.rejected_rewards).double().mean()


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    weights: Tensor | None = None,
) -> PreferenceLoss:
    """Return the DPO loss, -log sigmoid(beta * margin): equation 7 of arXiv 2305.18290.

    The margin is the chosen answer's log(policy / reference) less the rejected one's.

    Args:
        chosen: Log-probabilities of the chosen answers under the policy, shape (B,).
        rejected: Likewise of the rejected ones.
        reference_chosen: Log-probabilities under the reference, (B,); no gradient flows into them. They need not be
            normalized: a constant for each prompt cancels.
        reference_rejected: Likewise.
        beta: Weight of staying close to the reference, above 0.
        weights: Weight of each pair, (B,); 1 by default.

    Raises:
        UserError: Shapes differ, or `beta` is not a finite number above 0.
    """
    return _pairs(chosen, rejected, (reference_chosen, reference_rejected), beta, weights, _logistic)


def ipo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    weights: Tensor | None = None,
) -> PreferenceLoss:
    """Return the IPO loss, (margin - 1 / (2 beta))^2: equation 17 of arXiv 2310.12036, whose tau is `beta`.

    Where both orders of a pair are seen, in proportion to a preference probability p, the margin that minimizes it
    is (p - 1/2) / beta. Arguments and errors are those of `dpo_loss`.
    """
    return _pairs(chosen, rejected, (reference_chosen, reference_rejected), beta, weights, _squared)


def momentum_reference(current: Tensor, previous: Tensor, alpha: float) -> Tensor:
    """Return the extrapolated reference of momentum DPO in the space of sequences.

    In algorithm 1 of arXiv 2410.06293 pi_t is proportional to hat_t * (hat_t / hat_{t-1})^alpha. As
    log-probabilities this is (1 + alpha) * current - alpha * previous, less log Z of the prompt, which no loss over
    pairs of one prompt sees. So with `dpo_loss` and `ipo_loss` it is exact, not an approximation in the weights.

    Args:
        current: Log-probabilities of answers under hat_t, the policy that the last round trained; any shape.
        previous: Likewise under hat_{t-1}, the one that the round before trained, *not* its extrapolation. In the
            first round both are the starting policy.
        alpha: Momentum, 0 to less than 1; 0 is iterative DPO.

    Returns:
        The reference's log-probabilities up to a constant a prompt, detached.

    Raises:
        UserError: Shapes differ, or `alpha` is out of range.
    """
    if not (isinstance(alpha, int | float) and 0 <= alpha < 1):
        raise UserError(f"alpha, the momentum, must be from 0 to less than 1, got {alpha!r}")
    check_shape("previous", previous, tuple(current.shape))
    current, previous = current.detach(), previous.detach()
    return current + alpha * (current - previous) if alpha else current.clone()


def momentum_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    current: tuple[Tensor, Tensor],
    previous: tuple[Tensor, Tensor],
    beta: float,
    alpha: float,
    loss: str = "dpo",
    weights: Tensor | None = None,
) -> PreferenceLoss:
    """Return the loss of one round of momentum DPO: algorithm 1 of arXiv 2410.06293.

    The reference is `momentum_reference` of the two policies before. Pairs of the round are sampled from the
    extrapolated policy; what the last round trains is the result, without extrapolation.

    A larger step does the same at a fixed beta: compare with a control run of alpha 0 and beta * (1 - alpha).

    Args:
        chosen: Log-probabilities of the chosen answers under the policy in training, shape (B,).
        rejected: Likewise of the rejected ones.
        current: Log-probabilities of (chosen, rejected) under what the last round trained, (B,) each.
        previous: Likewise under what the round before that trained.
        beta: Weight of staying close to the reference, above 0.
        alpha: Momentum, 0 to less than 1; 0 is iterative DPO.
        loss: ``"dpo"`` or ``"ipo"``.
        weights: Weight of each pair, (B,).

    Raises:
        UserError: Shapes differ, a number is out of range, or the loss is unknown.
    """
    if loss not in _PAIR_LOSSES:
        raise UserError(
            f"momentum DPO has the losses {sorted(_PAIR_LOSSES)!r}, not {loss!r}: others see the constant Z"
        )
    references = tuple(momentum_reference(now, before, alpha) for now, before in zip(current, previous, strict=True))
    return _PAIR_LOSSES[loss](chosen, rejected, references[0], references[1], beta=beta, weights=weights)


def sppo_loss(logratios: Tensor, win_rates: Tensor, *, eta: float, weights: Tensor | None = None) -> Tensor:
    """Return the soft SPPO loss, (log(policy / reference) - eta * (P - 1/2))^2: algorithm 1 of arXiv 2405.00675.

    Over the winner and the loser of a pair, its mean is the sum with the factor 1/2 of the authors' code. It needs no
    pairs: any sampled answers will do.

    Args:
        logratios: log(policy / reference) of whole answers, shape (B,). The reference is the policy of the round
            before, normalized: an extrapolated one (`momentum_reference`) lacks its constant and does not serve.
        win_rates: Estimated probability, 0 to 1, that the answer wins against the round's own policy, (B,).
        eta: Step size, above 0 (the authors' code has 1000).
        weights: Weight of each answer, (B,).

    Raises:
        UserError: Shapes differ, or `eta` is not a finite number above 0.
    """
    _check_positive("eta", eta)
    check_shape("win_rates", win_rates, tuple(logratios.shape))
    target = eta * (win_rates.detach().to(logratios.dtype) - 0.5)
    return weighted_mean((logratios - target) ** 2, weights)


def win_rates(scores: Tensor) -> Tensor:
    """Return the probability of each of K answers to win against one of them drawn at random, itself included.

    P_i is the mean over j of sigmoid(s_i - s_j), the estimate that SPPO's authors use.

    Args:
        scores: Scores of K answers each to G prompts, shape (G, K), as differences of a Bradley-Terry model.

    Returns:
        Shape (G, K), each strictly between 0 and 1; the mean over K is 1/2.

    Raises:
        UserError: `scores` has not two dimensions.
    """
    if scores.dim() != 2:
        raise UserError(f"scores must have shape (prompts, answers to each), got {tuple(scores.shape)!r}")
    return torch.sigmoid(scores[:, :, None] - scores[:, None, :]).mean(-1)


def _logistic(margin: Tensor, beta: float) -> Tensor:
    return -torch.nn.functional.logsigmoid(beta * margin)


def _squared(margin: Tensor, beta: float) -> Tensor:
    return (margin - 0.5 / beta) ** 2


_PAIR_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


def _pairs(
    chosen: Tensor,
    rejected: Tensor,
    references: tuple[Tensor, Tensor],
    beta: float,
    weights: Tensor | None,
    link: Callable[[Tensor, float], Tensor],
) -> PreferenceLoss:
    _check_positive("beta", beta)
    if chosen.dim() != 1:
        raise UserError(f"chosen must have shape (pairs,), got {tuple(chosen.shape)!r}: sum over the tokens first")
    for name, tensor in (
        ("rejected", rejected),
        ("reference_chosen", references[0]),
        ("reference_rejected", references[1]),
    ):
        check_shape(name, tensor, tuple(chosen.shape))
    won, lost = chosen - references[0].detach(), rejected - references[1].detach()
    losses = link(won - lost, beta)
    return PreferenceLoss(
        loss=weighted_mean(losses, weights),
        losses=losses,
        chosen_rewards=beta * won.detach(),
        rejected_rewards=beta * lost.detach(),
    )


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{name} must be a finite number above 0, got {value!r}")
