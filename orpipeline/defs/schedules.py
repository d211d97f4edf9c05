"""The schedules."""

from __future__ import annotations

import dagster as dg

from orpipeline.clock import newest_completed_day
from orpipeline.defs.jobs import daily_snapshot, snapshot_config
from orpipeline.defs.runs import active_run
from orpipeline.settings import load_settings
from orpipeline.snapshot import Fetch

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
    day = newest_completed_day(context.scheduled_execution_time)
    run_id = active_run(context.instance, day)
    if run_id is not None:
        return dg.SkipReason(f"Run {run_id[:8]} is at work on {day}.")
    return dg.RunRequest(run_key=f"daily-{day}", partition_key=day.isoformat())


@dg.schedule(
    job=daily_snapshot,
    cron_schedule="40 21 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 21:40 UTC, the newest day once more: its figures may have been restated since.",
)
def recapture_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for the newest completed day in any case; bytes that are known change nothing."""
    if load_settings().api_key is None:
        return dg.SkipReason(NO_KEY)
    day = newest_completed_day(context.scheduled_execution_time)
    return dg.RunRequest(
        run_key=f"recapture-{day}",
        partition_key=day.isoformat(),
        run_config=snapshot_config(Fetch.always),
    )
