"""Moving the warehouse into another engine: a DuckDB file into a DuckLake, for example, and back.

Everything is copied in one transaction of the target, and compared row by row before that is committed. Nobody else
writes to either side meanwhile. The source is only read. Does not depend on Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from shlex import quote

import duckdb

from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.engines.interface import reason
from orpipeline.warehouse.layout import LAYOUT_TABLE, Layout, create_relations, literal, quoted, quoted_names

SOURCE = "orpipeline_source"
"""The name under which the target's connection has the source."""

_SHOWN_PROBLEMS = 5
_RELATIONS_SQL = """
SELECT schema_name, table_name, 'TABLE', sql, comment FROM duckdb_tables()
WHERE database_name = $database AND NOT internal AND NOT temporary
UNION ALL
SELECT schema_name, view_name, 'VIEW', sql, comment FROM duckdb_views()
WHERE database_name = $database AND NOT internal AND NOT temporary
ORDER BY ALL
"""
_COLUMNS_SQL = """
SELECT column_name, data_type, is_nullable, comment FROM duckdb_columns()
WHERE database_name = $database AND schema_name = $schema AND table_name = $name
ORDER BY column_index
"""
# What belongs to a database besides tables and views, or to a table besides its columns.
_EXTRAS_SQL = """
SELECT schema_name, 'the index ' || index_name FROM duckdb_indexes() WHERE database_name = $database
UNION ALL
SELECT schema_name, 'the sequence ' || sequence_name FROM duckdb_sequences() WHERE database_name = $database
UNION ALL
SELECT schema_name, 'the type ' || type_name FROM duckdb_types() WHERE database_name = $database AND NOT internal
UNION ALL
SELECT DISTINCT schema_name, 'the macro ' || function_name FROM duckdb_functions()
WHERE database_name = $database AND NOT internal
ORDER BY ALL
"""
_CONSTRAINTS_SQL = """
SELECT DISTINCT schema_name, table_name FROM duckdb_constraints()
WHERE database_name = $database AND constraint_type <> 'NOT NULL'
UNION
SELECT schema_name, table_name FROM duckdb_columns()
WHERE database_name = $database AND column_default IS NOT NULL AND column_default <> 'NULL'
"""


class MigrationError(OrpipelineError):
    """The warehouse cannot be moved. Both sides are unchanged."""


@dataclass(frozen=True, order=True)
class Relation:
    """A table or view of the source."""

    schema: str
    name: str
    kind: str = field(compare=False)
    sql: str = field(compare=False, repr=False)
    comment: str | None = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def is_table(self) -> bool:
        """Whether this is a table, and not a view."""
        return self.kind == "TABLE"

    def full_name(self, database: str) -> str:
        """Return the quoted full name in a database of the connection."""
        return ".".join(map(quoted, (database, self.schema, self.name)))


@dataclass(frozen=True)
class Moved:
    """A table or view that the target has now. A view has no rows of its own."""

    name: str
    rows: int | None
    copied: bool
    """False if the target had it before, with the same rows."""


@dataclass(frozen=True)
class Migrated:
    """The outcome of a migration: what the target has now, and which of the source's declarations it lacks."""

    relations: Sequence[Moved]
    not_kept: Sequence[str]


def migrate(
    source: Warehouse,
    target: Warehouse,
    *,
    without: Collection[str] = (),
    on_progress: Callable[[int], None] = lambda _: None,
) -> Migrated:
    """Copy all tables and views of `source` into `target`, and compare every row. The source is unchanged.

    The pipelines' tables are created as the target's engine declares them. Your own tables and views in any schema are
    copied, too, except those that `without` names as `schema.name`. What the target already has is compared, so a
    second migration changes nothing. `on_progress` is called with the number of tables done since the last call.

    Raises MigrationError, and leaves the target unchanged, if it has other rows, or if something cannot be moved. Also
    raises OutdatedLayoutError, NewerLayoutError and the other errors of both warehouses.
    """
    _require_two_places(source, target)
    _require_current_layouts(source)
    with target.copying(source, SOURCE) as connection:
        migration = _Migration(connection, source.name, target.name, without)
        migration.compare_existing()
        migration.create_missing()
        return migration.fill(on_progress)


class _Migration:
    """A migration through a connection whose current database is the target."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, source: str, target: str, without: Collection[str]
    ) -> None:
        self._connection = connection
        self._source, self._target = source, target
        self._database = str(self._value("SELECT current_database()"))
        found = list(self._relations(SOURCE))
        self._pipelines = {r.schema for r in found if r.name == LAYOUT_TABLE}
        self._wanted = [r for r in found if r.name != LAYOUT_TABLE and (self._is_ours(r) or str(r) not in without)]
        self._require_known_names(without)
        there = {str(relation).lower(): relation for relation in self._relations(self._database)}
        self._existing = {r: there[str(r).lower()] for r in self._wanted if str(r).lower() in there}
        self._missing = [r for r in self._wanted if r not in self._existing]
        self._rows: dict[Relation, int] = {}
        """The number of rows of each table that was compared."""
        kinds = "SELECT count(*) FROM duckdb_databases() WHERE database_name IN (?, ?) AND type <> 'duckdb'"
        self._keeps_declarations = self._value(kinds, SOURCE, self._database) == 0
        """Whether tables keep their keys and defaults: between two DuckDB files, they do."""

    def compare_existing(self) -> None:
        """Raise MigrationError if the target has something else under the name of a table or view of the source."""
        for schema in sorted(self._pipelines):
            outdated = Layout(self._connection, schema).outdated()
            if outdated is not None:
                raise outdated
        for relation, existing in self._existing.items():
            if existing.kind != relation.kind:
                raise MigrationError(
                    f"{self._target} already has a {existing.kind.lower()} {existing}, and {self._source} a "
                    f"{relation.kind.lower()}; nothing was changed. Rename one of them."
                )
            if relation.is_table:
                self._rows[relation] = self._verify(relation)
            elif not self._is_ours(relation) and _query(relation) != _query(existing):
                raise MigrationError(
                    f"{self._target} already has another view {relation}; nothing was changed. Rename one of them, or "
                    f"leave it out with `--without {quote(str(relation))}`."
                )

    def create_missing(self) -> None:
        """Create the tables and views that the target lacks. Raises MigrationError that names all that it rejects."""
        self._create_ours()
        created: list[Relation] = []
        waiting = [relation for relation in self._missing if not self._is_ours(relation)]
        while waiting:
            problems: dict[Relation, str] = {}
            for relation in waiting:
                try:
                    self._create(relation)
                    created.append(relation)
                except duckdb.Error as error:
                    # DuckDB suggests names in the source, which the target does not have.
                    problems[relation] = reason(error).partition(" Did you mean")[0]
                    self._create_again(created)
            if len(problems) == len(waiting):
                raise self._cannot_move(problems)
            waiting = list(problems)  # a view may read one that was created later

    def fill(self, on_progress: Callable[[int], None]) -> Migrated:
        """Copy the rows of the tables that were missing, and compare them."""
        moved = []
        for relation in self._wanted:
            is_new = relation in self._missing
            if is_new and relation.is_table:
                self._copy(relation)
                self._rows[relation] = self._verify(relation)
            moved.append(Moved(str(relation), self._rows.get(relation), is_new))
            on_progress(1)
        return Migrated(moved, list(self._not_kept()))

    def _create_ours(self) -> None:
        for schema in sorted(self._pipelines):
            layout = Layout(self._connection, schema)
            names = list(RELATIONS) if layout.is_empty else layout.outdated_views()
            if names:
                layout.require_free_names()
                create_relations(self._connection, schema, names)

    def _create(self, relation: Relation) -> None:
        for statement in self._statements(relation):
            self._connection.execute(statement)

    def _create_again(self, created: Sequence[Relation]) -> None:
        """Create in a new transaction what a failed statement has undone: some errors end the transaction."""
        self._connection.rollback()
        self._connection.begin()
        self._create_ours()
        for relation in created:
            self._create(relation)

    def _statements(self, relation: Relation) -> Iterator[str]:
        """Return the statements that create a table or view that is not orpipeline's, with its comments."""
        full, columns = relation.full_name(self._database), self._columns(SOURCE, relation)
        schema = f"{quoted(self._database)}.{quoted(relation.schema)}"
        yield f"CREATE SCHEMA IF NOT EXISTS {schema}"
        if relation.is_table and not self._keeps_declarations:
            declared = (f"{quoted(name)} {kind}{'' if null else ' NOT NULL'}" for name, kind, null, _ in columns)
            yield f"CREATE TABLE {full} ({', '.join(declared)})"
        else:
            # DuckDB states a definition without the database, and a lake's views also without the schema.
            yield f"USE {schema}"
            yield relation.sql
            yield f"USE {quoted(self._database)}"
        if relation.comment is not None:
            yield f"COMMENT ON {relation.kind} {full} IS {literal(relation.comment)}"
        if relation.is_table:
            for name, _, _, comment in columns:
                if comment is not None:
                    yield f"COMMENT ON COLUMN {full}.{quoted(name)} IS {literal(comment)}"

    def _copy(self, relation: Relation) -> None:
        full, source = relation.full_name(self._database), relation.full_name(SOURCE)
        columns = quoted_names(name for name, *_ in self._columns(SOURCE, relation))
        # Rows in the order of their days: a reader of some days then skips the other blocks of a file.
        order = f" ORDER BY {quoted_names(TABLES[relation.name].primary_key())}" if self._is_ours(relation) else ""
        self._execute(f"INSERT INTO {full} BY NAME SELECT {columns} FROM {source}{order}", relation)  # noqa: S608 - quoted

    def _verify(self, relation: Relation) -> int:
        """Return the number of rows of a table. Raises MigrationError unless both sides have the same rows."""
        here, there = relation.full_name(self._database), relation.full_name(SOURCE)
        kinds = self._types(self._database, relation)
        if kinds != self._types(SOURCE, relation):
            raise self._differs(relation, "other columns or types")
        columns = quoted_names(kinds)
        one, other = (f"SELECT {columns} FROM {table}" for table in (here, there))  # noqa: S608 - quoted
        query = (
            f"SELECT (SELECT count(*) FROM {here}), (SELECT count(*) FROM {there}), "  # noqa: S608 - quoted
            f"(SELECT count(*) FROM ({one} EXCEPT ALL {other})), (SELECT count(*) FROM ({other} EXCEPT ALL {one}))"
        )
        ((count, expected, additional, absent),) = self._execute(query, relation)
        if count != expected or additional or absent:
            raise self._differs(relation, f"other rows: {additional} that the source lacks, and {absent} are missing")
        return count

    def _differs(self, relation: Relation, difference: str) -> MigrationError:
        if relation in self._missing:
            return MigrationError(f"The copy of {relation} has {difference}. {self._target} is unchanged.")
        return MigrationError(
            f"{self._target} already has a table {relation} with {difference}; nothing was changed. Choose another "
            "target, or drop that table there if you do not need it."
        )

    def _require_known_names(self, without: Collection[str]) -> None:
        unknown = sorted(set(without) - {str(r) for r in self._relations(SOURCE) if not self._is_ours(r)})
        if unknown:
            raise MigrationError(
                f"{self._source} has no table or view {unknown[0]} of your own, so it cannot be left out; nothing was "
                "changed. Write it as schema.name."
            )

    def _cannot_move(self, problems: dict[Relation, str]) -> MigrationError:
        shown = [f"{r.kind.lower()} {r} ({why})" for r, why in sorted(problems.items())]
        more = f", and {len(shown) - _SHOWN_PROBLEMS} more" if len(shown) > _SHOWN_PROBLEMS else ""
        options = " ".join(f"--without {quote(str(relation))}" for relation in sorted(problems))
        return MigrationError(
            f"{self._target} cannot have: {'; '.join(shown[:_SHOWN_PROBLEMS])}{more}. Nothing was changed. Change or "
            f"drop these in the source, or leave them out: {options}"
        )

    def _not_kept(self) -> Iterator[str]:
        """Return what the copies of your own tables and schemas lack."""
        database = {"database": SOURCE}
        if not self._keeps_declarations:
            declared = set(self._connection.execute(_CONSTRAINTS_SQL, database).fetchall())
            for relation in self._missing:
                if not self._is_ours(relation) and (relation.schema, relation.name) in declared:
                    yield f"keys, constraints and defaults of {relation}"
        for schema, name in self._connection.execute(_EXTRAS_SQL, database).fetchall():
            yield f"{name} in {schema}"

    def _is_ours(self, relation: Relation) -> bool:
        return relation.schema in self._pipelines and relation.name in RELATIONS

    def _relations(self, database: str) -> Iterator[Relation]:
        rows = self._connection.execute(_RELATIONS_SQL, {"database": database}).fetchall()
        return (Relation(*row) for row in rows)

    def _columns(self, database: str, relation: Relation) -> list[tuple[str, str, bool, str | None]]:
        parameters = {"database": database, "schema": relation.schema, "name": relation.name}
        return self._connection.execute(_COLUMNS_SQL, parameters).fetchall()

    def _types(self, database: str, relation: Relation) -> dict[str, str]:
        return {name: kind for name, kind, _, _ in self._columns(database, relation)}

    def _value(self, query: str, *parameters: object) -> object:
        ((value,),) = self._connection.execute(query, parameters).fetchall()
        return value

    def _execute(self, query: str, relation: Relation) -> list[tuple[int, ...]]:
        try:
            return self._connection.execute(query).fetchall()
        except duckdb.Error as error:
            raise MigrationError(
                f"{self._target} rejects the table {relation}, and is unchanged: {reason(error)}"
            ) from error


def _query(view: Relation) -> str:
    """Return a view's query: what comes before it, such as the schema, depends on the engine."""
    return view.sql.partition(" AS ")[2]


def _require_two_places(source: Warehouse, target: Warehouse) -> None:
    """Raise MigrationError if both are the same place, or if there is nothing to move."""
    if not source.exists:
        raise MigrationError(f"There is no warehouse {source.name} yet, so there is nothing to move.")
    if source.identity == target.identity:
        raise MigrationError(f"{source.name} is both the source and the target; nothing was changed.")


def _require_current_layouts(source: Warehouse) -> None:
    """Raise OutdatedLayoutError or NewerLayoutError unless this version of orpipeline wrote the source's tables."""
    with source.connect(read_only=True) as connection:
        query = "SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = current_database()"
        for (schema,) in connection.execute(query).fetchall():
            layout = Layout(connection, schema)
            layout.require_known_version()
            outdated = layout.outdated()
            if outdated is not None:
                raise outdated
