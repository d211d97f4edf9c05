"""The DuckDB warehouse: the one place that opens it, and that replaces whole days in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

from orpipeline.contracts.judgement import Seen, check_table
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.errors import OrpipelineError
from orpipeline.settings import LOCK_WAIT_SECONDS
from orpipeline.warehouse.views import VIEW_QUERIES

_log = logging.getLogger(__name__)

SCHEMA = "openrouter"

DUCKDB_TYPES: dict[pl.DataType, str] = {
    pl.Date(): "DATE",
    pl.Int32(): "INTEGER",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.String(): "VARCHAR",
    pl.Datetime("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}
"""The column type that each polars type of the contracts has in DuckDB."""


# Given a file of another kind, DuckDB would look for an extension on the network before it says what is wrong.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false"}


class WarehouseError(OrpipelineError):
    """The warehouse cannot be opened, read or written. What it held, it still holds."""


class WarehouseBusyError(WarehouseError):
    """Another process holds the DuckDB file."""


class OutdatedRowsError(WarehouseError):
    """Rows were not right any more when their turn to be written came."""


class Warehouse:
    """The DuckDB file at `path`, made with its folder at the first write.

    Each method opens the file, does its work and closes it, for one DuckDB file admits one writing process.
    Where another process holds it, a connection waits up to `lock_wait_seconds`.
    """

    def __init__(self, path: Path, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self.path = path
        self.lock_wait_seconds = lock_wait_seconds

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.exists()

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database, and close it whatever happens.

        Raises WarehouseBusyError or WarehouseError; DuckDB's own errors from within become WarehouseError.
        """
        connection = self._open(read_only)
        try:
            # Times are shown in UTC, whatever the machine's time zone is.
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except duckdb.Error as error:
            raise self._error(error) from error
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction: committed at the end, rolled back on any error."""
        with self.connect() as connection:
            connection.begin()
            try:
                yield connection
                connection.commit()
            except BaseException:
                _roll_back(connection)
                raise

    def replace_days(
        self,
        days: Iterable[date],
        tables: Mapping[str, pl.DataFrame],
        *,
        still_right: Callable[[], bool] = lambda: True,
    ) -> dict[str, int]:
        """Replace the rows of `days` in `tables` by the frames' rows, all of it in one transaction.

        The frames (by table name, of the columns that `orpipeline.contracts.tables` says) hold rows of these
        days only. They are held against their contracts first, inserted by column name, and on any error all
        tables keep what they had. Returns, by table name, how many rows it has now.

        `still_right` is asked once no other process can write any more (for which this one may have waited): where it
        says no, nothing is written, and OutdatedRowsError is raised.
        """
        wanted = sorted(set(days))
        for name, frame in tables.items():
            _require_columns(name, frame)
        checked = {name: check_table(name, frame) for name, frame in tables.items()}
        for name, frame in checked.items():
            strays = set(frame["as_of"]) - set(wanted)
            if strays:
                raise WarehouseError(
                    f"Rows of {min(strays)} came for table {name}, which is not a day that is replaced. "
                    "Nothing was written."
                )
        with self.transaction() as connection:
            if not still_right():
                raise OutdatedRowsError("The archive changed while the rows were made. Nothing was written; try again.")
            _create_missing(connection)
            return {name: _replace(connection, name, wanted, frame) for name, frame in checked.items()}

    def read(self, table: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
        """Return the rows of a table or view, of all days or of those from `since` to `until`, sorted by its key.

        Empty, with the table's columns, where nothing was ever written.
        """
        return self._read([table], since, until)[table]

    def read_tables(self, *, since: date | None = None, until: date | None = None) -> dict[str, pl.DataFrame]:
        """Return the rows of all tables, by name, as `read` does, and as they were at one moment."""
        return self._read(list(TABLES), since, until)

    def _read(self, names: Sequence[str], since: date | None, until: date | None) -> dict[str, pl.DataFrame]:
        found = {name: pl.DataFrame(schema=RELATIONS[name].polars_schema()) for name in names}
        if not self.exists:
            return found
        days = [since or date.min, until or date.max]
        with self.connect(read_only=True) as connection:
            connection.begin()  # what is committed meanwhile is in none of them
            for name in found.keys() & existing_relations(connection):
                rows = select_rows(connection, name, "as_of BETWEEN ? AND ?", days)
                found[name] = rows.sort(RELATIONS[name].primary_key())
        return found

    def days(self, table: str = "snapshots") -> list[date]:
        """Return the days that the tables have, as one of them says, oldest first."""
        if not self.exists:
            return []
        with self.connect(read_only=True) as connection:
            if table not in existing_relations(connection):
                return []
            stored = full_name(connection, SCHEMA, table)
            rows = connection.execute(f"SELECT DISTINCT as_of FROM {stored} ORDER BY 1").fetchall()  # noqa: S608 - names of ours
        return [day for (day,) in rows]

    def seen(self, days: Sequence[date]) -> Seen:
        """Return what warnings of new and gone names need: the first day of each tag and macro-category, and
        the names of the days around `days`.
        """
        found = {
            ("task_classifications", "tag"): pl.DataFrame(schema={"as_of": pl.Date, "tag": pl.String}),
            ("macro_categories", "key"): pl.DataFrame(schema={"as_of": pl.Date, "key": pl.String}),
        }
        if self.exists and days:
            with self.connect(read_only=True) as connection:
                existing = existing_relations(connection)
                for (table, name), empty in found.items():
                    if table in existing:
                        rows = _names_around(connection, table, name, days)
                        found[table, name] = pl.DataFrame(rows, schema=empty.schema, orient="row")
        return Seen(*found.values())

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        tries = Retrying(
            retry=retry_if_exception_type(WarehouseBusyError),
            stop=stop_before_delay(self.lock_wait_seconds),
            before_sleep=self._say_wait,
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            reraise=True,
        )
        return tries(self._open_once, read_only)

    def _say_wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            _log.warning("Waiting up to %g s for the warehouse. %s", self.lock_wait_seconds, error)

    def _open_once(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            if not read_only:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return duckdb.connect(self.path, read_only=read_only, config=_CONFIG)
        except duckdb.Error as error:
            raise self._error(error) from error
        except OSError as error:
            raise WarehouseError(
                f"The warehouse's folder {self.path.parent} cannot be made: {error.strerror}. "
                "Set ORPIPELINE_DATA_DIR or ORPIPELINE_WAREHOUSE to a place that can be written."
            ) from error

    def _error(self, error: duckdb.Error) -> WarehouseError:
        said = " ".join(str(error).split("\n\n")[0].split())
        if "Could not set lock" in said or "being used by another process" in said:
            return WarehouseBusyError(
                f"The warehouse {self.path} is held by another process; the tables keep what they had. Close what has "
                f"it open, or wait for it to end. DuckDB says: {said}"
            )
        if "not a valid DuckDB" in said:
            return WarehouseError(
                f"{self.path} is no DuckDB database; it was not touched. Move it away (the tables can be made "
                "again from the raw archive), or set ORPIPELINE_WAREHOUSE to another file."
            )
        return WarehouseError(f"The warehouse {self.path} failed; the tables keep what they had. DuckDB says: {said}")


def _names_around(
    connection: duckdb.DuckDBPyConnection, table: str, name: str, days: Sequence[date]
) -> list[tuple[date, str]]:
    stored = full_name(connection, SCHEMA, table)
    return connection.execute(
        f"SELECT min(as_of), {name} FROM {stored} GROUP BY {name} "  # noqa: S608 - names of ours
        f"UNION SELECT as_of, {name} FROM {stored} WHERE as_of BETWEEN ? AND ?",
        [min(days) - timedelta(days=1), max(days)],
    ).fetchall()


def full_name(connection: duckdb.DuckDBPyConnection, schema: str, *table: str) -> str:
    """Return the full name of a schema, or of a table in it, quoted.

    DuckDB names the catalog after the file. Without the catalog, `openrouter.task_models` is ambiguous in a file
    `openrouter.duckdb`.
    """
    catalog = connection.execute("SELECT current_database()").fetchall()[0][0]
    return ".".join(quoted(name) for name in (catalog, schema, *table))


def select_rows(
    connection: duckdb.DuckDBPyConnection, name: str, condition: str, params: Sequence[object] | Mapping[str, object]
) -> pl.DataFrame:
    """Return the rows of a table or view that meet an SQL condition of ours, in a fixed order, typed by contract."""
    model = RELATIONS[name]
    query = (
        f"SELECT {_names(model.columns())} FROM {full_name(connection, SCHEMA, name)} "  # noqa: S608 - names of ours
        f"WHERE {condition} ORDER BY ALL"
    )
    rows = connection.sql(query, params=params).to_arrow_table()
    return pl.DataFrame(pl.from_arrow(rows), schema_overrides=model.polars_schema())


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def _require_columns(table: str, frame: pl.DataFrame) -> None:
    wanted = TABLES[table].polars_schema()
    wrong = [f"{name} is {dtype}" for name, dtype in frame.schema.items() if wanted.get(name) != dtype]
    lacking = [name for name in wanted if name not in frame.columns]
    if wrong or lacking:
        raise WarehouseError(
            f"The frame for table {table} does not have the table's columns: it lacks {lacking}, and has other columns "
            f"or types: {wrong}. Nothing was written."
        )


def _replace(connection: duckdb.DuckDBPyConnection, name: str, days: list[date], frame: pl.DataFrame) -> int:
    table, columns = full_name(connection, SCHEMA, name), _names(frame.columns)
    if days:
        # The range lets DuckDB pass over whole blocks of other days; the list is exact.
        connection.execute(
            f"DELETE FROM {table} WHERE as_of BETWEEN ? AND ? AND as_of IN (SELECT unnest(?::DATE[]))",  # noqa: S608 - names of ours
            [days[0], days[-1], days],
        ).fetchall()
    connection.register("incoming", frame)
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT {columns} FROM incoming"  # noqa: S608 - names of ours
    ).fetchall()
    connection.unregister("incoming")
    counted = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - a name of ours
    return int(counted[0][0])


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    # A transaction that failed may be over already; closing the connection ends it in any case.
    with suppress(duckdb.Error):
        connection.rollback()


def existing_relations(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the names of the schema's tables and views."""
    rows = connection.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_catalog = current_database() AND table_schema = ?",
        [SCHEMA],
    ).fetchall()
    return {name for (name,) in rows}


def _create_missing(connection: duckdb.DuckDBPyConnection) -> None:
    existing = existing_relations(connection)
    if not existing:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {full_name(connection, SCHEMA)}")
    for name in RELATIONS:
        if name not in existing:
            for statement in _create_statements(full_name(connection, SCHEMA, name), name):
                connection.execute(statement)


def _create_statements(full: str, name: str) -> Iterator[str]:
    """Yield the statements that make a table with its types and primary key, or a view; both with comments."""
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
