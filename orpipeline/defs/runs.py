"""What Dagster's instance knows of a day: whether it is materialized, and which runs worked on it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg

from orpipeline.defs.specs import DAILY_ASSETS, DATA_VERSION_TAG, RAW, table_key

_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_MANY = 100  # a day's runs, those of other jobs among them


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended: `error` names what ended it, or is None; `ended_at` is in seconds since the epoch."""

    run_id: str
    error: str | None
    ended_at: float


def materialized(instance: dg.DagsterInstance, day: date) -> bool:
    """Say whether the day went all the way to the leaderboard."""
    wanted = dg.AssetRecordsFilter(asset_key=table_key("model_leaderboard"), asset_partitions=[day.isoformat()])
    return bool(instance.fetch_materializations(wanted, limit=1).records)


def unreported(instance: dg.DagsterInstance, days: Mapping[date, Container[str]]) -> set[date]:
    """Return the days that an asset's latest materialization does not stand for.

    `days` gives, for each day, the data versions that are out of date: those of its other revisions. Asks the event log
    once for each asset, however many days there are.
    """
    found: set[date] = set()
    for key in DAILY_ASSETS:
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
        )
        there = instance.get_materialized_partitions(key)
        for day, outdated in days.items():
            partition = day.isoformat()
            version = tags.get(partition, {}).get(DATA_VERSION_TAG)
            if partition not in there or (version is not None and version in outdated):
                found.add(day)
    return found


def active_run(instance: dg.DagsterInstance, day: date) -> str | None:
    """Return the id of a run that is queued for the day or at work on it, or None."""
    records = _records(instance, day, _ACTIVE)
    return records[0].dagster_run.run_id if records else None


def latest_ended_run(instance: dg.DagsterInstance, day: date, known: str | None) -> EndedRun | None:
    """Return the day's newest run that has ended, or None where that is the one already `known`."""
    records = _records(instance, day, _ENDED)
    if not records or records[0].dagster_run.run_id == known:
        return None
    record = records[0]
    failed = record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS
    error = _error(instance, record.dagster_run.run_id) if failed else None
    return EndedRun(record.dagster_run.run_id, error, record.end_time or record.update_timestamp.timestamp())


def _records(instance: dg.DagsterInstance, day: date, statuses: list[dg.DagsterRunStatus]) -> list[dg.RunRecord]:
    """Return the day's runs of the snapshot, newest first: the job's, and those launched from the asset graph."""
    wanted = dg.RunsFilter(statuses=statuses, tags={"dagster/partition": day.isoformat()})
    return [
        record
        for record in instance.get_run_records(wanted, limit=_MANY)
        if record.dagster_run.job_name == "daily_snapshot" or RAW in (record.dagster_run.asset_selection or ())
    ]


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the name of the error that the step's failure carries."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        data = event.step_failure_data.user_failure_data if event else None
        if data is not None and "error" in data.metadata:
            return str(data.metadata["error"].value)
    return "Unexpected failure"
