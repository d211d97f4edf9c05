"""The tables rebuilt from the archive alone, row for row, and the archive checked against its sha256s."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline import snapshot
from orpipeline.rebuild import Difference, Rebuilt, damaged_answers, out_of_date, rebuild
from orpipeline.testing import sample_answer
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import run_command
from orpipeline_tests.imports import WEEK, files, respelt, restated, served
from orpipeline_tests.world import NOON, World, local

FIRST, DAY, LAST = DAYS = WEEK[:3]
ORIGINS = {FIRST: "import", DAY: "api", LAST: "demo"}


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `filled`, to copy."""
    folder = tmp_path_factory.mktemp("three-days") / "data"
    with World(folder) as world:
        for day, origin in ORIGINS.items():
            world.store(sample_answer(day), origin=origin, fetched_at=served(day))
        world.store(sample_answer(DAY, change=restated(0.004)), origin="api", fetched_at=served(DAY, 20))
        world.store(sample_answer(DAY, change=restated(0.002)), fetched_at=served(DAY, 9))
        world.make_tables(*DAYS)
    return folder


@pytest.fixture
def filled(world: World, three_days: Path) -> World:
    """Three days in archive and tables; the second has three revisions, and number 2 is the newest."""
    shutil.copytree(three_days, world.folder)
    return world


def rebuild_all(world: World, since: date = date.min, until: date = date.max) -> Rebuilt:
    return rebuild(world.archive, world.warehouse, now=NOON, since=since, until=until)


def rows(world: World) -> dict[str, pl.DataFrame]:
    with world.warehouse.reading() as tables:
        return tables.read_all()


def assert_same_rows(world: World, before: dict[str, pl.DataFrame]) -> None:
    """Compare every row and every column of every table."""
    for name, frame in rows(world).items():
        assert not frame.is_empty()
        assert_frame_equal(frame, before[name], check_exact=True)


def execute(world: World, *statements: str) -> None:
    """Change the warehouse by hand."""
    with world.warehouse.transaction() as connection:
        for statement in statements:
            connection.execute(statement)


def answer_file(world: World, day: date) -> Path:
    """Return the file of a day's newest answer."""
    record = world.archive.latest(day)
    assert record is not None
    return local(record.path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


# Row for row


def test_deleted_tables_are_rebuilt_row_for_row(filled: World) -> None:
    before, archived = rows(filled), files(local(filled.archive.root))
    filled.warehouse.path.unlink()
    reason = f"{filled.warehouse.path} does not exist."
    assert rebuild_all(filled) == Rebuilt(days=DAYS, new=DAYS, reason=reason)
    assert_same_rows(filled, before)
    assert files(local(filled.archive.root)) == archived
    assert before["snapshots"]["revision"].to_list() == [1, 2, 1]
    assert before["snapshots"]["origin"].to_list() == list(ORIGINS.values())


def test_rebuilt_tables_equal_those_of_a_run(world: World) -> None:
    world.store(sample_answer(DAY))
    assert world.run(DAY).success
    before = rows(world)
    world.warehouse.path.unlink()
    rebuild_all(world)
    assert_same_rows(world, before)


def test_rebuilding_unchanged_tables_finds_no_difference(filled: World) -> None:
    before = rows(filled)
    assert rebuild_all(filled) == Rebuilt(days=DAYS)
    assert_same_rows(filled, before)


def test_changes_by_hand_are_counted_for_each_table_and_undone(filled: World) -> None:
    before = rows(filled)
    of_day = f"WHERE as_of = '{DAY}'"
    plain = str(before["model_leaderboard"].filter(pl.col("variant").is_null(), as_of=DAY, scope="all")["model_id"][0])
    execute(
        filled,
        f"UPDATE openrouter.snapshots SET window_days = 30 {of_day}",
        f"UPDATE openrouter.task_classifications SET usage_share = usage_share + 0.001 {of_day} "
        "AND tag IN ('math', 'translation')",
        f"DELETE FROM openrouter.macro_categories {of_day} AND key = 'data'",
        "INSERT INTO openrouter.task_models BY NAME SELECT * REPLACE ('demo-x/added' AS model_id) "
        f"FROM openrouter.task_models {of_day} AND tag = 'math' AND position = 1",
        f"UPDATE openrouter.model_leaderboard SET variant = 'x' {of_day} AND scope = 'all' AND model_id = '{plain}'",
    )
    assert rebuild_all(filled).differences == [
        Difference("snapshots", 0, 1, 1, f"{DAY} / 7"),  # the key changed
        Difference("task_classifications", 2, 0, 0, f"{DAY} / 7 / math"),
        Difference("macro_categories", 0, 1, 0, f"{DAY} / 7 / data"),
        Difference("task_models", 0, 0, 1, f"{DAY} / 7 / math / demo-x/added"),
        Difference("model_leaderboard", 1, 0, 0, f"{DAY} / 7 / all / {plain}"),  # NULL before
    ]
    assert_same_rows(filled, before)


def test_a_newer_revision_changes_figures_and_other_bytes_change_the_source_only(filled: World) -> None:
    filled.store(respelt(sample_answer(LAST)), fetched_at=served(LAST, 20))
    assert [difference.table for difference in rebuild_all(filled).differences] == ["snapshots"]
    filled.store(sample_answer(FIRST, change=restated(0.004)), fetched_at=served(FIRST, 20))
    changed = {difference.table: difference.changed for difference in rebuild_all(filled).differences}
    assert changed["snapshots"] == 1
    assert changed["task_classifications"] >= 2
    assert filled.warehouse.read("snapshots")["revision"].to_list() == [2, 2, 2]


# Which days


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [(DAY, DAY, [DAY]), (DAY, date.max, [DAY, LAST]), (date.min, DAY, [FIRST, DAY]), (WEEK[4], WEEK[6], [])],
)
def test_a_range_rebuilds_its_days_only(filled: World, since: date, until: date, expected: Sequence[date]) -> None:
    execute(filled, "UPDATE openrouter.task_models SET position = position + 100")
    rebuilt = rebuild_all(filled, since, until)
    assert rebuilt.days == expected
    assert {difference.table for difference in rebuilt.differences} == ({"task_models"} if expected else set())
    still_changed = filled.warehouse.read("task_models").filter(pl.col("position") > 100)
    assert set(still_changed["as_of"]) == set(DAYS) - set(expected)


def test_a_day_that_is_not_archived_keeps_its_rows_and_is_named(filled: World) -> None:
    before = rows(filled)
    shutil.rmtree(local(filled.archive.root) / str(FIRST))
    rebuilt = rebuild_all(filled)
    assert (rebuilt.unarchived, rebuilt.days) == ([FIRST], [DAY, LAST])
    assert_same_rows(filled, before)
    assert rebuild_all(filled, since=DAY).unarchived == []


def test_days_in_several_transactions_are_all_rebuilt(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(filled)
    monkeypatch.setattr(snapshot, "DAYS_AT_ONCE", 2)
    execute(filled, "DELETE FROM openrouter.task_models WHERE position = 1")
    progress: list[int] = []
    rebuilt = rebuild(filled.archive, filled.warehouse, now=NOON, on_progress=progress.append)
    assert rebuilt.days == DAYS
    assert progress == [2, 1]
    assert [difference.table for difference in rebuilt.differences] == ["task_models"] * 2
    assert_same_rows(filled, before)


def test_a_day_is_out_of_date_until_its_newest_valid_revision_is_in_the_tables(filled: World) -> None:
    broken = sample_answer(FIRST, change=lambda data: data.update(window_days=30))
    filled.store(broken, fetched_at=served(FIRST, 20))
    filled.store(sample_answer(LAST, change=restated(0.004)), fetched_at=served(LAST, 20))
    filled.store(sample_answer(WEEK[3]))
    assert out_of_date(filled.archive, filled.warehouse, WEEK[:4], now=NOON) == {LAST, WEEK[3]}
    filled.make_tables(LAST, WEEK[3])
    assert out_of_date(filled.archive, filled.warehouse, WEEK[:4], now=NOON) == set()


# Rejected and damaged answers


def test_a_rejected_answer_falls_back_to_the_newest_valid_revision_and_is_named(filled: World) -> None:
    before = rows(filled)
    filled.store(sample_answer(DAY, change=lambda data: data.update(window_days=30)), fetched_at=served(DAY, 23))
    filled.store(sample_answer(WEEK[3], change=lambda data: data.update(window_days=30)))
    filled.warehouse.path.unlink()
    rebuilt = rebuild_all(filled)
    assert list(rebuilt.errors) == [DAY, WEEK[3]]
    assert "revision 2" in str(rebuilt.errors[DAY])
    assert rebuilt.days == DAYS
    assert_same_rows(filled, before)


@pytest.mark.parametrize("part", ["answer", "record"])
def test_a_day_with_a_damaged_answer_keeps_its_rows_and_is_named(filled: World, part: str) -> None:
    before, path = rows(filled), answer_file(filled, LAST)
    flip_a_byte(path) if part == "answer" else path.with_name("record.json").write_text('{"sha256": ')
    execute(filled, "UPDATE openrouter.task_models SET position = position + 100 WHERE position > 5")
    rebuilt = rebuild_all(filled)
    assert list(rebuilt.errors) == [LAST]
    assert str(path.parent) in str(rebuilt.errors[LAST])
    assert rebuilt.days == [FIRST, DAY]
    after = filled.warehouse.read("task_models")
    assert set(after.filter(pl.col("position") > 100)["as_of"]) == {LAST}
    assert_frame_equal(after.filter(pl.col("as_of") < LAST), before["task_models"].filter(pl.col("as_of") < LAST))


# The archive's sha256s


def test_every_damaged_answer_is_found(filled: World) -> None:
    undated = filled.store(b"<html>").record.path
    progress: list[int] = []
    assert damaged_answers(filled.archive, progress.append) == []
    assert sum(progress) == len(filled.archive.folders()) == 6

    flipped, older = answer_file(filled, FIRST), filled.archive.revisions(DAY)[0].path
    cut, other = (answer_file(filled, day).with_name("record.json") for day in (LAST, DAY))
    flip_a_byte(flipped)
    local(older).write_bytes(gzip.compress(sample_answer(WEEK[5])))
    local(undated).write_bytes(gzip.compress(b"<html >"))
    cut.write_bytes(cut.read_bytes()[:-20])
    other.write_text(json.dumps({**json.loads(other.read_text()), "sha256": "0" * 64}))
    damaged = [str(error) for error in damaged_answers(filled.archive)]
    for path in (flipped, older, undated, cut, other.parent):
        assert sum(str(path) in error for error in damaged) == 1, path
    assert len(damaged) == 5


# The commands


def command(world: World, *arguments: str) -> tuple[int, str, list[str]]:
    """Run a command; return its exit code, its output, and the lines on standard error."""
    environment = {"ORPIPELINE_DATA_DIR": str(world.folder), "OPENROUTER_API_KEY": KEY}
    done = run_command(*arguments, folder=world.folder, environment=environment)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line]


def test_the_rebuild_command_shows_differences_and_fails_if_a_day_cannot_be_rebuilt(filled: World) -> None:
    before = rows(filled)
    execute(filled, f"DELETE FROM openrouter.macro_categories WHERE as_of = '{DAY}' AND key = 'data'")
    flip_a_byte(answer_file(filled, LAST))
    code, output, errors = command(filled, "rebuild")
    assert code == 1
    assert f"2 days, {FIRST} to {DAY}" in output
    assert "macro_categories: 0 rows changed, 1 added, 0 removed" in output
    assert f"{DAY} / 7 / data" in output
    assert len(errors) == 1
    assert str(LAST) in errors[0]
    assert_same_rows(filled, before)

    code, output, errors = command(filled, "rebuild", "--from", str(FIRST), "--to", str(DAY))
    assert (code, errors) == (0, [])
    assert "macro_categories" not in output


def test_doctor_deep_counts_intact_answers_and_fails_if_one_is_damaged(filled: World) -> None:
    code, output, errors = command(filled, "doctor", "--deep")
    assert (code, errors) == (0, [])
    assert "5 of 5" in output

    flip_a_byte(answer_file(filled, FIRST))
    answer_file(filled, LAST).with_name("record.json").write_text("{}")
    code, output, errors = command(filled, "doctor", "--deep")
    assert "3 of 5" in output
    assert (code, len(errors)) == (1, 1)
    assert "2 archived answers are damaged" in errors[0]


def test_rebuilding_a_range_without_an_archived_day_is_an_error_and_creates_nothing(world: World) -> None:
    world.store(sample_answer(DAY))
    code, output, errors = command(world, "rebuild", "--from", str(DAY + timedelta(days=1)))
    assert (code, output, len(errors)) == (1, "", 1)
    assert "no day in that range" in errors[0]
    assert not world.warehouse.exists
