"""One budget of requests for everybody on the machine, kept on disk.

The API allows 30 requests a minute for a key and 500 a day for an account. Every request of every run, sensor tick,
schedule and command is counted here before it is sent, in a SQLite file behind a file lock; and after a 429 nobody
asks until the cool-down is over. It survives restarts.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as LockTimeout
from pyrate_limiter import Duration, Rate, RateItem, SQLiteBucket

from orpipeline.clock import Clock, utc_now
from orpipeline.openrouter.errors import OpenRouterError, RateLimitedError
from orpipeline.settings import REQUESTS_PER_DAY, REQUESTS_PER_MINUTE

FIRST_COOL_DOWN = timedelta(minutes=1)
LONGEST_COOL_DOWN = timedelta(hours=1)
_LOCK_WAIT_SECONDS = 10.0
_TABLE = "requests"


class BudgetSpentError(RateLimitedError):
    """The budget of requests is spent, or a cool-down after a 429 lasts: no request was sent.

    `retry_at` is when there is room again (UTC).
    """


class BudgetError(OpenRouterError):
    """The budget cannot be read or written. No request was sent, for it could not have been counted."""


@dataclass(frozen=True)
class BudgetState:
    """What is used at a moment, and when the next request may be sent."""

    used_last_minute: int
    used_last_day: int
    per_minute: int
    per_day: int
    rate_limited_in_a_row: int
    """How many 429s came since the last good answer."""
    cooling_until: datetime | None
    """The end of the cool-down after a 429, while it lasts."""
    next_request_at: datetime | None
    """When a request may be sent, or None if one may be sent now."""


@dataclass(frozen=True)
class Budget:
    """The budget kept in the SQLite file `path`, made at the first use and private to its user."""

    path: Path
    per_minute: int = REQUESTS_PER_MINUTE
    per_day: int = REQUESTS_PER_DAY
    clock: Clock = utc_now
    jitter: Callable[[], float] = random.random
    """Returns a fraction from 0 to 1: how much of the longest wait a cool-down takes."""

    def spend(self) -> None:
        """Count one request that is about to be sent.

        Raises BudgetSpentError, with the moment to come back, where none may be sent.
        """
        with self._open() as bucket:
            now = self.clock()
            until, in_a_row = _cool_down(bucket)
            if until is not None and now < until:
                raise BudgetSpentError(
                    f"The API refused more requests ({in_a_row} x 429 in a row), so nobody asks it before "
                    f"{_shown(until)}. Nothing was sent; try again then.",
                    retry_at=until,
                )
            room_at = self._room_at(bucket, now)
            if room_at is not None:
                raise BudgetSpentError(
                    f"The budget of {self.per_minute} requests a minute and {self.per_day} a day is spent until "
                    f"{_shown(room_at)}. Nothing was sent; try again then.",
                    retry_at=room_at,
                )
            bucket.put(RateItem("request", _milliseconds(now)))
            bucket.leak(_milliseconds(now))

    def cool_down(self, retry_at: datetime | None) -> datetime:
        """Note a 429, and return until when nobody asks (UTC).

        That is `retry_at` where the API said so; otherwise the wait is exponential: up to 1 minute, doubling with
        each 429 in a row to at most 1 hour, with full jitter. A cool-down that lasts is never shortened.
        """
        with self._open() as bucket:
            now = self.clock()
            lasting, in_a_row = _cool_down(bucket)
            longest = min(FIRST_COOL_DOWN * 2 ** min(in_a_row, 10), LONGEST_COOL_DOWN)
            until = _whole_milliseconds(retry_at or now + longest * self.jitter())
            if lasting is not None:
                until = max(until, lasting)  # several may ask at once, and be refused until different moments
            _set_cool_down(bucket, _milliseconds(until), in_a_row + 1)
            return until

    def good_answer(self) -> None:
        """Note that the API answered: the next 429 is the first in a row again.

        While a cool-down lasts this changes nothing: the answer is to a request from before the refusal.
        """
        with self._open() as bucket:
            until, _ = _cool_down(bucket)
            if until is None or until <= self.clock():
                _set_cool_down(bucket, None, 0)

    def state(self) -> BudgetState:
        """Return what is used now, without using any of it."""
        with self._open() as bucket:
            now = self.clock()
            until, in_a_row = _cool_down(bucket)
            cooling = until if until is not None and now < until else None
            free_at = [at for at in (cooling, self._room_at(bucket, now)) if at is not None]
            return BudgetState(
                used_last_minute=_used(bucket, now - timedelta(minutes=1)),
                used_last_day=_used(bucket, now - timedelta(days=1)),
                per_minute=self.per_minute,
                per_day=self.per_day,
                rate_limited_in_a_row=in_a_row,
                cooling_until=cooling,
                next_request_at=max(free_at, default=None),
            )

    def _room_at(self, bucket: SQLiteBucket, now: datetime) -> datetime | None:
        """Return when the counted requests leave room for one more, or None if they do now."""
        waits = []
        for limit, window in ((self.per_minute, timedelta(minutes=1)), (self.per_day, timedelta(days=1))):
            if _used(bucket, now - window) >= limit:
                oldest = bucket.peek(limit - 1)
                # One millisecond more: a request exactly as old as the window still counts.
                at = _moment(oldest.timestamp) if oldest else now
                waits.append(at + window + timedelta(milliseconds=1))
        return max(waits, default=None)

    @contextmanager
    def _open(self) -> Iterator[SQLiteBucket]:
        """Open the file, alone on this machine, and close it whatever happens."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=_LOCK_WAIT_SECONDS, mode=0o600):
                bucket = self._bucket()
                try:
                    yield bucket
                finally:
                    bucket.conn.close()
        except (OSError, sqlite3.Error, LockTimeout) as error:
            raise BudgetError(
                f"The budget of requests in {self.path} cannot be kept: {error}. No request was sent. "
                "Make room or rights for the file, then try again."
            ) from error

    def _bucket(self) -> SQLiteBucket:
        rates = [Rate(self.per_minute, Duration.MINUTE), Rate(self.per_day, Duration.DAY)]
        if self.per_minute >= self.per_day:
            del rates[0]  # a day's limit is then a minute's too, and the library takes no rate that limits nothing
        self.path.touch(mode=0o600)
        try:
            bucket = SQLiteBucket.init_from_file(rates, table=_TABLE, db_path=str(self.path))
            bucket.conn.execute("CREATE TABLE IF NOT EXISTS cool_down (until INTEGER, in_a_row INTEGER NOT NULL)")
            # Damage inside the file would otherwise show in the middle of a request's counting.
            found = bucket.conn.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                bucket.conn.close()
                raise sqlite3.DatabaseError(str(found))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            # No database any more. A collector that stands still loses days; what was counted is set aside.
            self.path.rename(self.path.with_name(f"{self.path.name}.damaged-{self.clock():%Y%m%dT%H%M%S}"))
            return self._bucket()
        return bucket


def shared_budget(state: Path, per_minute: int, per_day: int) -> Budget:
    """Return the request budget that all processes with this state folder share."""
    return Budget(state / "budget.sqlite", per_minute, per_day)


def _used(bucket: SQLiteBucket, since: datetime) -> int:
    query = f"SELECT count(*) FROM '{_TABLE}' WHERE item_timestamp >= ?"  # noqa: S608 - a name of ours
    return int(bucket.conn.execute(query, [_milliseconds(since)]).fetchone()[0])


def _cool_down(bucket: SQLiteBucket) -> tuple[datetime | None, int]:
    row = bucket.conn.execute("SELECT until, in_a_row FROM cool_down").fetchone()
    if row is None:
        return None, 0
    return (None if row[0] is None else _moment(row[0])), int(row[1])


def _set_cool_down(bucket: SQLiteBucket, until: int | None, in_a_row: int) -> None:
    with bucket.conn:
        bucket.conn.execute("DELETE FROM cool_down")
        bucket.conn.execute("INSERT INTO cool_down VALUES (?, ?)", [until, in_a_row])


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _whole_milliseconds(at: datetime) -> datetime:
    """Return the moment as it is kept in the file, never earlier: what is announced is what counts."""
    return at + timedelta(microseconds=-at.microsecond % 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _shown(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC on {at:%Y-%m-%d}"
