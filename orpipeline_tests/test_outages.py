"""A week in which the object store and the database disappear, each for longer than the API serves a day.

The archive and the lake's files are on a real S3 server, the lake's catalog in a real Postgres. The clock is the
test's. Dagster's daemon is played by `Daemon`: it evaluates the schedules and, every 4 hours, the sensor; in an
outage every 8 hours, because each attempt takes seconds then.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.contracts.tables import TABLES
from orpipeline.testing import LocalApi, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.servers import Gate, PostgresServer, S3Server
from orpipeline_tests.test_month import SCHEDULES, Daemon
from orpipeline_tests.world import ASSETS, World

pytestmark = pytest.mark.promise

START = datetime(2026, 10, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DAYS = 7
STORE_OUTAGE = (DAY + 10 * timedelta(minutes=1), 2 * DAY + 7 * HOUR)
DATABASE_OUTAGE = (3 * DAY + 10 * timedelta(minutes=1), 5 * DAY + 4 * HOUR)


def _moments() -> list[tuple[timedelta, str]]:
    """Return what happens in the week, in order: a schedule by its name, a sensor's tick, and the outages."""
    days = [n * DAY for n in range(DAYS)]
    ticks = [HOUR / 2 + n * HOUR for n in range(0, 24 * DAYS, 4)]
    return sorted(
        [
            *((day + at, name) for day in days for name, at in SCHEDULES.items()),
            *((at, "tick") for at in ticks if at.seconds // 3600 % 8 == 0 or not _in_an_outage(at)),
            *zip(STORE_OUTAGE, ("the store disappears", "the store returns"), strict=True),
            *zip(DATABASE_OUTAGE, ("the database disappears", "the database returns"), strict=True),
        ]
    )


def _in_an_outage(at: timedelta) -> bool:
    return any(start < at < end for start, end in (STORE_OUTAGE, DATABASE_OUTAGE))


@pytest.mark.slow
@pytest.mark.lake
def test_no_day_is_lost_or_doubled_in_a_week_in_which_store_and_database_disappear(
    tmp_path: Path,
    api: LocalApi,
    postgres_server: PostgresServer,
    lake: EnginePlace,
    s3_server: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "idle").mkdir()
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with (
        Gate(s3_server.port) as gate,
        World(tmp_path / "data", api=api) as world,
        dg.DagsterInstance.local_temp(str(tmp_path / "idle")) as idle,
        time_machine.travel(START, tick=False) as clock,
    ):
        for name, value in s3_server.environment(gate.url).items():
            monkeypatch.setenv(name, value)
        places = {
            "archive": f"{bucket}/raw",
            "warehouse": lake.warehouse,
            "lake_data": f"{bucket}/lake",
            "reports": f"{bucket}/reports",
        }
        world.settings = type(world.settings)(**{**world.settings.model_dump(exclude={"published"}), **places})
        daemon = Daemon(world, idle)
        events = {
            "the store disappears": gate.close,
            "the store returns": gate.open,
            "the database disappears": postgres_server.stop,
            "the database returns": postgres_server.start,
        }
        for after, what in _moments():
            now = START + after
            clock.move_to(now)
            if what in events:
                events[what]()
            elif what == "tick":
                daemon.tick(now)
            else:
                daemon.evaluate(what, now)
        print(daemon.runs, len(api.requests))
        _assert_every_day_is_there_once(world)
        assert len(api.requests) <= DAYS * 4


def _assert_every_day_is_there_once(world: World) -> None:
    days = [(START + (n - 1) * DAY).date() for n in range(DAYS)]
    for asset in ASSETS:
        assert world.materialized(asset) == {day.isoformat() for day in days}
    archive = world.archive
    assert archive.days() == days
    for day in days:
        (revision,) = archive.revisions(day)
        assert archive.read(revision).body == sample_response(day)
        assert revision.fetched_at is not None
        assert _noon(day) <= revision.fetched_at <= _noon(day) + 2 * DAY
    for name, rows in world.tables().items():
        key = TABLES[name].primary_key()
        keys = [tuple(row[column] for column in key) for row in rows]
        assert sorted({row["as_of"] for row in rows}) == days
        assert len(keys) == len(set(keys))


def _noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)
