"""The schedules."""

from __future__ import annotations

import dagster as dg

from orpipeline.clock import newest_completed_day
from orpipeline.defs.jobs import daily_snapshot
from orpipeline.settings import load_settings

NO_KEY = (
    "OPENROUTER_API_KEY is not set: set it and restart, or this day is lost at the next midnight UTC. "
    "(`orpipeline demo` needs no key.)"
)


@dg.schedule(
    job=daily_snapshot,
    cron_schedule="20 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 00:20 UTC, the snapshot of the day that has just ended.",
)
def daily_snapshot_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for the newest completed day, or say why not."""
    if load_settings().api_key is None:
        return dg.SkipReason(NO_KEY)
    day = newest_completed_day(context.scheduled_execution_time).isoformat()
    return dg.RunRequest(run_key=f"daily-{day}", partition_key=day)
