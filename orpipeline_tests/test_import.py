"""Imports into the archive, and the job that imports into the archive, the tables and Dagster."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from operator import methodcaller
from pathlib import Path

import dagster as dg
import pytest

from orpipeline.archive import Archive, Content
from orpipeline.clock import missing_days
from orpipeline.defs.checks import CHECKS, check_specs
from orpipeline.defs.names import Names
from orpipeline.errors import PartlyImportedError
from orpipeline.importing.files import find_files
from orpipeline.importing.importer import Imported, import_files, still_missing
from orpipeline.testing import sample_response
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
    week_in,
    write,
    zip_of,
)
from orpipeline_tests.responses import DAY, tag
from orpipeline_tests.violations import VIOLATIONS
from orpipeline_tests.world import NAMES, NOON, World, failure_of, local

FIRST = date(2026, 6, 17)
FIGURES = [
    sample_response(DAY),
    sample_response(DAY, change=restated(0.004)),
    sample_response(DAY, change=restated(0.002)),
]
DAILY_ASSETS = Names().daily_assets


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data" / "raw")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder for the files to import."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def import_into(archive: Archive, *paths: Path, dry_run: bool = False) -> Imported:
    """Import files without Dagster and without tables."""
    found = find_files([str(path) for path in paths])
    return import_files(archive, found, first=FIRST, newest=DAY, dry_run=dry_run)


def outcome(archive: Archive, *paths: Path) -> tuple[int, int, int, int]:
    """Import files; return how many responses were new, the same, restated and rejected."""
    return counts(import_into(archive, *paths))


def bodies(archive: Archive, day: date = DAY) -> list[bytes]:
    """Return a day's responses, the newest revision last."""
    return [content.body for content in archive.read_all(archive.revisions(day)) if isinstance(content, Content)]


# Revisions


def test_the_same_bytes_again_add_nothing(archive: Archive, inbox: Path) -> None:
    path = write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY)))
    assert outcome(archive, path) == (1, 0, 0, 0)
    copy = write(inbox / "b.json.gz", gzip.compress(FIGURES[0]))
    assert outcome(archive, copy) == outcome(archive, path) == (0, 1, 0, 0)
    assert bodies(archive) == [FIGURES[0]]


def test_the_same_content_in_other_bytes_adds_nothing(archive: Archive, inbox: Path) -> None:
    archive.put(FIGURES[0], fetched_at=served(DAY), source="the API", origin="api")
    path = write(inbox / "a.json", envelope(respelt(FIGURES[0]), fetched_at=served(DAY, 5)))
    assert outcome(archive, path) == (0, 1, 0, 0)
    assert bodies(archive) == [FIGURES[0]]


KNOWN = served(DAY, 1)
# The fetch times of two responses for one day, imported one after the other, and which one is the newest.
CONFLICTS = {
    "fetched later": (KNOWN, served(DAY, 2), 1),
    "fetched earlier": (KNOWN, served(DAY, 0.5), 0),
    "unknown after known": (KNOWN, None, 0),
    "known after unknown": (None, KNOWN, 1),
    "a time in the future is unknown": (NOON + timedelta(days=4000), KNOWN, 1),
}


@pytest.mark.parametrize(("first", "second", "newest"), CONFLICTS.values(), ids=CONFLICTS)
def test_other_content_becomes_a_revision_and_the_newest_is_the_one_fetched_last(
    archive: Archive, inbox: Path, first: datetime | None, second: datetime | None, newest: int
) -> None:
    for n, at in enumerate((first, second)):
        path = write(inbox / f"{n}.json", envelope(FIGURES[n], fetched_at=at), served(DAY, 999))
        assert outcome(archive, path) == ((0, 0, 1, 0) if n else (1, 0, 0, 0))
    assert sorted(bodies(archive)) == sorted(FIGURES[:2])
    assert bodies(archive)[-1] == FIGURES[newest]


@pytest.mark.parametrize(("hours", "known"), [(-0.01, False), (0, True), (23.99, True), (24.01, False)])
def test_a_file_written_on_the_day_when_the_api_served_its_response_was_fetched_then(
    archive: Archive, inbox: Path, hours: float, known: bool
) -> None:
    import_into(archive, write(inbox / "a.json", FIGURES[0], served(DAY, hours)))
    (revision,) = archive.revisions(DAY)
    assert revision.fetched_at == (served(DAY, hours) if known else None)


@pytest.mark.parametrize(
    ("packed", "origin", "at"),
    [(False, "api", served(DAY, 21)), (False, "import", None), (True, "demo", served(DAY, 21))],
)
def test_a_response_from_another_archive_keeps_its_fetch_time_and_origin(
    archive: Archive, tmp_path: Path, packed: bool, origin: str, at: datetime | None
) -> None:
    folder = tmp_path / "theirs"
    stored = Archive(folder).put(FIGURES[0], fetched_at=at, source="their source", origin=origin).revision
    path = local(stored.path)
    os.utime(path, (served(DAY, 1).timestamp(),) * 2)
    if packed:
        folder = write(tmp_path / "theirs.zip", zip_of([(stored.name, path.read_bytes())]))
    assert outcome(archive, folder) == (1, 0, 0, 0)
    assert archive.revisions(DAY) == [replace(stored, number=1, path=local(archive.place) / stored.name)]
    (content,) = archive.read_all(archive.revisions(DAY))
    assert isinstance(content, Content)
    assert (content.body, content.source) == (FIGURES[0], f"{folder.name}/{stored.name}")
    assert outcome(archive, folder) == (0, 1, 0, 0)


def test_importing_an_archive_makes_no_day_of_undated_and_damaged_responses(archive: Archive, tmp_path: Path) -> None:
    theirs = Archive(tmp_path / "theirs")
    theirs.put_undated(FIGURES[0], fetched_at=served(DAY), source="altered", origin="api")
    for figures in FIGURES[:2]:  # the first one is damaged, and renamed when the second one comes
        path = theirs.put(figures, fetched_at=served(DAY), source="the API", origin="api").revision.path
        local(path).write_bytes(gzip.compress(FIGURES[2]))
    assert len(list(local(theirs.place).rglob("*.damaged"))) == 1
    undated, damaged = sorted(import_into(archive, local(theirs.place)).rejected, key=lambda one: one.reason)[::-1]
    assert "belongs to no day" in undated.reason
    assert "do not have the sha256 of its name" in damaged.reason
    assert archive.days() == []


@pytest.mark.parametrize("hours", [-1, 24 * 32])
def test_a_response_that_cannot_have_been_fetched_then_is_rejected(archive: Archive, inbox: Path, hours: int) -> None:
    older = DAY - timedelta(days=40)
    name = f"{served(older, hours):%Y%m%dT%H%M%SZ}-{sha256(sample_response(older)).hexdigest()[:16]}-api.json.gz"
    write(inbox / f"{older}" / name, sample_response(older))
    write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, -1)))
    imported = import_into(archive, inbox)
    assert counts(imported) == (0, 0, 0, 2)
    reasons = sorted(one.reason for one in imported.rejected)
    assert [reason[:34] for reason in reasons] == [f"the API could not have had {day}"[:34] for day in (older, DAY)]
    assert list(local(archive.place).rglob("*")) == []


def test_a_stated_fetch_time_takes_precedence_over_the_files_name_and_time(archive: Archive, inbox: Path) -> None:
    name = f"{served(DAY, 15):%Y%m%dT%H%M%SZ}-3e39cf29aaa6.json"
    import_into(archive, write(inbox / "a" / name, envelope(FIGURES[0], fetched_at=served(DAY, 1)), served(DAY, 20)))
    import_into(archive, write(inbox / name, FIGURES[1], served(DAY, 20)))
    assert [revision.fetched_at for revision in archive.revisions(DAY)] == [served(DAY, 1), served(DAY, 15)]


def test_the_time_of_a_file_with_many_days_is_the_fetch_time_of_none_of_the_older_ones(
    archive: Archive, inbox: Path
) -> None:
    days = [DAY - timedelta(days=2), DAY]
    name = f"{served(DAY, 15):%Y%m%dT%H%M%SZ}-export.jsonl"
    import_into(archive, write(inbox / name, b"\n".join(map(sample_response, days))))
    assert [archive.revisions(day)[0].fetched_at for day in days] == [None, served(DAY, 15)]


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_revisions_in_one_folder_are_imported_in_the_order_of_their_fetch_times(
    archive: Archive, inbox: Path, order: Sequence[int]
) -> None:
    for place, n in enumerate(order):
        content = gzip.compress(envelope(FIGURES[n], fetched_at=served(DAY, n)))
        write(inbox / f"2026-10-06{f'.r{place + 1}' if place else ''}.json.gz", content)
    assert outcome(archive, inbox) == (1, 0, 2, 0)
    assert bodies(archive) == FIGURES
    assert [revision.number for revision in archive.revisions(DAY)] == [1, 2, 3]
    assert outcome(archive, inbox) == (0, 3, 0, 0)


def test_several_responses_of_one_day_in_one_envelope_become_its_revisions(archive: Archive, inbox: Path) -> None:
    # The figures change and change back: the first response is there twice, with another one between.
    responses = [FIGURES[0], FIGURES[1], respelt(FIGURES[1]), FIGURES[0]]
    path = write(inbox / "e.json", envelope(*responses, each=[served(DAY, hours) for hours in range(4)]))
    assert counts(import_into(archive, path, dry_run=True)) == (1, 1, 2, 0)
    assert outcome(archive, path) == (1, 1, 2, 0)
    assert bodies(archive) == [FIGURES[0], FIGURES[1], FIGURES[0]]
    assert outcome(archive, path) == (0, 4, 0, 0)
    assert len(bodies(archive)) == 3


# Rejected responses


def test_unreadable_and_invalid_responses_are_rejected_and_all_others_are_imported(
    archive: Archive, inbox: Path
) -> None:
    rules = {one.rule: one for one in VIOLATIONS if one.rule != "as_of_is_the_partition"}
    for rule in list(rules)[:3]:
        write(inbox / "invalid" / f"{rule}.json", sample_response(DAY, change=rules[rule].bend))
    write(inbox / "2026-10-02.json", b'{"data":')
    days = [WEEK[0], WEEK[3], WEEK[5], DAY]
    imported = import_into(archive, week_in(inbox, days))
    assert imported.new == archive.days() == days
    assert len(bodies(archive)) == 1
    assert still_missing(archive, imported) == missing_days(days)
    reasons = {one.source: one.reason for one in imported.rejected}
    assert "not valid JSON" in reasons.pop("inbox/2026-10-02.json:1")
    assert [rule in reasons.pop(f"inbox/invalid/{rule}.json") for rule in list(rules)[:3]] == [True] * 3
    assert reasons == {}
    with pytest.raises(PartlyImportedError, match=r"Rejected: 4\. Imported: 4; .*; and 1 more"):
        imported.raise_for_rejected()


def test_a_folder_without_responses_is_rejected(archive: Archive, inbox: Path) -> None:
    (one,) = import_into(archive, write(inbox / "README.md", b"# none").parent).rejected
    assert "no file that may hold responses" in one.reason


def test_a_response_without_a_day_is_rejected_and_not_stored(archive: Archive, inbox: Path) -> None:
    for n, as_of in enumerate((None, "soon", 20261006)):
        write(inbox / f"{n}.json", sample_response(DAY, change=methodcaller("update", as_of=as_of)))
    assert ["no valid day" in one.reason for one in import_into(archive, inbox).rejected] == [True] * 3
    assert not local(archive.place).exists()


def test_days_outside_the_partitions_are_rejected(archive: Archive, inbox: Path) -> None:
    for day in (DAY + timedelta(days=1), FIRST - timedelta(days=1), FIRST, DAY):
        write(inbox / f"{day}.json", sample_response(day))
    imported = import_into(archive, inbox)
    assert imported.new == archive.days() == [FIRST, DAY]
    reasons = {one.source: one.reason for one in imported.rejected}
    assert "not over yet" in reasons["inbox/2026-10-07.json"]
    assert "is before 2026-06-17; set ORPIPELINE_START_DATE" in reasons["inbox/2026-06-16.json"]


def test_a_day_needs_no_partition_to_be_imported(archive: Archive, inbox: Path) -> None:
    early = FIRST - timedelta(days=1)
    for day in (early - timedelta(days=1), early, FIRST):
        write(inbox / f"{day}.json", sample_response(day))
    files = find_files([str(inbox)])
    rejected = [len(import_files(archive, files, first=first, newest=DAY).rejected) for first in (DAY, early)]
    assert (rejected, archive.days()) == ([2, 1], [early, FIRST])


IMPORT = """
import sys
from datetime import date
from pathlib import Path
from orpipeline.archive import Archive
from orpipeline.importing.files import find_files
from orpipeline.importing.importer import import_files
files = find_files(sys.argv[2:])
imported = import_files(Archive(Path(sys.argv[1])), files, first=date(2026, 6, 17), newest=date(2026, 10, 6))
print(len(imported.new))
"""


@pytest.mark.slow
def test_concurrent_imports_store_each_response_once(archive: Archive, inbox: Path) -> None:
    week_in(inbox)
    command = [sys.executable, "-c", IMPORT, archive.place, inbox]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) == len(WEEK)
    assert [len(archive.revisions(day)) for day in WEEK] == [1] * len(WEEK)


# The job


pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> None:
    """In tests with a Dagster world, the clock starts at noon of the day on which the API serves DAY."""
    if "world" in request.fixturenames:
        request.getfixturevalue("at_noon")


def figure(body: bytes) -> float:
    return float(tag(json.loads(body)["data"], "translation")["usage_share"])


def translation(world: World, day: date = DAY) -> float:
    """Return a figure in the tables that differs between the day's revisions."""
    (row,) = world.warehouse.read("task_classifications", since=day, until=day).filter(tag="translation").to_dicts()
    return float(row["usage_share"])


def versions(instance: dg.DagsterInstance, day: date) -> set[str | None]:
    """Return the data versions of all assets' latest materializations of a day."""
    newest = (
        instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[f"{day}"]), limit=1).records
        for key in DAILY_ASSETS
    )
    return {
        event.tags.get("dagster/data_version") if event and event.tags else None
        for records in newest
        for event in [records[0].asset_materialization if records else None]
    }


def events(instance: dg.DagsterInstance) -> int:
    """Return how many materializations the instance has."""
    return sum(len(instance.fetch_materializations(key, limit=1000).records) for key in DAILY_ASSETS)


def test_the_job_imports_into_archive_tables_and_dagster_once_and_reports_missing_and_rejected_days(
    world: World, inbox: Path
) -> None:
    days = [WEEK[0], WEEK[1], WEEK[4]]
    week_in(inbox, days)
    write(inbox / "r2.json", envelope(sample_response(WEEK[0], change=restated(0.004)), fetched_at=served(WEEK[0], 9)))
    write(
        inbox / "older.json",
        envelope(sample_response(WEEK[1], change=restated(0.004)), fetched_at=served(WEEK[1], 0.1)),
    )
    write(inbox / "broken.json.gz", gzip.compress(sample_response(WEEK[2]))[:-30])
    run = run_job(world, inbox)
    assert run.counts == (3, 0, 2, 1)
    failure = failure_of(run.result)
    assert "Rejected: 1. Imported: 5; already archived: 0. inbox/broken.json.gz" in str(failure.description)
    rejected = failure.metadata["rejected"]
    assert isinstance(rejected, dg.TableMetadataValue)
    assert [record.data["file"] for record in rejected.records] == ["inbox/broken.json.gz"]
    assert materialized(world.instance) == in_every_asset(days)
    for rows in world.tables().values():
        assert {row["as_of"] for row in rows} == set(days)
    assert translation(world, WEEK[0]) == figure(sample_response(WEEK[0], change=restated(0.004)))
    assert translation(world, WEEK[1]) == figure(sample_response(WEEK[1]))
    for day in days:
        newest = sha256(bodies(world.archive, day)[-1]).hexdigest()
        assert versions(world.instance, day) == {newest}
    # The same files again change nothing and log nothing.
    (inbox / "broken.json.gz").unlink()
    before = files(local(world.archive.place)), world.tables(), events(world.instance)
    assert before[2] == len(days) * len(DAILY_ASSETS)
    again = run_job(world, inbox)
    assert (again.result.success, again.counts) == (True, (0, 5, 0, 0))
    assert (files(local(world.archive.place)), world.tables(), events(world.instance)) == before
    # Only a restated day is reported again.
    other = envelope(sample_response(WEEK[4], change=restated(0.004)), fetched_at=served(WEEK[4], 9))
    assert run_job(world, write(inbox / "r3.json", other)).imported.restated == [WEEK[4]]
    assert events(world.instance) == before[2] + len(DAILY_ASSETS)


def _evaluated(world: World) -> dict[str, tuple[bool, str]]:
    """Return whether each asset check passed when it was last evaluated, and for which days."""
    keys = [spec.key for spec in check_specs(NAMES)]
    records = world.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found = {key.name: record.evaluation for key, record in records.items() if record.evaluation}
    days = {name: one.metadata.get("days") for name, one in found.items()}
    return {name: (one.passed, str(getattr(days[name], "value", ""))) for name, one in found.items()}


def test_an_import_evaluates_the_checks_for_the_newest_day_and_the_history(world: World, inbox: Path) -> None:
    write(inbox / "odd.json", sample_response(WEEK[4], change=lambda data: data.update(note="new")))
    run_job(world, week_in(inbox, [WEEK[0], WEEK[2]]))
    newest = str(WEEK[4])
    assert _evaluated(world) == {
        **{name: (name != "nothing_unexpected", newest) for name in CHECKS},
        "no_lost_days": (False, ""),
        "restatement": (True, ""),
    }


def test_the_job_completes_what_the_tables_or_dagster_lack(world: World, inbox: Path) -> None:
    week_in(inbox, WEEK[:2])
    import_into(world.archive, inbox)
    assert run_job(world, inbox).counts == (0, 2, 0, 0)
    assert materialized(world.instance) == in_every_asset(WEEK[:2])
    before = world.tables()
    local(world.warehouse.place).unlink()
    assert run_job(world, inbox).counts == (0, 2, 0, 0)
    assert world.tables() == before


def test_a_row_leads_to_the_archived_bytes_and_to_the_file(world: World, inbox: Path) -> None:
    path = write(inbox / "2026.zip", zip_of([("a/1.json", envelope(FIGURES[0], fetched_at=served(DAY)))]))
    import_into(world.archive, path)
    world.make_tables(DAY)
    (row,), (revision,) = world.tables()["snapshots"], world.archive.revisions(DAY)
    assert (row["origin"], row["source"], row["fetched_at"]) == ("import", "2026.zip/a/1.json", served(DAY))
    assert (row["sha256"], row["bytes"], row["revision"]) == (sha256(FIGURES[0]).hexdigest(), len(FIGURES[0]), 1)
    assert row["sha256"].startswith(revision.digest)


def test_a_dry_run_returns_the_same_counts_and_changes_nothing(world: World, inbox: Path) -> None:
    world.store(FIGURES[0], fetched_at=served(DAY, 1))
    week_in(inbox, WEEK)
    write(inbox / "r2.json", envelope(FIGURES[1], fetched_at=served(DAY, 2)))
    write(inbox / "again.json", sample_response(WEEK[0]))
    write(inbox / "bad.json", b"{}")
    before = files(world.folder)
    assert import_into(Archive(inbox / "none"), week_in(inbox), dry_run=True).new
    assert not (inbox / "none").exists()
    dry = run_job(world, inbox, dry_run=True)
    assert "Would import: 7; already archived: 2." in str(failure_of(dry.result).description)
    assert files(world.folder) == before
    assert materialized(world.instance) == in_every_asset([])
    assert dry.counts == (6, 2, 1, 1)
    assert import_into(world.archive, inbox) == dry.imported


def test_a_missing_path_fails_the_run_before_anything_is_imported(world: World, inbox: Path) -> None:
    run = run_job(world, week_in(inbox), inbox / "gone.json")
    assert "gone.json: no such file, or none" in str(failure_of(run.result).description)
    assert not world.folder.exists()


def test_a_day_whose_newest_response_is_rejected_is_not_loaded_by_each_import(world: World, inbox: Path) -> None:
    monthly = sample_response(DAY, change=lambda data: data.update(window_days=30))
    world.store(monthly, origin="api", fetched_at=served(DAY, 9))
    path = write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    assert run_job(world, path).result.success
    before = events(world.instance)
    run_job(world, path)
    assert events(world.instance) == before


def test_an_import_restores_a_damaged_response_in_the_archive(world: World, inbox: Path) -> None:
    path = write(inbox / "a.json", envelope(FIGURES[0], fetched_at=served(DAY, 1)))
    import_into(world.archive, path)
    (revision,) = world.archive.revisions(DAY)
    local(revision.path).write_bytes(b"damaged")
    assert counts(import_into(world.archive, path, dry_run=True)) == (0, 0, 1, 0)
    run = run_job(world, path)
    assert (run.result.success, run.counts) == (True, (0, 0, 1, 0))
    assert translation(world) == figure(FIGURES[0])
    assert counts(import_into(world.archive, path)) == (0, 1, 0, 0)
    assert world.archive.revisions(DAY) == [revision]


# The command, in a process with the machine's clock


def place(folder: Path) -> dict[str, str]:
    return {"ORPIPELINE_DATA_DIR": str(folder / "data"), "ORPIPELINE_START_DATE": WEEK[0].isoformat()}


def test_the_command_shows_what_was_imported_rejected_and_is_missing(tmp_path: Path, inbox: Path) -> None:
    week_in(inbox, [WEEK[0], WEEK[1], WEEK[4]])
    write(inbox / "r2.json", envelope(sample_response(WEEK[1], change=restated(0.004)), fetched_at=served(WEEK[1], 9)))
    write(inbox / "early.json", sample_response(FIRST - timedelta(days=1)))
    write(inbox / "broken.jsonl", sample_response(WEEK[4]) + b"\n{oops\n")
    dry = run_command("import", "inbox", "--dry-run", folder=tmp_path, environment=place(tmp_path))
    assert not (tmp_path / "data").exists()
    done = run_command("import", "inbox", folder=tmp_path, environment=place(tmp_path))
    assert (done.returncode, dry.returncode) == (1, 1), done.stderr
    shown = done.stdout.splitlines()[1:]
    assert dry.stdout.splitlines()[1:] == shown
    for expected in ("3 days, 2026-09-30 to 2026-10-04", "2: 2026-10-02 to 2026-10-03"):
        assert expected in done.stdout
    for name in ("inbox/broken.jsonl:2", "inbox/early.json"):
        assert f": {name}: " in done.stdout
    (error,) = [line for line in done.stderr.splitlines() if line]
    assert error.startswith("orpipeline: Rejected: 2. Imported: 4; already archived: 1.")


STORING = "after orpipeline.archive:Archive.put 3"


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
def test_an_interrupted_import_stores_only_complete_responses_and_the_next_one_continues_it(
    tmp_path: Path, inbox: Path, by: str
) -> None:
    days = WEEK[:4]
    week_in(inbox, days)
    done = subprocess.run(
        [sys.executable, "-m", "orpipeline_tests.doomed", "import", "inbox"],
        cwd=tmp_path,
        env={**os.environ, **place(tmp_path), "NO_COLOR": "1", "DOOMED_AT": STORING, "DOOMED_BY": by},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if by == "SIGKILL" else 130), done.stderr
    with World(tmp_path / "data") as world:
        stored = world.archive.days()
        assert len(stored) >= 3
        assert all(bodies(world.archive, day) == [sample_response(day)] for day in stored)
        run = run_job(world, inbox)
        assert (run.result.success, run.counts) == (True, (4 - len(stored), len(stored), 0, 0))
        assert materialized(world.instance) == in_every_asset(days)
        assert {row["as_of"] for row in world.tables()["model_leaderboard"]} == set(days)
