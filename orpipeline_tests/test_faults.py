"""Each fault of the API, through the real sensor and the real run: nothing is lost, and a retry gets the day."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import dagster as dg
import pytest
import time_machine

from orpipeline.capture import Fetch
from orpipeline.clock import utc_now
from orpipeline.errors import (
    ApiKeyError,
    DayNotAvailableError,
    NextAttempt,
    RateLimitedError,
    StatusError,
    TransportError,
    UnreadableResponseError,
)
from orpipeline.openrouter.client import Client
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.responses import DAY
from orpipeline_tests.test_client import HANG
from orpipeline_tests.world import ASSETS, NOON, World, evaluate, failure_of, outcome_of

pytestmark = pytest.mark.promise

BEFORE, AFTER = DAY - timedelta(days=1), DAY + timedelta(days=1)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
RECAPTURE = NOON.replace(hour=21, minute=40)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stops at noon until a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@dataclass
class Sensor:
    """The sensor with its cursor, as Dagster's daemon evaluates it."""

    world: World
    cursor: str | None = None

    def tick(self) -> dg.RunRequest | str:
        """Evaluate the sensor; return the run that it requests, or the reason of a skipped tick."""
        result = self.world.tick(self.cursor)
        self.cursor = result.cursor or self.cursor
        if result.run_requests:
            (request,) = result.run_requests
            return request
        assert isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message)

    def run(self) -> dg.ExecuteInProcessResult:
        """Execute the run that the sensor requests now."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        return self.world.execute(request)

    def skips(self) -> str:
        """Return why the sensor requests no run now."""
        reason = self.tick()
        assert isinstance(reason, str), reason
        return reason

    def next_attempt(self) -> datetime:
        """Return the time of the next attempt, which the reason of a skipped tick states."""
        reason = self.skips()
        found = re.search(r"(\d\d):(\d\d):(\d\d) UTC", reason)
        assert found, reason
        hour, minute, second = map(int, found.groups())
        return NOON.replace(hour=hour, minute=minute, second=second)


def error_of(world: World, result: dg.ExecuteInProcessResult) -> str:
    """Return the name of the error that ended a run. The run is red only if a person should look."""
    newest = outcome_of(world, DAY)
    assert newest.error
    passes = newest.next_attempt in (NextAttempt.TRANSIENT, NextAttempt.STATES_TIME)
    assert result.success == passes
    if not passes:
        assert failure_of(result).metadata["error"].value == newest.error
    return newest.error


def undated(world: World) -> int:
    """Return how many responses are archived that state no day."""
    return sum(one.as_of is None for one in world.archive.all())


def assert_nothing_loaded(world: World) -> None:
    assert all(not rows for rows in world.tables().values())
    assert world.materialized("model_leaderboard") == set()


def assert_loaded(world: World) -> None:
    """Every asset and table has the day, and the sensor requests no more runs."""
    for asset in ASSETS:
        assert world.materialized(asset) == {DAY.isoformat()}
    assert all({row["as_of"] for row in rows} == {DAY} for rows in world.tables().values())
    assert "is materialized" in Sensor(world).skips()


def rate_limited(headers: dict[str, str]) -> Reply:
    error = {"code": 429, "message": "Rate limit exceeded"}
    return Reply(json.dumps({"error": error}).encode(), 429, headers)


@dataclass(frozen=True)
class Fault:
    """A reply of the API, and its consequences."""

    reply: Reply
    error: type[Exception]
    requests: int = 1
    """How many requests one run sends."""
    wait: timedelta = MINUTE
    """From the failed run to the next attempt."""
    days: tuple[date, ...] = ()
    """The days that are archived after the failed run."""
    undated: int = 0
    """How many responses are archived that state no day."""


# Faults with the same consequences share a case: test_client.py has every status, header and broken connection.
FAULTS = {
    "429": Fault(rate_limited({"Retry-After": "600"}), RateLimitedError, wait=10 * MINUTE),
    "503": Fault(Reply(b"<html>busy</html>", 503), StatusError, requests=3),
    "503 with a time": Fault(Reply(b"<html>", 503, {"Retry-After": "600"}), StatusError, wait=10 * MINUTE),
    "a spurious 403": Fault(Reply(b"<html>no</html>", 403), ApiKeyError, wait=60 * MINUTE),
    "HTML": Fault(Reply(b"<html>Just a moment...</html>"), UnreadableResponseError, undated=1),
    "UTF-16": Fault(Reply(sample_response(DAY).decode().encode("utf-16")), UnreadableResponseError, undated=1),
    "the day before": Fault(Reply(sample_response(BEFORE)), DayNotAvailableError, days=(BEFORE,)),
    "a day that is not over": Fault(Reply(sample_response(AFTER)), DayNotAvailableError, undated=1),
    "a day of another century": Fault(Reply(sample_response(date(1900, 1, 1))), DayNotAvailableError, undated=1),
    "the API key": Fault(
        Reply(sample_response(DAY, change=lambda data: data.update(key=KEY))), UnreadableResponseError, undated=1
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_loses_nothing_and_the_next_attempt_gets_the_day(
    online: World, api: LocalApi, clock: time_machine.Traveller, fault: Fault
) -> None:
    # The day before is no partition, so the sensor does not load it.
    online.settings = online.settings.model_copy(update={"start_date": DAY})
    sensor = Sensor(online)
    api.serve(fault.reply)
    assert error_of(online, sensor.run()) == fault.error.__name__
    assert len(api.requests) == fault.requests
    assert online.archive.days() == list(fault.days)
    assert undated(online) == fault.undated
    assert_nothing_loaded(online)

    at = sensor.next_attempt()
    assert at == NOON + fault.wait
    clock.move_to(at - SECOND)
    sensor.skips()
    assert len(api.requests) == fault.requests

    api.serve(sample_response(DAY))
    clock.move_to(at)
    assert sensor.run().success
    assert len(api.requests) == fault.requests + 1
    assert online.archive.days() == sorted([*fault.days, DAY])
    assert undated(online) == fault.undated
    assert_loaded(online)


def test_the_wait_grows_with_each_429_that_states_no_usable_time(
    online: World, api: LocalApi, clock: time_machine.Traveller
) -> None:
    # After six 429s in a row, the wait is up to an hour. It is random, and with this seed it is longer than a minute:
    # the client would sleep through a shorter one.
    random.seed(1)
    for _ in range(6):
        online.budget.cool_down(NOON)
    api.serve(rate_limited({"Retry-After": "-1", "X-RateLimit-Reset": "soon"}))
    sensor = Sensor(online)
    failed = sensor.run()
    assert error_of(online, failed) == RateLimitedError.__name__
    assert len(api.requests) == 1
    at = sensor.next_attempt()
    assert MINUTE < at - NOON <= timedelta(hours=1)
    assert f"{at:%H:%M:%S} UTC" in outcome_of(online, DAY).reason

    api.serve(sample_response(DAY))
    clock.move_to(at - SECOND)
    sensor.skips()
    clock.move_to(at + SECOND)  # the stated time has whole seconds
    assert sensor.run().success
    assert_loaded(online)
    assert online.budget.state().rate_limited_in_a_row == 0


@pytest.mark.usefixtures("at_noon")
def test_a_run_waits_for_a_short_cool_down_and_gets_the_day(online: World, api: LocalApi) -> None:
    api.serve(rate_limited({"Retry-After": "1"}), sample_response(DAY))
    assert online.run(DAY, fetch=Fetch.auto).success
    first, second = (request.at for request in api.requests)
    assert second - first >= 1
    assert_loaded(online)


def test_each_request_that_times_out_is_counted_and_starts_no_cool_down(online: World, api: LocalApi) -> None:
    api.serve(HANG)
    client = Client(KEY, api.base_url, retry_wait_seconds=0.01, read_timeout_seconds=0.2, budget=online.budget)
    with pytest.raises(TransportError):
        client.fetch()
    state = online.budget.state()
    assert (state.used_last_minute, state.next_request_at) == (len(api.requests), None)


# Faults that only OpenRouter can fix

INVALID = sample_response(DAY, change=lambda data: data.update(window_days=1))


def recapture(world: World) -> dg.ExecuteInProcessResult:
    """Execute the run that the evening's schedule requests."""
    request = evaluate("recapture_schedule", utc_now())
    assert isinstance(request, dg.RunRequest)
    return world.execute(request)


@pytest.fixture
def rejected(online: World, api: LocalApi) -> Sensor:
    """The sensor after a run that archived an invalid response and rejected it. The day is the first partition."""
    online.settings = online.settings.model_copy(update={"start_date": DAY})
    sensor = Sensor(online)
    api.serve(INVALID)
    assert error_of(online, sensor.run()) == "InvalidSnapshotError"
    assert online.archive.days() == [DAY]
    assert_nothing_loaded(online)
    assert "21:40" in sensor.skips()  # the time of the recapture
    return sensor


def test_the_recapture_replaces_a_rejected_response(
    online: World, api: LocalApi, clock: time_machine.Traveller, rejected: Sensor
) -> None:
    api.serve(sample_response(DAY))
    clock.move_to(RECAPTURE - MINUTE)
    rejected.skips()
    clock.move_to(RECAPTURE)
    assert recapture(online).success
    assert len(api.requests) == 2
    archived = [online.archive.read(one).body for one in online.archive.revisions(DAY)]
    assert archived == [INVALID, sample_response(DAY)]
    assert online.tables()["snapshots"][0]["revision"] == 2
    assert_loaded(online)


@pytest.mark.parametrize(
    "reply", [rate_limited({"Retry-After": "600"}), Reply(sample_response(BEFORE))], ids=["429", "stale"]
)
def test_the_sensor_retries_a_failed_recapture(
    online: World, api: LocalApi, clock: time_machine.Traveller, rejected: Sensor, reply: Reply
) -> None:
    api.serve(reply)
    clock.move_to(RECAPTURE)
    assert recapture(online).success
    assert_nothing_loaded(online)
    clock.move_to(rejected.next_attempt())
    api.serve(sample_response(DAY))
    assert rejected.run().success
    assert_loaded(online)


def test_the_sensor_retries_every_ten_minutes_while_the_recapture_is_rejected_too(
    online: World, api: LocalApi, clock: time_machine.Traveller, rejected: Sensor
) -> None:
    clock.move_to(RECAPTURE)
    assert recapture(online).success  # the bytes that were rejected already are not news
    for _ in range(3):
        at = rejected.next_attempt()
        assert timedelta(0) < at - utc_now() <= 10 * MINUTE
        clock.move_to(at)
        assert rejected.run().success
        assert_nothing_loaded(online)
    assert len(api.requests) == 5
    clock.move_to(rejected.next_attempt())
    api.serve(sample_response(DAY))
    assert rejected.run().success
    assert_loaded(online)


# Responses that come too early


def test_a_response_from_before_its_day_ended_does_not_replace_the_days_response(
    online: World, api: LocalApi, clock: time_machine.Traveller
) -> None:
    api.serve(sample_response(AFTER, change=lambda data: data["classifications"][0].update(display_name="Too early")))
    assert not online.run(DAY, fetch=Fetch.auto).success
    clock.move_to(NOON + timedelta(days=1))
    api.serve(sample_response(AFTER))
    assert online.run(AFTER, fetch=Fetch.auto).success
    assert len(api.requests) == 2
    newest = online.archive.latest(AFTER)
    assert newest is not None
    assert online.archive.read(newest).body == sample_response(AFTER)
