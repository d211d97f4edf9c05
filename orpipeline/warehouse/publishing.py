"""Publishing: a DuckDB file for readers, Parquet files in the folder `parquet` beside it, and what describes both.

DuckDB admits one process to a file that it writes. A writer therefore copies the warehouse after each commit, while it
still has the lock, and replaces the published file in one step. Readers can keep the published file open: they block
nobody, and see one whole commit. It has all tables and views of the warehouse, yours too.

With an object store, the copy is made on this machine, and uploaded before it replaces the one from before.
"""

from __future__ import annotations

import os
import subprocess
from datetime import date, timedelta
from glob import escape as glob_escape
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import duckdb

from orpipeline.clock import utc_now
from orpipeline.contracts.tables import EXPORTED
from orpipeline.stores import Store, sync
from orpipeline.warehouse.description import Described, description
from orpipeline.warehouse.duckdb_file import log, log_of
from orpipeline.warehouse.schema import DEFAULT_SCHEMA
from orpipeline.warehouse.tables import Tables

SETTING = "ORPIPELINE_REPORTS"


def publish_copy(connection: duckdb.DuckDBPyConnection, source: Path, published: Path | str) -> None:
    """Replace the published file by a copy of `source`, which `connection` has open, unless it is current.

    The copy is read-only: a reader that opened it for writing would leave a log beside it, which every later reader
    would apply. Such a log is removed. Raises OSError or StoreError.
    """
    target = published if isinstance(published, Path) else source.parent / "published" / source.name
    connection.execute("CHECKPOINT")  # all of it is then in the file itself
    if log_of(target).exists():
        log_of(target).unlink()
        log.warning("Removed %s: a reader had opened the published copy for writing.", log_of(target))
    elif target.exists() and _state(source) == _state(target):
        return
    written = source.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A writer has the lock, so these are of killed writers. A `cp` of theirs may still run: each copy has a new name.
    for left in target.parent.glob(f".{glob_escape(target.name)}.publishing-*"):
        left.unlink(missing_ok=True)
    new = target.with_name(f".{target.name}.publishing-{os.getpid()}-{token_hex(4)}")
    try:
        # Another process copies: if this one closed any file descriptor of `source`, it would lose DuckDB's lock on it.
        copied = subprocess.run(  # noqa: S603 - no shell, and our own paths
            ["cp", "--", str(source), str(new)],  # noqa: S607 - the user's PATH
            capture_output=True,
            text=True,
            check=False,
        )
        if copied.returncode:
            raise OSError(copied.stderr.strip())
        if isinstance(published, str):
            store, name = store_of(published)
            with new.open("rb") as file:
                store.replace({name: file})
        sync(new)
        os.utime(new, ns=(written.st_atime_ns, written.st_mtime_ns))
        new.chmod(0o444)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    sync(target.parent)


def parquet_place(published: Path | str, schema: str) -> tuple[Path | str, str]:
    """Return the folder (or URL) that describes a pipeline's Parquet files, and where in it they are.

    It is the folder of the published file. A pipeline with another schema, which shares that file, has a folder there.
    """
    beside = published.parent if isinstance(published, Path) else published.rpartition("/")[0]
    if schema == DEFAULT_SCHEMA:
        return beside, "parquet/"
    return (beside / f"parquet_{schema}" if isinstance(beside, Path) else f"{beside}/parquet_{schema}"), ""


def write_parquet(tables: Tables, to: Path | str, *, folder: str = "", setting: str = SETTING) -> list[date]:
    """Write every table and view as one Parquet file, and above them what `description` tells about them.

    `to` is a folder or the URL of an object store, which `setting` names in errors; the Parquet files are in its
    `folder`. Each file is replaced whole, that of `snapshots` last: a day in `snapshots` is in all files. Returns the
    days; without any, nothing is written. Raises OSError or StoreError.
    """
    store, snapshots = Store(to, setting=setting), tables.read("snapshots")
    if snapshots.is_empty():
        return []
    for name in EXPORTED:
        store.sweep(f"{folder}{name}.parquet", before=(utc_now() - timedelta(hours=1)).timestamp())
    files = []
    with TemporaryDirectory(prefix="orpipeline-") as local:
        for name in sorted(EXPORTED, key="snapshots".__eq__):
            written = Path(local, f"{name}.parquet")
            rows = tables.copy_to_parquet(name, written, citation=snapshots["citation"][-1])
            files.append(Described(name, f"{folder}{written.name}", rows, written.read_bytes()))
            store.replace({files[-1].path: files[-1].content})
    store.replace(description(files, snapshots))
    return snapshots["as_of"].to_list()


def store_of(published: str) -> tuple[Store, str]:
    """Return the store, and the name in it, of the URL of a published copy."""
    place, _, name = published.rpartition("/")
    return Store(place, setting=SETTING), name


def _state(path: Path) -> tuple[int, int]:
    """Return what distinguishes the states of the warehouse's file: a copy gets the time of the last write, too."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
