"""Candidate: a frozen choice of values for the parameters of a workflow, by their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from optograph.errors import UserError
from optograph.graphs.shown import shown
from optograph.graphs.spec_data import plain_json


@dataclass(frozen=True, eq=False)
class Candidate:
    """Values for some parameters, and where they came from.

    Two candidates with the same values have the same `id` and are equal, whoever made them. A pydantic model
    and its JSON data count as the same value, since a parameter's spec turns either into the model when it
    is read.

    Args:
        values: From parameter names to values: JSON data or pydantic models. A parameter that is not named
            keeps its own value.
        parents: Ids of the candidates this one was made from.
        origin: Who made it, in a word or two.

    Attributes:
        id: Short hash of the values (12 hexadecimal digits).

    Raises:
        UserError: A value is neither JSON data nor a pydantic model.
    """

    values: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    origin: str = ""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        values = {}
        for name, value in self.values.items():
            if not isinstance(name, str) or not name:
                raise UserError(f"a parameter's name must be a non-empty str, got {shown(name)}")
            values[name] = value if isinstance(value, BaseModel) else plain_json(value, f"the value of {name!r}")
        object.__setattr__(self, "values", MappingProxyType(values))
        object.__setattr__(self, "parents", tuple(self.parents))
        text = json.dumps(_plain(values), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:12])

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Candidate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __deepcopy__(self, memo: object) -> Candidate:
        return self  # it never changes, and a read-only mapping cannot be copied

    def with_values(self, mapping: Mapping[str, Any] | None = None, /, *, origin: str = "", **values: Any) -> Candidate:
        """Return a child: these values changed, this candidate its parent.

        Args:
            mapping: New values by name (names may hold dots).
            origin: Who made the child.
            **values: More new values, for names that are identifiers.
        """
        return Candidate({**self.values, **(mapping or {}), **values}, parents=(self.id,), origin=origin)

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON data; models become plain objects."""
        return {
            "values": _plain(self.values),
            "parents": list(self.parents),
            "origin": self.origin,
            "id": self.id,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Return the candidate that `to_json` wrote, with the same id.

        Raises:
            UserError: The data has no values, or its id does not belong to them.
        """
        try:
            candidate = cls(data["values"], tuple(data.get("parents", ())), data.get("origin", ""))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a candidate record ({error!r}): {shown(data)}") from None
        if data.get("id", candidate.id) != candidate.id:
            raise UserError(f"candidate {data['id']!r} does not have the values it was stored with")
        return candidate


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for name, value in values.items()
    }
