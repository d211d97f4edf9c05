"""A warehouse that publishes, for the tests of readers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import orpipeline
from orpipeline import Settings
from orpipeline.archive.archive import Archive
from orpipeline.places import StoreFolder
from orpipeline.snapshot import load_days
from orpipeline.testing import sample_answer
from orpipeline.warehouse.database import Warehouse

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FIRST = date(2026, 9, 28)
DAYS = [FIRST + timedelta(days=n) for n in range(6)]  # in two months


class Place:
    """An archive and a warehouse in a folder, and the published copy in `reports`: there by default, or at a URL."""

    def __init__(self, folder: Path, *, reports: Path | str | None = None) -> None:
        self.settings = Settings(data_dir=folder, reports=reports or folder / "reports")
        self.archive = Archive(self.settings.archive)
        self.warehouse = Warehouse(self.settings.warehouse, lock_wait_seconds=5, published=self.settings.published)

    def load(self, *days: date, label: str | None = None, view_days: int = 30) -> None:
        """Archive and load made-up days; with a `label`, another answer for them."""
        for day in days:
            fetched_at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
            self.archive.put(restated(day, label), fetched_at=fetched_at, source="a test", origin="import")
        assert not load_days(self.archive, self.warehouse, days, now=NOW, view_days=view_days).validated.errors

    def execute(self, *statements: str) -> None:
        """Execute SQL in one transaction."""
        with self.warehouse.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def read(self, table: str, **how: Any) -> pl.DataFrame:
        """Return the rows that readers get."""
        return orpipeline.read(table, settings=self.settings, **how)

    def cached(self) -> Sequence[Path]:
        """Return the downloaded copies."""
        return list((self.settings.data_dir / "cache").rglob("*.duckdb"))


class LocalPlace(Place):
    """A place whose copy is in a folder: `published` is the DuckDB file, `parquet` the folder beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.published = folder / "reports" / "published" / "warehouse.duckdb"
        self.parquet = self.published.parent / "parquet"


class StoredPlace(Place):
    """A place whose copy is in an object store, with its Parquet files in `parquet`."""

    def __init__(self, folder: Path, reports: str) -> None:
        super().__init__(folder, reports=reports)
        self.published = f"{reports}/published/warehouse.duckdb"
        self.parquet = StoreFolder(f"{reports}/published/parquet")

    def read_parquet(self, name: str) -> pl.DataFrame:
        """Return the rows in a table's files."""
        paths = [path for path in sorted(self.parquet.tags()) if path.startswith(f"{name}/")]
        return pl.concat(pl.read_parquet(self.parquet.read(path) or b"") for path in paths)


def restated(day: date, label: str | None) -> bytes:
    """Return an answer in which one task has another label."""
    return sample_answer(day, change=lambda data: data["classifications"][0].update(display_name=label or "As it was"))
