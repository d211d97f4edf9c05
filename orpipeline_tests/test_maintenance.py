from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orpipeline.contracts.tables import TABLES
from orpipeline.defs.build import build_defs
from orpipeline.defs.maintenance import KEEP, maintain
from orpipeline.errors import WarehouseBusyError
from orpipeline.settings import Settings
from orpipeline.testing import sample_tables
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.engines import EnginePlace

DAYS = 5
LAKE = "ducklake:postgres:dbname=lake host=127.0.0.1"
HOUR = timedelta(hours=1)


@pytest.fixture
def filled(lake: EnginePlace) -> Warehouse:
    """A lake with a commit for each day, and one that was loaded again."""
    warehouse = lake.open(lock_wait_seconds=0)
    frames = sample_tables(DAYS)
    days = frames["snapshots"]["as_of"].to_list()
    with warehouse.locked() as connection:  # one connection is faster than one for each commit
        for day in (*days, days[1]):
            connection.begin()
            of_day = {name: frames[name].filter(as_of=day) for name in TABLES}
            Tables(connection).replace_days([day], of_day)
            connection.commit()
    return warehouse


def all_rows(warehouse: Warehouse) -> dict[str, list[dict[str, object]]]:
    with warehouse.reading() as tables:
        return {name: tables.read(name).to_dicts() for name in TABLES}


def stored_files(lake: EnginePlace) -> int:
    return sum(path.is_file() for path in Path(str(lake.lake_data)).rglob("*.parquet"))


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.lake
def test_files_are_merged_and_no_row_changes(filled: Warehouse, lake: EnginePlace) -> None:
    before = all_rows(filled)
    first = maintain(filled, now=now())
    assert first.before.files >= 3 * DAYS
    assert first.after.files <= len(TABLES) + 1  # and the register of our tables
    assert first.after.bytes < first.before.bytes
    assert first.deleted == 0
    assert first.after.replaced >= 3 * DAYS  # queries can still read them
    assert all_rows(filled) == before

    later = maintain(filled, now=now() + KEEP + HOUR)
    assert later.after.snapshots <= 3
    assert later.after.replaced == 0
    assert stored_files(lake) == later.after.files
    assert all_rows(filled) == before


@pytest.mark.lake
def test_a_reader_goes_on_while_the_lake_is_maintained_and_a_writer_does_not(filled: Warehouse) -> None:
    count = "SELECT count(*) FROM openrouter.task_models"
    with filled.connect(read_only=True) as reader:
        reader.begin()
        ((expected,),) = reader.execute(count).fetchall()
        scan = reader.cursor().execute("SELECT * FROM lake.openrouter.task_models")
        begun = len(scan.fetchmany(1))
        maintain(filled, now=now())
        assert reader.execute(count).fetchall() == [(expected,)]
        assert begun + len(scan.fetchall()) == expected
    with filled.locked(), pytest.raises(WarehouseBusyError):
        maintain(filled, now=now())


@pytest.mark.lake
def test_the_job_creates_no_lake_and_shows_what_it_did_to_one(
    request: pytest.FixtureRequest, lake: EnginePlace, tmp_path: Path
) -> None:
    def run() -> dict[str, Any]:
        job = build_defs(lake.settings(Settings(data_dir=tmp_path))).resolve_job_def("lake_maintenance")
        events = job.execute_in_process().all_events
        (output,) = [event.step_output_data for event in events if event.is_successful_output]
        return {name: value.value for name, value in output.metadata.items()}

    assert run()["files"] == 0
    assert not lake.open().exists
    request.getfixturevalue("filled")
    shown = run()
    assert shown["files_before"] > shown["files"] > 0
    assert shown["bytes_before"] > shown["bytes"]


@pytest.mark.parametrize(
    ("prefix", "name"), [("openrouter", "lake_maintenance"), ("second", "second_lake_maintenance")]
)
def test_only_a_lake_has_the_job_and_the_schedule(tmp_path: Path, prefix: str, name: str) -> None:
    settings = Settings(data_dir=tmp_path, warehouse=LAKE)
    with_lake = build_defs(settings, key_prefix=prefix)
    schedule = with_lake.resolve_schedule_def(f"{name}_schedule")
    assert (schedule.job_name, schedule.cron_schedule) == (name, "40 3 * * 0")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    by_hand = build_defs(settings, key_prefix=prefix, automation=False)
    assert by_hand.resolve_job_def(name)
    assert not by_hand.schedules
    jobs = [job.name for job in build_defs(Settings(data_dir=tmp_path), key_prefix=prefix).jobs or []]
    assert name not in jobs
