"""The error tree, split by who must act.

OptographError
├── UserError        fix your call, file or setting (shown without a traceback on the command line)
├── ModelError       the model's answer cannot be used
├── ServingError     the endpoint failed: retry it, or repair the server
├── BudgetExceeded   the budget is spent; nothing more was called
├── StorageError     the run directory cannot be read or written
└── RunStopped       the run was asked to end; it can be resumed
    └── WaitingForReview   a person must answer first
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class OptographError(Exception):
    """Root of all errors that this package raises on purpose."""


class UserError(OptographError, ValueError):
    """A call, file or setting is wrong; the message says how to put it right."""


class ModelError(OptographError):
    """A model answered, but its answer cannot be used."""


class ServingError(OptographError):
    """An endpoint or engine failed to answer.

    Attributes:
        kind: Short failure type, such as ``"timeout"``, ``"rate_limit"``, ``"connection"`` or ``"bad_response"``.
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, kind: str = "serving", retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


class BudgetExceeded(OptographError):
    """The run's budget is spent; the call that would have passed it was not made."""


class StorageError(OptographError):
    """The run directory cannot be read or written."""


class RunStopped(OptographError):
    """A run ended on request before it was finished; it can be resumed.

    Attributes:
        interrupted: Whether a signal asked for it (Ctrl-C), and not the stop file.
    """

    def __init__(self, message: str, *, interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted


class WaitingForReview(RunStopped):
    """A run waits until a person has judged a candidate; it can be resumed once the review is written.

    Attributes:
        request: What is to be reviewed, as JSON data.
    """

    def __init__(self, message: str, request: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.request = dict(request)
