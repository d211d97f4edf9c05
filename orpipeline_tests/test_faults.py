"""Every fault through the real asset run and the real sensor: what is asked, kept and said, and that the day is got."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import dagster as dg
import pytest
import time_machine

from orpipeline.clock import utc_now
from orpipeline.defs.schedules import recapture_schedule
from orpipeline.openrouter.budget import shared_budget
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import AnswerTimeoutError
from orpipeline.settings import load_settings
from orpipeline.snapshot import Fetch
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.scripted_api import KEY, Reply, ScriptedApi, drip
from orpipeline_tests.test_client import RESET, TRUNCATED, raw
from orpipeline_tests.world import ASSETS, NOON, World, evaluate, failure_of

BEFORE, AFTER = DAY - timedelta(days=1), DAY + timedelta(days=1)
IN_TEN_MINUTES = NOON + timedelta(minutes=10)
RESET_AT = {"X-RateLimit-Reset": str(round(IN_TEN_MINUTES.timestamp() * 1000))}


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands at noon until a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def asking(world: World, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    return World(world.folder, world.instance, api.base_url)


def reason(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    return str(result.skip_reason.skip_message)


def requested(world: World, cursor: str | None) -> tuple[dg.ExecuteInProcessResult, str | None]:
    """Run what the sensor asks for now; return that and the cursor."""
    result = world.tick(cursor)
    (request,) = result.run_requests or []
    return run_of(world, request), result.cursor


def run_of(world: World, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    assert request.partition_key
    config = request.run_config.get("ops", {}).get("snapshot", {}).get("config", {})
    return world.run(date.fromisoformat(request.partition_key), fetch=Fetch[config.get("fetch", "auto")])


def announced(said: str) -> datetime:
    """Return the moment on the world's day that a tick names."""
    found = re.search(r"next attempt (\d\d):(\d\d):(\d\d) UTC", said)
    assert found, said
    hour, minute, second = map(int, found.groups())
    return NOON.replace(hour=hour, minute=minute, second=second)


def undated(world: World) -> int:
    return len(list((world.folder / "raw" / "undated").glob("*")))


def assert_only_before(world: World, api: ScriptedApi, requests: int) -> None:
    """Nothing of the day is in the tables, and nobody has asked any more."""
    assert len(api.asked) == requests
    assert all(not rows for rows in world.tables().values())
    assert world.materialized("model_leaderboard") == set()


def assert_got(world: World) -> None:
    for asset in ASSETS:
        assert world.materialized(asset) == {DAY.isoformat()}
    assert all({row["as_of"] for row in rows} == {DAY} for rows in world.tables().values())
    assert f"{DAY} is materialized" in reason(world.tick())


def refused(headers: dict[str, str] | None = None, inner: dict[str, str] | None = None, status: int = 429) -> Reply:
    error = {"code": 429, "message": "Rate limit exceeded", "metadata": {"headers": inner or {}}}
    return Reply(json.dumps({"error": error}).encode(), status, headers or {})


@dataclass(frozen=True)
class Fault:
    """What the API answers until it is well again, and what comes of it.

    `requests` is how often one run asks; `error` and `says` are what the run's failure carries; `days` and `undated`
    what is archived; `tick` how the next tick's reason begins, with the moment that it announces.
    """

    reply: Reply
    requests: int
    error: str
    says: str
    tick: str
    days: tuple[date, ...] = ()
    undated: int = 0


def rate_limited(reply: Reply) -> Fault:
    return Fault(
        reply,
        requests=1,
        error="RateLimitedError",
        says=r"429: Rate limit exceeded\)\. Try again at 12:10:00 UTC on 2026-10-07",
        tick="429, first in a row, next attempt 12:10:00 UTC",
    )


def failing(reply: Reply, error: str, says: str) -> Fault:
    return Fault(reply, requests=3, error=error, says=says, tick=f"{error} x 1, next attempt 12:01:00 UTC")


def unreadable(reply: Reply) -> Fault:
    return Fault(
        reply,
        requests=1,
        error="UnreadableAnswerError",
        says="no JSON object.*It is kept in ",
        tick="UnreadableAnswerError x 1, next attempt 12:01:00 UTC",
        undated=1,
    )


FAULTS = {
    "429, Retry-After in seconds": rate_limited(refused({"Retry-After": "600"})),
    "429, Retry-After as a date": rate_limited(refused({"Retry-After": format_datetime(IN_TEN_MINUTES, usegmt=True)})),
    "429, X-RateLimit-Reset": rate_limited(refused(RESET_AT)),
    "429, error.metadata.headers": rate_limited(refused(inner=RESET_AT)),
    "429 under 200": rate_limited(refused(inner=RESET_AT, status=200)),
    "429, one absurd and one usable": rate_limited(refused({"Retry-After": "-5", **RESET_AT})),
    "500": failing(Reply(b'{"error": {"code": 500}}', 500), "ServerError", "failed .500: no message"),
    "503": failing(Reply(b"<html>busy</html>", 503), "ServerError", "failed .503: no message"),
    "200 with an error": failing(Reply(b'{"error": {"code": 502, "message": "Bad"}}'), "ServerError", "502: Bad"),
    "reset": failing(RESET, "ConnectionFailedError", "could not be reached"),
    "truncated": failing(TRUNCATED, "ConnectionFailedError", "could not be reached"),
    "Content-Length is no number": failing(
        raw("Content-Length: many"), "ConnectionFailedError", "could not be reached"
    ),
    "Latin-1": unreadable(Reply('{"data": {"é": 1}}'.encode("latin-1"))),
    "Content-Length too small": unreadable(raw("Content-Length: 2000")),
    "HTML": unreadable(Reply(b"<html>Just a moment...</html>", headers={"Content-Type": "text/html"})),
    "empty": unreadable(Reply(b"")),
    "stale": Fault(
        Reply(answer(BEFORE)),
        requests=1,
        error="DayNotAvailableError",
        says="2026-10-06 is not published yet: the API still answers with 2026-10-05",
        tick="DayNotAvailableError x 1, next attempt 12:01:00 UTC",
        days=(BEFORE,),
    ),
    "future": Fault(
        Reply(answer(AFTER)),
        requests=1,
        error="DayNotAvailableError",
        says="2026-10-06",
        tick="DayNotAvailableError x 1, next attempt 12:01:00 UTC",
        days=(AFTER,),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_loses_nothing_and_the_announced_attempt_gets_the_day(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller, fault: Fault
) -> None:
    api.answers(fault.reply)
    result, cursor = requested(asking, None)

    failure = failure_of(result)
    assert failure.metadata["error"].value == fault.error
    assert re.search(fault.says, str(failure.description))
    assert len(api.asked) == fault.requests
    # Between the tries of one run there are waits, and they grow.
    waits = [b.at - a.at for a, b in pairwise(api.asked)]
    assert all(waited >= at_least for waited, at_least in zip(waits, (0.5, 1.0), strict=False))
    assert asking.archive.days() == list(fault.days)
    assert undated(asking) == fault.undated
    assert_only_before(asking, api, fault.requests)

    looked = asking.tick(cursor)
    said = reason(looked)
    assert said.startswith(fault.tick)
    assert said.endswith("left to fetch 2026-10-06")
    at = announced(said)
    clock.move_to(at - timedelta(seconds=1))
    reason(asking.tick(looked.cursor))
    assert_only_before(asking, api, fault.requests)

    api.answers(answer())
    clock.move_to(at)
    result, _ = requested(asking, looked.cursor)
    assert result.success
    assert len(api.asked) == fault.requests + 1
    assert asking.archive.days() == sorted([*fault.days, DAY])
    assert undated(asking) == fault.undated
    assert_got(asking)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Retry-After": "soon"}, {"Retry-After": "-1", "X-RateLimit-Reset": "99999999999999999"}],
    ids=["nothing", "absurd", "twice absurd"],
)
def test_a_429_that_says_nothing_usable_is_waited_for_with_growing_distance(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller, headers: dict[str, str]
) -> None:
    # After six in a row up to an hour is waited. With full jitter that may be seconds, which the client would wait in
    # place, and for real; with this seed it is not.
    random.seed(1)
    for _ in range(6):
        shared_budget(load_settings()).cool_down(NOON)
    api.answers(refused(headers))
    result, cursor = requested(asking, None)
    failure = failure_of(result)
    assert failure.metadata["error"].value == "RateLimitedError"
    assert_only_before(asking, api, 1)
    said = reason(looked := asking.tick(cursor))
    assert said.startswith("429, 7th in a row, next attempt 12:")
    at = announced(said)
    assert timedelta(minutes=1) < at - NOON <= timedelta(hours=1)
    assert f"Try again at {at:%H:%M:%S} UTC" in str(failure.description)

    api.answers(answer())
    clock.move_to(at - timedelta(seconds=1))
    reason(asking.tick(looked.cursor))
    clock.move_to(at + timedelta(seconds=1))  # what is shown has whole seconds
    assert requested(asking, looked.cursor)[0].success
    assert_got(asking)
    assert shared_budget(load_settings()).state().rate_limited_in_a_row == 0


@pytest.mark.usefixtures("at_noon")
def test_a_short_cool_down_is_waited_in_place_and_the_same_run_gets_the_day(asking: World, api: ScriptedApi) -> None:
    api.answers(refused({"Retry-After": "1"}), answer())
    assert asking.run(DAY, fetch=Fetch.auto).success
    first, second = (asked.at for asked in api.asked)
    assert 1 <= second - first < 5
    assert_got(asking)


@pytest.mark.usefixtures("at_noon")
def test_a_short_cool_down_is_waited_in_place_only_once(asking: World, api: ScriptedApi) -> None:
    api.answers(refused({"Retry-After": "1"}), refused({"Retry-After": "1"}), answer())
    failure = failure_of(asking.run(DAY, fetch=Fetch.auto))
    assert failure.metadata["error"].value == "RateLimitedError"
    assert_only_before(asking, api, 2)
    assert reason(asking.tick()).startswith("429, second in a row")
    time.sleep(1.1)
    assert requested(asking, None)[0].success
    assert_got(asking)


# What only OpenRouter can mend

INVALID = answer(bend=lambda data: data.update(window_days=1))


def recapture(world: World) -> dg.ExecuteInProcessResult:
    request = evaluate(recapture_schedule, utc_now())
    assert isinstance(request, dg.RunRequest)
    return run_of(world, request)


def refuse_a_day(world: World, api: ScriptedApi) -> str | None:
    """Have the API answer with an invalid snapshot; return the sensor's cursor after that."""
    api.answers(INVALID)
    result, cursor = requested(world, None)
    failure = failure_of(result)
    assert failure.metadata["error"].value == "InvalidSnapshotError"
    assert world.archive.days() == [DAY]  # refused, but kept
    assert_only_before(world, api, 1)
    looked = world.tick(cursor)
    assert "2026-10-06 was refused (see the failed run): it is fetched again at 21:40 UTC" in reason(looked)
    return looked.cursor


def test_an_invalid_snapshot_is_mended_by_the_recapture(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller
) -> None:
    cursor = refuse_a_day(asking, api)
    api.answers(answer())
    clock.move_to(NOON.replace(hour=21, minute=39))
    reason(asking.tick(cursor))
    clock.move_to(NOON.replace(hour=21, minute=40))
    assert recapture(asking).success
    assert len(api.asked) == 2
    assert [asking.archive.read(record) for record in asking.archive.revisions(DAY)] == [INVALID, answer()]
    assert asking.tables()["snapshots"][0]["revision"] == 2
    assert_got(asking)


@pytest.mark.parametrize(
    "reply", [refused({"Retry-After": "600"}), Reply(status=503), Reply(answer(BEFORE))], ids=["429", "503", "stale"]
)
def test_a_recapture_that_fails_is_made_up_for_by_the_sensor(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller, reply: Reply
) -> None:
    cursor = refuse_a_day(asking, api)
    api.answers(reply)
    clock.move_to(NOON.replace(hour=21, minute=40))
    assert not recapture(asking).success
    looked = asking.tick(cursor)
    clock.move_to(announced(reason(looked)))
    api.answers(answer())
    assert requested(asking, looked.cursor)[0].success
    assert_got(asking)


def test_a_day_that_the_recapture_finds_refused_again_is_fetched_until_it_is_gone(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller
) -> None:
    cursor = refuse_a_day(asking, api)
    at = NOON.replace(hour=21, minute=40)
    clock.move_to(at)
    assert not recapture(asking).success
    for _ in range(3):
        looked = asking.tick(cursor)
        said = reason(looked)
        assert said.startswith("InvalidSnapshotError x ")
        assert timedelta(0) < announced(said) - at <= timedelta(minutes=10)
        at = announced(said)
        clock.move_to(at)
        result, cursor = requested(asking, looked.cursor)
        assert not result.success
    assert len(api.asked) == 5
    looked = asking.tick(cursor)
    clock.move_to(announced(reason(looked)))
    api.answers(answer())
    assert requested(asking, looked.cursor)[0].success
    assert_got(asking)


@pytest.mark.usefixtures("clock")
def test_an_answer_in_another_charset_of_json_is_kept_as_it_came_and_read(asking: World, api: ScriptedApi) -> None:
    body = answer().decode().encode("utf-16")
    api.answers(body)
    assert asking.run(DAY, fetch=Fetch.auto).success
    (record,) = asking.archive.revisions(DAY)
    assert asking.archive.read(record) == body
    assert_got(asking)


def test_an_answer_from_the_future_does_not_stand_for_the_day_when_it_comes(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller
) -> None:
    api.answers(answer(AFTER, lambda data: data["classifications"][0].update(display_name="Too early")))
    assert not asking.run(DAY, fetch=Fetch.auto).success
    clock.move_to(NOON + timedelta(days=1))
    api.answers(answer(AFTER))
    assert asking.run(AFTER, fetch=Fetch.auto).success
    assert len(api.asked) == 2
    newest = asking.archive.latest(AFTER)
    assert newest is not None
    assert asking.archive.read(newest) == answer(AFTER)


# What takes long. The assets' client waits 30 s for an answer and 55 s in all; here it is given less.


def hang(handler: BaseHTTPRequestHandler) -> None:  # noqa: ARG001
    time.sleep(1)


@pytest.mark.parametrize(
    ("reply", "read_seconds", "total_seconds", "tries"),
    [(Reply(act=hang), 0.3, 10, 3), (Reply(act=drip), 5, 0.5, 1)],
    ids=["hang", "slow drip"],
)
def test_what_takes_too_long_ends_is_counted_and_is_no_cool_down(
    api: ScriptedApi, reply: Reply, read_seconds: float, total_seconds: float, tries: int
) -> None:
    budget = shared_budget(load_settings())
    client = Client(
        KEY,
        api.base_url,
        retry_wait_seconds=0.01,
        read_timeout_seconds=read_seconds,
        total_timeout_seconds=total_seconds,
        budget=budget,
    )
    api.answers(reply)
    begun = time.monotonic()
    with pytest.raises(AnswerTimeoutError):
        client.fetch()
    assert time.monotonic() - begun < 3
    assert len(api.asked) == tries
    assert budget.state().used_last_minute == tries
    assert budget.state().next_request_at is None
    api.answers(answer())
    assert client.fetch().body == answer()
