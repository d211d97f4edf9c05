"""The daily partitions, keyed by `as_of`."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime

import dagster as dg

from orpipeline.archive import Archive
from orpipeline.clock import newest_completed_day
from orpipeline.errors import SettingsError, StoreError
from orpipeline.settings import Settings, load_settings


def daily_partitions(settings: Settings | None = None) -> dg.DailyPartitionsDefinition:
    """Return the partitions of the pipeline's assets: one for each UTC day, from the day's end on.

        >>> import dagster as dg
        >>> import orpipeline
        >>> @dg.asset(partitions_def=orpipeline.daily_partitions(), deps=[orpipeline.asset_key("task_models")])
        ... def authors() -> None: ...

    Use the same ones for your own assets. Without `settings`, `ORPIPELINE_START_DATE` in the environment is the
    first day.
    """
    start = (settings or load_settings()).start_date
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC", fmt="%Y-%m-%d")


def stand_alone_partitions(settings: Settings, now: datetime) -> dg.DailyPartitionsDefinition:
    """Return the partitions of the stand-alone code location at `now`, when it is loaded.

    Without a start date in the settings, the first one is the first archived day or, while nothing is archived, the
    newest completed day: nobody can fetch an earlier one, so the UI must not show it as missing. After an import of
    earlier days, the next load begins at the first of them.
    """
    if "start_date" in settings.model_fields_set:
        return daily_partitions(settings)
    first = None
    with suppress(StoreError):  # the runs report it
        first = next(iter(Archive(settings.archive).days()), newest_completed_day(now))
    return daily_partitions(settings.model_copy(update={"start_date": first}) if first else settings)


def known_days(partitions: dg.DailyPartitionsDefinition) -> tuple[date, date]:
    """Return the first and the newest partition that exist now. Raises SettingsError if none does."""
    first, newest = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    if first is None or newest is None:
        raise SettingsError("There is no daily partition yet: the day ORPIPELINE_START_DATE has not ended.")
    return date.fromisoformat(first), date.fromisoformat(newest)
