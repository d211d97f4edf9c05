"""The only place that reads the system clock. Tests set it with `orpipeline.testing.fixed_clock`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

Clock = Callable[[], datetime]
"""A function that returns the current time as an aware datetime in UTC."""


OWN_CLOCK_TOLERANCE = timedelta(minutes=1)
"""A stored time further ahead than this was recorded while this machine's clock was ahead."""
API_CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far this machine's clock and the API's `Date` may differ: a cached answer is some minutes old."""


def _system_clock() -> datetime:
    return datetime.now(UTC)


_clock: Clock = _system_clock


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return _clock()


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let `utc_now` return the times of `clock`, in all threads of this process, until the block ends."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def newest_completed_day(now: datetime) -> date:
    """Return the newest day that has ended in UTC at `now`: the `as_of` that the API serves then.

    Source: "as_of ... yesterday in UTC" (the API's documentation of `GET /classifications/task`).
    """
    return now.astimezone(UTC).date() - timedelta(days=1)
