"""The sensor loads days that are archived but not in the tables, as after an outage of the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.defs.backoff import BACKLOG_DAYS, LOADS_AT_ONCE
from orpipeline.testing import LocalApi, sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON, World, days_of, queued_run

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


def add_failed_run(world: World, day: date) -> None:
    """Add a run that failed now, for a reason that may pass."""
    run = dg.DagsterRun(
        "daily_snapshot",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": day.isoformat()},
    )
    world.instance.add_run(run)
    world.instance.report_run_failed(run)


def test_after_an_outage_of_several_days_every_archived_day_is_loaded_without_calling_the_api(
    online: World, api: LocalApi
) -> None:
    days = days_before(3, 2, 1, 0)
    archive(online, days)
    cursor, loaded = None, []
    for _ in range(4):
        tick = online.tick(cursor)
        again = online.tick(cursor)
        assert [one.run_key for one in again.run_requests or []] == [one.run_key for one in tick.run_requests or []]
        for request in tick.run_requests or []:
            assert online.execute(request).success
            loaded.append(date.fromisoformat(request.partition_key or ""))
        cursor = tick.cursor
    assert loaded == [days[-1], *days[:-1]]  # the newest first: it could be fetched again
    assert days_of(online.warehouse) == days
    assert api.requests == []


@pytest.mark.slow
def test_a_rejected_day_is_loaded_once_more_only_with_another_response(
    recorded: World, clock: time_machine.Traveller
) -> None:
    rejected, valid = days_before(2, 1)
    recorded.store(sample_response(rejected, change=lambda data: data.update(window_days=1)))
    archive(recorded, [valid])
    tick = recorded.tick()
    assert requested(tick) == [rejected, valid]
    assert [recorded.execute(request).success for request in tick.run_requests or []] == [False, True]
    for minutes in (30, 600, 6000):
        clock.move_to(NOON + minutes * MINUTE)
        assert rejected not in requested(recorded.tick())
    clock.move_to(NOON + MINUTE)
    recorded.store(sample_response(rejected), fetched_at=NOON + MINUTE)
    (request,) = recorded.tick().run_requests or []
    assert request.partition_key == rejected.isoformat()
    assert recorded.execute(request).success


@pytest.mark.slow
def test_a_restated_response_that_was_archived_but_not_loaded_is_loaded(online: World) -> None:
    (day,) = days_before(1)
    archive(online, [day, DAY])
    assert online.run(day, DAY).success
    online.store(
        sample_response(day, change=lambda data: data["classifications"][0].update(display_name="Restated")),
        fetched_at=NOON,
    )
    assert requested(online.tick()) == []  # no run has failed since
    add_failed_run(online, day)
    with time_machine.travel(NOON + MINUTE, tick=False):
        (request,) = online.tick().run_requests or []
        assert online.execute(request).success
        assert requested(online.tick()) == []
    assert online.warehouse.read("snapshots").filter(as_of=day)["revision"].to_list() == [2]


@pytest.mark.slow
def test_a_damaged_day_waits_until_it_is_restored(recorded: World, clock: time_machine.Traveller) -> None:
    (day,) = days_before(1)
    path = Path(recorded.store(sample_response(day)).revision.path)
    intact = path.read_bytes()
    path.write_bytes(b"damaged")
    (request,) = recorded.tick().run_requests or []
    assert not recorded.execute(request).success
    clock.move_to(NOON + 600 * MINUTE)
    assert requested(recorded.tick()) == []
    path.write_bytes(intact)
    assert requested(recorded.tick()) == [day]


@pytest.mark.slow
def test_while_the_database_is_away_one_day_is_tried_at_a_time_and_then_all_are_loaded(
    recorded: World, clock: time_machine.Traveller
) -> None:
    days = days_before(2, 1)
    archive(recorded, days)
    warehouse = Path(str(recorded.settings.warehouse))
    warehouse.rename(warehouse.with_name("away"))
    warehouse.mkdir()
    for request in recorded.tick().run_requests or []:
        assert not recorded.execute(request).success
    for minutes, expected in ((1, []), (2, days[:1]), (6, []), (7, days[1:]), (16, []), (17, days[:1])):
        clock.move_to(NOON + minutes * MINUTE)
        assert requested(recorded.tick()) == expected
        for day in expected:
            add_failed_run(recorded, day)
    warehouse.rmdir()
    warehouse.with_name("away").rename(warehouse)
    clock.move_to(NOON + 37 * MINUTE)
    for _ in days:
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


def test_it_loads_few_days_at_once_of_the_last_month_and_looks_every_ten_minutes(
    recorded: World, clock: time_machine.Traveller
) -> None:
    looked = recorded.tick()
    assert requested(looked) == []
    archive(recorded, days_before(BACKLOG_DAYS + 1, *range(BACKLOG_DAYS, BACKLOG_DAYS - 8, -1)))
    clock.move_to(NOON + 9 * MINUTE)
    assert requested(recorded.tick(looked.cursor)) == []
    clock.move_to(NOON + 10 * MINUTE)
    assert requested(recorded.tick(looked.cursor)) == days_before(
        *range(BACKLOG_DAYS, BACKLOG_DAYS - LOADS_AT_ONCE, -1)
    )


def test_days_before_the_first_partition_are_left_alone(online: World) -> None:
    online.settings = online.settings.model_copy(update={"start_date": DAY - ONE_DAY})
    archive(online, days_before(2, 1, 0))
    assert requested(online.tick()) == [DAY]
    assert online.run(DAY).success
    assert requested(online.tick()) == days_before(1)
