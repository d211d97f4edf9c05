"""An I/O manager on dagster-duckdb's, for assets that take and return frames.

It stores and loads polars, pandas and pyarrow frames by annotation, as dagster-duckdb's do (`key_prefix` or the
metadata `schema` names the schema, the metadata `partition_expr` the partition's column). Beyond that: a partition
is deleted and inserted in one transaction; columns are matched by name, and a column too many or too few is an
error; so is a value that the stored column's type would change, and a row outside the partition; an empty frame
empties the partition; any number of partitions is one write; the connection closes in any case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa

# Dagster has no public home for the parts that every database's I/O manager is made of; dagster-duckdb itself
# takes them from here.
from dagster._core.storage.db_io_manager import (
    DbIOManager,
    DbTypeHandler,
    TablePartitionDimension,
    TableSlice,
    static_where_clause,
)
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from pydantic import Field

from orpipeline.settings import LOCK_WAIT_SECONDS
from orpipeline.warehouse.database import Warehouse, WarehouseError
from orpipeline.warehouse.tables import full_name, quoted


class _WarehouseClient(DuckDbClient):
    """dagster-duckdb's client, with a whole write as one transaction."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.InputContext | dg.OutputContext, _table_slice: TableSlice
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        config = cast("dict[str, Any]", context.resource_config)
        warehouse = Warehouse(Path(config["database"]), lock_wait_seconds=config["lock_wait_seconds"])
        if isinstance(context, dg.OutputContext):
            with warehouse.transaction() as connection:
                yield connection
        else:
            with warehouse.connect(read_only=True) as connection:
                yield connection

    @staticmethod
    def ensure_schema_exists(
        _context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {full_name(connection, table_slice.schema)}")

    @staticmethod
    def delete_table_slice(
        _context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        if _columns(connection, table_slice):
            table = _table(connection, table_slice)
            connection.execute(f"DELETE FROM {table}{_where(table_slice)}").fetchall()  # noqa: S608 - quoted

    @staticmethod
    def get_select_statement(table_slice: TableSlice) -> str:
        # Dagster shows it to people; what is run names the catalog too.
        return _select(f"{quoted(table_slice.schema)}.{quoted(table_slice.table)}", table_slice)


class _FrameHandler(DbTypeHandler[Any]):
    """Stores and loads one kind of frame, through Arrow."""

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: Any,
        connection: duckdb.DuckDBPyConnection,
    ) -> Mapping[str, Any]:
        """Insert the frame's rows by column name; the partition's old rows are gone by now."""
        rows = self._to_arrow(obj)
        connection.register("incoming", rows)
        table = _table(connection, table_slice)
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM incoming LIMIT 0"  # noqa: S608 - quoted
        ).fetchall()
        _require_same_columns(table, _columns(connection, table_slice), rows.column_names)
        _require_rows_of_partition(connection, table, table_slice)
        _require_values_fit(connection, table)
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming").fetchall()  # noqa: S608 - quoted
        counted = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - quoted
        connection.unregister("incoming")
        counts = {"dagster/row_count": int(counted[0][0])}
        if context.has_asset_partitions:
            counts["dagster/partition_row_count"] = rows.num_rows
        columns = [
            dg.TableColumn(name, str(kind)) for name, kind in zip(rows.column_names, rows.schema.types, strict=True)
        ]
        return {**counts, "dagster/column_schema": dg.TableSchema(columns)}

    def load_input(
        self,
        _context: dg.InputContext,
        table_slice: TableSlice,
        connection: duckdb.DuckDBPyConnection,
    ) -> Any:
        """Read the partitions' rows; without partitions to read, none of them."""
        query = _select(_table(connection, table_slice), table_slice)
        return self._from_arrow(connection.sql(query).to_arrow_table())

    def _to_arrow(self, frame: Any) -> pa.Table:
        raise NotImplementedError

    def _from_arrow(self, table: pa.Table) -> Any:
        raise NotImplementedError


class PolarsHandler(_FrameHandler):
    """`polars.DataFrame`."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The one type."""
        return [pl.DataFrame]

    def _to_arrow(self, frame: pl.DataFrame) -> pa.Table:
        return frame.to_arrow()

    def _from_arrow(self, table: pa.Table) -> pl.DataFrame:
        return pl.DataFrame(pl.from_arrow(table))


class ArrowHandler(_FrameHandler):
    """`pyarrow.Table`."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The one type."""
        return [pa.Table]

    def _to_arrow(self, frame: pa.Table) -> pa.Table:
        return frame

    def _from_arrow(self, table: pa.Table) -> pa.Table:
        return table


class PandasHandler(_FrameHandler):
    """`pandas.DataFrame`. An index is not stored, as with dagster-duckdb-pandas."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The one type."""
        return [sys.modules["pandas"].DataFrame]

    def _to_arrow(self, frame: Any) -> pa.Table:
        return pa.Table.from_pandas(frame, preserve_index=False)

    def _from_arrow(self, table: pa.Table) -> Any:
        return table.to_pandas()


class WarehouseIOManager(DuckDBIOManager):
    """Stores what assets return in the warehouse's DuckDB file, and loads it for those downstream.

    Without an annotation, an input is loaded as a polars frame.
    """

    lock_wait_seconds: float = Field(
        default=LOCK_WAIT_SECONDS, description="How long to wait for another process that holds the file."
    )

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """Return the handlers of polars, pyarrow, and pandas where the code location has imported it."""
        # Importing pandas takes longer than all of a day's work: who annotates with it has imported it.
        pandas = [PandasHandler()] if "pandas" in sys.modules else []
        return [PolarsHandler(), ArrowHandler(), *pandas]

    @staticmethod
    def default_load_type() -> type | None:
        """Return what an input without an annotation is loaded as."""
        return pl.DataFrame

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:  # noqa: ARG002 - dagster-duckdb's signature
        """Return dagster's I/O manager for databases, with our client."""
        return DbIOManager(
            db_client=_WarehouseClient(),
            database=self.database,
            schema=self.schema_,
            type_handlers=self.type_handlers(),
            default_load_type=self.default_load_type(),
            io_manager_name=type(self).__name__,
        )


def _require_same_columns(table: str, stored: Sequence[str], incoming: Sequence[str]) -> None:
    lacking, extra = sorted(set(stored) - set(incoming)), sorted(set(incoming) - set(stored))
    if lacking or extra:
        raise WarehouseError(
            f"The frame for {table} does not have the table's columns: it lacks {lacking}, and has {extra} beyond "
            "them. Nothing was written. Change the frame, or drop the table and materialize all partitions again."
        )


def _require_rows_of_partition(connection: duckdb.DuckDBPyConnection, table: str, table_slice: TableSlice) -> None:
    condition = _condition(table_slice)
    if not condition:
        return
    strays = connection.execute(
        f"SELECT count(*) FROM incoming WHERE NOT coalesce(({condition}), false)"  # noqa: S608 - quoted
    ).fetchall()
    if strays[0][0]:
        raise WarehouseError(
            f"{strays[0][0]} rows of the frame for {table} are outside the partition that is written ({condition}). "
            "Nothing was written. Return the partition's rows only."
        )


def _require_values_fit(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    # An INSERT rounds 0.25 to 0 for a column of integers, and says nothing.
    stored = _types(connection, table)
    for column, kind in _types(connection, "incoming").items():
        if kind == stored[column]:
            continue
        name = quoted(column)
        changed = connection.execute(
            f"SELECT count(*) FROM incoming WHERE CAST(CAST({name} AS {stored[column]}) AS {kind}) "  # noqa: S608 - quoted
            f"IS DISTINCT FROM {name}"
        ).fetchall()
        if changed[0][0]:
            raise WarehouseError(
                f"Column {column} of {table} is {stored[column]}, which would change {changed[0][0]} values of the "
                f"frame's {kind}. Nothing was written. Cast the frame's column, or drop the table and materialize all "
                "partitions again."
            )


def _types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    return {name: kind for name, kind, *_ in described}


def _columns(connection: duckdb.DuckDBPyConnection, table_slice: TableSlice) -> list[str]:
    rows = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE schema_name = ? AND table_name = ? "
        "AND database_name = current_database()",
        [table_slice.schema, table_slice.table],
    ).fetchall()
    return [name for (name,) in rows]


def _table(connection: duckdb.DuckDBPyConnection, table_slice: TableSlice) -> str:
    return full_name(connection, table_slice.schema, table_slice.table)


def _select(table: str, table_slice: TableSlice) -> str:
    columns = ", ".join(map(quoted, table_slice.columns)) if table_slice.columns else "*"
    return f"SELECT {columns} FROM {table}{_where(table_slice)}"  # noqa: S608 - quoted


def _where(table_slice: TableSlice) -> str:
    condition = _condition(table_slice)
    return f" WHERE {condition}" if condition else ""


def _condition(table_slice: TableSlice) -> str:
    return " AND ".join(f"({_in_partition(d)})" for d in table_slice.partition_dimensions or [])


def _in_partition(dimension: TablePartitionDimension) -> str:
    if isinstance(dimension.partitions, dg.TimeWindow):
        start, end = dimension.partitions
        return (
            f"{dimension.partition_expr} >= TIMESTAMP '{start:%Y-%m-%d %H:%M:%S}' AND "
            f"{dimension.partition_expr} < TIMESTAMP '{end:%Y-%m-%d %H:%M:%S}'"
        )
    return static_where_clause(dimension) if dimension.partitions else "false"
