"""What was found damaged in a journal, and what was done about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Damage:
    """Damage found in a journal since it was made; nothing damaged is ever returned by a read.

    Attributes:
        rows: Calls, evaluations, candidates and named values that were dropped; their makers are asked again.
        payloads: Payloads that were dropped.
        quarantined: Name of the file in the run directory that a broken journal was moved to; None where none was.
        derived_rebuilt: Whether decisions, states and events were emptied, so that the run writes them again.
    """

    rows: int = 0
    payloads: int = 0
    quarantined: str | None = None
    derived_rebuilt: bool = False

    def __bool__(self) -> bool:
        return self != Damage()

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: Any) -> Damage:
        """Read a record; what is missing or of another shape counts as no damage."""
        if not isinstance(data, dict):
            return cls()
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})
