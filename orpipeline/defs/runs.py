"""What Dagster's instance knows: which days are materialized, and the runs that worked on them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import takewhile

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # it has no public name

from orpipeline.archive import DIGITS
from orpipeline.defs.names import Names
from orpipeline.errors import NextAttempt

_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_WITH_A_PROCESS = [status for status in _ACTIVE if status is not dg.DagsterRunStatus.QUEUED]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_RUNS_AT_ONCE = 100
SILENT_AFTER = timedelta(minutes=30)
"""A run that has recorded no event for this long was killed. The longest step of ours takes seconds between events."""


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended: `error` is the name of the error that ended it, or None; `ended_at` is epoch seconds."""

    run_id: str
    error: str | None
    next_attempt: NextAttempt
    """What the error means for the next attempt."""
    ended_at: float


def materialized(instance: dg.DagsterInstance, names: Names, day: date) -> bool:
    """Return whether the day's leaderboard, the last of its tables, is materialized."""
    wanted = dg.AssetRecordsFilter(asset_key=names.asset("model_leaderboard"), asset_partitions=[day.isoformat()])
    return bool(instance.fetch_materializations(wanted, limit=1).records)


def not_materialized(instance: dg.DagsterInstance, names: Names, days: Sequence[date]) -> list[date]:
    """Return those of some days whose leaderboard is not materialized. One query, however many days there are."""
    known = instance.get_materialized_partitions(names.asset("model_leaderboard"))
    return [day for day in days if day.isoformat() not in known]


def loaded_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Return the sha256 of the response that each partition of an asset was last materialized from, as far as known."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
    )
    return {partition: of_one[DATA_VERSION_TAG] for partition, of_one in tags.items() if DATA_VERSION_TAG in of_one}


def days_of_failed_runs(instance: dg.DagsterInstance, names: Names, since: date) -> set[str]:
    """Return the partitions of the pipeline's runs that have failed since a day. The newest runs are read first."""
    records = _records(instance, names, [dg.DagsterRunStatus.FAILURE], None)
    failed = takewhile(lambda record: record.create_timestamp.date() >= since, records)
    return {record.dagster_run.tags.get("dagster/partition", "") for record in failed}


def newest_event(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """Return the storage id of an asset's newest materialization, 0 without one."""
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=1).records
    return records[0].storage_id if records else 0


def unreported(instance: dg.DagsterInstance, names: Names, days: Mapping[date, Container[str]]) -> set[date]:
    """Return the days that an asset has no current materialization for.

    `days` gives how each day's outdated data versions begin: those of its other revisions. Queries the event log
    once for each asset, however many days there are.
    """
    found: set[date] = set()
    for key in names.daily_assets:
        versions = loaded_versions(instance, key)
        reported = instance.get_materialized_partitions(key)
        for day, outdated in days.items():
            partition = day.isoformat()
            version = versions.get(partition)
            if partition not in reported or (version is not None and version[:DIGITS] in outdated):
                found.add(day)
    return found


def give_up_silent_runs(instance: dg.DagsterInstance, names: Names, now: datetime) -> list[str]:
    """Mark the pipeline's runs as failed whose process was killed, and return their ids.

    Dagster's run monitoring does so, too, but only if the instance's `dagster.yaml` turns it on. Otherwise such a run
    would count as active forever, and its day would not be retried. Runs that also have assets of yours are left alone:
    those may work for long without an event.
    """
    silent = [
        record.dagster_run
        for record in _records(instance, names, _WITH_A_PROCESS, None)
        if _is_ours_alone(record, names) and _is_silent(instance, record, now)
    ]
    for run in silent:
        instance.report_run_failed(
            run, f"No event for {SILENT_AFTER.seconds // 60} minutes: the run's process was killed. The day is retried."
        )
    return [run.run_id for run in silent]


def _is_silent(instance: dg.DagsterInstance, record: dg.RunRecord, now: datetime) -> bool:
    newest = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    last = newest[0].event_log_entry.timestamp if newest else record.create_timestamp.timestamp()
    # A time that is as far ahead was recorded while the clock was ahead; since then, there was no event either.
    return abs(now.timestamp() - last) > SILENT_AFTER.total_seconds()


def active_run(instance: dg.DagsterInstance, names: Names, now: datetime, day: date | None = None) -> str | None:
    """Return the id of a queued or running run of the pipeline, of one day or of any; None if there is none.

    A silent run does not count: its process was killed.
    """
    for record in _records(instance, names, _ACTIVE, day):
        is_queued = record.dagster_run.status is dg.DagsterRunStatus.QUEUED
        if is_queued or not _is_silent(instance, record, now):
            return record.dagster_run.run_id
    return None


def latest_ended_run(instance: dg.DagsterInstance, names: Names, day: date, known: str | None) -> EndedRun | None:
    """Return the day's newest run that has ended, or None if that is the one already `known`."""
    record = next(_records(instance, names, _ENDED, day), None)
    if record is None or record.dagster_run.run_id == known:
        return None
    failed = record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS
    error, next_attempt = _error(instance, record.dagster_run.run_id) if failed else (None, NextAttempt.TRANSIENT)
    ended_at = record.end_time or record.update_timestamp.timestamp()
    return EndedRun(record.dagster_run.run_id, error, next_attempt, ended_at)


def failures_in_a_row(instance: dg.DagsterInstance, names: Names, day: date) -> int:
    """Return how many of the day's newest runs that have ended have failed, up to the last success."""
    statuses = [record.dagster_run.status for record in _records(instance, names, _ENDED, day)]
    return next((n for n, status in enumerate(statuses) if status is dg.DagsterRunStatus.SUCCESS), len(statuses))


def _records(
    instance: dg.DagsterInstance, names: Names, statuses: Sequence[dg.DagsterRunStatus], day: date | None
) -> Iterator[dg.RunRecord]:
    """Yield the pipeline's runs, newest first: its jobs', and those that the asset graph started."""
    wanted = dg.RunsFilter(statuses=list(statuses), tags={} if day is None else {"dagster/partition": day.isoformat()})
    cursor = None
    # Runs of other jobs are among them: with 100 pipelines on one instance, there are hundreds for each day.
    while records := instance.get_run_records(wanted, limit=_RUNS_AT_ONCE, cursor=cursor):
        for record in records:
            if _is_of_our_jobs(record, names) or _ours(names) & set(record.dagster_run.asset_selection or ()):
                yield record
        cursor = records[-1].dagster_run.run_id


def _is_ours_alone(record: dg.RunRecord, names: Names) -> bool:
    return _is_of_our_jobs(record, names) or set(record.dagster_run.asset_selection or ()) <= _ours(names)


def _is_of_our_jobs(record: dg.RunRecord, names: Names) -> bool:
    return record.dagster_run.job_name in {names.job("daily_snapshot"), names.job("import_archive")}


def _ours(names: Names) -> set[dg.AssetKey]:
    return {*names.daily_assets, names.report}


def _error(instance: dg.DagsterInstance, run_id: str) -> tuple[str, NextAttempt]:
    """Return the name of the error in the step's failure, and what it means for the next attempt."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        data = event.step_failure_data.user_failure_data if event else None
        if data is not None and "error" in data.metadata:
            # A failure that an older version recorded has no "retry".
            retry = data.metadata.get("retry")
            return str(data.metadata["error"].value), NextAttempt(str(retry.value)) if retry else NextAttempt.TRANSIENT
    return "Unexpected failure", NextAttempt.TRANSIENT
