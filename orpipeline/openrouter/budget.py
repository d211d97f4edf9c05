"""The request budget that all processes with the same state share.

The API allows 30 requests a minute for a key and 500 a day for an account. Every run, schedule and command counts
each request here before sending it. After a 429, or a 5XX that states when to try again, no process sends one until
the cool-down ends. The counts are in a SQLite file for the processes of one host, or in a Postgres database for
those of several; they survive a restart. Each operation is one transaction that excludes all others.

A clock can be wrong for a while. What a clock that was ahead has recorded does not count: a request more than a minute
in the future, and a cool-down that is longer than any rule allows. In Postgres, the server's clock counts, so a host
whose clock is wrong counts right; times in results and errors are those of the host's clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from orpipeline import postgres
from orpipeline.clock import OWN_CLOCK_TOLERANCE, Clock, utc_now
from orpipeline.errors import BudgetSpentError, StoreError
from orpipeline.openrouter.stated_time import LONGEST_STATED_WAIT
from orpipeline.settings import REQUESTS_PER_DAY, REQUESTS_PER_MINUTE, Settings

FIRST_COOL_DOWN = timedelta(minutes=1)
LONGEST_COOL_DOWN = timedelta(hours=1)

_SETTING = "ORPIPELINE_STATE"
_SCHEMA = "orpipeline"  # in Postgres
_LOCK_WAIT_SECONDS = 10
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_EPOCH = datetime.fromtimestamp(0, UTC)

_tables = sa.MetaData()
# Times are seconds since 1970 (UTC).
_sent = sa.Table("sent", _tables, sa.Column("at", sa.Double, nullable=False, index=True))
_cool_down = sa.Table(
    "cool_down",
    _tables,
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("in_a_row", sa.Integer, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
)


@dataclass(frozen=True)
class BudgetState:
    """How much of the budget is used at a moment, and when the next request may be sent (UTC)."""

    used_last_minute: int
    used_last_day: int
    rate_limited_in_a_row: int
    """How many 429s have arrived since the last good response."""
    cooling_after: int | None
    """The status that caused the current cool-down, 429 or a 5XX, or None without one."""
    next_request_at: datetime | None
    """When a request may be sent, or None if one may be sent now."""


@dataclass(frozen=True)
class Budget:
    """The request budget in the SQLite file `place`, or in the Postgres database of that URL.

    The first use creates it. With a `clock`, all times are that clock's. Without one, they are this machine's; in
    Postgres, requests then count by the server's clock. Methods raise StoreError if the budget cannot be used.
    """

    place: Path | str
    per_minute: int = REQUESTS_PER_MINUTE
    per_day: int = REQUESTS_PER_DAY
    clock: Clock | None = None
    jitter: Callable[[], float] = field(default=random.random)
    """Returns a fraction from 0 to 1: how much of the longest wait a cool-down takes."""

    def spend(self) -> None:
        """Count one request that is about to be sent.

        Raises BudgetSpentError, with the time for the next request, if none may be sent now.
        """
        with self._transaction() as stored:
            state = self._state(stored)
            if state.next_request_at is not None:
                raise self._rejection(state, state.next_request_at)
            stored.add_request()

    def cool_down(self, retry_at: datetime | None, status: int = 429) -> datetime:
        """Record a 429, or a 5XX that states `retry_at`, and return the end of the cool-down (UTC).

        The end is `retry_at` if the API states it. Otherwise the wait is exponential with full jitter: at most
        1 minute for the first 429 in a row, doubled for each further one, never above 1 hour. A cool-down is never
        shortened.
        """
        with self._transaction() as stored:
            until, in_a_row, old_status = stored.cool_down()
            longest = min(FIRST_COOL_DOWN * 2 ** min(in_a_row, 10), LONGEST_COOL_DOWN)
            end = stored.now + longest * self.jitter() if retry_at is None else retry_at - stored.ahead
            in_a_row += status == 429
            if until > end:  # requests sent at the same time can get different times
                end, status = until, old_status
            stored.set_cool_down(end, in_a_row, status)
            return end + stored.ahead

    def good_response(self) -> None:
        """Record a good response: the next 429 counts as the first in a row.

        During a cool-down this has no effect: the response belongs to a request sent before it began.
        """
        with self._transaction() as stored:
            if stored.cool_down()[0] <= stored.now:
                stored.set_cool_down(stored.now, 0, 429)

    def state(self) -> BudgetState:
        """Return what is used now. Nothing is stored, except for an empty file if there is none yet."""
        with self._transaction() as stored:
            state = self._state(stored)
            stored.connection.rollback()
        return state

    def _state(self, stored: _Stored) -> BudgetState:
        until, in_a_row, status = stored.cool_down()
        is_cooling = until > stored.now
        last_day = stored.sent()
        last_minute = [at for at in last_day if at >= stored.now - _MINUTE]
        free_at = [until] if is_cooling else []
        for limit, window, sent in ((self.per_minute, _MINUTE, last_minute), (self.per_day, _DAY, last_day)):
            if len(sent) >= limit:  # a request exactly as old as the window still counts
                free_at.append(sent[limit - 1] + window + datetime.resolution)
        return BudgetState(
            used_last_minute=len(last_minute),
            used_last_day=len(last_day),
            rate_limited_in_a_row=in_a_row,
            cooling_after=status if is_cooling else None,
            next_request_at=max(free_at) + stored.ahead if free_at else None,
        )

    def _rejection(self, state: BudgetState, at: datetime) -> BudgetSpentError:
        shown = f"{at:%H:%M:%S} UTC on {at:%Y-%m-%d}"
        if state.cooling_after is None:
            why = f"The budget of {self.per_minute} requests a minute and {self.per_day} a day is spent until {shown}"
        else:
            why = f"The API's last response was a {state.cooling_after}, and the cool-down after it ends at {shown}"
        message = f"{why}. No request was sent; try again then."
        return BudgetSpentError(message, status=state.cooling_after or 429, retry_at=at)

    @cached_property
    def _engine(self) -> sa.Engine:
        if isinstance(self.place, Path):
            url = sa.URL.create("sqlite", database=str(self.place))
            # Python's driver would begin a transaction at the first change only, and not exclude other readers before.
            options = {"timeout": _LOCK_WAIT_SECONDS, "isolation_level": None}
            return sa.create_engine(url, poolclass=sa.NullPool, connect_args=options)
        connect = partial(
            postgres.connect, self.place, setting=_SETTING, application_name="orpipeline budget", autocommit=False
        )
        postgres.require_allowed_hosts(self.place, setting=_SETTING)  # also finds that psycopg is missing
        # With a server's other default, a transaction would not see what was counted while it waited.
        return sa.create_engine(
            "postgresql+psycopg://", creator=connect, poolclass=sa.NullPool, isolation_level="READ COMMITTED"
        ).execution_options(schema_translate_map={None: _SCHEMA})

    @contextmanager
    def _transaction(self) -> Iterator[_Stored]:
        """Yield what is stored while no other transaction can. An exception rolls the changes back."""
        try:
            if isinstance(self.place, Path):
                self.place.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect() as connection, connection.begin():
                now, ahead = self._lock(connection)
                _tables.create_all(connection)
                yield _Stored(connection, now, ahead)
        except (SQLAlchemyError, OSError) as error:
            raise self._unusable(error) from error

    def _lock(self, connection: sa.Connection) -> tuple[datetime, timedelta]:
        """Exclude all others. Return the time by the clock that counts, and how far this host's clock is ahead."""
        if isinstance(self.place, Path):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return (self.clock or utc_now)(), timedelta(0)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_SECONDS}s'")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '30s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended('orpipeline budget', 0))")
        if not sa.inspect(connection).has_schema(_SCHEMA):  # later uses need no right to create
            connection.exec_driver_sql(f"CREATE SCHEMA {_SCHEMA}")
        if self.clock is not None:
            return self.clock(), timedelta(0)
        now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return now.astimezone(UTC), utc_now() - now

    def _unusable(self, error: SQLAlchemyError | OSError) -> StoreError:
        cause = getattr(error, "orig", None) or error
        if isinstance(self.place, str):
            where = f"The request budget in {postgres.place(self.place, setting=_SETTING)}"
            return postgres.explained(cause, where, _SETTING)
        todo = "free disk space or fix the file's permissions, then try again"
        if type(error) is DatabaseError:  # SQLite's for a damaged file; days are lost if nothing can be counted
            with suppress(OSError):
                aside = self.place.with_name(f"{self.place.name}.damaged-{utc_now():%Y%m%dT%H%M%S}")
                todo = f"the damaged file is now {self.place.replace(aside)}, so try again"
        return StoreError(
            f"The request budget in {self.place} cannot be used: {postgres.first_line(cause)}. No request was sent; "
            f"{todo}."
        )


@dataclass(frozen=True)
class _Stored:
    """What a budget has stored, within one transaction. Times are those of the clock that counts."""

    connection: sa.Connection
    now: datetime
    ahead: timedelta
    """How far this host's clock is ahead."""

    def add_request(self) -> None:
        self.connection.execute(_sent.insert().values(at=self.now.timestamp()))

    def sent(self) -> list[datetime]:
        """Return when the requests of the last 24 hours were sent, newest first."""
        counts = _sent.c.at.between((self.now - _DAY).timestamp(), (self.now + OWN_CLOCK_TOLERANCE).timestamp())
        query = sa.select(_sent.c.at).where(counts).order_by(_sent.c.at.desc())
        return [datetime.fromtimestamp(at, UTC) for at in self.connection.scalars(query)]

    def cool_down(self) -> tuple[datetime, int, int]:
        """Return the end of the last cool-down, how many 429s came in a row, and the status that caused it."""
        row = self.connection.execute(sa.select(_cool_down)).first()
        if row is None:
            return _EPOCH, 0, 429
        until = datetime.fromtimestamp(row.until, UTC)
        is_possible = until <= self.now + LONGEST_STATED_WAIT + OWN_CLOCK_TOLERANCE
        return until if is_possible else _EPOCH, row.in_a_row, row.status

    def set_cool_down(self, until: datetime, in_a_row: int, status: int) -> None:
        self.connection.execute(_cool_down.delete())
        values = _cool_down.insert().values(until=until.timestamp(), in_a_row=in_a_row, status=status)
        self.connection.execute(values)


def open_budget(settings: Settings) -> Budget:
    """Return the request budget that all processes with the settings' state share: a folder's file, or a database."""
    place = settings.state / "budget.sqlite" if isinstance(settings.state, Path) else settings.state
    return Budget(place, settings.requests_per_minute, settings.requests_per_day)
