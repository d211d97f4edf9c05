"""The only place that reads the system clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

Clock = Callable[[], datetime]
"""A function that returns the current time as an aware datetime in UTC."""


OWN_CLOCK_TOLERANCE = timedelta(minutes=1)
"""A stored time further ahead than this was recorded while this machine's clock was ahead."""
API_CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far this machine's clock and the API's `Date` may differ: a cached answer is some minutes old."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def newest_completed_day(now: datetime) -> date:
    """Return the newest day that has ended in UTC at `now`: the `as_of` that the API serves then.

    Source: "as_of ... yesterday in UTC" (the API's documentation of `GET /classifications/task`).
    """
    return now.astimezone(UTC).date() - timedelta(days=1)
