"""What Dagster's instance knows of one pipeline: its days, the attempts to fetch them, and the runs at work.

Each question filters in its query, by asset and day or by tag, so the number of other people's runs does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # it has no public name

from orpipeline.archive import Archive, Revision
from orpipeline.defs.names import Names
from orpipeline.errors import NextAttempt

_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_DAY_TAGS = ("dagster/partition", "dagster/asset_partition_range_end")
SILENT_AFTER = timedelta(minutes=30)
"""A run that has recorded no event for this long was killed. The longest step of ours takes seconds between events."""
MOST_ATTEMPTS = 100
"""How many of a day's newest attempts are read."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt to fetch or load a day ended, as an observation of the raw asset has it."""

    at: datetime
    error: str | None
    """The name of the error, or None: the API was called, and its response is archived."""
    next_attempt: NextAttempt
    reason: str
    digest: str
    """The beginning of the sha256 of the response that was judged, or empty."""


def observation(
    names: Names,
    day: date,
    reason: str,
    error: str | None = None,
    next_attempt: NextAttempt = NextAttempt.TRANSIENT,
    digest: str = "",
    asset: str = "raw_task_classifications",
) -> dg.AssetObservation:
    """Return the event that records how an attempt ended, with the name of its error. `outcomes` reads it."""
    failed = {"error": error, "retry": next_attempt.value} if error else {}
    judged = {"response": digest} if digest else {}
    return dg.AssetObservation(
        names.asset(asset), partition=day.isoformat(), metadata={"result": reason, **failed, **judged}
    )


def outcomes(
    instance: dg.DagsterInstance, names: Names, days: Sequence[date], since: datetime | None = None
) -> list[tuple[date, Outcome]]:
    """Return the newest attempts for some days, the newest first."""
    wanted = dg.AssetRecordsFilter(
        asset_key=names.raw,
        asset_partitions=[day.isoformat() for day in days],
        after_timestamp=since.timestamp() - 1 if since else None,
    )
    records = instance.fetch_observations(wanted, limit=MOST_ATTEMPTS).records
    return [
        (date.fromisoformat(record.partition_key or ""), _outcome(record.timestamp, record.asset_observation.metadata))
        for record in records
        if record.asset_observation is not None and "result" in record.asset_observation.metadata
    ]


def _outcome(timestamp: float, metadata: Mapping[str, dg.MetadataValue]) -> Outcome:
    text = {name: str(value.value) for name, value in metadata.items()}
    retry = NextAttempt(text["retry"]) if "retry" in text else NextAttempt.TRANSIENT
    at = datetime.fromtimestamp(timestamp, UTC)
    return Outcome(at, text.get("error"), retry, text["result"], text.get("response", ""))


def materialized(instance: dg.DagsterInstance, names: Names, day: date) -> bool:
    """Return whether the day's leaderboard, the last of its tables, is materialized."""
    wanted = dg.AssetRecordsFilter(asset_key=names.asset("model_leaderboard"), asset_partitions=[day.isoformat()])
    return bool(instance.fetch_materializations(wanted, limit=1).records)


def loaded_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Return the sha256 of the response that each partition of an asset was last materialized from, as far as known."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
    )
    return {partition: of_one[DATA_VERSION_TAG] for partition, of_one in tags.items() if DATA_VERSION_TAG in of_one}


def active_run(instance: dg.DagsterInstance, names: Names, now: datetime, day: date | None = None) -> str | None:
    """Return the id of a queued or running run that selects our assets of a newest day, by itself or in a range.

    Without a `day`, it is any run of our jobs. A run whose process was killed does not count. If it has no assets but
    ours, it is marked as failed: with the default launcher, Dagster's run monitoring does not notice it.
    """
    for record in _active_records(instance, names, day):
        run = record.dagster_run
        is_of_our_job = run.job_name in _jobs(names)
        ours, selected = {*names.daily_assets, names.report}, set(run.asset_selection or ())
        if not is_of_our_job and not ours & selected:
            continue
        if run.status is dg.DagsterRunStatus.QUEUED or not _is_silent(instance, record, now):
            return run.run_id
        if is_of_our_job or selected <= ours:
            minutes = SILENT_AFTER.seconds // 60
            instance.report_run_failed(run, f"No event for {minutes} minutes: the run's process was killed.")
    return None


def _active_records(instance: dg.DagsterInstance, names: Names, day: date | None) -> Iterator[dg.RunRecord]:
    if day is None:
        filters = [dg.RunsFilter(statuses=_ACTIVE, job_name=job) for job in _jobs(names)]
    else:
        filters = [dg.RunsFilter(statuses=_ACTIVE, tags={tag: day.isoformat()}) for tag in _DAY_TAGS]
    for wanted in filters:
        yield from instance.get_run_records(wanted)


def _jobs(names: Names) -> tuple[str, ...]:
    return names.job("daily_snapshot"), names.job("import_archive")


def _is_silent(instance: dg.DagsterInstance, record: dg.RunRecord, now: datetime) -> bool:
    newest = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    last = newest[0].event_log_entry.timestamp if newest else record.create_timestamp.timestamp()
    # A time that is as far ahead was recorded while the clock was ahead; since then, there was no event either.
    return abs(now.timestamp() - last) > SILENT_AFTER.total_seconds()


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
