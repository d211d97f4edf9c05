"""The one place that asks what time it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

Clock = Callable[[], datetime]
"""A function that returns the present moment as an aware datetime in UTC."""


def utc_now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)


def newest_completed_day(now: datetime) -> date:
    """Return the newest day that is over in UTC at `now`: the `as_of` that the API serves then.

    Source: "as_of ... yesterday in UTC" (the API's documentation of `GET /classifications/task`).
    """
    return now.astimezone(UTC).date() - timedelta(days=1)
