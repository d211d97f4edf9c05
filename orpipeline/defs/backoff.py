"""When to retry a missing day: pure decisions that the sensor acts on.

You can fetch a day for 24 hours after its end. Transient failures (a timeout, a server error, a response that is not
published yet) are retried at growing intervals. A 429, or a 5XX that states a time, is retried at that time. An error
that needs a person is retried at once after a change of the key, and otherwise hourly, because it may be OpenRouter's
own mistake. A rejected response waits for the recapture in the evening; after it, the day is retried until it is gone.

An older day that is archived but not in the tables, for example after an outage of the database, is loaded from the
archive. While such loads fail, one day is tried at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from orpipeline.clock import OWN_CLOCK_TOLERANCE
from orpipeline.errors import ApiKeyError, NextAttempt

if TYPE_CHECKING:
    from orpipeline.openrouter.budget import BudgetState

RECAPTURE_AT = timedelta(hours=21, minutes=40)
"""When, after midnight UTC, a day is fetched once more: OpenRouter may have restated its figures."""
URGENT = timedelta(hours=3)
"""In these last hours before a missing day is gone, it is retried at least every `URGENT_DISTANCE`."""
URGENT_DISTANCE = timedelta(minutes=10)
DISTANCES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 20, 30))
"""The wait before the next attempt after the first failure in a row, the second, ...; the last one repeats."""
PERSON_DISTANCE = timedelta(hours=1)
"""The wait before the next attempt after a failure that needs a person."""
TRUSTED_STATED_TIMES = 3
"""After more failures in a row than this, a stated time no longer replaces the usual wait."""
BACKLOG_DAYS = 30
"""How many days before the newest one are looked at for archived days that are not in the tables."""
LOOK_DISTANCE = timedelta(minutes=10)
"""The wait before the next such look, after one that started no run. A look can cost a request for each missing day."""
LOADS_AT_ONCE = 5
"""How many older days to load at once."""

_ORDINALS = {1: "first", 2: "second", 3: "third"}


@dataclass(frozen=True)
class Attempts:
    """A day's attempts until now. The sensor stores them in its cursor."""

    day: str
    run_id: str | None = None
    """The newest run that has ended."""
    error: str | None = None
    """The name of the error that ended it, for display, or None if the run succeeded."""
    next_attempt: NextAttempt = NextAttempt.TRANSIENT
    """What that error means for the next attempt."""
    ended_at: float = 0.0
    """When the run ended, in seconds since the epoch."""
    failures: int = 0
    """How many runs have failed in a row."""
    key_fingerprint: str | None = None
    """A fingerprint of the key that was used. It shows when a person has changed the key."""
    rejected: bool = False
    """Whether a run has rejected the day's response, and none has succeeded since: the day needs another response."""
    looked_at: float = 0.0
    """When older days were last looked at without starting a run, in seconds since the epoch."""

    def as_cursor(self) -> str:
        """Return the text that `from_cursor` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_cursor(cls, cursor: str | None, day: date) -> Attempts:
        """Return the attempts in a cursor, or no attempts if the cursor is empty or about another day.

        Raises ValueError if the text is not a cursor.
        """
        if not cursor:
            return cls(day.isoformat())
        try:
            read = cls(**json.loads(cursor))
            read = replace(read, next_attempt=NextAttempt(read.next_attempt))
            datetime.fromtimestamp(read.ended_at, UTC)
            datetime.fromtimestamp(read.looked_at, UTC)
            date.fromisoformat(read.day)
            if not isinstance(read.failures, int) or read.failures < 0:
                raise TypeError("failures is not a number from 0")
        except (TypeError, ValueError, OverflowError, OSError, RecursionError) as error:
            raise ValueError(f"not a cursor: {error}") from None
        return read if read.day == day.isoformat() else cls(day.isoformat())

    def after(
        self, run_id: str, error: str | None, next_attempt: NextAttempt, ended_at: float, key_fingerprint: str
    ) -> Attempts:
        """Return these attempts and one more run that has ended; `error` is None if it succeeded."""
        failures = self.failures + 1 if error is not None else 0
        rejected = error is not None and (self.rejected or next_attempt is NextAttempt.NEEDS_OPENROUTER)
        return Attempts(
            self.day, run_id, error, next_attempt, ended_at, failures, key_fingerprint, rejected, self.looked_at
        )


@dataclass(frozen=True)
class Wait:
    """No attempt now. `reason` is one sentence for the tick."""

    reason: str


@dataclass(frozen=True)
class Attempt:
    """An attempt now. `reason` is one sentence for the tick."""

    reason: str


def decide(
    attempts: Attempts, budget: BudgetState, key_fingerprint: str, now: datetime, *, damaged: bool = False
) -> Wait | Attempt:
    """Decide whether to start a run now, for a day that has no active run.

    The day is not materialized or, with `damaged`, it is, but its archived response is damaged.
    """
    over_at = datetime.combine(date.fromisoformat(attempts.day), datetime.min.time(), UTC) + timedelta(days=1)
    gone_at, recapture_at = over_at + timedelta(days=1), over_at + RECAPTURE_AT
    left = f"{_duration(gone_at - now)} left to fetch {attempts.day}"
    ended_by = attempts.next_attempt if attempts.failures else None
    ended_at = datetime.fromtimestamp(attempts.ended_at, UTC)
    if ended_at > now + OWN_CLOCK_TOLERANCE:  # the clock was ahead
        ended_at = now - PERSON_DISTANCE  # the longest wait is over
    if ended_by is NextAttempt.NEEDS_PERSON and attempts.key_fingerprint == key_fingerprint:
        due = ended_at + _at_most_urgent(PERSON_DISTANCE, gone_at - now)
        if now < due:
            key = ", check OPENROUTER_API_KEY" if attempts.error == ApiKeyError.__name__ else ""
            return Wait(f"{attempts.error}: see the failed run{key}; {_retried(due, gone_at - now)}; {left}")
    if damaged and attempts.run_id is not None and not attempts.failures:
        due = ended_at + _at_most_urgent(PERSON_DISTANCE, gone_at - now)  # the last run has not repaired it
        if now < due:
            return Wait(f"{attempts.day} is damaged in the archive; {_retried(due, gone_at - now)}; {left}")
    before_recapture = ended_at < recapture_at
    # The schedule starts the recapture. If it starts none, or it fails, the attempts continue here.
    if ended_by is NextAttempt.NEEDS_OPENROUTER and before_recapture and now < recapture_at + URGENT_DISTANCE:
        return Wait(f"{attempts.day} was rejected (see the failed run); the next fetch is at 21:40 UTC; {left}")
    if budget.next_request_at is not None and now < budget.next_request_at:
        return Wait(f"{_why_no_request(budget)}, next attempt {budget.next_request_at:%H:%M:%S} UTC; {left}")
    if ended_by not in (None, NextAttempt.NEEDS_PERSON):
        due = ended_at + _distance(attempts.failures, gone_at - now)
        # A stated time has passed by now. Repeated immediate-retry responses fall back to the usual wait.
        trusted = ended_by is NextAttempt.STATES_TIME and attempts.failures <= TRUSTED_STATED_TIMES
        if now < due and not trusted:
            return Wait(f"{attempts.error} x {attempts.failures}, next attempt {due:%H:%M:%S} UTC; {left}")
    return Attempt(f"attempt {attempts.failures + 1}; {left}")


def look_is_due(attempts: Attempts, now: datetime) -> bool:
    """Decide whether to look for older days that are archived but not in the tables."""
    return abs(now.timestamp() - attempts.looked_at) >= LOOK_DISTANCE.total_seconds()  # the clock may have been ahead


def loads(older: Sequence[Attempts], now: datetime) -> list[Attempts]:
    """Decide which older days to load now from the archive, when no run is active.

    `older` are days that are archived but not in the tables, and that do not wait for another response. If none of them
    has failed, these are the first `LOADS_AT_ONCE`. Otherwise it is the one whose last attempt was first, after the
    usual wait since the newest failure: what failed for one day, such as the database, probably fails for all.
    """
    failed = [attempts for attempts in older if attempts.failures]
    if not failed:
        return list(older[:LOADS_AT_ONCE])
    newest = max(failed, key=lambda attempts: attempts.ended_at)
    needs_person = newest.next_attempt is NextAttempt.NEEDS_PERSON
    in_a_row = min(sum(attempts.failures for attempts in failed), len(DISTANCES))
    distance = PERSON_DISTANCE if needs_person else DISTANCES[in_a_row - 1]
    if timedelta(0) <= now - datetime.fromtimestamp(newest.ended_at, UTC) < distance:
        return []
    return [min(older, key=lambda attempts: attempts.ended_at)]


def _retried(due: datetime, left: timedelta) -> str:
    often = "hourly" if left > URGENT else f"every {_minutes(URGENT_DISTANCE)} min"
    return f"retried {often}, next attempt {due:%H:%M:%S} UTC"


def _why_no_request(budget: BudgetState) -> str:
    if budget.cooling_after is None:
        return "Request budget spent"
    if budget.cooling_after == 429:
        return f"429, {_ordinal(budget.rate_limited_in_a_row)} in a row"
    return f"{budget.cooling_after}, the API states when to retry"


def _distance(failures: int, left: timedelta) -> timedelta:
    return _at_most_urgent(DISTANCES[min(failures, len(DISTANCES)) - 1], left)


def _at_most_urgent(distance: timedelta, left: timedelta) -> timedelta:
    return min(distance, URGENT_DISTANCE) if left <= URGENT else distance


def _ordinal(number: int) -> str:
    return _ORDINALS.get(number, f"{number}th")


def _minutes(duration: timedelta) -> int:
    return int(duration.total_seconds() // 60)


def _duration(left: timedelta) -> str:
    minutes = max(_minutes(left), 0)
    return f"{minutes // 60} h {minutes % 60:02} min"
