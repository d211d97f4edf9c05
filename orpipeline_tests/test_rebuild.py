"""The tables made again from the archive alone, row for row, and the archive checked against its sha256s."""

from __future__ import annotations

import gzip
import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline import rebuild as rebuilding
from orpipeline.archive.folder import Archive, Record
from orpipeline.contracts.tables import TABLES
from orpipeline.rebuild import Difference, Rebuilt, damaged_answers, rebuild
from orpipeline_tests.answers import answer
from orpipeline_tests.commands import run_command
from orpipeline_tests.imports import WEEK, files, respelt, restated, served
from orpipeline_tests.world import NOON, World

DAY = WEEK[1]
ORIGINS = {WEEK[0]: "import", WEEK[1]: "api", WEEK[2]: "demo"}


@pytest.fixture
def filled(world: World) -> World:
    """Three days in archive and tables, of which the second has an older and a newer revision."""
    for day, origin in ORIGINS.items():
        world.keep(answer(day), origin=origin, fetched_at=served(day))
    world.keep(answer(DAY, restated(0.004)), origin="api", fetched_at=served(DAY, 20))
    world.keep(answer(DAY, restated(0.002)), fetched_at=served(DAY, 9))
    again(world)
    return world


def again(world: World, since: date = date.min, until: date = date.max) -> Rebuilt:
    return rebuild(world.archive, world.warehouse, now=NOON, since=since, until=until)


def rows(world: World) -> dict[str, pl.DataFrame]:
    return {name: world.warehouse.read(name) for name in TABLES}


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


def record_of(archive: Archive, day: date) -> Record:
    record = archive.latest(day)
    assert record is not None
    return record


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


# Row for row


def test_tables_that_are_gone_come_back_row_for_row(filled: World) -> None:
    before, archive = rows(filled), files(filled.archive.root)
    filled.warehouse.path.unlink()
    rebuilt = again(filled)
    assert_same_rows(filled, before)
    assert (rebuilt.days, rebuilt.new, rebuilt.differences, rebuilt.errors) == (WEEK[:3], WEEK[:3], [], {})
    assert files(filled.archive.root) == archive
    assert before["snapshots"]["revision"].to_list() == [1, 2, 1]
    assert before["snapshots"]["origin"].to_list() == list(ORIGINS.values())


def test_rebuilt_tables_are_those_that_the_assets_made(world: World) -> None:
    for day in WEEK[:3]:
        world.keep(answer(day))
    assert world.run(*WEEK[:3]).success
    before = rows(world)
    assert again(world).differences == []
    assert_same_rows(world, before)


def test_a_rebuild_over_untouched_tables_finds_no_difference(filled: World) -> None:
    before = rows(filled)
    rebuilt = again(filled)
    assert rebuilt == Rebuilt(days=WEEK[:3])
    assert_same_rows(filled, before)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE openrouter.task_classifications SET usage_share = usage_share + 0.001 "
            f"WHERE as_of = '{DAY}' AND tag IN ('math', 'translation')",
            Difference("task_classifications", 2, 0, 0, f"{DAY} / 7 / math"),
        ),
        (
            f"DELETE FROM openrouter.macro_categories WHERE as_of = '{DAY}' AND key = 'data'",
            Difference("macro_categories", 0, 1, 0, f"{DAY} / 7 / data"),
        ),
        (
            "INSERT INTO openrouter.task_models BY NAME SELECT * REPLACE ('demo-x/added' AS model_id) "
            f"FROM openrouter.task_models WHERE as_of = '{DAY}' AND tag = 'math' AND position = 1",
            Difference("task_models", 0, 0, 1, f"{DAY} / 7 / math / demo-x/added"),
        ),
        (f"UPDATE openrouter.task_models SET position = position WHERE as_of = '{DAY}'", None),
        (
            f"UPDATE openrouter.snapshots SET sha256 = 'x', revision = 9 WHERE as_of = '{DAY}'",
            Difference("snapshots", 1, 0, 0, f"{DAY} / 7"),
        ),
        (
            f"UPDATE openrouter.snapshots SET window_days = 30 WHERE as_of = '{DAY}'",
            Difference("snapshots", 0, 1, 1, f"{DAY} / 7"),
        ),
    ],
    ids=["figures altered", "a row deleted", "a row added", "nothing altered", "a source altered", "a key altered"],
)
def test_what_was_altered_by_hand_is_named_and_mended(
    filled: World, statement: str, expected: Difference | None
) -> None:
    before = rows(filled)
    execute(filled, statement)
    assert again(filled).differences == ([expected] if expected else [])
    assert_same_rows(filled, before)


def test_a_null_that_was_filled_in_is_a_difference(filled: World) -> None:
    before = rows(filled)
    board = before["model_leaderboard"].filter(pl.col("variant").is_null(), as_of=DAY, scope="all")
    name = str(board["model_id"].sort()[0])
    execute(
        filled,
        f"UPDATE openrouter.model_leaderboard SET variant = 'x' WHERE as_of = '{DAY}' AND scope = 'all' "
        f"AND model_id = '{name}'",
    )
    assert again(filled).differences == [Difference("model_leaderboard", 1, 0, 0, f"{DAY} / 7 / all / {name}")]
    assert_same_rows(filled, before)


def test_every_table_that_was_altered_is_named(filled: World) -> None:
    before = rows(filled)
    tables = [name for name in TABLES if name != "snapshots"]
    execute(filled, *(f"DELETE FROM openrouter.{name} WHERE as_of = '{DAY}'" for name in tables))
    found = {difference.table: difference for difference in again(filled).differences}
    assert {name: d.added for name, d in found.items()} == {
        name: len(before[name].filter(as_of=DAY)) for name in tables
    }
    assert_same_rows(filled, before)


def test_what_the_figures_say_later_is_told_from_what_they_said(filled: World) -> None:
    filled.keep(answer(WEEK[0], restated(0.004)), fetched_at=served(WEEK[0], 20))
    rebuilt = again(filled)
    changed = {difference.table: difference.changed for difference in rebuilt.differences}
    assert changed["snapshots"] == 1
    assert changed["task_classifications"] >= 2
    assert filled.warehouse.read("snapshots")["revision"].to_list() == [2, 2, 1]


def test_the_same_content_in_other_bytes_differs_in_its_source_alone(world: World) -> None:
    world.keep(answer(DAY), fetched_at=served(DAY, 1))
    again(world)
    world.keep(respelt(answer(DAY)), fetched_at=served(DAY, 2))
    assert [difference.table for difference in again(world).differences] == ["snapshots"]


# Which days


@pytest.mark.parametrize(
    ("since", "until", "touched"),
    [
        (WEEK[1], WEEK[1], [WEEK[1]]),
        (WEEK[1], date.max, [WEEK[1], WEEK[2]]),
        (date.min, WEEK[1], [WEEK[0], WEEK[1]]),
        (WEEK[4], WEEK[6], []),
    ],
)
def test_a_range_touches_its_days_alone(filled: World, since: date, until: date, touched: list[date]) -> None:
    execute(filled, "UPDATE openrouter.task_models SET position = position + 100")
    rebuilt = again(filled, since, until)
    assert rebuilt.days == touched
    spoilt = filled.warehouse.read("task_models").filter(pl.col("position") > 100)
    assert set(spoilt["as_of"]) == set(WEEK[:3]) - set(touched)
    assert [(d.table, d.changed) for d in rebuilt.differences] == (
        [("task_models", 290 * len(touched))] if touched else []
    )


def test_a_day_that_only_the_tables_have_keeps_its_rows_and_is_named(filled: World) -> None:
    before = rows(filled)
    (filled.archive.root / str(WEEK[0])).rename(filled.folder / "moved-away")
    rebuilt = again(filled)
    assert (rebuilt.unarchived, rebuilt.days) == ([WEEK[0]], WEEK[1:3])
    assert_same_rows(filled, before)
    assert again(filled, since=WEEK[1]).unarchived == []


@pytest.mark.parametrize("at_once", [1, 2])
def test_days_that_are_made_in_several_transactions_are_all_made(
    filled: World, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    before = rows(filled)
    monkeypatch.setattr(rebuilding, "DAYS_AT_ONCE", at_once)
    execute(filled, "DELETE FROM openrouter.task_models WHERE position = 1")
    told: list[int] = []
    rebuilt = rebuild(filled.archive, filled.warehouse, now=NOON, on_progress=told.append)
    assert rebuilt.days == WEEK[:3]
    assert sum(told) == 3
    assert [difference.table for difference in rebuilt.differences] == ["task_models"] * len(told)
    assert sum(difference.added for difference in rebuilt.differences) == 3 * 29
    assert_same_rows(filled, before)


# Days that cannot be made


def test_a_refused_day_falls_back_and_is_named_and_the_others_are_made(filled: World) -> None:
    broken = answer(DAY, lambda data: data.update(window_days=30))
    filled.keep(broken, fetched_at=served(DAY, 23))
    before = rows(filled)
    filled.warehouse.path.unlink()
    rebuilt = again(filled)
    assert list(rebuilt.errors) == [DAY]
    assert "keep revision 2, the newest that holds" in str(rebuilt.errors[DAY])
    assert sorted(rebuilt.days) == WEEK[:3]
    assert_same_rows(filled, before)


def test_a_refused_day_of_one_revision_is_named_and_the_others_are_made(world: World) -> None:
    for day in WEEK[:3]:
        world.keep(answer(day, (lambda data: data.update(window_days=30)) if day == DAY else None))
    rebuilt = again(world)
    assert (list(rebuilt.errors), rebuilt.days) == ([DAY], [WEEK[0], WEEK[2]])
    assert world.warehouse.days() == [WEEK[0], WEEK[2]]


@pytest.mark.parametrize("part", ["answer", "record"])
def test_a_damaged_day_is_named_and_keeps_its_rows(filled: World, part: str) -> None:
    before, path = rows(filled), record_of(filled.archive, WEEK[2]).path
    flip_a_byte(path) if part == "answer" else path.with_name("record.json").write_text('{"sha256": ')
    execute(filled, "UPDATE openrouter.task_models SET position = position + 100 WHERE position > 5")
    rebuilt = again(filled)
    assert list(rebuilt.errors) == [WEEK[2]]
    assert str(path.parent) in str(rebuilt.errors[WEEK[2]])
    assert rebuilt.days == WEEK[:2]
    after = filled.warehouse.read("task_models")
    assert set(after.filter(pl.col("position") > 100)["as_of"]) == {WEEK[2]}
    assert_frame_equal(after.filter(pl.col("as_of") < WEEK[2]), before["task_models"].filter(pl.col("as_of") < WEEK[2]))


# The archive's sha256s


@pytest.fixture
def aside(filled: World) -> World:
    """The same, with an answer kept aside that states no day."""
    assert filled.keep(b"<html>").record.as_of is None
    return filled


def test_a_whole_archive_has_no_damaged_answer(aside: World) -> None:
    told: list[int] = []
    assert damaged_answers(aside.archive, told.append) == []
    assert sum(told) == len(aside.archive.folders()) == 6


def test_each_damaged_answer_is_found_whatever_is_damaged(aside: World) -> None:
    archive = aside.archive
    flipped = record_of(archive, WEEK[0]).path
    flip_a_byte(flipped)
    older = archive.revisions(DAY)[0].path
    older.write_bytes(gzip.compress(answer(WEEK[5])))
    cut = record_of(archive, WEEK[2]).path.with_name("record.json")
    cut.write_bytes(cut.read_bytes()[:-20])
    (undated,) = (archive.root / "undated").glob("*/*.json.gz")
    undated.write_bytes(gzip.compress(b"<html >"))
    damaged = damaged_answers(archive)
    for path in (flipped, older, cut, undated):
        assert sum(str(path) in str(error) for error in damaged) == 1, path
    assert len(damaged) == 4


def test_a_record_with_another_sha256_is_damage(aside: World) -> None:
    path = record_of(aside.archive, DAY).path.with_name("record.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "0" * 64}))
    (error,) = damaged_answers(aside.archive)
    assert "its sha256 is not the recorded one" in str(error)


# The commands


def command(world: World, *arguments: str) -> tuple[int, str, list[str]]:
    """Run a command; return its exit code, what it prints, and the lines of its complaint."""
    environment = {"ORPIPELINE_DATA_DIR": str(world.folder)}
    done = run_command(*arguments, folder=world.folder, environment=environment)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line]


def test_the_rebuild_command_says_what_it_mended_and_what_it_could_not_make(filled: World) -> None:
    before = rows(filled)
    execute(filled, f"DELETE FROM openrouter.macro_categories WHERE as_of = '{DAY}' AND key = 'data'")
    flip_a_byte(record_of(filled.archive, WEEK[2]).path)
    code, said, complaints = command(filled, "rebuild")
    assert code == 1
    assert f"2 days, {WEEK[0]} to {DAY}" in said
    assert f"macro_categories: 0 rows changed, 1 added, 0 removed; the first: {DAY} / 7 / data" in said
    assert len(complaints) == 1
    assert str(WEEK[2]) in complaints[0]
    assert_same_rows(filled, before)

    code, said, complaints = command(filled, "rebuild", "--from", str(WEEK[0]), "--to", str(DAY))
    assert (code, complaints) == (0, [])
    assert "Every row that was there before is the same." in said


def test_the_doctor_reads_the_archive_where_it_is_asked_to(aside: World) -> None:
    code, said, complaints = command(aside, "doctor", "--deep")
    assert (code, complaints) == (0, [])
    assert "6 of 6 archived answers are as they were kept" in said

    flip_a_byte(record_of(aside.archive, WEEK[0]).path)
    record_of(aside.archive, WEEK[2]).path.with_name("record.json").write_text("{}")
    code, said, complaints = command(aside, "doctor", "--deep")
    assert "4 of 6 archived answers are as they were kept" in said
    assert sum(" is damaged: " in line for line in said.splitlines()) == 2
    assert (code, complaints) == (1, ["orpipeline: 2 archived answers are damaged; they are named above."])


def test_a_range_without_an_archived_day_is_said_and_nothing_is_made(world: World) -> None:
    world.keep(answer(DAY))
    later = str(DAY + timedelta(days=1))
    code, said, complaints = command(world, "rebuild", "--from", later)
    assert (code, said, len(complaints)) == (1, "", 1)
    assert "no day in that range" in complaints[0]
    assert not world.warehouse.exists
