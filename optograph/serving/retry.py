"""When to ask again and how long to wait: retries with jittered backoff, deadlines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from optograph.errors import ServingError, UserError

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

    Where an answer is not streamed, its first token and its last arrive together: `silence_s` bounds both the wait for
    the first byte and every gap between two reads, and `total_s` stops a server that drips. Where it is streamed,
    `first_token_s` and `between_tokens_s` bound the waits for events as well, so that a server that stalls, or sends
    nothing but comments to keep the connection open, is found out early.

    Attributes:
        connect_s: Until the connection stands.
        silence_s: Longest time without a single byte from the server within one attempt.
        total_s: The whole call: every attempt and every wait between them (not the wait for a free place under the
            concurrency limit before the first).
        first_token_s: From the head of a streamed answer to its first event.
        between_tokens_s: Between two events of a streamed answer.
    """

    connect_s: float | None = 10.0
    silence_s: float | None = 300.0
    total_s: float | None = 600.0
    first_token_s: float | None = 300.0
    between_tokens_s: float | None = 60.0

    def __post_init__(self) -> None:
        for value in (self.connect_s, self.silence_s, self.total_s, self.first_token_s, self.between_tokens_s):
            if value is not None and not value > 0:
                raise UserError(f"a deadline is above 0 seconds or None, got {self!r}")


NO_RETRY = Retry(attempts=1, bad_answers=1)
NO_DEADLINE = Deadline(connect_s=None, silence_s=None, total_s=None, first_token_s=None, between_tokens_s=None)


class RetryableError(ServingError):
    """A `ServingError` that may pass, with what the transport knows of it.

    Attributes:
        retry_after_s: The server's ``Retry-After`` in seconds, or None.
        status: HTTP status of the answer, or None where there was none.
        reached: Whether there was a connection at all; without one, the request itself cannot be to blame.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        retry_after_s: float | None = None,
        status: int | None = None,
        reached: bool = True,
    ) -> None:
        super().__init__(message, kind=kind, retryable=True)
        self.retry_after_s = retry_after_s
        self.status = status
        self.reached = reached


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


class Attempts:
    """Counts the attempts of one call and says how long to wait before the next one.

    Waits are drawn uniformly from half to one and a half of ``base_s * 2**k``; a ``Retry-After`` of the server is a
    lower bound.

    Args:
        policy: How often and how long.

    Attributes:
        made: Attempts that were made.
    """

    __slots__ = ("_bad_answers", "_counted", "_policy", "made")

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._counted = 0
        self._bad_answers = 0
        self.made = 0

    def wait_after(self, error: ServingError, *, free: bool = False) -> float | None:
        """Count a failed attempt.

        Args:
            error: Why it failed.
            free: Whether it says nothing about the request, and so does not use up the policy's attempts.

        Returns:
            Seconds to wait before the next attempt, or None when there is to be none.
        """
        self.made += 1
        self._counted += not free
        policy = self._policy
        if not error.retryable or self._counted >= policy.attempts:
            return None
        wanted = getattr(error, "retry_after_s", None) or 0.0
        if wanted > policy.cap_s:
            return None
        self._bad_answers += error.kind == "bad_response"
        if self._bad_answers >= policy.bad_answers:
            return None
        doubled = policy.base_s * 2.0 ** max(0, min(self._counted, 30) - 1)
        return max(wanted, min(policy.cap_s, doubled * random.uniform(0.5, 1.5)))  # noqa: S311 - no secret

    def last(self, error: ServingError) -> ServingError:
        """Return the failure to raise: `error`, with the number of attempts in its message when there were several."""
        if self.made <= 1:
            return error
        message = f"{error} (gave up after {self.made} attempts)"
        final = ServingError(message, kind=error.kind, retryable=error.retryable)
        final.__cause__ = error
        return final


async def with_retries(policy: Retry, attempt: Callable[[], Awaitable[T]]) -> T:
    """Await ``attempt()`` until it succeeds, fails for good, or the policy is spent.

    Args:
        policy: How often and how long; see `Attempts` for the waits.
        attempt: Makes one attempt; a `ServingError` with ``retryable`` set is tried again.

    Raises:
        ServingError: The last failure, with the number of attempts in its message when there were several.
    """
    attempts = Attempts(policy)
    while True:
        try:
            return await attempt()
        except ServingError as error:
            wait = attempts.wait_after(error)
            if wait is None:
                if attempts.made == 1:
                    raise
                raise attempts.last(error) from error
        await asyncio.sleep(wait)


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
