"""The job of every day, and its run config."""

from __future__ import annotations

from typing import Any

import dagster as dg

from orpipeline.defs.specs import PREFIX
from orpipeline.snapshot import Fetch

daily_snapshot = dg.define_asset_job(
    "daily_snapshot",
    selection=dg.AssetSelection.key_prefixes([PREFIX]),
    description="Fetch a day's answer, keep it, validate it, and make the day's tables and leaderboard.",
    tags={"dagster/priority": "1"},
)


def snapshot_config(fetch: Fetch, revision: int | None = None) -> dict[str, Any]:
    """Return the run config of `daily_snapshot`."""
    config = {"fetch": fetch.name} if revision is None else {"fetch": fetch.name, "revision": revision}
    return {"ops": {"snapshot": {"config": config}}}
