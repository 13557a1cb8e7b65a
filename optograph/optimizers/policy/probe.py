"""A probe: what the saved adapter says to one row, worked out afresh, to compare a server's answer with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.models import add_frozen, load_base
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.optimizers.policy.references import score_rows
from optograph.optimizers.policy.rows import TrainingRow
from optograph.serving.vllm.adapters import Probe

_LONGEST = 32
_TRIED = 8


def make_probe(base: BaseModelFiles, adapter: Path, rows: Sequence[TrainingRow], *, start: Path | None = None) -> Probe:
    """Return the log-probabilities that a saved adapter gives to the answer of a row, in float32.

    Base and adapters are loaded from their files, so a probe shows what was saved and not what was in memory. Of the 8
    rows with the most tokens that the policy wrote one after the other (32 of them at most), it takes the one where
    the adapter differs most from what the training began from; what that, and the base, give for the same tokens is
    in the probe's ``others``.

    Args:
        base: The base that the adapter belongs to.
        adapter: The adapter's folder.
        rows: Rows to choose from.
        start: Folder of the adapter that the training began from; the base by default.

    Raises:
        UserError: There are no rows.
    """
    if not rows:
        raise UserError("a probe needs a row: something that the policy was asked and answered")
    tried = [_cut(row) for row in sorted(rows, key=_answer, reverse=True)[:_TRIED]]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_libraries():
        model = PeftModel.from_pretrained(load_base(base, dtype=torch.float32, device=device), str(adapter))
        if start is not None:
            add_frozen(model, "start", start)
        names = {"base": None} if start is None else {"start": "start", "base": None}
        own = _logprobs(model, tried, "default")
        began = _logprobs(model, tried, "start" if start is not None else None)
        moved = [
            max(abs(one - other) for one, other in zip(*pair, strict=True)) for pair in zip(own, began, strict=True)
        ]
        place = moved.index(max(moved))
        row = tried[place]
        others = {name: _logprobs(model, [row], other)[0] for name, other in names.items()}
    begin = row.prompt_length
    return Probe(row.input_ids[:begin], row.input_ids[begin:], own[place], others)


def _logprobs(model: PeftModel, rows: Sequence[TrainingRow], adapter: str | None) -> list[tuple[float, ...]]:
    return [tuple(one.logprobs.tolist()) for one in score_rows(model, rows, adapter, batch_size=1)]


def _cut(row: TrainingRow) -> TrainingRow:
    """Return a row up to the last token that a probe of it holds."""
    end = row.prompt_length + _answer(row)
    return row.model_copy(update={"input_ids": row.input_ids[:end], "action_mask": row.action_mask[:end]})


def _answer(row: TrainingRow) -> int:
    """Number of tokens that the policy wrote in a row from the first on, 32 at most."""
    begin = row.prompt_length
    mask = row.action_mask[begin : begin + _LONGEST]
    return mask.index(False) if False in mask else len(mask)
