"""The sensor that retries missing days."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError
from orpipeline.backoff import Attempt, Attempts, decide
from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.runs import active_run, give_up_silent_runs, latest_ended_run, materialized
from orpipeline.defs.schedules import NO_KEY
from orpipeline.openrouter.budget import Budget
from orpipeline.settings import api_key

if TYPE_CHECKING:
    from orpipeline.defs.jobs import AssetJob


def snapshot_sensor(names: Names, job: AssetJob, archive: Archive, budget: Budget) -> dg.SensorDefinition:
    """Return the sensor. It reads the event log, the archive and the request budget, and never calls the API."""

    @dg.sensor(
        name=names.job("snapshot_sensor"),
        job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Retries the newest completed UTC day until it is materialized and intact in the archive. It backs off "
            "after a 429 and other failures, and retries more often in the last 3 hours before the day is gone. "
            "A skipped tick shows the reason."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, key = utc_now(), api_key()
        day = newest_completed_day(now)
        if key is None:
            return dg.SensorResult(skip_reason=NO_KEY)
        for silent in give_up_silent_runs(context.instance, names, now):
            context.log.warning(f"Run {silent[:8]} was killed: it is marked as failed.")
        is_materialized = materialized(context.instance, names, day)
        if is_materialized and not _is_damaged(archive, day):
            return dg.SensorResult(skip_reason=f"{day} is materialized; the next day is due after 00:00 UTC.")
        run_id = active_run(context.instance, names, now, day)
        if run_id is not None:
            return dg.SensorResult(skip_reason=f"Run {run_id[:8]} is already processing {day}.")
        fingerprint = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
        attempts = _attempts(context, names, day, fingerprint)
        decision = decide(attempts, budget.state(), fingerprint, now, damaged=is_materialized)
        if not isinstance(decision, Attempt):
            return dg.SensorResult(skip_reason=decision.reason, cursor=attempts.as_cursor())
        context.log.info(f"{day}: {decision.reason}")
        # A rejected answer is archived, so `auto` would not fetch another one.
        fetch = Fetch.always if attempts.rejected else Fetch.auto
        # The run key identifies the attempt: evaluating a tick again does not start a second run.
        request = dg.RunRequest(
            run_key=f"attempt-{day}-{attempts.run_id or 'first'}",
            partition_key=day.isoformat(),
            run_config=snapshot_config(names, fetch),
        )
        return dg.SensorResult(run_requests=[request], cursor=attempts.as_cursor())

    return sensor


def _is_damaged(archive: Archive, day: date) -> bool:
    """Return whether a day must be fetched again while the API still serves it."""
    try:
        return not archive.is_current(day)
    except ArchiveError:
        return False  # another answer could not be archived either


def _attempts(context: dg.SensorEvaluationContext, names: Names, day: date, fingerprint: str) -> Attempts:
    """Return the attempts in the cursor, with the run that has ended since."""
    try:
        attempts = Attempts.from_cursor(context.cursor, day)
    except ValueError as error:
        context.log.warning(f"Ignored the sensor's cursor: {error}")
        attempts = Attempts(day.isoformat())
    ended = latest_ended_run(context.instance, names, day, known=attempts.run_id)
    if ended is None:
        return attempts
    return attempts.after(ended.run_id, ended.error, ended.next_attempt, ended.ended_at, fingerprint)
