"""Reading the tables from the published copy, or from a lake: it blocks no run and is blocked by none."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from orpipeline.days import as_day
from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, load_settings
from orpipeline.warehouse.published import PublishedCopy


def read(
    table: str,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    scope: str | None = None,
    settings: Settings | None = None,
) -> pl.DataFrame:
    """Return the rows of a table or view from the published copy or the lake, as a polars frame.

        >>> import orpipeline
        >>> orpipeline.read("model_leaderboard", scope="code", since="2026-10-01").columns[:4]
        ['as_of', 'window_days', 'scope', 'model_id']

    A table of orpipeline has the columns and types of its contract, sorted by its key. You can also read your own
    tables in the warehouse. Days that are missing have no rows. The rows are those of the last write. Polars does not
    work in a forked process: start the processes of `multiprocessing` with `spawn`.

    Args:
        table: A name such as `model_leaderboard`, or with its schema, such as `public.authors`.
        since: The first day (`as_of`), as a date or `YYYY-MM-DD`. By default, the table's first day.
        until: The last day. By default, the table's last day.
        scope: `all` or the key of a macro-category, for tables that have the column `scope`. By default, all scopes.
        settings: Where the data is; by default from the environment.

    Raises:
        NotPublishedError: There is no published copy yet, or no lake.
        NoSuchTableError: There is no such table, or the table has no such column or scope.
        SettingsError: A day is not a date, or the environment has an invalid setting.
        WarehouseError: The file or the lake cannot be read.
    """
    copy = open_readable(settings or load_settings())
    return copy.read(table, since=_day("since", since), until=_day("until", until), scope=scope)


def open_readable(settings: Settings) -> PublishedCopy:
    """Return what readers open: the published copy of a DuckDB file, or the lake itself."""
    if isinstance(settings.warehouse, Path):
        return PublishedCopy(settings.published, cache=settings.data_dir / "cache")
    from orpipeline.warehouse.database import Warehouse
    from orpipeline.warehouse.live import LiveTables

    return LiveTables(Warehouse(settings.warehouse, lake_data=settings.lake_data))


def _day(name: str, day: date | str | None) -> date | None:
    try:
        return None if day is None else as_day(day)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
