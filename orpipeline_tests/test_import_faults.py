"""What is wrong with one file, one member or one archived day does not keep the others from coming in."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orpipeline.importing.formats import AnswerFile, FoundAnswer, NoAnswer, NoSuchFileError, find_files, read_answers
from orpipeline.rebuild import damaged_answers, rebuild
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.imports import WEEK, envelope, respelt, restated, run_job, served, tar_of, week_in, write, zip_of
from orpipeline_tests.test_import import FIGURES, events, figure, take_in, translation
from orpipeline_tests.world import NOON, World, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")


def _read(path: Path) -> list[FoundAnswer | NoAnswer]:
    return list(read_answers(AnswerFile(path, path.name)))


def _bodies(items: list[FoundAnswer | NoAnswer]) -> list[bytes]:
    return [item.body for item in items if isinstance(item, FoundAnswer)]


def _as_of_a_month(data: dict[str, Any]) -> None:
    data["window_days"] = 30


def test_a_damaged_member_of_a_zip_is_refused_by_itself(tmp_path: Path) -> None:
    members = [("a.json", answer(WEEK[0])), ("b.json", answer(WEEK[1]))]
    damaged = zip_of(members, zipfile.ZIP_STORED).replace(b'"data"', b'"dXta"', 1)
    items = _read(write(tmp_path / "days.zip", damaged))
    assert [item.source for item in items if isinstance(item, NoAnswer)] == ["days.zip/a.json"]
    assert _bodies(items) == [answer(WEEK[1])]


@pytest.mark.parametrize("position", [45, 60, 200])
def test_a_member_that_was_packed_with_lzma_and_is_damaged_is_refused(tmp_path: Path, position: int) -> None:
    packed = bytearray(zip_of([("a.json", answer(WEEK[0])), ("b.json", answer(WEEK[1]))], zipfile.ZIP_LZMA))
    packed[position : position + 20] = b"U" * 20
    items = _read(write(tmp_path / "days.zip", bytes(packed)))
    assert any(isinstance(item, NoAnswer) for item in items)


@pytest.mark.parametrize("mtime", [10**12, -(10**12)])
def test_a_member_from_an_absurd_time_is_read(tmp_path: Path, mtime: int) -> None:
    packed = tar_of([("a.json", FIGURES[0])], mtime=mtime, gzipped=False)
    (item,) = _read(write(tmp_path / "days.tar", packed))
    assert isinstance(item, FoundAnswer)
    assert item.modified_at is None


def test_a_zip_whose_names_are_no_text_is_refused(tmp_path: Path) -> None:
    packed = zip_of([("é.json", FIGURES[0])]).replace("é".encode(), b"\xff\xff")
    assert [type(item) for item in _read(write(tmp_path / "days.zip", packed))] == [NoAnswer]


def test_a_zip_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    (item,) = _read(write(tmp_path / "days.zip", zip_of([("README", b"nothing")])))
    assert isinstance(item, NoAnswer)


def test_an_answer_with_nan_in_an_envelope_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    broken = FIGURES[0].replace(b'"usage_share": 0', b'"usage_share": NaN, "x": 0', 1)
    items = _read(write(tmp_path / "two.json", envelope(broken, answer(WEEK[0]))))
    assert b"NaN" in broken
    assert _bodies(items)[1] == answer(WEEK[0])


def test_revisions_without_fetch_times_are_taken_in_the_order_of_their_numbers(world: World, tmp_path: Path) -> None:
    for n in range(1, 12):
        name = f"{DAY}.json" if n == 1 else f"{DAY}.r{n}.json"
        write(tmp_path / "inbox" / name, answer(bend=restated(n / 1000)))
    take_in(world, tmp_path / "inbox")
    assert translation(world) == figure(answer(bend=restated(0.011)))


def test_a_fetch_time_that_is_still_to_come_does_not_make_an_answer_the_newest(world: World, tmp_path: Path) -> None:
    take_in(world, write(tmp_path / "a.json", envelope(FIGURES[0], fetched_at=NOON + timedelta(days=4000))))
    take_in(world, write(tmp_path / "b.json", envelope(FIGURES[1], fetched_at=served(DAY, 1))))
    assert translation(world) == figure(FIGURES[1])


def test_names_in_capitals_and_patterns_below_the_home_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "inbox" / "A.JSON", FIGURES[0])
    assert len(find_files([str(tmp_path / "inbox")])) == 1
    assert len(find_files(["~/*/*.JSON"])) == 1


def test_a_name_that_no_file_can_have_names_no_file() -> None:
    with pytest.raises(NoSuchFileError):
        find_files(["x" * 300])


@pytest.mark.parametrize(
    "bodies", [(FIGURES[0], respelt(FIGURES[0])), (FIGURES[0], FIGURES[1], FIGURES[0]), (FIGURES[1], FIGURES[0])]
)
def test_a_dry_run_counts_what_the_import_then_does(world: World, tmp_path: Path, bodies: tuple[bytes, ...]) -> None:
    times = [served(DAY, n) for n in range(len(bodies))]
    path = write(tmp_path / "days.json", envelope(*bodies, each=times))
    assert run_job(world, path, dry_run=True).counts == run_job(world, path).counts


def test_a_dry_run_does_not_say_that_anything_is_in(world: World, tmp_path: Path) -> None:
    write(tmp_path / "inbox" / "a.json", FIGURES[0])
    write(tmp_path / "inbox" / "b.json", b"{}")
    said = failure_of(run_job(world, tmp_path / "inbox", dry_run=True).result).description
    assert "Would come in: 1; there already: 0." in (said or "")


def test_a_day_whose_newest_answer_is_refused_is_not_made_again_by_each_import(world: World, tmp_path: Path) -> None:
    world.keep(answer(bend=_as_of_a_month), origin="api", fetched_at=served(DAY, 9))
    path = write(tmp_path / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    assert run_job(world, path).result.success
    before = events(world.instance)
    run_job(world, path)
    assert events(world.instance) == before


def test_an_import_mends_a_damaged_answer_of_the_archive(world: World, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    run_job(world, path)
    (record,) = world.archive.revisions(DAY)
    record.path.write_bytes(b"damaged")
    world.warehouse.path.unlink()
    assert run_job(world, path).result.success
    assert translation(world) == figure(FIGURES[0])
    assert run_job(world, path).counts == (0, 1, 0, 0)
    assert [r.revision for r in world.archive.revisions(DAY)] == [1, 2]


def test_an_archived_day_without_its_record_is_refused_by_itself(world: World, tmp_path: Path) -> None:
    kept = world.keep(FIGURES[0])
    kept.record.path.with_name("record.json").unlink()
    imported = run_job(world, week_in(tmp_path / "inbox"))
    assert imported.counts == (6, 0, 0, 1)


@pytest.mark.parametrize("lost", ["task_classifications.json.gz", "record.json"])
def test_a_file_that_is_gone_from_the_archive_is_found_by_reading_all_of_it(world: World, lost: str) -> None:
    kept = world.keep(FIGURES[0])
    world.keep(answer(WEEK[0]))
    kept.record.path.with_name(lost).unlink()
    (error,) = damaged_answers(world.archive)
    assert lost in str(error)


def test_a_stray_file_among_the_answers_kept_aside_is_no_damage(world: World) -> None:
    world.keep(b"<html>")
    (world.archive.root / "undated" / ".DS_Store").write_bytes(b"x")
    assert damaged_answers(world.archive) == []


def test_a_damaged_newest_answer_gives_way_to_the_newest_that_holds(world: World) -> None:
    world.keep(FIGURES[0], fetched_at=served(DAY, 1))
    newest = world.keep(FIGURES[1], fetched_at=served(DAY, 2)).record
    newest.path.write_bytes(b"damaged")
    rebuilt = rebuild(world.archive, world.warehouse, now=NOON)
    assert list(rebuilt.errors) == [DAY]
    assert translation(world) == figure(FIGURES[0])


def test_a_rebuild_names_its_days_in_order_and_rows_without_their_snapshot(world: World) -> None:
    for day in WEEK[:3]:
        world.keep(answer(day), fetched_at=served(day))
    world.keep(answer(WEEK[1], _as_of_a_month), fetched_at=served(WEEK[1], 5))
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
