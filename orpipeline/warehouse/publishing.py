"""Publishing: a DuckDB file for readers, and Parquet files in the folder `parquet` beside it.

DuckDB admits one process to a file that it writes. A writer therefore copies the warehouse after each commit, while it
still has the lock, and replaces the published file in one step. Readers can keep the published file open: they block
nobody, and see one whole commit. It has all tables and views of the warehouse, yours too.

The copy can also be in an object store. A writer then makes it on this machine, and uploads it without the lock.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import date, timedelta
from glob import escape as glob_escape
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
from filelock import FileLock, Timeout

from orpipeline.clock import utc_now
from orpipeline.contracts.dictionary import data_dictionary
from orpipeline.contracts.tables import EXPORTED
from orpipeline.errors import WarehouseError
from orpipeline.stores import LARGE_FILE_SECONDS, Store, sync
from orpipeline.warehouse.duckdb_file import log, log_of
from orpipeline.warehouse.schema import DEFAULT_SCHEMA
from orpipeline.warehouse.tables import Tables

SETTING = "ORPIPELINE_REPORTS"
_CITATION, _DICTIONARY = "CITATION", "DATA_DICTIONARY.md"


def publish_copy(connection: duckdb.DuckDBPyConnection, source: Path, published: Path | str) -> bool:
    """Replace the published file by a copy of `source`, which `connection` has open. Return False if it is current.

    With a URL, the file that is uploaded later is replaced. The copy is read-only: a reader that opened it for writing
    would leave a log beside it, which every later reader would apply. Such a log is removed. Raises OSError.
    """
    target = local_copy(source, published)
    connection.execute("CHECKPOINT")  # all of it is then in the file itself
    if log_of(target).exists():
        log_of(target).unlink()
        log.warning("Removed %s: a reader had opened the published copy for writing.", log_of(target))
    elif is_copy(source, target):
        return False
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
        sync(new)
        os.utime(new, ns=(written.st_atime_ns, written.st_mtime_ns))
        new.chmod(0o444)
        new.replace(target)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return True


def local_copy(source: Path, published: Path | str) -> Path:
    """Return where the copy of the file `source` is on this machine: the published file, or what is uploaded to it."""
    return published if isinstance(published, Path) else source.parent / "published" / source.name


def is_copy(source: Path, target: Path) -> bool:
    """Return whether `target` is the copy of `source` as it is now: a copy gets the time of the last write."""
    return source.exists() and target.exists() and _state(source) == _state(target)


def parquet_folder(published: Path | str, schema: str) -> Path | str:
    """Return the folder of a pipeline's Parquet files, beside the published file, or its URL.

    Several pipelines can share the published file.
    """
    name = "parquet" if schema == DEFAULT_SCHEMA else f"parquet_{schema}"
    return published.with_name(name) if isinstance(published, Path) else f"{published.rpartition('/')[0]}/{name}"


def write_parquet(tables: Tables, to: Path | str, *, setting: str = SETTING) -> list[date]:
    """Write every table and view as one Parquet file, with the citation and the data dictionary beside them.

    `to` is a folder or the URL of an object store, which `setting` names in errors. Each file is replaced whole, that
    of `snapshots` last: a day in `snapshots` is in all files. Returns the days; without any, nothing is written. Raises
    OSError or StoreError.
    """
    store, snapshots = Store(to, setting=setting), tables.read("snapshots")
    if snapshots.is_empty():
        return []
    abandoned_before = (utc_now() - timedelta(hours=1)).timestamp()
    for name in (*(f"{table}.parquet" for table in EXPORTED), _CITATION, _DICTIONARY):
        store.sweep(name, before=abandoned_before)
    with TemporaryDirectory(prefix="orpipeline-") as folder:
        for name in sorted(EXPORTED, key="snapshots".__eq__):
            written = Path(folder, f"{name}.parquet")
            tables.copy_to_parquet(name, written, citation=snapshots["citation"][-1])
            with written.open("rb") as file:
                store.replace({written.name: file})
    # The newest day's citation; if there are both real and demo days, one of each.
    demo = pl.col("origin") == "demo"
    cited = [snapshots.filter(of_kind).sort("as_of")["citation"].tail(1) for of_kind in (~demo, demo)]
    citations = "".join(f"{citation}\n" for of_kind in cited for citation in of_kind)
    store.replace({_CITATION: citations.encode(), _DICTIONARY: data_dictionary(exported=True).encode()})
    return snapshots["as_of"].to_list()


# In an object store


def upload(source: Path, published: str, *, schema: str | None, wait_seconds: float) -> None:
    """Upload the local copy of `source` to the URL `published` and, with a schema, its Parquet files.

    Each upload sends the newest copy of that moment, so the newest commit is published last. Raises StoreError,
    OSError, or WarehouseError if another process has been uploading for `wait_seconds`.
    """
    copy = local_copy(source, published)
    place, _, name = published.rpartition("/")
    store = Store(place, setting=SETTING, timeout_seconds=LARGE_FILE_SECONDS)
    try:
        with FileLock(copy.with_name(f".{copy.name}.uploading"), timeout=wait_seconds):
            with copy.open("rb") as file:
                store.replace({name: file})
            if schema is not None:
                with duckdb.connect(copy, read_only=True) as connection:
                    connection.execute("SET TimeZone = 'UTC'")
                    write_parquet(Tables(connection, schema), parquet_folder(published, schema))
    except Timeout:
        raise WarehouseError(f"another process has been uploading it for {wait_seconds:g} s") from None


def download(published: str, cache: Path) -> Path | None:
    """Return the path of the newest copy at the URL `published` in the folder `cache`, or None if there is none.

    It is downloaded only if it is another one than before, and then older copies are removed. Programs that have one
    open keep it. Raises StoreError or OSError.
    """
    place, _, name = published.rpartition("/")
    store = Store(place, setting=SETTING, timeout_seconds=LARGE_FILE_SECONDS)
    tag = store.tag(name)
    if tag is None:
        return None
    copies = cache / "published" / _digest(published)
    known = copies / f"{_digest(tag)}.duckdb"
    if known.exists():
        return known
    copies.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = copies / f".downloading-{os.getpid()}-{token_hex(4)}"
    try:
        with new.open("wb") as file:
            tag = store.download(name, file)
        if tag is None:
            return None
        path = copies / f"{_digest(tag)}.duckdb"
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    for other in copies.glob("*.duckdb"):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def _state(path: Path) -> tuple[int, int]:
    """Return what distinguishes the states of the warehouse's file. A copy of the file has the same."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
