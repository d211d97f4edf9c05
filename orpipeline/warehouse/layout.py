"""The layout of the warehouse: which tables and views it has, with which columns, types and keys.

The contracts declare it. The table `orpipeline_layout`, beside the others, has a row for each table and view that
orpipeline created, with the version of the layout. orpipeline changes or drops only those: a schema may have tables of
your own, and one of them may have a name that a later version declares.

"As declared" means: defined as our own CREATE statements define it in an empty database. DuckDB states both definitions
as SQL, so types, NOT NULL, keys, defaults and the order of columns are all compared. Only DuckDB files have keys:
DuckLake has none, and MotherDuck is treated alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import duckdb
import polars as pl

from orpipeline import __version__
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.warehouse.errors import LayoutError, NewerLayoutError, OutdatedLayoutError
from orpipeline.warehouse.views import VIEW_QUERIES

LAYOUT_VERSION = 3
"""Grows when tables of an older version must be rebuilt: other columns, or other figures in the same columns.

orpipeline 0.1 stored no version, so its layout counts as 1.
"""
LAYOUT_TABLE = "orpipeline_layout"
_OF_0_1 = frozenset(
    {
        "snapshots",
        "task_classifications",
        "macro_categories",
        "task_models",
        "model_leaderboard",
        "model_trends",
        "latest_leaderboard",
    }
)

DUCKDB_TYPES: dict[pl.DataType, str] = {
    pl.Date(): "DATE",
    pl.Int32(): "INTEGER",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.String(): "VARCHAR",
    pl.Datetime("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}
"""The DuckDB type of each polars type that the contracts use."""

_RELATIONS_SQL = """
SELECT lower(table_name), 'TABLE', sql FROM duckdb_tables()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
UNION ALL
SELECT lower(view_name), 'VIEW', sql FROM duckdb_views()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema)
"""
# 0.1 did not record what it created. Each of its tables and views has a comment that begins like this.
_OF_0_1_SQL = """
SELECT count(*) FROM (
    SELECT database_name, schema_name, table_name AS name, comment FROM duckdb_tables()
    UNION ALL SELECT database_name, schema_name, view_name, comment FROM duckdb_views()
)
WHERE database_name = current_database() AND lower(schema_name) = lower($schema) AND lower(name) IN $names
    AND comment LIKE 'One row per %'
"""
_DATABASE_SQL = "SELECT type, path, database_name FROM duckdb_databases() WHERE database_name = current_database()"
_COLUMNS_SQL = """
SELECT column_name, data_type || CASE WHEN is_nullable THEN '' ELSE ' NOT NULL' END FROM duckdb_columns()
WHERE database_name = current_database() AND lower(schema_name) = lower($schema) AND lower(table_name) = $table
ORDER BY column_index
"""


@dataclass(frozen=True)
class Relation:
    """A table or view as DuckDB has it: `TABLE` or `VIEW`, and its definition."""

    kind: str
    sql: str


class Layout:
    """The layout of the tables and views in `schema`, as they are now."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self.has_keys = _has_keys(connection)
        """Whether the engine has primary keys, which keep a day's rows unique."""
        self.existing = _relations(connection, schema)
        self.version, self._owned = self._written()
        """The version that wrote the tables, and what it created. Without any table: this version, and nothing."""

    @property
    def is_empty(self) -> bool:
        """Whether none of our tables exists."""
        return not any(self._is_ours(name) for name in TABLES)

    @property
    def ours(self) -> dict[str, str]:
        """The kind of each table and view that exists and that orpipeline created, by name."""
        return {name: self.existing[name].kind for name in self.existing if self._is_ours(name)}

    def has(self, name: str) -> bool:
        """Return whether a table or view of ours exists. Without any table of ours, none does.

        Raises OutdatedLayoutError if it is missing beside the others.
        """
        if self._is_ours(name):
            return True
        if self.is_empty:
            return False
        raise self._outdated([*self._older(), f"{name} is missing"])

    def require_known_version(self) -> None:
        """Raise NewerLayoutError if a newer version of orpipeline wrote the tables."""
        if self.version > LAYOUT_VERSION:
            raise NewerLayoutError(
                f"The tables in {self.place()} have layout {self.version}, and orpipeline {__version__} knows layouts "
                f"up to {LAYOUT_VERSION}; nothing was changed. Upgrade orpipeline, or use another warehouse."
            )

    def require_free_names(self) -> None:
        """Raise LayoutError if something that orpipeline did not create has the name of one of its tables or views."""
        for name in (*RELATIONS, LAYOUT_TABLE):
            kind = _kind(name)
            found = self.existing.get(name)
            if found is not None and (name not in self._owned or found.kind != kind):
                raise LayoutError(
                    f"{self._schema}.{name} in {self.place()} is a {found.kind.lower()} that orpipeline did not "
                    f"create, and orpipeline {__version__} needs that name for a {kind.lower()}; nothing was changed. "
                    f"Rename yours: ALTER {found.kind} {quoted(self._schema)}.{name} RENAME TO ..."
                )

    def outdated(self) -> OutdatedLayoutError | None:
        """Return the error that states why days cannot be written; None if all tables are as declared, or none exist.

        Views do not count: they are created again as they are.
        """
        if self.is_empty:
            return None
        declared = _declared(self._schema, self.has_keys)
        reasons = self._older()
        for name in TABLES:
            if not self._is_ours(name):
                reasons.append(f"{name} is missing")
            elif self.existing[name] != declared[name]:
                reasons.append(f"{name} {_difference(self.columns(name), _declared_columns(name))}")
        return self._outdated(reasons) if reasons else None

    def unreadable(self, name: str) -> OutdatedLayoutError | None:
        """Return the error that states which columns a table or view does not have; None if it has all."""
        missing = [column for column in RELATIONS[name].columns() if column not in self.columns(name)]
        if not missing:
            return None
        return self._outdated([*self._older(), f"{name} does not have {', '.join(missing)}"])

    def outdated_views(self) -> list[str]:
        """Return the declared views that are missing or differ."""
        declared = _declared(self._schema, self.has_keys)
        return [name for name in VIEWS if not self._is_same_view(self.existing.get(name), declared[name])]

    def columns(self, name: str) -> dict[str, str]:
        """Return the type of each column of a table or view by name."""
        parameters = {"schema": self._schema, "table": name}
        return dict(self._connection.execute(_COLUMNS_SQL, parameters).fetchall())

    def _is_same_view(self, existing: Relation | None, declared: Relation) -> bool:
        if existing is None or existing == declared:
            return existing is not None
        # Some file formats lose the parentheses around joins. DuckDB adds them when it parses the definition again.
        try:
            return existing.kind == declared.kind and self._parsed(existing.sql) == self._parsed(declared.sql)
        except duckdb.Error:  # the definition is not one SELECT
            return False

    def _parsed(self, sql: str) -> tuple[str, str]:
        """Return what a view's definition begins with, and its query as DuckDB states it after parsing."""
        create, _, query = sql.partition(" AS ")
        with self._connection.cursor() as apart:  # an error does not end the connection's transaction
            rows = apart.execute("SELECT json_deserialize_sql(json_serialize_sql(?))", [query]).fetchall()
        return create, rows[0][0]

    def _is_ours(self, name: str) -> bool:
        return name in self.existing and name in self._owned

    def _written(self) -> tuple[int, frozenset[str]]:
        if LAYOUT_TABLE in self.existing:
            table = full_name(self._connection, self._schema, LAYOUT_TABLE)
            rows = self._connection.execute(f"SELECT relation, version FROM {table}").fetchall()  # noqa: S608 - quoted
            owned = frozenset(name for name, _ in rows) | {LAYOUT_TABLE}
            return max((version for _, version in rows), default=LAYOUT_VERSION), owned
        parameters = {"schema": self._schema, "names": list(_OF_0_1)}
        is_of_0_1 = self._connection.execute(_OF_0_1_SQL, parameters).fetchall()[0][0] > 0
        return (1, _OF_0_1) if is_of_0_1 else (LAYOUT_VERSION, frozenset())

    def _older(self) -> list[str]:
        older = self.version < LAYOUT_VERSION
        return [f"their layout is {self.version}, not {LAYOUT_VERSION}"] if older else []

    def _outdated(self, reasons: Iterable[str]) -> OutdatedLayoutError:
        return OutdatedLayoutError(
            f"The tables in {self.place()} are not those of orpipeline {__version__}: {'; '.join(reasons)}."
        )

    def place(self) -> str:
        """Return the path of the DuckDB file, or how a setting names another engine's database, for messages."""
        kind, path, name = self._connection.execute(_DATABASE_SQL).fetchall()[0]
        path = str(path).partition(" connect_timeout=")[0]  # the limits that the engine adds
        return {"ducklake": f"ducklake:{path}", "motherduck": f"md:{name}"}.get(kind, str(path))


def create_relations(connection: duckdb.DuckDBPyConnection, schema: str, names: Iterable[str]) -> None:
    """Create some of the declared tables and views, with their comments; views of the same name are replaced.

    Then record which tables and views are ours, and the version of the layout. Nothing is committed here.
    """
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {full_name(connection, schema)}")
    for name in (name for name in RELATIONS if name in set(names)):  # tables first: the views read them
        create = _create(full_name(connection, schema, name), name, keys=_has_keys(connection))
        for statement in (create, *_comments(connection, schema, name)):
            connection.execute(statement)
    _record(connection, full_name(connection, schema, LAYOUT_TABLE))


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


def quoted_names(names: Iterable[str]) -> str:
    """Return names quoted for SQL, as a list."""
    return ", ".join(map(quoted, names))


def literal(text: str) -> str:
    """Return text quoted for SQL as a string."""
    return "'" + text.replace("'", "''") + "'"


def _create(full: str, name: str, *, keys: bool) -> str:
    """Return the statement that creates a table with its types and, with `keys`, its primary key, or a view."""
    if name in VIEWS:
        return f"CREATE OR REPLACE VIEW {full} AS {VIEW_QUERIES[name]}"
    columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in _declared_columns(name).items())
    key = f", PRIMARY KEY ({quoted_names(TABLES[name].primary_key())})" if keys else ""
    return f"CREATE TABLE {full} ({columns}{key})"


def _declared_columns(name: str) -> dict[str, str]:
    """Return the declared type of each column of a table, by name."""
    return {
        column: f"{DUCKDB_TYPES[details.dtype.type]}{'' if details.nullable else ' NOT NULL'}"
        for column, details in TABLES[name].columns().items()
    }


def _comments(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> Iterator[str]:
    full, model = full_name(connection, schema, name), RELATIONS[name]
    yield f"COMMENT ON {_kind(name)} {full} IS {literal(model.summary())}"
    if name in VIEWS and not _has_keys(connection):  # DuckLake rejects comments on a view's columns
        return
    for column, details in model.columns().items():
        yield f"COMMENT ON COLUMN {full}.{quoted(column)} IS {literal(details.description)}"


def _record(connection: duckdb.DuckDBPyConnection, full: str) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {full} "
        "(relation VARCHAR NOT NULL, version INTEGER NOT NULL, written_by VARCHAR NOT NULL)"
    )
    summary = "One row per table and view of orpipeline, with the version of its layout. Do not change it."
    connection.execute(f"COMMENT ON TABLE {full} IS {literal(summary)}")
    connection.execute(f"DELETE FROM {full}").fetchall()  # noqa: S608 - quoted
    connection.execute(
        f"INSERT INTO {full} SELECT unnest(?), ?, ?",
        [list(RELATIONS), LAYOUT_VERSION, f"orpipeline {__version__}"],
    ).fetchall()


@cache
def _declared(schema: str, keys: bool) -> Mapping[str, Relation]:
    """Return how DuckDB states the definitions of the declared tables and views, in a schema of that name."""
    with duckdb.connect(":memory:") as empty:  # 15 ms, once in a process that writes
        empty.execute(f"CREATE SCHEMA IF NOT EXISTS {full_name(empty, schema)}")
        for name in RELATIONS:
            empty.execute(_create(full_name(empty, schema, name), name, keys=keys))
        return _relations(empty, schema)


def _relations(connection: duckdb.DuckDBPyConnection, schema: str) -> dict[str, Relation]:
    rows = connection.execute(_RELATIONS_SQL, {"schema": schema}).fetchall()
    return {name: Relation(kind, _as_in_a_file(sql, schema)) for name, kind, sql in rows}


def _as_in_a_file(sql: str, schema: str) -> str:
    """Return a definition as DuckDB states it for a file, but a view's without its schema, as DuckLake has it."""
    for name in (schema, quoted(schema)):
        sql = sql.replace(f"CREATE VIEW {name}.", "CREATE VIEW ", 1)
    return sql.replace(" DEFAULT(NULL)", "")  # DuckLake's way to state that a column has no default


def _has_keys(connection: duckdb.DuckDBPyConnection) -> bool:
    kind, _, _ = connection.execute(_DATABASE_SQL).fetchall()[0]
    return bool(kind == "duckdb")


def _difference(stored: Mapping[str, str], declared: Mapping[str, str]) -> str:
    """Return how a table's columns differ from the declared ones."""
    found = [f"does not have {column}" for column in declared if column not in stored]
    found += [f"has another column, {column}" for column in stored if column not in declared]
    found += [
        f"has {column} as {stored[column]}, not {kind}"
        for column, kind in declared.items()
        if stored.get(column, kind) != kind
    ]
    return " and ".join(found) or "has other keys, constraints or defaults, or another order of columns"


def _kind(name: str) -> str:
    return "VIEW" if name in VIEWS else "TABLE"
