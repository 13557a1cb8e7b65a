"""Rows for training: the exact tokens of a model call, which of them the policy wrote, and what they earned."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, model_validator

from optograph.errors import UserError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingRow(_Frozen):
    """One model call of a run, or several of which each continues the one before."""

    rollout: str
    """The run that the call is part of: ``CANDIDATE/SPLIT/EXAMPLE/REPEAT``."""
    example: str
    call: int
    """Place of the (first) call among those of the rollout, from 0."""
    node: str | None
    """Step or graph node that asked."""
    adapter: str
    """Which adapter the row trains."""
    policy: str
    """The weights that wrote the answer, as `ModelIdentity.key` names them: pairs and rounds are told apart by it."""
    input_ids: tuple[int, ...]
    """Prompt and answer as the model saw and wrote them, never tokenized again."""
    action_mask: tuple[bool, ...]
    """Which tokens the policy wrote; one for each of `input_ids`."""
    reward: float
    """What the call earned; the whole run's reward where it is broadcast."""
    run_tokens: int
    """Tokens that this adapter wrote in the whole rollout: OREO's T, whatever rows the rollout is cut into."""
    weight: float
    """1 / rows of the rollout and adapter, so that a rollout counts once however many calls it made."""
    finish: str = ""
    """Why the answer ended; ``"length"`` where it was cut off."""

    @model_validator(mode="after")
    def _fits(self) -> TrainingRow:
        if len(self.input_ids) != len(self.action_mask):
            raise ValueError(f"{len(self.input_ids)} tokens, but {len(self.action_mask)} in the action mask")
        if not any(self.action_mask) or self.action_mask[0]:
            raise ValueError("a row holds at least one token of a prompt, then at least one that the policy wrote")
        return self

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first that the policy wrote."""
        return self.action_mask.index(True)

    @property
    def last_action(self) -> int:
        """Place of the last token that the policy wrote."""
        return len(self.action_mask) - 1 - self.action_mask[::-1].index(True)

    @property
    def actions(self) -> int:
        """Number of tokens that the policy wrote in this row."""
        return sum(self.action_mask)


class PreferenceRow(_Frozen):
    """Two answers to the very same tokens, of which one earned more."""

    chosen: TrainingRow
    rejected: TrainingRow

    @model_validator(mode="after")
    def _comparable(self) -> PreferenceRow:
        one, other = self.chosen, self.rejected
        if one.input_ids[: one.prompt_length] != other.input_ids[: other.prompt_length]:
            raise ValueError("the prompts of a pair must have the same token ids")
        if one.reward <= other.reward:
            raise ValueError(f"the chosen answer must earn more: {one.reward!r} and {other.reward!r}")
        return self


class TrainingRows(_Frozen):
    """The rows of a journal, and what was left out."""

    rows: tuple[TrainingRow, ...]
    unscored: int = 0
    """Rollouts without a score, because the infrastructure failed."""
    incomplete: int = 0
    """Rollouts whose recorded calls are not exactly those that they made: a greedy answer was taken from another
    rollout or asked for twice, or a failed attempt before left calls of its own. Sample, and none of this happens."""
    without_calls: int = 0
    """Rollouts that called no model, or none of the wanted nodes."""
    uncredited: int = 0
    """Calls that no credit reached, by `by_graph` or your own."""

    def __len__(self) -> int:
        return len(self.rows)

    def rollouts(self) -> Iterator[tuple[str, list[TrainingRow]]]:
        """Give (name, rows) of each rollout, in order."""
        found: dict[str, list[TrainingRow]] = {}
        for row in self.rows:
            found.setdefault(row.rollout, []).append(row)
        yield from found.items()


def merge_rows(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Join calls of a rollout whose prompt is exactly the tokens of the call before and more.

    What stands between two answers, such as a tool's result, is masked out. Calls of another adapter, policy or reward
    stay apart, and so does a call whose prompt drops or changes a single token: a new prefix is a new row.

    Args:
        rows: Rows as `training_rows` gives them.

    Returns:
        Rows in the order of their first calls; `weight` is counted again.
    """
    merged: list[TrainingRow] = []
    last: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.rollout, row.adapter, row.policy)
        place = last.get(key)
        before = None if place is None else merged[place]
        if place is not None and before is not None and _continues(before, row):
            joined = (*before.action_mask, *row.action_mask[len(before.input_ids) :])
            new = {"input_ids": row.input_ids, "action_mask": joined, "finish": row.finish}
            merged[place] = before.model_copy(update=new)
        else:
            last[key] = len(merged)
            merged.append(row)
    return weighed(merged)


def _continues(before: TrainingRow, row: TrainingRow) -> bool:
    known = len(before.input_ids)
    return before.reward == row.reward and row.prompt_length >= known and row.input_ids[:known] == before.input_ids


def weighed(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return rows with a weight of 1 for each rollout and adapter, in equal parts."""
    parts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        parts[row.rollout, row.adapter] += 1
    return [row.model_copy(update={"weight": 1 / parts[row.rollout, row.adapter]}) for row in rows]


def whole_answer(row: TrainingRow) -> None:
    """Check that the policy wrote all that follows the prompt.

    Raises:
        UserError: The row holds what a tool said in between, as those of `merge_rows` may.
    """
    if not all(row.action_mask[row.prompt_length :]):
        raise UserError(
            f"call {row.call} of {row.rollout!r} holds tokens within its answer that the policy did not write, so "
            "two of its kind answer different things: make pairs before merge_rows"
        )


def preference_rows(rows: Sequence[TrainingRow], *, least_gap: float = 0.0) -> list[PreferenceRow]:
    """Pair the best and the worst answer to each prompt.

    Only answers to the very same prompt tokens, of the same node and by the same policy are compared; prompts whose
    answers tie are dropped. An answer that was given more than once has the mean of what it earned.

    Args:
        rows: Rows of single calls (not of `merge_rows`: an answer there holds what tools said).
        least_gap: Pairs whose rewards differ by no more than this are dropped; 0 or more.

    Raises:
        UserError: `least_gap` is negative, or a row holds tokens after its answer began that the policy did not write.
    """
    if not least_gap >= 0:
        raise UserError(f"least_gap must be 0 or more, got {least_gap!r}")
    groups: dict[tuple[object, ...], list[TrainingRow]] = {}
    for row in rows:
        whole_answer(row)
        groups.setdefault((row.node, row.adapter, row.policy, row.input_ids[: row.prompt_length]), []).append(row)
    pairs = []
    for given in groups.values():
        group = _each_once(given)
        best = max(group, key=lambda row: row.reward)
        worst = min(group, key=lambda row: row.reward)
        if best.reward - worst.reward > least_gap:
            pairs.append(PreferenceRow(chosen=best, rejected=worst))
    return pairs


def _each_once(group: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return the different answers of a group, each with its mean reward."""
    found: dict[tuple[int, ...], list[TrainingRow]] = {}
    for row in group:
        found.setdefault(row.input_ids, []).append(row)
    return [
        rows[0].model_copy(update={"reward": math.fsum(row.reward for row in rows) / len(rows)})
        if len(rows) > 1
        else rows[0]
        for rows in found.values()
    ]
