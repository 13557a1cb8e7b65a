"""Log-probabilities of what the policy wrote, and nothing else: the output layer sees no other position.

The output layer and the softmax over its vocabulary cost as much as a third of a small model, and rows are mostly
prompt; so they are worked out only where the policy chose a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from optograph.errors import UserError
from optograph.optimizers.policy.tensors import token_kl, token_logprobs

_CHUNK = 1024


def decoder_of(model: Any) -> Any:
    """Return the causal language model inside of its adapters and wrappers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_head(model: Any, input_ids: Tensor) -> None:
    """Check, on one short text (1, L), that the output layer alone gives the logits that the whole model gives.

    Raises:
        UserError: It does not: the model's family does something to its logits that is not known here.
    """
    with torch.no_grad():
        decoder = decoder_of(model)
        whole = decoder(input_ids=input_ids, use_cache=False).logits.float()
        ours = _logits(model, decoder.base_model(input_ids=input_ids, use_cache=False).last_hidden_state).float()
    if not torch.allclose(whole, ours, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"models of the type {decoder.config.model_type!r} change their logits in a way that is not known here, so "
            "they cannot be trained by OREO, IPO or SPPO"
        )


def hidden_before(model: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Return the last hidden state of the position before each token that the mask selects.

    Rows are padded on the right, and attention is causal: no position that counts sees padding, so it needs no mask.

    Args:
        model: A causal language model, with or without adapters.
        input_ids: Shape (B, L).
        mask: (B, L), False in the first column.

    Returns:
        Shape (N, hidden size), the selected tokens row by row.
    """
    body = decoder_of(model).base_model
    hidden: Tensor = body(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden[:, :-1][mask[:, 1:]]


def action_logprobs(model: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token, (N,), given the hidden state before it, (N, hidden size)."""

    def part(states: Tensor, chosen: Tensor) -> Tensor:
        return _of_tokens(_logits(model, states), chosen)

    return _in_chunks(part, hidden, tokens)


def action_kl(model: Any, hidden: Tensor, reference: Tensor) -> Tensor:
    """Return KL(policy | reference) over the vocabulary, (N,), given both hidden states, (N, hidden size).

    Both have the same output layer: it is never trained.
    """

    def part(states: Tensor, others: Tensor) -> Tensor:
        with torch.no_grad():
            reference_logits = _logits(model, others)
        return token_kl(_twice(_logits(model, states)), _twice(reference_logits))[:, 1]

    return _in_chunks(part, hidden, reference)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put N values to their places in a (B, L) tensor that is 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """Apply the output layer, with the scaling that some families add to it."""
    decoder = decoder_of(model)
    settings = decoder.config.get_text_config()
    head = decoder.get_output_embeddings()
    logits: Tensor = head(hidden.to(head.weight.dtype))
    scale = getattr(settings, "logits_scaling", None)
    if scale is not None:
        logits = logits / scale
    cap = getattr(settings, "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _of_tokens(logits: Tensor, tokens: Tensor) -> Tensor:
    """Take each position as a text of two tokens, of which the second is predicted: a view, nothing is copied."""
    return token_logprobs(_twice(logits), torch.stack([tokens, tokens], 1))[:, 1]


def _twice(logits: Tensor) -> Tensor:
    return logits[:, None].expand(-1, 2, -1)


def _in_chunks(part: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, other: Tensor) -> Tensor:
    """Work through many positions in parts, and do the output layer again on the way back instead of keeping it."""
    if hidden.shape[0] <= _CHUNK:
        return part(hidden, other)
    pieces = []
    for start in range(0, hidden.shape[0], _CHUNK):
        states, others = hidden[start : start + _CHUNK], other[start : start + _CHUNK]
        if torch.is_grad_enabled() and states.requires_grad:
            pieces.append(checkpoint(part, states, others, use_reentrant=False))
        else:
            pieces.append(part(states, others))
    return torch.cat(pieces)
