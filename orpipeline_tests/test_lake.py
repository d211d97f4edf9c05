"""What only lakes do: turns of many writers, no primary keys, engines that are missing or answer with an error."""

from __future__ import annotations

import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import orpipeline
from orpipeline.contracts.tables import TABLES
from orpipeline.errors import NextAttempt, SettingsError
from orpipeline.export import export_tables
from orpipeline.rebuild import rebuild
from orpipeline.report.data import read_report_data
from orpipeline.settings import Settings
from orpipeline.testing import sample_answer
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.engines.extensions import LAKE_DUCKDB, extension_path
from orpipeline.warehouse.errors import (
    DuplicateRowsError,
    MissingDaysError,
    NotPublishedError,
    OutdatedLayoutError,
    WarehouseBusyError,
    WarehouseError,
    WarehouseSetupError,
)
from orpipeline.warehouse.layout import LAYOUT_VERSION
from orpipeline.warehouse.tables import Tables
from orpipeline_tests.answers import DAY
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.processes import run_python, started
from orpipeline_tests.servers import PostgresServer, free_port
from orpipeline_tests.test_warehouse import FIVE_DAYS, NEXT, assert_has, frames_of, replace
from orpipeline_tests.world import NOON, World

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
                world.store(sample_answer(day))
            assert world.run(before, DAY).success
            export_tables(world.warehouse, world.folder / "export")
        expected = {name: file.read(name) for name in TABLES}
        for name, rows in expected.items():
            published = lake_world.settings.reports / "published" / "parquet" / name  # type: ignore[operator]
            for found in (
                orpipeline.read(name),
                pl.read_parquet(published),
                pl.read_parquet(lake_world.folder / "export" / name),
            ):
                assert_frame_equal(found.select(rows.columns), rows, check_row_order=False)
        assert not list(published.parents[1].glob("*.duckdb"))
        in_lake, in_file = read_report_data(lake_world.warehouse), read_report_data(file.warehouse)
        assert_frame_equal(in_lake.leaderboard, in_file.leaderboard)
        assert (in_lake.coverage, in_lake.days) == (in_file.coverage, in_file.days)
    with lake_world.warehouse.transaction() as connection:
        connection.execute("UPDATE openrouter.task_models SET position = 99")
        connection.execute("CREATE TABLE openrouter.mine AS SELECT 1 AS mine")
    rebuilt = rebuild(lake_world.archive, lake_world.warehouse, now=NOON)
    assert {difference.table for difference in rebuilt.differences} == {"task_models"}
    assert_frame_equal(orpipeline.read("task_models"), expected["task_models"])
    assert orpipeline.read("openrouter.mine").rows() == [(1,)]


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

    lake_world.store(sample_answer(DAY))
    assert lake_world.run(DAY, extra=dg.Definitions([counted])).success
    rows = orpipeline.read("counted")
    assert rows["as_of"].to_list() == [DAY]
    lake_world.load(NEXT)
    with pytest.raises(MissingDaysError):
        lake_world.materialize([counted], partition_key=str(DAY - timedelta(days=1)))


@lake_test
def test_a_lake_of_another_layout_is_rebuilt_in_one_transaction(lake_world: World) -> None:
    lake_world.load(DAY)
    before = lake_world.read("model_leaderboard")
    with lake_world.warehouse.transaction() as connection:
        connection.execute(f"UPDATE openrouter.orpipeline_layout SET version = {LAYOUT_VERSION - 1}")
        connection.execute("ALTER TABLE openrouter.model_leaderboard DROP COLUMN usage_rank_best")
        connection.execute("ALTER TABLE openrouter.task_models ALTER COLUMN position DROP NOT NULL")
        connection.execute("CREATE OR REPLACE VIEW openrouter.model_trends AS SELECT 1 AS one")
    with lake_world.warehouse.writing() as tables:
        outdated = tables.layout.outdated()
    assert isinstance(outdated, OutdatedLayoutError)
    for reason in ("layout is", "model_leaderboard does not have usage_rank_best", "task_models has position as"):
        assert reason in outdated.reason
    rebuilt = rebuild(lake_world.archive, lake_world.warehouse, now=NOON)
    assert (rebuilt.days, rebuilt.reason) == ([DAY], outdated.reason)
    assert_frame_equal(lake_world.read("model_leaderboard"), before)
    with lake_world.warehouse.writing() as tables:
        assert (tables.layout.outdated(), tables.layout.outdated_views()) == (None, [])


@lake_test
def test_a_missing_lake_is_rebuilt_completely_and_has_nothing_to_read_before(lake_world: World) -> None:
    with pytest.raises(NotPublishedError, match="There is no warehouse"):
        orpipeline.read("snapshots")
    assert rebuild(lake_world.archive, lake_world.warehouse, now=NOON).days == []
    for day in (DAY, NEXT):
        lake_world.store(sample_answer(day))
    rebuilt = rebuild(lake_world.archive, lake_world.warehouse, now=NOON + timedelta(days=1), since=NEXT)
    assert rebuilt.days == [DAY, NEXT]
    assert "does not exist" in (rebuilt.reason or "")


# Writers take turns


_WRITE = """
import sys
from pathlib import Path
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.test_warehouse import FIVE_DAYS, frames_of, replace
warehouse = Warehouse(sys.argv[1], lake_data=Path(sys.argv[2]))
for day in FIVE_DAYS[int(sys.argv[3])::3]:
    replace(warehouse, frames_of(day), day)
"""
_HOLD = """
import sys
from pathlib import Path
from orpipeline.warehouse.database import Warehouse
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
def test_a_waiting_writer_names_the_holder_and_goes_on_when_that_is_killed(filled: Warehouse) -> None:
    with started(_HOLD, filled.place, filled.lake_data) as holder:
        impatient = EnginePlace(filled.place, filled.lake_data).open(lock_wait_seconds=0.2)
        with pytest.raises(WarehouseBusyError, match=rf"locked by orpipeline on .* \(PID {holder.pid}\)"):
            impatient.publish()
        assert_has(filled, frames_of(DAY))  # readers do not wait
        waiting = threading.Thread(target=replace, args=[filled, frames_of(DAY), DAY])
        waiting.start()
        os.kill(holder.pid, signal.SIGKILL)
        waiting.join(timeout=30)
        assert not waiting.is_alive()
    assert_has(filled, frames_of(DAY))  # and nothing of the killed one's


@lake_test
def test_a_write_whose_lock_is_lost_is_rolled_back(filled: Warehouse, postgres_server: PostgresServer) -> None:
    def lose_it() -> None:
        with filled.writing() as tables:
            tables.replace_days([NEXT], frames_of(NEXT))
            postgres_server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE application_name LIKE 'orpipeline%' AND application_name LIKE '%(PID {os.getpid()})'"
            )

    with pytest.raises(WarehouseError, match="nothing was changed"):
        lose_it()
    assert_has(filled, frames_of(DAY))


# No primary keys


@lake_test
def test_rows_with_the_same_key_are_never_committed(filled: Warehouse) -> None:
    def write_twice() -> None:
        with filled.transaction() as connection:
            tables = Tables(connection, "openrouter")
            tables.replace_days([NEXT], frames_of(NEXT))
            connection.execute("INSERT INTO openrouter.task_models FROM openrouter.task_models WHERE as_of = ?", [NEXT])
            tables.require_unique_keys()

    with pytest.raises(DuplicateRowsError, match=rf"task_models .* several rows of {NEXT} with the same key"):
        write_twice()
    assert_has(filled, frames_of(DAY))


@lake_test
def test_rows_doubled_by_another_program_fail_loudly_after_the_commit(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Tables.require_unique_keys

    def double_before_the_last_check(tables: Tables, *, committed: bool = False) -> None:
        if committed:
            with filled.connect() as other:  # without orpipeline's lock
                other.execute("INSERT INTO openrouter.snapshots FROM openrouter.snapshots")
        check(tables, committed=committed)

    monkeypatch.setattr(Tables, "require_unique_keys", double_before_the_last_check)
    with pytest.raises(DuplicateRowsError, match="Run `orpipeline rebuild`"):
        replace(filled, frames_of(DAY), DAY)


@lake_test
def test_time_travel_shows_a_day_before_it_was_restated(filled: Warehouse) -> None:
    with filled.connect(read_only=True) as connection:
        ((version,),) = connection.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchall()
    replace(filled, {name: frame.clear() for name, frame in frames_of(DAY).items()}, DAY)
    assert filled.days() == []
    with filled.connect(read_only=True) as connection:
        old = connection.execute(f"SELECT as_of FROM openrouter.snapshots AT (VERSION => {version})").fetchall()
    assert old == [(DAY,)]


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
        ("s3://no-such-bucket/lake", "exists and that you can write to it"),
        ("gs://bucket/lake", "AWS_ENDPOINT_URL=https://storage.googleapis.com"),
        ("az://container/lake", "cannot keep its files in az://"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_place_that_a_lake_cannot_use_is_one_clear_line(lake: EnginePlace, data: str, reason: str) -> None:
    error = assert_is_a_line(lambda: replace(replaced(lake, lake_data=data).open(), frames_of(DAY), DAY), reason)
    assert isinstance(error, WarehouseSetupError)


# What a person has to correct


def assert_is_a_line(action: Callable[[], object], reason: str, *secrets: str) -> WarehouseError:
    """Fail unless an action raises a warehouse's error of one line with the reason and without the secrets."""
    with pytest.raises(WarehouseError) as raised:
        action()
    message = str(raised.value)
    assert reason in message
    assert "\n" not in message
    for secret in secrets:
        assert secret not in message
    return raised.value


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
    error = assert_is_a_line(place.open().days, "Set PGPASSWORD or PGPASSFILE", "wrong-horse", "correct-horse")
    assert error.next_attempt is NextAttempt.NEEDS_PERSON


@lake_test
def test_a_database_or_server_that_is_not_there_is_a_clear_line(
    lake: EnginePlace, postgres_server: PostgresServer
) -> None:
    missing = replaced(lake, warehouse=postgres_server.lake("no_such_database")).open()
    error = assert_is_a_line(missing.days, '"no_such_database" does not exist')
    assert error.next_attempt is NextAttempt.NEEDS_PERSON
    silent = replaced(lake, warehouse=f"ducklake:postgres:dbname=x host=127.0.0.1 port={free_port()}").open()
    assert assert_is_a_line(silent.publish, "refused").next_attempt is NextAttempt.TRANSIENT


@lake_test
def test_a_lake_of_another_version_or_with_other_files_is_a_clear_line(
    filled: Warehouse, lake: EnginePlace, postgres_server: PostgresServer, database: str, tmp_path: Path
) -> None:
    elsewhere = replaced(lake, lake_data=tmp_path / "elsewhere").open()
    assert_is_a_line(elsewhere.days, f"keeps its files in {lake.lake_data}/")
    postgres_server.sql("UPDATE ducklake_metadata SET value = '9.7' WHERE key = 'version'", database)
    error = assert_is_a_line(filled.publish, "has version 9.7 of DuckLake's catalog")
    assert isinstance(error, WarehouseSetupError)
    postgres_server.sql("UPDATE ducklake_metadata SET value = '1.0' WHERE key = 'version'", database)
    for file in Path(str(lake.lake_data)).rglob("*.parquet"):
        file.unlink()
    assert_is_a_line(lambda: filled.read("task_models"), "lacks files")


@lake_test
def test_a_folder_that_cannot_be_created_is_a_clear_line(lake: EnginePlace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_is_a_line(replaced(lake, lake_data=tmp_path / "file" / "lake").open().publish, "ORPIPELINE_LAKE_DATA")


@pytest.mark.skipif(extension_path("ducklake") is not None, reason="the extra `lake` is installed")
def test_without_the_extra_the_line_names_it(tmp_path: Path) -> None:
    place = EnginePlace("ducklake:postgres:dbname=x host=db.example", tmp_path / "lake")
    error = assert_is_a_line(place.open().days, "Install `orpipeline[lake]`")
    assert isinstance(error, WarehouseSetupError)


def test_the_line_names_the_duckdb_of_the_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"duckdb=={LAKE_DUCKDB}" in project["optional-dependencies"]["lake"]


def test_motherduck_needs_its_extension_and_token() -> None:
    assert_is_a_line(Warehouse("md:market").days, "needs DuckDB's extension motherduck")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lake_data": "/srv/lake"}, "is not a lake"),
        ({"warehouse": "md:"}, "must name a database"),
        ({"warehouse": "ducklake:postgres:host=x password=hunter2"}, "must not contain a password"),
        ({"warehouse": "ducklake:postgres:host=x sslpassword=hunter2"}, "must not contain a password"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as raised:
        Settings(data_dir="/srv/data", **settings)  # type: ignore[arg-type] # one of them
    assert "hunter2" not in str(raised.value)


def test_a_new_file_can_be_read_by_the_duckdb_of_the_lake(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    replace(warehouse, {})
    with duckdb.connect(warehouse.path, read_only=True) as connection:
        ((tags,),) = connection.execute("SELECT tags FROM duckdb_databases() WHERE path IS NOT NULL").fetchall()
    assert tags["storage_version"] == "v1.5.0+"
