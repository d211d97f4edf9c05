"""Where the request budget is stored: requests that were sent, and the cool-down. Here a SQLite file.

A ledger stores and locks; what its entries mean for the next request is in `budget`. Each operation is one transaction
that excludes all others, between threads, processes and, with a database server, hosts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from orpipeline.clock import OWN_CLOCK_TOLERANCE, Clock
from orpipeline.openrouter.errors import OpenRouterError
from orpipeline.settings import REQUESTS_PER_DAY

LOCK_WAIT_SECONDS = 10
"""How long to wait for another process that has locked the budget."""
_LAST_MOMENT = 253_402_300_799_000  # the end of the year 9999: a clock can be wrong by any amount
_KEPT = 10 * REQUESTS_PER_DAY
"""How many requests a ledger keeps. Their number decides and not their age, which a wrong clock would misjudge."""
_VERSION = 2


class BudgetError(OpenRouterError):
    """The request budget cannot be read or written. No request was sent, because it cannot be counted."""


@dataclass(frozen=True)
class CoolDown:
    """The stored cool-down. Times have whole milliseconds; without a cool-down, `until` is long past."""

    until: datetime
    in_a_row: int
    status: int
    recorded_at: datetime

    def without_end(self) -> CoolDown:
        """Return a cool-down that has ended, after as many 429s in a row."""
        return replace(NO_COOL_DOWN, in_a_row=self.in_a_row)


_EPOCH = datetime.fromtimestamp(0, UTC)
NO_COOL_DOWN = CoolDown(until=_EPOCH, in_a_row=0, status=429, recorded_at=_EPOCH)


@dataclass(frozen=True)
class Reading:
    """The time `now` of a ledger's clock, and what this host's clock showed just `before` and just `after`.

    A conversion between the two is never too early: the time that reading took is added.
    """

    now: datetime
    before: datetime
    after: datetime

    @classmethod
    def of(cls, clock: Clock) -> Reading:
        """Return the time of a ledger that uses this host's clock."""
        now = clock()
        return cls(now, now, now)

    def to_ledger(self, at: datetime) -> datetime:
        """Return a time of this host's clock as one of the ledger's."""
        return at + (self.now - self.before)

    def to_host(self, at: datetime) -> datetime:
        """Return a time of the ledger's clock as one of this host's."""
        return at + (self.after - self.now)


@dataclass(frozen=True)
class Entries:
    """What a ledger has stored, within one transaction. Times are those of the ledger's clock."""

    execute: Callable[[str, Sequence[int]], Any]
    """Run a statement, with `?` for each parameter, and return its cursor."""
    reading: Reading

    def add(self, at: datetime) -> None:
        """Store a request."""
        self.execute("INSERT INTO sent (at) VALUES (?)", [milliseconds(at)])
        self.execute("DELETE FROM sent WHERE rowid <= (SELECT max(rowid) FROM sent) - ?", [_KEPT])

    def used(self, window: timedelta) -> int:
        """Return how many requests count in the window until now."""
        row = self.execute("SELECT count(*) FROM sent WHERE at BETWEEN ? AND ?", self._bounds(window)).fetchone()
        return int(row[0])

    def newest(self, number: int, window: timedelta) -> datetime | None:
        """Return when the newest request in the window until now was sent, the second newest, ...; None without one."""
        query = "SELECT at FROM sent WHERE at BETWEEN ? AND ? ORDER BY at DESC LIMIT 1 OFFSET ?"
        row = self.execute(query, [*self._bounds(window), number - 1]).fetchone()
        return _moment(row[0]) if row else None

    def cool_down(self) -> CoolDown:
        """Return the stored cool-down."""
        row = self.execute("SELECT until, in_a_row, status, recorded_at FROM cool_down", []).fetchone()
        return CoolDown(_moment(row[0]), row[1], row[2], _moment(row[3])) if row else NO_COOL_DOWN

    def set_cool_down(self, new: CoolDown) -> None:
        """Store a cool-down instead of the stored one."""
        stored = [milliseconds(new.until), new.in_a_row, new.status, milliseconds(new.recorded_at)]
        self.execute("DELETE FROM cool_down", [])
        self.execute("INSERT INTO cool_down VALUES (?, ?, ?, ?)", stored)

    def _bounds(self, window: timedelta) -> list[int]:
        """Return the times, oldest and newest, of the requests that count in the window until now."""
        now = self.reading.now
        return [milliseconds(now - window), milliseconds(now + OWN_CLOCK_TOLERANCE)]


class Ledger(Protocol):
    """Where a request budget is stored."""

    @property
    def place(self) -> str:
        """Where it is, for messages. Contains no password."""

    def transaction(self) -> AbstractContextManager[Entries]:
        """Yield the entries while no other transaction can. An exception rolls the changes back.

        The first one creates what is missing. Raises BudgetError if the ledger cannot be used.
        """

    def look(self) -> AbstractContextManager[Entries]:
        """Yield the entries for reading, without creating or repairing anything. Raises BudgetError if it cannot."""


@dataclass(frozen=True)
class SqliteLedger:
    """A ledger in the SQLite file `path`, readable by its user only. Its time is that of `clock`."""

    path: Path
    clock: Clock

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self.path)

    @contextmanager
    def transaction(self) -> Iterator[Entries]:
        """Yield the entries while this process has the file's write lock."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = self._begin()
            try:
                yield Entries(db.execute, Reading.of(self.clock))
                db.commit()
            finally:
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise BudgetError(
                f"The request budget in {self.path} cannot be used: {error}. No request was sent. "
                "Free disk space or fix the file's permissions, then try again."
            ) from error

    @contextmanager
    def look(self) -> Iterator[Entries]:
        """Yield the entries of a copy in memory; of an empty one if there is no file. Works on a read-only disk."""
        try:
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                if self.path.exists():
                    _copy(self.path, copy)
                _check(copy)
                _create(copy)
                yield Entries(copy.execute, Reading.of(self.clock))
        except (OSError, sqlite3.Error) as error:
            raise BudgetError(
                f"The request budget in {self.path} cannot be read: {error}. Fix the file's permissions. If a "
                "killed process or the disk damaged it, the next fetch repairs it or starts a new one."
            ) from error

    def _begin(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        opened = self.path.stat().st_ino
        db = sqlite3.connect(self.path, timeout=LOCK_WAIT_SECONDS, isolation_level=None)
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


@contextmanager
def no_entries(reading: Reading) -> Iterator[Entries]:
    """Yield the entries of a ledger that does not exist yet."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        _create(empty)
        yield Entries(empty.execute, reading)


def _copy(path: Path, into: sqlite3.Connection) -> None:
    """Copy a budget's file into another database, read-only."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", LOCK_WAIT_SECONDS, uri=True)) as db:
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
        imported = replace(NO_COOL_DOWN, until=_moment(cool_down[0] or 0), in_a_row=cool_down[1])
        Entries(db.execute, Reading(_EPOCH, _EPOCH, _EPOCH)).set_cool_down(imported)
    db.execute(f"PRAGMA user_version = {_VERSION}")


def milliseconds(at: datetime) -> int:
    """Return a time as a ledger stores it: in milliseconds since the epoch."""
    return round(at.timestamp() * 1000)


def _moment(stored: int) -> datetime:
    return datetime.fromtimestamp(min(stored, _LAST_MOMENT) / 1000, UTC)
