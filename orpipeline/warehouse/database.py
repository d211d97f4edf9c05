"""The warehouse: the tables of one schema, in whichever engine keeps them. Only the engines open DuckDB."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from pyarrow import ArrowException

from orpipeline.errors import OrpipelineError
from orpipeline.settings import LOCK_WAIT_SECONDS
from orpipeline.warehouse.engines.duckdb_file import DuckDBFile
from orpipeline.warehouse.engines.interface import Engine, RequireLocked
from orpipeline.warehouse.errors import WarehouseSetupError
from orpipeline.warehouse.published import local_copy, parquet_folder
from orpipeline.warehouse.tables import DEFAULT_SCHEMA, Tables

_log = logging.getLogger(__name__)


class Warehouse:
    """The warehouse at `place`, with the pipeline's tables in `schema`. The first write creates it.

    `place` is the path of a DuckDB file, or names a DuckLake (`ducklake:postgres:...`) or a MotherDuck database
    (`md:...`), as `Settings.warehouse` does. A lake keeps its files in `lake_data`, a folder or an object store.

    Each method opens the warehouse, does its work and closes it. A writer waits up to `lock_wait_seconds` for another
    one; one DuckDB file also keeps readers waiting. If `published` is the path of the published copy, each commit of a
    DuckDB file replaces the copy, and each commit updates the Parquet files beside it. `connection_config` has
    DuckDB's own options, such as `memory_limit`.
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
        self.lake_data = lake_data
        self.schema = schema
        self.lock_wait_seconds = lock_wait_seconds
        self.published = published
        self.connection_config = dict(connection_config or {})
        self._engine = self._choose_engine()

    @property
    def path(self) -> Path:
        """The path of the DuckDB file; other engines have none."""
        if not isinstance(self.place, Path):
            raise TypeError(f"{self.name} is not a file")
        return self.place

    @property
    def is_file(self) -> bool:
        """Whether the warehouse is a DuckDB file."""
        return isinstance(self.place, Path)

    @property
    def name(self) -> str:
        """How messages name the warehouse. Never contains a password."""
        return self._engine.name

    @property
    def identity(self) -> object:
        """What the place is, however it is spelled: equal for two names of one place. Raises WarehouseError."""
        return self._engine.identity

    @property
    def exists(self) -> bool:
        """Whether the file or the lake exists: the first write creates it. Raises WarehouseError."""
        return self._engine.exists

    def check(self) -> None:
        """Raise WarehouseError or StoreError if the engine, or the store of the published copy, cannot be used."""
        self._engine.check()
        if isinstance(self.published, str):
            from orpipeline.stores import require_writable

            require_writable(self.published.rpartition("/")[0], setting="ORPIPELINE_REPORTS")

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Open the tables as they are at one moment, for reading. If there is no warehouse yet, they are empty.

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
        """Lock the warehouse and open the tables for one transaction: commit at the end, roll back on any error.

        Until then no other process can write, so the rows that you read do not change before the commit.
        Raises WarehouseBusyError, NewerLayoutError, DamagedWarehouseError or WarehouseError. A copy that cannot be
        published is a warning in the log, because the tables are committed by then.
        """
        with self._locked() as (connection, require_locked):
            with _transaction(connection, require_locked):
                tables = self._tables(connection)
                yield tables
                tables.require_unique_keys()
            tables.require_unique_keys(committed=True)
            self._publish(connection, tables)
        self._upload(tables)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction: commit at the end, roll back on any error.

        Publishes a DuckDB file as `writing` does, but not the Parquet files, which have only the pipeline's tables.
        """
        with self._locked() as (connection, require_locked):
            with _transaction(connection, require_locked):
                yield connection
            self._publish(connection, None)
        self._upload(None)

    @contextmanager
    def copying(self, source: Warehouse, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction, as `transaction` does, with `source` beside it as the database `name`.

        `source` is read-only here, and nobody writes to it meanwhile. Raises its errors, too.
        """
        with source._engine.lock(), self._locked() as (connection, require_locked):
            try:
                source._engine.attach(connection, name)
            except duckdb.Error as error:
                raise source._engine.error(error) from error
            with _transaction(connection, require_locked):
                yield connection
            self._publish(connection, None)
        self._upload(None)

    def publish(self) -> None:
        """Publish the tables as they are now."""
        with self.writing():
            pass

    @contextmanager
    def locked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database as the only writer, without a transaction, for maintenance."""
        with self._locked() as (connection, _):
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

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view, as `Tables.read` does."""
        with self.reading() as tables:
            return tables.read(name, since=since, until=until)

    def days(self, name: str = "snapshots") -> list[date]:
        """Return the days that a table has, oldest first."""
        with self.reading() as tables:
            return tables.days(name)

    def _choose_engine(self) -> Engine:
        if isinstance(self.place, Path):
            return DuckDBFile(
                self.place,
                lock_wait_seconds=self.lock_wait_seconds,
                published=self.published,
                connection_config=self.connection_config,
            )
        if self.place.startswith("md:"):
            from orpipeline.warehouse.engines.motherduck import MotherDuck

            return MotherDuck(
                self.place, lock_wait_seconds=self.lock_wait_seconds, connection_config=self.connection_config
            )
        from orpipeline.warehouse.engines.ducklake import DuckLake

        if self.lake_data is None:
            raise WarehouseSetupError(f"The warehouse {self.place} needs `lake_data`: where the lake keeps its files.")
        return DuckLake(
            self.place,
            data=self.lake_data,
            lock_wait_seconds=self.lock_wait_seconds,
            connection_config=self.connection_config,
        )

    @contextmanager
    def _locked(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, RequireLocked]]:
        """Open the database for writing, as the only writer."""
        with self._engine.lock() as require_locked, self.connect() as connection:
            yield connection, require_locked

    def _publish(self, connection: duckdb.DuckDBPyConnection, tables: Tables | None) -> None:
        """Publish what is committed, while this process still has the lock: the newest commit is published last.

        A file is uploaded later, from its copy. A lake has no copy, so its Parquet files are uploaded under the lock,
        within the time limits of `open_store`: a store that does not answer delays other writers by some 20 s.
        """
        if self.published is None:
            return
        with self._as_warning(self.published):
            self._engine.publish(connection)
            if tables is not None and not tables.layout.is_empty and not self._is_uploaded_later:
                from orpipeline.warehouse.parquet import write_parquet  # pyarrow's part takes time to import

                write_parquet(
                    tables,
                    parquet_folder(self.published, self.schema),
                    mirror=True,
                    changed=tables.replaced,
                    known=tables.known,
                )

    @property
    def _is_uploaded_later(self) -> bool:
        return self.is_file and isinstance(self.published, str)

    def _upload(self, tables: Tables | None) -> None:
        """Upload the copy of a file and its Parquet files, without the lock: an upload can take minutes."""
        if not self.is_file or not isinstance(self.published, str):
            return
        from orpipeline.warehouse.publishing import upload

        with self._as_warning(self.published):
            upload(
                local_copy(self.path, self.published),
                self.published,
                schema=None if tables is None or tables.layout.is_empty else self.schema,
                changed=tables.replaced if tables else (),
                wait_seconds=self.lock_wait_seconds,
            )

    @contextmanager
    def _as_warning(self, published: Path | str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError, ArrowException, OrpipelineError) as error:
            where = published.parent if isinstance(published, Path) else published.rpartition("/")[0]
            disk = " If that fails, too, check the disk's space and the folder's permissions."
            check = disk if isinstance(published, Path) else ""
            _log.warning(
                "The tables are written, but not the published copy in %s: %s. Readers still see the copy of an "
                "earlier run; the next write publishes again.%s",
                where,
                str(error).rstrip("."),
                check,
            )

    def _tables(self, connection: duckdb.DuckDBPyConnection) -> Tables:
        tables = Tables(connection, self.schema)
        tables.layout.require_known_version()
        return tables


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection, require_locked: RequireLocked) -> Iterator[None]:
    connection.begin()
    try:
        yield
        require_locked()
        connection.commit()
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    # A failed transaction may have ended already; closing the connection ends it in any case.
    with suppress(duckdb.Error):
        connection.rollback()
