"""The jobs."""

from __future__ import annotations

import dagster as dg

from orpipeline.defs.specs import PREFIX

daily_snapshot = dg.define_asset_job(
    "daily_snapshot",
    selection=dg.AssetSelection.key_prefixes([PREFIX]),
    description="Fetch a day's answer, keep it, validate it, and make the day's tables and leaderboard.",
    tags={"dagster/priority": "1"},
)
