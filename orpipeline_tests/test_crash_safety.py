from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive.folder import ANSWER_FILE, RECORD_FILE, Archive
from orpipeline.contracts.tables import TABLES
from orpipeline.openrouter.budget import Budget
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import answer
from orpipeline_tests.commands import ORPIPELINE
from orpipeline_tests.processes import held_open, let_go
from orpipeline_tests.scripted_api import KEY, Reply, ScriptedApi

DAY = datetime.now(UTC).date() - timedelta(days=1)


def restate(data: dict[str, Any]) -> None:
    """Bend an answer so that each of the five tables says something else."""
    first = data["classifications"][0]
    first["display_name"] = "Restated"
    first["models"][0]["id"] = "demo-restated/model-1"
    data["macro_categories"][0]["label"] = "Restated"


ANSWERS = {1: answer(DAY), 2: answer(DAY, restate)}
Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Place:
    """A data folder in which runs are killed and healed."""

    folder: Path
    base_url: str

    @property
    def archive(self) -> Archive:
        return Archive(self.folder / "data" / "raw")

    @property
    def database(self) -> Path:
        return self.folder / "data" / "warehouse.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        # The tests' own environment is clean of what a developer has set (see conftest).
        return {
            **os.environ,
            "NO_COLOR": "1",
            "ORPIPELINE_DATA_DIR": str(self.folder / "data"),
            "ORPIPELINE_BASE_URL": self.base_url,
            "OPENROUTER_API_KEY": KEY,
        }

    def start(self, fetch: str = "always", *, at: str = "", by: str = "SIGKILL") -> subprocess.Popen[str]:
        """Start `orpipeline run`, as it is or with a signal that waits for it `at` a point."""
        command = [sys.executable, "-m", "orpipeline_tests.doomed"] if at else [str(ORPIPELINE)]
        return subprocess.Popen(
            [*command, "run", "--no-report", "--date", DAY.isoformat(), "--fetch", fetch],
            cwd=self.folder,
            env={**self.environment, "DOOMED_AT": at, "DOOMED_BY": by},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, fetch: str = "always", *, at: str = "", by: str = "SIGKILL") -> subprocess.CompletedProcess[str]:
        """Do so, and wait for its end."""
        return ended(self.start(fetch, at=at, by=by))

    def copy(self, folder: Path) -> Place:
        """Copy everything that runs have left here, Dagster's state too."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Place(folder, self.base_url)

    def archived(self) -> int:
        """Return how many revisions the archive has, all of them readable and in their order."""
        records = self.archive.revisions(DAY)
        assert [record.revision for record in records] == list(range(1, len(records) + 1))
        assert [self.archive.read(record) for record in records] == [ANSWERS[record.revision] for record in records]
        assert self.archive.days() == ([DAY] if records else [])
        return len(records)

    def tables(self) -> Tables:
        """Return the tables' rows, less when and at which port they were fetched."""
        warehouse = Warehouse(self.database, lock_wait_seconds=10)
        tables = {name: warehouse.read(name).drop("fetched_at", strict=False) for name in TABLES}
        # An API of a test's own has a port of its own.
        api = pl.col("source").str.replace(r"^http://127\.0\.0\.1:\d+", "api")
        return {**tables, "snapshots": tables["snapshots"].with_columns(api)}


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    said, complained = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, said, complained)


def assert_same(found: Tables, expected: Tables) -> None:
    for name, frame in expected.items():
        assert_frame_equal(found[name], frame, check_exact=True)


def revision_in(found: Tables, complete: Mapping[int, Tables]) -> int:
    """Return which complete run's tables these are: 0 for none yet. All five must be of the same run."""
    shas = found["snapshots"]["sha256"].to_list()
    revision = next(n for n, tables in complete.items() if tables["snapshots"]["sha256"].to_list() == shas)
    assert_same(found, complete[revision])
    return revision


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    """One API for all cases, for a row says where it was fetched."""
    with ScriptedApi() as server:
        yield server


@pytest.fixture(scope="module")
def first(api: ScriptedApi, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where the day is materialized as revision 1."""
    place = Place(tmp_path_factory.mktemp("first"), api.base_url)
    api.answers(ANSWERS[1])
    done = place.run("auto")
    assert done.returncode == 0, done.stderr
    api.answers(ANSWERS[2])
    return place


@pytest.fixture(scope="module")
def complete(first: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Tables]:
    """The tables of undisturbed runs: of none, of the first answer's, of the restated one's."""
    place = first.copy(tmp_path_factory.mktemp("second"))
    done = place.run()
    assert done.returncode == 0, done.stderr
    nothing = {name: frame.clear() for name, frame in first.tables().items()}
    tables = {0: nothing, 1: first.tables(), 2: place.tables()}
    assert not any(tables[1][name].equals(tables[2][name]) for name in TABLES)
    return tables


# The kill matrix


@dataclass(frozen=True)
class Kill:
    """A moment of a run that restates the day, and the revisions that are in archive and tables just then."""

    at: str
    archived: int
    in_tables: int
    by: str = "SIGKILL"
    leaves: str = "dagster/history/runs.db"
    """A file that lies in the data folder afterwards, by which the point is seen to be what it says."""


BUDGET, CLIENT, DUCKDB = "orpipeline.openrouter.budget", "orpipeline.openrouter.client", "duckdb:DuckDBPyConnection"
STATE = "dagster._core.storage"
EVENT = f"{STATE}.event_log.sqlite.sqlite_event_log:SqliteEventLogStorage.store_event"
REPLACE, COMMIT = "orpipeline.warehouse.database:_replace", f"{DUCKDB}.commit"

KILLS = {
    "start: the run is in Dagster's state": Kill(f"after {STATE}.runs.sql_run_storage:SqlRunStorage.add_run", 1, 1),
    "budget: the lock is held": Kill(
        f"{BUDGET}:Budget.spend > pyrate_limiter:SQLiteBucket.init_from_file", 1, 1, leaves="state/budget.sqlite.lock"
    ),
    "budget: the request is counted": Kill("after pyrate_limiter:SQLiteBucket.put", 1, 1),
    "fetch: the answer begins": Kill(f"{CLIENT}:Client._read", 1, 1),
    "budget: the good answer is noted": Kill(f"{BUDGET}:Budget.good_answer > {BUDGET}:_set_cool_down", 1, 1),
    "archive: the answer is not synced": Kill(
        "orpipeline.archive.folder:_write_synced > os:fsync", 1, 1, leaves="raw/.writing-*/task_classifications.json.gz"
    ),
    "archive: the record is missing": Kill(
        "orpipeline.archive.folder:_write_synced 2", 1, 1, leaves="raw/.writing-*/task_classifications.json.gz"
    ),
    "archive: the record is cut off": Kill(
        "orpipeline.archive.folder:_write_synced 2", 1, 1, "SIGXFSZ 100", leaves="raw/.writing-*/record.json"
    ),
    "archive: before the rename": Kill(
        "orpipeline.archive.folder:_sync_folder > os:rename", 1, 1, leaves="raw/.writing-*/record.json"
    ),
    "archive: after the rename": Kill(
        "orpipeline.archive.folder:_sync_folder > after os:rename", 2, 1, leaves="raw/*/r2/record.json"
    ),
    "validate: what is known is read": Kill(
        "orpipeline.warehouse.database:Warehouse.seen > after duckdb:connect", 2, 1
    ),
    "validate: it is judged": Kill("after orpipeline.contracts.judgement:validate", 2, 1),
    "leaderboard: it is ranked": Kill("after orpipeline.leaderboard:rank", 2, 1),
    "write: the first table lacks the day": Kill(f"{REPLACE} > after {DUCKDB}.execute 2", 2, 1),
    "write: the leaderboard lacks the day": Kill(f"{REPLACE} 5 > after {DUCKDB}.execute 2", 2, 1),
    "write: before the commit": Kill(COMMIT, 2, 1),
    # DuckDB writes its log of 46 kB, then 2 MB behind the file's end, then the header that makes them count.
    "write: the commit's log is cut off": Kill(COMMIT, 2, 1, "SIGXFSZ 20000", leaves="warehouse.duckdb.wal"),
    "write: the log is whole, the file is not": Kill(COMMIT, 2, 2, "SIGXFSZ 3500000", leaves="warehouse.duckdb.wal"),
    "write: after the commit": Kill(f"after {COMMIT}", 2, 2, leaves="warehouse.duckdb.wal"),
    "report: the run's end is not told": Kill(f"after {COMMIT} > {EVENT} 13", 2, 2),
}


ENDS = {
    "SIGTERM while the archive is written": Kill("orpipeline.archive.folder:_write_synced > os:fsync", 1, 1, "SIGTERM"),
    "SIGINT before the commit": Kill(COMMIT, 2, 1, "SIGINT"),
    "the disk is full within the commit": Kill(COMMIT, 2, 1, "full 20000"),
    "the disk is full after the commit": Kill(COMMIT, 2, 2, "full 3500000"),
}


@dataclass(frozen=True)
class Outcome:
    """What a killed run left, and what the next one made of it."""

    killed: subprocess.CompletedProcess[str]
    left: tuple[int, Tables]
    lying_about: list[Path]
    healed: subprocess.CompletedProcess[str]
    end: tuple[int, Tables]
    asked: int
    counted: int


def _kill_and_heal(kill: Kill, place: Place, api: ScriptedApi) -> Outcome:
    asked_before = len(api.asked)
    counted_before = Budget(place.folder / "data" / "state" / "budget.sqlite").state().used_last_day
    killed = place.run(at=kill.at, by=kill.by)
    left = place.archived(), place.tables()
    lying_about = list((place.folder / "data").glob(kill.leaves))
    # Where the archive has the restated answer, the next run needs no API; otherwise it asks again.
    healed = place.run("auto" if left[0] == 2 else "always")
    asked = len(api.asked) - asked_before
    counted = Budget(place.folder / "data" / "state" / "budget.sqlite").state().used_last_day - counted_before
    return Outcome(killed, left, lying_about, healed, (place.archived(), place.tables()), asked, counted)


@pytest.mark.parametrize("point", KILLS)
def test_a_killed_run_leaves_what_a_complete_run_made_and_the_next_run_heals(
    point: str, first: Place, complete: dict[int, Tables], api: ScriptedApi, tmp_path: Path
) -> None:
    kill, outcome = KILLS[point], _kill_and_heal(KILLS[point], first.copy(tmp_path), api)
    assert outcome.killed.returncode == -signal.Signals[kill.by.split()[0]], outcome.killed.stderr
    assert outcome.lying_about
    archived, tables = outcome.left
    assert (archived, revision_in(tables, complete)) == (kill.archived, kill.in_tables)
    assert (outcome.healed.returncode, outcome.healed.stderr) == (0, "")
    archived, tables = outcome.end
    assert (archived, revision_in(tables, complete)) == (2, 2)
    # No request goes out uncounted, whenever the kill comes.
    assert outcome.asked <= outcome.counted <= outcome.asked + 1


def test_runs_killed_one_after_another_from_nothing_leave_nothing_or_all(
    tmp_path: Path, complete: dict[int, Tables]
) -> None:
    """Each run finds what the killed ones before it left."""
    with ScriptedApi() as api:
        api.answers(ANSWERS[1])
        place = Place(tmp_path, api.base_url)
        for at, by, archived, in_tables in (
            (f"after {STATE}.runs.schema:RunStorageSqlMetadata.create_all", "SIGKILL", 0, 0),
            ("orpipeline.archive.folder:_sync_folder > os:rename", "SIGKILL", 0, 0),
            ("orpipeline.warehouse.database:_create_missing", "SIGXFSZ 20000", 1, 0),
            (COMMIT, "SIGXFSZ 20000", 1, 0),
        ):
            done = place.run("auto", at=at, by=by)
            assert done.returncode == -signal.Signals[by.split()[0]], (at, done.stderr)
            assert (place.archived(), revision_in(place.tables(), complete)) == (archived, in_tables), at
        done = place.run("auto")
        assert (done.returncode, done.stderr) == (0, "")
        assert (place.archived(), revision_in(place.tables(), complete)) == (1, 1)


# What else ends a run


def assert_one_line(done: subprocess.CompletedProcess[str], code: int) -> None:
    # Before an interruption's line there is an empty one, by click: a terminal shows `^C` there.
    lines = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert lines[0].startswith("orpipeline: ")
    assert ("interrupted" in lines[0]) == (code == 130)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM], ids=lambda kind: kind.name)
def test_a_signal_while_the_api_is_waited_for_is_one_line_and_changes_nothing(
    tmp_path: Path, first: Place, complete: dict[int, Tables], kind: signal.Signals
) -> None:
    process: subprocess.Popen[str]

    def signal_instead_of_an_answer(handler: BaseHTTPRequestHandler) -> None:
        process.send_signal(kind)
        handler.rfile.read()  # until the client has gone

    with ScriptedApi() as api:
        api.answers(Reply(act=signal_instead_of_an_answer), ANSWERS[2])
        place = replace(first.copy(tmp_path), base_url=api.base_url)
        process = place.start()
        done = ended(process)
        assert_one_line(done, 130)
        assert len(api.asked) == 1
        assert (place.archived(), revision_in(place.tables(), complete)) == (1, 1)


@pytest.mark.parametrize("point", ENDS)
def test_a_run_that_is_interrupted_or_finds_the_disk_full_says_so_and_leaves_no_half(
    point: str, first: Place, complete: dict[int, Tables], api: ScriptedApi, tmp_path: Path
) -> None:
    end, outcome = ENDS[point], _kill_and_heal(ENDS[point], first.copy(tmp_path), api)
    if end.in_tables == 2:
        # What is committed is committed: DuckDB's log has it, and the file takes it over when there is room.
        assert (outcome.killed.returncode, outcome.killed.stderr) == (0, "")
    elif end.by.startswith("SIG"):
        assert_one_line(outcome.killed, 130)
    else:
        # Dagster's own state is on the full disk too, and Dagster says so in lines of its own.
        assert outcome.killed.returncode == 1
        assert outcome.killed.stderr.splitlines()[-1].startswith("orpipeline: ")
        assert "Traceback" not in outcome.killed.stderr
    archived, tables = outcome.left
    assert (archived, revision_in(tables, complete)) == (end.archived, end.in_tables)
    assert (outcome.healed.returncode, outcome.healed.stderr) == (0, "")
    archived, tables = outcome.end
    assert (archived, revision_in(tables, complete)) == (2, 2)


# Two at once


def test_two_runs_of_a_day_at_once_make_one_revision_and_its_rows(
    tmp_path: Path, first: Place, complete: dict[int, Tables]
) -> None:
    both = threading.Barrier(2, timeout=120)

    def answer_both_at_once(handler: BaseHTTPRequestHandler) -> None:
        both.wait()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(ANSWERS[2])))
        handler.end_headers()
        handler.wfile.write(ANSWERS[2])

    with ScriptedApi() as api:
        api.answers(Reply(act=answer_both_at_once))
        place = replace(first.copy(tmp_path), base_url=api.base_url)
        for done in [ended(process) for process in [place.start(), place.start()]]:
            if done.returncode:
                assert_one_line(done, 1)
            else:
                assert done.stderr == ""
        assert (place.archived(), revision_in(place.tables(), complete)) == (2, 2)
        assert len(api.asked) == 2


def test_a_run_waits_for_a_reader_and_then_writes(tmp_path: Path, first: Place, complete: dict[int, Tables]) -> None:
    place = first.copy(tmp_path)
    with held_open(place.database, read_only=True) as reader:
        run = place.start(at="orpipeline.warehouse.database:Warehouse.replace_days", by="SIGSTOP")
        assert os.WIFSTOPPED(os.waitpid(run.pid, os.WUNTRACED)[1])
        run.send_signal(signal.SIGCONT)  # it is about to write
        time.sleep(2)
        assert run.poll() is None
        let_go(reader)
        reader.wait()
        done = ended(run)
    assert (done.returncode, done.stderr) == (0, "")
    assert (place.archived(), revision_in(place.tables(), complete)) == (2, 2)


def test_a_run_fails_and_names_the_process_that_keeps_the_file_open(
    tmp_path: Path, first: Place, complete: dict[int, Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORPIPELINE_LOCK_WAIT_SECONDS", "1")
    place = first.copy(tmp_path)
    with held_open(place.database, read_only=True) as reader:
        done = place.run()
    assert_one_line(done, 1)
    assert f"(PID {reader.pid})" in done.stderr
    assert (place.archived(), revision_in(place.tables(), complete)) == (2, 1)


# What killed runs leave behind


def test_half_written_leftovers_are_removed_once_they_are_an_hour_old(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "raw")
    fetched_at = datetime.now(UTC)
    whole = archive.put(ANSWERS[1], fetched_at=fetched_at, source="a test", origin="api").record.path.parent
    old = {
        "empty": b"",
        "without-record": b"half",
        "with-a-cut-record": b"half",
        "whole": (whole / ANSWER_FILE).read_bytes(),
    }
    for name, content in {**old, "young": b"half"}.items():
        leftover = archive.root / f".writing-{name}"
        leftover.mkdir()
        if content:
            (leftover / ANSWER_FILE).write_bytes(content)
    (archive.root / ".writing-with-a-cut-record" / RECORD_FILE).write_text('{"as_of": "20')
    shutil.copy(whole / RECORD_FILE, archive.root / ".writing-whole")
    for name in old:
        killed_at = time.time() - 3601
        os.utime(archive.root / f".writing-{name}", (killed_at, killed_at))
    archive = Archive(tmp_path / "raw")  # as the next process has it
    archive.put(ANSWERS[2], fetched_at=fetched_at, source="a test", origin="api")
    # A whole answer may be the only one of its day, so a person has to look at it.
    assert {path.name for path in archive.root.glob(".*")} == {".writing-young", ".writing-whole"}
    assert [record.revision for record in archive.revisions(DAY)] == [1, 2]
