"""Rebuilding the tables from the archive alone. Does not depend on Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from orpipeline.archive.folder import Archive
from orpipeline.archive.records import ArchiveError, CorruptAnswerError
from orpipeline.contracts.tables import TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.snapshot import Loaded, load_days, validate_days, write_days
from orpipeline.warehouse.database import Warehouse

DAYS_AT_ONCE = 400
"""How many days to parse, validate and write together: about a year, in about 200 MB of memory."""
Progress = Callable[[int], None]
"""Is called with the amount of work done since the last call."""


@dataclass(frozen=True)
class Difference:
    """A table whose rows a rebuild changed: row counts, and the key of the first changed row."""

    table: str
    changed: int
    added: int
    removed: int
    first: str


@dataclass
class Rebuilt:
    """The outcome of a rebuild."""

    days: list[date] = field(default_factory=list)
    """Days that were rebuilt."""
    new: list[date] = field(default_factory=list)
    """Rebuilt days that the tables did not have before."""
    differences: list[Difference] = field(default_factory=list)
    """Where the other days' rows changed, for each batch of days and table."""
    errors: dict[date, OrpipelineError] = field(default_factory=dict)
    """Days whose newest answer is rejected or damaged."""
    unarchived: list[date] = field(default_factory=list)
    """Days that only some of the tables have; their rows are unchanged."""


def out_of_date(archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime) -> set[date]:
    """Return the days whose rows do not come from the archive's newest valid revision."""
    with warehouse.reading() as tables:
        loaded_sha256 = dict(tables.read("snapshots").select("as_of", "sha256").iter_rows())
        other = {day for day in set(days) if _newest_sha256(archive, day) != loaded_sha256.get(day)}
        # If the newest revision is rejected, an older one is right.
        chosen = validate_days(archive, other & loaded_sha256.keys(), tables, now=now).chosen
    return {day for day in other if day not in chosen or chosen[day].sha256 != loaded_sha256.get(day)}


def rebuild_days(
    archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime, trend_days: int = 0
) -> Iterator[Loaded]:
    """Rebuild the tables of some days from the archive; yield each transaction of up to `DAYS_AT_ONCE` days.

    `trend_days` is that of `load_days`.
    """
    for batch in _batches(days):
        yield load_days(archive, warehouse, batch, now=now, trend_days=trend_days)


def rebuild(
    archive: Archive,
    warehouse: Warehouse,
    *,
    now: datetime,
    since: date = date.min,
    until: date = date.max,
    on_progress: Progress = lambda _: None,
) -> Rebuilt:
    """Rebuild the tables of all archived days from `since` to `until`, and return where rows changed.

    `on_progress` is called with the number of days done since the last call. Days that are not archived keep their
    rows.
    """
    archived = [day for day in archive.days() if since <= day <= until]
    with warehouse.reading() as tables:
        in_tables = {day for name in TABLES for day in tables.days(name) if since <= day <= until}
    rebuilt = Rebuilt(unarchived=sorted(in_tables - set(archived)))
    for days in _batches(archived):
        with warehouse.writing() as tables:
            before = tables.read_all(since=days[0], until=days[-1])
            loaded = write_days(tables, validate_days(archive, days, tables, now=now))
        # Another process may have written days since `in_tables` was read; `before` was read under the lock.
        stored = {day for frame in before.values() for day in frame["as_of"].unique()}
        written = loaded.validated.chosen.keys()
        rebuilt.errors |= loaded.validated.errors
        rebuilt.days += sorted(written)
        rebuilt.new += sorted(written - stored)
        rebuilt.differences += _differences(before, loaded.frames, sorted(written & stored))
        on_progress(len(days))
    return rebuilt


def damaged_answers(archive: Archive, on_progress: Progress = lambda _: None) -> list[ArchiveError]:
    """Read every archived answer, and return the errors of those that are damaged or cannot be read."""
    damaged: list[ArchiveError] = []
    for folder in archive.folders():
        try:
            archive.read(archive.record(folder))
        except ArchiveError as error:
            damaged.append(error)
        on_progress(1)
    return damaged


def _batches(days: Iterable[date]) -> Iterator[list[date]]:
    """Yield the days in order, `DAYS_AT_ONCE` at a time."""
    ordered = sorted(set(days))
    for start in range(0, len(ordered), DAYS_AT_ONCE):
        yield ordered[start : start + DAYS_AT_ONCE]


def _newest_sha256(archive: Archive, day: date) -> str | None:
    try:
        record = archive.latest(day)
    except CorruptAnswerError:
        return None  # rebuilding the day reports it
    return record.sha256 if record else None


def _differences(
    before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame], days: Sequence[date]
) -> Iterator[Difference]:
    of_days = pl.DataFrame({"as_of": days}, schema={"as_of": pl.Date})
    for name, model in TABLES.items():
        old = before[name].join(of_days, on="as_of", how="semi")
        new = after[name].select(old.columns).join(of_days, on="as_of", how="semi")
        key = model.primary_key()
        removed, added = old.join(new, on=key, how="anti"), new.join(old, on=key, how="anti")
        other = new.join(old, on=new.columns, how="anti", nulls_equal=True).join(added, on=key, how="anti")
        rows = pl.concat([other, added, removed]).select(key).sort(key)
        if len(rows):
            first = " / ".join(str(value) for value in rows.row(0))
            yield Difference(name, len(other), len(added), len(removed), first)
