"""When the newest completed day is to be attempted again: pure decisions, for the sensor to act on.

A day can be fetched for 24 hours after its end. What passes by itself (a 429, a timeout, a server error, an answer
that is not published yet) is attempted again with growing distance; what only a person can mend (a wrong key) waits
for one; what only OpenRouter can mend (an answer that breaks the contracts) waits for the recapture in the evening,
and is attempted again and again after it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

from orpipeline.openrouter.budget import BudgetState

RECAPTURE_AT = timedelta(hours=21, minutes=40)
"""When, after midnight UTC, a day is asked for once more, since its figures may have been restated."""
URGENT = timedelta(hours=3)
"""In this last stretch before a missing day is gone, attempts come at least every `URGENT_DISTANCE`."""
URGENT_DISTANCE = timedelta(minutes=10)
DISTANCES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 20, 30))
"""The distance to the next attempt after the first failure in a row, the second, ...; the last one for good."""

BELIEVED_429S = 3
"""After so many runs in a row that ended on a 429, their distance grows as after other failures."""

_WRONG_KEY = {"UnauthorizedError", "MissingKeyError"}
_BUDGET_SAYS_WHEN = {"RateLimitedError", "BudgetSpentError"}
_REFUSED = "InvalidSnapshotError"
_ORDINALS = {1: "first", 2: "second", 3: "third"}


@dataclass(frozen=True)
class Attempts:
    """What is known of a day's attempts so far; the sensor keeps it in its cursor."""

    day: str
    run_id: str | None = None
    """The newest run that has ended."""
    error: str | None = None
    """The name of the error that ended it, or None if it ended without one."""
    ended_at: float = 0.0
    """When it ended, in seconds since the epoch."""
    failures: int = 0
    """How many runs have failed in a row."""
    key_fingerprint: str | None = None
    """A fingerprint of the key that was used, to see that a person has changed it."""
    refused: bool = False
    """Whether the day's answer was refused, since when no run has succeeded: the API must be asked for another."""

    def as_cursor(self) -> str:
        """Return the text that `from_cursor` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_cursor(cls, cursor: str | None, day: date) -> Attempts:
        """Return what a cursor says of `day`: nothing, where it speaks of another day or there is none.

        Raises ValueError for a text that is no cursor of ours.
        """
        if not cursor:
            return cls(day.isoformat())
        try:
            read = cls(**json.loads(cursor))
            datetime.fromtimestamp(read.ended_at, UTC)
            date.fromisoformat(read.day)
            if not isinstance(read.failures, int):
                raise TypeError("failures is no number")
        except (TypeError, ValueError, OverflowError, OSError, RecursionError) as error:
            raise ValueError(f"not a cursor: {error}") from None
        return read if read.day == day.isoformat() else cls(day.isoformat())

    def after(self, run_id: str, error: str | None, ended_at: float, key_fingerprint: str) -> Attempts:
        """Return these attempts with one more run that has ended."""
        failures = self.failures + 1 if error is not None else 0
        refused = error is not None and (self.refused or error == _REFUSED)
        return Attempts(self.day, run_id, error, ended_at, failures, key_fingerprint, refused)


@dataclass(frozen=True)
class Wait:
    """No attempt now, for this reason (one plain sentence for the tick)."""

    reason: str


@dataclass(frozen=True)
class Attempt:
    """An attempt now."""

    reason: str


def decide(attempts: Attempts, budget: BudgetState, key_fingerprint: str, now: datetime) -> Wait | Attempt:
    """Say whether a day that is not materialized, and that no run is at work on, is attempted now."""
    over_at = datetime.combine(date.fromisoformat(attempts.day), datetime.min.time(), UTC) + timedelta(days=1)
    gone_at, recapture_at = over_at + timedelta(days=1), over_at + RECAPTURE_AT
    left = f"{_duration(gone_at - now)} left to fetch {attempts.day}"
    if attempts.error in _WRONG_KEY and attempts.key_fingerprint == key_fingerprint:
        return Wait(f"The key was not accepted: set a valid OPENROUTER_API_KEY and restart; {left}")
    before_recapture = attempts.ended_at < recapture_at.timestamp()
    # The recapture is the schedule's. Where none has come of it, or it was in vain, the attempts go on here.
    if attempts.error == _REFUSED and before_recapture and now < recapture_at + URGENT_DISTANCE:
        return Wait(f"{attempts.day} was refused (see the failed run): it is fetched again at 21:40 UTC; {left}")
    if budget.next_request_at is not None and now < budget.next_request_at:
        in_a_row = budget.rate_limited_in_a_row
        why = f"429, {_ordinal(in_a_row)} in a row" if budget.cooling_until else "Request budget spent"
        return Wait(f"{why}, next attempt {budget.next_request_at:%H:%M:%S} UTC; {left}")
    if attempts.failures:
        due = datetime.fromtimestamp(attempts.ended_at, UTC) + _distance(attempts.failures, gone_at - now)
        # What a 429 says is followed; but an API that says "now" again and again is not believed for ever.
        believed = attempts.error in _BUDGET_SAYS_WHEN and attempts.failures <= BELIEVED_429S
        if now < due and not believed:
            return Wait(f"{attempts.error} x {attempts.failures}, next attempt {due:%H:%M:%S} UTC; {left}")
    return Attempt(f"attempt {attempts.failures + 1}; {left}")


def _distance(failures: int, left: timedelta) -> timedelta:
    distance = DISTANCES[min(failures, len(DISTANCES)) - 1]
    return min(distance, URGENT_DISTANCE) if left <= URGENT else distance


def _ordinal(number: int) -> str:
    return _ORDINALS.get(number, f"{number}th")


def _duration(left: timedelta) -> str:
    minutes = max(int(left.total_seconds() // 60), 0)
    return f"{minutes // 60} h {minutes % 60:02} min"
