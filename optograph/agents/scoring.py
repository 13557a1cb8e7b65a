"""Answering by label probability: which label's first token the model finds likeliest, with batch calibration.

Calibration follows batch calibration (Zhou et al. 2023, arXiv 2309.17249): a prompt's bias towards a label is its mean
log-probability over a batch of unlabelled inputs, and it is subtracted before the labels are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optograph.errors import ModelError, UserError
from optograph.serving import Completion

FLOOR_MARGIN = 1.0
"""How far below the least likely alternative shown (in nats) a label is put that is not among them."""


def check_labels(labels: Sequence[str]) -> None:
    """Raise ``UserError`` where labels cannot be told apart by how they begin."""
    lowered = [label.strip().lower() for label in labels]
    if len(labels) < 2 or any(not label for label in lowered) or len(set(lowered)) != len(lowered):
        raise UserError(f"labels to score must be at least two different words, not {list(labels)!r}")
    heads = [(one, other) for one in lowered for other in lowered if one != other and other.startswith(one[:3])]
    if heads:
        raise UserError(
            f"labels {heads[0]!r} begin alike, so that their first tokens may not tell them apart: use other words, "
            "or answer='choice'"
        )


def label_logprobs(completion: Completion, labels: Sequence[str]) -> tuple[float, ...]:
    """Return normalized log-probabilities of the labels (natural log, one a label, summing to 1 in probability).

    A label's mass is that of all alternatives of the first token that begin the label and no other one.

    Raises:
        ModelError: The completion carries no log-probabilities, or none of its alternatives begins a label.
    """
    tokens = completion.logprobs[0] if completion.logprobs else None
    if not tokens:
        raise ModelError("the model gave no log-probabilities, so its labels cannot be scored")
    mass = [0.0] * len(labels)
    for token, logprob in tokens[0].top:
        piece = token.strip().lower()
        owners = [index for index, label in enumerate(labels) if piece and label.lower().startswith(piece)]
        if len(owners) == 1:
            mass[owners[0]] += math.exp(logprob)
    if not any(mass):
        raise ModelError(f"none of the labels {list(labels)!r} is among the first tokens that the model considered")
    floor = math.exp(min(logprob for _, logprob in tokens[0].top) - FLOOR_MARGIN)
    filled = [max(one, floor) for one in mass]
    total = sum(filled)
    return tuple(math.log(one / total) for one in filled)


def calibrated(logprobs: Sequence[float], prior: Sequence[float] | None) -> tuple[float, ...]:
    """Subtract a prompt's prior (mean log-probabilities) and normalize again."""
    if prior is None:
        return tuple(logprobs)
    shifted = [one - bias for one, bias in zip(logprobs, prior, strict=True)]
    top = max(shifted)
    total = top + math.log(sum(math.exp(one - top) for one in shifted))
    return tuple(one - total for one in shifted)


def mean_prior(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean log-probability of each label over a batch of inputs."""
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
