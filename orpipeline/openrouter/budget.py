"""The request budget that all processes with the same state share.

The API allows 30 requests a minute for a key and 500 a day for an account. Every run, schedule and command counts
each request here before sending it. After a 429, or a 5XX that states when to try again, no process sends one until
the cool-down ends. The counts are in a ledger, which locks them between processes, and they survive a restart: a SQLite
file for the processes of one host, or a Postgres database for those of several.

A clock can be wrong for a while. An entry that the ledger's clock shows to be impossible does not count: a request or
a cool-down recorded more than a minute in the future, and a cool-down that is longer than any rule allows. Such
requests are kept, and count again if it was the clock that was wrong. With Postgres, the ledger's clock is the
server's, so a host whose clock is wrong counts right; times in results and errors are those of the host's clock.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from orpipeline.clock import OWN_CLOCK_TOLERANCE, Clock, utc_now
from orpipeline.openrouter.errors import RateLimitedError
from orpipeline.openrouter.ledger import NO_COOL_DOWN, CoolDown, Entries, Ledger, SqliteLedger
from orpipeline.openrouter.ledger import BudgetError as BudgetError
from orpipeline.openrouter.stated_time import LONGEST_STATED_WAIT
from orpipeline.settings import REQUESTS_PER_DAY, REQUESTS_PER_MINUTE, Settings

FIRST_COOL_DOWN = timedelta(minutes=1)
LONGEST_COOL_DOWN = timedelta(hours=1)

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_log = logging.getLogger(__name__)


class BudgetSpentError(RateLimitedError):
    """The request budget is spent, or a cool-down has not ended. No request was sent.

    `retry_at` is when the next request may be sent (UTC).
    """


@dataclass(frozen=True)
class BudgetState:
    """How much of the budget is used at a moment, and when the next request may be sent (UTC)."""

    used_last_minute: int
    used_last_day: int
    per_minute: int
    per_day: int
    rate_limited_in_a_row: int
    """How many 429s have arrived since the last good answer."""
    cooling_until: datetime | None
    """The end of the current cool-down, or None without one."""
    cooling_after: int | None
    """The status that caused the current cool-down: 429, or a 5XX."""
    next_request_at: datetime | None
    """When a request may be sent, or None if one may be sent now."""


@dataclass(frozen=True)
class Budget:
    """The request budget in the SQLite file `place`, or in the Postgres database of that URL.

    The first use creates it. With a `clock`, all times are that clock's. Without one, they are this machine's; in
    Postgres, requests then count by the server's clock.
    """

    place: Path | str
    per_minute: int = REQUESTS_PER_MINUTE
    per_day: int = REQUESTS_PER_DAY
    clock: Clock | None = None
    jitter: Callable[[], float] = random.random
    """Returns a fraction from 0 to 1: how much of the longest wait a cool-down takes."""

    @cached_property
    def _ledger(self) -> Ledger:
        if isinstance(self.place, Path):
            return SqliteLedger(self.place, self.clock or utc_now)
        from orpipeline.openrouter.postgres_ledger import PostgresLedger

        return PostgresLedger(self.place, self.clock)

    def spend(self) -> None:
        """Count one request that is about to be sent.

        Raises BudgetSpentError, with the time for the next request, if none may be sent now.
        """
        with self._ledger.transaction() as entries:
            rejection = self._rejection(entries)
            if rejection is None:
                entries.add(entries.reading.now)
        if rejection is not None:
            raise rejection

    def _rejection(self, entries: Entries) -> BudgetSpentError | None:
        """Return why no request may be sent now, or None."""
        cool_down = self._cool_down(entries)
        if entries.reading.now < cool_down.until:
            until = entries.reading.to_host(cool_down.until)
            why = (
                f"The API rejected the last requests ({cool_down.in_a_row} x 429 in a row), and its cool-down"
                if cool_down.status == 429
                else f"The API failed ({cool_down.status}), and the pause that it asks for"
            )
            return BudgetSpentError(
                f"{why} ends at {_shown(until)}. No request was sent; try again then.",
                status=cool_down.status,
                retry_at=until,
            )
        free_at = self._room_at(entries)
        if free_at is not None:
            room_at = entries.reading.to_host(free_at)
            return BudgetSpentError(
                f"The budget of {self.per_minute} requests a minute and {self.per_day} a day is spent until "
                f"{_shown(room_at)}. No request was sent; try again then.",
                status=429,
                retry_at=room_at,
            )
        return None

    def cool_down(self, retry_at: datetime | None, status: int = 429) -> datetime:
        """Record a 429, or a 5XX that states `retry_at`, and return the end of the cool-down (UTC).

        The end is `retry_at` if the API states it. Otherwise the wait is exponential with full jitter: at most
        1 minute for the first 429 in a row, doubled for each further one, never above 1 hour. A cool-down is never
        shortened.
        """
        with self._ledger.transaction() as entries:
            reading, current = entries.reading, self._cool_down(entries)
            longest = min(FIRST_COOL_DOWN * 2 ** min(current.in_a_row, 10), LONGEST_COOL_DOWN)
            end = reading.now + longest * self.jitter() if retry_at is None else reading.to_ledger(retry_at)
            until = _whole_milliseconds(end)
            new = CoolDown(until, current.in_a_row + (status == 429), status, recorded_at=reading.now)
            if current.until > until:  # requests sent at the same time can get different times
                new = replace(new, until=current.until, status=current.status)
            entries.set_cool_down(new)
            return reading.to_host(new.until)

    def good_answer(self) -> None:
        """Record a good answer: the next 429 counts as the first in a row.

        During a cool-down this has no effect: the answer belongs to a request sent before it began.
        """
        with self._ledger.transaction() as entries:
            if self._cool_down(entries).until <= entries.reading.now:
                entries.set_cool_down(NO_COOL_DOWN)

    def state(self) -> BudgetState:
        """Return what is used now. Uses nothing."""
        with self._ledger.transaction() as entries:
            return self._state(entries, self._cool_down(entries))

    def peek(self) -> BudgetState:
        """Return what is used now, as `state` does, without creating or repairing anything.

        Works on a read-only disk. Before the first use, nothing is used. Raises BudgetError if it cannot be read.
        """
        with self._ledger.look() as entries:
            stored = entries.cool_down()
            return self._state(entries, stored if _is_credible(stored, entries.reading.now) else stored.without_end())

    def _state(self, entries: Entries, cool_down: CoolDown) -> BudgetState:
        reading = entries.reading
        is_cooling = reading.now < cool_down.until
        free_at = [at for at in (cool_down.until if is_cooling else None, self._room_at(entries)) if at is not None]
        return BudgetState(
            used_last_minute=entries.used(_MINUTE),
            used_last_day=entries.used(_DAY),
            per_minute=self.per_minute,
            per_day=self.per_day,
            rate_limited_in_a_row=cool_down.in_a_row,
            cooling_until=reading.to_host(cool_down.until) if is_cooling else None,
            cooling_after=cool_down.status if is_cooling else None,
            next_request_at=reading.to_host(max(free_at)) if free_at else None,
        )

    def _room_at(self, entries: Entries) -> datetime | None:
        """Return when both windows have room for one more request, or None if they have room now."""
        free_at = []
        for limit, window in ((self.per_minute, _MINUTE), (self.per_day, _DAY)):
            oldest = entries.newest(limit, window)
            if oldest is not None:
                # A request exactly as old as the window still counts.
                free_at.append(oldest + window + timedelta(milliseconds=1))
        return max(free_at, default=None)

    def _cool_down(self, entries: Entries) -> CoolDown:
        """Return the stored cool-down. One that is not credible is forgotten, with a warning."""
        stored, now = entries.cool_down(), entries.reading.now
        if _is_credible(stored, now):
            return stored
        _log.warning(
            "Ignored a cool-down until %s in %s: it was recorded while the clock was ahead (now it is %s).",
            _shown(stored.until),
            self._ledger.place,
            _shown(now),
        )
        entries.set_cool_down(stored.without_end())
        return stored.without_end()


def open_budget(settings: Settings) -> Budget:
    """Return the request budget that all processes with the settings' state share: a folder's file, or a database."""
    place = settings.state / "budget.sqlite" if isinstance(settings.state, Path) else settings.state
    return Budget(place, settings.requests_per_minute, settings.requests_per_day)


def _is_credible(cool_down: CoolDown, now: datetime) -> bool:
    ahead = now + OWN_CLOCK_TOLERANCE
    return cool_down.recorded_at <= ahead and cool_down.until <= ahead + LONGEST_STATED_WAIT


def _whole_milliseconds(at: datetime) -> datetime:
    """Return `at`, rounded up to the precision of a ledger: the announced time is the stored one."""
    return at + timedelta(microseconds=-at.microsecond % 1000)


def _shown(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC on {at:%Y-%m-%d}"
