"""The schedules: each newest completed day is fetched at 00:20 UTC, and once more at 21:40."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.runs import active_run, materialized
from orpipeline.settings import api_key

if TYPE_CHECKING:
    from orpipeline.defs.jobs import AssetJob

NO_KEY = (
    "OPENROUTER_API_KEY is not set: set it and restart, or this day is lost at the next midnight UTC. "
    "(`orpipeline demo` needs no key.)"
)


def daily_schedule(names: Names, job: AssetJob) -> dg.ScheduleDefinition:
    """Return the schedule that fetches the day that has just ended."""
    description = "Every day at 00:20 UTC: fetch the day that has just ended, unless it is materialized."
    return _schedule(names, job, "daily_snapshot_schedule", "20 0 * * *", description, Fetch.auto)


def recapture_schedule(names: Names, job: AssetJob) -> dg.ScheduleDefinition:
    """Return the schedule that fetches the newest day once more; bytes that are already archived change nothing."""
    description = "Every day at 21:40 UTC: fetch the newest day again, because its figures may have been restated."
    return _schedule(names, job, "recapture_schedule", "40 21 * * *", description, Fetch.always)


def _schedule(
    names: Names, job: AssetJob, name: str, cron: str, description: str, fetch: Fetch
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=names.job(name),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = newest_completed_day(context.scheduled_execution_time)
        reason = _reason_to_skip(context, names, day)
        is_first = fetch is Fetch.auto
        if reason is None and is_first and materialized(context.instance, names, day):
            reason = f"{day} is materialized."
        if reason is not None:
            return dg.SkipReason(reason)
        key, config = ("daily", None) if is_first else ("recapture", snapshot_config(names, fetch))
        return dg.RunRequest(run_key=f"{key}-{day}", partition_key=day.isoformat(), run_config=config)

    return schedule


def _reason_to_skip(context: dg.ScheduleEvaluationContext, names: Names, day: date) -> str | None:
    """Return why nobody can, or should, fetch a day now; None if it can be fetched."""
    if api_key() is None:
        return NO_KEY
    newest = newest_completed_day(utc_now())
    if day < newest:  # a tick that Dagster makes up for, after the daemon was away
        return f"The API no longer serves {day}; its newest day is {newest}."
    run_id = active_run(context.instance, names, utc_now(), day)
    return f"Run {run_id[:8]} is already processing {day}." if run_id is not None else None
