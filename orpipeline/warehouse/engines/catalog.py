"""The Postgres database of a lake's catalog: what it says of the lake, and the writers' lock."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from orpipeline import postgres
from orpipeline.errors import NextAttempt
from orpipeline.warehouse.engines.interface import RequireLocked, log
from orpipeline.warehouse.errors import WarehouseBusyError, WarehouseError, WarehouseSetupError

SETTING = "ORPIPELINE_WAREHOUSE"
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
SELECT application_name, host(client_addr), pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE {_OF_OUR_LOCK} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608 - our own constant
_STILL_LOCKED_SQL = f"SELECT 1 FROM pg_locks WHERE {_OF_OUR_LOCK} AND pid = pg_backend_pid()"  # noqa: S608 - ours
# DuckLake keeps its catalog in the schema `public`, whatever the search path is.
_IS_LAKE_SQL = "SELECT to_regclass('public.ducklake_metadata')"
# DuckLake creates the schema `main`, with an id of its own, together with the lake.
_LAKE_ID_SQL = "SELECT schema_uuid FROM public.ducklake_schema WHERE schema_id = 0"
_DATA_PATH_SQL = "SELECT value FROM public.ducklake_metadata WHERE key = 'data_path' AND scope IS NULL"


class Catalog:
    """The database that libpq's connection string `conninfo` names. `name` is the lake's, for messages."""

    def __init__(self, conninfo: str, name: str) -> None:
        self._conninfo = conninfo
        self._name = name

    def data_path(self) -> str | None:
        """Return where the lake keeps its files, or None if there is no lake in the database yet."""
        return self._of_lake(_DATA_PATH_SQL)

    def lake_id(self) -> str | None:
        """Return what only this lake has, or None if there is no lake in the database yet."""
        return self._of_lake(_LAKE_ID_SQL)

    @contextmanager
    def lock(self, seconds: float) -> Iterator[RequireLocked]:
        """Hold the writers' lock until the end of the block. Postgres releases it if this process or its host dies."""
        with self._connect() as connection:
            with self._errors():
                for name, value in _SESSION.items():
                    connection.execute(_SESSION_SQL, [value, name])
                self._acquire(connection, seconds)
            yield partial(self._require_locked, connection)

    def _of_lake(self, query: str) -> str | None:
        with self._connect() as connection, self._errors():
            if _value(connection, _IS_LAKE_SQL) is None:
                return None
            return str(_value(connection, query))

    def _acquire(self, connection: postgres.Connection, seconds: float) -> None:
        from psycopg.errors import LockNotAvailable

        if _value(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
            return
        if seconds > 0:
            log.warning("Waiting up to %g s for the warehouse. %s", seconds, self._busy(connection))
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(max(1, round(seconds * 1000)))])
            try:
                connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            except LockNotAvailable:
                pass
            else:
                return
        raise self._busy(connection)

    def _busy(self, connection: postgres.Connection) -> WarehouseBusyError:
        holder = connection.execute(_HOLDER_SQL, [_LOCK]).fetchone()
        owner = "another process"
        if holder is not None:
            application, host, pid = holder
            owner = f"{application or 'a program'} (from {host or 'the server itself'}, Postgres process {pid})"
        return WarehouseBusyError(
            f"The warehouse {self._name} is locked by {owner}; its tables are unchanged. Wait until that program ends, "
            "or end it. Readers are not affected."
        )

    def _require_locked(self, connection: postgres.Connection) -> None:
        with self._errors():
            if not _value(connection, _STILL_LOCKED_SQL, _LOCK):
                raise WarehouseError(
                    f"The lock on the warehouse {self._name} was lost, so nothing was written. If a connection pooler "
                    "is between this process and Postgres, let it pool sessions, not transactions."
                )

    @contextmanager
    def _connect(self) -> Iterator[postgres.Connection]:
        try:
            connection = postgres.connect(
                self._conninfo, setting=SETTING, application_name=f"orpipeline on {_host()} (PID {os.getpid()})"
            )
        except postgres.PostgresError as error:
            kind = WarehouseSetupError if error.next_attempt is NextAttempt.NEEDS_PERSON else WarehouseError
            raise kind(f"The warehouse cannot be opened; nothing was changed. {error}") from error
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from psycopg import Error

        try:
            yield
        except Error as error:
            raise WarehouseError(
                f"The Postgres server of the warehouse {self._name} failed; nothing was changed. It reports: "
                f"{postgres.first_line(error)}"
            ) from error


def _host() -> str:
    return socket.gethostname()[:30]  # Postgres cuts an application's name at 63 characters


def _value(connection: postgres.Connection, query: Any, *parameters: object) -> object:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None
