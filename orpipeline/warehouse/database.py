"""The DuckDB file of the warehouse: the only module that opens it."""

from __future__ import annotations

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from pyarrow import ArrowException
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

from orpipeline.errors import OrpipelineError
from orpipeline.settings import LOCK_WAIT_SECONDS
from orpipeline.warehouse.errors import DamagedWarehouseError, WarehouseBusyError, WarehouseError
from orpipeline.warehouse.published import copy_file, parquet_folder
from orpipeline.warehouse.tables import DEFAULT_SCHEMA, Tables

_log = logging.getLogger(__name__)

# Given a file of another kind, DuckDB would look for an extension on the network before it reports an error.
_CONFIG: dict[str, Any] = {"autoinstall_known_extensions": "false"}
_HOLDER = re.compile(r"Conflicting lock is held in (.+? \(PID \d+\))")
# DuckDB's lock does not separate the threads of one process.
_WRITING: defaultdict[Path, threading.RLock] = defaultdict(threading.RLock)
# In one process, DuckDB does not open a file for reading while it is open for writing, or the reverse.
_SIGNS_OF_A_LOCK = {
    "Could not set lock": "another process",
    "being used by another process": "another process",
    "different configuration than existing connections": "another thread of this process",
}
# Only what a newer DuckDB, or more memory or disk space, would not read either.
_SIGNS_OF_DAMAGE = (
    "not a valid DuckDB",
    "Corrupt database file",
    "Corrupt WAL file",
    "data may be corrupt",
    "Could not read enough bytes",
)


class Warehouse:
    """The DuckDB file at `path`, with the pipeline's tables in `schema`. The first write creates it with its folder.

    One DuckDB file admits one writing process. Each method therefore opens the file, does its work and closes it, and
    waits up to `lock_wait_seconds` while another process has locked it. If `published` is the path of a file, each
    commit replaces that file by a copy, and updates the Parquet files beside it. `connection_config` has
    DuckDB's own options, such as `memory_limit`.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str = DEFAULT_SCHEMA,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
        published: Path | None = None,
        connection_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.schema = schema
        self.lock_wait_seconds = lock_wait_seconds
        self.published = published
        self.connection_config = dict(connection_config or {})

    @property
    def exists(self) -> bool:
        """Whether the file exists: the first write creates it."""
        return self.path.exists()

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Open the tables as they are at one moment, for reading. Without a file, they are empty.

        Raises WarehouseBusyError, NewerLayoutError, DamagedWarehouseError or WarehouseError.
        """
        if not self.exists:
            with duckdb.connect(":memory:") as nothing:
                yield Tables(nothing, self.schema)
            return
        with self.connect(read_only=True) as connection:
            connection.begin()  # later commits are not visible
            yield self._tables(connection)

    @contextmanager
    def writing(self) -> Iterator[Tables]:
        """Lock the file and open the tables for one transaction: commit at the end, roll back on any error.

        Until then no other process can write, so the rows that you read do not change before the commit.
        Raises WarehouseBusyError, NewerLayoutError, DamagedWarehouseError or WarehouseError. A copy that cannot be
        published is a warning in the log, because the tables are committed by then.
        """
        with self._locked() as connection:
            with _transaction(connection):
                tables = self._tables(connection)
                yield tables
            self._publish(connection, tables)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction: commit at the end, roll back on any error.

        Publishes the DuckDB file as `writing` does, but not the Parquet files, which have only the pipeline's tables.
        """
        with self._locked() as connection:
            with _transaction(connection):
                yield connection
            self._publish(connection, None)

    def publish(self) -> None:
        """Publish the tables as they are now."""
        with self.writing():
            pass

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database, and close it in any case.

        Raises WarehouseBusyError or WarehouseError, also for DuckDB's own errors inside the block.
        """
        connection = self._open(read_only)
        try:
            # Times are in UTC, whatever the machine's time zone is.
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except duckdb.Error as error:
            raise self._error(error) from error
        finally:
            connection.close()

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view, as `Tables.read` does."""
        with self.reading() as tables:
            return tables.read(name, since=since, until=until)

    def days(self, name: str = "snapshots") -> list[date]:
        """Return the days that a table has, oldest first."""
        with self.reading() as tables:
            return tables.days(name)

    @contextmanager
    def _locked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for writing. Other threads of this process wait, as other processes do."""
        lock = _WRITING[self.path]
        if not lock.acquire(timeout=self.lock_wait_seconds):
            raise self._busy("another thread of this process")
        try:
            with self.connect() as connection:
                yield connection
        finally:
            lock.release()

    def _publish(self, connection: duckdb.DuckDBPyConnection, tables: Tables | None) -> None:
        """Publish what is committed, while this process still has the lock: the newest commit is published last."""
        if self.published is None:
            return
        from orpipeline.warehouse.parquet import write_parquet  # pyarrow's part takes time to import

        try:
            connection.execute("CHECKPOINT")  # all of it is then in the file itself
            copy_file(self.path, self.published)
            if tables is not None and not tables.layout.is_empty:
                write_parquet(
                    tables,
                    parquet_folder(self.published, self.schema),
                    mirror=True,
                    changed=tables.replaced,
                    known=tables.known,
                )
        except (duckdb.Error, OSError, ArrowException, OrpipelineError) as error:
            _log.warning(
                "The tables are written, but not the published copy in %s: %s. Readers still see the copy of an "
                "earlier run; the next write publishes again. If that fails, too, look at the disk's space and the "
                "folder's permissions.",
                self.published.parent,
                error,
            )

    def _tables(self, connection: duckdb.DuckDBPyConnection) -> Tables:
        tables = Tables(connection, self.schema)
        tables.layout.require_known_version()
        return tables

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        attempts = Retrying(
            retry=retry_if_exception_type(WarehouseBusyError),
            stop=stop_before_delay(self.lock_wait_seconds),
            before_sleep=self._log_wait,
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            reraise=True,
        )
        return attempts(self._open_once, read_only)

    def _log_wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            _log.warning("Waiting up to %g s for the warehouse. %s", self.lock_wait_seconds, error)

    def _open_once(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            if not read_only:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return duckdb.connect(self.path, read_only=read_only, config={**_CONFIG, **self.connection_config})
        except duckdb.Error as error:
            raise self._error(error) from error
        except OSError as error:
            raise WarehouseError(
                f"Cannot create the warehouse's folder {self.path.parent}: {error.strerror}. "
                "Set ORPIPELINE_DATA_DIR or ORPIPELINE_WAREHOUSE to a place that you can write to."
            ) from error

    def _error(self, error: duckdb.Error) -> WarehouseError:
        reason = " ".join(str(error).split("\n\n")[0].split())
        for sign, owner in _SIGNS_OF_A_LOCK.items():
            if sign in reason:
                holder = _HOLDER.search(reason)
                return self._busy(holder[1] if holder else owner)
        if any(sign in reason for sign in _SIGNS_OF_DAMAGE):
            return DamagedWarehouseError(
                f"The warehouse {self.path} is damaged, or is not a DuckDB database; it was not touched. Run "
                "`orpipeline rebuild`, which keeps it aside and restores the tables from the archive, or set "
                f"ORPIPELINE_WAREHOUSE to another file. DuckDB reports: {reason}"
            )
        return WarehouseError(f"The warehouse {self.path} failed; its tables are unchanged. DuckDB reports: {reason}")

    def _busy(self, owner: str) -> WarehouseBusyError:
        # DuckDB's own message advises to open the file read-only, which still blocks writers.
        instead = (
            f" Programs that only read can open {self.published} instead, which locks nothing."
            if self.published
            else ""
        )
        return WarehouseBusyError(
            f"The warehouse {self.path} is locked by {owner}; its tables are unchanged. Close the program that has it "
            f"open, or wait until it does so.{instead}"
        )


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    # A failed transaction may have ended already; closing the connection ends it in any case.
    with suppress(duckdb.Error):
        connection.rollback()
