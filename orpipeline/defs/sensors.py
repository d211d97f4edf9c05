"""The sensor that retries missing days, and loads days that only the archive has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from orpipeline.archive import Archive
from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.backoff import BACKLOG_DAYS, Attempt, Attempts, decide, loads, look_is_due
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.runs import (
    active_run,
    days_of_failed_runs,
    failures_in_a_row,
    give_up_silent_runs,
    latest_ended_run,
    loaded_versions,
    materialized,
    not_materialized,
)
from orpipeline.defs.schedules import NO_KEY
from orpipeline.errors import DamagedResponseError, OrpipelineError, StoreError
from orpipeline.settings import api_key

if TYPE_CHECKING:
    from orpipeline.defs.jobs import AssetJob
    from orpipeline.defs.resources import OpenRouterResource
    from orpipeline.openrouter.budget import Budget


def snapshot_sensor(
    names: Names, job: AssetJob, partitions: dg.DailyPartitionsDefinition, archive: Archive, api: OpenRouterResource
) -> dg.SensorDefinition:
    """Return the sensor. It reads the event log, the archive and the request budget, and never calls the API."""

    @dg.sensor(
        name=names.job("snapshot_sensor"),
        job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Retries the newest completed UTC day until it is materialized and intact in the archive. It backs off "
            "after a 429 and other failures, and retries more often in the last 3 hours before the day is gone. "
            f"It also loads days of the last {BACKLOG_DAYS} that are archived but not materialized. "
            "A skipped tick shows the reason."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, key = utc_now(), api_key()
        if key is None:
            return dg.SensorResult(skip_reason=NO_KEY)
        for silent in give_up_silent_runs(context.instance, names, now):
            context.log.warning(f"Run {silent[:8]} was killed: it is marked as failed.")
        newest = _newest_day(context, names, archive, api.budget, key, now)
        if newest.run_requests or not look_is_due(newest.attempts, now):
            return newest.result()
        older = _older_days(context, names, partitions, archive, now)
        if older is None:  # a run is active
            return newest.result()
        if older:
            return replace(newest, run_requests=older).result()
        return replace(newest, attempts=replace(newest.attempts, looked_at=now.timestamp())).result()

    return sensor


@dataclass(frozen=True)
class _Tick:
    """What a tick has found: the newest day's attempts, and the runs to request or why there are none."""

    attempts: Attempts
    reason: str
    run_requests: Sequence[dg.RunRequest] = ()

    def result(self) -> dg.SensorResult:
        """Return the tick's result."""
        cursor = self.attempts.as_cursor()
        if self.run_requests:
            return dg.SensorResult(run_requests=self.run_requests, cursor=cursor)
        return dg.SensorResult(skip_reason=self.reason, cursor=cursor)


def _newest_day(
    context: dg.SensorEvaluationContext, names: Names, archive: Archive, budget: Budget, key: str, now: datetime
) -> _Tick:
    """Decide whether to fetch the newest completed day now."""
    day = newest_completed_day(now)
    known = _known_attempts(context, day)
    is_materialized = materialized(context.instance, names, day)
    if is_materialized and not _is_damaged(archive, day):
        return _Tick(known, f"{day} is materialized; the next day is due after 00:00 UTC.")
    run_id = active_run(context.instance, names, now, day)
    if run_id is not None:
        return _Tick(known, f"Run {run_id[:8]} is already processing {day}.")
    fingerprint = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
    attempts = _with_ended_run(context.instance, names, known, day, fingerprint)
    try:
        used = budget.state()
    except StoreError as error:
        context.log.error(str(error))
        return _Tick(attempts, f"{day} waits: the request budget cannot be used (see this tick's log).")
    decision = decide(attempts, used, fingerprint, now, damaged=is_materialized)
    if not isinstance(decision, Attempt):
        return _Tick(attempts, decision.reason)
    context.log.info(f"{day}: {decision.reason}")
    # A rejected response is archived, so `auto` would not fetch another one.
    fetch = Fetch.always if attempts.rejected else Fetch.auto
    return _Tick(attempts, decision.reason, [_request(names, "attempt", attempts, fetch)])


def _older_days(
    context: dg.SensorEvaluationContext,
    names: Names,
    partitions: dg.DailyPartitionsDefinition,
    archive: Archive,
    now: datetime,
) -> list[dg.RunRequest] | None:
    """Return runs for days before the newest one that are archived but not in the tables; None while a run is active.

    The same holds for a day whose last run failed after it had archived a newer response than the tables have. The runs
    use the archive alone. A day whose response was rejected, or is damaged, waits for another response.
    """
    instance, newest = context.instance, newest_completed_day(now)
    first = partitions.get_first_partition_key()
    days = [newest - timedelta(days=age) for age in range(BACKLOG_DAYS, 0, -1)]
    days = [day for day in days if first and day.isoformat() >= first]
    missing = not_materialized(instance, names, days)
    failed = days_of_failed_runs(instance, names, newest - timedelta(days=BACKLOG_DAYS))
    failed_days = [day for day in days if day.isoformat() in failed and day not in missing]
    if not missing and not failed_days:
        return []
    if active_run(instance, names, now) is not None:
        return None
    try:
        archived = archive.revisions_of(missing)
        wanted = [day for day in missing if archived[day]]
        wanted += _outdated(instance, names, archive, failed_days)
        waiting = [_with_ended_runs(instance, names, day) for day in sorted(wanted)]
        chosen = loads([attempts for attempts in waiting if not _waits_for_a_response(archive, attempts)], now)
    except OrpipelineError as error:
        context.log.warning(f"Older days are not loaded now. {error}")
        return []
    if chosen:
        context.log.info(f"The archive has more than the tables for {', '.join(attempts.day for attempts in chosen)}")
    return [_request(names, "load", attempts, Fetch.never) for attempts in chosen]


def _outdated(instance: dg.DagsterInstance, names: Names, archive: Archive, days: Sequence[date]) -> Iterator[date]:
    """Yield the days whose last run failed, and of which the archive has another response than the tables."""
    versions = loaded_versions(instance, names.asset("model_leaderboard"))
    for day in days:
        latest = archive.latest(day)
        is_loaded = latest is None or versions.get(day.isoformat(), "").startswith(latest.digest)
        if not is_loaded and failures_in_a_row(instance, names, day):
            yield day


def _waits_for_a_response(archive: Archive, attempts: Attempts) -> bool:
    """Return whether loading a day would fail again until the archive has another response, or a repaired one."""
    day = date.fromisoformat(attempts.day)
    if attempts.rejected:
        latest = archive.latest(day)
        return latest is None or latest.age[0].timestamp() <= attempts.ended_at
    return attempts.error == DamagedResponseError.__name__ and not archive.is_current(day)


def _request(names: Names, kind: str, attempts: Attempts, fetch: Fetch) -> dg.RunRequest:
    """Return a run of one day. Its key identifies the attempt: evaluating a tick again does not start a second run."""
    return dg.RunRequest(
        run_key=f"{kind}-{attempts.day}-{attempts.run_id or 'first'}",
        partition_key=attempts.day,
        run_config=snapshot_config(names, fetch),
    )


def _is_damaged(archive: Archive, day: date) -> bool:
    """Return whether a day must be fetched again while the API still serves it."""
    try:
        return not archive.is_current(day)
    except OrpipelineError:
        return False  # another response could not be archived either


def _known_attempts(context: dg.SensorEvaluationContext, day: date) -> Attempts:
    """Return the attempts in the cursor."""
    try:
        return Attempts.from_cursor(context.cursor, day)
    except ValueError as error:
        context.log.warning(f"Ignored the sensor's cursor: {error}")
        return Attempts(day.isoformat())


def _with_ended_run(
    instance: dg.DagsterInstance, names: Names, known: Attempts, day: date, fingerprint: str
) -> Attempts:
    """Return the known attempts, with the run that has ended since."""
    ended = latest_ended_run(instance, names, day, known=known.run_id)
    if ended is None:
        return known
    return known.after(ended.run_id, ended.error, ended.next_attempt, ended.ended_at, fingerprint)


def _with_ended_runs(instance: dg.DagsterInstance, names: Names, day: date) -> Attempts:
    """Return a day's attempts from the history of runs alone."""
    newest = _with_ended_run(instance, names, Attempts(day.isoformat()), day, "")
    return replace(newest, failures=failures_in_a_row(instance, names, day)) if newest.failures else newest
