"""When to ask again and how long to wait: retries with jittered backoff, deadlines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from optograph.errors import ServingError, UserError

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")

RETRY_STATUSES = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to ask again after a failure that may pass.

    Attributes:
        attempts: Most attempts in all, at least 1.
        bad_answers: Most attempts where the server answers with an unusable body (at least 1): waiting seldom helps.
        base_s: Mean wait before the second attempt in seconds; it doubles with every further one.
        cap_s: Longest wait of our own choice, and the longest ``Retry-After`` that is obeyed, in seconds.
    """

    attempts: int = 5
    bad_answers: int = 2
    base_s: float = 0.5
    cap_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.bad_answers < 1:
            raise UserError(f"attempts and bad_answers are at least 1, got {self!r}")
        if not (self.base_s >= 0 and self.cap_s >= 0):
            raise UserError(f"waits are 0 seconds or more, got {self!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """How long to wait for an endpoint, in seconds; None waits for ever.

    Answers are not streamed, so the first token and the last arrive together: `silence_s` bounds both the wait for the
    first byte and every gap between two reads, and `total_s` stops a server that drips.

    Attributes:
        connect_s: Until the connection stands.
        silence_s: Longest time without a single byte from the server within one attempt.
        total_s: The whole call: every attempt and every wait between them (not the wait for a free place under the
            concurrency limit).
    """

    connect_s: float | None = 10.0
    silence_s: float | None = 300.0
    total_s: float | None = 600.0

    def __post_init__(self) -> None:
        for value in (self.connect_s, self.silence_s, self.total_s):
            if value is not None and not value > 0:
                raise UserError(f"a deadline is above 0 seconds or None, got {self!r}")


NO_RETRY = Retry(attempts=1, bad_answers=1)
NO_DEADLINE = Deadline(connect_s=None, silence_s=None, total_s=None)


class RetryableError(ServingError):
    """A `ServingError` that may pass, with the wait that the server asked for.

    Attributes:
        retry_after_s: The server's ``Retry-After`` in seconds, or None.
    """

    def __init__(self, message: str, *, kind: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, kind=kind, retryable=True)
        self.retry_after_s = retry_after_s


def status_is_retryable(status: int) -> bool:
    """Tell whether an HTTP status may pass by itself (408, 409, 425, 429 and 5xx but 501 and 505)."""
    return status in RETRY_STATUSES or (500 <= status < 600 and status not in (501, 505))


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date (RFC 9110, section 10.2.3).

    Args:
        value: The header's text, or None.
        now: The present moment (timezone-aware), for tests.

    Returns:
        Seconds to wait, 0 or more; None when there is no header or it cannot be read.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return seconds if 0.0 <= seconds < float("inf") else None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


async def with_retries(policy: Retry, attempt: Callable[[], Awaitable[T]]) -> T:
    """Await ``attempt()`` until it succeeds, fails for good, or the policy is spent.

    Waits between attempts are drawn uniformly from half to one and a half of ``base_s * 2**k``; a ``Retry-After`` of
    the server is a lower bound.

    Args:
        policy: How often and how long.
        attempt: Makes one attempt; a `ServingError` with ``retryable`` set is tried again.

    Raises:
        ServingError: The last failure, with the number of attempts in its message when there were several.
    """
    import tenacity

    bad_answers = 0

    def again(state: tenacity.RetryCallState) -> bool:
        nonlocal bad_answers
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, ServingError) or not error.retryable:
            return False
        wanted = getattr(error, "retry_after_s", None)
        if wanted is not None and wanted > policy.cap_s:
            return False
        bad_answers += error.kind == "bad_response"
        return bad_answers < policy.bad_answers

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        own = min(policy.cap_s, policy.base_s * 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1.5))  # noqa: S311
        return max(own, getattr(error, "retry_after_s", None) or 0.0)

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        retry=again,
        wait=wait,
        sleep=asyncio.sleep,
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits only what it sees to be a coroutine function
        return await attempt()

    try:
        return await retrying(once)
    except ServingError as error:
        number = retrying.statistics.get("attempt_number", 1)
        if number == 1:
            raise
        message = f"{error} (gave up after {number} attempts)"
        raise ServingError(message, kind=error.kind, retryable=error.retryable) from error


async def within(total_s: float | None, work: Awaitable[T], what: str) -> T:
    """Await `work` for at most `total_s` seconds.

    Raises:
        ServingError: Of kind ``"timeout"`` when the time is up.
    """
    started = time.monotonic()
    try:
        async with asyncio.timeout(total_s) as scope:
            return await work
    except TimeoutError:
        if not scope.expired():
            raise
        waited = time.monotonic() - started
        raise ServingError(
            f"{what} did not answer within its total deadline of {total_s:g} s (waited {waited:.1f} s)",
            kind="timeout",
            retryable=True,
        ) from None
