"""What an engine does for the warehouse. Everything else, above all the SQL, is the same for all engines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import duckdb

from orpipeline.warehouse.errors import WarehouseError

log = logging.getLogger("orpipeline.warehouse")

# Given a file of another kind, DuckDB would look for an extension on the network before it reports an error.
CONFIG: Mapping[str, Any] = {"autoinstall_known_extensions": "false"}

RequireLocked = Callable[[], None]
"""Raises WarehouseError if the lock was lost: then another writer may have it."""


class Engine(Protocol):
    """A place for the tables, which DuckDB opens."""

    @property
    def name(self) -> str:
        """How messages name the place. Never contains a password."""

    @property
    def identity(self) -> object:
        """What the place is, however it is spelled: equal for two names of one place. Raises WarehouseError."""

    @property
    def exists(self) -> bool:
        """Whether the place exists: the first write creates it. Raises WarehouseError."""

    def check(self) -> None:
        """Raise WarehouseError if the place cannot be used, as far as that shows before the first write."""

    def lock(self) -> AbstractContextManager[RequireLocked]:
        """Wait until no other process or thread writes, and keep them out. Raises WarehouseBusyError."""

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the place as the connection's current database. Raises WarehouseError."""

    def attach(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Attach the place read-only to another one's connection, as the database `name`. Raises as `connect` does."""

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's."""

    def publish(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Publish a copy for readers after a commit, while the lock is held. Raises OSError or DuckDB's errors."""


def opened(
    config: Mapping[str, Any], set_up: Callable[[duckdb.DuckDBPyConnection], object]
) -> duckdb.DuckDBPyConnection:
    """Return a connection without a file, after `set_up`. If that raises an error, the connection is closed."""
    connection = duckdb.connect(":memory:", config=dict(config))
    try:
        set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def reason(error: duckdb.Error) -> str:
    """Return DuckDB's own message, in one line."""
    return " ".join(str(error).split("\n\n")[0].split())
