"""What only lakes do: turns of many writers, no primary keys, extensions that are missing or fail."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import orpipeline
from orpipeline.contracts.tables import EXPORTED
from orpipeline.errors import MissingDaysError, NextAttempt, NotPublishedError, WarehouseBusyError, WarehouseError
from orpipeline.load import Rebuilt, load_days, rebuild
from orpipeline.report.data import read_report_data
from orpipeline.testing import sample_response
from orpipeline.warehouse.ducklake import extension_file
from orpipeline.warehouse.schema import REGISTER
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.processes import run_python, started
from orpipeline_tests.responses import DAY
from orpipeline_tests.servers import PostgresServer
from orpipeline_tests.test_warehouse import FIVE_DAYS, NEXT, assert_has, frames_of, replace
from orpipeline_tests.world import NOON, World, days_of, local, publish

lake_test = pytest.mark.lake


@pytest.fixture
def filled(lake: EnginePlace) -> Warehouse:
    """A lake with one day."""
    warehouse = lake.open()
    replace(warehouse, frames_of(DAY), DAY)
    return warehouse


@pytest.fixture
def lake_world(world: World, lake: EnginePlace, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pipeline whose warehouse is a lake, also for the environment."""
    world.settings = lake.settings(world.settings)
    monkeypatch.setenv("ORPIPELINE_WAREHOUSE", str(lake.warehouse))
    monkeypatch.setenv("ORPIPELINE_LAKE_DATA", str(lake.lake_data))
    return world


# The whole pipeline


@lake_test
@pytest.mark.usefixtures("at_noon")
def test_the_whole_pipeline_has_the_same_rows_as_with_a_file(lake_world: World, tmp_path: Path) -> None:
    before = DAY - timedelta(days=1)
    with World(tmp_path / "file") as file:
        for world in (lake_world, file):
            for day in (before, DAY):
                world.store(sample_response(day))
            assert world.run(before, DAY).success
        published = lake_world.folder / "reports" / "published"
        for name in EXPORTED:
            rows = file.warehouse.read(name)
            assert_frame_equal(orpipeline.read(name), rows)
            assert_frame_equal(pl.read_parquet(published / "parquet" / f"{name}.parquet"), rows)
        assert not list(published.glob("*.duckdb"))
        with lake_world.warehouse.reading() as lake_tables, file.warehouse.reading() as file_tables:
            in_lake, in_file = read_report_data(lake_tables), read_report_data(file_tables)
        assert_frame_equal(in_lake.models, in_file.models)
        assert (in_lake.coverage, in_lake.days) == (in_file.coverage, in_file.days)


@lake_test
@pytest.mark.usefixtures("at_noon")
def test_your_assets_read_and_write_the_lake_and_miss_a_day_that_it_lacks(lake_world: World) -> None:
    @dg.asset(
        partitions_def=orpipeline.daily_partitions(),
        ins={"models": dg.AssetIn(orpipeline.asset_key("task_models"))},
        io_manager_key="openrouter_io_manager",
        metadata={"partition_expr": "as_of"},
    )
    def counted(models: pl.DataFrame) -> pl.DataFrame:
        return models.group_by("as_of").len()

    lake_world.store(sample_response(DAY))
    assert lake_world.run(DAY, extra=dg.Definitions([counted])).success
    rows = orpipeline.read("public.counted")
    assert rows["as_of"].to_list() == [DAY]
    lake_world.load(NEXT)
    with pytest.raises(MissingDaysError):
        lake_world.materialize([counted], partition_key=str(DAY - timedelta(days=1)))


@lake_test
def test_tables_of_another_version_are_loaded_again_and_a_missing_lake_has_nothing_to_read(
    lake_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotPublishedError, match="There is no warehouse"):
        orpipeline.read("snapshots")
    assert rebuild(lake_world.archive, lake_world.warehouse, now=NOON) == Rebuilt()
    assert not lake_world.warehouse.exists
    lake_world.load(DAY, NEXT)
    before = lake_world.tables()
    with lake_world.warehouse.transaction() as connection:
        connection.execute(f"UPDATE openrouter.{REGISTER} SET declared = 'older'")
        connection.execute("ALTER TABLE openrouter.model_leaderboard DROP COLUMN usage_rank_best")
        connection.execute("CREATE TABLE openrouter.mine AS SELECT 1 AS mine")
    load_days(lake_world.archive, lake_world.warehouse, [NEXT], now=NOON)
    assert "2 days were loaded from the archive again." in caplog.text
    assert lake_world.tables() == before
    assert rebuild(lake_world.archive, lake_world.warehouse, now=NOON) == Rebuilt(days=[DAY, NEXT])
    assert lake_world.tables() == before
    assert orpipeline.read("openrouter.mine").rows() == [(1,)]


# Writers take turns


_WRITE = """
import sys
from pathlib import Path
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.test_warehouse import FIVE_DAYS, frames_of, replace
warehouse = Warehouse(sys.argv[1], lake_data=Path(sys.argv[2]))
for day in FIVE_DAYS[int(sys.argv[3])::3]:
    replace(warehouse, frames_of(day), day)
"""
_HOLD = """
import sys
from pathlib import Path
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.test_warehouse import NEXT, frames_of
with Warehouse(sys.argv[1], lake_data=Path(sys.argv[2])).writing() as tables:
    tables.replace_days([NEXT], frames_of(NEXT))
    print("open", flush=True)
    sys.stdin.read()
"""


@lake_test
def test_three_processes_write_different_days_at_once(lake: EnginePlace) -> None:
    failed: list[AssertionError] = []

    def write(number: int) -> None:
        try:
            run_python(_WRITE, lake.warehouse, lake.lake_data, number)
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert_has(lake.open(), frames_of(*FIVE_DAYS))


@lake_test
def test_a_waiting_writer_names_the_holder_and_goes_on_when_that_is_killed(
    filled: Warehouse, lake: EnginePlace
) -> None:
    with started(_HOLD, lake.warehouse, lake.lake_data) as holder:
        with pytest.raises(WarehouseBusyError, match=rf"locked by orpipeline on .* \(PID {holder.pid}\)"):
            publish(lake.open(lock_wait_seconds=0.2))
        assert_has(filled, frames_of(DAY))  # readers do not wait
        waiting = threading.Thread(target=replace, args=[filled, frames_of(DAY), DAY])
        waiting.start()
        os.kill(holder.pid, signal.SIGKILL)
        waiting.join(timeout=30)
        assert not waiting.is_alive()
    assert_has(filled, frames_of(DAY))  # and nothing of the killed one's


@lake_test
@pytest.mark.parametrize("day", [DAY, NEXT])
def test_a_writer_that_lost_its_lock_does_not_commit_beside_another_one(
    filled: Warehouse, postgres_server: PostgresServer, day: date
) -> None:
    """A lake has no primary keys: two commits of a day would double its rows."""

    def lose_it() -> None:
        with filled.writing() as tables:
            tables.replace_days([DAY], frames_of(DAY))
            postgres_server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE application_name LIKE 'orpipeline%' AND application_name LIKE '%(PID {os.getpid()})'"
            )
            replace(filled, frames_of(day), day)

    with pytest.raises(WarehouseError, match="its tables are unchanged"):
        lose_it()
    assert_has(filled, frames_of(DAY, day))


# Files in an object store


@lake_test
def test_a_lake_keeps_its_files_in_an_object_store(lake: EnginePlace, bucket: str) -> None:
    place = replaced(lake, lake_data=f"{bucket}/lake")
    warehouse = place.open()
    replace(warehouse, frames_of(DAY), DAY)
    assert_has(place.open(), frames_of(DAY))
    with warehouse.connect(read_only=True) as connection:
        files = connection.execute("FROM ducklake_list_files('lake', 'task_models', schema => 'openrouter')").fetchall()
        secrets = connection.execute("SELECT persistent, secret_string FROM duckdb_secrets()").fetchall()
    assert files[0][0].startswith(f"{bucket}/lake/")
    assert [persistent for persistent, _ in secrets] == [False]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(secrets)


@lake_test
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("gs://bucket/lake", "Set ORPIPELINE_LAKE_DATA to a folder or s3://"),
        ("az://container/lake", "cannot keep its files in az://"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_place_that_a_lake_cannot_use_is_one_clear_line(lake: EnginePlace, data: str, reason: str) -> None:
    assert_needs_a_person(partial(publish, replaced(lake, lake_data=data).open()), reason)


# What a person has to correct


def assert_needs_a_person(action: Callable[[], object], reason: str) -> None:
    """Fail unless an action raises an error of one line with the reason and without a password."""
    with pytest.raises(WarehouseError) as raised:
        action()
    message = str(raised.value)
    assert reason in message
    assert "\n" not in message
    assert "horse" not in message
    assert raised.value.next_attempt is NextAttempt.NEEDS_PERSON


@pytest.fixture
def locked_out(postgres_server: PostgresServer) -> Iterator[str]:
    """A user of Postgres that needs a password."""
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{before}")
    postgres_server.sql("DROP ROLE IF EXISTS careful")
    postgres_server.sql("CREATE ROLE careful LOGIN SUPERUSER PASSWORD 'correct-horse'")
    postgres_server.sql("SELECT pg_reload_conf()")
    yield "careful"
    rules.write_text(before)
    postgres_server.sql("SELECT pg_reload_conf()")


@lake_test
def test_a_password_comes_from_the_environment_and_a_wrong_one_is_a_clear_line(
    lake: EnginePlace, locked_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replaced(lake, warehouse=str(lake.warehouse).replace("user=postgres", f"user={locked_out}"))
    monkeypatch.setenv("PGPASSWORD", "correct-horse")
    replace(place.open(), frames_of(DAY), DAY)
    monkeypatch.setenv("PGPASSWORD", "wrong-horse")
    assert_needs_a_person(partial(days_of, place.open()), "the user's password (PGPASSWORD or PGPASSFILE)")


@lake_test
def test_a_lake_of_another_version_or_with_other_files_is_a_clear_line(
    filled: Warehouse, lake: EnginePlace, postgres_server: PostgresServer, database: str, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseError, match=f'does not match existing data path in the catalog "{lake.lake_data}/"'):
        days_of(replaced(lake, lake_data=tmp_path / "elsewhere").open())
    postgres_server.sql("UPDATE ducklake_metadata SET value = '9.7' WHERE key = 'version'", database)
    with pytest.raises(WarehouseError, match=r"version.*9\.7"):
        publish(filled)
    postgres_server.sql("UPDATE ducklake_metadata SET value = '1.0' WHERE key = 'version'", database)
    for file in Path(str(lake.lake_data)).rglob("*.parquet"):
        file.unlink()
    assert_needs_a_person(lambda: filled.read("task_models"), "lacks files")


@pytest.mark.skipif(extension_file("ducklake") is not None, reason="the extra `lake` is installed")
def test_without_the_extra_the_line_names_it(tmp_path: Path) -> None:
    place = EnginePlace("ducklake:postgres:dbname=x host=db.example", tmp_path / "lake")
    assert_needs_a_person(partial(days_of, place.open()), "Install `orpipeline[lake]`")


def test_a_new_file_can_be_read_by_the_duckdb_of_the_lake(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    replace(warehouse, {})
    with duckdb.connect(local(warehouse.place), read_only=True) as connection:
        ((tags,),) = connection.execute("SELECT tags FROM duckdb_databases() WHERE path IS NOT NULL").fetchall()
    assert tags["storage_version"] == "v1.5.0+"
