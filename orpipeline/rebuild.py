"""Rebuilding the tables from the archive alone. Knows nothing of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from orpipeline.archive.folder import Archive, ArchiveError, CorruptAnswerError
from orpipeline.contracts.tables import TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.snapshot import Judged, judge_days, load
from orpipeline.warehouse.database import Warehouse

DAYS_AT_ONCE = 400
"""How many days are parsed, validated and written together: a year and a bit, in some 200 MB of memory."""
Progress = Callable[[int], None]
"""Is called with the amount of work done since the last call."""


@dataclass(frozen=True)
class Difference:
    """A table whose rows a rebuild changed: how many, and where the first of them is."""

    table: str
    changed: int
    added: int
    removed: int
    first: str


@dataclass
class Rebuilt:
    """What a rebuild did."""

    days: list[date] = field(default_factory=list)
    """Days whose rows were made again."""
    new: list[date] = field(default_factory=list)
    """Those of them that the tables did not have."""
    differences: list[Difference] = field(default_factory=list)
    """Where the rows of the others were not the same before, for each batch of days and table."""
    errors: dict[date, OrpipelineError] = field(default_factory=dict)
    """Days whose newest answer was refused or is damaged."""
    unarchived: list[date] = field(default_factory=list)
    """Days that only the tables, or some of them, have: they keep their rows."""


def out_of_date(archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime) -> set[date]:
    """Return the days that the tables do not have as the archive's newest revision that holds says."""
    stored = dict(warehouse.read("snapshots").select("as_of", "sha256").iter_rows())
    other = {day for day in set(days) if _newest_sha256(archive, day) != stored.get(day)}
    # Where the newest one is refused, the tables rightly have an older one.
    chosen = judge_days(archive, warehouse, other & stored.keys(), now=now).chosen
    return {day for day in other if day not in chosen or chosen[day].sha256 != stored.get(day)}


def make_tables(
    archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime
) -> Iterator[tuple[Judged, dict[str, pl.DataFrame], dict[str, int]]]:
    """Make the tables of days from the archive, `DAYS_AT_ONCE` in a transaction.

    Yields, for each transaction, what was judged, the frames that were written, and the tables' row counts.
    """
    for batch in _batches(days):
        yield load(warehouse, judge_days(archive, warehouse, batch, now=now))


def rebuild(
    archive: Archive,
    warehouse: Warehouse,
    *,
    now: datetime,
    since: date = date.min,
    until: date = date.max,
    on_progress: Progress = lambda _: None,
) -> Rebuilt:
    """Make the tables of all archived days from `since` to `until` again, and say where they were not the same.

    `on_progress` is told the days as they are done with. Days that the archive lacks keep their rows.
    """
    archived = [day for day in archive.days() if since <= day <= until]
    there = {day for name in TABLES for day in warehouse.days(name) if since <= day <= until}
    rebuilt = Rebuilt(unarchived=sorted(there - set(archived)))
    for days in _batches(archived):
        before = warehouse.read_tables(since=days[0], until=days[-1])
        judged, tables, _ = load(warehouse, judge_days(archive, warehouse, days, now=now))
        rebuilt.errors |= judged.errors
        rebuilt.days += sorted(judged.chosen)
        rebuilt.new += sorted(judged.chosen.keys() - there)
        rebuilt.differences += _differences(before, tables, sorted(judged.chosen.keys() & there))
        on_progress(len(days))
    return rebuilt


def damaged_answers(archive: Archive, on_progress: Progress = lambda _: None) -> list[ArchiveError]:
    """Read every archived answer, and return the errors of those that are not what was archived, or cannot be read."""
    damaged: list[ArchiveError] = []
    for folder in archive.folders():
        try:
            archive.read(archive.record(folder))
        except ArchiveError as error:
            damaged.append(error)
        on_progress(1)
    return damaged


def _batches(days: Iterable[date]) -> Iterator[list[date]]:
    """Yield the days in their order, as many at a time as are worked on together."""
    ordered = sorted(set(days))
    for start in range(0, len(ordered), DAYS_AT_ONCE):
        yield ordered[start : start + DAYS_AT_ONCE]


def _newest_sha256(archive: Archive, day: date) -> str | None:
    try:
        record = archive.latest(day)
    except CorruptAnswerError:
        return None  # whoever makes the day's tables is told
    return record.sha256 if record else None


def _differences(
    before: dict[str, pl.DataFrame], after: dict[str, pl.DataFrame], days: Sequence[date]
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
