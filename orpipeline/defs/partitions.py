"""The daily partitions, keyed by `as_of`."""

from __future__ import annotations

from datetime import date

import dagster as dg

from orpipeline.errors import SettingsError
from orpipeline.settings import load_settings

daily_partitions = dg.DailyPartitionsDefinition(
    start_date=load_settings().start_date.isoformat(), timezone="UTC", fmt="%Y-%m-%d"
)
"""One partition a UTC day, there once the day is over: just when the API begins to serve it as its `as_of`."""


def known_days() -> tuple[date, date]:
    """Return the first and the newest daily partition that there is now."""
    first, newest = daily_partitions.get_first_partition_key(), daily_partitions.get_last_partition_key()
    if first is None or newest is None:
        raise SettingsError("There is no daily partition yet: ORPIPELINE_START_DATE is not over.")
    return date.fromisoformat(first), date.fromisoformat(newest)
