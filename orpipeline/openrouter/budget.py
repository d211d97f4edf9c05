"""The request budget that all processes with one state folder share.

The API allows 30 requests a minute for a key and 500 a day for an account. Every run, schedule and command counts
each request here before sending it, and after a 429 no process sends one until the cool-down ends. The counts are in a
SQLite file, whose write lock also works between processes, so they survive a restart.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orpipeline.clock import Clock, utc_now
from orpipeline.openrouter.errors import OpenRouterError, RateLimitedError
from orpipeline.settings import REQUESTS_PER_DAY, REQUESTS_PER_MINUTE

FIRST_COOL_DOWN = timedelta(minutes=1)
LONGEST_COOL_DOWN = timedelta(hours=1)

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_LOCK_WAIT_SECONDS = 10.0
# Times are in milliseconds since the epoch.
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sent (at INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cool_down (until INTEGER, in_a_row INTEGER NOT NULL)",
)


class BudgetSpentError(RateLimitedError):
    """The request budget is spent, or a cool-down after a 429 has not ended. No request was sent.

    `retry_at` is when the next request may be sent (UTC).
    """


class BudgetError(OpenRouterError):
    """The request budget cannot be read or written. No request was sent, because it cannot be counted."""


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
    """The end of the current cool-down after a 429, or None without one."""
    next_request_at: datetime | None
    """When a request may be sent, or None if one may be sent now."""


@dataclass(frozen=True)
class Budget:
    """The request budget in the SQLite file `path`. The first use creates it, readable by its user only."""

    path: Path
    per_minute: int = REQUESTS_PER_MINUTE
    per_day: int = REQUESTS_PER_DAY
    clock: Clock = utc_now
    jitter: Callable[[], float] = random.random
    """Returns a fraction from 0 to 1: how much of the longest wait a cool-down takes."""

    def spend(self) -> None:
        """Count one request that is about to be sent.

        Raises BudgetSpentError, with the time for the next request, if none may be sent now.
        """
        with self._transaction() as db:
            now = self.clock()
            until, in_a_row = _cool_down(db)
            if until is not None and now < until:
                raise BudgetSpentError(
                    f"The API rejected the last requests ({in_a_row} x 429 in a row), and its cool-down ends at "
                    f"{_shown(until)}. No request was sent; try again then.",
                    retry_at=until,
                )
            room_at = self._room_at(db, now)
            if room_at is not None:
                raise BudgetSpentError(
                    f"The budget of {self.per_minute} requests a minute and {self.per_day} a day is spent until "
                    f"{_shown(room_at)}. No request was sent; try again then.",
                    retry_at=room_at,
                )
            db.execute("DELETE FROM sent WHERE at < ?", [_milliseconds(now - _DAY)])
            db.execute("INSERT INTO sent VALUES (?)", [_milliseconds(now)])

    def cool_down(self, retry_at: datetime | None) -> datetime:
        """Record a 429 and return the end of the cool-down (UTC).

        The end is `retry_at` if the API states it. Otherwise the wait is exponential with full jitter: at most
        1 minute for the first 429 in a row, doubled for each further one, never above 1 hour. A cool-down is never
        shortened.
        """
        with self._transaction() as db:
            now = self.clock()
            current, in_a_row = _cool_down(db)
            longest = min(FIRST_COOL_DOWN * 2 ** min(in_a_row, 10), LONGEST_COOL_DOWN)
            until = _whole_milliseconds(retry_at or now + longest * self.jitter())
            if current is not None:
                until = max(until, current)  # requests sent at the same time can get different times
            _set_cool_down(db, _milliseconds(until), in_a_row + 1)
            return until

    def good_answer(self) -> None:
        """Record a good answer: the next 429 counts as the first in a row.

        During a cool-down this has no effect: the answer belongs to a request sent before the 429.
        """
        with self._transaction() as db:
            until, _ = _cool_down(db)
            if until is None or until <= self.clock():
                _set_cool_down(db, None, 0)

    def state(self) -> BudgetState:
        """Return what is used now. Uses nothing."""
        with self._transaction() as db:
            now = self.clock()
            until, in_a_row = _cool_down(db)
            cooling_until = until if until is not None and now < until else None
            free_at = [at for at in (cooling_until, self._room_at(db, now)) if at is not None]
            return BudgetState(
                used_last_minute=_used(db, now - _MINUTE),
                used_last_day=_used(db, now - _DAY),
                per_minute=self.per_minute,
                per_day=self.per_day,
                rate_limited_in_a_row=in_a_row,
                cooling_until=cooling_until,
                next_request_at=max(free_at, default=None),
            )

    def _room_at(self, db: sqlite3.Connection, now: datetime) -> datetime | None:
        """Return when both windows have room for one more request, or None if they have room now."""
        free_at = []
        for limit, window in ((self.per_minute, _MINUTE), (self.per_day, _DAY)):
            query = "SELECT at FROM sent WHERE at >= ? ORDER BY at DESC LIMIT 1 OFFSET ?"
            row = db.execute(query, [_milliseconds(now - window), limit - 1]).fetchone()
            if row is not None:
                # A request exactly as old as the window still counts.
                free_at.append(_moment(row[0]) + window + timedelta(milliseconds=1))
        return max(free_at, default=None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that has the file's write lock. An exception rolls the changes back."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = self._begin()
            try:
                yield db
                db.commit()
            finally:
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise BudgetError(
                f"The request budget in {self.path} cannot be used: {error}. No request was sent. "
                "Free disk space or fix the file's permissions, then try again."
            ) from error

    def _begin(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        opened = self.path.stat().st_ino
        db = sqlite3.connect(self.path, timeout=_LOCK_WAIT_SECONDS, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            # Finds damage in any page now, and not while a request is counted.
            found = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise sqlite3.DatabaseError(str(found))
            _create(db)
        except sqlite3.OperationalError:
            db.close()
            raise
        except sqlite3.DatabaseError:
            db.close()
            # Collecting goes on with a new file: without it, days would be lost. Another process may have set the
            # damaged file aside already.
            if self.path.exists() and self.path.stat().st_ino == opened:
                self.path.rename(self.path.with_name(f"{self.path.name}.damaged-{self.clock():%Y%m%dT%H%M%S}"))
            return self._begin()
        return db


def shared_budget(state: Path, per_minute: int, per_day: int) -> Budget:
    """Return the request budget that all processes with this state folder share."""
    return Budget(state / "budget.sqlite", per_minute, per_day)


def _create(db: sqlite3.Connection) -> None:
    """Create missing tables; import the requests that an older version counted."""
    if db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
        return
    for statement in _SCHEMA:
        db.execute(statement)
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone():
        db.execute("INSERT INTO sent SELECT item_timestamp FROM requests")
        db.execute("DROP TABLE requests")
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _used(db: sqlite3.Connection, since: datetime) -> int:
    return int(db.execute("SELECT count(*) FROM sent WHERE at >= ?", [_milliseconds(since)]).fetchone()[0])


def _cool_down(db: sqlite3.Connection) -> tuple[datetime | None, int]:
    row = db.execute("SELECT until, in_a_row FROM cool_down").fetchone()
    if row is None:
        return None, 0
    return (None if row[0] is None else _moment(row[0])), int(row[1])


def _set_cool_down(db: sqlite3.Connection, until: int | None, in_a_row: int) -> None:
    db.execute("DELETE FROM cool_down")
    db.execute("INSERT INTO cool_down VALUES (?, ?)", [until, in_a_row])


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _whole_milliseconds(at: datetime) -> datetime:
    """Return `at`, rounded up to the precision of the file: the announced time is the stored one."""
    return at + timedelta(microseconds=-at.microsecond % 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _shown(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC on {at:%Y-%m-%d}"
