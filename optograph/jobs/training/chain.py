"""What each method samples from, begins from and measures against in a round, and what a verdict makes of it.

Momentum DPO (arXiv 2410.06293, algorithm 1): pairs are drawn from the extrapolated policy, training begins from the
last trained policy and measures against the extrapolated one in the space of sequences, and what it gives is the
result of the round. All other methods sample from, begin from and measure against the last policy that counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from optograph.jobs.training.records import Link, Training
from optograph.optimizers.policy.config import PolicyConfig


def uses_momentum(config: PolicyConfig) -> bool:
    """Whether a method extrapolates its policies."""
    return config.method == "momentum_dpo" and config.alpha > 0


def first_link(hash_: str, critic: str | None) -> Link:
    """Return what the first round begins from: there is no step yet that could be extrapolated."""
    return Link(current=hash_, previous=None, sampling=hash_, critic=critic)


def after_round(
    config: PolicyConfig, links: Mapping[str, Link], trained: Mapping[str, Training], *, rolled_back: bool
) -> dict[str, Link]:
    """Return what the next round begins from.

    After a roll-back it is what this round began from, without momentum: the last step led the wrong way, so that more
    of it would too (the restart of accelerated gradient methods: O'Donoghue and Candès, arXiv 1204.3982).

    Args:
        config: The method.
        links: What this round began from, by adapter.
        trained: What it trained, by adapter.
        rolled_back: Whether that was taken back.
    """
    found = {}
    for name, link in links.items():
        if name not in trained or rolled_back:
            found[name] = first_link(link.current, link.critic)
        else:
            previous = link.current if uses_momentum(config) else None
            made = trained[name]
            found[name] = Link(current=made.adapter, previous=previous, sampling=made.adapter, critic=made.critic)
    return found
