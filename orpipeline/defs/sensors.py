"""The sensor that catches what the schedule missed."""

from __future__ import annotations

import hashlib
from datetime import date

import dagster as dg

from orpipeline.backoff import Attempt, Attempts, decide
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.jobs import daily_snapshot, snapshot_config
from orpipeline.defs.runs import active_run, latest_ended_run, materialized
from orpipeline.defs.schedules import NO_KEY
from orpipeline.openrouter.budget import shared_budget
from orpipeline.settings import load_settings
from orpipeline.snapshot import Fetch


@dg.sensor(
    job=daily_snapshot,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description=(
        "Attempts the newest completed UTC day until it is materialized. It backs off after a 429 and other failures, "
        "and hurries in the last 3 hours before the day is gone. A tick that attempts nothing says why."
    ),
)
def snapshot_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Look at the event log and the shared budget; ask the API nothing."""
    now = utc_now()
    day = newest_completed_day(now)
    settings = load_settings()
    if settings.api_key is None:
        return dg.SensorResult(skip_reason=NO_KEY)
    if materialized(context.instance, day):
        return dg.SensorResult(skip_reason=f"{day} is materialized; the next day is due after 00:00 UTC.")
    run_id = active_run(context.instance, day)
    if run_id is not None:
        return dg.SensorResult(skip_reason=f"Run {run_id[:8]} is at work on {day}.")
    key = hashlib.blake2b(settings.api_key.get_secret_value().encode(), digest_size=4).hexdigest()
    attempts = _attempts(context, day, key)
    decision = decide(attempts, shared_budget(settings).state(), key, now)
    if not isinstance(decision, Attempt):
        return dg.SensorResult(skip_reason=decision.reason, cursor=attempts.as_cursor())
    context.log.info(f"{day}: {decision.reason}")
    # An answer that was refused is archived, so that `auto` would not ask for another.
    fetch = Fetch.always if attempts.refused else Fetch.auto
    # The run key names what was known: one attempt is one run, however often a tick is evaluated.
    request = dg.RunRequest(
        run_key=f"attempt-{day}-{attempts.run_id or 'first'}",
        partition_key=day.isoformat(),
        run_config=snapshot_config(fetch),
    )
    return dg.SensorResult(run_requests=[request], cursor=attempts.as_cursor())


def _attempts(context: dg.SensorEvaluationContext, day: date, key: str) -> Attempts:
    """Return the cursor's attempts, with a run that has ended since."""
    try:
        attempts = Attempts.from_cursor(context.cursor, day)
    except ValueError as error:
        context.log.warning(f"The sensor's cursor was set aside: {error}")
        attempts = Attempts(day.isoformat())
    ended = latest_ended_run(context.instance, day, known=attempts.run_id)
    return attempts.after(ended.run_id, ended.error, ended.ended_at, key) if ended else attempts
