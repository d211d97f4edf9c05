"""The warehouse: where the tables are opened, locked, committed and published, whichever engine keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from orpipeline.errors import OrpipelineError, WarehouseError
from orpipeline.settings import LOCK_WAIT_SECONDS, Settings
from orpipeline.warehouse.duckdb_file import DuckDBFile, log
from orpipeline.warehouse.ducklake import DuckLake
from orpipeline.warehouse.publishing import parquet_place, publish_copy, write_parquet
from orpipeline.warehouse.schema import DEFAULT_SCHEMA
from orpipeline.warehouse.tables import Tables


class Warehouse:
    """The warehouse at `place`, with the pipeline's tables in `schema`. The first write creates it.

    `place` is the path of a DuckDB file, or names a DuckLake (`ducklake:postgres:...`), as `Settings.warehouse` does. A
    lake keeps its files in `lake_data`, a folder or an object store.

    Each method opens the warehouse, does its work and closes it. A writer waits up to `lock_wait_seconds` for another
    one; one DuckDB file also keeps readers waiting. If `published` is the path or URL of the published copy, each
    commit of a DuckDB file replaces the copy, and each commit updates the Parquet files beside it. `connection_config`
    has DuckDB's own options, such as `memory_limit`.
    """

    def __init__(
        self,
        place: Path | str,
        *,
        lake_data: Path | str | None = None,
        schema: str = DEFAULT_SCHEMA,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
        published: Path | str | None = None,
        connection_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = place
        self.schema = schema
        self.published = published
        self._lock_wait_seconds = lock_wait_seconds
        config = connection_config or {}
        self._engine: DuckDBFile | DuckLake
        if isinstance(place, Path):
            self._engine = DuckDBFile(
                place, lock_wait_seconds=lock_wait_seconds, published=published, connection_config=config
            )
        elif lake_data is None:
            raise WarehouseError(f"The warehouse {place} needs `lake_data`: where the lake keeps its files.")
        else:
            self._engine = DuckLake(
                place, data=lake_data, lock_wait_seconds=lock_wait_seconds, connection_config=config
            )

    @property
    def name(self) -> str:
        """How messages name the warehouse. Never contains a password."""
        return self._engine.name

    @property
    def exists(self) -> bool:
        """Whether the file or the lake exists: the first write creates it. Raises WarehouseError."""
        return self._engine.exists

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Open the tables as they are at one moment, for reading. If there is no warehouse yet, they are empty.

        Raises WarehouseBusyError, DamagedWarehouseError or WarehouseError.
        """
        if not self.exists:
            with duckdb.connect(":memory:") as nothing:
                yield Tables(nothing, self.schema)
            return
        with self.connect(read_only=True) as connection:
            connection.begin()  # later commits are not visible
            yield Tables(connection, self.schema)

    @contextmanager
    def writing(self) -> Iterator[Tables]:
        """Lock the warehouse and open the tables for one transaction: commit at the end, roll back on any error.

        Until then no other process can write, so the rows that you read do not change before the commit.
        Raises WarehouseBusyError, DamagedWarehouseError or WarehouseError. A copy that cannot be published is a warning
        in the log, because the tables are committed by then.
        """
        with self.locked() as connection:
            with _transaction(connection):
                tables = Tables(connection, self.schema)
                yield tables
            self._publish(connection, with_parquet=tables.changed)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction, as `writing` does, for tables of your own. They have no Parquet."""
        with self.locked() as connection:
            with _transaction(connection):
                yield connection
            self._publish(connection, with_parquet=False)

    @contextmanager
    def locked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database as the only writer, without a transaction."""
        with self._engine.lock(), self.connect() as connection:
            yield connection

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database, and close it in any case.

        Raises WarehouseBusyError or WarehouseError, also for DuckDB's own errors inside the block.
        """
        connection = self._engine.connect(read_only=read_only)
        try:
            # Times are in UTC, whatever the machine's time zone is.
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except duckdb.Error as error:
            raise self._engine.error(error) from error
        finally:
            connection.close()

    def set_aside(self, now: datetime) -> Path | None:
        """Rename a damaged DuckDB file, and return its new path; None if it is intact by now."""
        return self._engine.set_aside(now) if isinstance(self._engine, DuckDBFile) else None

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view, as `Tables.read` does."""
        with self.reading() as tables:
            return tables.read(name, since=since, until=until)

    def _publish(self, connection: duckdb.DuckDBPyConnection, *, with_parquet: bool) -> None:
        """Publish, while this process still has the lock: the newest commit is published last.

        Readers of a lake open the lake itself, so it has no copy.
        """
        if self.published is None:
            return
        try:
            if isinstance(self.place, Path):
                publish_copy(connection, self.place, self.published)
            if with_parquet:
                to, folder = parquet_place(self.published, self.schema)
                write_parquet(Tables(connection, self.schema), to, folder=folder)
        except (duckdb.Error, OSError, OrpipelineError) as error:
            where = self.published.parent if isinstance(self.published, Path) else self.published.rpartition("/")[0]
            log.warning(
                "The tables are written, but not the published copy in %s: %s. Readers still see the copy of an "
                "earlier run; the next load publishes again.",
                where,
                str(error).rstrip("."),
            )


def open_warehouse(settings: Settings, *, schema: str = DEFAULT_SCHEMA) -> Warehouse:
    """Return the settings' warehouse; no file is created or opened yet."""
    return Warehouse(
        settings.warehouse,
        lake_data=settings.lake_data,
        schema=schema,
        lock_wait_seconds=settings.lock_wait_seconds,
        published=settings.published,
    )


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        # A failed transaction may have ended already; closing the connection ends it in any case.
        with suppress(duckdb.Error):
            connection.rollback()
        raise
