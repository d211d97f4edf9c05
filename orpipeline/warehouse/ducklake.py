"""A DuckLake: its catalog in Postgres, its Parquet files in a folder or an object store. Many processes can write it.

DuckLake rejects one of two commits at the same time, even of different days, so writers take turns by an advisory lock
in the catalog's database. Readers see the last commit, and neither wait nor keep a writer waiting. DuckDB's extensions
come from the wheels that the extra `lake` installs; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb

from orpipeline import postgres
from orpipeline.errors import NextAttempt, StoreError, WarehouseBusyError, WarehouseError
from orpipeline.network import require_allowed
from orpipeline.stores import Store
from orpipeline.warehouse.duckdb_file import CONFIG, log, reason
from orpipeline.warehouse.schema import literal

DATABASE = "lake"
"""The name under which connections have the lake, as in `lake.openrouter.task_models`."""
LAKE_DUCKDB = "1.5.5"
"""The DuckDB that the extra `lake` brings. A test compares it with `pyproject.toml`."""
_PREFIX = "ducklake:postgres:"
_SETTING = "ORPIPELINE_WAREHOUSE"
_EXTENSIONS = ("ducklake", "postgres_scanner")
# Loads extensions without checking their signatures, for which DuckDB reads 80 MB: 0.6 s each time. They come from
# wheels as DuckDB itself does, and whoever could replace them there could replace DuckDB, too.
_UNSIGNED = {"allow_unsigned_extensions": "true"}
_SIGNS_OF_A_MISSING_FILE = ("no files found that match", "cannot open file", "http code 404")
_SIGNS_OF_NO_PLACE = ("failed to create directory", "permission denied", "nosuchbucket", "http code 403")
# Postgres keeps advisory locks of different databases apart.
_LOCK = int.from_bytes(hashlib.sha256(b"orpipeline: writing the warehouse").digest()[:8], "big", signed=True)
_SESSION = {
    # The server notices within a minute that the lock's holder has lost its machine or its network.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # The connection is idle while it holds the lock, and busy while it waits for it.
    "idle_session_timeout": "0",
    "statement_timeout": "0",
}
_SESSION_SQL = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"  # older servers lack some
_OF_OUR_LOCK = "locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s AND granted"
_HOLDER_SQL = f"""
SELECT concat(coalesce(nullif(application_name, ''), 'a program'), ' (from ',
    coalesce(host(client_addr), 'the server itself'), ', Postgres process ', pid, ')')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE {_OF_OUR_LOCK} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608 - our own constant
# DuckLake keeps its catalog in the schema `public`, whatever the search path is.
_IS_LAKE_SQL = "SELECT to_regclass('public.ducklake_metadata')"


class DuckLake:
    """The lake `place`, which is `ducklake:postgres:` and libpq's connection string, with its files in `data`."""

    def __init__(
        self, place: str, *, data: Path | str, lock_wait_seconds: float, connection_config: Mapping[str, Any]
    ) -> None:
        self.name = place
        self._data = data
        self._lock_wait_seconds = lock_wait_seconds
        # Without a file of its own, DuckDB would put what does not fit in memory into the current folder.
        temporary = {"temp_directory": str(Path(tempfile.gettempdir(), "orpipeline-duckdb"))}
        self._config = {**CONFIG, **_UNSIGNED, **temporary, **connection_config}

    @property
    def exists(self) -> bool:
        """Whether the catalog's database has a lake."""
        with self._catalog() as connection, self._catalog_errors():
            return _value(connection, _IS_LAKE_SQL) is not None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of all writers on all hosts. Postgres releases it if this process or its host dies."""
        with self._catalog() as connection:
            with self._catalog_errors():
                for name, value in _SESSION.items():
                    connection.execute(_SESSION_SQL, [value, name])
                self._acquire(connection)
            yield

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Attach the lake. Unless `read_only`, it is created if there is none; the caller has the lock then."""
        connection = duckdb.connect(":memory:", config=self._config)
        try:
            self._attach(connection, read_only=read_only)
        except BaseException as error:
            connection.close()
            if isinstance(error, duckdb.Error):
                raise self.error(error) from error
            raise
        return connection

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's."""
        reported = reason(error)
        unchanged = f"its tables are unchanged. DuckLake reports: {reported}"
        lower = str(error).lower()  # what a store sent is not in the first paragraph
        if any(sign in lower for sign in _SIGNS_OF_NO_PLACE):
            return WarehouseError(
                f"The lake {self.name} cannot use {self._data}. Check that the folder or bucket exists and that you "
                f"can write to it (ORPIPELINE_LAKE_DATA); {unchanged}"
            )
        if any(sign in lower for sign in _SIGNS_OF_A_MISSING_FILE):
            return WarehouseError(
                f"The lake {self.name} lacks files in {self._data} that its catalog lists. Restore them from a backup, "
                "or set ORPIPELINE_WAREHOUSE and ORPIPELINE_LAKE_DATA to an empty database and an empty place, and run "
                f"`orpipeline rebuild`; {unchanged}"
            )
        return WarehouseError(f"The lake {self.name} failed; {unchanged}", next_attempt=NextAttempt.TRANSIENT)

    def _attach(self, connection: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        needed_for = f"The warehouse {self.name}"
        for extension in _EXTENSIONS:
            _load_extension(connection, extension, needed_for)
        if isinstance(self._data, str):
            _load_extension(connection, "httpfs", f"ORPIPELINE_LAKE_DATA={self._data}")
            _create_secret(connection, self._data)
        if not read_only and not self.exists:
            self._require_writable_place()
        options = f"DATA_PATH {literal(f'{self._data}/')}" + (", READ_ONLY" if read_only else "")
        # DuckDB's own connection would wait for a lost server for two hours, while this process has the writers' lock.
        place = _PREFIX + postgres.with_limits(self._conninfo, setting=_SETTING)
        connection.execute(f"ATTACH {literal(place)} AS {DATABASE} ({options})")
        connection.execute(f"USE {DATABASE}")

    def _require_writable_place(self) -> None:
        """Raise WarehouseError before a new lake's catalog stores, for good, a place that cannot be written to."""
        store = Store(self._data, setting="ORPIPELINE_LAKE_DATA")
        try:
            store.replace({"orpipeline-test": b""})
            store.remove("orpipeline-test")
        except StoreError as error:
            message = f"The lake {self.name} was not created. {error}"
            raise WarehouseError(message, next_attempt=error.next_attempt) from error

    # The catalog's database

    @property
    def _conninfo(self) -> str:
        return self.name.removeprefix(_PREFIX)

    def _acquire(self, connection: postgres.Connection) -> None:
        from psycopg.errors import LockNotAvailable

        if _value(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
            return
        seconds = self._lock_wait_seconds
        if seconds > 0:
            log.warning("Waiting up to %g s for the warehouse. %s", seconds, self._busy(connection))
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(max(1, round(seconds * 1000)))])
            with suppress(LockNotAvailable):
                connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
                return
        raise self._busy(connection)

    def _busy(self, connection: postgres.Connection) -> WarehouseBusyError:
        owner = _value(connection, _HOLDER_SQL, _LOCK) or "another process"
        return WarehouseBusyError(
            f"The warehouse {self.name} is locked by {owner}; its tables are unchanged. Wait until that program ends, "
            "or end it. Readers are not affected."
        )

    @contextmanager
    def _catalog(self) -> Iterator[postgres.Connection]:
        for name in _EXTENSIONS:  # a missing extra is reported before anything is opened
            _extension_path(name, f"The warehouse {self.name}")
        owner = f"orpipeline on {socket.gethostname()[:30]} (PID {os.getpid()})"  # Postgres cuts it at 63 characters
        try:
            connection = postgres.connect(self._conninfo, setting=_SETTING, application_name=owner)
        except StoreError as error:
            message = f"The warehouse cannot be opened; nothing was changed. {error}"
            raise WarehouseError(message, next_attempt=error.next_attempt) from error
        with closing(connection):
            yield connection

    @contextmanager
    def _catalog_errors(self) -> Iterator[None]:
        from psycopg import Error

        try:
            yield
        except Error as error:
            raise WarehouseError(
                f"The Postgres server of the warehouse {self.name} failed; nothing was changed. It reports: "
                f"{postgres.first_line(error)}",
                next_attempt=NextAttempt.TRANSIENT,
            ) from error


def extension_file(name: str) -> Path | None:
    """Return the file of an extension for the installed DuckDB, or None if it is not installed."""
    try:
        folder = Path(str(files(f"duckdb_extension_{name}")))
    except ModuleNotFoundError:
        return None
    path = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return path if path.is_file() else None


def _extension_path(name: str, needed_for: str) -> Path:
    path = extension_file(name)
    if path is None:
        raise WarehouseError(
            f"{needed_for} needs DuckDB's extension {name}, which is not installed for DuckDB {duckdb.__version__}; "
            "nothing was changed. Install `orpipeline[lake]` in an environment of its own: it brings DuckDB "
            f"{LAKE_DUCKDB}."
        )
    return path


def _load_extension(connection: duckdb.DuckDBPyConnection, name: str, needed_for: str) -> None:
    # `INSTALL` would copy the file into the home folder first.
    connection.execute(f"LOAD {literal(str(_extension_path(name, needed_for)))}")


def _create_secret(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    """Give the connection, and nothing that lasts longer, the environment's access to the bucket of `url`."""
    scheme, bucket = urlsplit(url)[:2]
    if scheme != "s3":
        raise WarehouseError(
            f"A lake cannot keep its files in {scheme}://; nothing was changed. Set ORPIPELINE_LAKE_DATA to a folder "
            "or s3://."
        )
    if not (_variable("AWS_ACCESS_KEY_ID") and _variable("AWS_SECRET_ACCESS_KEY")):
        raise WarehouseError(
            "DuckDB needs a key for a lake's files in an object store; nothing was changed. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY: a machine's or a pod's role does not reach DuckDB."
        )
    region = _variable("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = urlsplit(_variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") or "")
    require_allowed(endpoint.hostname or f"{bucket}.s3.{region}.amazonaws.com")
    options = {
        "KEY_ID": _variable("AWS_ACCESS_KEY_ID"),
        "SECRET": _variable("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": _variable("AWS_SESSION_TOKEN"),
        "REGION": region,
        "SCOPE": f"s3://{bucket}",
    }
    if endpoint.netloc:
        options |= {"ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"), "URL_STYLE": "path"}
        options["USE_SSL"] = str(endpoint.scheme == "https").lower()
    given = ", ".join(f"{name} {literal(value)}" for name, value in options.items() if value)
    try:
        connection.execute(f"CREATE TEMPORARY SECRET orpipeline_lake (TYPE s3, {given})")
    except duckdb.Error:
        # DuckDB's message may quote the statement, and so the key.
        raise WarehouseError(
            "DuckDB rejects the object store's variables (AWS_ACCESS_KEY_ID and others); nothing was changed."
        ) from None


def _variable(*names: str) -> str | None:
    return next((value for value in map(os.environ.get, names) if value), None)


def _value(connection: postgres.Connection, query: Any, *parameters: object) -> object:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None
