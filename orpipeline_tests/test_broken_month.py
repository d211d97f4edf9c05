"""A month in which parts of one of two pipelines on one machine break: no day is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine
from sqlalchemy.exc import DatabaseError

from orpipeline.cli.daily import fetch_dataset
from orpipeline.clock import newest_completed_day
from orpipeline.errors import DamagedWarehouseError, OrpipelineError
from orpipeline.openrouter.response import CLASSIFICATIONS
from orpipeline.testing import LocalApi, Reply
from orpipeline_tests.imports import run_job
from orpipeline_tests.test_month import (
    DAY,
    DAYS,
    START,
    Daemon,
    Event,
    Unreliable,
    assert_no_day_is_lost,
    assert_no_request_is_too_early,
    clock,
    idle,
    live,
)
from orpipeline_tests.world import World, days_of, local

__all__ = ["clock", "idle"]  # fixtures

pytestmark = pytest.mark.promise

DAMAGED = b"damaged" * 1000


@dataclass
class Misfortune:
    """What happens to one pipeline in the second month, and what its owner does about it."""

    daemon: Daemon
    tmp_path: Path
    fresh: dg.DagsterInstance
    """Dagster's state after the owner has moved the damaged one away."""

    def events(self) -> Iterator[Event]:
        hour = timedelta(hours=1)
        for n in range(0, 24 * DAYS, 3):  # cron as a backup fetch; every hour would triple the test's time
            yield START + n * hour + timedelta(minutes=45), self.fetch
        yield START + 7 * DAY + 5 * hour, self.move_to_disk
        yield START + 8 * DAY + 6 * hour, self.break_dagsters_state
        yield START + 10 * DAY + 9 * hour, self.replace_dagsters_state
        yield START + 12 * DAY + 15 * hour, self.flip_an_archived_file
        yield START + 16 * DAY + 3 * hour, self.break_the_warehouse
        yield START + 17 * DAY + 9 * hour, self.find_the_warehouse_healed

    def fetch(self, now: datetime) -> None:
        with suppress(OrpipelineError):
            fetch_dataset(self.daemon.world.settings, newest_completed_day(now), "auto", CLASSIFICATIONS)

    def move_to_disk(self, _: datetime) -> None:
        """Keep Dagster's state in files from now on. A whole month on disk would be slow."""
        home = self.tmp_path / "home"
        home.mkdir()
        self.use(dg.DagsterInstance.local_temp(str(home)))

    def break_dagsters_state(self, _: datetime) -> None:
        for database in (self.tmp_path / "home").rglob("*.db*"):
            database.write_bytes(DAMAGED)
        with pytest.raises(DatabaseError):
            self.daemon.world.tick(None)
        self.daemon.broken = True

    def replace_dagsters_state(self, _: datetime) -> None:
        self.use(self.fresh)
        self.daemon.broken = False

    def flip_an_archived_file(self, now: datetime) -> None:
        newest = self.daemon.world.archive.latest(newest_completed_day(now))
        assert newest is not None
        content = bytearray(local(newest.path).read_bytes())
        content[len(content) // 2] ^= 0xFF
        local(newest.path).write_bytes(content)

    def break_the_warehouse(self, _: datetime) -> None:
        local(self.daemon.world.settings.warehouse).write_bytes(DAMAGED)
        with pytest.raises(DamagedWarehouseError):
            self.daemon.world.tables()

    def find_the_warehouse_healed(self, _: datetime) -> None:
        """The next run has set the damaged file aside, and has loaded every archived day into a new one."""
        world = self.daemon.world
        warehouse = local(world.settings.warehouse)
        (aside,) = warehouse.parent.glob(f"{warehouse.name}.damaged-*")
        assert aside.read_bytes() == DAMAGED
        assert set(days_of(world.warehouse)) >= set(world.archive.days()[:-1])

    def use(self, instance: dg.DagsterInstance) -> None:
        """Continue with an empty state of Dagster, and record the archived days in it, as the message advises."""
        old = self.daemon.world
        self.daemon.world = World(old.folder, api=old.api, instance=instance, state=local(old.settings.state))
        assert run_job(self.daemon.world, local(old.settings.archive)).result.success
        self.daemon.cursor = None
        self.daemon.keys.clear()


@pytest.mark.slow
def test_no_day_is_lost_in_a_month_in_which_parts_of_one_of_two_pipelines_break(
    online: World, api: LocalApi, clock: time_machine.Traveller, idle: dg.DagsterInstance, tmp_path: Path
) -> None:
    openrouter = Unreliable(seed=20261002)
    api.serve(Reply(act=openrouter.reply))
    with dg.DagsterInstance.ephemeral() as second, dg.DagsterInstance.ephemeral() as fresh:
        worlds = [
            World(tmp_path / name, api=api, instance=instance, state=tmp_path / "state")
            for name, instance in (("lucky", online.instance), ("unlucky", second))
        ]
        lucky, unlucky = (Daemon(world, idle) for world in worlds)
        live(clock, [lucky, unlucky], Misfortune(unlucky, tmp_path, fresh).events())
        for daemon in (lucky, unlucky):
            assert_no_day_is_lost(daemon.world)
    assert_no_request_is_too_early(openrouter)
