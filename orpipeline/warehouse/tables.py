"""The pipeline's tables and views through one open connection: reading them, and replacing whole days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

import duckdb
import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.findings import FINDINGS_SCHEMA, finding_frame
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.contracts.validation import require_bounds
from orpipeline.errors import WarehouseError
from orpipeline.warehouse.schema import (
    DEFAULT_SCHEMA,
    REGISTER,
    create,
    declared_hash,
    kind,
    literal,
    quoted,
    quoted_names,
)

_IN_SCHEMA = "database_name = current_database() AND lower(schema_name) = lower(?)"
_EXISTING_SQL = f"""
SELECT lower(table_name), 'TABLE' FROM duckdb_tables() WHERE {_IN_SCHEMA}
UNION ALL
SELECT lower(view_name), 'VIEW' FROM duckdb_views() WHERE {_IN_SCHEMA}
"""  # noqa: S608 - our own constant
_NEW_SQL = """
SELECT min(as_of) AS day, {name} FROM {table} GROUP BY {name}
HAVING day > (SELECT min(as_of) FROM {table}) AND list_contains(?::DATE[], day) ORDER BY ALL
"""
_GONE_SQL = """
SELECT as_of + 1 AS day, {name} FROM {table} AS before WHERE list_contains(?::DATE[], day) AND NOT EXISTS (
    FROM {table} AS now WHERE now.as_of = before.as_of + 1 AND now.{name} = before.{name}
) ORDER BY ALL
"""


class Tables:
    """The tables and views in `schema`, through a connection that its owner opens and closes.

    Methods that read raise WarehouseError if the tables are of another version and lack a column.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str = DEFAULT_SCHEMA) -> None:
        self._connection = connection
        self._schema = schema
        self.changed = False
        """Whether rows were replaced through this connection."""

    @property
    def ours(self) -> dict[str, str]:
        """The kind of each table and view that exists and that orpipeline created, by name."""
        return {name: kind for name, kind in self._existing.items() if name in self._register}

    @property
    def are_current(self) -> bool:
        """Whether the tables are as this version declares them, or none exists yet."""
        return not self.ours or all(self._register.get(name) == declared_hash() for name in RELATIONS)

    def days(self) -> list[date]:
        """Return the days that the tables have, oldest first; none if the warehouse is empty."""
        return self.read("snapshots")["as_of"].to_list()

    def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view from `since` to `until`, sorted by its key.

        The frame has the contract's columns, and no rows if the warehouse is empty.
        """
        rows = self.select(name, "as_of BETWEEN ? AND ?", [since or date.min, until or date.max])
        return rows.sort(RELATIONS[name].primary_key())

    def select(
        self, name: str, condition: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> pl.DataFrame:
        """Return the rows of a table or view that meet an SQL condition (never upstream text), in a fixed order."""
        model = RELATIONS[name]
        if name not in self.ours:
            return pl.DataFrame(schema=model.polars_schema())
        query = (
            f"SELECT {quoted_names(model.columns())} FROM {self._full_name(name)} "  # noqa: S608 - quoted
            f"WHERE {condition} ORDER BY ALL"
        )
        try:
            rows = self._connection.sql(query, params=parameters).to_arrow_table()
        except duckdb.BinderException as error:
            raise WarehouseError(
                f"{self._schema}.{name} does not have the columns of this version of orpipeline. Run `orpipeline "
                "rebuild`, which loads the tables from the archive again."
            ) from error
        return pl.DataFrame(pl.from_arrow(rows), schema_overrides=model.polars_schema())

    def copy_to_parquet(self, name: str, path: Path, *, citation: str) -> int:
        """Write a table or view to a Parquet file, sorted by its key, and return the number of its rows."""
        about = f"citation: {literal(citation)}, description: {literal(RELATIONS[name].summary())}"
        written = self._connection.execute(
            f"COPY (SELECT * FROM {self._full_name(name)} ORDER BY {quoted_names(RELATIONS[name].primary_key())}) "  # noqa: S608 - quoted
            f"TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{about}}})"
        ).fetchall()
        return int(written[0][0])

    def novelties(self, days: Sequence[date]) -> pl.DataFrame:
        """Return warnings of names that are new on some days, and of tags that are missing since the day before.

        On the first day of all, no name counts as new. The frame has the columns of `FINDINGS_SCHEMA`.
        """
        found = [pl.DataFrame(schema=FINDINGS_SCHEMA)]
        new, gone = (_NEW_SQL, "new: no earlier day has it"), (_GONE_SQL, "gone: the day before has it")
        for rule, table, name, (query, what) in (
            (rules.SAME_TAGS, "task_classifications", "tag", new),
            (rules.SAME_TAGS, "task_classifications", "tag", gone),
            (rules.KNOWN_MACROS, "macro_categories", "key", new),
        ):
            if table not in self.ours:
                continue
            query = query.format(table=self._full_name(table), name=name)
            rows = self._connection.execute(query, [days]).fetchall()
            found.append(finding_frame(rule, table, ((day, name, value, what) for day, value in rows)))
        return pl.concat(found)

    def replace_days(self, days: Iterable[date], frames: Mapping[str, pl.DataFrame]) -> None:
        """Replace the rows of `days` in every table with those of `frames`.

        The frames, by table name, have rows of these days only. The leaderboards, which we compute, are validated
        first: raises InvalidSnapshotError. Rows are inserted by column name. An empty warehouse gets its tables and
        views.
        """
        for name in ("model_leaderboard", "author_leaderboard"):
            require_bounds(name, frames[name])
        if not self.ours:
            self.recreate()
        for name in TABLES:
            self.replace(name, days, frames[name])

    def recreate(self) -> None:
        """Drop our tables and views, and create empty ones as declared. Everything else in the schema stays.

        Raises WarehouseError if something of yours has the name of one of ours. Nothing is committed here.
        """
        for name in (*RELATIONS, REGISTER):
            found = self._existing.get(name)
            if found is not None and name not in self.ours:
                raise WarehouseError(
                    f"{self._schema}.{name} is a {found.lower()} that orpipeline did not create, and orpipeline needs "
                    f"that name for a {kind(name).lower()}; nothing was changed. Rename yours: ALTER {found} "
                    f"{quoted(self._schema)}.{name} RENAME TO ..."
                )
        for name, found in sorted(self.ours.items(), key=lambda item: item[1], reverse=True):  # views first
            self._connection.execute(f"DROP {found} {self._full_name(name)}")
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._full_name()}")
        for name in RELATIONS:  # tables first: the views read them
            for statement in create(name, self._full_name(name), keys=self._has_keys):
                self._connection.execute(statement)
        register = self._full_name(REGISTER)
        self._connection.execute(f"CREATE TABLE {register} (relation VARCHAR NOT NULL, declared VARCHAR NOT NULL)")
        names = [*RELATIONS, REGISTER]
        self._connection.execute(f"INSERT INTO {register} SELECT unnest(?), ?", [names, declared_hash()]).fetchall()
        self.changed = True
        for cached in ("_existing", "_register"):
            self.__dict__.pop(cached, None)

    @cached_property
    def _existing(self) -> dict[str, str]:
        """The kind of each table and view in the schema, by name."""
        return dict(self._connection.execute(_EXISTING_SQL, [self._schema, self._schema]).fetchall())

    @cached_property
    def _register(self) -> dict[str, str]:
        """The hash of the declarations of each table and view that orpipeline created, by name."""
        if REGISTER not in self._existing:
            return {}
        rows = self._connection.execute(f"SELECT relation, declared FROM {self._full_name(REGISTER)}").fetchall()  # noqa: S608 - quoted
        return dict(rows)

    @property
    def _has_keys(self) -> bool:
        """Whether the engine has primary keys: a DuckDB file does, a lake does not."""
        query = "SELECT type FROM duckdb_databases() WHERE database_name = current_database()"
        return self._connection.execute(query).fetchall() == [("duckdb",)]

    def replace(self, name: str, days: Iterable[date], frame: pl.DataFrame) -> None:
        """Replace the rows of `days` in one table, which exists, with those of `frame`."""
        self.changed, days = True, sorted(set(days))
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

    def _full_name(self, *name: str) -> str:
        return full_name(self._connection, self._schema, *name)


def full_name(connection: duckdb.DuckDBPyConnection, schema: str, *table: str) -> str:
    """Return the quoted full name of a schema, or of a table in it.

    DuckDB names the catalog after the file: in a file `openrouter.duckdb`, `openrouter.task_models` would be ambiguous
    without the catalog.
    """
    catalog = connection.execute("SELECT current_database()").fetchall()[0][0]
    return ".".join(map(quoted, (catalog, schema, *table)))
