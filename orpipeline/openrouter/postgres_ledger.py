"""The request budget in a Postgres database, which several hosts share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from orpipeline import postgres
from orpipeline.clock import Clock, utc_now
from orpipeline.openrouter.ledger import LOCK_WAIT_SECONDS, BudgetError, Entries, Reading, no_entries
from orpipeline.settings import PREFIX

if TYPE_CHECKING:
    import psycopg

SETTING = f"{PREFIX}STATE"
_IDLE_SECONDS = 30
_BEGIN = f"""
SET LOCAL search_path = orpipeline;
SET LOCAL synchronous_commit = on;
SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s';
SET LOCAL statement_timeout = '{LOCK_WAIT_SECONDS + 5}s';
SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s';
"""
"""The limits of a transaction. The last one ends that of a host that was lost or stopped: its lock is then free."""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('orpipeline request budget', 0))"
_EXISTS = "SELECT to_regclass('orpipeline.sent') IS NOT NULL AND to_regclass('orpipeline.cool_down') IS NOT NULL"
_CREATE = """
CREATE SCHEMA IF NOT EXISTS orpipeline;
COMMENT ON SCHEMA orpipeline IS 'The request budget of orpipeline. Times are milliseconds since 1970 (UTC).';
CREATE TABLE IF NOT EXISTS orpipeline.sent
    (rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at bigint NOT NULL);
CREATE TABLE IF NOT EXISTS orpipeline.cool_down
    (until bigint NOT NULL, in_a_row integer NOT NULL, status integer NOT NULL, recorded_at bigint NOT NULL);
"""
_TODO = {
    "55P03": "Another process holds its lock; try again",
    "57014": "The server is too slow, or another process holds its lock; try again",
    "42501": "Grant the user CREATE on the database for the first use, then all rights on the schema `orpipeline`",
    "25006": "The server takes no writes; connect to the primary one",
}


@dataclass(frozen=True)
class PostgresLedger:
    """A ledger in the schema `orpipeline` of the Postgres database at `url`. One database is one budget.

    Its time is the server's, because the clocks of hosts differ. With a `clock`, that one counts instead. Each
    transaction has a connection of its own, and ends with it: a killed process holds no lock.
    """

    url: str
    clock: Clock | None = None

    @property
    def place(self) -> str:
        """The host and the database."""
        return postgres.place(self.url, setting=SETTING)

    @contextmanager
    def transaction(self) -> Iterator[Entries]:
        """Yield the entries while no other host's transaction can."""
        with self._connected("No request was sent, because it cannot be counted.") as db, db.transaction():
            # With a server's other default, this transaction would not see what was counted while it waited.
            db.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            db.execute(_BEGIN)
            db.execute(_LOCK)
            if not _exists(db):
                db.execute(_CREATE)
            yield Entries(_execute(db), self._read_clock(db))

    @contextmanager
    def look(self) -> Iterator[Entries]:
        """Yield the entries for reading. Creates no table, and also works with a read-only server."""
        with self._connected("") as db, db.transaction(), ExitStack() as stack:
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            db.execute(_BEGIN)
            reading = self._read_clock(db)
            yield Entries(_execute(db), reading) if _exists(db) else stack.enter_context(no_entries(reading))

    @contextmanager
    def _connected(self, consequence: str) -> Iterator[postgres.Connection]:
        """Yield a connection. Errors of Postgres become a BudgetError, which ends with the consequence."""
        try:
            db = postgres.connect(self.url, setting=SETTING, application_name="orpipeline budget")
        except postgres.PostgresError as error:
            raise BudgetError(f"{error} {consequence}".strip()) from error
        import psycopg

        try:
            with closing(db):
                yield db
        except psycopg.Error as error:
            raise BudgetError(f"{_reason(error, self.place)} {consequence}".strip()) from error

    def _read_clock(self, db: postgres.Connection) -> Reading:
        if self.clock is not None:
            return Reading.of(self.clock)
        before = utc_now()
        (now,) = db.execute("SELECT clock_timestamp()").fetchone() or ()
        return Reading(now.astimezone(UTC), before, after=utc_now())


def _exists(db: postgres.Connection) -> bool:
    return bool((db.execute(_EXISTS).fetchone() or (False,))[0])


def _execute(db: postgres.Connection) -> Any:
    def execute(statement: str, parameters: Sequence[int]) -> Any:
        return db.execute(statement.replace("?", "%s").encode(), parameters)

    return execute


def _reason(error: psycopg.Error, place: str) -> str:
    todo = _TODO.get(error.sqlstate or "", "Try again")
    return f"The request budget in {place} cannot be used: {postgres.first_line(error)}. {todo}."
