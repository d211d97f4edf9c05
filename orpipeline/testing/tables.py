"""Made-up days in archive and tables, without Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from orpipeline.archive import Archive
from orpipeline.catalogue import CATALOGUE
from orpipeline.clock import as_day
from orpipeline.contracts.tables import RELATIONS
from orpipeline.load import load_batches, load_catalogues
from orpipeline.testing.sample_catalogue import sample_catalogue
from orpipeline.testing.sample_responses import sample_response
from orpipeline.warehouse.warehouse import Warehouse

NEWEST_DAY = date(2026, 10, 6)
"""The newest day of the sample tables."""
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
"""The time of the fixtures' clock: the API serves `NEWEST_DAY`."""
_FETCHED = time(0, 20, tzinfo=UTC)  # as the schedule does


def sample_tables(days: int, *, until: date | str = NEWEST_DAY) -> dict[str, pl.DataFrame]:
    """Return all tables and views of `days` made-up days up to `until`, by name: frames with the contracts' columns.

        >>> from orpipeline.testing import sample_tables
        >>> sample_tables(3)["model_leaderboard"]["as_of"].n_unique()
        3

    A day's rows are always the same. They come from the `sample_response` of each day, through archive, contracts and
    DuckDB, as real ones do.
    """
    return {name: frame.clone() for name, frame in _tables(days, as_day(until)).items()}


@cache
def _tables(days: int, newest: date) -> dict[str, pl.DataFrame]:
    with TemporaryDirectory(prefix="orpipeline_tables_") as folder:
        warehouse = Warehouse(Path(folder, "warehouse.duckdb"))
        archive, wanted = Archive(Path(folder, "raw")), days_between(newest - timedelta(days=days - 1), newest)
        load_sample_days(archive, warehouse, wanted)
        archive_samples(archive.of(CATALOGUE), sample_catalogue, wanted)
        load_catalogues(archive, warehouse, wanted, now=_fetched_at(newest))
        with warehouse.reading() as tables:
            return {name: tables.read(name) for name in RELATIONS}


def load_sample_days(archive: Archive, warehouse: Warehouse, days: Sequence[date]) -> None:
    """Archive each day's `sample_response`, as fetched at 00:20 UTC of the day after, and load the days."""
    archive_samples(archive, sample_response, days)
    for loaded in load_batches(archive, warehouse, days, now=_fetched_at(days[-1])):
        for error in loaded.validated.errors.values():
            raise error


def archive_samples(
    archive: Archive,
    sample: Callable[[date], bytes],
    days: Iterable[date],
    *,
    source: str = "made up by orpipeline.testing",
) -> None:
    """Archive the made-up response of each day, as fetched at 00:20 UTC of the day after."""
    for day in days:
        archive.put(sample(day), fetched_at=_fetched_at(day), source=source, origin="demo")


def _fetched_at(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), _FETCHED)


def days_between(since: date | str, until: date | str) -> list[date]:
    """Return the days from `since` to `until`, both included. Raises ValueError if there are none."""
    first, last = as_day(since), as_day(until)
    if last < first:
        raise ValueError(f"There is no day from {first} to {last}. Give the earlier day first.")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
