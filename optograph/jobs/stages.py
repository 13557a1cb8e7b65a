"""Making optimizers from their names and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optograph.errors import UserError
from optograph.optimizers import (
    FewShotOptions,
    FewShotSearch,
    InSequence,
    Optimizer,
    OptoPrime,
    OptoPrimeOptions,
)

_KINDS: dict[str, tuple[type[Any], Callable[[Any], Optimizer]]] = {
    "optoprime": (OptoPrimeOptions, OptoPrime),
    "fewshot": (FewShotOptions, FewShotSearch),
}


def make_optimizer(name: str, options: Mapping[str, Any]) -> Optimizer:
    """Make one optimizer.

    Args:
        name: ``"optoprime"`` or ``"fewshot"``.
        options: Fields of its options class.

    Raises:
        UserError: The name, an option or a value is unknown.
    """
    if name not in _KINDS:
        raise UserError(f"unknown optimizer {name!r}: use one of {sorted(_KINDS)!r}")
    options_class, make = _KINDS[name]
    unknown = sorted(set(options) - set(options_class.__dataclass_fields__))
    if unknown:
        known = sorted(options_class.__dataclass_fields__)
        raise UserError(f"optimizer {name!r} has no option {unknown[0]!r}; its options are {known!r}")
    try:
        return make(TypeAdapter(options_class).validate_python(dict(options)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"optimizer {name!r}: {where or 'options'}: {first['msg']}") from error


def make_sequence(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Optimizer:
    """Make one optimizer of one or several stages."""
    made = [make_optimizer(name, options) for name, options in stages]
    return made[0] if len(made) == 1 else InSequence(stages=made)
