"""A DuckLake: its catalog in Postgres, its Parquet files in a folder or an object store. Many processes can write it.

DuckLake rejects one of two commits at the same time, even of different days, so writers take turns by a lock in the
catalog's database. Readers see the last commit, and neither wait nor keep a writer waiting.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from orpipeline import postgres
from orpipeline.stores import require_writable
from orpipeline.warehouse.engines.extensions import UNSIGNED, extension_path, load_extension, missing_extension
from orpipeline.warehouse.engines.interface import CONFIG, RequireLocked, opened, reason
from orpipeline.warehouse.engines.object_store import create_secret
from orpipeline.warehouse.errors import WarehouseError, WarehouseSetupError
from orpipeline.warehouse.layout import literal

if TYPE_CHECKING:
    from orpipeline.warehouse.engines.catalog import Catalog

DATABASE = "lake"
"""The name under which connections have the lake, as in `lake.openrouter.task_models`."""
_PREFIX = "ducklake:postgres:"
_SETTING = "ORPIPELINE_WAREHOUSE"
_EXTENSIONS = ("ducklake", "postgres_scanner")
_VERSIONS = re.compile(r"catalog version is (\S+), but the extension requires version ([\w.]+?)\.? ")
_SIGNS_OF_A_CONFLICT = ("transaction conflict", "another transaction has", "failed to commit ducklake transaction")
_SIGNS_OF_A_MISSING_FILE = ("no files found that match", "cannot open file", "http code 404")
_SIGNS_OF_NO_PLACE = ("failed to create directory", "permission denied", "nosuchbucket", "http code 403")


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
        self._config = {**CONFIG, **UNSIGNED, **temporary, **connection_config}

    @property
    def identity(self) -> object:
        """The lake's id in its catalog: one host can have several names."""
        return self._catalog.lake_id()

    @property
    def exists(self) -> bool:
        """Whether the catalog's database has a lake."""
        return self._catalog.data_path() is not None

    def check(self) -> None:
        """Attach the lake if there is one, and write a small object to its store, or create its folder."""
        if self.exists:
            self.connect(read_only=True).close()
        if isinstance(self._data, str):
            require_writable(self._data, setting="ORPIPELINE_LAKE_DATA")
            opened(self._config, self._open_store).close()
        self._create_folder()

    @contextmanager
    def lock(self) -> Iterator[RequireLocked]:
        """Hold the lock of all writers on all hosts."""
        with self._catalog.lock(self._lock_wait_seconds) as require_locked:
            yield require_locked

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Attach the lake. Unless `read_only`, it is created if there is none; the caller has the lock then."""
        stored = self._catalog.data_path()
        if stored is not None and stored.rstrip("/") != self._data_path.rstrip("/"):
            raise WarehouseSetupError(
                f"The lake {self.name} keeps its files in {stored}, and ORPIPELINE_LAKE_DATA is {self._data}; nothing "
                "was changed. Set ORPIPELINE_LAKE_DATA to the former."
            )
        if not read_only:
            self._create_folder()
        try:
            return opened(self._config, partial(self._use, read_only=read_only))
        except duckdb.Error as error:
            raise self.error(error) from error

    def attach(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Attach the lake read-only to another place's connection."""
        self._attach(connection, name, read_only=True)

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's."""
        reported = reason(error)
        unchanged = f"its tables are unchanged. DuckLake reports: {reported}"
        versions = _VERSIONS.search(reported)
        if versions:
            return WarehouseSetupError(
                f"The lake {self.name} has version {versions[1]} of DuckLake's catalog, and the installed extension "
                f"needs {versions[2]}; nothing was changed. Install the version of `orpipeline[lake]` that the lake's "
                "other users have, or use another database."
            )
        lower = str(error).lower()  # what a store answered is not in the first paragraph
        if any(sign in lower for sign in _SIGNS_OF_A_CONFLICT):
            return WarehouseError(
                f"Another program wrote to the lake {self.name} at the same time without orpipeline's lock; {unchanged}"
            )
        if any(sign in lower for sign in _SIGNS_OF_NO_PLACE):
            return WarehouseSetupError(
                f"The lake {self.name} cannot use {self._data}. Check that the folder or bucket exists and that you "
                f"can write to it (ORPIPELINE_LAKE_DATA); {unchanged}"
            )
        if any(sign in lower for sign in _SIGNS_OF_A_MISSING_FILE):
            return WarehouseSetupError(
                f"The lake {self.name} lacks files in {self._data} that its catalog lists. Restore them from a backup, "
                "or set ORPIPELINE_WAREHOUSE and ORPIPELINE_LAKE_DATA to an empty database and an empty place, and run "
                f"`orpipeline rebuild`; {unchanged}"
            )
        return WarehouseError(f"The lake {self.name} failed; {unchanged}")

    def publish(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Do nothing: readers open the lake itself."""

    @cached_property
    def _catalog(self) -> Catalog:
        for name in _EXTENSIONS:
            if extension_path(name) is None:
                raise WarehouseSetupError(missing_extension(name, f"The warehouse {self.name}"))
        if find_spec("psycopg") is None:
            raise WarehouseSetupError(
                f"The warehouse {self.name} needs psycopg; nothing was changed. Install `orpipeline[lake]`."
            )
        from orpipeline.warehouse.engines.catalog import Catalog

        return Catalog(self.name.removeprefix(_PREFIX), self.name)

    @property
    def _data_path(self) -> str:
        return f"{self._data}/"

    def _create_folder(self) -> None:
        if not isinstance(self._data, Path):
            return
        try:
            self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problem = error.strerror
        else:
            problem = None if os.access(self._data, os.W_OK | os.X_OK) else "Permission denied"
        if problem:
            raise WarehouseSetupError(
                f"The lake {self.name} cannot write to {self._data}: {problem}; nothing was changed. Set "
                "ORPIPELINE_LAKE_DATA to a folder that you can write to."
            )

    def _open_store(self, connection: duckdb.DuckDBPyConnection) -> None:
        if isinstance(self._data, str):
            load_extension(connection, "httpfs", needed_for=f"ORPIPELINE_LAKE_DATA={self._data}")
            create_secret(connection, self._data)

    def _use(self, connection: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        self._attach(connection, DATABASE, read_only=read_only)
        connection.execute(f"USE {DATABASE}")

    def _attach(self, connection: duckdb.DuckDBPyConnection, name: str, *, read_only: bool) -> None:
        for extension in _EXTENSIONS:
            load_extension(connection, extension, needed_for=f"The warehouse {self.name}")
        self._open_store(connection)
        options = f"DATA_PATH {literal(self._data_path)}" + (", READ_ONLY" if read_only else "")
        # DuckDB's own connection would wait for a lost server for two hours, while this process has the writers' lock.
        place = _PREFIX + postgres.with_limits(self.name.removeprefix(_PREFIX), setting=_SETTING)
        connection.execute(f"ATTACH {literal(place)} AS {name} ({options})")
