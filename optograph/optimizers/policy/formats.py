"""Rows in the formats of TRL's trainers: token ids all the way, so that nothing is tokenized again.

The columns are those that TRL's own collators read (trl 1.16). SFT takes its data set as it is; DPO and KTO tokenize
theirs when they prepare it, so a trainer must be kept from that (`_prepare_dataset` gives the data set back).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.optimizers.policy.rows import PreferenceRow, TrainingRow, whole_answer

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""Label of a token that is not scored, as torch's cross-entropy has it."""


def sft_dataset(rows: Sequence[TrainingRow], *, least: float | None = None) -> Dataset:
    """Return ``input_ids`` and ``labels`` for supervised fine-tuning.

    Labels are -100 wherever the policy did not write: prompts, and what tools said within merged rows.

    Args:
        rows: Rows, merged or not.
        least: Rows whose reward is less are left out; all rows by default.

    Raises:
        UserError: No row is left.
    """
    kept = [row for row in rows if least is None or row.reward >= least]
    if not kept:
        raise UserError(f"no row to train on: {len(rows)} rows, none of which earned at least {least!r}")
    made = [
        {
            "input_ids": list(row.input_ids),
            "labels": [
                token if wrote else IGNORED for token, wrote in zip(row.input_ids, row.action_mask, strict=True)
            ],
        }
        for row in kept
    ]
    return _dataset(made, ("input_ids", "labels"))


def preference_dataset(pairs: Sequence[PreferenceRow]) -> Dataset:
    """Return ``prompt_ids``, ``chosen_ids`` and ``rejected_ids`` for DPO and its kin, one row a pair.

    Raises:
        UserError: There are no pairs, or an answer holds tokens that the policy did not write: TRL would score them.
    """
    if not pairs:
        raise UserError("there are no pairs: answers to one prompt must differ in what they earned")
    made = []
    for pair in pairs:
        prompt, chosen = _parts(pair.chosen)
        _, rejected = _parts(pair.rejected)
        made.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return _dataset(made, ("prompt_ids", "chosen_ids", "rejected_ids"))


def unpaired_dataset(rows: Sequence[TrainingRow], *, baseline: float | None = None) -> Dataset:
    """Return ``prompt_ids``, ``completion_ids`` and ``label`` for KTO: every call, wanted or not.

    Args:
        rows: Rows of single calls (not of `merge_rows`).
        baseline: A call is wanted where it earned more than this; by default the mean reward of the rows, each
            counted with its `weight`, so that long rollouts count no more than short ones.

    Raises:
        UserError: All rows are wanted or none is, or an answer holds tokens that the policy did not write.
    """
    if not rows:
        raise UserError("there are no rows: TrainingRows says what was left out, and why")
    if baseline is None:
        baseline = sum(row.reward * row.weight for row in rows) / sum(row.weight for row in rows)
    made = []
    for row in rows:
        prompt, answer = _parts(row)
        made.append({"prompt_ids": prompt, "completion_ids": answer, "label": row.reward > baseline})
    wanted = sum(row.reward > baseline for row in rows)
    if wanted in (0, len(made)):
        raise UserError(
            f"KTO needs calls of both kinds, and {wanted} of {len(made)} earned more than the baseline {baseline!r}: "
            "collect more rollouts, or set another baseline"
        )
    return _dataset(made, ("prompt_ids", "completion_ids", "label"))


def balanced_weights(labels: Sequence[bool]) -> tuple[float, float]:
    """Return KTO's weights of wanted and of unwanted answers: both kinds count alike, and the commoner has 1.

    The weights times the counts are equal, the lower end of the range [1, 4/3] that section 4.2 of arXiv 2402.01306
    advises.

    Raises:
        UserError: There is only one kind.
    """
    wanted = sum(bool(one) for one in labels)
    unwanted = len(labels) - wanted
    if not wanted or not unwanted:
        raise UserError(f"weights need answers of both kinds, got {wanted} wanted of {len(labels)}")
    return max(1.0, unwanted / wanted), max(1.0, wanted / unwanted)


def _parts(row: TrainingRow) -> tuple[list[int], list[int]]:
    whole_answer(row)
    return list(row.input_ids[: row.prompt_length]), list(row.input_ids[row.prompt_length :])


def _dataset(made: list[dict[str, Any]], columns: tuple[str, ...]) -> Dataset:
    from datasets import Dataset, Features, Sequence, Value

    ids = Sequence(Value("int64"))
    types = Features({name: Value("bool") if name == "label" else ids for name in columns})
    return Dataset.from_list(made, features=types)
