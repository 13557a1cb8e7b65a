"""What tokens cost: a table of prices by model string or pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType

from optograph.errors import UserError
from optograph.serving.urls import is_loopback

PICO = 10**12
"""Money is counted in whole picodollars, so that sums are exact in any order."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs.

    Attributes:
        input: US dollars for a million tokens read, at least 0.
        output: US dollars for a million tokens written, at least 0.

    Raises:
        UserError: A price is negative or no finite number.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise UserError(
                    f"a price's {name} is a number of at least 0 in US dollars per million tokens, not {value!r}"
                )

    @property
    def per_token(self) -> tuple[int, int]:
        """Picodollars for a token read and for a token written, rounded up to whole ones."""
        return _pico(self.input, 6), _pico(self.output, 6)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost, in US dollars."""
        read, written = self.per_token
        return to_usd(prompt_tokens * read + completion_tokens * written)


FREE = Price(0.0, 0.0)


class PriceTable:
    """Prices by model string.

    A model is looked up by its whole string (``"openai/gpt-x@https://…"``), by the string without the address, by the
    name that the endpoint knows (``"gpt-x"``), then by patterns, of which the longest one counts; then in what the
    endpoints list about themselves. Models in this process, scripted ones, and models at a loopback address cost
    nothing unless the table says otherwise.

    Args:
        prices: By model string or pattern with ``*``.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self._prices = dict(prices or {})
        self._listed: dict[str, Price] = {}
        self._found: dict[str, Price | None] = {}

    @property
    def prices(self) -> Mapping[str, Price]:
        """What was given, by model string or pattern; without what endpoints list."""
        return MappingProxyType(self._prices)

    def merged(self, metadata: Mapping[str, tuple[float, float] | Price]) -> PriceTable:
        """Return a table that also knows what an endpoint lists; what the table says itself counts more.

        Args:
            metadata: Price, or US dollars per million tokens read and written, by model string or served name.

        Raises:
            UserError: A price is negative or no number.
        """
        table = PriceTable(self._prices)
        listed = {name: one if isinstance(one, Price) else Price(*one) for name, one in metadata.items()}
        table._listed = self._listed | listed
        return table

    def find(self, model: str) -> Price | None:
        """Return the price of a model, or None where it is not known."""
        if model not in self._found:
            self._found[model] = self._look_up(model)
        return self._found[model]

    def require(self, model: str) -> Price:
        """Return the price of a model.

        Raises:
            UserError: It is not known.
        """
        price = self.find(model)
        if price is None:
            raise UserError(
                f"a budget in US dollars needs the price of {model!r}: add the lines\n"
                f'[prices."{_names(model)[1]}"]\ninput = …   # US dollars for a million tokens read\n'
                "output = …  # and written\nor take the limit `usd` out of the budget"
            )
        return price

    def _look_up(self, model: str) -> Price | None:
        names = _names(model)
        for name in names:
            if name in self._prices:
                return self._prices[name]
        patterns = [one for one in self._prices if "*" in one and any(fnmatchcase(name, one) for name in names)]
        if patterns:
            return self._prices[max(patterns, key=lambda one: (len(one.replace("*", "")), one))]
        for name in names:
            if name in self._listed:
                return self._listed[name]
        return FREE if _is_own(model) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PriceTable) and (self._prices, self._listed) == (other._prices, other._listed)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PriceTable({self._prices!r})"


def to_pico(usd: float) -> int:
    """Return US dollars as whole picodollars, rounded up."""
    return _pico(usd, 12)


def to_usd(pico: int) -> float:
    """Return picodollars as US dollars."""
    return pico / PICO


@lru_cache(maxsize=1024)
def _pico(value: float, digits: int) -> int:
    # The shortest decimal that reads as the float is what was written: 0.1 is a tenth, and not a little more.
    return int((Decimal(repr(float(value))) * 10**digits).to_integral_value(ROUND_CEILING))


def _names(model: str) -> tuple[str, str, str]:
    """Return the whole string, the one without its address, and the name that the endpoint knows."""
    name, at, url = model.rpartition("@")
    short = name if at and "://" in url else model
    kind, slash, rest = short.partition("/")
    return model, short, rest if slash and kind in ("openai", "vllm", "local") else short


def _is_own(model: str) -> bool:
    if model == "scripted" or model.startswith("local/"):
        return True
    _, at, url = model.rpartition("@")
    return bool(at) and "://" in url and is_loopback(url)
