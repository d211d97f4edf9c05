"""A clock that a test sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import orpipeline.clock
from orpipeline.clock import Clock


@contextmanager
def fixed_clock(at: datetime, *, ticking: bool = False) -> Iterator[None]:
    """Fix orpipeline's clock at `at` (an aware datetime) until the block ends; with `ticking`, it goes on from there.

        >>> from datetime import UTC, datetime
        >>> from orpipeline.clock import utc_now
        >>> from orpipeline.testing import fixed_clock
        >>> with fixed_clock(datetime(2026, 10, 7, 12, tzinfo=UTC)):
        ...     print(utc_now())
        2026-10-07 12:00:00+00:00

    It is the clock of all threads of this process, but not of its child processes. Dagster, the file system and your
    code keep the machine's clock, so a partition exists only if its day has ended there, too. Blocks can be nested.

    Raises ValueError if `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone. Use for example datetime(2026, 10, 7, 12, tzinfo=UTC).")
    start, began = at.astimezone(UTC), time.monotonic()

    def now() -> datetime:
        return start + timedelta(seconds=time.monotonic() - began) if ticking else start

    with use_clock(now):
        yield


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let `utc_now` return the times of `clock`, in all threads of this process, until the block ends."""
    before, orpipeline.clock._clock = orpipeline.clock._clock, clock
    try:
        yield
    finally:
        orpipeline.clock._clock = before
