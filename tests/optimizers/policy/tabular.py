"""Tabular models: a tree of tokens with exact values, for the losses to be held against."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optograph.optimizers.policy import OREOLosses, OREOOptions, oreo_losses, token_kl, token_logprobs

ACTIONS = 3
HORIZON = 3
State = tuple[int, ...]


@dataclass
class Tree:
    """All runs of three actions; after each action but the last the world may say one of `observations` things.

    A run's tokens are action, observation, action, observation, action (or actions alone). Every state in which the
    policy acts has a row in the tables.
    """

    observations: int
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        seen = self.observations or 1
        turns = [range(ACTIONS), range(seen)] * (HORIZON - 1) + [range(ACTIONS)]
        self.paths = [tuple(path) for path in itertools.product(*turns)]
        states: dict[State, int] = {}
        for path in self.paths:
            for place in range(0, len(path), 2):
                states.setdefault(path[:place], len(states))
        self.states = states
        self.reference = _random_policies(rng, len(states), ACTIONS)
        self.behaviour = _random_policies(rng, len(states), ACTIONS)
        self.world = {
            path[: place + 1]: _random_policies(rng, 1, seen)[0]
            for path in self.paths
            for place in range(0, len(path) - 1, 2)
        }
        self.rewards = torch.tensor(rng.integers(0, 2, len(self.paths)), dtype=torch.float64)

    @property
    def chance(self) -> Tensor:
        """Probability of each run under the behaviour policy."""
        found = []
        for path in self.paths:
            p = 1.0
            for place in range(0, len(path), 2):
                p *= float(self.behaviour[self.states[path[:place]], path[place]])
                if place + 1 < len(path):
                    p *= float(self.world[path[: place + 1]][path[place + 1]])
            found.append(p)
        return torch.tensor(found, dtype=torch.float64)

    def solution(self, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Backward induction: V* of each state and the optimal policy."""
        reward = dict(zip(self.paths, self.rewards.tolist(), strict=True))
        values = np.zeros(len(self.states))
        policy = np.zeros((len(self.states), ACTIONS))
        for state, row in sorted(self.states.items(), key=lambda one: -len(one[0])):
            q = np.zeros(ACTIONS)
            for action in range(ACTIONS):
                after = (*state, action)
                if after in reward:
                    q[action] = reward[after]
                else:
                    chances = self.world[after]
                    q[action] = sum(p * values[self.states[(*after, seen)]] for seen, p in enumerate(chances))
            weights = self.reference[row] * np.exp(q / beta)
            values[row] = beta * np.log(weights.sum())
            policy[row] = weights / weights.sum()
        return values, policy


@dataclass
class Model:
    """A softmax policy and a critic with one row a state, read out for all runs of a tree as a network would be."""

    tree: Tree

    def __post_init__(self) -> None:
        tree = self.tree
        width = 1 if not tree.observations else 2
        self.length = 1 + (HORIZON - 1) * width + 1  # a token of the prompt stands first
        self.ids = torch.zeros((len(tree.paths), self.length), dtype=torch.long)
        self.rows = torch.zeros_like(self.ids)
        self.mask = torch.zeros_like(self.ids, dtype=torch.bool)
        for number, path in enumerate(tree.paths):
            for turn in range(HORIZON):
                column = 1 + turn * width
                self.ids[number, column] = path[2 * turn]
                self.rows[number, column] = tree.states[path[: 2 * turn]]
                self.mask[number, column] = True
                if width == 2 and turn < HORIZON - 1:
                    self.ids[number, column + 1] = path[2 * turn + 1]
        self.reference = torch.tensor(np.log(tree.reference))
        self.logits = self.reference.clone().requires_grad_()
        self.values = torch.zeros(len(tree.states), dtype=torch.float64, requires_grad=True)

    def _logits(self, table: Tensor) -> Tensor:
        """Shape (runs, length, vocabulary), where a position predicts the next token, as language models do."""
        vocabulary = max(ACTIONS, self.tree.observations)
        wide = torch.nn.functional.pad(table, (0, vocabulary - ACTIONS), value=-1e9)
        return wide[self.rows].roll(-1, dims=1)

    def logratios(self) -> Tensor:
        return token_logprobs(self._logits(self.logits), self.ids) - token_logprobs(
            self._logits(self.reference), self.ids
        )

    def kl(self) -> Tensor:
        return token_kl(self._logits(self.logits), self._logits(self.reference))

    def critic(self) -> Tensor:
        return self.values[self.rows]

    def policy(self) -> np.ndarray:
        return self.logits.detach().softmax(-1).numpy()

    def losses(self, options: OREOOptions) -> OREOLosses:
        """OREO's losses over all runs, each with its chance: the expectation over the data."""
        return oreo_losses(
            self.logratios(),
            self.critic(),
            self.mask,
            self.tree.rewards,
            options,
            weights=self.tree.chance,
            runs=1,
        )

    def train(self, options: OREOOptions, iterations: int) -> None:
        """Follow the gradients; each state's is divided by the chance to get there, so that all learn equally fast."""
        visits = torch.zeros(len(self.tree.states), dtype=torch.float64)
        visits.index_put_((self.rows[self.mask],), self.tree.chance.repeat_interleave(HORIZON), accumulate=True)
        scale = HORIZON / visits
        for _ in range(iterations):
            grad_logits, grad_values = torch.autograd.grad(self.losses(options).total, [self.logits, self.values])
            with torch.no_grad():
                self.logits -= 0.4 / options.beta**2 * scale[:, None] * grad_logits
                self.values -= 0.4 * scale * grad_values


def number(scalar: Tensor) -> float:
    """The value of a scalar tensor."""
    return float(scalar.detach())


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance of two tables of distributions, over their rows."""
    return float(np.abs(one - other).sum(-1).max() / 2)


def minimize(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int = 200) -> None:
    """Minimize to the last digits."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _random_policies(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    raw = rng.uniform(0.2, 1.0, (rows, width))
    policies: np.ndarray = raw / raw.sum(-1, keepdims=True)
    return policies
