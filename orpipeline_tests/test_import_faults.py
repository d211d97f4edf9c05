"""A damaged or rejected answer in the archive does not stop imports and rebuilds of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpipeline.rebuild import damaged_answers, rebuild
from orpipeline.testing import sample_answer
from orpipeline_tests.answers import DAY
from orpipeline_tests.imports import WEEK, counts, envelope, run_job, served, week_in, write
from orpipeline_tests.test_import import FIGURES, events, figure, import_into, translation
from orpipeline_tests.world import NOON, World, local

pytestmark = pytest.mark.usefixtures("at_noon")


def _monthly(data: dict[str, Any]) -> None:
    data["window_days"] = 30


def test_a_day_whose_newest_answer_is_rejected_is_not_rebuilt_by_each_import(world: World, tmp_path: Path) -> None:
    world.store(sample_answer(DAY, change=_monthly), origin="api", fetched_at=served(DAY, 9))
    path = write(tmp_path / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    assert run_job(world, path).result.success
    before = events(world.instance)
    run_job(world, path)
    assert events(world.instance) == before


def test_an_import_restores_a_damaged_answer_in_the_archive(world: World, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    import_into(world.archive, path)
    (record,) = world.archive.revisions(DAY)
    local(record.path).write_bytes(b"damaged")
    assert run_job(world, path).result.success
    assert translation(world) == figure(FIGURES[0])
    assert counts(import_into(world.archive, path)) == (0, 1, 0, 0)
    assert world.archive.revisions(DAY) == [record]


def test_a_day_with_a_damaged_record_is_imported_as_its_next_revision(world: World, tmp_path: Path) -> None:
    local(world.store(FIGURES[0]).record.path).with_name("record.json").unlink()
    assert counts(import_into(world.archive, week_in(tmp_path / "inbox"))) == (6, 0, 1, 0)
    assert [record.revision for record in world.archive.revisions(DAY)] == [2]


@pytest.mark.parametrize("name", ["task_classifications.json.gz", "record.json"])
def test_a_missing_file_of_the_archive_is_found_by_reading_all_of_it(world: World, name: str) -> None:
    stored = world.store(FIGURES[0])
    world.store(sample_answer(WEEK[0]))
    local(stored.record.path).with_name(name).unlink()
    (error,) = damaged_answers(world.archive)
    assert name in str(error)


def test_a_foreign_file_among_the_undated_answers_is_not_damage(world: World) -> None:
    world.store(b"<html>")
    (local(world.archive.root) / "undated" / ".DS_Store").write_bytes(b"x")
    assert damaged_answers(world.archive) == []


def test_if_the_newest_answer_is_damaged_the_tables_get_the_newest_valid_one(world: World) -> None:
    world.store(FIGURES[0], fetched_at=served(DAY, 1))
    newest = world.store(FIGURES[1], fetched_at=served(DAY, 2)).record
    local(newest.path).write_bytes(b"damaged")
    rebuilt = rebuild(world.archive, world.warehouse, now=NOON)
    assert list(rebuilt.errors) == [DAY]
    assert translation(world) == figure(FIGURES[0])


def test_a_rebuild_names_its_days_in_order_and_those_that_only_some_tables_have(world: World) -> None:
    for day in WEEK[:3]:
        world.store(sample_answer(day), fetched_at=served(day))
    world.store(sample_answer(WEEK[1], change=_monthly), fetched_at=served(WEEK[1], 5))
    assert rebuild(world.archive, world.warehouse, now=NOON).days == WEEK[:3]
    with world.warehouse.transaction() as connection:
        connection.execute("DELETE FROM openrouter.snapshots")
        connection.execute("UPDATE openrouter.task_models SET position = position + 100")
        connection.execute(
            "INSERT INTO openrouter.macro_categories BY NAME "
            "SELECT * REPLACE (DATE '2026-09-01' AS as_of) FROM openrouter.macro_categories WHERE as_of = ?",
            [WEEK[0]],
        )
    again = rebuild(world.archive, world.warehouse, now=NOON)
    assert {difference.table for difference in again.differences} == {"snapshots", "task_models"}
    assert [str(day) for day in again.unarchived] == ["2026-09-01"]
