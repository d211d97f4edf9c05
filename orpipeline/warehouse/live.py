"""The tables of an engine that readers can open themselves, such as a lake: they keep no writer waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import NotPublishedError
from orpipeline.warehouse.published import PublishedCopy


class LiveTables(PublishedCopy):
    """The warehouse itself in place of a published copy, read-only."""

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__(warehouse.name, schema=warehouse.schema)
        self._warehouse = warehouse

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the warehouse as it is at one moment. Raises NotPublishedError if there is none, or WarehouseError."""
        if not self._warehouse.exists:
            raise NotPublishedError(
                f"There is no warehouse at {self._warehouse.name} yet. Use `orpipeline run`, or `orpipeline rebuild` "
                "if the archive has days already."
            )
        with self._warehouse.connect(read_only=True) as connection:
            connection.begin()  # later commits are not visible
            yield connection
