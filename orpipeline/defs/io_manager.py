"""An I/O manager for your own assets that take and return frames, based on dagster-duckdb's.

It stores and loads polars, pandas and pyarrow frames by annotation, as dagster-duckdb's I/O managers do. `key_prefix`
or the metadata `schema` names the schema, and the metadata `partition_expr` the partition's column. It also

- deletes and inserts a partition in one transaction, and any number of partitions in one write;
- matches columns by name, and rejects missing and extra ones;
- rejects rows outside the partition, values that the stored type would change, and what it could not load again;
- compares instants with the partition's instants, and times without a zone with its local times;
- empties the partition if the frame is empty, whatever its columns are;
- stores a column without any value as text, which takes the type of the first values;
- raises MissingDaysError for a day that one of the pipeline's tables lacks, unless the input's metadata allows it;
- closes the connection in any case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from typing import Any, cast

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa

# Dagster has no public name for these parts of a database's I/O manager; dagster-duckdb imports them from here, too.
from dagster._core.storage.db_io_manager import (
    DbIOManager,
    DbTypeHandler,
    TableSlice,
    static_where_clause,
)
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from pydantic import ConfigDict, Field

from orpipeline.clock import day_spans
from orpipeline.contracts.tables import RELATIONS
from orpipeline.errors import MissingDaysError, SettingsError, WarehouseError
from orpipeline.settings import LOCK_WAIT_SECONDS, StorePlace, WarehousePlace, place
from orpipeline.warehouse.schema import DEFAULT_SCHEMA, quoted
from orpipeline.warehouse.tables import Tables, full_name
from orpipeline.warehouse.warehouse import Warehouse

MISSING_DAYS = "orpipeline/missing_days"
LAKE_DATA: Any = Field(default=None, description="Where a DuckLake keeps its files: a folder, or an object store.")
LOCK_WAIT: Any = Field(
    default=LOCK_WAIT_SECONDS, description="How long to wait for another process that has locked the warehouse."
)
PUBLISHED: Any = Field(
    default=None,
    description="The published copy, which each write replaces: a DuckDB file's path or URL. None by default.",
)
_FAR = 3 * 366  # days and partitions: farther than any offset looks back or ahead


def configured_warehouse(config: Mapping[str, Any], schema: str = DEFAULT_SCHEMA) -> Warehouse:
    """Return the warehouse that the configuration of a resource or an I/O manager describes. Raises SettingsError."""
    return Warehouse(
        place("database", config["database"], WarehousePlace),
        lake_data=place("lake_data", config["lake_data"], StorePlace) if config["lake_data"] else None,
        schema=schema,
        lock_wait_seconds=config["lock_wait_seconds"],
        published=place("published", config["published"], StorePlace) if config["published"] else None,
        connection_config=config["connection_config"],
    )


class WarehouseIOManager(DuckDBIOManager):
    """Stores the frames that assets return in the warehouse, and loads them for downstream assets.

    `database` is a DuckDB file, or a lake as `Settings.warehouse` names it, which keeps its files in `lake_data`. An
    input without an annotation is loaded as a polars frame.

        >>> import dagster as dg
        >>> import orpipeline
        >>> shop = orpipeline.WarehouseIOManager(database="/srv/shop/shop.duckdb")
        >>> defs = dg.Definitions(resources={"io_manager": shop})

    With the metadata `{"orpipeline/missing_days": "allow"}`, an input loads the days that exist, and days that our
    tables lack raise no error. An input without partitions does so anyway, with a warning that names lost days.
    """

    model_config = ConfigDict(extra="forbid")

    lake_data: str | None = LAKE_DATA
    lock_wait_seconds: float = LOCK_WAIT
    published: str | None = PUBLISHED

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """Return the handlers of polars and pyarrow, and that of pandas if the code location has imported pandas."""
        handlers = [
            _FrameHandler(pl.DataFrame, _of_polars, lambda rows: pl.DataFrame(pl.from_arrow(rows))),
            _FrameHandler(pa.Table, lambda rows: rows, lambda rows: rows),
        ]
        # Importing pandas takes longer than a whole day's run. Code that annotates with pandas has imported it.
        if "pandas" in sys.modules:
            frame_type = sys.modules["pandas"].DataFrame
            to_arrow = lambda frame: pa.Table.from_pandas(frame, preserve_index=False)  # noqa: E731 - one of three alike
            handlers.append(_FrameHandler(frame_type, to_arrow, lambda rows: rows.to_pandas()))
        return handlers

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


class _WarehouseClient(DuckDbClient):
    """dagster-duckdb's client, with one transaction for a whole write."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.InputContext | dg.OutputContext, table_slice: TableSlice
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        warehouse = configured_warehouse(cast("dict[str, Any]", context.resource_config))
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
            table = full_name(connection, table_slice.schema, table_slice.table)
            connection.execute(f"DELETE FROM {table}{_where(table_slice, connection, table)}").fetchall()  # noqa: S608 - quoted

    @staticmethod
    def get_select_statement(table_slice: TableSlice) -> str:
        # Dagster shows this query to people. The queries that run also name the catalog.
        return _select(f"{quoted(table_slice.schema)}.{quoted(table_slice.table)}", table_slice, None)


class _FrameHandler(DbTypeHandler[Any]):
    """Stores and loads one kind of frame, through Arrow."""

    def __init__(
        self, frame_type: type, to_arrow: Callable[[Any], pa.Table], from_arrow: Callable[[pa.Table], Any]
    ) -> None:
        self._frame_type, self._to_arrow, self._from_arrow = frame_type, to_arrow, from_arrow

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The type of frame that this handler stores and loads."""
        return [self._frame_type]

    def handle_output(
        self, context: dg.OutputContext, table_slice: TableSlice, obj: Any, connection: duckdb.DuckDBPyConnection
    ) -> Mapping[str, Any]:
        """Insert the frame's rows by column name. Dagster has deleted the partition's old rows before."""
        table = full_name(connection, table_slice.schema, table_slice.table)
        try:
            rows = _storable(self._to_arrow(obj))
            if rows.num_columns:
                connection.register("incoming", rows)
                self._from_arrow(connection.sql("FROM incoming LIMIT 0").to_arrow_table())
        except (duckdb.Error, pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise WarehouseError(
                f"The frame for {table} cannot be stored and loaded again: {why}. Nothing was written. Convert the "
                "column to numbers, text, times, or lists and structs of these."
            ) from error
        if rows.num_columns and not _columns(connection, table_slice):
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming LIMIT 0").fetchall()  # noqa: S608 - quoted
        if rows.num_rows:
            _require_same_columns(table, _columns(connection, table_slice), rows.column_names)
            _require_rows_of_partition(connection, table, table_slice)
            _give_types(connection, table)
            _require_values_fit(connection, table)
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming").fetchall()  # noqa: S608 - quoted
        if rows.num_columns:
            connection.unregister("incoming")
        count = f"SELECT count(*) FROM {table}"  # noqa: S608 - quoted
        counted = connection.execute(count).fetchall() if _columns(connection, table_slice) else [(0,)]
        columns = [
            dg.TableColumn(name, str(kind)) for name, kind in zip(rows.column_names, rows.schema.types, strict=True)
        ]
        partition = {"dagster/partition_row_count": rows.num_rows} if context.has_asset_partitions else {}
        return {
            "dagster/row_count": int(counted[0][0]),
            "dagster/column_schema": dg.TableSchema(columns),
            **partition,
        }

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> Any:
        """Return the rows of the partitions to read; none if there are no such partitions."""
        if not _columns(connection, table_slice):
            raise _no_table(context, table_slice)
        if _is_ours(connection, table_slice):
            _require_days(context, table_slice, Tables(connection, table_slice.schema).days())
        query = _select(full_name(connection, table_slice.schema, table_slice.table), table_slice, connection)
        return self._from_arrow(connection.sql(query).to_arrow_table())


# Days that the pipeline's tables lack


def _require_days(context: dg.InputContext, table_slice: TableSlice, stored: Sequence[date]) -> None:
    """Raise MissingDaysError if one of our tables lacks a day that the input asks for, unless its metadata allows it.

    An input of an asset without partitions asks for all history: it loads what exists, and lost days are a warning.
    """
    choice = context.definition_metadata.get(MISSING_DAYS, "fail")
    if choice not in ("fail", "allow"):
        raise SettingsError(f'The input metadata "{MISSING_DAYS}" is {choice!r}; write "fail" or "allow".')
    wanted = _requested_days(context, table_slice)
    between = set(_days(stored[0], stored[-1] + timedelta(days=1))) if stored else set()
    missing = sorted((between if wanted is None else set(wanted)).difference(stored))
    if not missing and stored:
        return
    table = f"{table_slice.schema}.{table_slice.table}"
    lacks = f"{table} lacks {len(missing)} {'day' if len(missing) == 1 else 'days'}: {', '.join(day_spans(missing))}"
    if not stored:
        lacks = f"{table} has no day yet"
    if wanted is None or choice == "allow":
        context.log.warning(f"{lacks}. {'The other days are loaded' if stored else 'No row is loaded'}.")
        return
    raise MissingDaysError(
        f"{lacks}. Run or import the days first, if the archive or a backup has them. To load only days that exist, "
        f'set the metadata {{"{MISSING_DAYS}": "allow"}} on the input.',
        days=missing,
    )


def _requested_days(context: dg.InputContext, table_slice: TableSlice) -> list[date] | None:
    """Return the days that an input asks for, oldest first; None for all history.

    Dagster leaves out days before the first and after the newest partition, which an offset or a longer window also
    asks for, so the step's partitions are mapped once more, without bounds.
    """
    windows = [dimension.partitions for dimension in table_slice.partition_dimensions or ()]
    loaded = _days_of(windows[0]) if windows and isinstance(windows[0], dg.TimeWindow) else []
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:  # `load_asset_value` loads an input without a run
        return loaded if len(loaded) == 1 else None
    consumer = step.job_def.asset_layer.get_assets_def_for_node(step.node_handle)
    if consumer is None or consumer.partitions_def is None:
        return None
    mapping = consumer.get_partition_mapping_for_dep(context.asset_key) or dg.TimeWindowPartitionMapping()
    theirs, ours = consumer.partitions_def, context.asset_partitions_def
    if not (
        isinstance(mapping, dg.TimeWindowPartitionMapping)
        and isinstance(theirs, dg.TimeWindowPartitionsDefinition)
        and isinstance(ours, dg.TimeWindowPartitionsDefinition)
    ):
        return loaded
    theirs, ours = _unbounded(theirs), _unbounded(ours)
    partitions = theirs.subset_with_partition_keys(theirs.get_partition_keys_in_range(step.partition_key_range))
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(partitions, theirs, ours)
    keys = mapped.partitions_subset.get_partition_keys()
    return sorted(day for key in keys for day in _days_of(ours.time_window_for_partition_key(key)))


def _unbounded(partitions: dg.TimeWindowPartitionsDefinition) -> dg.TimeWindowPartitionsDefinition:
    """Return the same partitions, but from years earlier to years later."""
    return dg.TimeWindowPartitionsDefinition(
        start=partitions.start - timedelta(days=_FAR),
        timezone=partitions.timezone,
        fmt=partitions.fmt,
        cron_schedule=partitions.cron_schedule,
        exclusions=partitions.exclusions,
        end_offset=partitions.end_offset + _FAR,
    )


def _days_of(window: dg.TimeWindow) -> list[date]:
    """Return the days of a time window; of a window shorter than a day, the day that it is in."""
    first, end = window.start.date(), window.end.date()
    return _days(first, max(end, first + timedelta(days=1)))


def _days(first: date, end: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((end - first).days)]


def _no_table(context: dg.InputContext, table_slice: TableSlice) -> MissingDaysError:
    """Return the error for a table that does not exist, with the days that were to be loaded."""
    window = next((dimension.partitions for dimension in table_slice.partition_dimensions or []), None)
    days = _days_of(window) if isinstance(window, dg.TimeWindow) else []
    lacks = f", so it lacks {', '.join(day_spans(days))}" if days else ""
    return MissingDaysError(
        f"The table {table_slice.schema}.{table_slice.table} does not exist in {table_slice.database} yet{lacks}. "
        f"Materialize {context.asset_key.to_user_string()} first.",
        days=days,
    )


# What a frame must be like


def _of_polars(frame: pl.DataFrame) -> pa.Table:
    if pl.Object in frame.dtypes:  # polars would write addresses in memory
        raise TypeError(f"column {frame.columns[frame.dtypes.index(pl.Object())]} has Python objects")
    return frame.to_arrow()


def _storable(rows: pa.Table) -> pa.Table:
    """Return rows with a type for each column: categories as their values, and text where there is no value.

    Raises ValueError for two columns of one name, which DuckDB compares without case.
    """
    names = [name.casefold() for name in rows.column_names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two columns have the name {', '.join(repeated)}")
    for number, field in enumerate(rows.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = pa.string() if pa.types.is_null(kind) else kind
        if pa.types.is_duration(kind) or pa.types.is_interval(kind):
            raise ValueError(f"column {field.name} has durations, which DuckDB does not return as they are")
        if kind != field.type:
            rows = rows.set_column(number, field.name, rows.column(number).cast(kind))
    return rows


def _give_types(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Give each stored column of text without any value the type of the frame's values."""
    stored = _types(connection, table)
    for column, kind in _types(connection, "incoming").items():
        if kind != stored[column] == "VARCHAR":
            name, old = quoted(column), quoted(f"{column} without values")
            counted = f"SELECT (SELECT count({name}) FROM {table}), count({name}) FROM incoming"  # noqa: S608 - quoted
            ((there, incoming),) = connection.execute(counted).fetchall()
            if incoming and not there:
                # DuckLake cannot change the type of a column.
                for change in (f"RENAME {name} TO {old}", f"ADD COLUMN {name} {kind}", f"DROP COLUMN {old}"):
                    connection.execute(f"ALTER TABLE {table} {change}").fetchall()


def _require_same_columns(table: str, stored: Sequence[str], incoming: Sequence[str]) -> None:
    missing, extra = sorted(set(stored) - set(incoming)), sorted(set(incoming) - set(stored))
    if missing or extra:
        raise WarehouseError(
            f"The frame for {table} does not have the table's columns. Missing: {missing}; extra: {extra}. Nothing was "
            "written. Change the frame, or drop the table and materialize all partitions again."
        )


def _require_rows_of_partition(connection: duckdb.DuckDBPyConnection, table: str, table_slice: TableSlice) -> None:
    condition = _condition(table_slice, connection, "incoming")
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


# SQL


def _is_ours(connection: duckdb.DuckDBPyConnection, table_slice: TableSlice) -> bool:
    """Return whether a table or view is one of the pipeline's."""
    return table_slice.table in RELATIONS and table_slice.table in Tables(connection, table_slice.schema).ours


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


def _select(table: str, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection | None) -> str:
    columns = ", ".join(map(quoted, table_slice.columns)) if table_slice.columns else "*"
    return f"SELECT {columns} FROM {table}{_where(table_slice, connection, table)}"  # noqa: S608 - quoted


def _where(table_slice: TableSlice, connection: duckdb.DuckDBPyConnection | None, table: str) -> str:
    condition = _condition(table_slice, connection, table)
    return f" WHERE {condition}" if condition else ""


def _condition(table_slice: TableSlice, connection: duckdb.DuckDBPyConnection | None, table: str) -> str:
    """Return the condition of a partition's rows in a table, or in a frame. Without a connection, times are local."""
    conditions = []
    for dimension in table_slice.partition_dimensions or []:
        if isinstance(dimension.partitions, dg.TimeWindow):
            described = f"DESCRIBE SELECT {dimension.partition_expr} FROM {table}"  # noqa: S608 - quoted; yours
            kind = connection.execute(described).fetchall()[0][1] if connection is not None else ""
            conditions.append(_in_window(str(dimension.partition_expr), dimension.partitions, kind))
        else:
            conditions.append(static_where_clause(dimension) if dimension.partitions else "false")
    return " AND ".join(f"({condition})" for condition in conditions)


def _in_window(expression: str, window: dg.TimeWindow, kind: str) -> str:
    """Return the condition of a time window: instants are compared with its instants, and other times with local ones.

    Raises WarehouseError where local times cannot tell two partitions apart.
    """
    if kind == "TIMESTAMP WITH TIME ZONE":
        start, end = (f"TIMESTAMPTZ '{one.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00'" for one in window)
    else:
        start, end = (f"TIMESTAMP '{one:%Y-%m-%d %H:%M:%S}'" for one in window)
        if kind and start >= end:
            raise WarehouseError(
                f"The partition from {window.start} to {window.end} has the same local times as the next one, because "
                f"the clock is set back. Store {expression} as an instant: a timestamp with a time zone."
            )
    return f"{expression} >= {start} AND {expression} < {end}"
