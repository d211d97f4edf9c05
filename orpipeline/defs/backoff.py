"""When to try again: pure decisions that the sensor acts on.

A day can be fetched for 24 hours after its end: from 00:20 UTC, and once more at 21:40, because OpenRouter may have
restated its figures. What passes by itself (a timeout, a server error, a day that is not published yet) is retried at
growing intervals. A 429, or a 5XX that states a time, is retried at that time. What needs a person is retried at once
after a change of the key, and otherwise hourly, because it may be OpenRouter's own mistake. A rejected response waits
for 21:40. In the last 3 hours, every retry comes within 10 minutes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from orpipeline.clock import OWN_CLOCK_TOLERANCE
from orpipeline.errors import ApiKeyError, NextAttempt

if TYPE_CHECKING:
    from orpipeline.defs.runs import Outcome
    from orpipeline.openrouter.budget import BudgetState

FETCH_AT = timedelta(minutes=20)
"""When, after midnight UTC, the day that has ended is fetched."""
RECAPTURE_AT = timedelta(hours=21, minutes=40)
"""When it is fetched once more."""
GRACE = timedelta(minutes=5)
"""How long the sensor leaves the first attempt to a schedule."""
URGENT = timedelta(hours=3)
"""In these last hours before a day is gone, it is retried at least every `URGENT_DISTANCE`."""
URGENT_DISTANCE = timedelta(minutes=10)
DISTANCES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 20, 30))
"""The wait before the next attempt after the first failure in a row, the second, ...; the last one repeats."""
PERSON_DISTANCE = timedelta(hours=1)
"""The wait before the next attempt after a failure that needs a person."""
TRUSTED_STATED_TIMES = 3
"""After more failures in a row than this, a stated time no longer replaces the usual wait."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Memory:
    """What the sensor remembers between ticks, in its cursor. All else is in the event log."""

    day: str = ""
    requested_at: float = 0.0
    """When it requested a run whose outcome it has not seen yet, in seconds since the epoch, or 0."""
    key: str = ""
    """A fingerprint of the API key, which shows that a person has changed it."""
    key_since: float = 0.0
    checked: bool = False
    """Whether the newest day's archived response was read once after the day was loaded."""
    looked_at: float = 0.0
    """When the archive was last searched for days that the tables lack, in seconds since the epoch."""

    def as_cursor(self, words: str) -> str:
        """Return the text that `from_cursor` reads: a line for people comes first."""
        return f"{words}\n{json.dumps(asdict(self))}"

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Memory:
        """Return what a cursor remembers; nothing for an empty or unreadable one."""
        try:
            read = json.loads((cursor or "").rpartition("\n")[2])
            found = {name: type(default)(read[name]) for name, default in asdict(cls()).items()}
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            return cls()
        return cls(**found)


@dataclass(frozen=True)
class Attempts:
    """The attempts of a day in a row that have failed, since it was to be fetched first, or once more."""

    day: date
    failures: int = 0
    error: str | None = None
    """The name of the newest error, or None if the newest attempt succeeded."""
    next_attempt: NextAttempt = NextAttempt.TRANSIENT
    ended_at: datetime = _LONG_AGO

    @classmethod
    def of(cls, day: date, found: Sequence[Outcome], key_since: float = 0.0) -> Attempts:
        """Return what the outcomes of a day, the newest first, say. Those before a change of the key do not count."""
        failed = list(takewhile(lambda one: one.error is not None and one.at.timestamp() >= key_since, found))
        if not failed:
            return cls(day)
        return cls(day, len(failed), failed[0].error, failed[0].next_attempt, failed[0].at)


class Decision(NamedTuple):
    """Whether to start a run now, and why, in one sentence for the tick."""

    attempt: bool
    reason: str


def due(day: date, at: timedelta) -> datetime:
    """Return the moment (UTC) that long after a day's end."""
    return datetime.combine(day, time(), UTC) + timedelta(days=1) + at


def decide(attempts: Attempts, budget: BudgetState, now: datetime) -> Decision:
    """Decide whether to start a run now, for a day that has no active run."""
    gone_at, recapture_at = due(attempts.day, timedelta(days=1)), due(attempts.day, RECAPTURE_AT)
    left = f"{duration(gone_at - now)} left to fetch {attempts.day}"
    ended_by, ended_at = attempts.next_attempt if attempts.failures else None, attempts.ended_at
    if ended_at > now + OWN_CLOCK_TOLERANCE:  # the clock was ahead
        ended_at = now - PERSON_DISTANCE  # the longest wait is over
    if ended_by is NextAttempt.NEEDS_PERSON:
        next_at = ended_at + _at_most_urgent(PERSON_DISTANCE, gone_at - now)
        if now < next_at:
            key = ", check OPENROUTER_API_KEY" if attempts.error == ApiKeyError.__name__ else ""
            often = f"retried {'hourly' if gone_at - now > URGENT else 'every 10 min'}"
            next_words = f"{often}, next attempt {next_at:%H:%M:%S} UTC; {left}"
            return Decision(False, f"{attempts.error}: see the failed run{key}; {next_words}")
    if ended_by is NextAttempt.NEEDS_OPENROUTER and now < recapture_at:
        return Decision(
            False, f"{attempts.day} was rejected (see the failed run); the next fetch is at 21:40 UTC; {left}"
        )
    if budget.next_request_at is not None and now < budget.next_request_at:
        return Decision(False, f"{_why_no_request(budget)}, next attempt {budget.next_request_at:%H:%M:%S} UTC; {left}")
    if ended_by not in (None, NextAttempt.NEEDS_PERSON):
        next_at = ended_at + _at_most_urgent(DISTANCES[min(attempts.failures, len(DISTANCES)) - 1], gone_at - now)
        # A stated time has passed by now. Repeated immediate-retry responses fall back to the usual wait.
        trusted = ended_by is NextAttempt.STATES_TIME and attempts.failures <= TRUSTED_STATED_TIMES
        if now < next_at and not trusted:
            return Decision(
                False, f"{attempts.error} x {attempts.failures}, next attempt {next_at:%H:%M:%S} UTC; {left}"
            )
    return Decision(True, f"attempt {attempts.failures + 1}; {left}")


def _why_no_request(budget: BudgetState) -> str:
    if budget.cooling_after is None:
        return "Request budget spent"
    if budget.cooling_after == 429:
        return f"429 x {budget.rate_limited_in_a_row}"
    return f"{budget.cooling_after}, the API states when to retry"


def _at_most_urgent(distance: timedelta, left: timedelta) -> timedelta:
    return min(distance, URGENT_DISTANCE) if left <= URGENT else distance


def duration(left: timedelta) -> str:
    """Return a duration as `2 h 05 min`."""
    minutes = max(int(left.total_seconds() // 60), 0)
    return f"{minutes // 60} h {minutes % 60:02} min"
