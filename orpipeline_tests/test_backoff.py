"""When a missing day is retried, decided from values alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.defs.backoff import Attempts, Memory, decide
from orpipeline.defs.runs import Outcome
from orpipeline.errors import (
    ApiKeyError,
    BudgetSpentError,
    InvalidSnapshotError,
    NextAttempt,
    OrpipelineError,
    RateLimitedError,
    SettingsError,
    StatusError,
    TransportError,
)
from orpipeline.openrouter.budget import BudgetState

DAY = date(2026, 10, 6)
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
FREE = BudgetState(0, 0, 0, None, None)
MINUTE = timedelta(minutes=1)
FINDINGS = pl.DataFrame(schema=FINDINGS_SCHEMA)


def outcome(error: type[OrpipelineError] | None, at: datetime = NOON) -> Outcome:
    name, next_attempt = (error.__name__, error.next_attempt) if error else (None, NextAttempt.TRANSIENT)
    return Outcome(at, name, next_attempt, "a reason", "")


def attempts(error: type[OrpipelineError], failures: int = 1, at: datetime = NOON) -> Attempts:
    """Return what is known after `failures` attempts that ended with the error, the last one at `at`."""
    return Attempts.of(DAY, [outcome(error, at - n * MINUTE) for n in range(failures)])


def first_attempt(known: Attempts, moments: Iterable[datetime], budget: BudgetState = FREE) -> datetime | None:
    """Return the first of the moments at which a run starts."""
    return next((at for at in moments if decide(known, budget, at).attempt), None)


def minutes_from(at: datetime, count: int) -> list[datetime]:
    return [at + MINUTE * n for n in range(count)]


@pytest.mark.parametrize(
    ("error", "next_attempt"),
    [
        (TransportError("no response"), NextAttempt.TRANSIENT),
        (StatusError("down", status=500), NextAttempt.TRANSIENT),
        (StatusError("busy", status=503, retry_at=NOON), NextAttempt.STATES_TIME),
        (StatusError("bad request", status=400), NextAttempt.NEEDS_PERSON),
        (RateLimitedError("slow down", status=429), NextAttempt.STATES_TIME),
        (BudgetSpentError("spent", status=429), NextAttempt.STATES_TIME),
        (ApiKeyError("no key"), NextAttempt.NEEDS_PERSON),
        (SettingsError("a typo"), NextAttempt.NEEDS_PERSON),
        (InvalidSnapshotError("rejected", FINDINGS), NextAttempt.NEEDS_OPENROUTER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_states_what_it_means_for_the_next_attempt(
    error: OrpipelineError, next_attempt: NextAttempt
) -> None:
    assert error.next_attempt is next_attempt


def test_a_new_day_is_attempted_at_once() -> None:
    assert decide(Attempts(DAY), FREE, NOON).attempt


@pytest.mark.parametrize(("failures", "minutes"), [(1, 1), (2, 2), (3, 5), (4, 10), (5, 20), (6, 30), (40, 30)])
def test_transient_failures_are_retried_at_growing_intervals(failures: int, minutes: int) -> None:
    known = attempts(TransportError, failures)
    assert first_attempt(known, minutes_from(NOON, 60)) == NOON + MINUTE * minutes
    wait = decide(known, FREE, NOON)
    assert not wait.attempt
    assert wait.reason.startswith(f"TransportError x {failures}, next attempt 12:{minutes:02}:00 UTC; 12 h 00 min left")


def test_the_last_hours_are_urgent() -> None:
    evening = NOON + timedelta(hours=10)
    assert first_attempt(attempts(TransportError, 40, evening), minutes_from(evening, 60)) == evening + 10 * MINUTE


def test_a_stated_time_replaces_the_usual_wait_for_three_failures_in_a_row() -> None:
    found = [first_attempt(attempts(RateLimitedError, failures), minutes_from(NOON, 60)) for failures in (1, 3, 4)]
    assert found == [NOON, NOON, NOON + 10 * MINUTE]


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (429, "429 x 2, next attempt 12:07"),
        (503, "503, the API states when to retry, next attempt 12:07"),
        (None, "Request budget spent, next attempt 12:07"),
    ],
)
def test_no_run_starts_before_the_budget_has_room(after: int | None, reason: str) -> None:
    room_at = NOON + 7 * MINUTE
    budget = BudgetState(30, 30, 2, after, room_at)
    known = attempts(RateLimitedError)
    assert first_attempt(known, minutes_from(NOON, 60), budget) == room_at
    wait = decide(known, budget, NOON)
    assert not wait.attempt
    assert wait.reason.startswith(reason)


def test_an_error_that_needs_a_person_is_retried_hourly_and_at_once_with_another_key() -> None:
    known = attempts(ApiKeyError)
    wait = decide(known, FREE, NOON)
    assert not wait.attempt
    assert "check OPENROUTER_API_KEY; retried hourly, next attempt 13:00:00 UTC; 12 h 00 min left" in wait.reason
    assert first_attempt(known, minutes_from(NOON, 120)) == NOON + 60 * MINUTE
    changed = Attempts.of(DAY, [outcome(ApiKeyError)], key_since=(NOON + MINUTE).timestamp())
    assert decide(changed, FREE, NOON + MINUTE).attempt


def test_an_error_that_needs_a_person_is_retried_every_10_minutes_in_the_last_3_hours() -> None:
    late = NOON + timedelta(hours=10)  # 2 hours are left
    known = attempts(ApiKeyError, at=late)
    wait = decide(known, FREE, late)
    assert not wait.attempt
    assert "retried every 10 min, next attempt 22:10:00 UTC; 2 h 00 min left" in wait.reason
    assert first_attempt(known, minutes_from(late, 60)) == late + 10 * MINUTE


def test_a_good_response_ends_the_failures() -> None:
    known = Attempts.of(DAY, [outcome(None), outcome(ApiKeyError, NOON - MINUTE)])
    assert known.failures == 0
    assert decide(known, FREE, NOON).attempt


@pytest.mark.parametrize("error", [TransportError, ApiKeyError, RateLimitedError])
def test_a_run_that_ended_while_the_clock_was_ahead_delays_nothing(error: type[OrpipelineError]) -> None:
    for ahead in (timedelta(minutes=2), timedelta(days=400)):
        assert decide(attempts(error, 6, NOON + ahead), FREE, NOON).attempt


def test_a_rejected_day_waits_for_the_recapture_and_is_then_retried() -> None:
    recapture_at = datetime(2026, 10, 7, 21, 40, tzinfo=UTC)
    for at in (NOON, NOON + timedelta(days=400)):  # also if the clock was ahead
        assert not decide(attempts(InvalidSnapshotError, at=at), FREE, NOON).attempt
    assert first_attempt(attempts(InvalidSnapshotError), minutes_from(NOON, 12 * 60)) == recapture_at
    again = attempts(InvalidSnapshotError, 2, recapture_at)
    assert first_attempt(again, minutes_from(recapture_at, 60)) == recapture_at + 2 * MINUTE


def test_every_reason_is_one_short_sentence() -> None:
    for error in (TransportError, RateLimitedError, ApiKeyError, InvalidSnapshotError):
        decision = decide(attempts(error, 4), FREE, NOON)
        assert len(decision.reason) <= 150
        assert "2026-10-06" in decision.reason


def test_a_cursor_begins_with_words_and_gives_back_the_memory() -> None:
    memory = Memory("2026-10-06", requested_at=1.5, key="0a", key_since=2.5, checked=True, looked_at=3.5)
    cursor = memory.as_cursor("429 x 1.")
    assert cursor.startswith("429 x 1.\n")
    assert Memory.from_cursor(cursor) == memory
    assert Memory.from_cursor(None) == Memory()


@pytest.mark.parametrize("text", ["{", "[" * 9999, '{"day": "x"}', "words only", '{"unknown": 1}'])
def test_a_text_that_is_not_a_cursor_remembers_nothing(text: str) -> None:
    assert Memory.from_cursor(text) == Memory()
