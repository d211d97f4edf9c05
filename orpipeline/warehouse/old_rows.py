"""The rows of tables that are replaced by tables of another layout, until the connection is closed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import duckdb
import polars as pl

from orpipeline.contracts.tables import TABLES
from orpipeline.warehouse.errors import OutdatedLayoutError
from orpipeline.warehouse.layout import DUCKDB_TYPES, quoted

_PREFIX = "orpipeline_old_"


class OldRows:
    """Rows in temporary tables of one connection. DuckDB moves them to disk if they do not fit in memory."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._names: list[str] = []

    def keep(self, name: str, full: str, columns: Collection[str]) -> None:
        """Copy the declared columns of a table, whose full name is `full` and which has `columns`.

        Values get the declared types; those that do not fit become NULL. Raises OutdatedLayoutError if a row has no
        day: nobody could tell whether the archive has it.
        """
        declared = {column: DUCKDB_TYPES[kind] for column, kind in TABLES[name].polars_schema().items()}
        values = [f"TRY_CAST({quoted(c)} AS {kind}) AS {quoted(c)}" for c, kind in declared.items() if c in columns]
        without_day = "count(*) FILTER (as_of IS NULL)" if "as_of" in columns else "count(*)"
        kept = _PREFIX + name
        self._connection.execute(
            f"CREATE TEMP TABLE {kept} AS SELECT {', '.join(values) or 'NULL'} FROM {full}"  # noqa: S608 - quoted
        ).fetchall()
        count = self._connection.execute(f"SELECT {without_day} FROM {kept}").fetchall()[0][0]  # noqa: S608 - ours
        if count:
            raise OutdatedLayoutError(
                f"{count} rows of the table {name} have no day (`as_of`), so they cannot be rebuilt.",
                "Correct or delete these rows; nothing was changed.",
            )
        if "as_of" in columns:
            self._names.append(name)

    def days(self) -> set[date]:
        """Return the days that any of the tables had."""
        days: set[date] = set()
        for name in self._names:
            rows = self._connection.execute(f"SELECT DISTINCT as_of FROM {_PREFIX}{name}").fetchall()  # noqa: S608 - ours
            days.update(day for (day,) in rows)
        return days

    def read(self, name: str, days: Sequence[date]) -> pl.DataFrame:
        """Return a table's rows of some days, sorted by its key.

        The frame has the declared types, the columns that the table had, and no rows if it did not exist.
        """
        schema = TABLES[name].polars_schema()
        if name not in self._names:
            return pl.DataFrame(schema=schema)
        query = f"SELECT * FROM {_PREFIX}{name} WHERE as_of IN (SELECT unnest(?::DATE[])) ORDER BY ALL"  # noqa: S608
        rows = self._connection.sql(query, params=[list(days)]).to_arrow_table()
        return pl.DataFrame(
            pl.from_arrow(rows), schema_overrides={c: kind for c, kind in schema.items() if c in rows.column_names}
        )
