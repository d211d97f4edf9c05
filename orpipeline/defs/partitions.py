"""The daily partitions, keyed by `as_of`."""

from __future__ import annotations

import dagster as dg

from orpipeline.settings import load_settings

daily_partitions = dg.DailyPartitionsDefinition(
    start_date=load_settings().start_date.isoformat(), timezone="UTC", fmt="%Y-%m-%d"
)
"""One partition a UTC day, there once the day is over: just when the API begins to serve it as its `as_of`."""
