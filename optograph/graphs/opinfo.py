"""The static description of an op, made once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class OpInfo:
    """What an op is, apart from any call of it.

    Attributes:
        name: Name shown in code lines.
        description: What it does, in a sentence or more.
        argnames: Names of the arguments that a call can give by position (without ``self``).
        vararg: Name of the ``*args`` argument, or an empty string.
        source: Source code of the function, or an empty string.
        style: How a code line writes it: ``"call"``, ``"infix"``, ``"prefix"``, ``"item"``, ``"slice"``,
            ``"attribute"`` or ``"method"``.
        symbol: The operator's sign for the styles infix and prefix.
    """

    name: str
    description: str = ""
    argnames: tuple[str, ...] = ()
    vararg: str = ""
    source: str = field(default="", repr=False)
    style: str = "call"
    symbol: str = ""

    def argument(self, position: int) -> str:
        """Return the name of the argument at a position."""
        if position < len(self.argnames):
            return self.argnames[position]
        return f"{self.vararg or 'args'}_{position - len(self.argnames)}"

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON data, without its empty fields."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> OpInfo:
        """Return the description that `to_json` wrote."""
        return cls(**{**data, "argnames": tuple(data.get("argnames", ()))})
