"""The pipeline's tables and views through one open connection: reading them, and replacing whole days."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import duckdb
import polars as pl

from orpipeline.contracts.judgement import Seen, check_scopes, check_table
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.errors import DuplicateRowsError
from orpipeline.warehouse.layout import Layout, create_relations, full_name, quoted_names
from orpipeline.warehouse.old_rows import OldRows

_log = logging.getLogger(__name__)

DEFAULT_SCHEMA = "openrouter"


@dataclass(frozen=True)
class Rows:
    """All rows of some tables or views, by name, from the day `since` to the day `until`."""

    since: date
    until: date
    frames: Mapping[str, pl.DataFrame]

    def of(self, name: str, days: Sequence[date]) -> pl.DataFrame | None:
        """Return the rows of some days, oldest first, or None if they are not all here."""
        if name not in self.frames or days[0] < self.since or days[-1] > self.until:
            return None
        return self.frames[name].filter(pl.col("as_of").is_between(days[0], days[-1]))


class TableError(OrpipelineError):
    """Rows do not fit the table that they are meant for. Nothing was written."""


class Tables:
    """The tables and views in `schema`, through a connection that its owner opens and closes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self.replaced: set[date] = set()
        """The days whose rows were replaced through this connection."""
        self.known: Rows | None = None
        """Rows of views that were read after the last replacement; publishing does not read them again."""

    @cached_property
    def layout(self) -> Layout:
        """What exists in the schema, and which of it is ours. Read once; creating or dropping reads it again."""
        return Layout(self._connection, self._schema)

    def days(self, name: str = "snapshots") -> list[date]:
        """Return the days that a table has, oldest first; none if the warehouse is empty.

        This and the other methods that read raise OutdatedLayoutError if the table or a column of it is missing.
        """
        if not self.layout.has(name):
            return []
        query = f"SELECT DISTINCT as_of FROM {self._full_name(name)} ORDER BY 1"  # noqa: S608 - quoted
        return [day for (day,) in self._rows(name, query, ())]

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view from `since` to `until`, sorted by its key.

        The frame has the contract's columns, and no rows if the warehouse is empty.
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
        if not self.layout.has(name):
            return pl.DataFrame(schema=model.polars_schema())
        query = (
            f"SELECT {quoted_names(model.columns())} FROM {self._full_name(name)} "  # noqa: S608 - quoted
            f"WHERE {condition} ORDER BY ALL"
        )
        try:
            rows = self._connection.sql(query, params=parameters).to_arrow_table()
        except duckdb.BinderException as error:
            raise self.layout.unreadable(name) or error from error
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
        and inserted by column name. An empty warehouse gets its tables and views; views that are missing or differ are
        created again. Returns each table's row count. Raises TableError, InvalidSnapshotError, OutdatedLayoutError (if
        the tables are not as declared) or LayoutError (if yours has the name of one of ours) before anything is
        written.
        """
        wanted = sorted(set(days))
        checked = {name: _checked(name, frame, wanted) for name, frame in frames.items()}
        check_scopes(checked)
        self._create_missing()
        self.replaced.update(wanted)
        self.known = None
        return {name: self._replace(name, wanted, frame) for name, frame in checked.items()}

    def recreate(self) -> OldRows:
        """Replace our tables and views by empty ones, as declared, and return the rows that the tables had.

        Everything else in the schema stays. Nothing is committed here. Raises LayoutError if something of yours has the
        name of one of ours.
        """
        layout = self.layout
        layout.require_free_names()
        old = OldRows(self._connection)
        for name in TABLES:
            if name in layout.ours:
                old.keep(name, self._full_name(name), layout.columns(name))
        for name, kind in layout.ours.items():
            if name in TABLES or kind == "VIEW":
                self._connection.execute(f"DROP {kind} {self._full_name(name)}")
        create_relations(self._connection, self._schema, RELATIONS)
        del self.layout
        return old

    def require_unique_keys(self, *, committed: bool = False) -> None:
        """Raise DuplicateRowsError if rows of the replaced days have the same key.

        Does nothing if the engine has primary keys, which prevent that. `committed` is for the error's message.
        """
        if not self.replaced or self.layout.has_keys:
            return
        days = sorted(self.replaced)
        query = " UNION ALL ".join(
            f"SELECT '{name}', as_of FROM {self._full_name(name)} "  # noqa: S608 - quoted
            "WHERE as_of BETWEEN $first AND $last AND as_of IN (SELECT unnest($days::DATE[])) "
            f"GROUP BY as_of, {quoted_names(model.primary_key())} HAVING count(*) > 1"
            for name, model in TABLES.items()
        )
        parameters = {"first": days[0], "last": days[-1], "days": days}
        twice = self._connection.execute(f"{query} ORDER BY ALL LIMIT 1", parameters).fetchall()
        if twice:
            name, day = twice[0]
            outcome = "The rows are written. Run `orpipeline rebuild`" if committed else "Nothing was written"
            raise DuplicateRowsError(
                f"The table {name} in {self.layout.place()} has several rows of {day} with the same key. {outcome}; "
                "look for programs that write to these tables without orpipeline."
            )

    def _names_around(self, table: str, column: str, days: Sequence[date]) -> pl.DataFrame:
        rows: list[tuple[date, str]] = []
        if days and self.layout.has(table):
            stored = self._full_name(table)
            query = (
                f"SELECT min(as_of), {column} FROM {stored} GROUP BY {column} "  # noqa: S608 - quoted
                f"UNION SELECT as_of, {column} FROM {stored} WHERE as_of BETWEEN ? AND ?"
            )
            rows = self._rows(table, query, [min(days) - timedelta(days=1), max(days)])
        return pl.DataFrame(rows, schema={"as_of": pl.Date, column: pl.String}, orient="row")

    def _replace(self, name: str, days: Sequence[date], frame: pl.DataFrame) -> int:
        stored, columns = self._full_name(name), quoted_names(frame.columns)
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
        outdated = self.layout.outdated()
        if outdated is not None:
            raise outdated
        names = list(RELATIONS) if self.layout.is_empty else self.layout.outdated_views()
        if names:
            self.layout.require_free_names()
            for name in names:
                if name in self.layout.ours:
                    _log.info("Created again, because its definition differed: %s", self.layout.existing[name].sql)
            create_relations(self._connection, self._schema, names)
            del self.layout

    def _rows(self, name: str, query: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except duckdb.BinderException as error:
            raise self.layout.unreadable(name) or error from error

    def _full_name(self, name: str) -> str:
        return full_name(self._connection, self._schema, name)


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
