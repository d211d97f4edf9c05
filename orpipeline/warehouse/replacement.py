"""A new DuckDB file in place of a damaged or a missing one.

The new file is built beside the old one under a hidden name, and gets the warehouse's name when it is complete. A
damaged file is renamed, never deleted or overwritten. Neither is a file that another process creates in the meantime.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from orpipeline.files import sync_folder
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import WarehouseBusyError, WarehouseError


@contextmanager
def only_rebuild(warehouse: Warehouse) -> Iterator[None]:
    """Let other rebuilds in the warehouse's folder wait until the end, and remove what killed ones left.

    Raises WarehouseBusyError if another one takes longer than the warehouse's `lock_wait_seconds`.
    """
    with _disk_errors(warehouse.path):
        warehouse.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(warehouse.path.parent, os.O_RDONLY)
    try:
        waiting = Retrying(
            retry=retry_if_exception_type(WarehouseBusyError),
            stop=stop_before_delay(warehouse.lock_wait_seconds),
            wait=wait_fixed(0.1),
            reraise=True,
        )
        waiting(_lock, folder, warehouse.path)
        new = new_file(warehouse)
        with suppress(OSError):  # in a folder that cannot be written, a readable warehouse may need no new file
            new.path.unlink(missing_ok=True)
            log_of(new.path).unlink(missing_ok=True)
        yield
    finally:
        os.close(folder)  # unlocks it, too


def new_file(warehouse: Warehouse) -> Warehouse:
    """Return the warehouse in the hidden file that takes the place of another one's file."""
    path = warehouse.path.with_name(f".{warehouse.path.name}.rebuilding")
    return Warehouse(path, schema=warehouse.schema, lock_wait_seconds=warehouse.lock_wait_seconds)


def set_aside(warehouse: Warehouse, now: datetime) -> list[Path]:
    """Rename the warehouse's file and its log to names that do not exist yet, and return their new paths."""
    path = warehouse.path
    stem = f"{path.name}.damaged-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    names = (path.with_name(stem if n == 1 else f"{stem}-{n}") for n in count(1))
    aside = next(name for name in names if not name.exists() and not log_of(name).exists())
    kept = []
    with _disk_errors(path):
        # The log goes first: DuckDB would apply it to another file of the same name.
        for old, new in ((log_of(path), log_of(aside)), (path, aside)):
            if old.exists():
                old.rename(new)
                kept.append(new)
    return kept


def put_in_place(new: Warehouse, warehouse: Warehouse) -> bool:
    """Give the complete file `new` the name of the warehouse's file, which does not exist.

    Returns False if another process has just created that file: it stays, and `new` is removed.
    """
    with _disk_errors(warehouse.path):
        try:
            warehouse.path.hardlink_to(new.path)  # unlike a rename, this never replaces a file
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            new.path.rename(warehouse.path)
        finally:
            new.path.unlink(missing_ok=True)
        sync_folder(warehouse.path.parent)
    return True


def log_of(path: Path) -> Path:
    """Return the path of the log that DuckDB keeps beside a database file."""
    return path.with_name(f"{path.name}.wal")


def _lock(folder: int, path: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WarehouseBusyError(
            f"Another `orpipeline rebuild` is running in {path.parent}; {path} is unchanged. Wait until it ends."
        ) from None


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            f"Cannot replace the warehouse {path}: {error.strerror}. Free disk space or fix the permissions of its "
            "folder."
        ) from error
