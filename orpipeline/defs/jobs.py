"""The job of every day, its run config, and the days that it catches up on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # it has no public name

from orpipeline.archive import Archive, Revision
from orpipeline.capture import Fetch
from orpipeline.defs.names import Names
from orpipeline.defs.runs import outcomes
from orpipeline.errors import NextAttempt

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


def loaded_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Return the sha256 of the response that each partition of an asset was last materialized from, as far as known."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
    )
    return {partition: of_one[DATA_VERSION_TAG] for partition, of_one in tags.items() if DATA_VERSION_TAG in of_one}


def archived_but_not_loaded(
    instance: dg.DagsterInstance, names: Names, archive: Archive, days: Sequence[date]
) -> dict[date, Revision]:
    """Return those of some days whose newest archived response is not the one that the tables have, as Dagster knows.

    Left out are responses that were rejected, or that were damaged and are not restored: a repetition changes nothing.
    Of the archive, only files that were found damaged are read. Raises StoreError.
    """
    versions = loaded_versions(instance, names.asset("model_leaderboard"))
    newest = {day: revisions[-1] for day, revisions in archive.revisions_of(days).items() if revisions}
    wanted = {day: one for day, one in newest.items() if not versions.get(day.isoformat(), "").startswith(one.digest)}
    unusable = {
        day
        for day, outcome in (outcomes(instance, names, list(wanted)) if wanted else ())
        if outcome.digest == wanted[day].digest
        and (outcome.next_attempt is NextAttempt.NEEDS_OPENROUTER or not archive.is_current(day))
    }
    return {day: one for day, one in wanted.items() if day not in unusable}
