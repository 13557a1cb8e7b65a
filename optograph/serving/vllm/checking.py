"""Whether what a server gives under an adapter's name is the adapter that was trained."""

from __future__ import annotations

from optograph.errors import UserError
from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, served_name
from optograph.serving.vllm.control import Control


def check_served(control: Control, base: str, name: str, probe: Probe, tolerance: float) -> float:
    """Assert that an adapter is served: by its name, by its files' hash, and by what it says; see `VLLMServer`.

    Args:
        control: The server.
        base: Name under which it serves the base model.
        name: Name of the adapter.
        probe: Tokens with the trainer's log-probabilities.
        tolerance: Largest difference in nats, above 0.

    Returns:
        The largest absolute difference.

    Raises:
        ServedAdapterError: Another adapter, or none, is served under that name.
        UserError: A tolerance that is not above 0.
    """
    if not tolerance > 0:
        raise UserError(f"tolerance must be above 0, got {tolerance!r}")
    _check_listed(control, base, name)
    served = control.logprobs(name, probe.prompt_ids, probe.answer_ids)
    difference = probe.difference(served)
    if difference > tolerance:
        plain = control.logprobs(base, probe.prompt_ids, probe.answer_ids)
        same = max(abs(one - other) for one, other in zip(served, plain, strict=True)) <= tolerance
        hint = "; it answers like the base model" if same else ""
        raise ServedAdapterError(
            f"what is served as {name!r} is not what was trained: a log-probability of the probe differs by "
            f"{difference:.3g} nats, and {tolerance:.3g} are allowed{hint}"
        )
    other = probe.mistaken_for(served, tolerance)
    if other is not None:
        raise ServedAdapterError(
            f"what is served as {name!r} is not what was trained: no log-probability of the probe differs by more than "
            f"{tolerance:.3g} nats, but together they are as near to those of {other!r}"
        )
    return difference


def _check_listed(control: Control, base: str, name: str) -> None:
    """Check that a name stands for an adapter of the base model whose files have the hash that the name says."""
    models = control.models()
    entry = next((one for one in models if one.name == name), None)
    if entry is None:
        there = ", ".join(repr(one.name) for one in models if one.parent is not None)
        raise ServedAdapterError(f"no adapter is served as {name!r}; there are {there or 'none'}")
    if entry.parent != base:
        raise ServedAdapterError(f"{name!r} is served as a model of its own, not as an adapter of the base model")
    try:
        on_disk = served_name(adapter_hash(entry.root))
    except UserError as error:
        raise ServedAdapterError(f"the adapter served as {name!r} is not on disk any more: {error}") from None
    if on_disk != name:
        raise ServedAdapterError(f"the adapter served as {name!r} has changed on disk: {entry.root!r} has another hash")
