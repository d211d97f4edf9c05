"""The request budget that all processes with one state folder share.

The API allows 30 requests a minute for a key and 500 a day for an account. Every run, schedule and command counts
each request here before sending it. After a 429, or a 5XX that states when to try again, no process sends one until
the cool-down ends. The counts are in a SQLite file, whose write lock also works between processes, so they survive a
restart.

A clock can be wrong for a while. What is stored with a time that is not credible by the process's own clock does not
count: a request more than a minute ahead, and a cool-down that was recorded so, or that is longer than any rule allows.
Such requests stay in the file. They count again if it was the process's own clock that was wrong.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orpipeline.clock import OWN_CLOCK_TOLERANCE, Clock, utc_now
from orpipeline.openrouter.errors import OpenRouterError, RateLimitedError
from orpipeline.openrouter.stated_time import LONGEST_STATED_WAIT
from orpipeline.settings import REQUESTS_PER_DAY, REQUESTS_PER_MINUTE, Settings

FIRST_COOL_DOWN = timedelta(minutes=1)
LONGEST_COOL_DOWN = timedelta(hours=1)

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_LOCK_WAIT_SECONDS = 10.0
_LAST_MOMENT = 253_402_300_799_000  # the end of the year 9999: a clock can be wrong by any amount
_KEPT = 10 * REQUESTS_PER_DAY
"""How many requests the file keeps. Their number decides and not their age, which a wrong clock would misjudge."""
_VERSION = 2
_log = logging.getLogger(__name__)


class BudgetSpentError(RateLimitedError):
    """The request budget is spent, or a cool-down has not ended. No request was sent.

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
    """The end of the current cool-down, or None without one."""
    cooling_after: int | None
    """The status that caused the current cool-down: 429, or a 5XX."""
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
            rejection = self._rejection(db, now)
            if rejection is None:
                db.execute("INSERT INTO sent VALUES (?)", [_milliseconds(now)])
                db.execute("DELETE FROM sent WHERE rowid <= (SELECT max(rowid) FROM sent) - ?", [_KEPT])
        if rejection is not None:
            raise rejection

    def _rejection(self, db: sqlite3.Connection, now: datetime) -> BudgetSpentError | None:
        """Return why no request may be sent now, or None."""
        cool_down = self._cool_down(db, now)
        if now < cool_down.until:
            why = (
                f"The API rejected the last requests ({cool_down.in_a_row} x 429 in a row), and its cool-down"
                if cool_down.status == 429
                else f"The API failed ({cool_down.status}), and the pause that it asks for"
            )
            return BudgetSpentError(
                f"{why} ends at {_shown(cool_down.until)}. No request was sent; try again then.",
                status=cool_down.status,
                retry_at=cool_down.until,
            )
        room_at = self._room_at(db, now)
        if room_at is not None:
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
        with self._transaction() as db:
            now = self.clock()
            current = self._cool_down(db, now)
            longest = min(FIRST_COOL_DOWN * 2 ** min(current.in_a_row, 10), LONGEST_COOL_DOWN)
            until = _whole_milliseconds(retry_at or now + longest * self.jitter())
            new = _CoolDown(until, current.in_a_row + (status == 429), status, recorded_at=now)
            if current.until > until:  # requests sent at the same time can get different times
                new = replace(new, until=current.until, status=current.status)
            _set_cool_down(db, new)
            return new.until

    def good_answer(self) -> None:
        """Record a good answer: the next 429 counts as the first in a row.

        During a cool-down this has no effect: the answer belongs to a request sent before it began.
        """
        with self._transaction() as db:
            now = self.clock()
            if self._cool_down(db, now).until <= now:
                _set_cool_down(db, _NO_COOL_DOWN)

    def state(self) -> BudgetState:
        """Return what is used now. Uses nothing."""
        with self._transaction() as db:
            now = self.clock()
            return self._state(db, self._cool_down(db, now), now)

    def peek(self) -> BudgetState:
        """Return what is used now, as `state` does, without creating or repairing anything.

        Works on a read-only disk. Without a file, nothing is used. Raises BudgetError if the file cannot be read.
        """
        try:
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                if self.path.exists():
                    _copy(self.path, copy)
                _check(copy)
                _create(copy)
                now, stored = self.clock(), _stored_cool_down(copy)
                return self._state(copy, stored if _is_credible(stored, now) else stored.without_end(), now)
        except (OSError, sqlite3.Error) as error:
            raise BudgetError(
                f"The request budget in {self.path} cannot be read: {error}. Fix the file's permissions. If a "
                "killed process or the disk damaged it, the next fetch repairs it or starts a new one."
            ) from error

    def _state(self, db: sqlite3.Connection, cool_down: _CoolDown, now: datetime) -> BudgetState:
        is_cooling = now < cool_down.until
        free_at = [at for at in (cool_down.until if is_cooling else None, self._room_at(db, now)) if at is not None]
        return BudgetState(
            used_last_minute=_used(db, now, _MINUTE),
            used_last_day=_used(db, now, _DAY),
            per_minute=self.per_minute,
            per_day=self.per_day,
            rate_limited_in_a_row=cool_down.in_a_row,
            cooling_until=cool_down.until if is_cooling else None,
            cooling_after=cool_down.status if is_cooling else None,
            next_request_at=max(free_at, default=None),
        )

    def _room_at(self, db: sqlite3.Connection, now: datetime) -> datetime | None:
        """Return when both windows have room for one more request, or None if they have room now."""
        free_at = []
        for limit, window in ((self.per_minute, _MINUTE), (self.per_day, _DAY)):
            query = "SELECT at FROM sent WHERE at BETWEEN ? AND ? ORDER BY at DESC LIMIT 1 OFFSET ?"
            row = db.execute(query, [*_bounds(now, window), limit - 1]).fetchone()
            if row is not None:
                # A request exactly as old as the window still counts.
                free_at.append(_moment(row[0]) + window + timedelta(milliseconds=1))
        return max(free_at, default=None)

    def _cool_down(self, db: sqlite3.Connection, now: datetime) -> _CoolDown:
        """Return the stored cool-down. One that is not credible is forgotten, with a warning."""
        stored = _stored_cool_down(db)
        if _is_credible(stored, now):
            return stored
        _log.warning(
            "Ignored a cool-down until %s in %s: it was recorded while the clock was ahead (now it is %s).",
            _shown(stored.until),
            self.path,
            _shown(now),
        )
        _set_cool_down(db, stored.without_end())
        return stored.without_end()

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
            _check(db)
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


def open_budget(settings: Settings) -> Budget:
    """Return the request budget that all processes with the settings' state folder share."""
    return Budget(settings.state / "budget.sqlite", settings.requests_per_minute, settings.requests_per_day)


@dataclass(frozen=True)
class _CoolDown:
    """The stored cool-down. Times have whole milliseconds; without a cool-down, `until` is long past."""

    until: datetime
    in_a_row: int
    status: int
    recorded_at: datetime

    def without_end(self) -> _CoolDown:
        """Return that no cool-down holds, after as many 429s in a row."""
        return replace(_NO_COOL_DOWN, in_a_row=self.in_a_row)


_EPOCH = datetime.fromtimestamp(0, UTC)
_NO_COOL_DOWN = _CoolDown(until=_EPOCH, in_a_row=0, status=429, recorded_at=_EPOCH)


def _is_credible(cool_down: _CoolDown, now: datetime) -> bool:
    ahead = now + OWN_CLOCK_TOLERANCE
    return cool_down.recorded_at <= ahead and cool_down.until <= ahead + LONGEST_STATED_WAIT


def _copy(path: Path, into: sqlite3.Connection) -> None:
    """Copy a budget's file into another database, read-only."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", _LOCK_WAIT_SECONDS, uri=True)) as db:
        db.isolation_level = None
        db.execute("BEGIN")
        db.execute("PRAGMA user_version").fetchone()  # takes the read lock: `backup` would wait for it without a limit
        db.backup(into)


def _check(db: sqlite3.Connection) -> None:
    """Find damage in any page now, and not while a request is counted."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise sqlite3.DatabaseError(str(found))


def _create(db: sqlite3.Connection) -> None:
    """Create missing tables; import what an older version stored. Times are in milliseconds since the epoch."""
    if db.execute("PRAGMA user_version").fetchone()[0] >= _VERSION:
        return
    older = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.execute("CREATE TABLE IF NOT EXISTS sent (at INTEGER NOT NULL)")
    if "requests" in older:
        db.execute("INSERT INTO sent SELECT item_timestamp FROM requests")
        db.execute("DROP TABLE requests")
    cool_down = db.execute("SELECT until, in_a_row FROM cool_down").fetchone() if "cool_down" in older else None
    db.execute("DROP TABLE IF EXISTS cool_down")
    db.execute(
        "CREATE TABLE cool_down (until INTEGER NOT NULL, in_a_row INTEGER NOT NULL, status INTEGER NOT NULL, "
        "recorded_at INTEGER NOT NULL)"
    )
    if cool_down is not None:
        _set_cool_down(db, replace(_NO_COOL_DOWN, until=_moment(cool_down[0] or 0), in_a_row=cool_down[1]))
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _bounds(now: datetime, window: timedelta) -> tuple[int, int]:
    """Return the times, oldest and newest, of the requests that count in the window until now."""
    return _milliseconds(now - window), _milliseconds(now + OWN_CLOCK_TOLERANCE)


def _used(db: sqlite3.Connection, now: datetime, window: timedelta) -> int:
    query = "SELECT count(*) FROM sent WHERE at BETWEEN ? AND ?"
    return int(db.execute(query, _bounds(now, window)).fetchone()[0])


def _stored_cool_down(db: sqlite3.Connection) -> _CoolDown:
    row = db.execute("SELECT until, in_a_row, status, recorded_at FROM cool_down").fetchone()
    return _CoolDown(_moment(row[0]), row[1], row[2], _moment(row[3])) if row else _NO_COOL_DOWN


def _set_cool_down(db: sqlite3.Connection, new: _CoolDown) -> None:
    stored = [_milliseconds(new.until), new.in_a_row, new.status, _milliseconds(new.recorded_at)]
    db.execute("DELETE FROM cool_down")
    db.execute("INSERT INTO cool_down VALUES (?, ?, ?, ?)", stored)


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _whole_milliseconds(at: datetime) -> datetime:
    """Return `at`, rounded up to the precision of the file: the announced time is the stored one."""
    return at + timedelta(microseconds=-at.microsecond % 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(milliseconds, _LAST_MOMENT) / 1000, UTC)


def _shown(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC on {at:%Y-%m-%d}"
