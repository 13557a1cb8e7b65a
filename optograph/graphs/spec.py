"""What a parameter may hold: the Spec contract, and specs of text, truth, numbers and choices."""

from __future__ import annotations

import json
import math
import numbers
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from optograph.errors import UserError
from optograph.graphs.shown import shown

_INT64 = 2**63
_EXACT_FLOAT = 2**53


class Spec(ABC):
    """The type, bounds and wording of one parameter.

    A spec turns whatever an optimizer offers into a value of exactly one type, or refuses. It also says the
    same thing to machines (`json_schema`) and to language models (`describe`).
    """

    kind: ClassVar[str]
    """Short name of the kind: ``"text"``, ``"code"``, ``"bool"``, ``"int"``, ``"float"``, ``"choice"``,
    ``"demos"``, ``"model"`` or ``"json"``."""

    @abstractmethod
    def validate(self, value: Any) -> Any:
        """Return the canonical form of `value`, always of the spec's own type.

        Raises:
            UserError: `value` is not allowed; the message says what is.
        """

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the allowed values, for constrained decoding."""

    @abstractmethod
    def describe(self) -> str:
        """Return the constraint in one line, for a prompt."""

    def to_json(self, value: Any) -> Any:
        """Return `value` as JSON data."""
        return value

    def from_json(self, data: Any) -> Any:
        """Return the value that `to_json` wrote, validated again."""
        return self.validate(data)


def _plain_text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{what} must be a str, got {shown(value)}")
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} holds a lone surrogate and cannot be stored as UTF-8: {shown(text)}") from None
    return text


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" between {low} and {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def _limits(low: float | None, high: float | None) -> dict[str, Any]:
    limits = {"minimum": low, "maximum": high}
    return {key: value for key, value in limits.items() if value is not None}


def _check_bounds(low: float | None, high: float | None) -> None:
    for bound in (low, high):
        if bound is not None and not math.isfinite(bound):
            raise UserError(f"bounds must be finite numbers or None, got {bound!r}")
    if low is not None and high is not None and low > high:
        raise UserError(f"low={low!r} is above high={high!r}: exchange them")


@dataclass(frozen=True, slots=True)
class TextSpec(Spec):
    r"""Free text.

    Args:
        regex: Pattern that the whole text must match, or None.
        max_chars: Longest text in characters.
        min_chars: Shortest text in characters.
        placeholders: Pieces that must stay in the text, such as ``"{question}"``: a program fills them in.
    """

    regex: str | None = None
    max_chars: int = 4000
    min_chars: int = 1
    placeholders: tuple[str, ...] = ()
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if not 0 <= self.min_chars <= self.max_chars:
            raise UserError(
                f"need 0 <= min_chars <= max_chars, got min_chars={self.min_chars!r}, max_chars={self.max_chars!r}"
            )
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise UserError(f"regex {self.regex!r} does not compile: {error}") from None

    def validate(self, value: Any) -> str:
        """Return the text unchanged, or raise."""
        text = _plain_text(value, "text")
        if not self.min_chars <= len(text) <= self.max_chars:
            raise UserError(
                f"text must have {self.min_chars} to {self.max_chars} characters, got {len(text)}: {shown(text)}"
            )
        if self.regex is not None and re.fullmatch(self.regex, text) is None:
            raise UserError(f"text must match the pattern {self.regex!r}, got {shown(text)}")
        missing = [one for one in self.placeholders if one not in text]
        if missing:
            raise UserError(f"text must keep the placeholders {missing!r}, got {shown(text)}")
        return text

    def json_schema(self) -> dict[str, Any]:
        """Return a string schema."""
        schema: dict[str, Any] = {"type": "string", "minLength": self.min_chars, "maxLength": self.max_chars}
        return schema if self.regex is None else schema | {"pattern": f"^(?:{self.regex})$"}

    def describe(self) -> str:
        """Return the lengths and the pattern in words."""
        size = f"{self.min_chars} to {self.max_chars}" if self.min_chars else f"at most {self.max_chars}"
        pattern = f" matching {self.regex!r}" if self.regex else ""
        kept = f" that keeps the placeholders {', '.join(self.placeholders)}" if self.placeholders else ""
        return f"text of {size} characters{pattern}{kept}"


@dataclass(frozen=True, slots=True)
class BoolSpec(Spec):
    """True or False. The words ``true`` and ``false`` (any case) are understood; numbers are not."""

    kind: ClassVar[str] = "bool"

    def validate(self, value: Any) -> bool:
        """Return the bool, or raise."""
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else None
        if word not in ("true", "false"):
            raise UserError(f"must be true or false, got {shown(value)}")
        return word == "true"

    def json_schema(self) -> dict[str, Any]:
        """Return a boolean schema."""
        return {"type": "boolean"}

    def describe(self) -> str:
        """Return the two words."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class IntSpec(Spec):
    """A whole number, within 64 bits.

    Args:
        low: Smallest value allowed, or None.
        high: Largest value allowed, or None.
    """

    low: int | None = None
    high: int | None = None
    kind: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)

    def validate(self, value: Any) -> int:
        """Return an int: from an int, an integral float (below 2**53) or the digits as text."""
        number = self._number(value)
        low = -_INT64 if self.low is None else self.low
        high = _INT64 - 1 if self.high is None else self.high
        if not low <= number <= high:
            raise UserError(f"must be {self.describe()}, got {shown(value)}")
        return number

    def _number(self, value: Any) -> int:
        try:
            if isinstance(value, str):
                return int(value.strip())
            if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT:
                return int(value)
            if not isinstance(value, bool):
                return int(operator.index(value))
        except (TypeError, ValueError):
            pass  # the one message below covers every way to be wrong
        raise UserError(f"must be {self.describe()}, got {shown(value)}")

    def json_schema(self) -> dict[str, Any]:
        """Return an integer schema with the bounds."""
        return {"type": "integer", **_limits(self.low, self.high)}

    def describe(self) -> str:
        """Return the bounds in words."""
        return f"a whole number{_bounds(self.low, self.high)}"


@dataclass(frozen=True, slots=True)
class FloatSpec(Spec):
    """A finite number.

    Args:
        low: Smallest value allowed, or None.
        high: Largest value allowed, or None.
    """

    low: float | None = None
    high: float | None = None
    kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)

    def validate(self, value: Any) -> float:
        """Return a finite float: from a real number or its text; NaN and infinities are refused."""
        number = self._number(value)
        inside = (self.low is None or number >= self.low) and (self.high is None or number <= self.high)
        if not (math.isfinite(number) and inside):
            raise UserError(f"must be {self.describe()}, got {shown(value)}")
        return number

    @staticmethod
    def _number(value: Any) -> float:
        if type(value) is bool or not isinstance(value, str | numbers.Real):
            return math.nan
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan

    def json_schema(self) -> dict[str, Any]:
        """Return a number schema with the bounds."""
        return {"type": "number", **_limits(self.low, self.high)}

    def describe(self) -> str:
        """Return the bounds in words."""
        return f"a number{_bounds(self.low, self.high)}"


@dataclass(frozen=True, slots=True)
class ChoiceSpec(Spec):
    """One of a few values.

    Args:
        choices: The allowed values, at least one: str, bool, int, float or None, all different.
    """

    choices: Sequence[Any]
    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if isinstance(self.choices, str) or not self.choices:
            raise UserError(f"choices must be a non-empty sequence of values, got {shown(self.choices)}")
        choices = tuple(self.choices)
        for choice in choices:
            if not (choice is None or type(choice) in (str, bool, int, float)) or choice != choice:
                raise UserError(f"a choice must be a str, bool, int, float or None, got {shown(choice)}")
        if len({(type(choice), choice) for choice in choices}) != len(choices):
            raise UserError(f"choices must differ from each other, got {shown(choices)}")
        object.__setattr__(self, "choices", choices)

    def validate(self, value: Any) -> Any:
        """Return the choice that equals `value`, or whose text does (then case and outer spaces are free)."""
        for choice in self.choices:
            if type(choice) is type(value) and choice == value:
                return choice
        if isinstance(value, str):
            for fold in (str.strip, lambda text: text.strip().casefold()):
                found = [choice for choice in self.choices if fold(str(choice)) == fold(value)]
                if len(found) == 1:
                    return found[0]
        raise UserError(f"must be {self.describe()}, got {shown(value)}")

    def json_schema(self) -> dict[str, Any]:
        """Return an enum schema."""
        return {"enum": list(self.choices)}

    def describe(self) -> str:
        """Return the choices, written as JSON."""
        return "one of " + ", ".join(json.dumps(choice, ensure_ascii=False) for choice in self.choices)
