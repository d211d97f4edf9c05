"""Runs that are killed, interrupted or disturbed at any step: nothing is lost or half done, and the next run heals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import orpipeline
from orpipeline.archive import Archive
from orpipeline.capture import Fetch
from orpipeline.contracts.tables import EXPORTED, TABLES
from orpipeline.load import load_days
from orpipeline.openrouter.budget import open_budget
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.commands import ORPIPELINE
from orpipeline_tests.world import World, local

pytestmark = [pytest.mark.promise, pytest.mark.slow]

NOW = datetime.now(UTC)
DAY = NOW.date() - timedelta(days=1)


def restate(data: dict[str, Any]) -> None:
    """Change a response in a way that changes all tables."""
    first = data["classifications"][0]
    first["display_name"] = "Restated"
    first["models"][0]["id"] = "demo-restated/model-1"
    data["macro_categories"][0]["label"] = "Restated"


RESPONSES = {1: sample_response(DAY), 2: sample_response(DAY, change=restate)}
Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Place:
    """A data folder, and the API that its runs call."""

    folder: Path
    base_url: str

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.folder / "data", base_url=self.base_url)

    @property
    def archive(self) -> Archive:
        return Archive(self.settings.archive)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.settings.warehouse, lock_wait_seconds=10)

    def start(self, fetch: str = "always", *, at: str = "", by: str = "SIGKILL") -> subprocess.Popen[str]:
        """Start `orpipeline run`; with `at`, it ends there (see `orpipeline_tests.doomed`)."""
        command = [sys.executable, "-m", "orpipeline_tests.doomed"] if at else [str(ORPIPELINE)]
        return subprocess.Popen(
            [*command, "run", "--no-report", "--date", DAY.isoformat(), "--fetch", fetch],
            cwd=self.folder,
            # conftest.py has removed the developer's own settings from the environment.
            env={
                **os.environ,
                "NO_COLOR": "1",
                "ORPIPELINE_DATA_DIR": str(self.settings.data_dir),
                "ORPIPELINE_BASE_URL": self.base_url,
                "OPENROUTER_API_KEY": KEY,
                "DOOMED_AT": at,
                "DOOMED_BY": by,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, fetch: str = "always", *, at: str = "", by: str = "SIGKILL") -> subprocess.CompletedProcess[str]:
        """Start `orpipeline run`, and wait for its end."""
        return ended(self.start(fetch, at=at, by=by))

    def heal(self, api: LocalApi, fetch: Fetch) -> None:
        """Run the day in this process, which takes half of the time, on the state of Dagster that a run has left."""
        data = self.settings.data_dir
        with (
            dg.DagsterInstance.from_config(str(data / "dagster")) as instance,
            World(data, api=api, instance=instance) as world,
        ):
            assert world.run(DAY, fetch=fetch).success

    def copy(self, folder: Path) -> Place:
        """Copy the data folder, with Dagster's state."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Place(folder, self.base_url)

    def archived(self) -> int:
        """Return how many revisions the archive has; all must be readable and in order."""
        revisions = self.archive.revisions(DAY)
        assert [one.number for one in revisions] == list(range(1, len(revisions) + 1))
        assert [self.archive.read(one).body for one in revisions] == [RESPONSES[one.number] for one in revisions]
        assert self.archive.days() == ([DAY] if revisions else [])
        return len(revisions)

    def loaded(self, expected: Mapping[int, Frames]) -> int:
        """Return which revision the tables have, 0 for none; all must be as `expected` for that revision."""
        found = tables_of(self.warehouse)
        revision = next(iter(found["snapshots"]["revision"]), 0)
        for name, frame in expected[revision].items():
            assert_frame_equal(found[name], frame, check_exact=True)
        return revision

    def state(self, expected: Mapping[int, Frames]) -> tuple[int, int]:
        """Return how many revisions the archive has, and which of them the tables have."""
        return self.archived(), self.loaded(expected)

    def assert_published(self) -> None:
        """Compare what readers get with the tables."""
        for name in EXPORTED:
            rows = self.warehouse.read(name)
            assert_frame_equal(orpipeline.read(name, settings=self.settings), rows)
            assert_frame_equal(
                pl.read_parquet(self.settings.data_dir / f"reports/published/parquet/{name}.parquet"), rows
            )

    def requests_counted(self) -> int:
        """Return how many requests the budget has counted."""
        return open_budget(self.settings).state().used_last_day


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def tables_of(warehouse: Warehouse) -> Frames:
    """Return the tables without the columns that differ between runs: when and from where the day was fetched."""
    return {name: warehouse.read(name).drop("fetched_at", "source", strict=False) for name in TABLES}


def assert_succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")


def assert_one_line(done: subprocess.CompletedProcess[str], code: int) -> None:
    # click prints an empty line before the line of an interruption: a terminal shows `^C` there.
    lines = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert lines[0].startswith("orpipeline: ")
    assert ("interrupted" in lines[0]) == (code == 130)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Frames]:
    """The tables without any response, with the first one, and with the restated one: a function of the archive."""
    folder = tmp_path_factory.mktemp("expected")
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    tables = {0: tables_of(warehouse)}
    for revision, body in RESPONSES.items():
        archive.put(body, fetched_at=NOW + timedelta(seconds=revision), source="a test", origin="api")
        load_days(archive, warehouse, [DAY], now=NOW)
        tables[revision] = tables_of(warehouse)
    assert not any(tables[1][name].equals(tables[2][name]) for name in TABLES)
    return tables


# Killed


def test_a_run_killed_between_archive_and_commit_loses_nothing_and_the_next_run_heals(
    api: LocalApi, tmp_path: Path, expected: dict[int, Frames]
) -> None:
    place = Place(tmp_path, api.base_url)
    api.serve(RESPONSES[1])
    killed = place.run("auto", at="after orpipeline.warehouse.tables:Tables.replace_days")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert place.state(expected) == (1, 0)
    with World(place.settings.data_dir, api=api) as world:
        assert world.run(DAY, fetch=Fetch.auto).success
    assert place.state(expected) == (1, 1)
    assert len(api.requests) == place.requests_counted() == 1  # the second run uses the archived response


@pytest.fixture(scope="module")
def shared_api() -> Iterator[LocalApi]:
    """One API for all copies of `first`."""
    with LocalApi() as server:
        yield server


@pytest.fixture(scope="module")
def first(shared_api: LocalApi, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with revision 1 in archive, tables and Dagster. Its API serves the restated response from now on."""
    place = Place(tmp_path_factory.mktemp("first"), shared_api.base_url)
    shared_api.serve(RESPONSES[1])
    assert_succeeded(place.run("auto"))
    shared_api.serve(RESPONSES[2])
    return place


@pytest.fixture(scope="module")
def sizes(first: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Sizes in bytes at which a commit is cut off.

    DuckDB commits to its log, a separate file (`half_log` is the middle of it). A checkpoint then copies the log to the
    end of the database file (`database` is that file's size, which is larger than the log), and after that to the
    header that makes the copy valid.
    """
    place = first.copy(tmp_path_factory.mktemp("sizes"))
    database = local(place.settings.warehouse)
    before = database.stat().st_size
    place.archive.put(RESPONSES[2], fetched_at=NOW + timedelta(hours=1), source="a test", origin="api")
    frames = load_days(place.archive, Warehouse(place.folder / "other.duckdb"), [DAY], now=NOW).frames
    with place.warehouse.connect() as connection:
        connection.begin()
        Tables(connection).replace_days([DAY], frames)
        connection.commit()
        log = database.with_name(f"{database.name}.wal").stat().st_size
    assert log < before < database.stat().st_size
    return {"half_log": log // 2, "database": before}


@dataclass(frozen=True)
class EarlyEnd:
    """A step at which a run that restates the day ends, and the revisions in archive and tables then."""

    at: str
    archived: int
    in_tables: int
    by: str = "SIGKILL"
    """As DOOMED_BY; a size in braces is one of `sizes`."""
    leaves: str = "dagster/history/runs.db"
    """A file that exists afterwards, which shows that the run ended at the right step."""


PUT, DUCKDB = "orpipeline.archive:Archive.put", "duckdb:DuckDBPyConnection"
BUDGET, LOAD = "orpipeline.openrouter.budget:Budget", "orpipeline.load:load_days"
COMMIT = f"{DUCKDB}.commit"
# Each table of a day is replaced in turn: its old rows are deleted, then the new ones are registered and inserted.
INSERT = f"orpipeline.warehouse.tables:Tables.replace_days > {DUCKDB}.register"
PUBLISH = "orpipeline.warehouse.publishing"
STAGED = "raw/*/*/*.json.gz#*"

KILLS = {
    "fetch: the response is complete": EarlyEnd(f"{BUDGET}.good_response", 1, 1),
    "archive: the response is cut off": EarlyEnd(f"{PUT} > obstore:put", 1, 1, "SIGXFSZ 1", STAGED),
    "load: before the commit": EarlyEnd(COMMIT, 2, 1),
    "load: the log of the commit is cut off": EarlyEnd(COMMIT, 2, 1, "SIGXFSZ {half_log}", "warehouse.duckdb.wal"),
    "load: the log is complete, the database is cut off": EarlyEnd(
        COMMIT, 2, 2, "SIGXFSZ {database}", "warehouse.duckdb.wal"
    ),
    "publish: the copy does not have its name": EarlyEnd(
        f"{PUBLISH}:publish_copy > pathlib:Path.replace",
        2,
        2,
        leaves="reports/published/.warehouse.duckdb.publishing-*",
    ),
    "publish: half of the Parquet files are new": EarlyEnd(f"{PUBLISH}:write_parquet > obstore:put 4", 2, 2),
    "report: Dagster has no event of the tables": EarlyEnd(f"after {LOAD}", 2, 2),
}


@dataclass(frozen=True)
class Outcome:
    """A run that ended early, its effects, and those of the next run."""

    first: subprocess.CompletedProcess[str]
    left: tuple[int, int]
    files: list[Path]
    healed: tuple[int, int]


def end_and_heal(
    end: EarlyEnd, place: Place, api: LocalApi, sizes: Mapping[str, int], expected: Mapping[int, Frames]
) -> Outcome:
    """End a run at a step, and let another run finish its work."""
    requests, counted = len(api.requests), place.requests_counted()
    done = place.run(at=end.at, by=end.by.format(**sizes))
    left, files = place.state(expected), list(place.settings.data_dir.glob(end.leaves))
    # If the archive has the restated response, the next run makes no request.
    place.heal(api, Fetch.auto if left[0] == 2 else Fetch.always)
    # Every request is counted, wherever the first run ended.
    sent = len(api.requests) - requests
    assert sent <= place.requests_counted() - counted <= sent + 1
    place.assert_published()
    return Outcome(done, left, files, place.state(expected))


@pytest.mark.parametrize("step", KILLS)
def test_a_killed_run_leaves_complete_revisions_and_the_next_run_heals(
    step: str,
    first: Place,
    shared_api: LocalApi,
    sizes: dict[str, int],
    expected: dict[int, Frames],
    tmp_path: Path,
) -> None:
    end = KILLS[step]
    outcome = end_and_heal(end, first.copy(tmp_path), shared_api, sizes, expected)
    assert outcome.first.returncode == -signal.Signals[end.by.split()[0]], outcome.first.stderr
    assert outcome.files
    assert outcome.left == (end.archived, end.in_tables)
    assert outcome.healed == (2, 2)


def test_runs_killed_one_after_another_in_an_empty_folder_leave_nothing_half_done(
    api: LocalApi, tmp_path: Path, sizes: dict[str, int], expected: dict[int, Frames]
) -> None:
    """Each run finds the leftovers of the killed ones before it."""
    api.serve(RESPONSES[1])
    place = Place(tmp_path, api.base_url)
    for at, by, left in (
        # Dagster's first database is cut off.
        ("dagster:DagsterInstance.get", "SIGXFSZ 4096", (0, 0)),
        (f"{PUT} > obstore:put", "SIGXFSZ 1", (0, 0)),
        (INSERT, "SIGKILL", (1, 0)),
        (COMMIT, f"SIGXFSZ {sizes['half_log']}", (1, 0)),
    ):
        done = place.run("auto", at=at, by=by)
        assert done.returncode == -signal.Signals[by.split()[0]], (at, done.stderr)
        assert place.state(expected) == left, at
    assert_succeeded(place.run("auto"))
    assert place.state(expected) == (1, 1)


# The disk is full


def test_a_commit_that_the_disk_has_no_room_for_fails_and_changes_no_table(
    first: Place, shared_api: LocalApi, sizes: dict[str, int], expected: dict[int, Frames], tmp_path: Path
) -> None:
    outcome = end_and_heal(EarlyEnd(COMMIT, 2, 1, "full {half_log}"), first.copy(tmp_path), shared_api, sizes, expected)
    # Dagster's own state is on the full disk too, and Dagster prints lines of its own about that.
    assert outcome.first.returncode == 1
    assert outcome.first.stderr.splitlines()[-1].startswith("orpipeline: ")
    assert "Traceback" not in outcome.first.stderr
    assert (outcome.left, outcome.healed) == ((2, 1), (2, 2))


def test_a_disk_that_is_full_after_the_commit_loses_nothing(
    first: Place, shared_api: LocalApi, sizes: dict[str, int], expected: dict[int, Frames], tmp_path: Path
) -> None:
    outcome = end_and_heal(EarlyEnd(COMMIT, 2, 2, "full {database}"), first.copy(tmp_path), shared_api, sizes, expected)
    # DuckDB's log has the rows, and the database gets them when there is room.
    assert_succeeded(outcome.first)
    assert (outcome.left, outcome.healed) == ((2, 2), (2, 2))


# Two processes at once


def test_two_runs_of_a_day_at_once_make_one_revision(
    api: LocalApi, first: Place, expected: dict[int, Frames], tmp_path: Path
) -> None:
    both = threading.Barrier(2, timeout=120)

    def respond_to_both_at_once(handler: BaseHTTPRequestHandler) -> None:
        both.wait()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(RESPONSES[2])))
        handler.end_headers()
        handler.wfile.write(RESPONSES[2])

    api.serve(Reply(act=respond_to_both_at_once))
    place = replace(first.copy(tmp_path), base_url=api.base_url)
    for done in [ended(process) for process in [place.start(), place.start()]]:
        if done.returncode:
            assert_one_line(done, 1)
        else:
            assert done.stderr == ""
    assert place.state(expected) == (2, 2)
    assert len(api.requests) == 2
