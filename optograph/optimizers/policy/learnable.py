"""Whether rows hold anything that a method can learn, by the rules under which its trainer refuses them."""

from __future__ import annotations

from collections.abc import Sequence

from optograph.optimizers.policy.config import PolicyConfig
from optograph.optimizers.policy.rows import TrainingRow, preference_rows

TIES = "all answers to a prompt earned the same"


def unlearnable(rows: Sequence[TrainingRow], config: PolicyConfig) -> str | None:
    """Return why one adapter's rows teach nothing, or None where they can be trained on.

    Args:
        rows: Rows of one adapter.
        config: The method and its threshold.

    Raises:
        UserError: The method needs pairs, and an answer holds tokens that the policy did not write.
    """
    if not rows:
        return "there are no rows"
    if config.method in ("momentum_dpo", "dpo", "ipo"):
        return None if preference_rows(rows) else TIES
    if config.method == "sppo":
        return TIES if _all_even(rows, config.win_scale) else None
    if config.method == "kto":
        return _one_kind(rows, config.threshold)
    if config.method == "sft":
        least = config.threshold
        reached = least is None or any(row.reward >= least for row in rows)
        return None if reached else f"no answer earned as much as the threshold {least!r}"
    if config.method == "oreo" and len({row.reward for row in rows}) < 2:
        return "all answers earned the same"
    return None


def _all_even(rows: Sequence[TrainingRow], scale: float) -> bool:
    from optograph.optimizers.policy.trainers.sequence import row_win_rates

    return all(rate == 0.5 for rate in row_win_rates(rows, scale))


def _one_kind(rows: Sequence[TrainingRow], threshold: float | None) -> str | None:
    if len(rows) < 2:
        return "KTO compares answers, and there is only one"
    if len({row.input_ids[row.prompt_length :] for row in rows}) < 2:
        return "KTO compares answers, and all of them are the same"
    baseline = threshold
    if baseline is None:
        baseline = sum(row.reward * row.weight for row in rows) / sum(row.weight for row in rows)
    good = sum(row.reward > baseline for row in rows)
    if good in (0, len(rows)):
        return f"KTO needs good and bad answers, and {good} of {len(rows)} earned more than {baseline:g}"
    return None
