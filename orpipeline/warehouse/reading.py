"""Reading the tables from the published copy, or from a lake: it blocks no run and is blocked by none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl

from orpipeline.clock import as_day
from orpipeline.contracts.tables import RELATIONS
from orpipeline.errors import NotPublishedError, SettingsError, WarehouseError
from orpipeline.settings import Settings, used_settings
from orpipeline.warehouse.duckdb_file import reason
from orpipeline.warehouse.publishing import store_of
from orpipeline.warehouse.schema import DEFAULT_SCHEMA, REGISTER, literal, quoted, quoted_names
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse, open_warehouse

_NAMES_SQL = f"""
SELECT schema || '.' || name FROM (SHOW ALL TABLES)
WHERE database = current_database() AND name != '{REGISTER}' ORDER BY 1
"""  # noqa: S608 - our own constant


def read(
    table: str,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    scope: str | None = None,
    settings: Settings | None = None,
) -> pl.DataFrame:
    """Return the rows of a table or view from the published copy or the lake, as a polars frame.

        >>> import orpipeline
        >>> orpipeline.read("model_leaderboard", scope="code", since="2026-10-01").columns[:4]
        ['as_of', 'window_days', 'scope', 'model_id']

    A table of orpipeline has the columns and types of its contract, sorted by its key. You can also read your own
    tables in the warehouse. Days that are missing have no rows. The rows are those of the last write. Polars does not
    work in a forked process: start the processes of `multiprocessing` with `spawn`.

    Args:
        table: A name such as `model_leaderboard`, or with its schema, such as `public.authors`.
        since: The first day (`as_of`), as a date or `YYYY-MM-DD`. By default, the table's first day.
        until: The last day. By default, the table's last day.
        scope: `all` or the key of a macro-category, for tables that have the column `scope`. By default, all scopes.
        settings: Where the data is; by default from the environment.

    Raises:
        NotPublishedError: There is no published copy yet, or no lake.
        WarehouseError: There is no such table, column or scope, or the file or the lake cannot be read.
        SettingsError: A day is not a date, or the environment has an invalid setting.
    """
    conditions = [
        *(f"as_of::DATE >= {literal(str(day))}::DATE" for day in _days("since", since)),
        *(f"as_of::DATE <= {literal(str(day))}::DATE" for day in _days("until", until)),
        *(f"scope::VARCHAR = {literal(one)}" for one in (scope,) if one is not None),
    ]
    with connect_readable(open_warehouse(used_settings(settings))) as connection:
        connection.execute("SET python_enable_replacements = false")  # or a variable's name would be a table's
        try:
            # Not `connection.table`, with which DuckDB 1.5 finds no view in another schema.
            everything = connection.sql(f"FROM {'.'.join(map(quoted, table.split('.')))}")
        except duckdb.CatalogException as error:
            names = ", ".join(name for (name,) in connection.execute(_NAMES_SQL).fetchall())
            raise WarehouseError(f"There is no table or view {table}. These exist: {names or 'none'}.") from error
        model = RELATIONS.get(table.rpartition(".")[2].lower())
        is_ours = model is not None and everything.columns == list(model.columns())
        chosen = everything.filter(" AND ".join(conditions)) if conditions else everything
        if model is not None and is_ours:
            chosen = chosen.order(quoted_names(model.primary_key()))
        elif "as_of" in everything.columns:
            chosen = chosen.order("as_of")
        rows = pl.from_arrow(
            chosen.to_arrow_table(), schema_overrides=model.polars_schema() if model and is_ours else None
        )
        if scope is not None and not len(rows):
            scopes = [one for (one,) in everything.project("scope::VARCHAR").distinct().order("ALL").fetchall() if one]
            if scope not in scopes:
                raise WarehouseError(f"{table} has no scope {scope}. Its scopes are: {', '.join(scopes) or 'none'}.")
        return pl.DataFrame(rows)


@contextmanager
def readable_tables(warehouse: Warehouse) -> Iterator[Tables]:
    """Open a pipeline's tables in the published copy, or in the lake: no writer is waited for.

    A warehouse without a published copy is opened itself. Raises as `connect_readable` does.
    """
    if warehouse.published is None or (isinstance(warehouse.published, Path) and not warehouse.published.exists()):
        with warehouse.reading() as tables:
            yield tables
        return
    with connect_readable(warehouse) as connection:
        yield Tables(connection, warehouse.schema)


@contextmanager
def connect_readable(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the newest published copy, or the lake as it is at one moment, read-only.

    A name without a schema is that of orpipeline's table, if there is one. A process that has the file open already
    gets that older copy from `duckdb.connect`; here it does not. Raises NotPublishedError if there is nothing to read,
    WarehouseError or StoreError.
    """
    if not isinstance(warehouse.place, Path) or warehouse.published is None:
        if not warehouse.exists:
            raise NotPublishedError(
                f"There is no warehouse at {warehouse.name} yet. Use `orpipeline run`, or `orpipeline rebuild` if the "
                "archive has days already."
            )
        with warehouse.connect(read_only=True) as connection:
            connection.begin()  # later commits are not visible
            _find_ours_first(connection)
            yield connection
        return
    with TemporaryDirectory(prefix="orpipeline-") as folder, duckdb.connect(":memory:") as connection:
        try:
            _attach(connection, warehouse.published, Path(folder))
            _find_ours_first(connection)
            yield connection
        except (duckdb.Error, pl.exceptions.PolarsError, OSError) as error:
            why = reason(error)
            raise WarehouseError(f"The published copy {warehouse.published} cannot be read: {why}") from error


def _find_ours_first(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a name without a schema mean orpipeline's table, and only then one in `main`."""
    ((database,),) = connection.execute("SELECT current_database()").fetchall()
    with suppress(duckdb.CatalogException):  # there is no such schema
        path = f"{quoted(database)}.{DEFAULT_SCHEMA},{quoted(database)}.main"
        connection.execute(f"SET search_path = {literal(path)}")


def _attach(connection: duckdb.DuckDBPyConnection, published: Path | str, folder: Path) -> None:
    """Attach the published copy; one in an object store is first downloaded into `folder`."""
    if isinstance(published, Path):
        copy = published
    else:
        store, name = store_of(published)
        copy, content = folder / name, store.read(name)
        if content is not None:
            copy.write_bytes(content)
    if not copy.exists():
        raise NotPublishedError(
            f"There is no published copy at {published} yet. Each run publishes one: use `orpipeline run`, or "
            "`orpipeline rebuild` if there are tables already. If your data is elsewhere, such as the demo's, set "
            "ORPIPELINE_DATA_DIR, or pass `settings`."
        )
    # DuckDB names a database after its file. Some names are DuckDB's own.
    name = quoted("warehouse" if copy.stem in ("main", "memory", "system", "temp") else copy.stem)
    connection.execute(f"ATTACH {literal(str(copy))} AS {name} (READ_ONLY)")
    connection.execute(f"USE {name}; SET TimeZone = 'UTC'")


def _days(name: str, day: date | str | None) -> Iterator[date]:
    try:
        if day is not None:
            yield as_day(day)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
