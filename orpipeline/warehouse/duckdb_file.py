"""A DuckDB file: one process at a time can write it, or any number can read it."""

from __future__ import annotations

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

from orpipeline.errors import DamagedWarehouseError, WarehouseBusyError, WarehouseError
from orpipeline.stores import sync

log = logging.getLogger("orpipeline.warehouse")
# Given a file of another kind, DuckDB would look for an extension on the network before it reports an error.
CONFIG: Mapping[str, Any] = {"autoinstall_known_extensions": "false"}
# DuckDB 2.0's own format cannot be read by 1.5, which DuckLake's extensions still need.
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
# Only what a newer DuckDB, or more memory or disk space, would not read either.
_SIGNS_OF_DAMAGE = (
    "not a valid DuckDB",
    "Corrupt database file",
    "Corrupt WAL file",
    "data may be corrupt",
    "Could not read enough bytes",
)


class DuckDBFile:
    """The DuckDB file at `path`. Messages name the copy `published`, which programs that only read can open."""

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
    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep this process's other threads out. DuckDB itself locks the file against other processes."""
        lock = _WRITING[self.path]
        if not lock.acquire(timeout=self._lock_wait_seconds):
            raise self._busy("another thread of this process")
        try:
            yield
        finally:
            lock.release()

    def connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the file, and wait while another process has locked it."""
        attempts = Retrying(
            retry=retry_if_exception_type(WarehouseBusyError),
            stop=stop_before_delay(self._lock_wait_seconds),
            before_sleep=self._log_wait,
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            reraise=True,
        )
        return attempts(self._connect_once, read_only)

    def error(self, error: duckdb.Error) -> WarehouseError:
        """Return the warehouse's error for one of DuckDB's: locked, damaged or another one."""
        reported = reason(error)
        for sign, owner in _SIGNS_OF_A_LOCK.items():
            if sign in reported:
                holder = _HOLDER.search(reported)
                return self._busy(holder[1] if holder else owner)
        if any(sign in reported for sign in _SIGNS_OF_DAMAGE):
            return DamagedWarehouseError(
                f"The warehouse {self.path} is damaged, or is not a DuckDB database; it was not touched. The next run "
                "keeps it aside and loads a new one from the archive, as `orpipeline rebuild` does now. "
                f"DuckDB reports: {reported}"
            )
        return WarehouseError(f"The warehouse {self.path} failed; its tables are unchanged. DuckDB reports: {reported}")

    def set_aside(self, now: datetime) -> Path | None:
        """Rename the file and its log if the file is damaged, and return its new path; None if it is intact by now."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=self._lock_wait_seconds):
                with suppress(WarehouseError):  # another process may have replaced it
                    self.connect(read_only=True).close()
                    return None
                # The log goes first: DuckDB would apply it to another file of the same name.
                for old, new in ((log_of(self.path), log_of(aside)), (self.path, aside)):
                    if old.exists():
                        old.rename(new)
                sync(self.path.parent)
                return aside
        except (OSError, Timeout) as error:
            raise WarehouseError(
                f"Cannot keep the damaged warehouse {self.path} aside: {getattr(error, 'strerror', None) or error}. "
                "Free disk space or fix the permissions of its folder."
            ) from error

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
        use = f"open {self._published}" if isinstance(self._published, Path) else "use `orpipeline.read`"
        instead = f" Programs that only read can {use} instead, which locks nothing." if self._published else ""
        return WarehouseBusyError(
            f"The warehouse {self.path} is locked by {owner}; its tables are unchanged. Close the program that has it "
            f"open, or wait until it does so.{instead}"
        )


def log_of(path: Path) -> Path:
    """Return the path of the log that DuckDB keeps beside a database file."""
    return path.with_name(f"{path.name}.wal")


def reason(error: Exception) -> str:
    """Return DuckDB's own message, in one line."""
    return " ".join(str(error).split("\n\n")[0].split())
