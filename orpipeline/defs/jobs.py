"""The job of every day, and its run config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from orpipeline.capture import Fetch
from orpipeline.defs.names import Names

if TYPE_CHECKING:
    # What `define_asset_job` returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    AssetJob: TypeAlias = UnresolvedAssetJobDefinition


CATCH_UP_DAYS = 30
"""A run that automation starts also loads the archived days of the last so many that the tables lack."""


def daily_job(names: Names, *, report: bool) -> AssetJob:
    """Return the job `daily_snapshot`, which selects the pipeline's own assets and no others."""
    return dg.define_asset_job(
        names.job("daily_snapshot"),
        selection=[*names.daily_assets, *names.catalogue_assets, *([names.report] if report else [])],
        description="Fetch a day's response, archive it, validate it, and load the day's tables and leaderboard.",
        tags={"dagster/priority": "1", "dagster/max_runtime": "1800"},
        # One process: importing everything again in a process for each step takes longer than the step's work.
        executor_def=dg.in_process_executor,
    )


def snapshot_config(names: Names, fetch: Fetch, revision: int | None = None) -> dict[str, Any]:
    """Return the run config of `daily_snapshot`."""
    config = {"fetch": fetch.name} if revision is None else {"fetch": fetch.name, "revision": revision}
    ops: dict[str, Any] = {names.op("snapshot"): {"config": config}}
    if fetch is Fetch.never:
        ops[names.op("catalogue")] = {"config": {"fetch": fetch.name}}
    return {"ops": ops}
