"""A probe: what the saved adapter says to one row, worked out afresh, to compare a server's answer with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.models import load_base
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.optimizers.policy.references import score_rows
from optograph.optimizers.policy.rows import TrainingRow
from optograph.serving.vllm.adapters import Probe

_LONGEST = 32


def make_probe(base: BaseModelFiles, adapter: Path, rows: Sequence[TrainingRow]) -> Probe:
    """Return the log-probabilities that a saved adapter gives to the answer of a row, in float32.

    Base and adapter are loaded from their files, so a probe shows what was saved and not what was in memory. It takes
    the row with the most tokens that the policy wrote one after the other, 32 of them at most.

    Args:
        base: The base that the adapter belongs to.
        adapter: The adapter's folder.
        rows: Rows to choose from.

    Raises:
        UserError: There are no rows.
    """
    if not rows:
        raise UserError("a probe needs a row: something that the policy was asked and answered")
    row = max(rows, key=_answer)
    begin, end = row.prompt_length, row.prompt_length + _answer(row)
    one = row.model_copy(update={"input_ids": row.input_ids[:end], "action_mask": row.action_mask[:end]})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_libraries():
        model = PeftModel.from_pretrained(load_base(base, dtype=torch.float32, device=device), str(adapter))
        (scored,) = score_rows(model, [one], "default", batch_size=1)
    return Probe(one.input_ids[:begin], one.input_ids[begin:], tuple(scored.logprobs.tolist()))


def _answer(row: TrainingRow) -> int:
    """Number of tokens that the policy wrote in a row from the first on, 32 at most."""
    begin = row.prompt_length
    mask = row.action_mask[begin : begin + _LONGEST]
    return mask.index(False) if False in mask else len(mask)
