"""Retries, waits and deadlines, without a network."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from optograph.errors import ModelError, ServingError, UserError
from optograph.serving import Deadline, Retry
from optograph.serving.retry import RetryableError, parse_retry_after, status_is_retryable, with_retries

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now=NOW) == seconds


def test_which_statuses_pass() -> None:
    assert all(status_is_retryable(status) for status in (408, 409, 429, 500, 502, 503, 504, 529))
    assert not any(status_is_retryable(status) for status in (400, 401, 403, 404, 422, 307, 200, 501))


class Failing:
    """Fails with the given errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits and skip them."""
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        seen.append(seconds)

    monkeypatch.setattr("optograph.serving.retry.asyncio.sleep", sleep)
    return seen


def down(wait: float | None = None) -> ServingError:
    return RetryableError("down", kind="server", retry_after_s=wait)


def test_waits_double_and_are_jittered(waits: list[float]) -> None:
    policy = Retry(attempts=6, base_s=1.0, cap_s=100.0)
    for _ in range(20):
        asyncio.run(with_retries(policy, Failing(*(down() for _ in range(5)))))
    for k in range(5):
        column = waits[k::5]
        assert all(0.5 * 2**k <= wait <= 1.5 * 2**k for wait in column)
        assert len(set(column)) > 10


def test_waits_are_capped(waits: list[float]) -> None:
    asyncio.run(with_retries(Retry(attempts=10, base_s=1.0, cap_s=3.0), Failing(*(down() for _ in range(9)))))
    assert max(waits) == 3.0


def test_retry_after_is_a_lower_bound(waits: list[float]) -> None:
    asyncio.run(with_retries(Retry(base_s=0.01), Failing(down(7.0))))
    assert waits == [7.0]


def test_a_retry_after_beyond_the_cap_is_not_waited_for(waits: list[float]) -> None:
    failing = Failing(down(3600.0))
    with pytest.raises(ServingError, match="down"):
        asyncio.run(with_retries(Retry(), failing))
    assert (failing.attempts, waits) == (1, [])


def test_the_last_error_tells_how_many_attempts(waits: list[float]) -> None:
    failing = Failing(*(down() for _ in range(9)))
    with pytest.raises(ServingError, match=r"down \(gave up after 3 attempts\)") as caught:
        asyncio.run(with_retries(Retry(attempts=3), failing))
    assert (failing.attempts, caught.value.kind, caught.value.retryable) == (3, "server", True)


@pytest.mark.parametrize(
    "error", [ServingError("no", kind="bad_request"), ModelError("no"), UserError("no"), KeyError("no")]
)
def test_what_does_not_pass_is_not_repeated(waits: list[float], error: Exception) -> None:
    failing = Failing(error)
    with pytest.raises(type(error)):
        asyncio.run(with_retries(Retry(), failing))
    assert failing.attempts == 1


def test_unusable_answers_are_asked_for_twice_at_most(waits: list[float]) -> None:
    failing = Failing(*(ServingError("garbage", kind="bad_response", retryable=True) for _ in range(9)))
    with pytest.raises(ServingError, match="garbage"):
        asyncio.run(with_retries(Retry(attempts=9), failing))
    assert failing.attempts == 2


@pytest.mark.parametrize("fields", [{"attempts": 0}, {"bad_answers": 0}, {"base_s": -1.0}, {"cap_s": float("nan")}])
def test_bad_policies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Retry(**fields)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_bad_deadlines_are_refused(value: float) -> None:
    with pytest.raises(UserError):
        Deadline(total_s=value)
