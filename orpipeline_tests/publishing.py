"""A warehouse that publishes, for the tests of readers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

import orpipeline
from orpipeline import Settings
from orpipeline.archive import Archive
from orpipeline.catalogue import CATALOGUE
from orpipeline.load import load_catalogues, load_days
from orpipeline.stores import Store
from orpipeline.testing import sample_catalogue, sample_response
from orpipeline.warehouse.warehouse import open_warehouse

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FIRST = date(2026, 9, 28)
DESCRIPTION = {"README.md", "LICENSE", "CITATION", "DATA_DICTIONARY.md", "datapackage.json"}
DAYS = [FIRST + timedelta(days=n) for n in range(6)]


class Place:
    """An archive and a warehouse in a folder, with reports that are there too by default.

    `published` is the path or URL of the published copy, `described` its folder, `parquet` has the Parquet files.
    """

    def __init__(self, folder: Path, *, reports: Path | str | None = None) -> None:
        self.settings = Settings(data_dir=folder, reports=reports or folder / "reports", lock_wait_seconds=5)
        self.archive, self.warehouse = Archive(self.settings.archive), open_warehouse(self.settings)
        self.published = self.settings.published
        self._seconds = count()
        self.described = Store(f"{reports}/published" if reports else self.file.parent, setting="")
        self.parquet = Store(f"{reports}/published/parquet" if reports else self.file.parent / "parquet", setting="")

    @property
    def file(self) -> Path:
        """The published copy in a folder."""
        assert isinstance(self.published, Path)
        return self.published

    def load(self, *days: date, label: str | None = None, origin: str = "import") -> None:
        """Archive and load made-up days; with a `label`, another response for them."""
        for day in days:
            noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
            fetched_at = noon + timedelta(seconds=next(self._seconds))  # the newest one counts
            self.archive.put(restated(day, label), fetched_at=fetched_at, source="a test", origin=origin)
        assert not load_days(self.archive, self.warehouse, days, now=NOW).validated.errors

    def load_catalogues(self, *days: date) -> None:
        """Archive and load made-up model catalogues, in which a price changes every day."""
        for number, day in enumerate(days):
            models = json.loads(sample_catalogue(day))["data"]
            models[0]["pricing"] = {"prompt": f"0.00000{number + 1}", "completion": "0"}
            body = json.dumps({"data": models}).encode()
            fetched_at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
            self.archive.of(CATALOGUE).put(body, fetched_at=fetched_at, source="a test", origin="demo")
        assert not load_catalogues(self.archive, self.warehouse, days, now=NOW).errors

    def execute(self, *statements: str) -> None:
        """Execute SQL in one transaction."""
        with self.warehouse.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def read(self, table: str, **how: Any) -> pl.DataFrame:
        """Return the rows that readers get."""
        return orpipeline.read(table, settings=self.settings, **how)

    def read_parquet(self, name: str) -> pl.DataFrame:
        """Return the rows in a table's file."""
        content = self.parquet.read(f"{name}.parquet")
        assert content is not None
        return pl.read_parquet(content)


def restated(day: date, label: str | None) -> bytes:
    """Return a response in which one task has another label."""
    return sample_response(day, change=lambda data: data["classifications"][0].update(display_name=label or "Original"))
