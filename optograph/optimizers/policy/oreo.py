"""OREO: offline reinforcement learning of a policy and a critic from whole runs with a reward at the end.

The losses of arXiv 2412.16145, for runs cut into any number of rows. A run's tokens that the policy wrote are its
actions; what tools, people or frozen nodes wrote is part of the states, whatever chose it. That is valid because the
log-ratios of later actions are constants in the policy's loss (stop-gradient); without that the fixed point is wrong
as soon as observations are random and the data is not the policy's own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy.tensors import check_shape, masked, masked_sum, weighted_mean

Level = Literal["token", "step", "response"]


def beta_effective(beta: float, kl_weight: float) -> float:
    """Return the temperature that a policy really has that was trained with a KL regularizer.

    On its own data the fixed point of the policy's loss is proportional to reference * exp(reward / beta_effective)
    with beta_effective = beta + kl_weight / (2 * beta). The paper's beta of 0.03 with a weight of 0.01 is 0.197.

    Args:
        beta: Coefficient of the log-ratios, above 0.
        kl_weight: The paper's alpha, 0 or more.

    Raises:
        UserError: A number is out of range.
    """
    OREOOptions(beta=beta, kl_weight=kl_weight)
    return beta + kl_weight / (2 * beta)


@dataclass(frozen=True, slots=True, kw_only=True)
class OREOOptions:
    """How OREO trains.

    Attributes:
        beta: Coefficient of log(policy / reference), above 0; the temperature of the optimal policy.
        kl_weight: Weight of the KL regularizer, 0 or more. It raises the temperature to `beta_effective`.
        level: What an action is: a ``"token"``, a ``"step"`` of several tokens, or the whole ``"response"`` (right
            only where a run is one call and nothing happens between its tokens).
        stop_gradient: Whether later log-ratios are constants in the policy's loss, as in the paper. Without it the
            losses are path consistency learning, kept for comparison.
    """

    beta: float = 0.03
    kl_weight: float = 0.01
    level: Level = "token"
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.beta) or self.beta <= 0:
            raise UserError(f"beta must be a finite number above 0, got {self.beta!r}")
        if not math.isfinite(self.kl_weight) or self.kl_weight < 0:
            raise UserError(f"kl_weight must be a finite number of 0 or more, got {self.kl_weight!r}")
        if self.level not in get_args(Level):
            raise UserError(f"level must be one of {get_args(Level)!r}, got {self.level!r}")

    @property
    def beta_effective(self) -> float:
        """The temperature with the regularizer; see the function of this name."""
        return beta_effective(self.beta, self.kl_weight)


@dataclass(frozen=True, slots=True)
class OREOLosses:
    """The losses of a batch.

    Attributes:
        policy: Loss of the policy without regularizer, scalar; no gradient flows to the critic.
        value: Loss of the critic, scalar; no gradient flows to the policy.
        kl: The KL regularizer, scalar.
        total: policy + value + kl_weight * kl.
        logratios: log(policy / reference) of each row, summed over its actions, (B,), detached; see `future_logratios`.
        beta_effective: What to log as the temperature.
    """

    policy: Tensor
    value: Tensor
    kl: Tensor
    total: Tensor
    logratios: Tensor
    beta_effective: float


def oreo_losses(
    logratios: Tensor,
    values: Tensor,
    mask: Tensor,
    rewards: Tensor,
    options: OREOOptions,
    *,
    kl: Tensor | None = None,
    steps: Tensor | None = None,
    future: Tensor | None = None,
    run_actions: Tensor | None = None,
    run_tokens: Tensor | None = None,
    weights: Tensor | None = None,
    runs: float | None = None,
) -> OREOLosses:
    """Return the losses of OREO's policy and critic: arXiv 2412.16145, with its levels.

    With l_i = log(policy / reference) of action i, R_t the rewards from t on, T the number of actions and sg[]
    for what no gradient flows through:

    - critic: 1/T sum_t (V(s_t) - R_t + beta sum_{i>=t} sg[l_i])^2
    - policy: 1/T sum_t (sg[V(s_t)] - R_t + beta l_t + sg[beta sum_{i>t} l_i])^2 + kl_weight / T sum_t KL_t

    At the level of responses both have the residual of the first token's state alone, with l over all tokens.

    A run may be cut into rows at any place between two actions. Each row is then given what it lacks of its run
    (`future`, `run_actions`, `run_tokens`), and the losses of the rows add up to the run's, divided by `runs`.

    Args:
        logratios: log(policy / reference) of each token, shape (B, L), with gradient to the policy.
        values: V of the state in which each token was chosen, so from the position before it, (B, L), with gradient
            to the critic.
        mask: True for the tokens that the policy wrote, (B, L). All others contribute exactly 0, NaN included.
        rewards: Reward of the run's end, (B,); or of each token, (B, L), of which those under the mask count. In the
            second form a row's last action carries what later rows of the run earn as well.
        options: Coefficients and level.
        kl: KL(policy | reference) over the vocabulary at each token, (B, L); needed where `kl_weight` is above 0.
        steps: True at the first token of each step, (B, L); for the level of steps only.
        future: Sum of the log-ratios of the actions in later rows of the same run and adapter, (B,); 0 by default.
        run_actions: T of the whole run in actions (tokens or steps) of the same adapter, (B,); the row's by default.
        run_tokens: T of the whole run in tokens, for the regularizer, (B,); the row's by default.
        weights: Weight of each row, (B,); rows of a run have the same.
        runs: Number of runs that the batch stands for; B by default.

    Raises:
        UserError: Shapes differ, something needed is missing, or a step does not begin at the row's first action.
    """
    if logratios.dim() != 2:
        raise UserError(f"logratios must have shape (rows, tokens), got {tuple(logratios.shape)!r}")
    shape, batch = tuple(logratios.shape), (logratios.shape[0],)
    mask = mask.bool()
    check_shape("values", values, shape)
    check_shape("mask", mask, shape)
    starts = _starts(mask, steps, options.level)
    if options.level == "response" and (future is not None or run_actions is not None):
        raise UserError("at the level of responses a row is a whole run: leave out future and run_actions")
    action = _Actions(starts)
    own = action.sums(masked(logratios, mask))
    value = action.at_start(values)
    future = _per_row("future", future, batch, own)
    target = _returns(rewards, mask, action, batch).to(own.dtype)
    critic, policy = _residuals(own, value, target, future, options)
    count = _count("run_actions", run_actions, batch, action.number)
    policy_sum, value_sum = action.total(policy**2) / count, action.total(critic**2) / count
    kl_sum = _regularizer(kl, mask, run_tokens, options).to(policy_sum.dtype)
    policy_loss, value_loss, kl_loss = (weighted_mean(one, weights, runs) for one in (policy_sum, value_sum, kl_sum))
    total = policy_loss + options.kl_weight * kl_loss
    if options.stop_gradient:  # otherwise the two are one loss
        total = total + value_loss
    return OREOLosses(
        policy=policy_loss,
        value=value_loss,
        kl=kl_loss,
        total=total,
        logratios=own.detach().sum(-1),
        beta_effective=options.beta_effective,
    )


def _residuals(
    own: Tensor, value: Tensor, target: Tensor, future: Tensor, options: OREOOptions
) -> tuple[Tensor, Tensor]:
    """Return what critic and policy have to make 0 at each action; without stop-gradients they are one."""
    if not options.stop_gradient:
        both = value - target + options.beta * (own + _after(own) + future)
        return both, both
    after = _after(own.detach()) + future
    critic = value - target + options.beta * (own.detach() + after)
    return critic, value.detach() - target + options.beta * (own + after)


def _regularizer(kl: Tensor | None, mask: Tensor, run_tokens: Tensor | None, options: OREOOptions) -> Tensor:
    """Return each row's share of its run's mean KL divergence, (B,); 0 where none is asked for."""
    number = mask.sum(-1)
    if kl is not None:
        check_shape("kl", kl, tuple(mask.shape))
        return masked_sum(kl, mask) / _count("run_tokens", run_tokens, (mask.shape[0],), number)
    if options.kl_weight:
        raise UserError(f"kl_weight is {options.kl_weight!r}: pass kl (see token_kl), or set it to 0")
    return torch.zeros(mask.shape[0], device=mask.device)


def future_logratios(
    sums: Tensor, runs: Sequence[Hashable], order: Sequence[int], adapters: Sequence[Hashable] | None = None
) -> Tensor:
    """Return for each row the log-ratios of all later rows of its run: `oreo_losses` takes them as `future`.

    Rows of another adapter are environment: each adapter sums its own log-ratios only.

    Args:
        sums: log(policy / reference) of each row, summed over its actions, shape (B,).
        runs: Which run each row belongs to, B of them.
        order: The row's place in its run; any order in which a call stands behind those that it depends on.
        adapters: Which adapter wrote each row; all the same by default.

    Returns:
        Shape (B,), detached; 0 for last rows.

    Raises:
        UserError: Lengths differ, or two rows of a run and adapter have the same place.
    """
    if sums.dim() != 1 or not len(runs) == len(order) == sums.shape[0]:
        raise UserError(f"one sum, run and place a row, got {tuple(sums.shape)!r}, {len(runs)} and {len(order)}")
    owners = [0] * len(runs) if adapters is None else list(adapters)
    if len(owners) != len(runs):
        raise UserError(f"one adapter a row, got {len(owners)} for {len(runs)} rows")
    later: dict[tuple[Hashable, Hashable], list[tuple[int, int]]] = {}
    for row, key in enumerate(zip(runs, owners, strict=True)):
        later.setdefault(key, []).append((order[row], row))
    future = torch.zeros_like(sums)
    with torch.no_grad():
        for (run, _), rows in later.items():
            if len({place for place, _ in rows}) < len(rows):
                raise UserError(f"two rows of run {run!r} and one adapter have the same place: {sorted(rows)!r}")
            rest = torch.zeros((), dtype=sums.dtype, device=sums.device)
            for _, row in sorted(rows, reverse=True):
                future[row] = rest
                rest = rest + sums[row]
    return future


class _Actions:
    """The actions of each row, numbered from 0: their sums stand in the first columns of a (B, L) tensor."""

    def __init__(self, starts: Tensor) -> None:
        self.starts = starts
        self.number = starts.sum(-1)
        self._of_token = (starts.long().cumsum(-1) - 1).clamp(min=0)
        self._valid = torch.arange(starts.shape[1], device=starts.device) < self.number[:, None]

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the tokens of each action; what stands before the first action must be 0."""
        return torch.zeros_like(values).scatter_add(1, self._of_token, values)

    def at_start(self, values: Tensor) -> Tensor:
        """Pick what stands at each action's first token."""
        return self.sums(masked(values, self.starts))

    def total(self, values: Tensor) -> Tensor:
        """Sum over the actions of each row, (B,)."""
        return masked_sum(values, self._valid)


def _starts(mask: Tensor, steps: Tensor | None, level: Level) -> Tensor:
    """Return where an action begins."""
    if (steps is None) == (level == "step"):
        raise UserError(
            f"steps say where each step begins: pass them at the level 'step' and only there, not {level!r}"
        )
    if level == "token":
        return mask
    first = mask & (mask.long().cumsum(-1) == 1)
    if steps is None:
        return first
    check_shape("steps", steps, tuple(mask.shape))
    starts = steps.bool() & mask
    if bool((first & ~starts).any()):
        raise UserError("the first token that the policy wrote in a row must begin a step: set steps there")
    return starts


def _after(sums: Tensor) -> Tensor:
    """Return for each action the sum over the later ones of its row."""
    return sums.flip(-1).cumsum(-1).flip(-1) - sums


def _returns(rewards: Tensor, mask: Tensor, action: _Actions, batch: tuple[int]) -> Tensor:
    if rewards.dim() == 1:
        check_shape("rewards", rewards, batch)
        return rewards[:, None].detach()
    own = action.sums(masked(rewards.detach(), mask))
    return own + _after(own)


def _per_row(name: str, given: Tensor | None, batch: tuple[int], like: Tensor) -> Tensor:
    if given is None:
        return like.new_zeros((batch[0], 1))
    check_shape(name, given, batch)
    return given.detach().to(like.dtype)[:, None]


def _count(name: str, given: Tensor | None, batch: tuple[int], own: Tensor) -> Tensor:
    if given is None:
        return own.clamp(min=1)
    check_shape(name, given, batch)
    if bool((given < own).any()):
        raise UserError(f"{name} counts the whole run, so it cannot be less than its row has: {given.tolist()!r}")
    return given.clamp(min=1)
