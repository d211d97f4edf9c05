"""The sensor that retries what the schedules did not finish, and loads days that only the archive has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from orpipeline.archive import Archive
from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.backoff import FETCH_AT, GRACE, RECAPTURE_AT, Attempts, Memory, decide, due
from orpipeline.defs.jobs import CATCH_UP_DAYS, archived_but_not_loaded, snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.runs import active_run, materialized, observation, outcomes
from orpipeline.defs.schedules import NO_KEY
from orpipeline.errors import OrpipelineError, StoreError
from orpipeline.settings import api_key

if TYPE_CHECKING:
    from orpipeline.defs.jobs import AssetJob
    from orpipeline.defs.resources import OpenRouterResource

_LOOK_DISTANCE = timedelta(minutes=10)
"""How often the archive is searched for days that the tables lack: that lists it."""
_LOAD_DISTANCE = timedelta(hours=1)
"""The wait before such days are loaded again after a failure."""


def snapshot_sensor(
    names: Names, job: AssetJob, partitions: dg.DailyPartitionsDefinition, archive: Archive, api: OpenRouterResource
) -> dg.SensorDefinition:
    """Return the sensor. It reads the event log and the request budget, lists the archive, and never calls the API."""

    @dg.sensor(
        name=names.job("snapshot_sensor"),
        job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Retries what the schedules started and did not finish, until midnight UTC: the newest completed day until "
            "it is materialized, and the second fetch of 21:40. It waits as long as the API states, or at growing "
            f"intervals. It also loads days of the last {CATCH_UP_DAYS} that are archived but not in the tables. "
            "A skipped tick shows the reason."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, key = utc_now(), api_key()
        memory = _memory(context.cursor, newest_completed_day(now), key, now)
        look = _Look(context, names, archive, partitions, now, memory)
        tick = look.at_newest_day(api) if key else _Tick(memory, NO_KEY)
        if tick.request is None and abs(now.timestamp() - memory.looked_at) >= _LOOK_DISTANCE.total_seconds():
            tick = look.at_archived_days(tick, with_newest=not key)
        found = {"run_requests": [tick.request]} if tick.request else {"skip_reason": tick.reason}
        return dg.SensorResult(**found, cursor=tick.memory.as_cursor(tick.reason))

    return sensor


@dataclass(frozen=True)
class _Tick:
    """What a tick has found: what to remember, the run to request, and one sentence that says why, or why not."""

    memory: Memory
    reason: str
    request: dg.RunRequest | None = None


def _memory(cursor: str | None, day: date, key: str | None, now: datetime) -> Memory:
    """Return what the cursor remembers of the newest day, and whether the API key is another one than before."""
    memory = Memory.from_cursor(cursor)
    if memory.day != str(day):
        memory = Memory(str(day), key=memory.key, key_since=memory.key_since, looked_at=memory.looked_at)
    fingerprint = hashlib.blake2b(key.encode(), digest_size=4).hexdigest() if key else memory.key
    if fingerprint != memory.key:
        memory = replace(memory, key=fingerprint, key_since=now.timestamp() if memory.key else 0.0)
    return memory


@dataclass(frozen=True)
class _Look:
    context: dg.SensorEvaluationContext
    names: Names
    archive: Archive
    partitions: dg.DailyPartitionsDefinition
    now: datetime
    memory: Memory

    def at_newest_day(self, api: OpenRouterResource) -> _Tick:
        """Decide whether to fetch the newest completed day now, for the first time or once more."""
        instance, now, memory = self.context.instance, self.now, self.memory
        day = date.fromisoformat(memory.day)
        first, again = due(day, FETCH_AT), due(day, RECAPTURE_AT)
        if now < first:
            return _Tick(memory, f"{day} is fetched from 00:20 UTC on.")
        is_materialized, is_again = materialized(instance, self.names, day), now >= again
        if is_materialized and not is_again:
            return self._checked(day)
        since = again if is_again else None
        found = [outcome for _, outcome in outcomes(instance, self.names, [day], since)]
        if is_materialized and found and found[0].error is None:
            return _Tick(memory, f"{day} is materialized, and was fetched once more; the next day is due at 00:20 UTC.")
        run_id = active_run(instance, self.names, now, day)
        if run_id is not None:
            return _Tick(memory, f"Run {run_id[:8]} is already processing {day}.")
        started = again if is_again else first
        if memory.requested_at >= started.timestamp() and not any(
            one.at.timestamp() >= memory.requested_at for one in found
        ):
            reason = "The run has ended without an outcome: its process was killed."
            instance.report_runless_asset_event(observation(self.names, day, reason, "A killed run"))
            found = [outcome for _, outcome in outcomes(instance, self.names, [day], since)]
        memory = replace(memory, requested_at=0.0)
        if not found and now < started + GRACE:
            return _Tick(
                memory, f"The schedule starts {day}; if it does not, the sensor does at {started + GRACE:%H:%M} UTC."
            )
        try:
            attempt, reason = decide(Attempts.of(day, found, memory.key_since), api.budget.state(), now)
        except StoreError as error:
            self.context.log.error(str(error))
            return _Tick(memory, f"{day} waits: the request budget cannot be used (see this tick's log).")
        if not attempt:
            return _Tick(memory, reason)
        memory = replace(memory, requested_at=now.timestamp())
        return self._request(memory, day, Fetch.always if is_again else Fetch.auto, reason)

    def _checked(self, day: date) -> _Tick:
        """Read a loaded day's archived response once: while the API serves the day, a damaged one can be replaced."""
        memory, reason = self.memory, f"{day} is materialized; it is fetched once more at 21:40 UTC."
        if memory.checked:
            return _Tick(memory, reason)
        checked = replace(memory, checked=True)
        try:
            is_intact = self.archive.is_current(day)
        except OrpipelineError as error:
            self.context.log.warning(str(error))
            return _Tick(memory, reason)
        if is_intact:
            return _Tick(checked, reason)
        return self._request(checked, day, Fetch.always, f"{day} is damaged in the archive, so it is fetched again.")

    def at_archived_days(self, tick: _Tick, *, with_newest: bool) -> _Tick:
        """Decide whether to load days that are archived but not in the tables. One run loads all of them."""
        instance, newest = self.context.instance, date.fromisoformat(self.memory.day)
        memory = replace(tick.memory, looked_at=self.now.timestamp())
        days = [newest - timedelta(days=age) for age in range(0 if with_newest else 1, CATCH_UP_DAYS)]
        first = self.partitions.get_first_partition_key() or ""
        try:
            found = archived_but_not_loaded(
                instance, self.names, self.archive, [day for day in days if str(day) >= first]
            )
        except StoreError as error:
            self.context.log.warning(f"Archived days are not loaded now. {error}")
            return replace(tick, memory=memory)
        if not found or active_run(instance, self.names, self.now) is not None:
            return replace(tick, memory=memory if not found else tick.memory)
        if outcomes(instance, self.names, list(found), self.now - _LOAD_DISTANCE):  # what failed for one fails for all
            return replace(tick, memory=memory)
        return self._request(memory, max(found), Fetch.never, f"The archive has {max(found)}, and the tables do not.")

    def _request(self, memory: Memory, day: date, fetch: Fetch, reason: str) -> _Tick:
        """Return a run of one day. Evaluating a tick again does not start a second run."""
        self.context.log.info(f"{day}: {reason}")
        run = dg.RunRequest(
            run_key=f"{fetch.name}-{day}-{self.now:%Y%m%dT%H%M}",
            partition_key=day.isoformat(),
            run_config=snapshot_config(self.names, fetch),
        )
        return _Tick(memory, reason, run)
