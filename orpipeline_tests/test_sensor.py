from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.backoff import Attempts
from orpipeline.defs.sensors import snapshot_sensor
from orpipeline.openrouter.budget import shared_budget
from orpipeline.settings import load_settings
from orpipeline.snapshot import Fetch
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.scripted_api import KEY, Reply, ScriptedApi
from orpipeline_tests.world import NOON, World

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def asking(world: World, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    return World(world.folder, world.instance, api.base_url)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands at noon until a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def reason(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    said = str(result.skip_reason.skip_message)
    assert len(said) <= 150
    assert "\n" not in said
    return said


def test_without_a_key_it_skips_and_says_what_to_do(world: World) -> None:
    assert "OPENROUTER_API_KEY is not set" in reason(world.tick())


def test_a_missing_day_is_attempted_as_one_run(asking: World) -> None:
    (request,) = asking.tick().run_requests or []
    assert request.partition_key == "2026-10-06"
    # As long as nothing has changed, another tick asks for the same run.
    (again,) = asking.tick().run_requests or []
    assert again.run_key == request.run_key


def test_a_materialized_day_is_left_alone(asking: World) -> None:
    asking.keep(answer())
    assert asking.run(DAY).success
    assert "2026-10-06 is materialized; the next day is due" in reason(asking.tick())


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_while_a_run_is_at_work_it_waits(asking: World, status: dg.DagsterRunStatus) -> None:
    asking.instance.add_run(
        dg.DagsterRun(
            "daily_snapshot",
            run_id="12345678-0000-4000-8000-000000000000",
            status=status,
            tags={"dagster/partition": "2026-10-06"},
        )
    )
    assert "Run 12345678 is at work on 2026-10-06" in reason(asking.tick())


def test_after_a_429_it_says_the_time_and_attempts_nothing_before_it(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller
) -> None:
    api.answers(Reply(b'{"error": {"code": 429}}', 429, {"Retry-After": "600"}))
    assert not asking.run(DAY, fetch=Fetch.auto).success
    cursor = asking.tick().cursor
    said = reason(asking.tick(cursor))
    assert said.startswith("429, first in a row, next attempt 12:10:00 UTC")
    assert "11 h 59 min left" in said or "12 h 00 min left" in said
    clock.move_to(NOON + timedelta(seconds=599))
    reason(asking.tick(cursor))
    clock.move_to(NOON + timedelta(seconds=601))
    assert asking.tick(cursor).run_requests


def test_three_429s_in_a_row_are_counted(asking: World, api: ScriptedApi, clock: time_machine.Traveller) -> None:
    api.answers(Reply(b'{"error": {"code": 429}}', 429, {"Retry-After": "600"}))
    cursor: str | None = None
    for n in range(3):
        clock.move_to(NOON + n * timedelta(seconds=700))
        assert asking.tick(cursor).run_requests
        asking.run(DAY, fetch=Fetch.auto)
        cursor = asking.tick(cursor).cursor
    assert reason(asking.tick(cursor)).startswith("429, third in a row, next attempt 12:33:20 UTC")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(b"<html>502</html>", 502), "ServerError"),
        (Reply(answer(DAY - timedelta(days=1))), "DayNotAvailableError"),
        (Reply(b"<html>"), "UnreadableAnswerError"),
    ],
    ids=["server error", "not published yet", "html"],
)
def test_what_passes_by_itself_is_attempted_again_with_growing_distance(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller, reply: Reply, error: str
) -> None:
    api.answers(reply)
    cursor: str | None = None
    at = NOON
    for minutes in (1, 2, 5, 10, 20, 30, 30):
        asking.run(DAY, fetch=Fetch.auto)
        result = asking.tick(cursor)
        cursor = result.cursor
        at += timedelta(minutes=minutes)
        said = reason(result)
        assert said.startswith(error)
        assert f"next attempt {at:%H:%M}" in said
        clock.move_to(at + timedelta(seconds=1))
        at = datetime.now(UTC)
        assert asking.tick(cursor).run_requests


def test_a_wrong_key_waits_for_a_person_until_the_key_changes(
    asking: World, api: ScriptedApi, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers(Reply(b'{"error": {"code": 401, "message": "no"}}', 401))
    asking.run(DAY, fetch=Fetch.auto)
    cursor = asking.tick().cursor
    clock.move_to(NOON + timedelta(hours=5))
    assert "set a valid OPENROUTER_API_KEY" in reason(asking.tick(cursor))
    assert cursor is not None
    assert KEY not in cursor
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-another")
    assert asking.tick(cursor).run_requests


def test_a_refused_day_is_not_hammered(asking: World, api: ScriptedApi, clock: time_machine.Traveller) -> None:
    api.answers(answer(bend=lambda data: data.update(window_days=1)))
    asking.run(DAY, fetch=Fetch.auto)
    cursor = asking.tick().cursor
    clock.move_to(NOON + timedelta(hours=8))
    assert "was refused" in reason(asking.tick(cursor))
    assert "21:40 UTC" in reason(asking.tick(cursor))


def test_in_the_last_hours_attempts_come_at_least_every_ten_minutes(
    asking: World, clock: time_machine.Traveller
) -> None:
    ended = (NOON + timedelta(hours=10)).timestamp()  # 22:00: 2 hours are left
    cursor = Attempts("2026-10-06", "a-run", "ServerError", ended, failures=9).as_cursor()
    clock.move_to(NOON + timedelta(hours=10, minutes=9))
    assert "next attempt 22:10:00 UTC; 1 h 51 min left" in reason(asking.tick(cursor))
    clock.move_to(NOON + timedelta(hours=10, minutes=10))
    assert asking.tick(cursor).run_requests


def test_a_spent_budget_is_waited_for(asking: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORPIPELINE_REQUESTS_PER_MINUTE", "1")
    shared_budget(load_settings()).spend()
    assert reason(asking.tick()).startswith("Request budget spent, next attempt 12:01:00 UTC")


@pytest.mark.parametrize(
    "garbled", ["{", "[]", '{"day": 5}', '{"day": "x", "failures": 1}', "null", "\x00", "[" * 9999]
)
def test_a_garbled_cursor_is_set_aside(asking: World, garbled: str) -> None:
    result = asking.tick(garbled)
    assert result.run_requests
    assert result.cursor is not None
    assert json.loads(result.cursor)["day"] == "2026-10-06"


def test_yesterdays_cursor_says_nothing_of_today(asking: World) -> None:
    fingerprint = hashlib.blake2b(KEY.encode(), digest_size=4).hexdigest()
    old = Attempts("2026-10-05", "a-run", "UnauthorizedError", NOON.timestamp(), 3, fingerprint).as_cursor()
    assert asking.tick(old).run_requests


def test_a_tick_that_skips_is_quick_and_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a SQLite instance, as in production: 50 ms at most, here the quickest of ten, for machines are noisy."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("ORPIPELINE_BASE_URL", "http://127.0.0.1:1/never-asked")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        shared_budget(load_settings()).cool_down(datetime.now(UTC) + timedelta(hours=1))
        took = []
        for _ in range(10):
            with dg.build_sensor_context(instance=instance) as context:
                start = time.perf_counter()
                result = snapshot_sensor(context)
                took.append(time.perf_counter() - start)
            assert isinstance(result, dg.SensorResult)
            assert reason(result).startswith("429")
    assert min(took) < 0.05


def test_an_api_that_says_at_once_again_and_again_is_not_believed_for_ever(
    asking: World, clock: time_machine.Traveller
) -> None:
    cursor = Attempts("2026-10-06", "a-run", "RateLimitedError", NOON.timestamp(), failures=4).as_cursor()
    assert "next attempt 12:10:00 UTC" in reason(asking.tick(cursor))
    clock.move_to(NOON + timedelta(minutes=10))
    assert asking.tick(cursor).run_requests
