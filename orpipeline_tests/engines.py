"""The engines that the same tests run on: a DuckDB file, and a DuckLake of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orpipeline.settings import Settings
from orpipeline.warehouse.warehouse import Warehouse

ON_BOTH_ENGINES = pytest.mark.parametrize(
    "engine", ["file", pytest.param("lake", marks=pytest.mark.lake)], indirect=True
)
"""Run a test on a DuckDB file, and on a lake where that is installed."""


@dataclass(frozen=True)
class EnginePlace:
    """Where a test's warehouse is, as the settings have it."""

    warehouse: Path | str
    lake_data: Path | str | None = None

    def open(self, **options: Any) -> Warehouse:
        """Return the warehouse."""
        return Warehouse(self.warehouse, lake_data=self.lake_data, **{"lock_wait_seconds": 10, **options})

    def settings(self, settings: Settings) -> Settings:
        """Return settings with this warehouse."""
        lake = {"lake_data": self.lake_data} if self.lake_data else {}
        return settings.model_copy(update={"warehouse": self.warehouse, **lake})
