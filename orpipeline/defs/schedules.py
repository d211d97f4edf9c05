"""The schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.runs import active_run
from orpipeline.settings import api_key

if TYPE_CHECKING:
    from orpipeline.defs.jobs import AssetJob

NO_KEY = (
    "OPENROUTER_API_KEY is not set: set it and restart, or this day is lost at the next midnight UTC. "
    "(`orpipeline demo` needs no key.)"
)


def daily_schedule(names: Names, job: AssetJob) -> dg.ScheduleDefinition:
    """Return the schedule that fetches the day that has just ended."""

    @dg.schedule(
        name=names.job("daily_snapshot_schedule"),
        job=job,
        cron_schedule="20 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every day at 00:20 UTC: fetch the day that has just ended.",
    )
    def daily_snapshot_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if api_key() is None:
            return dg.SkipReason(NO_KEY)
        day = newest_completed_day(context.scheduled_execution_time)
        run_id = active_run(context.instance, names, context.scheduled_execution_time, day)
        if run_id is not None:
            return dg.SkipReason(f"Run {run_id[:8]} is already processing {day}.")
        return dg.RunRequest(run_key=f"daily-{day}", partition_key=day.isoformat())

    return daily_snapshot_schedule


def recapture_schedule(names: Names, job: AssetJob) -> dg.ScheduleDefinition:
    """Return the schedule that fetches the newest day once more; bytes that are already archived change nothing."""

    @dg.schedule(
        name=names.job("recapture_schedule"),
        job=job,
        cron_schedule="40 21 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every day at 21:40 UTC: fetch the newest day again, because its figures may have been restated.",
    )
    def recapture(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if api_key() is None:
            return dg.SkipReason(NO_KEY)
        day = newest_completed_day(context.scheduled_execution_time)
        return dg.RunRequest(
            run_key=f"recapture-{day}",
            partition_key=day.isoformat(),
            run_config=snapshot_config(names, Fetch.always),
        )

    return recapture
