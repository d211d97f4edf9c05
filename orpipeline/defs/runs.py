"""What Dagster's instance knows of one pipeline: the attempts to fetch its days, and the runs at work.

Each question filters in its query, by asset and day or by tag, so the number of other people's runs does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

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
    records = instance.fetch_observations(wanted, limit=100).records
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
            instance.report_run_failed(run, f"No event for {SILENT_AFTER}: the run's process was killed.")
    return None


def _active_records(instance: dg.DagsterInstance, names: Names, day: date | None) -> Iterator[dg.RunRecord]:
    of_jobs: list[dict[str, Any]] = [{"job_name": job} for job in _jobs(names)]
    of_day = [{"tags": {tag: str(day)}} for tag in _DAY_TAGS]
    for wanted in of_jobs if day is None else of_day:
        yield from instance.get_run_records(dg.RunsFilter(statuses=_ACTIVE, **wanted))


def _jobs(names: Names) -> tuple[str, ...]:
    return names.job("daily_snapshot"), names.job("import_archive")


def _is_silent(instance: dg.DagsterInstance, record: dg.RunRecord, now: datetime) -> bool:
    newest = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    last = newest[0].event_log_entry.timestamp if newest else record.create_timestamp.timestamp()
    # A time that is as far ahead was recorded while the clock was ahead; since then, there was no event either.
    return abs(now.timestamp() - last) > SILENT_AFTER.total_seconds()
