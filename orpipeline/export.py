"""The tables as Parquet files for other tools: a folder for each table, a subfolder for each day.

    to/task_models/as_of=2026-10-06/task_models.parquet
    to/CITATION, to/DATA_DICTIONARY.md

Each file is replaced in one step and none is ever removed, so readers of a table see each day's old rows or its new
ones. A day's files are replaced one right after another, the one of `snapshots` last: a day in `snapshots` is in all
tables. Each file's metadata has a `version`; files of a day with the same version belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orpipeline import __version__
from orpipeline.clock import Clock, utc_now
from orpipeline.contracts.tables import TABLES, DayTable
from orpipeline.dictionary import data_dictionary
from orpipeline.errors import OrpipelineError
from orpipeline.files import is_temporary, replace_file, replace_files
from orpipeline.warehouse.database import Warehouse

_LAST = "snapshots"
_DAYS_AT_ONCE = 100
_ABANDONED_AFTER = timedelta(hours=1)


class ExportError(OrpipelineError):
    """The export cannot be written. Its earlier files are complete."""


@dataclass(frozen=True)
class Exported:
    """The days that were written, and those whose files were already current."""

    written: Sequence[date]
    unchanged: Sequence[date]


def export_tables(
    warehouse: Warehouse,
    to: Path,
    *,
    everything: bool = False,
    clock: Clock = utc_now,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write each day that is missing from the folder `to`, or whose bytes or version have changed.

    With `everything`, write all days. Days that only `to` has stay. `on_progress` is called with the number of days
    written since the last call. Raises ExportError if the warehouse is empty or the folder cannot be written.
    """
    snapshots = warehouse.read("snapshots")
    if snapshots.is_empty():
        raise ExportError(
            f"The warehouse {warehouse.path} is empty: there is nothing to export. Run `orpipeline run` or "
            "`orpipeline import` first."
        )
    versions = {day: _version(sha256) for day, sha256 in snapshots.select("as_of", "sha256").iter_rows()}
    wanted = [day for day, version in versions.items() if everything or _exported_from(to, day) != version]
    try:
        _sweep(to, clock)
        for start in range(0, len(wanted), _DAYS_AT_ONCE):
            _write_days(warehouse, to, wanted[start : start + _DAYS_AT_ONCE], on_progress)
        replace_file(to / "CITATION", "".join(f"{line}\n" for line in _newest_citations(snapshots)).encode())
        replace_file(to / "DATA_DICTIONARY.md", data_dictionary(exported=True).encode())
    except OSError as error:
        raise ExportError(
            f"Cannot write the export to {to}: {error.strerror}. Its earlier days are complete. Free disk space or fix "
            "the folder's permissions, and run the export again."
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
        # Temporary files are not beside the others: polars rejects a folder with different file extensions.
        replace_files({_file(to, name, day): _parquet(name, rows[name], about) for name in ordered}, aside=to)
        on_progress(1)


def _sweep(to: Path, clock: Clock) -> None:
    """Remove temporary files that killed exports left an hour ago or longer; a running export has newer ones."""
    oldest = (clock() - _ABANDONED_AFTER).timestamp()
    for path in to.glob(".*"):
        if is_temporary(path) and path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def _file(to: Path, table: str, day: date) -> Path:
    return to / table / f"as_of={day}" / f"{table}.parquet"


def _parquet(name: str, rows: pl.DataFrame, about: Mapping[str, str]) -> bytes:
    """Return a day's rows as Parquet with the contract's descriptions, without `as_of`: the folder's name has it."""
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
    """Return the version of a day that the export has, or None if it lacks the day or has only a part of it."""
    try:
        metadata = pq.read_schema(_file(to, _LAST, day)).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return str(metadata.get(b"version", b"").decode())


def _version(sha256: str) -> str:
    """Return what a day's rows depend on: the answer's bytes, and the code that parsed them."""
    return f"{sha256} orpipeline {__version__}"


def _newest_citations(snapshots: pl.DataFrame) -> list[str]:
    """Return the newest day's citation; if there are both real and demo days, one of each."""
    demo = pl.col("origin") == "demo"
    newest = (snapshots.filter(condition).sort("as_of").tail(1) for condition in (~demo, demo))
    return [citation for rows in newest for citation in rows["citation"]]
