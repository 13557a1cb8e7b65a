"""The records around a budget: what may be used, what was used, and what is kept for later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from optograph.errors import UserError

ROLES = ("task", "optimizer", "judge")
"""Who may have a limit of its own: the workflow, the model that proposes, and models that judge."""


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """What one role may use; None means no limit of its own.

    Attributes:
        calls: Model calls that are paid for (answers from the journal are free), at least 1.
        tokens: Tokens read and written, at least 1.
        usd: US dollars, above 0.

    Raises:
        UserError: A limit is no number above 0.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        _check_limits("a role's ", {"calls": self.calls, "tokens": self.tokens, "usd": self.usd})


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What a whole run may use, the final test included; None means no limit.

    Attributes:
        calls: Model calls that are paid for (answers from the journal are free), at least 1.
        tokens: Tokens read and written, at least 1.
        usd: US dollars, above 0; needs a price for each model.
        minutes: Active minutes, summed over restarts, above 0.
        roles: Further limits of a role, by ``"task"``, ``"optimizer"`` or ``"judge"``.

    Raises:
        UserError: A limit is no number above 0, or a role is unknown.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    minutes: float | None = None
    roles: Mapping[str, RoleLimits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {"calls": self.calls, "tokens": self.tokens, "usd": self.usd, "minutes": self.minutes}
        _check_limits("budget.", limits)
        unknown = sorted(set(self.roles) - set(ROLES))
        if unknown:
            raise UserError(f"the budget names the unknown role {unknown[0]!r}; the roles are {', '.join(ROLES)}")

    def has_usd(self, role: str | None = None) -> bool:
        """Tell whether a limit in US dollars binds this role, or any role where it is None."""
        own = [one for name, one in self.roles.items() if role in (None, name)]
        return self.usd is not None or any(one.usd is not None for one in own)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self) | {"roles": {role: asdict(limits) for role, limits in self.roles.items()}}


@dataclass(frozen=True, slots=True)
class Spend:
    """What was used.

    Attributes:
        calls: Model calls, failed ones included.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        usd: US dollars; None where the price of one of the models is not known.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left to use; None where there is no limit.

    Attributes:
        calls: Model calls.
        tokens: Tokens read and written.
        usd: US dollars.
        seconds: Active seconds.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Need:
    """What work that comes later will use.

    Attributes:
        calls: Model calls, at least 0.
        tokens: Tokens read and written, at least 0.
        usd: US dollars, at least 0.
        seconds: Active seconds, at least 0.
        role: Who will pay.

    Raises:
        UserError: A number is negative or not finite.
    """

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    role: str = "task"

    def __post_init__(self) -> None:
        for name in ("calls", "tokens", "usd", "seconds"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise UserError(f"a need's {name} must be a number of at least 0, not {value!r}")

    @classmethod
    def scaled(
        cls, spend: Spend, *, seen: int, wanted: int, seconds: float = 0.0, margin: float = 0.1, role: str = "task"
    ) -> Need:
        """Work out what `wanted` examples will use from what `seen` examples used.

        Args:
            spend: What the seen examples used.
            seen: How many they were, at least 1.
            wanted: How many are to come, at least 0.
            seconds: Wall-clock seconds that the seen ones took.
            margin: Share that is added, 0 or more, since examples differ.
            role: Who will pay.

        Raises:
            UserError: `seen` is below 1, or `wanted` or `margin` is negative.
        """
        if seen < 1 or wanted < 0 or margin < 0:
            raise UserError(f"scaling needs seen >= 1, wanted >= 0 and margin >= 0, got {(seen, wanted, margin)!r}")
        share = wanted / seen * (1 + margin)
        return cls(
            calls=math.ceil(spend.calls * share),
            tokens=math.ceil(spend.tokens * share),
            usd=(spend.usd or 0.0) * share,
            seconds=seconds * share,
            role=role,
        )


def _check_limits(prefix: str, limits: Mapping[str, Any]) -> None:
    for name, value in limits.items():
        if value is None:
            continue
        whole = name in ("calls", "tokens")
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            kind = "a whole number" if whole else "a number"
            raise UserError(f"{prefix}{name} must be {kind} above 0, not {value!r}; leave it out for no limit")
