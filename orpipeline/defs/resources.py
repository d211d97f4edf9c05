"""The resources: the API, the raw archive, the warehouse and its I/O manager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import ConfigDict, Field

from orpipeline.archive import Archive
from orpipeline.defs.io_manager import (
    LAKE_DATA,
    LOCK_WAIT,
    PUBLISHED,
    WarehouseIOManager,
    configured_warehouse,
)
from orpipeline.defs.names import Names
from orpipeline.openrouter.client import Client, open_client
from orpipeline.openrouter.response import CLASSIFICATIONS, Dataset
from orpipeline.settings import (
    REQUESTS_PER_DAY,
    REQUESTS_PER_MINUTE,
    LocalPath,
    Settings,
    StorePlace,
    api_key,
    place,
)
from orpipeline.warehouse.schema import DEFAULT_SCHEMA
from orpipeline.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from orpipeline.openrouter.budget import Budget


class OpenRouterResource(dg.ConfigurableResource):  # type: ignore[type-arg] # dagster's own idiom
    """OpenRouter's API.

    The API key is not part of the configuration, which the UI shows: it is read from `OPENROUTER_API_KEY` when the API
    is called.

        >>> import orpipeline
        >>> api = orpipeline.OpenRouterResource(base_url="https://openrouter.ai/api/v1", state="/srv/openrouter/state")
        >>> replaced = {**orpipeline.resources(), "openrouter": api}
    """

    model_config = ConfigDict(extra="forbid")

    base_url: str = Field(description="The API's address, without `/classifications/task`.")
    state: str = Field(description="The request budget that all processes share: a folder, or postgresql://...")
    requests_per_minute: int = Field(default=REQUESTS_PER_MINUTE, description="At most the API's own 30.")
    requests_per_day: int = Field(default=REQUESTS_PER_DAY, description="At most the API's own 500.")
    http_referer: str | None = Field(default=None, description="Sent as `HTTP-Referer`.")
    app_title: str | None = Field(default=None, description="Sent as `X-OpenRouter-Title`.")
    app_categories: str | None = Field(default=None, description="Sent as `X-OpenRouter-Categories`.")

    @property
    def budget(self) -> Budget:
        """The shared request budget."""
        from orpipeline.openrouter.budget import open_budget  # SQLAlchemy takes 0.2 s, and no definition needs it

        return open_budget(self._settings())

    def client(self, dataset: Dataset = CLASSIFICATIONS) -> Client:
        """Return a client with the API key that the environment has now, on the shared budget."""
        return open_client(self._settings(), api_key(), dataset)

    def _settings(self) -> Settings:
        """Return the settings that this resource has a part of. Raises SettingsError for invalid values."""
        return Settings.model_validate({name: getattr(self, name) for name in type(self).model_fields})


class ArchiveResource(dg.ConfigurableResource):  # type: ignore[type-arg] # dagster's own idiom
    """The append-only archive of raw responses.

        >>> import orpipeline
        >>> archive = orpipeline.ArchiveResource(path="/srv/openrouter/raw")
        >>> replaced = {**orpipeline.resources(), "openrouter_archive": archive}

    A day's responses are in `path/task_classifications/2026-10-06`.
    """

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="The archive: a folder, or an object store such as `s3://bucket/prefix`.")
    spool: str | None = Field(
        default=None,
        description="The folder where fetched responses wait while the archive cannot take them. None by default.",
    )

    def archive(self) -> Archive:
        """Return the archive."""
        return Archive(place("path", self.path, StorePlace))

    def waiting(self) -> Archive | None:
        """Return the spool, which is an archive in a folder, or None."""
        return Archive(place("spool", self.spool, LocalPath)) if self.spool else None


class WarehouseResource(DuckDBResource):
    """The warehouse, a DuckDB file or a lake: dagster-duckdb's resource, with a lock wait and transactions.

    `with warehouse.get_connection() as connection:` is one transaction, rolled back on an error.

        >>> import dagster as dg
        >>> import orpipeline
        >>> @dg.asset(deps=[orpipeline.asset_key("model_leaderboard")])
        ... def authors(openrouter_warehouse: orpipeline.WarehouseResource) -> None:
        ...     with openrouter_warehouse.get_connection() as connection:
        ...         connection.sql("SELECT DISTINCT author FROM openrouter.model_leaderboard").create("authors")
        >>> dg.materialize([authors], resources=orpipeline.resources()).success
        True
    """

    model_config = ConfigDict(extra="forbid")

    tables_schema: str = Field(default=DEFAULT_SCHEMA, description="The DuckDB schema of the pipeline's own tables.")
    lake_data: str | None = LAKE_DATA
    lock_wait_seconds: float = LOCK_WAIT
    published: str | None = PUBLISHED

    def warehouse(self) -> Warehouse:
        """Return the warehouse, to read tables and replace days."""
        return configured_warehouse({name: getattr(self, name) for name in type(self).model_fields}, self.tables_schema)

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the database for one transaction: commit at the end, roll back on an error, close in any case."""
        with self.warehouse().transaction() as connection:
            yield connection


def api_resource(settings: Settings) -> OpenRouterResource:
    """Return the API as the settings describe it."""
    values = settings.model_dump(mode="json", include=set(OpenRouterResource.model_fields))
    return OpenRouterResource(**values)


def io_manager(settings: Settings) -> WarehouseIOManager:
    """Return the I/O manager of the settings' warehouse."""
    return WarehouseIOManager(**_warehouse_config(settings))


def hidden_config(resources: Mapping[str, dg.ConfigurableResourceFactory[Any]]) -> dict[str, dg.ResourceDefinition]:
    """Return resources whose configuration is fixed, so the launchpad shows only what a run may change."""
    definitions = {key: resource.get_resource_definition() for key, resource in resources.items()}
    return {key: one.configured(one.config_schema.default_value) for key, one in definitions.items()}


def resources(settings: Settings, names: Names) -> dict[str, dg.ConfigurableResourceFactory[Any]]:
    """Return the pipeline's resources by key."""
    return {
        names.api: api_resource(settings),
        names.archive: ArchiveResource(
            path=str(settings.archive), spool=None if isinstance(settings.archive, Path) else str(settings.spool)
        ),
        names.warehouse: WarehouseResource(**_warehouse_config(settings), tables_schema=names.prefix),
        names.io_manager: io_manager(settings),
    }


def _warehouse_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration of the settings' warehouse. Other engines than a lake have no use for `lake_data`."""
    return {
        "database": str(settings.warehouse),
        "lake_data": str(settings.lake_data) if settings.is_lake else None,
        "lock_wait_seconds": settings.lock_wait_seconds,
        "published": str(settings.published),
    }
