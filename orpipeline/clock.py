"""Time: the only place that reads the system clock, and sets of days. Tests use `orpipeline.testing.fixed_clock`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial

Clock = Callable[[], datetime]
"""A function that returns the current time as an aware datetime in UTC."""

API_CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far this machine's clock and the API's `Date` may differ: a cached response is some minutes old."""
OWN_CLOCK_TOLERANCE = timedelta(minutes=1)
"""A stored time further ahead than this was recorded while this machine's clock was ahead."""
LONGEST_DELAY = timedelta(days=31)
"""How old the newest day that the API serves can be. It is yesterday, or a few days old if OpenRouter is late."""

_clock: Clock = partial(datetime.now, UTC)  # `orpipeline.testing.fixed_clock` replaces it


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return _clock()


def newest_completed_day(now: datetime) -> date:
    """Return the newest day that has ended in UTC at `now`: the `as_of` that the API serves then.

    Source: "as_of ... yesterday in UTC" (the API's documentation of `GET /classifications/task`).
    """
    return now.astimezone(UTC).date() - timedelta(days=1)


def could_be_served(as_of: date, at: datetime, *, oldest: timedelta | None = LONGEST_DELAY) -> bool:
    """Return whether the API could serve `as_of` as its newest day at a time (UTC): the day has ended, and recently.

    `oldest` is how long ago it may have ended, or None for any time. Source: "as_of ... yesterday in UTC".
    """
    age = (at + API_CLOCK_TOLERANCE).date() - as_of
    return age >= timedelta(days=1) and (oldest is None or age <= oldest)


def as_day(day: date | str) -> date:
    """Return a day that is given as a date, a time on that day, or `YYYY-MM-DD`. Raises ValueError for other text."""
    if isinstance(day, datetime):
        return day.date()
    try:
        return date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError:
        raise ValueError(f"{day!r} is not a day. Write it as YYYY-MM-DD.") from None


def missing_days(known: Iterable[date]) -> list[date]:
    """Return the days that are missing between the first and the last of `known`."""
    days = set(known)
    first = min(days, default=date.max)
    return [
        day for n in range((max(days, default=first) - first).days) if (day := first + timedelta(days=n)) not in days
    ]


def day_spans(days: Iterable[date]) -> list[str]:
    """Return each range of consecutive days as text: `2026-07-08 to 2026-08-19`, or `2026-07-08` for a single day."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and day - ranges[-1][1] == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return [f"{first} to {last}" if first < last else f"{first}" for first, last in ranges]
