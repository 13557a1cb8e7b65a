"""From a model's logits to log-probabilities of tokens, with masks; and the checks that all losses share."""

from __future__ import annotations

import torch
from torch import Tensor

from optograph.errors import UserError


def token_logprobs(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Return the log-probability of each token given those before it.

    Args:
        logits: Shape (B, L, vocabulary); position i predicts token i + 1.
        input_ids: Shape (B, L), the recorded tokens.

    Returns:
        Shape (B, L), in float32 at least. Column i belongs to token i; column 0, which nothing predicts, is 0. So a
        mask over tokens is a mask over this.

    Raises:
        UserError: The shapes do not fit.
    """
    _check_logits(logits, input_ids)
    log_p = _log_softmax(logits[:, :-1])
    found = log_p.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return _shifted(found)


def token_kl(policy_logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Return KL(policy | reference) over the whole vocabulary at each token; 0 or more, in nats.

    Args:
        policy_logits: Shape (B, L, vocabulary).
        reference_logits: The same shape; no gradient flows into it.

    Returns:
        Shape (B, L); column i belongs to the distribution that token i was drawn from, column 0 is 0.

    Raises:
        UserError: The shapes do not fit.
    """
    _check_logits(policy_logits, policy_logits[..., 0])
    check_shape("reference_logits", reference_logits, tuple(policy_logits.shape))
    log_p = _log_softmax(policy_logits[:, :-1])
    log_r = _log_softmax(reference_logits.detach()[:, :-1])
    return _shifted((log_p.exp() * (log_p - log_r)).sum(-1))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum `values` (B, L) over the tokens that `mask` (B, L) selects; shape (B,).

    What the mask leaves out contributes exactly 0 to the sum and to its gradient, whatever it is, NaN included.

    Raises:
        UserError: The shapes differ.
    """
    return masked(values, mask).sum(-1)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` where `mask` is true and exactly 0, without gradient, elsewhere."""
    check_shape("mask", mask, tuple(values.shape))
    return torch.where(mask.bool(), values, torch.zeros((), dtype=values.dtype, device=values.device))


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `UserError` where a tensor has another shape."""
    if tuple(tensor.shape) != shape:
        raise UserError(f"{name} must have shape {shape}, got {tuple(tensor.shape)!r}")


def weighted_mean(values: Tensor, weights: Tensor | None, count: float | None = None) -> Tensor:
    """Return the sum of `values` (B,), each times its weight, divided by `count` (B by default)."""
    if weights is not None:
        check_shape("weights", weights, tuple(values.shape))
        values = values * weights.to(values.dtype)
    if count is None:
        count = values.shape[0]
    if not count > 0:
        raise UserError(f"a loss is a mean over a number of rows above 0, got {count!r}")
    return values.sum() / count


def _log_softmax(logits: Tensor) -> Tensor:
    """In float32 where the logits are shorter: log-ratios are small differences of large numbers."""
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), -1)


def _shifted(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (1, 0))


def _check_logits(logits: Tensor, input_ids: Tensor) -> None:
    if logits.dim() != 3 or logits.shape[1] < 1:
        raise UserError(f"logits must have shape (batch, length, vocabulary), got {tuple(logits.shape)!r}")
    check_shape("input_ids", input_ids, tuple(logits.shape[:2]))
