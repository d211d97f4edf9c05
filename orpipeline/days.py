"""Sets of days: their gaps and their ranges."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta


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


def day_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return the first and last day of each range of consecutive days, sorted."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and day - ranges[-1][1] == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def day_spans(days: Iterable[date]) -> list[str]:
    """Return each range of consecutive days as text: `2026-07-08 to 2026-08-19`, or `2026-07-08` for a single day."""
    return [f"{first} to {last}" if first < last else f"{first}" for first, last in day_ranges(days)]
