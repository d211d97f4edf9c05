"""Days that are archived but not in the tables are loaded, as after an outage of the database, or without a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.archive import Archive
from orpipeline.capture import Fetch
from orpipeline.defs.jobs import CATCH_UP_DAYS
from orpipeline.testing import LocalApi, sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON, World, days_of, failure_of, outcome_of, queued_run

MINUTE, ONE_DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that shows noon until a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def recorded(online: World) -> World:
    """A pipeline whose newest day is in the archive and in the tables."""
    online.store(sample_response(DAY))
    assert online.run(DAY).success
    return online


def days_before(*ages: int) -> list[date]:
    return [DAY - timedelta(days=age) for age in ages]


def archive(world: World, days: Sequence[date]) -> None:
    for day in days:
        world.store(sample_response(day))


def requested(result: dg.SensorResult) -> list[date]:
    return [date.fromisoformat(request.partition_key or "") for request in result.run_requests or []]


def test_a_run_that_automation_starts_loads_every_archived_day_of_the_last_month(online: World, api: LocalApi) -> None:
    online.settings = online.settings.model_copy(update={"start_date": DAY - 40 * ONE_DAY})
    archive(online, days_before(CATCH_UP_DAYS, 3, 2, 0))
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    assert days_of(online.warehouse) == days_before(3, 2, 0)
    assert online.materialized("task_models") == {str(day) for day in days_before(3, 2, 0)}
    assert api.requests == []


def test_a_run_that_a_person_starts_loads_what_it_was_asked_for(online: World) -> None:
    archive(online, days_before(1, 0))
    assert online.run(DAY).success
    assert days_of(online.warehouse) == [DAY]


def test_a_failed_fetch_does_not_keep_other_days_from_the_tables(online: World, api: LocalApi) -> None:
    archive(online, days_before(1))
    api.serve(b"<html>")
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    assert outcome_of(online, DAY).error == "UnreadableResponseError"
    assert days_of(online.warehouse) == days_before(1)


def test_the_sensor_loads_archived_days_without_a_key_and_without_a_request(world: World) -> None:
    archive(world, days_before(2, 1, 0))
    (request,) = world.tick().run_requests or []
    assert request.partition_key == str(DAY)
    assert world.execute(request).success
    assert days_of(world.warehouse) == days_before(2, 1, 0)
    assert world.tick().run_requests == []


def test_a_rejected_or_damaged_day_is_judged_once_until_it_has_another_response(
    recorded: World, clock: time_machine.Traveller
) -> None:
    rejected, damaged = days_before(2, 1)
    recorded.store(sample_response(rejected, change=lambda data: data.update(window_days=1)))
    path = Path(recorded.store(sample_response(damaged)).revision.path)
    path.write_bytes(b"damaged")
    (request,) = recorded.tick().run_requests or []
    assert request.partition_key == str(damaged)
    assert not recorded.execute(request).success  # a person asked for neither, but should look at a damaged archive
    for minutes in (30, 500):
        clock.move_to(NOON + minutes * MINUTE)
        assert requested(recorded.tick()) == []
    recorded.store(sample_response(rejected), fetched_at=NOON + MINUTE)
    (request,) = recorded.tick().run_requests or []
    assert request.partition_key == str(rejected)
    assert recorded.execute(request).success
    assert days_of(recorded.warehouse) == [rejected, DAY]


def test_a_damaged_day_is_loaded_once_it_is_restored_or_fetched_again(
    online: World, api: LocalApi, clock: time_machine.Traveller
) -> None:
    older, newest = (Path(online.store(sample_response(day)).revision.path) for day in days_before(1, 0))
    intact = older.read_bytes()
    for path in (older, newest):
        path.write_bytes(b"damaged")
    for day in days_before(1, 0):
        assert not online.run(day, automated=True).success
        assert outcome_of(online, day).error == "DamagedResponseError"
    assert days_of(online.warehouse) == []
    api.serve(sample_response(DAY))  # the bytes that the archive had
    older.write_bytes(intact)
    clock.move_to(NOON + timedelta(hours=2))
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    assert days_of(online.warehouse) == days_before(1, 0)


def test_a_restated_response_that_was_archived_but_not_loaded_is_loaded(recorded: World) -> None:
    (day,) = days_before(1)
    archive(recorded, [day])
    assert recorded.run(day).success
    recorded.store(
        sample_response(day, change=lambda data: data["classifications"][0].update(display_name="Restated")),
        fetched_at=NOON,
    )
    (request,) = recorded.tick().run_requests or []
    assert recorded.execute(request).success
    assert recorded.warehouse.read("snapshots").filter(as_of=day)["revision"].to_list() == [2]
    assert requested(recorded.tick()) == []


def test_while_the_database_is_away_one_run_an_hour_tries_and_then_all_days_are_loaded(
    recorded: World, clock: time_machine.Traveller
) -> None:
    days = days_before(2, 1)
    archive(recorded, days)
    warehouse = Path(str(recorded.settings.warehouse))
    warehouse.rename(warehouse.with_name("away"))
    warehouse.mkdir()
    (request,) = recorded.tick().run_requests or []
    assert not recorded.execute(request).success
    clock.move_to(NOON + 59 * MINUTE)
    assert requested(recorded.tick()) == []
    clock.move_to(NOON + 62 * MINUTE)
    warehouse.rmdir()
    warehouse.with_name("away").rename(warehouse)
    (request,) = recorded.tick().run_requests or []
    assert recorded.execute(request).success
    assert days_of(recorded.warehouse) == [*days, DAY]


def test_it_waits_for_an_active_run(recorded: World) -> None:
    archive(recorded, days_before(1))
    recorded.instance.add_run(queued_run("import_archive"))
    tick = recorded.tick()
    assert requested(tick) == []
    assert "is materialized" in str(tick.skip_reason)
    recorded.instance.delete_run(recorded.instance.get_runs(limit=1)[0].run_id)
    assert requested(recorded.tick(tick.cursor)) == days_before(1)


def test_it_looks_every_ten_minutes(recorded: World, clock: time_machine.Traveller) -> None:
    looked = recorded.tick()
    assert requested(looked) == []
    archive(recorded, days_before(1))
    clock.move_to(NOON + 9 * MINUTE)
    assert requested(recorded.tick(looked.cursor)) == []
    clock.move_to(NOON + 10 * MINUTE)
    assert requested(recorded.tick(looked.cursor)) == days_before(1)


def test_days_before_the_first_partition_are_left_alone(online: World) -> None:
    online.settings = online.settings.model_copy(update={"start_date": DAY - ONE_DAY})
    archive(online, days_before(2, 1, 0))
    (request,) = online.tick().run_requests or []
    assert online.execute(request).success
    assert days_of(online.warehouse) == days_before(1, 0)


# The second fetch of a day


def test_a_second_fetch_of_the_same_bytes_writes_publishes_and_rebuilds_nothing(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY))
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    published = Path(str(online.settings.published))
    before = published.stat()
    result = online.run(DAY, fetch=Fetch.always, automated=True)
    assert result.success
    assert len(api.requests) == 2
    assert result.get_asset_materialization_events() == []
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert published.stat() == before
    assert "still serves the response" in outcome_of(online, DAY).reason


def test_a_run_that_a_person_starts_fails_with_the_words_that_automation_records(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY - ONE_DAY))
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    said = outcome_of(online, DAY).reason
    assert "2026-10-06 is not published yet" in said
    assert failure_of(online.run(DAY, fetch=Fetch.auto)).description == said


def test_a_tick_with_nothing_to_do_reads_no_archived_file(recorded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor = recorded.tick().cursor  # reads the newest one once, after it was loaded

    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(Archive, "read", read)
    with time_machine.travel(NOON + timedelta(hours=1), tick=False):
        assert "is materialized" in str(recorded.tick(cursor).skip_reason)
