"""The pipeline's tables and views through one open connection: reading them, and replacing whole days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import duckdb
import polars as pl

from orpipeline.contracts.judgement import Seen, check_scopes, check_table
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.views import VIEW_QUERIES

DEFAULT_SCHEMA = "openrouter"

DUCKDB_TYPES: dict[pl.DataType, str] = {
    pl.Date(): "DATE",
    pl.Int32(): "INTEGER",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.String(): "VARCHAR",
    pl.Datetime("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}
"""The DuckDB type of each polars type that the contracts use."""


class TableError(OrpipelineError):
    """Rows do not fit the table that they are meant for. Nothing was written."""


class Tables:
    """The tables and views in `schema`, through a connection that its owner opens and closes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def names(self) -> set[str]:
        """Return the names of the tables and views that exist."""
        rows = self._connection.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_catalog = current_database() AND table_schema = ?",
            [self._schema],
        ).fetchall()
        return {name for (name,) in rows}

    def days(self, name: str = "snapshots") -> list[date]:
        """Return the days that a table has, oldest first; none if it does not exist."""
        if name not in self.names():
            return []
        query = f"SELECT DISTINCT as_of FROM {self._full_name(name)} ORDER BY 1"  # noqa: S608 - quoted
        return [day for (day,) in self._connection.execute(query).fetchall()]

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view from `since` to `until`, sorted by its key.

        The frame has the contract's columns, and no rows if the table does not exist.
        """
        rows = self.select(name, "as_of BETWEEN ? AND ?", [since or date.min, until or date.max])
        return rows.sort(RELATIONS[name].primary_key())

    def read_all(self, *, since: date | None = None, until: date | None = None) -> dict[str, pl.DataFrame]:
        """Return the rows of every table by name, as `read` does."""
        return {name: self.read(name, since=since, until=until) for name in TABLES}

    def select(
        self, name: str, condition: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> pl.DataFrame:
        """Return the rows of a table or view that meet an SQL condition (never upstream text), in a fixed order."""
        model = RELATIONS[name]
        if name not in self.names():
            return pl.DataFrame(schema=model.polars_schema())
        query = (
            f"SELECT {_names(model.columns())} FROM {self._full_name(name)} "  # noqa: S608 - quoted
            f"WHERE {condition} ORDER BY ALL"
        )
        rows = self._connection.sql(query, params=parameters).to_arrow_table()
        return pl.DataFrame(pl.from_arrow(rows), schema_overrides=model.polars_schema())

    def seen(self, days: Sequence[date]) -> Seen:
        """Return the tags and macro-categories that warnings about new and missing names need.

        These are the first day of each name, and all names from the day before the first of `days` to the last.
        """
        tags = self._names_around("task_classifications", "tag", days)
        macro_categories = self._names_around("macro_categories", "key", days)
        return Seen(tags, macro_categories)

    def replace_days(self, days: Iterable[date], frames: Mapping[str, pl.DataFrame]) -> dict[str, int]:
        """Replace the rows of `days` in every table of `frames` with the frame's rows.

        The frames, by table name, have the contract's columns and rows of these days only. They are validated first,
        and inserted by column name; missing tables and views are created. Returns each table's row count. Raises
        TableError or InvalidSnapshotError before anything is written.
        """
        wanted = sorted(set(days))
        checked = {name: _checked(name, frame, wanted) for name, frame in frames.items()}
        check_scopes(checked)
        self._create_missing()
        return {name: self._replace(name, wanted, frame) for name, frame in checked.items()}

    def _names_around(self, table: str, column: str, days: Sequence[date]) -> pl.DataFrame:
        rows: list[tuple[date, str]] = []
        if days and table in self.names():
            stored = self._full_name(table)
            rows = self._connection.execute(
                f"SELECT min(as_of), {column} FROM {stored} GROUP BY {column} "  # noqa: S608 - quoted
                f"UNION SELECT as_of, {column} FROM {stored} WHERE as_of BETWEEN ? AND ?",
                [min(days) - timedelta(days=1), max(days)],
            ).fetchall()
        return pl.DataFrame(rows, schema={"as_of": pl.Date, column: pl.String}, orient="row")

    def _replace(self, name: str, days: Sequence[date], frame: pl.DataFrame) -> int:
        stored, columns = self._full_name(name), _names(frame.columns)
        if days:
            # The range lets DuckDB skip whole blocks of other days; the list is exact.
            self._connection.execute(
                f"DELETE FROM {stored} WHERE as_of BETWEEN ? AND ? AND as_of IN (SELECT unnest(?::DATE[]))",  # noqa: S608 - quoted
                [days[0], days[-1], days],
            ).fetchall()
        self._connection.register("incoming", frame)
        self._connection.execute(
            f"INSERT INTO {stored} BY NAME SELECT {columns} FROM incoming"  # noqa: S608 - quoted
        ).fetchall()
        self._connection.unregister("incoming")
        counted = self._connection.execute(f"SELECT count(*) FROM {stored}").fetchall()  # noqa: S608 - quoted
        return int(counted[0][0])

    def _create_missing(self) -> None:
        existing = self.names()
        if not existing:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {full_name(self._connection, self._schema)}")
        for name in RELATIONS:  # tables first: the views read them
            if name not in existing:
                for statement in _create_statements(self._full_name(name), name):
                    self._connection.execute(statement)

    def _full_name(self, name: str) -> str:
        return full_name(self._connection, self._schema, name)


def full_name(connection: duckdb.DuckDBPyConnection, schema: str, *table: str) -> str:
    """Return the quoted full name of a schema, or of a table in it.

    DuckDB names the catalog after the file: in a file `openrouter.duckdb`, `openrouter.task_models` would be ambiguous
    without the catalog.
    """
    catalog = connection.execute("SELECT current_database()").fetchall()[0][0]
    return ".".join(quoted(name) for name in (catalog, schema, *table))


def quoted(name: str) -> str:
    """Return a name quoted for SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def _checked(name: str, frame: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Return the frame in the table's column order. Raises if columns, days or values do not fit the table."""
    _require_columns(name, frame)
    ordered = check_table(name, frame)
    others = set(ordered["as_of"]) - set(days)
    if others:
        raise TableError(
            f"The frame for table {name} has rows of {min(others)}, which is not one of the days to replace. "
            "Nothing was written."
        )
    return ordered


def _require_columns(table: str, frame: pl.DataFrame) -> None:
    wanted = TABLES[table].polars_schema()
    unexpected = [f"{name} {dtype}" for name, dtype in frame.schema.items() if wanted.get(name) != dtype]
    missing = [name for name in wanted if name not in frame.columns]
    if unexpected or missing:
        raise TableError(
            f"The frame for table {table} does not have the table's columns. Missing: {missing}; unexpected columns or "
            f"types: {unexpected}. Nothing was written."
        )


def _create_statements(full: str, name: str) -> Iterator[str]:
    """Yield the statements that create a table with its types and primary key, or a view; both with comments."""
    model, kind = RELATIONS[name], "VIEW" if name in VIEWS else "TABLE"
    columns = model.columns()
    if kind == "VIEW":
        yield f"CREATE VIEW {full} AS {VIEW_QUERIES[name]}"
    else:
        declared = ", ".join(
            f"{quoted(column)} {DUCKDB_TYPES[details.dtype.type]}{'' if details.nullable else ' NOT NULL'}"
            for column, details in columns.items()
        )
        yield f"CREATE TABLE {full} ({declared}, PRIMARY KEY ({_names(model.primary_key())}))"
    yield f"COMMENT ON {kind} {full} IS {_literal(model.summary())}"
    for column, details in columns.items():
        yield f"COMMENT ON COLUMN {full}.{quoted(column)} IS {_literal(details.description)}"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(quoted, columns))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
