"""The daily partitions, keyed by `as_of`."""

from __future__ import annotations

from datetime import date

import dagster as dg

from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, used_settings


def daily_partitions(settings: Settings | None = None) -> dg.DailyPartitionsDefinition:
    """Return the daily partitions (UTC) of the pipeline's assets. A day's partition exists once the day has ended.

        >>> import dagster as dg
        >>> import orpipeline
        >>> @dg.asset(partitions_def=orpipeline.daily_partitions(), deps=[orpipeline.asset_key("task_models")])
        ... def authors() -> None: ...

    Use them for your own assets, so that Dagster can materialize yours and ours together. Without `settings`,
    `ORPIPELINE_START_DATE` in the environment is the first day, as for every code location.
    """
    start = used_settings(settings).start_date
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", fmt="%Y-%m-%d")


def known_days(partitions: dg.DailyPartitionsDefinition) -> tuple[date, date]:
    """Return the first and the newest partition that exist now. Raises SettingsError if none does."""
    first, newest = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    if first is None or newest is None:
        raise SettingsError("There is no daily partition yet: the day ORPIPELINE_START_DATE has not ended.")
    return date.fromisoformat(first), date.fromisoformat(newest)
