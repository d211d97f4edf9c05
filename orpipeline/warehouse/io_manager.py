"""An I/O manager for your own assets that take and return frames, based on dagster-duckdb's.

It stores and loads polars, pandas and pyarrow frames by annotation, as dagster-duckdb's I/O managers do. `key_prefix`
or the metadata `schema` names the schema, and the metadata `partition_expr` the partition's column. It also

- deletes and inserts a partition in one transaction, and any number of partitions in one write;
- matches columns by name, and rejects missing and extra ones;
- rejects values that the stored column's type would change, and rows outside the partition;
- empties the partition if the frame is empty;
- raises MissingDaysError for a day that one of the pipeline's tables lacks, unless the input's metadata allows it;
- does not record a partition as materialized if it has no rows because the inputs lack its days;
- closes the connection in any case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any, cast

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa

# Dagster has no public name for these parts of a database's I/O manager; dagster-duckdb imports them from here, too.
from dagster._core.storage.db_io_manager import (
    DbIOManager,
    DbTypeHandler,
    TablePartitionDimension,
    TableSlice,
    static_where_clause,
)
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from pydantic import ConfigDict, Field

from orpipeline.contracts.tables import RELATIONS
from orpipeline.days import day_spans
from orpipeline.settings import LOCK_WAIT_SECONDS, store_place, warehouse_place
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import MissingDaysError, WarehouseError
from orpipeline.warehouse.holes import Holes, dimensions
from orpipeline.warehouse.layout import Layout, full_name, quoted
from orpipeline.warehouse.missing_days import MissingDays
from orpipeline.warehouse.requested import days_of, is_in_a_step, requested_days
from orpipeline.warehouse.tables import Tables


class _WarehouseClient(DuckDbClient):
    """dagster-duckdb's client, with one transaction for a whole write."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.InputContext | dg.OutputContext, table_slice: TableSlice
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        config = cast("dict[str, Any]", context.resource_config)
        warehouse = Warehouse(
            warehouse_place("database", config["database"]),
            lake_data=store_place("lake_data", config["lake_data"]) if config["lake_data"] else None,
            lock_wait_seconds=config["lock_wait_seconds"],
            published=store_place("published", config["published"]) if config["published"] else None,
            connection_config=config["connection_config"],
        )
        if isinstance(context, dg.OutputContext):
            with warehouse.transaction() as connection:
                yield connection
        elif warehouse.exists:
            with warehouse.connect(read_only=True) as connection:
                yield connection
        else:
            raise _no_table(context, table_slice)

    @staticmethod
    def ensure_schema_exists(
        _context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        if _is_ours(connection, table_slice):
            raise WarehouseError(
                f"{table_slice.schema}.{table_slice.table} is a table of the pipeline, which only its own step writes. "
                "Nothing was written. Give your asset another name or schema."
            )
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
        # Dagster shows this query to people. The queries that run also name the catalog.
        return _select(f"{quoted(table_slice.schema)}.{quoted(table_slice.table)}", table_slice)


class _FrameHandler(DbTypeHandler[Any]):
    """Stores and loads one kind of frame, through Arrow. All kinds of an I/O manager share its `holes`."""

    def __init__(self, holes: Holes) -> None:
        self._holes = holes

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: Any,
        connection: duckdb.DuckDBPyConnection,
    ) -> Mapping[str, Any]:
        """Insert the frame's rows by column name. Dagster has deleted the partition's old rows before."""
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
        metadata: dict[str, Any] = {"dagster/row_count": int(counted[0][0])}
        if context.has_asset_partitions:
            metadata["dagster/partition_row_count"] = rows.num_rows
            left_out = self._holes.leave_out(
                context, partial(_has_rows, connection, table_slice, context.asset_partitions_def)
            )
            if left_out:
                context.log.warning(f"Not materialized, because the inputs lack these days: {', '.join(left_out)}")
                metadata["missing_days"] = left_out
        connection.unregister("incoming")
        columns = [
            dg.TableColumn(name, str(kind)) for name, kind in zip(rows.column_names, rows.schema.types, strict=True)
        ]
        return {**metadata, "dagster/column_schema": dg.TableSchema(columns)}

    def load_input(
        self,
        context: dg.InputContext,
        table_slice: TableSlice,
        connection: duckdb.DuckDBPyConnection,
    ) -> Any:
        """Return the rows of the partitions to read; none if there are no such partitions.

        Raises MissingDaysError if one of the pipeline's tables lacks a day, and the input's metadata does not allow it.
        """
        if not _columns(connection, table_slice):
            raise _no_table(context, table_slice)
        missing = _missing_days(context, table_slice, connection)
        if missing and is_in_a_step(context):
            self._holes.add(context, missing)
        query = _select(_table(connection, table_slice), table_slice)
        return self._from_arrow(connection.sql(query).to_arrow_table())

    def _to_arrow(self, frame: Any) -> pa.Table:
        raise NotImplementedError

    def _from_arrow(self, rows: pa.Table) -> Any:
        raise NotImplementedError


class PolarsHandler(_FrameHandler):
    """Stores and loads `polars.DataFrame`."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The type of frame that this handler stores and loads."""
        return [pl.DataFrame]

    def _to_arrow(self, frame: pl.DataFrame) -> pa.Table:
        return frame.to_arrow()

    def _from_arrow(self, rows: pa.Table) -> pl.DataFrame:
        return pl.DataFrame(pl.from_arrow(rows))


class ArrowHandler(_FrameHandler):
    """Stores and loads `pyarrow.Table`."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The type of frame that this handler stores and loads."""
        return [pa.Table]

    def _to_arrow(self, frame: pa.Table) -> pa.Table:
        return frame

    def _from_arrow(self, rows: pa.Table) -> pa.Table:
        return rows


class PandasHandler(_FrameHandler):
    """Stores and loads `pandas.DataFrame`, without its index, as dagster-duckdb-pandas does."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The type of frame that this handler stores and loads."""
        return [sys.modules["pandas"].DataFrame]

    def _to_arrow(self, frame: Any) -> pa.Table:
        return pa.Table.from_pandas(frame, preserve_index=False)

    def _from_arrow(self, rows: pa.Table) -> Any:
        return rows.to_pandas()


class WarehouseIOManager(DuckDBIOManager):
    """Stores the frames that assets return in the warehouse, and loads them for downstream assets.

    `database` is a DuckDB file, or a lake as `Settings.warehouse` names it, which keeps its files in `lake_data`. An
    input without an annotation is loaded as a polars frame.

        >>> import dagster as dg
        >>> import orpipeline
        >>> shop = orpipeline.WarehouseIOManager(database="/srv/shop/shop.duckdb")
        >>> defs = dg.Definitions(resources={"io_manager": shop})
    """

    model_config = ConfigDict(extra="forbid")

    lake_data: str | None = Field(
        default=None, description="Where a DuckLake keeps its files: a folder, or an object store."
    )
    lock_wait_seconds: float = Field(
        default=LOCK_WAIT_SECONDS, description="How long to wait for another process that has locked the warehouse."
    )
    published: str | None = Field(
        default=None,
        description="The published copy, which each write replaces: a DuckDB file's path or URL. None by default.",
    )

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """Return the handlers of polars and pyarrow, and that of pandas if the code location has imported pandas."""
        # Importing pandas takes longer than a whole day's run. Code that annotates with pandas has imported it.
        holes = Holes()
        pandas = [PandasHandler(holes)] if "pandas" in sys.modules else []
        return [PolarsHandler(holes), ArrowHandler(holes), *pandas]

    @staticmethod
    def default_load_type() -> type | None:
        """Return the type that an input without an annotation is loaded as."""
        return pl.DataFrame

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:  # noqa: ARG002 - dagster-duckdb's signature
        """Return Dagster's I/O manager for databases, with our client."""
        return DbIOManager(
            db_client=_WarehouseClient(),
            database=self.database,
            schema=self.schema_,
            type_handlers=self.type_handlers(),
            default_load_type=self.default_load_type(),
            io_manager_name=type(self).__name__,
        )


def _no_table(context: dg.InputContext, table_slice: TableSlice) -> MissingDaysError:
    """Return the error for a table that does not exist, with the days that were to be loaded."""
    window = next((dimension.partitions for dimension in table_slice.partition_dimensions or []), None)
    days = days_of(window) if isinstance(window, dg.TimeWindow) else []
    lacks = f", so it lacks {', '.join(day_spans(days))}" if days else ""
    return MissingDaysError(
        f"The table {table_slice.schema}.{table_slice.table} does not exist in {table_slice.database} yet{lacks}. "
        f"Materialize {context.asset_key.to_user_string()} first.",
        days=days,
    )


def _missing_days(
    context: dg.InputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
) -> list[date]:
    """Return the days to load that a table lacks. Raises MissingDaysError if it is ours and that is not allowed."""
    if len(table_slice.partition_dimensions or []) != 1:
        return []
    window = (table_slice.partition_dimensions or [])[0].partitions
    with_partition = days_of(window) if isinstance(window, dg.TimeWindow) else []
    if not _is_ours(connection, table_slice):
        return _not_materialized(context, with_partition)
    stored = Tables(connection, table_slice.schema).days()
    choice = MissingDays.from_metadata(context.definition_metadata)
    wanted = requested_days(context, with_partition, stored)
    return choice.check(f"{table_slice.schema}.{table_slice.table}", wanted, stored)


def _is_ours(connection: duckdb.DuckDBPyConnection, table_slice: TableSlice) -> bool:
    """Return whether a table or view is one of the pipeline's."""
    return table_slice.table in RELATIONS and Layout(connection, table_slice.schema).has(table_slice.table)


def _not_materialized(context: dg.InputContext, wanted: Sequence[date]) -> list[date]:
    """Return the days of a table of yours of which no partition is materialized, if Dagster knows any that are."""
    known = context.instance.get_materialized_partitions(context.asset_key)
    definition = context.asset_partitions_def
    if not known or not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return []
    keys = known.intersection(context.asset_partition_keys)
    materialized = {day for key in keys for day in days_of(definition.time_window_for_partition_key(key))}
    return [day for day in wanted if day not in materialized]


def _has_rows(
    connection: duckdb.DuckDBPyConnection,
    table_slice: TableSlice,
    definition: dg.PartitionsDefinition[Any],
    key: str,
) -> bool:
    """Return whether the frame that was just stored has rows of a partition."""
    expressions = [dimension.partition_expr for dimension in table_slice.partition_dimensions or []]
    conditions = [
        _in_partition(TablePartitionDimension(expression, part.window or [part.key]))
        for expression, part in zip(expressions, dimensions(definition, key), strict=True)
    ]
    condition = " AND ".join(f"({one})" for one in conditions)
    return bool(connection.execute(f"SELECT 1 FROM incoming WHERE {condition} LIMIT 1").fetchall())  # noqa: S608 - Dagster's


def _require_same_columns(table: str, stored: Sequence[str], incoming: Sequence[str]) -> None:
    missing, extra = sorted(set(stored) - set(incoming)), sorted(set(incoming) - set(stored))
    if missing or extra:
        raise WarehouseError(
            f"The frame for {table} does not have the table's columns. Missing: {missing}; extra: {extra}. Nothing was "
            "written. Change the frame, or drop the table and materialize all partitions again."
        )


def _require_rows_of_partition(connection: duckdb.DuckDBPyConnection, table: str, table_slice: TableSlice) -> None:
    condition = _condition(table_slice)
    if not condition:
        return
    outside = connection.execute(
        f"SELECT count(*) FROM incoming WHERE NOT coalesce(({condition}), false)"  # noqa: S608 - quoted
    ).fetchall()
    if outside[0][0]:
        raise WarehouseError(
            f"{outside[0][0]} rows of the frame for {table} are outside the partition ({condition}). Nothing was "
            "written. Return only rows of the partition."
        )


def _require_values_fit(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    # INSERT silently rounds 0.25 to 0 for a column of integers.
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
