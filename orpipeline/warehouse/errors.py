"""What can go wrong with the warehouse. Each of these errors means that its tables are unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from orpipeline.errors import NextAttempt, OrpipelineError


class WarehouseError(OrpipelineError):
    """The warehouse cannot be opened, read or written. Its tables are unchanged.

    >>> import orpipeline
    >>> warehouse = orpipeline.resources()["openrouter_warehouse"]
    >>> try:
    ...     with warehouse.get_connection() as connection:
    ...         rows = connection.sql("FROM prices").fetchall()
    ... except orpipeline.WarehouseError as error:
    ...     print(type(error).__name__)
    WarehouseError
    """


class WarehouseBusyError(WarehouseError):
    """Another process, or another thread of this one, has locked the warehouse.

    >>> import duckdb
    >>> import orpipeline
    >>> path = orpipeline.resources()["openrouter_warehouse"].database
    >>> notebook = duckdb.connect(path, read_only=True)
    >>> try:
    ...     with orpipeline.WarehouseResource(database=path, lock_wait_seconds=0).get_connection():
    ...         print("not locked")
    ... except orpipeline.WarehouseBusyError:
    ...     print("locked: use orpipeline.read in the notebook")
    locked: use orpipeline.read in the notebook
    >>> notebook.close()
    """


class DamagedWarehouseError(WarehouseError):
    """The file is damaged, or is not a DuckDB database. `orpipeline rebuild` keeps it aside and writes a new one."""

    next_attempt = NextAttempt.NEEDS_PERSON


class WarehouseSetupError(WarehouseError):
    """The engine of the warehouse cannot be used until a person changes something: an extra, a password, a place."""

    next_attempt = NextAttempt.NEEDS_PERSON


class DuplicateRowsError(WarehouseError):
    """Rows of a day have the same key, in an engine that has no primary keys to prevent it."""

    next_attempt = NextAttempt.NEEDS_PERSON


class NotPublishedError(WarehouseError):
    """There is no published copy to read yet.

    >>> import orpipeline
    >>> try:
    ...     rows = orpipeline.read("snapshots", settings=orpipeline.Settings(data_dir="/srv/new"))
    ... except orpipeline.NotPublishedError:
    ...     print("nothing loaded yet")
    nothing loaded yet
    """


class NoSuchTableError(WarehouseError):
    """A reader names a table, column or scope that does not exist.

    >>> import orpipeline
    >>> try:
    ...     rows = orpipeline.read("model_leaderboard", scope="coding")
    ... except orpipeline.NoSuchTableError as error:
    ...     print("coding" in str(error))
    True
    """


class MissingDaysError(WarehouseError):
    """The tables lack days that an asset loads. `days` has them, oldest first.

    >>> import dagster as dg
    >>> import orpipeline
    >>> @dg.asset(
    ...     partitions_def=orpipeline.daily_partitions(),
    ...     ins={"models": dg.AssetIn(orpipeline.asset_key("task_models"))},
    ... )
    ... def model_count(models) -> int:
    ...     return len(models)
    >>> assets = [model_count, *orpipeline.external_specs()]
    >>> try:
    ...     dg.materialize(assets, resources=orpipeline.resources(), partition_key="2026-09-01")
    ... except orpipeline.MissingDaysError as error:
    ...     print(*error.days)
    2026-09-01
    """

    def __init__(self, message: str, *, days: Sequence[date]) -> None:
        super().__init__(message)
        self.days = tuple(days)


class LayoutError(WarehouseError):
    """The tables, views and columns in the warehouse are not those that this version of orpipeline declares."""

    next_attempt = NextAttempt.NEEDS_PERSON


class OutdatedLayoutError(LayoutError):
    """The layout is older, or was changed by hand. `reason` is the part of the message that describes it."""

    def __init__(
        self,
        reason: str,
        action: str = "Run `orpipeline rebuild`, which rebuilds the tables from the archive; nothing was changed.",
    ) -> None:
        super().__init__(f"{reason} {action}")
        self.reason = reason


class NewerLayoutError(LayoutError):
    """A newer version of orpipeline wrote the tables; this one neither reads nor changes them."""
