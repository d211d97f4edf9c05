"""MotherDuck: DuckDB as a service. Only what happens without the service is tested."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

from orpipeline import network
from orpipeline.warehouse.engines.extensions import extension_path
from orpipeline.warehouse.engines.interface import CONFIG, RequireLocked, opened, reason
from orpipeline.warehouse.errors import WarehouseBusyError, WarehouseError, WarehouseSetupError
from orpipeline.warehouse.layout import literal, quoted

_HOST = "api.motherduck.com"
_TOKENS = ("MOTHERDUCK_TOKEN", "motherduck_token")
_WRITING = threading.RLock()


class MotherDuck:
    """The MotherDuck database `md:database`, which must exist. The token is in MOTHERDUCK_TOKEN.

    MotherDuck has no lock that writers could wait for. Writes at the same time end with its own conflict error, or with
    DuplicateRowsError, and not with wrong figures.
    """

    def __init__(self, place: str, *, lock_wait_seconds: float, connection_config: Mapping[str, Any]) -> None:
        self.name = place
        self._lock_wait_seconds = lock_wait_seconds
        self._config = {**CONFIG, **connection_config}

    @property
    def identity(self) -> object:
        """The name, which is the only one."""
        return self.name

    @property
    def exists(self) -> bool:
        """True: MotherDuck's databases are created there."""
        return True

    def check(self) -> None:
        """Attach the database once."""
        self.connect(read_only=True).close()

    @contextmanager
    def lock(self) -> Iterator[RequireLocked]:
        """Keep this process's other threads out."""
        if not _WRITING.acquire(timeout=self._lock_wait_seconds):
            raise WarehouseBusyError(f"The warehouse {self.name} is locked by another thread of this process.")
        try:
            yield lambda: None
        finally:
            _WRITING.release()

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:  # noqa: ARG002 - MotherDuck decides by the token
        """Attach the database. Raises WarehouseSetupError without the extension or the token."""
        try:
            return opened(self._config, self._use)
        except duckdb.Error as error:
            raise self.error(error) from error

    def attach(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Attach the database read-only to another place's connection."""
        self._load(connection)
        connection.execute(f"ATTACH {literal(self.name)} AS {name} (READ_ONLY)")

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's."""
        return WarehouseError(
            f"The warehouse {self.name} failed; its tables are unchanged. MotherDuck reports: {reason(error)}"
        )

    def publish(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Do nothing: readers open MotherDuck itself."""

    def _use(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._load(connection)
        connection.execute(f"ATTACH {literal(self.name)}")
        connection.execute(f"USE {quoted(self.name.removeprefix('md:'))}")

    def _load(self, connection: duckdb.DuckDBPyConnection) -> None:
        wheel = extension_path("motherduck")
        try:
            connection.execute(f"LOAD {literal(str(wheel))}" if wheel else "LOAD motherduck")
        except duckdb.Error as error:
            raise WarehouseSetupError(
                f"The warehouse {self.name} needs DuckDB's extension motherduck, which is not installed for DuckDB "
                f"{duckdb.__version__}; nothing was changed. Run `INSTALL motherduck` once in DuckDB, or install the "
                "package duckdb-extension-motherduck."
            ) from error
        if not any(os.environ.get(name) for name in _TOKENS):
            raise WarehouseSetupError(
                f"The warehouse {self.name} needs MotherDuck's token; nothing was changed. Set MOTHERDUCK_TOKEN."
            )
        network.require_allowed(_HOST)
