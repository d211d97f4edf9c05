"""The published copy of the warehouse: a DuckDB file for readers, and Parquet files in the folder `parquet` beside it.

DuckDB admits one process to a file that it writes. A writer therefore copies the warehouse after each commit, while it
still has the lock, and replaces the published file in one step. Readers can keep the published file open: they block
nobody, and see one whole commit. It has all tables and views of the warehouse, yours too.

The copy can also be in an object store. DuckDB then opens a local file, which is downloaded if the copy has changed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from glob import escape as glob_escape
from pathlib import Path, PurePath
from secrets import token_hex
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from orpipeline.contracts.tables import RELATIONS
from orpipeline.files import sync_folder
from orpipeline.warehouse.errors import NoSuchTableError, NotPublishedError, WarehouseError
from orpipeline.warehouse.layout import LAYOUT_TABLE, full_name, literal, quoted
from orpipeline.warehouse.tables import DEFAULT_SCHEMA, Tables

if TYPE_CHECKING:
    from orpipeline.warehouse.stored_copy import StoredCopy

_SCHEMAS_SQL = """
SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal
UNION ALL
SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = current_database() AND NOT internal
ORDER BY ALL
"""


def parquet_folder(published: Path | str, schema: str) -> Path | str:
    """Return the folder of a pipeline's Parquet files, beside the published file, or its URL.

    Several pipelines can share the published file.
    """
    name = "parquet" if schema == DEFAULT_SCHEMA else f"parquet_{schema}"
    return published.with_name(name) if isinstance(published, Path) else f"{published.rpartition('/')[0]}/{name}"


def local_copy(source: Path, published: Path | str) -> Path:
    """Return where the copy of the file `source` is on this machine: the published file, or what is uploaded to it."""
    return published if isinstance(published, Path) else source.parent / "published" / source.name


def copy_file(source: Path, target: Path) -> None:
    """Replace the file `target` by a copy of `source`, in one step. Raises OSError.

    The copy is made by another process: if this one closed any file descriptor of `source`, it would lose DuckDB's lock
    on it. `cp` also copies nothing at all where the file system can share blocks. If nothing was written since the
    last copy, none is made.
    """
    if is_copy(source, target):
        return
    written = source.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A writer has the lock, so these are of killed writers. A `cp` of theirs may still run: each copy has a new name.
    for left in target.parent.glob(f".{glob_escape(target.name)}.publishing-*"):
        left.unlink(missing_ok=True)
    new = target.with_name(f".{target.name}.publishing-{os.getpid()}-{token_hex(4)}")
    try:
        copied = subprocess.run(  # noqa: S603 - no shell, and our own paths
            ["cp", "--", str(source), str(new)],  # noqa: S607 - the user's PATH
            capture_output=True,
            text=True,
            check=False,
        )
        if copied.returncode:
            raise OSError(copied.stderr.strip())
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.utime(new, ns=(written.st_atime_ns, written.st_mtime_ns))
        new.replace(target)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def is_copy(source: Path, target: Path | str) -> bool:
    """Return whether `target` is the copy of `source` as it is now: a copy gets the time of the last write.

    Raises StoreError if `target` is a URL.
    """
    if isinstance(target, str):
        return _stored(target).is_copy_of(source)
    if not (source.exists() and target.exists()):
        return False
    one, other = source.stat(), target.stat()
    return (one.st_mtime_ns, one.st_size) == (other.st_mtime_ns, other.st_size)


def _stored(published: str) -> StoredCopy:
    from orpipeline.warehouse.stored_copy import StoredCopy

    return StoredCopy(published)


class PublishedCopy:
    """The published DuckDB file at `place`, a path or a URL, with the pipeline's tables in `schema`.

    The newest copy in an object store is kept in the folder `cache`.
    """

    def __init__(self, place: Path | str, *, schema: str = DEFAULT_SCHEMA, cache: Path | None = None) -> None:
        self.place = place
        self.schema = schema
        self._cache = cache

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the newest copy, read-only. Raises NotPublishedError if there is none, WarehouseError or StoreError.

        A process that has the file open already gets that older copy from `duckdb.connect`; here it does not.
        """
        with duckdb.connect(":memory:") as connection:
            try:
                self._attach(connection)
                yield connection
            except (duckdb.Error, pl.exceptions.PolarsError) as error:
                reason = " ".join(str(error).split("\n\n")[0].split())
                raise WarehouseError(f"The published copy {self.place} cannot be read: {reason}") from error

    def _attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        # DuckDB names a database after its file. Some names are DuckDB's own.
        stem = PurePath(self.place).stem
        name = quoted("warehouse" if stem in ("main", "memory", "system", "temp") else stem)
        for attempts_left in (2, 1, 0):
            path = self._newest()
            try:
                connection.execute(f"ATTACH {literal(str(path))} AS {name} (READ_ONLY)")
                break
            except duckdb.IOException:
                if path.exists() or not attempts_left:
                    raise
                # Another process has just downloaded a newer copy, and removed this one.
        connection.execute(f"USE {name}; SET TimeZone = 'UTC'")

    def _newest(self) -> Path:
        """Return the path of the newest copy."""
        found: Path | None
        if isinstance(self.place, Path):
            found = self.place if self.place.exists() else None
        else:
            found = self._downloaded(self.place)
        if found is None:
            raise NotPublishedError(
                f"There is no published copy at {self.place} yet. Each run publishes one: use `orpipeline run`, or "
                "`orpipeline rebuild` if there are tables already. If your data is elsewhere, such as the demo's, set "
                "ORPIPELINE_DATA_DIR, or pass `settings`."
            )
        return found

    def _downloaded(self, published: str) -> Path | None:
        if self._cache is None:
            raise TypeError("a copy in an object store needs the folder `cache`")
        try:
            return _stored(published).download(self._cache)
        except OSError as error:
            raise WarehouseError(
                f"Cannot keep the published copy {published} in {self._cache}: {error.strerror}. Free disk space, or "
                "set ORPIPELINE_DATA_DIR to a folder that you can write to."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Open the pipeline's tables for reading. Raises as `connect` does, and NewerLayoutError."""
        with self.connect() as connection:
            tables = Tables(connection, self.schema)
            tables.layout.require_known_version()
            yield tables

    def read(
        self, table: str, *, since: date | None = None, until: date | None = None, scope: str | None = None
    ) -> pl.DataFrame:
        """Return the rows of any table or view, as `orpipeline.read` does."""
        with self.connect() as connection:
            schema, name = _find(connection, self.place, self.schema, table)
            columns = _columns(connection, schema, name)
            conditions, parameters = _conditions(table, columns, since, until, scope)
            tables = Tables(connection, schema)
            if name in RELATIONS and name in tables.layout.ours:
                tables.layout.require_known_version()
                rows = tables.select(name, conditions, parameters).sort(RELATIONS[name].primary_key())
            else:
                order = " ORDER BY as_of" if "as_of" in map(str.lower, columns) else ""
                query = f"SELECT * FROM {full_name(connection, schema, name)} WHERE {conditions}{order}"  # noqa: S608 - quoted
                rows = pl.DataFrame(pl.from_arrow(connection.sql(query, params=parameters).to_arrow_table()))
            if rows.is_empty() and scope is not None:
                _require_scope(connection, full_name(connection, schema, name), table, scope)
            return rows


def _find(connection: duckdb.DuckDBPyConnection, place: Path | str, default: str, table: str) -> tuple[str, str]:
    """Return the schema and name of a table that is written as `table` or `schema.table`, in any case."""
    existing: Sequence[tuple[str, str]] = [
        (schema, name) for schema, name in connection.execute(_SCHEMAS_SQL).fetchall() if name != LAYOUT_TABLE
    ]
    wanted = table.lower()
    found = [(s, n) for s, n in existing if wanted in (n.lower(), f"{s}.{n}".lower())]
    if len(found) > 1:
        found = [(s, n) for s, n in found if s == default] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise NoSuchTableError(f"{place} has several tables {table}. Write one of: {_names(found)}.")
    like = get_close_matches(wanted, [name for _, name in existing], n=1)
    hint = f" Did you mean {like[0]}?" if like else ""
    raise NoSuchTableError(f"{place} has no table or view {table}.{hint} It has: {_names(existing) or 'none'}.")


def _names(tables: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{schema}.{name}" for schema, name in tables)


def _columns(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> list[str]:
    described = connection.execute(f"DESCRIBE {full_name(connection, schema, name)}").fetchall()
    return [column for column, *_ in described]


def _conditions(
    table: str, columns: Sequence[str], since: date | None, until: date | None, scope: str | None
) -> tuple[str, list[object]]:
    """Return an SQL condition and its parameters. Raises NoSuchTableError if it needs a column that is missing."""
    given = [
        ("since", "as_of", "as_of::DATE >= ?", since),
        ("until", "as_of", "as_of::DATE <= ?", until),
        ("scope", "scope", "scope::VARCHAR = ?", scope),
    ]
    used = [(option, column, condition, value) for option, column, condition, value in given if value is not None]
    existing = [column.lower() for column in columns]
    for option, column, _, _ in used:
        if column not in existing:
            raise NoSuchTableError(
                f"{table} has no column {column}, which `{option}` needs. Leave `{option}` out. Its columns are: "
                f"{', '.join(columns)}."
            )
    return " AND ".join(condition for _, _, condition, _ in used) or "true", [value for *_, value in used]


def _require_scope(connection: duckdb.DuckDBPyConnection, full: str, table: str, scope: str) -> None:
    query = f"SELECT DISTINCT scope::VARCHAR FROM {full} WHERE scope IS NOT NULL ORDER BY 1"  # noqa: S608 - quoted
    scopes = [found for (found,) in connection.execute(query).fetchall()]
    if scope not in scopes:
        raise NoSuchTableError(f"{table} has no scope {scope}. Its scopes are: {', '.join(scopes) or 'none'}.")
