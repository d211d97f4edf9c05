"""The tables rebuilt from the archive alone, row for row: by a command, or because a load finds them unusable."""

from __future__ import annotations

import gzip
import logging
import shutil
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline.contracts.tables import TABLES
from orpipeline.errors import WarehouseError
from orpipeline.load import Rebuilt, load_days, rebuild
from orpipeline.testing import sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.schema import REGISTER
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.commands import run_command
from orpipeline_tests.imports import WEEK, files, restated, served
from orpipeline_tests.world import NOON, World, days_of, local

FIRST, DAY, LAST = DAYS = WEEK[:3]
ORIGINS = {FIRST: "import", DAY: "api", LAST: "demo"}
REJECTED = {"window_days": 30}


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `filled`, to copy."""
    folder = tmp_path_factory.mktemp("three-days") / "data"
    with World(folder) as world:
        for day, origin in ORIGINS.items():
            world.store(sample_response(day), origin=origin, fetched_at=served(day))
        world.store(sample_response(DAY, change=restated(0.004)), origin="api", fetched_at=served(DAY, 20))
        world.store(sample_response(DAY, change=restated(0.002)), fetched_at=served(DAY, 9))
        world.make_tables(*DAYS)
    return folder


@pytest.fixture
def filled(world: World, three_days: Path) -> World:
    """Three days in archive and tables; the second has three revisions."""
    shutil.copytree(three_days, world.folder)
    return world


def rebuild_all(world: World, since: date | None = None, until: date | None = None) -> Rebuilt:
    return rebuild(world.archive, world.warehouse, now=NOON, since=since, until=until)


def rows(world: World) -> dict[str, pl.DataFrame]:
    with world.warehouse.reading() as tables:
        return {name: tables.read(name) for name in TABLES}


def assert_same_rows(world: World, before: dict[str, pl.DataFrame], days: Sequence[date] = DAYS) -> None:
    """Compare every row and every column of every table."""
    for name, frame in rows(world).items():
        assert not frame.is_empty()
        assert_frame_equal(frame, before[name].filter(pl.col("as_of").is_in(days)), check_exact=True)


def execute(world: World, *statements: str) -> None:
    """Change the warehouse by hand."""
    with world.warehouse.transaction() as connection:
        for statement in statements:
            connection.execute(statement)


def response_file(world: World, day: date) -> Path:
    """Return the file of a day's newest response."""
    newest = world.archive.latest(day)
    assert newest is not None
    return local(newest.path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


# Row for row


def test_deleted_tables_are_rebuilt_row_for_row(filled: World) -> None:
    before, archived = rows(filled), files(local(filled.archive.place))
    local(filled.warehouse.place).unlink()
    assert rebuild_all(filled) == Rebuilt(days=DAYS)
    assert_same_rows(filled, before)
    assert files(local(filled.archive.place)) == archived
    assert before["snapshots"]["revision"].to_list() == [1, 3, 1]
    assert before["snapshots"]["origin"].to_list() == list(ORIGINS.values())
    api, demo = before["snapshots"]["citation"][1:]
    assert (api.startswith("Source: OpenRouter"), "made up" in demo, "Source: OpenRouter" in demo) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE openrouter.snapshots SET window_days = 30 WHERE as_of = '{DAY}'",
        "UPDATE openrouter.author_leaderboard SET usage_share = 0 WHERE usage_rank = 1",
    ],
)
def test_changes_by_hand_are_undone(filled: World, statement: str) -> None:
    before = rows(filled)
    execute(filled, statement, "CREATE TABLE openrouter.mine AS SELECT 1 AS one")
    assert rebuild_all(filled) == Rebuilt(days=DAYS)
    assert_same_rows(filled, before)
    with filled.warehouse.connect(read_only=True) as connection:
        assert connection.execute("FROM openrouter.mine").fetchall() == [(1,)]


# Which days


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [(DAY, DAY, [DAY]), (WEEK[4], WEEK[6], [])],
)
def test_a_range_rebuilds_its_days_only(
    filled: World, since: date | None, until: date | None, expected: list[date]
) -> None:
    execute(filled, "UPDATE openrouter.task_models SET position = position + 100")
    assert rebuild_all(filled, since, until) == Rebuilt(days=expected)
    still_changed = filled.warehouse.read("task_models").filter(pl.col("position") > 100)
    assert set(still_changed["as_of"]) == set(DAYS) - set(expected)


# Rejected, damaged and missing responses


def test_a_rejected_response_falls_back_to_the_newest_valid_revision_and_is_named(filled: World) -> None:
    before = rows(filled)
    for day in (DAY, WEEK[3]):
        filled.store(sample_response(day, change=lambda data: data.update(REJECTED)), fetched_at=served(day, 23))
    local(filled.warehouse.place).unlink()
    rebuilt = rebuild_all(filled)
    assert list(rebuilt.errors) == [DAY, WEEK[3]]
    assert "revision 3" in str(rebuilt.errors[DAY])
    assert rebuilt.days == DAYS
    assert_same_rows(filled, before)


@pytest.mark.parametrize("change", [flip_a_byte, Path.unlink])
def test_a_day_without_a_usable_response_is_gone_after_a_rebuild_and_kept_by_one_of_a_range(
    filled: World, change: Callable[[Path], object]
) -> None:
    before, path = rows(filled), response_file(filled, LAST)
    change(path)
    is_damaged = path.exists()
    for since, gone, left in ((FIRST, [], DAYS), (None, [LAST], DAYS[:2])):
        rebuilt = rebuild_all(filled, since=since)
        assert (rebuilt.days, rebuilt.gone) == (DAYS[:2], gone)
        assert [str(path) in str(error) for error in rebuilt.errors.values()] == [True] * is_damaged
        assert_same_rows(filled, before, left)


# Tables that another version declared, and damaged files: a load rebuilds them first

DECLARED_OTHERWISE = {
    "another hash": f"UPDATE openrouter.{REGISTER} SET declared = 'older'",
    "a table that is not there yet": f"DELETE FROM openrouter.{REGISTER} WHERE relation = 'author_leaderboard'; "
    "DROP TABLE openrouter.author_leaderboard",
}


@pytest.mark.parametrize("statements", DECLARED_OTHERWISE.values(), ids=DECLARED_OTHERWISE.keys())
def test_tables_of_another_version_are_loaded_again_in_one_transaction_and_yours_are_kept(
    filled: World, statements: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows(filled)
    execute(
        filled,
        "CREATE TABLE openrouter.prices AS SELECT 'mine' AS owner",
        "CREATE VIEW openrouter.my_days AS SELECT DISTINCT as_of FROM openrouter.snapshots",
        "ALTER TABLE openrouter.model_leaderboard DROP COLUMN top_task",
        f"DELETE FROM openrouter.task_models WHERE as_of = '{FIRST}'",
        statements,
    )
    with pytest.raises(WarehouseError, match=r"model_leaderboard does not have the columns .*orpipeline rebuild"):
        filled.warehouse.read("model_leaderboard")
    load_days(filled.archive, filled.warehouse, [LAST], now=NOON)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line == (
        f"Another version of orpipeline declared the tables in {filled.warehouse.place}. 3 days were loaded from the "
        "archive again."
    )
    assert_same_rows(filled, before)
    with filled.warehouse.connect(read_only=True) as connection:
        assert connection.execute("FROM openrouter.prices").fetchall() == [("mine",)]
        assert len(connection.execute("FROM openrouter.my_days").fetchall()) == len(DAYS)


def test_a_table_of_yours_with_the_name_of_one_of_ours_is_never_replaced(filled: World) -> None:
    execute(filled, "CREATE SCHEMA mine", "CREATE VIEW mine.Model_Trends AS SELECT 1 AS x")
    prefixed = Warehouse(local(filled.warehouse.place), schema="mine")
    for action in (partial(load_days, days=DAYS), rebuild):
        with pytest.raises(WarehouseError, match=r"mine.model_trends is a view that orpipeline did not create.*Rename"):
            action(filled.archive, prefixed, now=NOON)
    with prefixed.connect(read_only=True) as connection:
        assert connection.execute("FROM mine.model_trends").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'mine'").fetchall() == [
            (0,)
        ]


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _damaged_log(path: Path) -> None:
    with duckdb.connect(path) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE big AS SELECT range AS number FROM range(5000)")
    flip_a_byte(path.with_name(f"{path.name}.wal"))


@pytest.mark.parametrize("damage", [_cut_off, _damaged_log])
def test_a_damaged_file_is_kept_aside_and_all_days_are_loaded_into_a_new_one(
    filled: World, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before, path = rows(filled), local(filled.warehouse.place)
    damage(path)
    damaged = {found.name.removeprefix(path.name): found.read_bytes() for found in path.parent.glob(f"{path.name}*")}
    load_days(filled.archive, filled.warehouse, [LAST], now=NOON)
    aside = path.with_name(f"{path.name}.damaged-{NOON:%Y%m%dT%H%M%SZ}")
    assert (
        f"is kept aside as {aside}. Tables of yours that it had are not in the new one. 3 days were loaded"
        in caplog.text
    )
    assert {suffix: aside.with_name(aside.name + suffix).read_bytes() for suffix in damaged} == damaged
    assert_same_rows(filled, before)
    damage(path)
    rebuilt = rebuild(filled.archive, filled.warehouse, now=NOON + timedelta(hours=1), since=LAST)
    assert (rebuilt.days, rebuilt.set_aside) == (DAYS, Path(str(aside).replace("T12", "T13")))
    assert_same_rows(filled, before)


# The commands


def command(world: World, *arguments: str) -> tuple[int, str, list[str]]:
    """Run a command; return its exit code, its output, and the lines on standard error."""
    base_url = world.settings.base_url
    variables = {"ORPIPELINE_DATA_DIR": str(world.folder), "ORPIPELINE_BASE_URL": base_url, "OPENROUTER_API_KEY": KEY}
    done = run_command(*arguments, folder=world.folder, environment=variables)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line]


def test_the_rebuild_command_shows_what_changed_and_fails_if_a_day_cannot_be_rebuilt(filled: World) -> None:
    execute(filled, f"DELETE FROM openrouter.macro_categories WHERE as_of = '{DAY}' AND key = 'data'")
    flip_a_byte(response_file(filled, LAST))
    code, output, (error,) = command(filled, "rebuild")
    assert code == 1
    assert f"2 days, {FIRST} to {DAY}" in output
    assert str(LAST) in error
    assert days_of(filled.warehouse) == DAYS[:2]
    code, output, errors = command(filled, "rebuild", "--from", str(FIRST), "--to", str(DAY))
    assert (code, errors) == (0, [])


def test_doctor_deep_counts_intact_responses_and_names_each_damaged_one(filled: World) -> None:
    undated = local(filled.store(b"<html>").revision.path)
    code, output, errors = command(filled, "doctor", "--deep")
    assert (code, errors) == (0, [])
    assert "6 of 6" in output
    flipped, cut, older = *map(partial(response_file, filled), (FIRST, LAST)), filled.archive.revisions(DAY)[0].path
    flip_a_byte(flipped)
    cut.write_bytes(cut.read_bytes()[:-20])
    for path, content in ((local(older), sample_response(WEEK[5])), (undated, b"<html >")):
        path.write_bytes(gzip.compress(content))
    code, output, errors = command(filled, "doctor", "--deep")
    assert (code, "2 of 6" in output, errors) == (1, True, [])
    for damaged in (flipped, cut, older, undated):
        assert "".join(output.split()).count(str(damaged)) == 1


def test_rebuilding_a_range_without_an_archived_day_is_an_error_and_creates_nothing(world: World) -> None:
    world.store(sample_response(DAY))
    code, output, errors = command(world, "rebuild", "--from", str(DAY + timedelta(days=1)))
    assert (code, output, len(errors)) == (1, "", 1)
    assert "no day in that range" in errors[0]
    assert not world.warehouse.exists
