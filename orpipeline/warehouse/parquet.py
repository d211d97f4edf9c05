"""The tables and views as Parquet files, in a folder or in an object store: a file for each table and month of `as_of`.

    to/task_models/2026-10.parquet
    to/CITATION, to/DATA_DICTIONARY.md

Files have all columns, with the contract's types, so every reader of a folder or of `*.parquet` gets the same frame.
Each file is replaced in one step: readers of a table see a day's old rows or its new ones. Of a month's files, the one
of `snapshots` is replaced last: a day in `snapshots` is in all tables. Each file's metadata has a `version`; files of a
month with the same version belong together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from itertools import groupby
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orpipeline import __version__
from orpipeline.contracts.tables import EXPORTED, DayTable
from orpipeline.dictionary import data_dictionary
from orpipeline.places import Place
from orpipeline.warehouse.layout import LAYOUT_VERSION
from orpipeline.warehouse.months import Months, month_file, open_months
from orpipeline.warehouse.tables import Rows, Tables

_ORDER = sorted(EXPORTED, key=lambda name: name == "snapshots")
"""The order in which a month's files are replaced."""
_MONTHS_AT_ONCE = 12


@dataclass(frozen=True)
class Exported:
    """The days in the files that were written, and those in files that were already current."""

    written: Sequence[date]
    unchanged: Sequence[date]


def write_parquet(
    tables: Tables,
    to: Path | str,
    *,
    mirror: bool,
    changed: Collection[date] = (),
    known: Rows | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the months that are missing from `to`, have another version there, or have a `changed` day.

    `to` is a folder or the URL of an object store. With `mirror`, the files then have the tables' days and no others.
    Otherwise, days that only the files have stay. `known` are rows that need not be read again. `on_progress` is called
    with the number of days written since the last call. Raises OSError or StoreError if a file cannot be written; the
    next call then writes its month again.
    """
    files = open_months(to)
    if mirror:  # nobody else writes there
        files.sweep()
    snapshots = tables.read("snapshots")
    versions = dict(_versions(snapshots))
    rewritten = {_month(day) for day in changed}
    wanted = [month for month, version in versions.items() if month in rewritten or files.version(month) != version]
    days = {month: list(of_month) for month, of_month in groupby(snapshots["as_of"], _month)}
    for start in range(0, len(wanted), _MONTHS_AT_ONCE):
        months = {month: days[month] for month in wanted[start : start + _MONTHS_AT_ONCE]}
        frames = _read(tables, months, known)
        for month, of_month in months.items():
            _write_month(files, month, of_month, frames, versions[month], mirror=mirror)
            on_progress(len(of_month))
    if mirror:
        files.keep_only(versions)
    if wanted:
        texts = {"CITATION": _newest_citations(snapshots), "DATA_DICTIONARY.md": data_dictionary(exported=True)}
        _replace_changed(files.place, {name: text.encode() for name, text in texts.items()})
    written = [day for month in wanted for day in days[month]]
    return Exported(written, sorted(set(snapshots["as_of"]) - set(written)))


def _month(day: date) -> str:
    return f"{day:%Y-%m}"


def _versions(snapshots: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield each month, in order, with what its rows depend on: the code, and all answers up to the month's end.

    `model_trends` compares a day with earlier ones.
    """
    digest = hashlib.sha256(f"orpipeline {__version__}, layout {LAYOUT_VERSION}".encode())
    for month, rows in snapshots.group_by(pl.col("as_of").dt.strftime("%Y-%m"), maintain_order=True):
        digest.update(rows.write_csv().encode())
        yield str(month[0]), digest.hexdigest()


def _read(tables: Tables, months: Mapping[str, Sequence[date]], known: Rows | None) -> dict[str, pl.DataFrame]:
    days = [day for of_month in months.values() for day in of_month]
    frames = {}
    for name in _ORDER:
        rows = known.of(name, days) if known else None
        frames[name] = tables.read(name, since=days[0], until=days[-1]) if rows is None else rows
    return frames


def _write_month(
    files: Months, month: str, days: Sequence[date], frames: Mapping[str, pl.DataFrame], version: str, *, mirror: bool
) -> None:
    in_month = pl.col("as_of").is_between(days[0], days[-1])
    citations = frames["snapshots"].filter(in_month)["citation"]
    about = {"version": version, "citation": citations[-1]}
    contents = {}
    for name in _ORDER:
        rows = frames[name].filter(in_month)
        if not mirror:
            rows = _with_other_days(files.place.read(month_file(name, month)), rows, days)
        contents[name] = _parquet(name, rows, about)
    files.replace(month, contents, version)


def _with_other_days(content: bytes | None, rows: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Return the rows, and those of other days that a file's content has."""
    if content is None:
        return rows
    try:
        others = pl.read_parquet(content).filter(~pl.col("as_of").is_in(days))
    except (OSError, pl.exceptions.PolarsError):  # it is damaged
        return rows
    return pl.concat([rows, others.select(rows.columns)]).sort("as_of", maintain_order=True) if len(others) else rows


def _parquet(name: str, rows: pl.DataFrame, about: Mapping[str, str]) -> bytes:
    """Return rows as Parquet, with the contract's descriptions."""
    table = rows.to_arrow()
    content = BytesIO()
    pq.write_table(table.cast(_described(table.schema, EXPORTED[name], about)), content, compression="zstd")
    return content.getvalue()


def _described(schema: pa.Schema, model: type[DayTable], about: Mapping[str, str]) -> pa.Schema:
    columns = model.columns()
    fields = [field.with_metadata({"description": columns[field.name].description}) for field in schema]
    return pa.schema(fields, metadata={"description": model.summary(), **about})


def _replace_changed(place: Place, contents: Mapping[str, bytes]) -> None:
    place.replace({name: content for name, content in contents.items() if place.read(name) != content})


def _newest_citations(snapshots: pl.DataFrame) -> str:
    """Return the newest day's citation as a line; if there are both real and demo days, one of each."""
    demo = pl.col("origin") == "demo"
    newest = (snapshots.filter(condition).sort("as_of").tail(1) for condition in (~demo, demo))
    return "".join(f"{citation}\n" for rows in newest for citation in rows["citation"])
