"""vLLM's LoRA on a CPU, made quick: one matrix product for each adapter of a batch, instead of one for each token.

vLLM's own functions for CPUs copy an adapter's matrices once for every token: on SmolLM2-135M at rank 32 that is 39 MB
a token, which takes longer than the model itself. They also give a request without an adapter the update of the adapter
in the last place where both are in one batch (its index, -1, counts from the end); here it gets none.

The server runs a copy of this file as a plugin of vLLM (see `plugins`), in another environment: so it imports nothing
of this package, and torch and vLLM only when it is called.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from typing import Any

NAME = "optograph_cpu_lora"
_MODULE = "vllm.lora.punica_wrapper.punica_cpu"
_FUNCTIONS = ("sgmv_shrink", "bgmv_shrink", "sgmv_expand", "bgmv_expand", "sgmv_expand_slice", "bgmv_expand_slice")


def install() -> None:
    """Put the functions in place of vLLM's own, or leave those where vLLM is not as this knows it."""
    module = importlib.import_module(_MODULE)
    if not all(callable(getattr(module, name, None)) for name in _FUNCTIONS):
        logging.getLogger("vllm").warning("%s: this vLLM's LoRA functions have other names; left as they are", NAME)
        return
    for name in _FUNCTIONS:
        setattr(module, name, globals()[name])


def sgmv_shrink(
    inputs: Any,
    weights: Any,
    output: Any,
    starts: Any,
    lengths: Any,
    indices: Any,
    batches: int,
    longest: int,
    tokens: int,
    scaling: float,
) -> None:
    """Write ``scaling * inputs @ A^T``; `indices` says which adapter each sequence has, -1 for none.

    Args:
        inputs: (tokens, in).
        weights: All adapters' A: (adapters, 1, rank, in).
        output: (tokens, rank or more), written to.
        starts: First token of each sequence.
        lengths: Tokens of each sequence.
        indices: Adapter of each sequence.
        batches: Number of sequences.
        longest: Tokens of the longest sequence.
        tokens: Tokens in all.
        scaling: Factor.
    """
    _shrink(inputs, weights, output, _groups(indices, lengths), scaling)


def bgmv_shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
    """The same with an adapter for each token."""
    _shrink(inputs, weights, output, _groups(indices), scaling)


def sgmv_expand(
    inputs: Any,
    weights: Any,
    output: Any,
    starts: Any,
    lengths: Any,
    indices: Any,
    batches: int,
    longest: int,
    tokens: int,
    add_inputs: bool = False,
) -> None:
    """Write ``inputs @ B^T``, or add it; arguments as in `sgmv_shrink`, B is (adapters, 1, out, rank)."""
    _expand(inputs, weights, output, _groups(indices, lengths), add_inputs)


def bgmv_expand(inputs: Any, weights: Any, output: Any, indices: Any, add_inputs: bool = True) -> None:
    """The same with an adapter for each token."""
    _expand(inputs, weights, output, _groups(indices), add_inputs)


def sgmv_expand_slice(
    inputs: Any,
    weights: Any,
    output: Any,
    starts: Any,
    lengths: Any,
    indices: Any,
    batches: int,
    longest: int,
    tokens: int,
    offset: int,
    size: int,
    add_inputs: bool = False,
) -> None:
    """The same for `size` columns of the output from `offset` on."""
    _expand(inputs, weights, output[:, offset : offset + size], _groups(indices, lengths), add_inputs)


def bgmv_expand_slice(
    inputs: Any, weights: Any, output: Any, indices: Any, offset: int, size: int, add_inputs: bool = True
) -> None:
    """The same with an adapter for each token."""
    _expand(inputs, weights, output[:, offset : offset + size], _groups(indices), add_inputs)


def _groups(indices: Any, lengths: Any = None) -> Iterator[tuple[int, Any]]:
    """Give each adapter with its tokens: all of them, or their places."""
    known = indices.tolist()
    if len(set(known)) == 1:
        yield known[0], slice(None)
        return
    each = indices if lengths is None else indices.repeat_interleave(lengths)
    for one in sorted(set(known)):
        yield one, (each == one).nonzero()[:, 0]


def _shrink(inputs: Any, weights: Any, output: Any, groups: Iterator[tuple[int, Any]], scaling: float) -> None:
    output = output[: inputs.shape[0]]
    for adapter, rows in groups:
        if adapter < 0:
            output[rows] = 0
            continue
        matrix = _matrix(weights, adapter, output.dtype)
        output[rows, : matrix.shape[0]] = scaling * (inputs[rows].to(output.dtype) @ matrix.T)


def _expand(inputs: Any, weights: Any, output: Any, groups: Iterator[tuple[int, Any]], add: bool) -> None:
    output = output[: inputs.shape[0]]
    for adapter, rows in groups:
        if adapter < 0:
            if not add:
                output[rows] = 0
            continue
        matrix = _matrix(weights, adapter, output.dtype)
        width = min(matrix.shape[0], output.shape[1])  # the model and its adapters may be padded differently
        update = (inputs[rows].to(output.dtype) @ matrix.T)[:, :width]
        if add:
            output[rows, :width] += update
        else:
            output[rows, :width] = update


def _matrix(weights: Any, adapter: int, dtype: Any) -> Any:
    matrix = weights[adapter]
    return (matrix[0] if matrix.dim() == 3 else matrix).to(dtype)
