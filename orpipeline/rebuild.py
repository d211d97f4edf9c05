"""Rebuilding the tables from the archive alone. Does not depend on Dagster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import polars as pl

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError
from orpipeline.contracts.tables import TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.snapshot import Loaded, Recreated, batches, load_days, recreate_tables, validate_days, write_days
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import DamagedWarehouseError
from orpipeline.warehouse.replacement import new_file, only_rebuild, put_in_place, set_aside

_DAMAGED = "{} is damaged, or is not a DuckDB database"
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
    """Days that only the tables have; their rows are unchanged."""
    left_out: list[date] = field(default_factory=list)
    """Days that the tables no longer have, because today's contracts reject their archived answers."""
    reason: str | None = None
    """Why all tables were replaced, whatever the range of days was; None if they were not."""
    set_aside: list[Path] = field(default_factory=list)
    """Where a damaged file and its log are now. Days that only this file had are not in the tables."""


def out_of_date(archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime) -> set[date]:
    """Return the days whose rows do not come from the archive's newest valid revision."""
    with warehouse.reading() as tables:
        loaded_sha256 = dict(tables.read("snapshots").select("as_of", "sha256").iter_rows())
        newest = _newest_sha256(archive, set(days))
        other = {day for day, sha256 in newest.items() if sha256 != loaded_sha256.get(day)}
        # If the newest revision is rejected, an older one is right.
        chosen = validate_days(archive, other & loaded_sha256.keys(), tables, now=now).chosen
    return {day for day in other if day not in chosen or chosen[day].sha256 != loaded_sha256.get(day)}


def rebuild_days(
    archive: Archive, warehouse: Warehouse, days: Iterable[date], *, now: datetime, view_days: int = 0
) -> Iterator[Loaded]:
    """Rebuild the tables of some days from the archive; yield each transaction of up to `DAYS_AT_ONCE` days.

    `view_days` is that of `load_days`.
    """
    for batch in batches(days):
        yield load_days(archive, warehouse, batch, now=now, view_days=view_days)


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

    Tables of an older layout, or changed by hand, are replaced as a whole in one transaction: DuckDB commits all of it
    or nothing, your own tables stay, and no reader sees a part of it. Days that only the tables have are carried over.
    A missing or damaged file is replaced by a new one when that is complete, and a damaged one is kept aside.
    All these rebuild every archived day, whatever the range is, and so does a lake that does not exist yet.

    Raises OutdatedLayoutError if a day that only the tables have cannot be carried over, NewerLayoutError if a newer
    version wrote the tables, and the warehouse's other errors.
    """
    archived = archive.days()
    in_range = [day for day in archived if since <= day <= until]
    if not warehouse.exists and not in_range:
        return Rebuilt()
    if not warehouse.is_file:
        return _rebuild_in_another_engine(archive, warehouse, archived, since, until, now, on_progress)
    with only_rebuild(warehouse):
        is_damaged = False
        if warehouse.exists:
            try:
                return _rebuild_inside(archive, warehouse, in_range, since, until, now, on_progress)
            except DamagedWarehouseError as error:
                is_damaged = True
                if not archived:
                    raise DamagedWarehouseError(
                        f"{_DAMAGED.format(warehouse.path)}, and the archive has no days to rebuild it from; nothing "
                        "was changed."
                    ) from error
        reason = (_DAMAGED if is_damaged else "{} does not exist").format(warehouse.path)
        # DuckDB would apply the log of a file that is gone to any new file of its name.
        kept = [] if is_damaged else set_aside(warehouse, now)
        new = new_file(warehouse)
        rebuilt = _rebuild_inside(archive, new, archived, date.min, date.max, now, on_progress)
        if is_damaged:
            kept = set_aside(warehouse, now)
        if not put_in_place(new, warehouse):  # another process was faster
            rebuilt = _rebuild_inside(archive, warehouse, archived, date.min, date.max, now, on_progress)
        warehouse.publish()
        return replace(rebuilt, reason=f"{reason}.", set_aside=kept)


def _rebuild_in_another_engine(
    archive: Archive,
    warehouse: Warehouse,
    archived: Sequence[date],
    since: date,
    until: date,
    now: datetime,
    on_progress: Progress,
) -> Rebuilt:
    """Rebuild the days inside a lake; all of them if there is none yet. Its transactions need no file beside it."""
    if warehouse.exists:
        days = [day for day in archived if since <= day <= until]
        return _rebuild_inside(archive, warehouse, days, since, until, now, on_progress)
    rebuilt = _rebuild_inside(archive, warehouse, archived, date.min, date.max, now, on_progress)
    return replace(rebuilt, reason=f"{warehouse.name} does not exist.")


def _rebuild_inside(
    archive: Archive,
    warehouse: Warehouse,
    days: Sequence[date],
    since: date,
    until: date,
    now: datetime,
    on_progress: Progress,
) -> Rebuilt:
    """Rebuild some archived days, from `since` to `until`, in a file that is intact or does not exist yet."""
    with warehouse.writing() as tables:
        outdated = tables.layout.outdated()
        if outdated is not None:
            rebuilt = Rebuilt(reason=outdated.reason)
            for part in recreate_tables(archive, tables, now=now):
                _add_recreated(rebuilt, part)
                on_progress(len(part.days))
            return rebuilt
        in_tables = {day for name in TABLES for day in tables.days(name) if since <= day <= until}
    rebuilt = Rebuilt(unarchived=sorted(in_tables - set(days)))
    for batch in batches(days):
        with warehouse.writing() as tables:
            before = tables.read_all(since=batch[0], until=batch[-1])
            loaded = write_days(tables, validate_days(archive, batch, tables, now=now))
        # Another process may have written days since `in_tables` was read; `before` was read under the lock.
        _add(rebuilt, before, loaded)
        on_progress(len(batch))
    return rebuilt


def _add(rebuilt: Rebuilt, before: Mapping[str, pl.DataFrame], loaded: Loaded) -> None:
    """Add the outcome of some days, whose rows were `before`."""
    stored = {day for frame in before.values() for day in frame["as_of"].unique()}
    written = loaded.validated.chosen.keys()
    rebuilt.errors |= loaded.validated.errors
    rebuilt.days += sorted(written)
    rebuilt.new += sorted(written - stored)
    rebuilt.differences += _differences(before, loaded.frames, sorted(written & stored))


def _add_recreated(rebuilt: Rebuilt, part: Recreated) -> None:
    """Add the outcome of some days in tables that replaced older ones."""
    _add(rebuilt, {name: part.old.read(name, part.days) for name in TABLES}, part.loaded)
    errors = part.loaded.validated.errors
    rebuilt.unarchived += [day for day in part.carried if day not in errors]
    rebuilt.left_out += part.left_out
    rebuilt.errors |= part.left_out


def damaged_answers(archive: Archive, on_progress: Progress = lambda _: None) -> list[ArchiveError]:
    """Read every archived answer, and return the errors of those that are damaged or cannot be read."""
    damaged: list[ArchiveError] = []
    for error in archive.check_all():
        if error is not None:
            damaged.append(error)
        on_progress(1)
    return damaged


def _newest_sha256(archive: Archive, days: Collection[date]) -> dict[date, str | None]:
    found: dict[date, str | None] = {}
    for day, of_day in archive.days_of(days).items():
        if isinstance(of_day, ArchiveError):
            raise of_day
        found[day] = of_day.newest.sha256 if of_day.newest else None
    return found


def _differences(
    before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame], days: Sequence[date]
) -> Iterator[Difference]:
    of_days = pl.DataFrame({"as_of": days}, schema={"as_of": pl.Date})
    for name, model in TABLES.items():
        old = before[name].join(of_days, on="as_of", how="semi")
        new = after[name].select(old.columns).join(of_days, on="as_of", how="semi")
        key = model.primary_key()
        if not set(key) <= set(old.columns):  # the old table cannot be compared
            continue
        removed, added = old.join(new, on=key, how="anti"), new.join(old, on=key, how="anti")
        other = new.join(old, on=new.columns, how="anti", nulls_equal=True).join(added, on=key, how="anti")
        rows = pl.concat([other, added, removed]).select(key).sort(key)
        if len(rows):
            first = " / ".join(str(value) for value in rows.row(0))
            yield Difference(name, len(other), len(added), len(removed), first)
