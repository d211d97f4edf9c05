from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import polars.selectors as cs
import pytest

from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.migration import MigrationError, migrate
from orpipeline.testing import sample_tables
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import LayoutError, WarehouseBusyError
from orpipeline.warehouse.tables import Tables
from orpipeline_tests.commands import run_command
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.processes import held_open, started

DAYS = 4
# Values that an engine could change: types within types, NULL, zones, fractions, and names that need quotes.
OWN = """
CREATE SCHEMA "my own";
CREATE TABLE "my own"."two words" (
    id INTEGER PRIMARY KEY, seen TIMESTAMP WITH TIME ZONE, parts STRUCT(a DECIMAL(20, 5), b VARCHAR[])[], notes JSON
);
INSERT INTO "my own"."two words" VALUES
    (1, '2026-10-06 23:59:59.999999+00', [{a: 0.00001, b: ['ä', NULL]}, NULL], '{"x": [1]}'), (2, NULL, [], NULL);
COMMENT ON TABLE "my own"."two words" IS 'mine';
CREATE TABLE main.twice AS SELECT unnest([0.1, 0.1, NULL, 'nan'::DOUBLE]) AS x;
CREATE VIEW main.later AS SELECT id FROM "my own"."two words";
CREATE VIEW main.earlier AS SELECT * FROM later JOIN openrouter.snapshots ON true;
"""
OWN_QUERIES = (
    """FROM "my own"."two words" ORDER BY ALL""",
    "SELECT x::VARCHAR FROM main.twice ORDER BY ALL",
    "FROM main.earlier ORDER BY ALL",
)
CHANGES = (
    "DELETE FROM openrouter.task_models WHERE as_of = '2026-10-06' AND position = 1",
    "UPDATE openrouter.task_models SET tag_usage_share = tag_usage_share + 1e-12 WHERE position = 1",
    "INSERT INTO main.twice VALUES (0.1)",
    "ALTER TABLE main.twice ALTER x TYPE FLOAT",
    "DROP TABLE main.twice; CREATE VIEW main.twice AS SELECT 1 AS x",
    'CREATE OR REPLACE VIEW main.later AS SELECT id + 1 AS id FROM "my own"."two words"',
)
_MIGRATE = """
import os, signal, sys
from pathlib import Path
from orpipeline.migration import migrate
from orpipeline.warehouse.database import Warehouse
done = 0
def stop(_):
    global done
    done += 1
    if done == 4:
        print("open", flush=True)
        sys.stdin.read()
file, place, data = sys.argv[1:]
target = Warehouse(place, lake_data=Path(data)) if place.startswith("ducklake:") else Warehouse(Path(place))
migrate(Warehouse(Path(file)), target, on_progress=stop)
"""


@pytest.fixture
def source(tmp_path: Path) -> Warehouse:
    """A DuckDB file with days of the pipeline, and tables and views of a user."""
    warehouse = Warehouse(tmp_path / "source.duckdb", lock_wait_seconds=0)
    load(warehouse, sample_tables(DAYS))
    with warehouse.transaction() as connection:
        connection.execute(OWN)
    return warehouse


@pytest.fixture(params=["file", pytest.param("lake", marks=pytest.mark.lake)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """An empty place of each engine."""
    if request.param == "file":
        return Warehouse(tmp_path / "target.duckdb", lock_wait_seconds=0)
    place: EnginePlace = request.getfixturevalue("lake")
    return place.open(lock_wait_seconds=0)


def load(warehouse: Warehouse, frames: dict[str, pl.DataFrame]) -> None:
    with warehouse.writing() as tables:
        tables.replace_days(frames["snapshots"]["as_of"].to_list(), {name: frames[name] for name in TABLES})


def rows(warehouse: Warehouse, *queries: str) -> list[Sequence[Any]]:
    with warehouse.connect(read_only=True) as connection:
        return [row for query in queries for row in connection.execute(query).fetchall()]


def contents(warehouse: Warehouse) -> list[object]:
    """Return the rows of every table and view."""
    with warehouse.connect(read_only=True) as connection:
        tables = Tables(connection, "openrouter")
        ours = [tables.read(name).with_columns(cs.float().round(9)).to_dicts() for name in RELATIONS]
        own = [connection.execute(query).fetchall() for query in OWN_QUERIES]
    return [*ours, *own]


def all_names(warehouse: Warehouse) -> set[Sequence[Any]]:
    names = "SELECT schema_name, {0}_name FROM duckdb_{0}s() WHERE database_name = current_database() AND NOT internal"
    return set(rows(warehouse, names.format("table"), names.format("view")))


@pytest.mark.slow
def test_a_warehouse_moves_there_and_back_with_equal_rows(source: Warehouse, target: Warehouse, tmp_path: Path) -> None:
    before, back = contents(source), Warehouse(tmp_path / "back.duckdb")

    migrated = migrate(source, target)
    assert {moved.copied for moved in migrated.relations} == {True}
    assert contents(target) == before
    assert all_names(target) == all_names(source)

    migrate(target, back)
    assert contents(back) == before == contents(source)
    again = migrate(source, target)
    assert {moved.copied for moved in again.relations} == {False}
    assert {moved.name: moved.rows for moved in again.relations}["openrouter.snapshots"] == DAYS
    with source.reading() as tables, back.reading() as copied:
        assert copied.layout.existing == tables.layout.existing  # with keys
    assert rows(back, "SELECT comment FROM duckdb_tables() WHERE table_name = 'two words'") == [("mine",)]
    comments = (
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'openrouter' ORDER BY ALL"
    )
    assert rows(back, comments) == rows(source, comments)


@pytest.mark.slow
def test_a_target_with_something_else_is_unchanged(source: Warehouse, target: Warehouse, tmp_path: Path) -> None:
    migrate(source, target)
    before = contents(target)
    for number, change in enumerate(CHANGES if target.is_file else CHANGES[:2]):
        changed = Warehouse(Path(shutil.copy(source.path, tmp_path / f"changed_{number}.duckdb")))
        with changed.transaction() as connection:
            connection.execute(change)
            connection.execute("CREATE TABLE main.a_new_one AS SELECT 1 AS x")
        with pytest.raises(MigrationError, match="nothing was changed"):
            migrate(changed, target)
        assert ("main", "a_new_one") not in all_names(target)
    assert contents(target) == before


@pytest.mark.lake
def test_what_the_target_cannot_have_is_named_and_can_be_left_out(source: Warehouse, lake: EnginePlace) -> None:
    target = lake.open()
    with source.transaction() as connection:
        connection.execute("CREATE TABLE main.sizes (size ENUM ('s', 'm'))")
        connection.execute("CREATE VIEW main.of_this_file AS FROM source.main.twice")
        connection.execute('CREATE INDEX by_time ON "my own"."two words" (seen)')
    with pytest.raises(MigrationError, match=r"view main.of_this_file .*; table main.sizes .*ENUM") as raised:
        migrate(source, target)
    assert "orpipeline_source" not in str(raised.value)
    assert all_names(target) == set()

    migrated = migrate(source, target, without=["main.sizes", "main.of_this_file"])
    assert contents(target) == contents(source)
    assert migrated.not_kept == ["keys, constraints and defaults of my own.two words", "the index by_time in my own"]
    with pytest.raises(MigrationError, match=r"openrouter\.snapshots of your own"):
        migrate(source, target, without=["openrouter.snapshots"])


@pytest.mark.slow
def test_a_killed_migration_leaves_nothing_and_can_be_repeated(source: Warehouse, target: Warehouse) -> None:
    with started(_MIGRATE, source.path, target.place, target.lake_data) as process:
        with pytest.raises(WarehouseBusyError), target.writing():
            pass
        with pytest.raises(WarehouseBusyError), source.writing():
            pass
        process.kill()
    assert all_names(target) == set()
    migrate(source, target)
    assert contents(target) == contents(source)


@pytest.mark.lake
def test_nobody_writes_to_a_lake_while_it_moves(source: Warehouse, lake: EnginePlace, tmp_path: Path) -> None:
    moving = lake.open(lock_wait_seconds=0)
    migrate(source, moving)
    refused = []

    def write(_: int) -> None:
        with pytest.raises(WarehouseBusyError), moving.writing():
            pass
        refused.append(True)

    migrate(moving, Warehouse(tmp_path / "back.duckdb"), on_progress=write)
    assert refused


def test_a_source_that_is_locked_missing_or_the_target_itself(source: Warehouse, tmp_path: Path) -> None:
    target = Warehouse(tmp_path / "target.duckdb", lock_wait_seconds=0)
    with held_open(source.path), pytest.raises(WarehouseBusyError):
        migrate(source, target)
    with pytest.raises(MigrationError, match="nothing to move"):
        migrate(Warehouse(tmp_path / "absent.duckdb"), target)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(MigrationError, match="both the source and the target"):
        migrate(source, Warehouse(tmp_path / "link" / "source.duckdb"))
    assert not target.exists


@pytest.mark.lake
def test_a_lake_is_recognized_under_another_name_of_its_host(source: Warehouse, lake: EnginePlace) -> None:
    migrate(source, lake.open())
    renamed = str(lake.warehouse).replace("127.0.0.1", "localhost")
    with pytest.raises(MigrationError, match="both the source and the target"):
        migrate(lake.open(), replace(lake, warehouse=renamed).open())


def test_a_source_of_another_layout_is_rebuilt_first(source: Warehouse, tmp_path: Path) -> None:
    with source.transaction() as connection:
        connection.execute("UPDATE openrouter.orpipeline_layout SET version = 2")
    target = Warehouse(tmp_path / "target.duckdb")
    with pytest.raises(LayoutError, match="orpipeline rebuild"):
        migrate(source, target)
    assert not target.exists


def test_the_command_shows_the_rows_and_what_to_set(source: Warehouse, target: Warehouse, tmp_path: Path) -> None:
    settings = {"ORPIPELINE_DATA_DIR": str(tmp_path / "data"), "ORPIPELINE_WAREHOUSE": str(source.path)}
    place = str(target.place) if target.lake_data else "target.duckdb"  # a path of the current folder
    data = ["--lake-data", str(target.lake_data)] if target.lake_data else []
    done = run_command("migrate", "--to", place, *data, folder=tmp_path, environment=settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"openrouter.snapshots             {DAYS} rows copied, all rows are equal\n" in done.stdout
    assert f"\nORPIPELINE_WAREHOUSE={_quoted(str(target.place))}\n" in done.stdout
    assert contents(target) == contents(source)
    # Back, with the settings that the command has printed.
    settings |= {"ORPIPELINE_WAREHOUSE": str(target.place)}
    if target.lake_data:
        settings["ORPIPELINE_LAKE_DATA"] = str(target.lake_data)
    done = run_command("migrate", "--to", "back.duckdb", folder=tmp_path, environment=settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(Warehouse(tmp_path / "back.duckdb")) == contents(source)


def test_a_password_in_the_url_is_rejected_and_not_shown(tmp_path: Path) -> None:
    done = run_command("migrate", "--to", "ducklake:postgres:dbname=x password=hush", folder=tmp_path)
    assert done.returncode == 1
    assert "PGPASSWORD" in done.stderr
    assert "hush" not in done.stderr


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


@pytest.mark.skipif(duckdb.__version__ < "2", reason="needs a DuckDB whose own format is newer than a lake's DuckDB")
def test_a_file_of_a_newer_format_moves_into_one_that_a_lakes_duckdb_reads(tmp_path: Path) -> None:
    source, target = Warehouse(tmp_path / "source.duckdb"), Warehouse(tmp_path / "target.duckdb")
    duckdb.connect(source.path).close()
    load(source, sample_tables(1))
    migrate(source, target)
    query = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    assert rows(source, query)[0][0] > "v2"
    assert rows(target, query)[0][0] < "v2"
