"""The tables as Parquet files, a folder a table and in it one a day, for whatever reads Parquet.

    to/task_models/as_of=2026-10-06/task_models.parquet
    to/CITATION, to/DATA_DICTIONARY.md

Each file is replaced in one step and none is ever removed, so a reader of a table has each day's old rows or its new
ones. A day's files change one right after another, that of `snapshots` last: a day that `snapshots` has is there in
all tables. Each file's metadata has the `version` that its rows follow from, for readers to whom a moment matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orpipeline import __version__
from orpipeline.contracts.tables import TABLES, DayTable
from orpipeline.dictionary import data_dictionary
from orpipeline.errors import OrpipelineError
from orpipeline.files import replace_file, replace_files
from orpipeline.warehouse.database import Warehouse

_LAST = "snapshots"
_DAYS_AT_ONCE = 100
_LEFTOVER_SECONDS = 3600


class ExportError(OrpipelineError):
    """The export cannot be written. What was there before is whole."""


@dataclass(frozen=True)
class Exported:
    """The days that were written, and those whose files were the same already."""

    written: Sequence[date]
    unchanged: Sequence[date]


def export_tables(
    warehouse: Warehouse, to: Path, *, everything: bool = False, on_progress: Callable[[int], None] = lambda _: None
) -> Exported:
    """Write the days that `to` lacks, or has from other bytes or another version of orpipeline; or `everything`.

    `on_progress` is told the days as they are done. Days that only `to` has stay. Raises ExportError where the folder
    cannot be written.
    """
    snapshots = warehouse.read("snapshots")
    if snapshots.is_empty():
        raise ExportError(f"The warehouse {warehouse.path} is empty, so there is nothing to export.")
    versions = {day: _version(sha256) for day, sha256 in snapshots.select("as_of", "sha256").iter_rows()}
    wanted = [day for day, version in versions.items() if everything or _exported_from(to, day) != version]
    try:
        _sweep(to)
        for start in range(0, len(wanted), _DAYS_AT_ONCE):
            _write_days(warehouse, to, wanted[start : start + _DAYS_AT_ONCE], on_progress)
        replace_file(to / "CITATION", "".join(f"{line}\n" for line in _newest_citations(snapshots)).encode())
        replace_file(to / "DATA_DICTIONARY.md", data_dictionary(exported=True).encode())
    except OSError as error:
        raise ExportError(
            f"The export to {to} cannot be written: {error.strerror}. Days that it has are whole; run it again."
        ) from error
    return Exported(wanted, sorted(versions.keys() - set(wanted)))


def _write_days(warehouse: Warehouse, to: Path, days: Sequence[date], on_progress: Callable[[int], None]) -> None:
    with warehouse.reading() as tables:
        frames = tables.read_all(since=days[0], until=days[-1])
    of_day = {name: frame.partition_by("as_of", as_dict=True) for name, frame in frames.items()}
    for day in days:
        rows = {name: of_day[name].get((day,), frame.clear()) for name, frame in frames.items()}
        source = rows[_LAST].row(0, named=True)
        about = {"version": _version(source["sha256"]), "citation": source["citation"]}
        ordered = sorted(rows, key=lambda name: name == _LAST)
        # Not beside the files: polars refuses a folder in which something does not end as the others do.
        replace_files({_file(to, name, day): _parquet(name, rows[name], about) for name in ordered}, aside=to)
        on_progress(1)


def _sweep(to: Path) -> None:
    """Remove what killed exports left half written, once no export can be at it any more."""
    for leftover in to.glob(".*.parquet.*"):
        if leftover.stat().st_mtime < time.time() - _LEFTOVER_SECONDS:
            leftover.unlink(missing_ok=True)


def _file(to: Path, table: str, day: date) -> Path:
    return to / table / f"as_of={day}" / f"{table}.parquet"


def _parquet(name: str, rows: pl.DataFrame, about: Mapping[str, str]) -> bytes:
    """Return a day's rows as Parquet, with the contract's descriptions; the day itself is in the folder's name."""
    model = TABLES[name]
    table = rows.drop("as_of").to_arrow()
    content = BytesIO()
    pq.write_table(table.cast(_described(table.schema, model, about)), content, compression="zstd")
    return content.getvalue()


def _described(schema: pa.Schema, model: type[DayTable], about: Mapping[str, str]) -> pa.Schema:
    columns = model.columns()
    fields = [field.with_metadata({"description": columns[field.name].description}) for field in schema]
    return pa.schema(fields, metadata={"description": model.summary(), **about})


def _exported_from(to: Path, day: date) -> str | None:
    """Return the version of a day that the export has whole, or None."""
    try:
        metadata = pq.read_schema(_file(to, _LAST, day)).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return str(metadata.get(b"version", b"").decode())


def _version(sha256: str) -> str:
    """Return what a day's rows follow from: the answer's bytes, and the code that made rows of them."""
    return f"{sha256} orpipeline {__version__}"


def _newest_citations(snapshots: pl.DataFrame) -> list[str]:
    """Return how to cite the newest day; where some of the days are made up and others are not, of each kind."""
    demo = pl.col("origin") == "demo"
    newest = (snapshots.filter(condition).sort("as_of").tail(1) for condition in (~demo, demo))
    return [citation for rows in newest for citation in rows["citation"]]
