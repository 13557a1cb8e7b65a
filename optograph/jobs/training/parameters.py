"""Adapters as parameters: a candidate names the weights of each by their hash."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from optograph.errors import UserError
from optograph.graphs import Parameter, Spec
from optograph.jobs.training.records import BASE

PREFIX = "adapter."
"""What the names of parameters that hold adapters begin with."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AdapterSpec(Spec):
    """The content hash of trained weights (64 hexadecimal digits), or an empty text for the base model."""

    kind: ClassVar[str] = "adapter"

    def validate(self, value: Any) -> str:
        """Return the hash, or raise."""
        if not isinstance(value, str) or not (value == BASE or _HASH.fullmatch(value)):
            raise UserError(f"an adapter is named by the 64 digits of its hash, or by '' for the base, not {value!r}")
        return value

    def json_schema(self) -> dict[str, Any]:
        """Return a string schema."""
        return {"type": "string", "pattern": "^([0-9a-f]{64})?$"}

    def describe(self) -> str:
        """Return what it may hold, in words."""
        return "hash of trained weights; empty for the base model"


def adapter_parameters(names: Collection[str]) -> dict[str, Parameter]:
    """Make the parameters of a run's adapters; returns them by the adapters' names."""
    return {
        name: Parameter(BASE, name=f"{PREFIX}{name}", spec=AdapterSpec(), description=f"Weights of adapter {name!r}.")
        for name in names
    }


def adapter_values(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the values of a candidate that name these adapters, by name."""
    return {f"{PREFIX}{name}": hash_ for name, hash_ in hashes.items()}


def adapters_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes that a candidate's values name, by adapter."""
    return {name.removeprefix(PREFIX): str(one) for name, one in values.items() if name.startswith(PREFIX)}
