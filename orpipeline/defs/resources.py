"""The resources: the API, the raw archive, the warehouse and its I/O manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field

from orpipeline.archive.folder import Archive
from orpipeline.clock import utc_now
from orpipeline.openrouter.budget import shared_budget
from orpipeline.openrouter.client import AppHeaders, Client
from orpipeline.settings import LOCK_WAIT_SECONDS, Settings, load_settings
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.io_manager import WarehouseIOManager


class OpenRouterResource(dg.ConfigurableResource):  # type: ignore[type-arg] # dagster's own idiom
    """OpenRouter's API.

    The key is not part of the configuration, which the UI shows: it is read from `OPENROUTER_API_KEY` when
    the API is asked.
    """

    base_url: str = Field(description="Where `/classifications/task` is asked.")
    http_referer: str | None = Field(default=None, description="Sent as `HTTP-Referer`.")
    app_title: str | None = Field(default=None, description="Sent as `X-OpenRouter-Title`.")
    app_categories: str | None = Field(default=None, description="Sent as `X-OpenRouter-Categories`.")

    def client(self) -> Client:
        """Return a client with the key that the environment has now, on the machine's shared budget."""
        settings = load_settings()
        api_key = settings.api_key
        return Client(
            api_key=api_key.get_secret_value() if api_key else None,
            base_url=self.base_url,
            app=AppHeaders(self.http_referer, self.app_title, self.app_categories),
            clock=utc_now,
            budget=shared_budget(settings),
        )


class ArchiveResource(dg.ConfigurableResource):  # type: ignore[type-arg] # dagster's own idiom
    """The append-only archive of raw answers."""

    path: str = Field(description="The archive's folder.")

    def archive(self) -> Archive:
        """Return the archive."""
        return Archive(Path(self.path))


class WarehouseResource(DuckDBResource):
    """The DuckDB warehouse: dagster-duckdb's resource, opened and closed in one safe way.

    `with warehouse.get_connection() as connection:` is one transaction, rolled back on an error.
    """

    lock_wait_seconds: float = Field(
        default=LOCK_WAIT_SECONDS, description="How long to wait for another process that holds the file."
    )

    def warehouse(self) -> Warehouse:
        """Return the warehouse, for reading tables and replacing days."""
        return Warehouse(Path(self.database), lock_wait_seconds=self.lock_wait_seconds)

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction; commit at the end, roll back on an error, close always."""
        with self.warehouse().transaction() as connection:
            yield connection


def resources(settings: Settings) -> dict[str, object]:
    """Return the resources by key, as the settings say."""
    database = str(settings.warehouse_path)
    return {
        "openrouter": OpenRouterResource(
            base_url=settings.base_url,
            http_referer=settings.http_referer,
            app_title=settings.app_title,
            app_categories=settings.app_categories,
        ),
        "archive": ArchiveResource(path=str(settings.archive_dir)),
        "warehouse": WarehouseResource(database=database, lock_wait_seconds=settings.lock_wait_seconds),
        "io_manager": WarehouseIOManager(database=database, lock_wait_seconds=settings.lock_wait_seconds),
    }
