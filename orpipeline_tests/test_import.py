"""Imports: what somebody else kept comes into archive, tables and Dagster, whole, and once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orpipeline.archive.folder import Archive
from orpipeline.contracts.tables import TABLES
from orpipeline.definitions import defs
from orpipeline.defs.imports import import_archive
from orpipeline.defs.resources import resources
from orpipeline.defs.specs import DAILY_ASSETS, DATA_VERSION_TAG
from orpipeline.importing.formats import find_files
from orpipeline.importing.importer import PartlyImportedError, import_files
from orpipeline.rebuild import make_tables, out_of_date
from orpipeline.settings import load_settings
from orpipeline_tests.answers import DAY, answer, tag
from orpipeline_tests.commands import run_command
from orpipeline_tests.imports import (
    WEEK,
    counts,
    envelope,
    files,
    in_every_asset,
    materialized,
    respelt,
    restated,
    run_job,
    served,
    tar_of,
    week_in,
    write,
    zip_of,
)
from orpipeline_tests.violations import VIOLATIONS
from orpipeline_tests.world import NOON, World, failure_of

REAL = Path(__file__).parents[2] / "shared" / "real" / "task_classifications_2026-10-06.json"
FIRST = date(2026, 6, 17)
FIGURES = [answer(bend=None), answer(bend=restated(0.004)), answer(bend=restated(0.002))]


@pytest.fixture(autouse=True)
def _at_noon(request: pytest.FixtureRequest) -> None:
    # A command has a process of its own, with the clock of the machine.
    if "own_clock" not in request.fixturenames:
        request.getfixturevalue("at_noon")


@pytest.fixture
def own_clock() -> None:
    """The machine's own clock, which the test's other processes have too."""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder for files that are to be imported."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def take_in(world: World, *paths: Path) -> tuple[int, int, int, int]:
    """Import files without Dagster; return how many answers were new, the same, restated and refused."""
    found = find_files([str(path) for path in paths])
    imported = import_files(world.archive, found, first=FIRST, newest=DAY)
    wanted = out_of_date(world.archive, world.warehouse, imported.days, now=NOON)
    for _ in make_tables(world.archive, world.warehouse, wanted, now=NOON):
        pass
    return counts(imported)


def archived(world: World, day: date = DAY) -> list[bytes]:
    """Return a day's answers in the order in which they were fetched."""
    return [world.archive.read(record) for record in world.archive.revisions(day)]


def translation(world: World, day: date = DAY) -> float:
    """Return a figure that tells the revisions of a day from each other."""
    (row,) = world.warehouse.read("task_classifications", since=day, until=day).filter(tag="translation").to_dicts()
    return float(row["usage_share"])


def figure(body: bytes) -> float:
    return float(tag(json.loads(body)["data"], "translation")["usage_share"])


# Conflicts


def test_the_same_bytes_again_are_the_same(world: World, inbox: Path) -> None:
    path = write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY)))
    assert take_in(world, path) == (1, 0, 0, 0)
    copy = write(inbox / "b.json.gz", gzip.compress(FIGURES[0]))
    assert take_in(world, copy) == take_in(world, path) == (0, 1, 0, 0)
    assert archived(world) == [FIGURES[0]]


def test_the_same_content_in_other_bytes_is_the_same(world: World, inbox: Path) -> None:
    world.keep(FIGURES[0], origin="api", fetched_at=served(DAY))
    for hours in (0.1, 5):
        path = write(inbox / "a.json", envelope(respelt(FIGURES[0]), fetched_at=served(DAY, hours)))
        assert take_in(world, path) == (0, 1, 0, 0)
    assert archived(world) == [FIGURES[0]]


@dataclass(frozen=True)
class Two:
    """Two answers for one day, the second brought after the first: when each was fetched, and which one stays."""

    first: datetime | None
    second: datetime | None
    newest: int


CONFLICTS = {
    "fetched later": Two(served(DAY, 1), served(DAY, 2), newest=1),
    "fetched earlier": Two(served(DAY, 2), served(DAY, 1), newest=0),
    "fetched at the same time": Two(served(DAY, 1), served(DAY, 1), newest=1),
    "at a time nobody knows": Two(served(DAY, 1), None, newest=0),
    "instead of one of an unknown time": Two(None, served(DAY, 1), newest=1),
    "both at times nobody knows": Two(None, None, newest=1),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_other_content_is_a_revision_and_the_tables_have_the_one_fetched_last(
    world: World, inbox: Path, name: str
) -> None:
    case = CONFLICTS[name]
    for n, at in enumerate((case.first, case.second)):
        path = write(inbox / f"{n}.json", envelope(FIGURES[n], fetched_at=at), served(DAY, 999))
        assert take_in(world, path) == ((0, 0, 1, 0) if n else (1, 0, 0, 0))
    assert sorted(archived(world)) == sorted(FIGURES[:2])
    assert translation(world) == figure(FIGURES[case.newest])
    (row,) = world.tables()["snapshots"]
    assert row["revision"] == case.newest + 1


@pytest.mark.parametrize(
    ("hours", "counts_as_fetch_time"), [(-0.01, False), (0, True), (23.99, True), (24.01, False), (999, False)]
)
def test_a_file_written_while_the_api_served_the_answer_was_fetched_then(
    world: World, inbox: Path, hours: float, counts_as_fetch_time: bool
) -> None:
    take_in(world, write(inbox / "a.json", FIGURES[0], served(DAY, hours)))
    (record,) = world.archive.revisions(DAY)
    assert record.fetched_at_known == counts_as_fetch_time
    assert record.fetched_at == (served(DAY, hours) if counts_as_fetch_time else record.fetched_at)


def test_a_members_own_time_in_a_tar_counts(world: World, inbox: Path) -> None:
    packed = tar_of([("a.json", FIGURES[0])], mtime=served(DAY, 2).timestamp())
    take_in(world, write(inbox / "t.tar.gz", packed, served(DAY, 9)))
    assert [record.fetched_at for record in world.archive.revisions(DAY)] == [served(DAY, 2)]


def test_a_fetch_time_that_is_told_wins_over_the_files_own(world: World, inbox: Path) -> None:
    take_in(world, write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)), served(DAY, 20)))
    assert [record.fetched_at for record in world.archive.revisions(DAY)] == [served(DAY, 1)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_revisions_in_one_folder_come_in_by_fetch_time_whatever_their_order(
    world: World, inbox: Path, order: Sequence[int]
) -> None:
    for place, n in enumerate(order):
        content = gzip.compress(envelope(FIGURES[n], fetched_at=served(DAY, n)))
        write(inbox / f"2026-10-06{f'.r{place + 1}' if place else ''}.json.gz", content)
    assert take_in(world, inbox) == (1, 0, 2, 0)
    assert archived(world) == FIGURES
    assert [record.revision for record in world.archive.revisions(DAY)] == [1, 2, 3]
    assert translation(world) == figure(FIGURES[2])
    assert take_in(world, inbox) == (0, 3, 0, 0)


def test_revisions_without_times_come_in_as_their_names_say(world: World, inbox: Path) -> None:
    for n, name in enumerate(("2026-10-06.json", "2026-10-06.r2.json", "2026-10-06.r3.json")):
        write(inbox / name, FIGURES[n])
    assert take_in(world, inbox) == (1, 0, 2, 0)
    assert archived(world) == FIGURES
    assert translation(world) == figure(FIGURES[2])


def test_one_day_many_times_in_one_envelope_becomes_its_revisions(world: World, inbox: Path) -> None:
    bodies = [FIGURES[0], FIGURES[1], respelt(FIGURES[1]), FIGURES[0]]
    times = [served(DAY, hours) for hours in range(4)]
    path = write(inbox / "e.json", envelope(*bodies, each=times))
    # The figures went back: the first answer is there twice, with another between.
    assert take_in(world, path) == (1, 1, 2, 0)
    assert archived(world) == [FIGURES[0], FIGURES[1], FIGURES[0]]
    assert translation(world) == figure(FIGURES[0])
    assert take_in(world, path) == (0, 4, 0, 0)
    assert len(archived(world)) == 3


def test_an_older_answer_imported_after_a_fetch_leaves_the_tables_as_they_are(world: World, inbox: Path) -> None:
    world.keep(FIGURES[1], origin="api", fetched_at=served(DAY, 9))
    world.run(DAY)
    before = world.tables()
    assert take_in(world, write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))) == (0, 0, 1, 0)
    assert world.tables() == before
    assert len(archived(world)) == 2


def test_a_row_traces_to_the_archives_bytes_and_to_the_file(world: World, inbox: Path) -> None:
    path = write(inbox / "2026.zip", zip_of([("a/1.json", envelope(FIGURES[0], fetched_at=served(DAY)))]))
    assert take_in(world, path) == (1, 0, 0, 0)
    (row,), (record,) = world.tables()["snapshots"], world.archive.revisions(DAY)
    assert (row["origin"], row["source"], row["fetched_at"]) == ("import", "2026.zip/a/1.json", served(DAY))
    assert (row["sha256"], row["bytes"], row["revision"]) == (record.sha256, len(FIGURES[0]), 1)
    assert archived(world) == [FIGURES[0]]


def test_what_a_demo_made_up_stays_a_demos(world: World, tmp_path: Path) -> None:
    theirs = Archive(tmp_path / "theirs")
    theirs.put(FIGURES[0], fetched_at=served(DAY, 3), source="made up", origin="demo")
    assert take_in(world, theirs.root) == (1, 0, 0, 0)
    (row,) = world.tables()["snapshots"]
    assert (row["origin"], row["fetched_at"]) == ("demo", served(DAY, 3))
    assert "demo" in row["citation"].lower()


# What does not come in


def test_broken_and_invalid_answers_are_listed_and_all_others_come_in(world: World, inbox: Path) -> None:
    one_a_rule = {v.rule: v for v in VIOLATIONS if v.rule != "as_of_is_the_partition"}
    for rule, violation in one_a_rule.items():
        write(inbox / "invalid" / f"{rule}.json", answer(bend=violation.bend))
    write(inbox / "2026-10-02.json", b'{"data":')
    days = [WEEK[0], WEEK[3], WEEK[5]]
    run = run_job(world, week_in(inbox, days))
    assert run.imported.new == world.archive.days() == days
    assert materialized(world.instance) == in_every_asset(days)
    reasons = {no.source: no.reason for no in run.imported.refused}
    assert "no JSON" in reasons.pop("inbox/2026-10-02.json")
    assert len(reasons) == len(one_a_rule) >= 14
    for rule in one_a_rule:
        reason = reasons[f"inbox/invalid/{rule}.json"]
        assert reason.startswith("Rules broken: ")
        assert rule in reason
    with pytest.raises(PartlyImportedError, match=f"Refused: {len(one_a_rule) + 1}\\. Came in: 3; .*; and .* more"):
        run.imported.raise_for_refused()


@pytest.mark.parametrize("as_of", [None, "soon", 20261006, "2026-13-01"])
def test_an_answer_of_no_day_is_refused_and_not_kept_aside(world: World, inbox: Path, as_of: object) -> None:
    path = write(inbox / "a.json", answer(bend=lambda data: data.update(as_of=as_of)))
    run = run_job(world, path)
    assert run.counts == (0, 0, 0, 1)
    assert "states no day" in run.imported.refused[0].reason
    assert not world.archive.root.exists()


def test_days_outside_the_partitions_are_refused(world: World, inbox: Path) -> None:
    for day in (DAY + timedelta(days=1), FIRST - timedelta(days=1), FIRST, DAY):
        write(inbox / f"{day}.json", answer(day))
    run = run_job(world, inbox)
    assert run.imported.new == [FIRST, DAY]
    assert {no.source: no.reason for no in run.imported.refused} == {
        "inbox/2026-10-07.json": "2026-10-07 is not over yet in UTC",
        "inbox/2026-06-16.json": (
            "2026-06-16 is before the first partition, 2026-06-17; ORPIPELINE_START_DATE moves it"
        ),
    }
    assert world.archive.days() == [FIRST, DAY]
    assert materialized(world.instance) == in_every_asset([FIRST, DAY])


def test_a_day_of_which_nothing_holds_stays_out_of_everything(world: World, inbox: Path) -> None:
    write(inbox / "a.json", answer(bend=lambda data: data.update(window_days=30)))
    run = run_job(world, inbox)
    assert run.counts == (0, 0, 0, 1)
    assert world.archive.days() == []
    assert world.tables() == {name: [] for name in TABLES}
    assert materialized(world.instance) == in_every_asset([])


def test_a_days_invalid_answer_does_not_keep_a_valid_one_of_it_out(world: World, inbox: Path) -> None:
    write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    invalid = answer(bend=lambda data: data.update(window_days=30))
    write(inbox / "b.json", envelope(invalid, fetched_at=served(DAY, 2)))
    assert take_in(world, inbox) == (1, 0, 0, 1)
    assert archived(world) == [FIGURES[0]]
    assert translation(world) == figure(FIGURES[0])


# The job, and what Dagster knows afterwards


def test_dagster_shows_the_imported_days_in_every_asset_and_the_holes_in_none(world: World, inbox: Path) -> None:
    there = [WEEK[0], WEEK[1], WEEK[4], WEEK[6]]
    write(inbox / "broken.json.gz", gzip.compress(answer(WEEK[2]))[:-30])
    run = run_job(world, week_in(inbox, there))
    assert run.counts == (4, 0, 0, 1)
    assert materialized(world.instance) == in_every_asset(there)
    for rows in world.tables().values():
        assert {row["as_of"] for row in rows} == set(there)
    # The run says what was refused, once everything else is done.
    failure = failure_of(run.result)
    said = "Refused: 1. Came in: 4; there already: 0. inbox/broken.json.gz: it is damaged"
    assert said in str(failure.description)
    refused = failure.metadata["refused"]
    assert isinstance(refused, dg.TableMetadataValue)
    assert [record.data["file"] for record in refused.records] == ["inbox/broken.json.gz"]


def test_a_range_over_imported_days_with_holes_is_materialized_where_the_archive_has_the_day(
    world: World, inbox: Path
) -> None:
    there = [WEEK[0], WEEK[3], WEEK[4]]
    found = find_files([str(week_in(inbox, there))])
    import_files(world.archive, found, first=FIRST, newest=DAY)
    failure = failure_of(world.run(WEEK[0], WEEK[5]))
    assert "3 of 6 days" in str(failure.description)
    assert materialized(world.instance) == in_every_asset(there)


def test_each_days_events_carry_the_data_version_of_its_bytes(world: World, inbox: Path) -> None:
    assert run_job(world, week_in(inbox, WEEK[:3])).result.success
    for day in WEEK[:3]:
        record = world.archive.latest(day)
        assert record is not None
        assert versions(world.instance, day) == {key.path[-1]: record.sha256 for key in DAILY_ASSETS}


def versions(instance: dg.DagsterInstance, day: date) -> dict[str, str | None]:
    """Return the data version of each asset's latest materialization of a day."""
    tags = {
        key.path[-1]: instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
        )
        for key in DAILY_ASSETS
    }
    return {name: of_days.get(day.isoformat(), {}).get(DATA_VERSION_TAG) for name, of_days in tags.items()}


def events(instance: dg.DagsterInstance) -> int:
    """Return how many materializations the instance has."""
    return sum(len(instance.fetch_materializations(key, limit=1000).records) for key in DAILY_ASSETS)


def test_a_second_import_changes_nothing_and_logs_nothing(world: World, inbox: Path) -> None:
    week_in(inbox, WEEK[:3])
    write(inbox / "r2.json", envelope(answer(WEEK[0], restated(0.004)), fetched_at=served(WEEK[0], 9)))
    write(inbox / "older.json", envelope(answer(WEEK[1], restated(0.004)), fetched_at=served(WEEK[1], 0.1)))
    assert run_job(world, inbox).counts == (3, 0, 2, 0)
    before = files(world.archive.root), world.tables(), events(world.instance)
    assert before[2] == 3 * len(DAILY_ASSETS)
    run = run_job(world, inbox)
    assert (run.result.success, run.counts) == (True, (0, 5, 0, 0))
    assert (files(world.archive.root), world.tables(), events(world.instance)) == before


def test_a_restated_day_is_reported_again_and_no_other_is(world: World, inbox: Path) -> None:
    run_job(world, week_in(inbox, WEEK[:3]))
    before = events(world.instance)
    write(inbox / "r2.json", envelope(answer(WEEK[1], restated(0.004)), fetched_at=served(WEEK[1], 9)))
    assert run_job(world, inbox).imported.restated == [WEEK[1]]
    assert events(world.instance) == before + len(DAILY_ASSETS)
    newest = world.archive.latest(WEEK[1])
    assert newest is not None
    assert set(versions(world.instance, WEEK[1]).values()) == {newest.sha256}
    assert translation(world, WEEK[1]) == figure(answer(WEEK[1], restated(0.004)))


def test_days_that_dagster_does_not_know_are_reported_though_archive_and_tables_have_them(
    world: World, inbox: Path
) -> None:
    week_in(inbox, WEEK[:2])
    assert take_in(world, inbox) == (2, 0, 0, 0)
    assert materialized(world.instance) == in_every_asset([])
    assert run_job(world, inbox).counts == (0, 2, 0, 0)
    assert materialized(world.instance) == in_every_asset(WEEK[:2])


def test_a_warehouse_that_is_gone_is_made_again_by_the_next_import(world: World, inbox: Path) -> None:
    week_in(inbox, WEEK[:2])
    run_job(world, inbox)
    before = world.tables()
    world.warehouse.path.unlink()
    assert run_job(world, inbox).counts == (0, 2, 0, 0)
    assert world.tables() == before


def test_a_dry_run_says_the_same_and_changes_nothing(world: World, inbox: Path) -> None:
    world.keep(FIGURES[0], fetched_at=served(DAY, 1))
    week_in(inbox, WEEK)
    write(inbox / "r2.json", envelope(FIGURES[1], fetched_at=served(DAY, 2)))
    write(inbox / "again.json", answer(WEEK[0]))
    write(inbox / "bad.json", b"{}")
    before = files(world.folder)
    dry = run_job(world, inbox, dry_run=True)
    assert files(world.folder) == before
    assert materialized(world.instance) == in_every_asset([])
    assert dry.counts == (6, 2, 1, 1)
    real = run_job(world, inbox)
    assert real.counts == dry.counts
    assert real.imported.refused == dry.imported.refused


def test_a_dry_run_into_nothing_makes_no_folder(world: World, inbox: Path) -> None:
    run = run_job(world, week_in(inbox), dry_run=True)
    assert (run.result.success, run.counts) == (True, (7, 0, 0, 0))
    assert not world.folder.exists()


def test_the_code_locations_job_takes_its_paths_from_the_launchpad(world: World, inbox: Path) -> None:
    week_in(inbox, WEEK[:2])
    config = {"ops": {"import_snapshots": {"config": {"paths": [str(inbox / "*.json")]}}}}
    assert dg.validate_run_config(defs.resolve_job_def("import_archive"), config)
    # The code location's own resources were made when the tests began, for another data folder.
    here = dg.Definitions(jobs=[import_archive], resources=resources(load_settings()))
    result = here.resolve_job_def("import_archive").execute_in_process(instance=world.instance, run_config=config)
    assert result.success
    assert materialized(world.instance) == in_every_asset(WEEK[:2])
    assert world.archive.days() == WEEK[:2]


def test_a_path_that_is_not_there_fails_the_run_before_anything_comes_in(world: World, inbox: Path) -> None:
    run = run_job(world, week_in(inbox), inbox / "gone.json")
    assert "gone.json: there is no file" in str(failure_of(run.result).description)
    assert not world.folder.exists()


# The command


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, folder=folder, environment=place(folder) | environment)


def place(folder: Path) -> dict[str, str]:
    return {"ORPIPELINE_DATA_DIR": str(folder / "data"), "ORPIPELINE_START_DATE": WEEK[0].isoformat()}


def world_of(folder: Path, instance: dg.DagsterInstance) -> World:
    return World(folder / "data", instance)


@pytest.mark.usefixtures("own_clock")
def test_the_command_says_what_came_in_what_did_not_and_what_is_missing(tmp_path: Path, inbox: Path) -> None:
    week_in(inbox, [WEEK[0], WEEK[1], WEEK[4]])
    write(inbox / "r2.json", envelope(answer(WEEK[1], restated(0.004)), fetched_at=served(WEEK[1], 9)))
    write(inbox / "early.json", answer(WEEK[0] - timedelta(days=1)))
    write(inbox / "broken.jsonl", answer(WEEK[4]) + b"\n{oops\n")
    dry = command(tmp_path, "import", "inbox", "--dry-run")
    assert not (tmp_path / "data").exists()
    done = command(tmp_path, "import", "inbox")
    said = done.stdout.splitlines()
    assert (done.returncode, said[0]) == (1, "What came in:"), done.stderr
    assert [line.split(maxsplit=1)[1] for line in said[1:4]] == [
        "3 days, 2026-09-30 to 2026-10-04",
        "1 day, 2026-10-04",
        "1 day, 2026-10-01",
    ]
    assert "2: 2026-10-02 to 2026-10-03" in said[5]
    assert sorted(line.split(": ")[1] for line in said[6:]) == ["inbox/broken.jsonl:2", "inbox/early.json"]
    (complaint,) = [line for line in done.stderr.splitlines() if line]
    assert complaint.startswith("orpipeline: Refused: 2. Came in: 4; there already: 1.")
    # The dry run said just that.
    assert (dry.returncode, dry.stdout.splitlines()[1:]) == (1, said[1:])
    with dg.DagsterInstance.from_config(str(tmp_path / "data" / "dagster")) as instance:
        assert materialized(instance) == in_every_asset([WEEK[0], WEEK[1], WEEK[4]])


@pytest.mark.usefixtures("own_clock")
def test_a_path_that_is_not_there_is_wrong_use(tmp_path: Path, inbox: Path) -> None:
    for path in ("gone-*.json", "inbox"):
        done = command(tmp_path, "import", path)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert f"{path}: there is no file that could hold answers" in done.stderr
    assert not (tmp_path / "data").exists()
    assert inbox.exists()


@pytest.mark.skipif(
    not REAL.exists(), reason="the real answer lies beside the project, and is not here: ../shared/real"
)
def test_the_real_answer_in_its_envelope_comes_in_among_made_up_days(world: World, inbox: Path) -> None:
    body = REAL.read_bytes()
    week_in(inbox, WEEK[:-1])
    write(inbox / "2026-10-06.json.gz", gzip.compress(envelope(body, fetched_at=served(DAY))))
    run = run_job(world, inbox)
    assert (run.result.success, run.counts) == (True, (7, 0, 0, 0))
    assert archived(world) == [body]
    said: dict[str, Any] = json.loads(body)["data"]
    rows = world.warehouse.read("task_classifications", since=DAY, until=DAY).to_dicts()
    assert {row["tag"]: row["usage_share"] for row in rows} == {
        task["tag"]: task["usage_share"] for task in said["classifications"]
    }
    models = world.warehouse.read("task_models", since=DAY, until=DAY)
    assert len(models) == sum(len(task["models"]) for task in said["classifications"])
    board = world.warehouse.read("model_leaderboard", since=DAY, until=DAY).filter(scope="all")
    assert len(board) == 43
    assert materialized(world.instance) == in_every_asset(WEEK)


# Interrupted


REPLACE, COMMIT = "orpipeline.warehouse.database:_replace", "duckdb:DuckDBPyConnection.commit"
LOG = "orpipeline.defs.events:log_day"


@dataclass(frozen=True)
class Interruption:
    """A moment of an import of four days with two revisions more, and how the import ends there."""

    at: str
    by: str = "SIGKILL"


INTERRUPTIONS = {
    "the first answer is half written": Interruption("orpipeline.archive.folder:_write_synced 2"),
    "some answers are in": Interruption("after orpipeline.archive.folder:Archive._write 3"),
    "the tables lack the days": Interruption(f"{REPLACE} 3"),
    "the tables have the days, Dagster does not": Interruption(f"after {COMMIT}"),
    "Dagster knows some days of some assets": Interruption(f"after {LOG} 9"),
    "asked to end while answers come in": Interruption("after orpipeline.archive.folder:Archive._write 3", "SIGINT"),
    "asked to end while Dagster is told": Interruption(f"after {LOG} 9", "SIGTERM"),
}
DAYS = WEEK[:4]


def doomed_import(folder: Path, case: Interruption) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orpipeline_tests.doomed", "import", "inbox"],
        cwd=folder,
        env={**os.environ, **place(folder), "NO_COLOR": "1", "DOOMED_AT": case.at, "DOOMED_BY": case.by},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fill(inbox: Path) -> None:
    """Four days of which two have a second revision; the first was known and is restated by it."""
    week_in(inbox, DAYS)
    for day in DAYS[:2]:
        write(inbox / f"{day}.r2.json", envelope(answer(day, restated(0.004)), fetched_at=served(day, 9)))


def known_before(folder: Path) -> None:
    """Import the first day as it was at first."""
    path = week_in(folder / "before", DAYS[:1])
    with dg.DagsterInstance.from_config(str(home(folder))) as instance:
        assert run_job(world_of(folder, instance), path).counts == (1, 0, 0, 0)


def home(folder: Path) -> Path:
    path = folder / "data" / "dagster"
    path.mkdir(parents=True, exist_ok=True)
    return path


State = tuple[dict[str, list[bytes]], dict[str, list[dict[str, Any]]], dict[str, set[str]], list[dict[str, str | None]]]


def state_of(world: World) -> State:
    """Return what an import leaves, in archive, tables and Dagster."""
    answers = {str(day): archived(world, day) for day in world.archive.days()}
    tables = world.tables()
    told = [versions(world.instance, day) for day in DAYS]
    return answers, tables, materialized(world.instance), told


@pytest.fixture(scope="module")
def starting_point(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where the first day was imported, and the others lie ready."""
    folder = tmp_path_factory.mktemp("start")
    fill(folder / "inbox")
    known_before(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(starting_point: Path, tmp_path_factory: pytest.TempPathFactory) -> State:
    """What an import leaves that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(starting_point, folder, dirs_exist_ok=True)
    with dg.DagsterInstance.from_config(str(home(folder))) as instance:
        run = run_job(world_of(folder, instance), folder / "inbox")
        assert run.counts == (3, 1, 2, 0)
        return state_of(world_of(folder, instance))


@pytest.fixture(scope="module")
def interrupted(
    request: pytest.FixtureRequest, starting_point: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[tuple[Path, subprocess.CompletedProcess[str]]]]]:
    """The selected interruptions, two at a time."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    points = [point for call in calls if call is not None and (point := call.params.get("point")) in INTERRUPTIONS]

    def interrupt(folder: Path, case: Interruption) -> tuple[Path, subprocess.CompletedProcess[str]]:
        shutil.copytree(starting_point, folder, dirs_exist_ok=True)
        return folder, doomed_import(folder, case)

    with ThreadPoolExecutor(2) as pool:
        yield {
            point: pool.submit(interrupt, tmp_path_factory.mktemp("interrupted"), INTERRUPTIONS[point])
            for point in points
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.usefixtures("own_clock")
@pytest.mark.parametrize("point", INTERRUPTIONS)
def test_an_interrupted_import_is_whole_and_goes_on_to_what_an_undisturbed_one_leaves(
    point: str,
    interrupted: Mapping[str, Future[tuple[Path, subprocess.CompletedProcess[str]]]],
    undisturbed: State,
) -> None:
    folder, done = interrupted[point].result()
    case = INTERRUPTIONS[point]
    assert done.returncode == (-signal.SIGKILL if case.by == "SIGKILL" else 130), done.stderr
    if case.by != "SIGKILL":
        lines = [line for line in done.stderr.splitlines() if line]
        assert lines == ["orpipeline: interrupted; the archive and the tables are consistent."]
    with dg.DagsterInstance.from_config(str(home(folder))) as instance:
        world = world_of(folder, instance)
        # Nothing half: every archived answer is one of the files', every day's tables are one revision's.
        for day in world.archive.days():
            assert set(archived(world, day)) <= {answer(day), answer(day, restated(0.004))}
        stored = {row["as_of"] for row in world.tables()["snapshots"]}
        assert stored in ({DAYS[0]}, set(DAYS))
        for rows in world.tables().values():
            assert {row["as_of"] for row in rows} == stored
        assert run_job(world, folder / "inbox").result.success
        assert state_of(world) == undisturbed
        assert run_job(world, folder / "inbox").counts == (0, 6, 0, 0)
        assert state_of(world) == undisturbed
