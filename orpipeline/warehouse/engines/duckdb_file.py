"""A DuckDB file: one process at a time can write it, or any number can read it."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

from orpipeline.warehouse.engines.interface import CONFIG, RequireLocked, log, reason
from orpipeline.warehouse.errors import DamagedWarehouseError, WarehouseBusyError, WarehouseError, WarehouseSetupError
from orpipeline.warehouse.layout import literal
from orpipeline.warehouse.published import copy_file, local_copy

# DuckDB 2.0's own format cannot be read by 1.5, which DuckLake's extensions still need. `orpipeline migrate` reads the
# file with it. An existing file keeps its format.
_FORMAT = {"storage_compatibility_version": "v1.5.0"}
_HOLDER = re.compile(r"Conflicting lock is held in (.+? \(PID \d+\))")
# DuckDB's lock does not separate the threads of one process.
_WRITING: defaultdict[Path, threading.RLock] = defaultdict(threading.RLock)
# In one process, DuckDB does not open a file for reading while it is open for writing, or the reverse.
_SIGNS_OF_A_LOCK = {
    "Could not set lock": "another process",
    "being used by another process": "another process",
    "different configuration than existing connections": "another thread of this process",
}
_SIGN_OF_ANOTHER_FORMAT = "database file with version number"
# Only what a newer DuckDB, or more memory or disk space, would not read either.
_SIGNS_OF_DAMAGE = (
    "not a valid DuckDB",
    "Corrupt database file",
    "Corrupt WAL file",
    "data may be corrupt",
    "Could not read enough bytes",
)


class DuckDBFile:
    """The DuckDB file at `path`. If `published` is a place, each commit publishes a copy of the file there."""

    def __init__(
        self,
        path: Path,
        *,
        lock_wait_seconds: float,
        published: Path | str | None,
        connection_config: Mapping[str, Any],
    ) -> None:
        self.path = path
        self._lock_wait_seconds = lock_wait_seconds
        self._published = published
        self._config = {**CONFIG, **_FORMAT, **connection_config}

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def identity(self) -> object:
        """The file, without links."""
        return self.path.resolve()

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.exists()

    def check(self) -> None:
        """Do nothing: what is wrong with a file on this machine is not known before it is written."""

    @contextmanager
    def lock(self) -> Iterator[RequireLocked]:
        """Keep this process's other threads out. DuckDB itself locks the file against other processes."""
        lock = _WRITING[self.path]
        if not lock.acquire(timeout=self._lock_wait_seconds):
            raise self._busy("another thread of this process")
        try:
            yield lambda: None
        finally:
            lock.release()

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the file, and wait while another process has locked it."""
        return self._attempts()(self._connect_once, read_only)

    def attach(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Attach the file read-only to another place's connection, and wait while another process has locked it."""
        self._attempts()(self._attach_once, connection, name)

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's: locked, damaged or another one."""
        reported = reason(error)
        for sign, owner in _SIGNS_OF_A_LOCK.items():
            if sign in reported:
                holder = _HOLDER.search(reported)
                return self._busy(holder[1] if holder else owner)
        if any(sign in reported for sign in _SIGNS_OF_DAMAGE):
            return DamagedWarehouseError(
                f"The warehouse {self.path} is damaged, or is not a DuckDB database; it was not touched. Run "
                "`orpipeline rebuild`, which keeps it aside and restores the tables from the archive, or set "
                f"ORPIPELINE_WAREHOUSE to another file. DuckDB reports: {reported}"
            )
        if _SIGN_OF_ANOTHER_FORMAT in reported:
            return WarehouseSetupError(
                f"DuckDB {duckdb.__version__} cannot read the format of the warehouse {self.path}, which is unchanged. "
                "In an environment with the DuckDB that wrote it, run `orpipeline migrate --to FILE`, and set "
                f"ORPIPELINE_WAREHOUSE to the new file. DuckDB reports: {reported}"
            )
        return WarehouseError(f"The warehouse {self.path} failed; its tables are unchanged. DuckDB reports: {reported}")

    def publish(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Replace the copy on this machine: the published file, or the one from which it is uploaded."""
        if self._published is not None:
            connection.execute("CHECKPOINT")  # all of it is then in the file itself
            copy_file(self.path, local_copy(self.path, self._published))

    def _attempts(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(WarehouseBusyError),
            stop=stop_before_delay(self._lock_wait_seconds),
            before_sleep=self._log_wait,
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            reraise=True,
        )

    def _attach_once(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        try:
            connection.execute(f"ATTACH {literal(str(self.path))} AS {name} (READ_ONLY)")
        except duckdb.Error as error:
            raise self.error(error) from error

    def _connect_once(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            if not read_only:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return duckdb.connect(self.path, read_only=read_only, config=self._config)
        except duckdb.Error as error:
            raise self.error(error) from error
        except OSError as error:
            raise WarehouseError(
                f"Cannot create the warehouse's folder {self.path.parent}: {error.strerror}. "
                "Set ORPIPELINE_DATA_DIR or ORPIPELINE_WAREHOUSE to a place that you can write to."
            ) from error

    def _log_wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1:
            log.warning("Waiting up to %g s for the warehouse. %s", self._lock_wait_seconds, error)

    def _busy(self, owner: str) -> WarehouseBusyError:
        # DuckDB's own message advises to open the file read-only, which still blocks writers.
        verb = "open" if isinstance(self._published, Path) else "use `orpipeline.read`, which gets"
        instead = (
            f" Programs that only read can {verb} {self._published} instead, which locks nothing."
            if self._published
            else ""
        )
        return WarehouseBusyError(
            f"The warehouse {self.path} is locked by {owner}; its tables are unchanged. Close the program that has it "
            f"open, or wait until it does so.{instead}"
        )
