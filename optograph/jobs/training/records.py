"""What the training loop keeps in the journal: its state, and what came of each phase of each round."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Phase = Literal[
    "start", "baseline", "extrapolate", "collect", "rows", "train", "serve", "evaluate", "decide", "prompts", "ended"
]
Outcome = Literal["start", "accepted", "rejected", "rolled back", "sampled", ""]
STATE = "training"
"""Name of the loop's state in the journal; events of its phases are named ``training.PHASE``."""

BASE = ""
"""Stands for the base model where an adapter's hash could stand."""


class Record(BaseModel):
    """A frozen record without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Link(Record):
    """What training goes on from, for one adapter.

    Attributes:
        current: The last policy that counts, by its hash.
        previous: The one before it, for momentum; None where the next round has none.
        sampling: What rollouts are drawn from: the current policy, or the extrapolated one.
        critic: Hash of the critic that goes on with the current policy; None where there is none.
    """

    current: str = BASE
    previous: str | None = None
    sampling: str = BASE
    critic: str | None = None


class AdapterRecord(Record):
    """An adapter in the run's folder.

    Attributes:
        name: Which of the job's adapters it is a version of.
        made: How it came to be: ``"given"``, ``"sft"``, ``"fresh"`` (it does nothing yet), ``"trained"`` or
            ``"extrapolated"``.
        round: Round that made it; 0 for what was there before.
        parents: Hashes of what it was made from; `BASE` for the base model.
        probe: Payload hash of its probe, or None.
        outcome: What became of it: ``"start"``, ``"accepted"``, ``"rejected"``, ``"rolled back"``, ``"sampled"`` (an
            extrapolated one), or empty while that is open.
    """

    name: str
    made: Literal["given", "sft", "fresh", "trained", "extrapolated"]
    round: int
    parents: tuple[str, ...] = ()
    probe: str | None = None
    outcome: Outcome = ""


class Collected(Record):
    """Rollouts of a round: of which candidate, which repeats, what they earned, and what the server saved.

    `prefix_hit_rate` is the share of prompt tokens that the server found in its prefix cache, from 0 to 1, as far as
    they were asked for since the run was last resumed; None where no server was asked.
    """

    candidate: str
    first: int
    samples: int
    rollouts: int
    missing: int
    reward: float | None
    prefix_hit_rate: float | None = None


class Made(Record):
    """Rows of a round: their file, its content's hash, and counts."""

    file: str
    content: str
    rows: int
    pairs: int
    rollouts: int
    left_out: int


class Training(Record):
    """A training of one adapter.

    Attributes:
        adapter: Hash of the result.
        start: Hash of what it began from.
        previous: Hash of the policy before that, for momentum; None without.
        metrics: Figures of the whole training.
        history: Payload hash of its curve: figures of each logged step.
        rows: Rows that it learned from.
        critic: Hash of the critic that was trained with it; None where there is none.
    """

    adapter: str
    start: str
    previous: str | None
    metrics: dict[str, float] = {}
    history: str
    rows: int
    critic: str | None = None


class Settled(Record):
    """The verdict on a round."""

    kind: str
    reason: str
    candidate: str
    score: float | None = None
    incumbent_score: float | None = None
    low: float | None = None
    high: float | None = None
    rolled_back: bool = False


class Round(Record):
    """A round, as far as it has come.

    Attributes:
        number: From 1.
        links: What it began from, by adapter.
        realised: Share of the momentum step that the sampled adapter realised, by adapter.
        collected: Its rollouts.
        made: Its rows; None also where there was nothing to learn from.
        trained: Its trainings, by adapter.
        differences: How far the server's probe was off, by adapter, in nats.
        not_told_apart: Whom the probe does not tell an adapter from, by adapter: ``"base"``, ``"start"`` (what its
            training began from); the served weights could then be those.
        dev: Mean score on dev.
        settled: The verdict.
        prompts: Id of the best candidate after the prompts were optimized.
    """

    number: int
    links: dict[str, Link]
    realised: dict[str, float] = {}
    collected: Collected | None = None
    made: Made | None = None
    trained: dict[str, Training] = {}
    differences: dict[str, float] = {}
    not_told_apart: dict[str, tuple[str, ...]] = {}
    dev: float | None = None
    settled: Settled | None = None
    prompts: str | None = None


class TrainState(Record):
    """Where the loop stands; the phase named is the next to be done.

    Attributes:
        phase: The next phase.
        start: The candidate that it began with, as JSON data; None before it is known.
        incumbent: The best so far, likewise.
        links: What the next round begins from, by adapter.
        rounds: The rounds; the last one is in progress unless it is settled.
        adapters: All adapters ever made, by hash.
        sft: The training before the first round.
        tests: Acceptance tests so far.
        stale: Rounds since the last one that was accepted.
        status: How it ended: ``"finished"`` or ``"budget"``; empty while it goes on.
        why: Why it ended, in words.
        limits: The budget that it ended under.
    """

    phase: Phase = "start"
    start: dict[str, Any] | None = None
    incumbent: dict[str, Any] | None = None
    links: dict[str, Link] = {}
    rounds: tuple[Round, ...] = ()
    adapters: dict[str, AdapterRecord] = {}
    sft: Training | None = None
    tests: int = 0
    stale: int = 0
    status: str = ""
    why: str = ""
    limits: Any = None

    @property
    def round(self) -> Round:
        """The round in progress."""
        return self.rounds[-1]

    def with_round(self, **changes: Any) -> TrainState:
        """Return the state with fields of the round in progress changed."""
        last = self.rounds[-1].model_copy(update=changes)
        return self.model_copy(update={"rounds": (*self.rounds[:-1], last)})

    def but(self, **changes: Any) -> TrainState:
        """Return the state with these fields changed."""
        return self.model_copy(update=changes)
