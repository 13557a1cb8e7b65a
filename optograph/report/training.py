"""The training of a policy in a report: its rounds, their curves, and which adapter came from which."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from optograph.report.record import Row

Outcome = Literal["start", "accepted", "rejected", "rolled back", "sampled", ""]


class RoundRow(Row):
    """One round of training.

    Attributes:
        number: From 1.
        rollouts: Runs of train examples that were collected.
        missing: Those of them without a score, because the infrastructure failed.
        reward: Mean score of the others.
        prefix_hit_rate: Share of their prompts' tokens that the server found in its prefix cache.
        rows: Rows that were made of them.
        pairs: Pairs of answers to the same prompt that differ in their reward.
        dev_score: Mean dev score of what was trained.
        dev_low: Lower end of its 95 % interval.
        dev_high: Upper end.
        best_score: Dev score of the best after the round.
        verdict: ``"accepted"``, ``"rejected"``, ``"identical"`` or ``"missing"``; empty while the round goes on.
        reason: Why.
        rolled_back: Whether the next round began from the one before.
        difference: How far the served adapter was from the trained one, in nats; the largest of several.
        realised: Share of the momentum step that the sampled policy realised; the least of several.
        kl: Mean divergence from the reference in the last quarter of the training, in nats a token.
        prompts: Whether the prompts got better after the round.
        not_told_apart: What the probes of its adapters do not tell them from, ``"base"`` or ``"start"``.
    """

    number: int
    rollouts: int = Field(default=0, ge=0)
    missing: int = Field(default=0, ge=0)
    reward: float | None = None
    prefix_hit_rate: float | None = None
    rows: int = Field(default=0, ge=0)
    pairs: int = Field(default=0, ge=0)
    dev_score: float | None = None
    dev_low: float | None = None
    dev_high: float | None = None
    best_score: float | None = None
    verdict: str = ""
    reason: str = ""
    rolled_back: bool = False
    difference: float | None = None
    realised: float | None = None
    kl: float | None = None
    prompts: bool = False
    not_told_apart: list[str] = Field(default_factory=list)


class Curve(Row):
    """One figure over the steps of one training.

    Attributes:
        round: The round; 0 for the training before the first.
        adapter: Name of the adapter.
        figure: Name of the figure, such as ``"loss"`` or ``"kl"``.
        points: Pairs (step, value).
    """

    round: int
    adapter: str
    figure: str
    points: list[tuple[float, float]] = Field(default_factory=list)


class AdapterRow(Row):
    """A version of an adapter.

    Attributes:
        hash: Hash of its content.
        name: Which adapter it is a version of.
        made: How it came to be: ``"given"``, ``"sft"``, ``"fresh"``, ``"trained"`` or ``"extrapolated"``.
        round: Round that made it.
        parents: Hashes of what it came from; an empty text for the base model.
        outcome: What became of it.
        final: Whether it is part of the result.
        not_told_apart: What its probe does not tell it from: ``"base"``, ``"start"`` (what its training began from).
    """

    hash: str
    name: str
    made: str
    round: int = Field(ge=0)
    parents: list[str] = Field(default_factory=list)
    outcome: Outcome = ""
    final: bool = False
    not_told_apart: list[str] = Field(default_factory=list)


class TrainingView(Row):
    """The whole training.

    Attributes:
        method: How weights are trained.
        rounds: The rounds.
        planned: Rounds that the job asks for.
        curves: Figures over the steps of each training.
        adapters: All adapters, in the order of their making.
        why: Why it ended; empty while it goes on.
    """

    method: str
    rounds: list[RoundRow] = Field(default_factory=list)
    planned: int = Field(default=0, ge=0)
    curves: list[Curve] = Field(default_factory=list)
    adapters: list[AdapterRow] = Field(default_factory=list)
    why: str = ""
