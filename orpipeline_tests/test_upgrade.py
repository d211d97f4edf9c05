"""Tables of another layout, and files that are damaged or missing: rebuilt from the archive, and nothing is lost."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline import snapshot
from orpipeline.archive.archive import Archive
from orpipeline.contracts.tables import TABLES, VIEWS
from orpipeline.rebuild import Rebuilt, rebuild
from orpipeline.snapshot import load_days
from orpipeline.testing import sample_answer
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import (
    DamagedWarehouseError,
    LayoutError,
    NewerLayoutError,
    OutdatedLayoutError,
    WarehouseBusyError,
)
from orpipeline.warehouse.layout import LAYOUT_VERSION
from orpipeline_tests.commands import run_command
from orpipeline_tests.processes import held_open, run_python, started
from orpipeline_tests.world import World, local

NOW = datetime(2026, 10, 9, 12, tzinfo=UTC)
DAYS = [date(2026, 10, day) for day in (5, 6, 7, 8)]
FIRST, LAST = DAYS[0], DAYS[-1]
FROZEN = Path(__file__).parent / "version_0_1"
Rows = dict[str, pl.DataFrame]
NEW_COLUMNS = "model_leaderboard does not have token_rank_best and does not have token_rank_worst"
"""What the messages name that the tables of 0.1 and 0.2 lack."""


class Place:
    """A data folder with the archive and the warehouse that orpipeline 0.1 wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = Archive(folder / "raw")
        self.warehouse = Warehouse(folder / "warehouse.duckdb", lock_wait_seconds=1)
        self.path = self.warehouse.path

    @classmethod
    def of_0_1(cls, folder: Path) -> Place:
        shutil.copytree(FROZEN / "raw", folder / "raw")
        place = cls(folder)
        place.path.write_bytes(gzip.decompress((FROZEN / "warehouse.duckdb.gz").read_bytes()))
        return place

    def execute(self, *statements: str) -> None:
        """Change the warehouse by hand."""
        with duckdb.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)

    def query(self, query: str) -> list[tuple[object, ...]]:
        with duckdb.connect(self.path, read_only=True) as connection:
            return connection.execute(query).fetchall()

    def load(self, *days: date) -> None:
        load_days(self.archive, self.warehouse, days or [LAST], now=NOW)

    def rebuild(self, since: date = date.min, until: date = date.max) -> Rebuilt:
        return rebuild(self.archive, self.warehouse, now=NOW, since=since, until=until)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, folder=self.folder, environment={"ORPIPELINE_DATA_DIR": str(self.folder)})

    def unarchive(self, *days: date) -> None:
        for day in days:
            shutil.rmtree(local(self.archive.root) / day.isoformat())

    def rows(self) -> Rows:
        with self.warehouse.reading() as tables:
            return tables.read_all()

    def version(self) -> set[object]:
        return {version for (version,) in self.query("SELECT version FROM openrouter.orpipeline_layout")}

    def assert_current(self, *missing: date) -> None:
        """Fail unless the layout is the declared one, and every frozen figure is there, except for missing days.

        Layouts 1 and 2 did not allow for rounding, so their possible ranks are a part of the present ones.
        """
        assert self.version() == {LAYOUT_VERSION}
        with self.warehouse.writing() as tables:
            assert tables.layout.outdated() is None
            assert tables.layout.outdated_views() == []
        for name, frozen in frozen_rows().items():
            expected = frozen.filter(~pl.col("as_of").is_in(list(missing))).sort(TABLES[name].primary_key())
            rows = self.rows()[name].select(frozen.columns)
            if name == "model_leaderboard":
                assert (rows["usage_rank_best"] <= expected["usage_rank_best"]).all()
                assert (rows["usage_rank_worst"] >= expected["usage_rank_worst"]).all()
                rows, expected = (frame.drop("usage_rank_best", "usage_rank_worst") for frame in (rows, expected))
            assert_frame_equal(rows, expected, check_exact=True)


def frozen_rows() -> Rows:
    """Return the rows of the tables that 0.1 wrote, read without orpipeline."""
    if not _FROZEN_ROWS:
        with TemporaryDirectory() as folder:
            copy = Path(folder, "warehouse.duckdb")
            copy.write_bytes(gzip.decompress((FROZEN / "warehouse.duckdb.gz").read_bytes()))
            with duckdb.connect(copy, read_only=True) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                for name in TABLES:
                    rows = connection.sql(f"SELECT * FROM openrouter.{name}").to_arrow_table()
                    _FROZEN_ROWS[name] = pl.DataFrame(pl.from_arrow(rows))
    return _FROZEN_ROWS


_FROZEN_ROWS: Rows = {}


@pytest.fixture
def old(tmp_path: Path) -> Place:
    """What a user of 0.1 has."""
    return Place.of_0_1(tmp_path / "data")


@pytest.fixture
def current(old: Place) -> Place:
    """The same after an upgrade."""
    old.rebuild()
    return old


# From 0.1


def test_loading_a_day_rebuilds_the_tables_of_0_1_first_and_logs_one_line(
    old: Place, caplog: pytest.LogCaptureFixture
) -> None:
    old.load(LAST)
    old.assert_current()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(old.path) in line
    assert f"layout is 1, not {LAYOUT_VERSION}" in line
    assert f"4 from the archive ({FIRST} to {LAST})" in line
    assert "orpipeline rebuild" not in line
    caplog.clear()
    old.load(LAST)
    assert not caplog.records


def test_a_day_that_the_api_could_not_have_had_leaves_the_tables_of_0_1_and_is_named(old: Place) -> None:
    path = local(old.archive.root) / str(FIRST) / "r1" / "record.json"
    path.write_text(path.read_text().replace("2026-10-06T00:20", "2026-10-05T12:20"))
    done = old.command("rebuild")
    assert done.returncode == 1
    assert f"The API could not have had {FIRST}" in done.stderr
    assert f"Not rebuilt, because the API could not have had that day then: {path.parent}" in done.stdout
    old.assert_current(FIRST)
    assert FIRST not in old.warehouse.days()


def test_a_run_rebuilds_the_tables_of_0_1(old: Place, world: World) -> None:
    assert world.folder == old.folder
    assert world.run(LAST).success
    old.assert_current()


def test_the_rebuild_command_upgrades_tables_of_0_1_and_states_why(old: Place) -> None:
    done = old.command("rebuild", "--from", str(LAST))  # a new layout concerns all days
    assert (done.returncode, done.stderr) == (0, "")
    assert f"their layout is 1, not {LAYOUT_VERSION}; {NEW_COLUMNS}. All tables are rebuilt." in done.stdout
    assert "4 days, 2026-10-05 to 2026-10-08" in done.stdout
    # Only possible ranks differ: they allow for rounding now.
    (changed,) = [line for line in done.stdout.splitlines() if "rows changed" in line]
    assert changed.startswith("model_leaderboard: ")
    assert "0 added, 0 removed" in changed
    old.assert_current()


def test_loading_a_day_rebuilds_the_tables_of_layout_2(current: Place, caplog: pytest.LogCaptureFixture) -> None:
    before = current.rows()
    current.execute(
        "DROP VIEW openrouter.author_leaderboard",
        "DROP VIEW openrouter.leaderboard_coverage",
        "CREATE TABLE openrouter.copy AS "
        "SELECT * EXCLUDE (token_rank_best, token_rank_worst) FROM openrouter.model_leaderboard",
        "DROP TABLE openrouter.model_leaderboard",
        "ALTER TABLE openrouter.copy RENAME TO model_leaderboard",
        "UPDATE openrouter.orpipeline_layout SET version = 2",
    )
    with pytest.raises(OutdatedLayoutError, match=r"leaderboard_coverage is missing. Run `orpipeline rebuild`"):
        current.warehouse.read("leaderboard_coverage")
    current.load(LAST)
    current.assert_current()
    assert f"their layout is 2, not {LAYOUT_VERSION}" in caplog.text
    assert_frame_equal(current.rows()["model_leaderboard"], before["model_leaderboard"])


def test_tables_of_0_1_can_be_read_as_far_as_their_columns_suffice(old: Place) -> None:
    assert old.warehouse.days() == DAYS
    assert_frame_equal(
        old.warehouse.read("snapshots"), frozen_rows()["snapshots"].sort("as_of"), check_column_order=False
    )


def test_an_archive_too_large_for_a_run_points_to_the_rebuild_command(
    old: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "DAYS_AT_ONCE", 3)
    before = old.path.read_bytes()
    with pytest.raises(OutdatedLayoutError, match=r"layout is 1, .*Run `orpipeline rebuild`.*nothing was changed"):
        old.load(LAST)
    assert old.path.read_bytes() == before
    progress: list[int] = []
    rebuild(old.archive, old.warehouse, now=NOW, on_progress=progress.append)
    assert progress == [3, 1]
    old.assert_current()


def test_a_run_of_the_command_line_prints_why_it_rebuilt_the_tables(old: Place) -> None:
    done = old.command("run", "--no-report", "--fetch", "never", "--date", str(LAST))
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert f"their layout is 1, not {LAYOUT_VERSION}; {NEW_COLUMNS}. They are rebuilt; days: 4 from the" in first
    assert f"{LAST} is in the archive and in the tables." in others


# Changed by hand

SHARE = "openrouter.task_models ALTER tag_usage_share"
WITHOUT_KEY = (
    "CREATE TABLE openrouter.copy AS FROM openrouter.macro_categories",
    "DROP TABLE openrouter.macro_categories",
    "ALTER TABLE openrouter.copy RENAME TO macro_categories",
)
ALTERED = {
    "another type": (
        [f"ALTER TABLE {SHARE} TYPE DECIMAL(4,2)"],
        r"task_models has tag_usage_share as DECIMAL\(4,2\) .*",
    ),
    "no NOT NULL": ([f"ALTER TABLE {SHARE} DROP NOT NULL"], "has tag_usage_share as DOUBLE, not DOUBLE NOT NULL"),
    "a default": ([f"ALTER TABLE {SHARE} SET DEFAULT 0.5"], "task_models has other keys, constraints or defaults"),
    "no primary key": (WITHOUT_KEY, "macro_categories has"),
    "another column": (["ALTER TABLE openrouter.snapshots ADD COLUMN note VARCHAR"], "another column, note"),
    "a missing column": (["ALTER TABLE openrouter.model_leaderboard DROP top_task"], "does not have top_task"),
    "a missing table": (["DROP TABLE openrouter.snapshots"], "snapshots is missing"),
}


@pytest.mark.parametrize(("statements", "reason"), ALTERED.values(), ids=ALTERED.keys())
def test_tables_changed_by_hand_are_not_written_but_rebuilt(
    current: Place, statements: Sequence[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    current.execute(*statements)
    with pytest.raises(OutdatedLayoutError, match=reason), current.warehouse.writing() as tables:
        tables.replace_days([LAST], {"snapshots": frozen_rows()["snapshots"].filter(as_of=LAST)})
    current.load(LAST)
    current.assert_current()
    assert [record for record in caplog.records if reason.split("(")[0].split("\\")[0] in record.getMessage()]


def test_figures_that_a_changed_type_rounded_are_named_and_restored(current: Place) -> None:
    current.execute(f"ALTER TABLE {SHARE} TYPE DECIMAL(4,2)")
    assert "task_models" in {difference.table for difference in current.rebuild().differences}
    current.assert_current()


def test_an_outdated_view_is_created_again_with_the_next_day(current: Place) -> None:
    current.execute(
        "CREATE OR REPLACE VIEW openrouter.model_trends AS SELECT 1 AS as_of",
        'CREATE OR REPLACE VIEW openrouter.author_leaderboard ("x AS y") AS SELECT 1',
        "DROP VIEW openrouter.latest_leaderboard",
    )
    tables_before = current.query("SELECT table_oid FROM duckdb_tables() ORDER BY ALL")
    current.load(LAST)
    current.assert_current()
    for view in VIEWS:
        assert not current.warehouse.read(view).is_empty()
    assert current.query("SELECT table_oid FROM duckdb_tables() ORDER BY ALL") == tables_before


@pytest.mark.parametrize("relation", ["snapshots", "model_trends"])
def test_reading_what_is_missing_points_to_the_rebuild_command(current: Place, relation: str) -> None:
    kind = "VIEW" if relation in VIEWS else "TABLE"
    current.execute(f"DROP {kind} openrouter.{relation}")
    with pytest.raises(OutdatedLayoutError, match=f"{relation} is missing. Run `orpipeline rebuild`"):
        current.warehouse.read(relation)


def test_reading_a_missing_column_is_one_line_that_points_to_the_rebuild_command(current: Place) -> None:
    current.execute("ALTER TABLE openrouter.model_leaderboard DROP top_task")
    done = current.command("leaderboard")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "model_leaderboard does not have top_task. Run `orpipeline rebuild`" in line
    assert "Binder" not in line
    assert "cannot be read" not in current.command("doctor").stderr


# What is yours


def test_tables_and_views_of_your_own_survive_an_upgrade(old: Place) -> None:
    yours = ("public.authors", "openrouter.prices", "second.snapshots")
    old.execute(*(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}" for table in yours))
    old.execute(*(f"CREATE TABLE {table} AS SELECT 'mine' AS owner" for table in yours))
    old.execute("CREATE VIEW openrouter.my_days AS SELECT DISTINCT as_of FROM openrouter.snapshots")
    old.load(LAST)
    old.assert_current()
    for table in yours:
        assert old.query(f"FROM {table}") == [("mine",)]
    assert len(old.query("FROM openrouter.my_days")) == len(DAYS)


def test_two_pipelines_in_one_file_are_upgraded_one_by_one(old: Place) -> None:
    second = Warehouse(old.path, schema="second")
    load_days(old.archive, second, DAYS, now=NOW)
    assert len(second.read("model_trends")) == len(second.read("model_leaderboard")) > 0
    with pytest.raises(OutdatedLayoutError), old.warehouse.writing() as tables:
        tables.replace_days([], {})
    old.load(LAST)
    old.assert_current()
    assert second.days() == DAYS


@pytest.mark.parametrize(
    "mine", ["TABLE openrouter.new_one AS SELECT 1 AS x", "VIEW openrouter.New_One AS SELECT 1 AS x"]
)
def test_yours_with_the_name_of_a_new_view_is_never_replaced(old: Place, mine: str) -> None:
    """A later version declares a view; you already have something of that name."""
    old.execute(f"CREATE {mine}")
    code = """
import sys
from pathlib import Path
from orpipeline.contracts import tables
from orpipeline.warehouse import views
for models in (tables.VIEWS, tables.RELATIONS):
    models["new_one"] = models["model_trends"]
views.VIEW_QUERIES["new_one"] = views.VIEW_QUERIES["model_trends"]
from orpipeline.warehouse.errors import LayoutError
from orpipeline_tests.test_upgrade import Place
place = Place(Path(sys.argv[1]))
for act in (place.load, place.rebuild):
    try:
        act()
    except LayoutError as error:
        print(error)
"""
    lines = run_python(code, old.folder).splitlines()
    assert len(lines) == 2
    assert all("openrouter.new_one" in line and "Rename yours" in line for line in lines)
    assert old.query("FROM openrouter.new_one") == [(1,)]
    assert old.warehouse.days() == DAYS


def test_a_table_of_yours_with_the_name_of_one_of_ours_is_never_replaced(old: Place) -> None:
    mine = "CREATE TABLE mine.snapshots AS SELECT DATE '2026-10-05' AS as_of, 'mine' AS owner"
    old.execute("CREATE SCHEMA mine", mine)
    prefixed = Warehouse(old.path, schema="mine")
    with pytest.raises(LayoutError, match=r"mine.snapshots .* that orpipeline did not create.* Rename yours"):
        load_days(old.archive, prefixed, DAYS, now=NOW)
    with pytest.raises(LayoutError, match="did not create"):
        rebuild(old.archive, prefixed, now=NOW)
    assert old.query("SELECT owner FROM mine.snapshots") == [("mine",)]


# Days that only the tables have


def test_days_that_only_the_tables_have_are_carried_over_and_named(
    old: Place, caplog: pytest.LogCaptureFixture
) -> None:
    old.unarchive(FIRST, DAYS[1])
    old.load(LAST)
    old.assert_current()
    assert f"2 from the old tables ({FIRST} to {DAYS[1]})" in caplog.text


def test_the_rebuild_command_carries_days_over_even_with_an_empty_archive(old: Place) -> None:
    old.unarchive(*DAYS)
    done = old.command("rebuild")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"only in tables  4: {', '.join(map(str, DAYS))}" in done.stdout
    old.assert_current()


def test_a_day_whose_archived_answer_is_damaged_is_carried_over(old: Place) -> None:
    for answer_file in local(old.archive.root).glob(f"{FIRST}/r*/*.gz"):
        answer_file.write_bytes(b"damaged")
    rebuilt = old.rebuild()
    assert list(rebuilt.errors) == [FIRST]
    old.assert_current()


HALF_A_DAY = f"WHERE as_of = '{FIRST}'"
UNUSABLE = {
    "without its row in snapshots": f"DELETE FROM openrouter.snapshots {HALF_A_DAY}",
    "with a tag that is missing": f"DELETE FROM openrouter.task_classifications {HALF_A_DAY} AND usage_rank = 20",
    "that breaks a contract": f"UPDATE openrouter.task_classifications SET usage_share = 0.9 {HALF_A_DAY}",
    "with a column that is missing": "ALTER TABLE openrouter.task_models DROP position",
    "in a table that is missing": "DROP TABLE openrouter.snapshots",
}


@pytest.mark.parametrize("damage", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_day_only_in_the_tables_that_cannot_be_carried_over_is_named_and_nothing_changes(
    old: Place, damage: str
) -> None:
    old.unarchive(FIRST)
    old.execute(damage)
    before = old.query("SELECT * FROM openrouter.task_classifications ORDER BY ALL")
    for act in (old.load, old.rebuild):
        with pytest.raises(OutdatedLayoutError, match=f"no intact answer for {FIRST}, .*Nothing was changed"):
            act()
    assert old.query("SELECT * FROM openrouter.task_classifications ORDER BY ALL") == before
    assert "orpipeline_layout" not in str(old.query("SELECT table_name FROM duckdb_tables()"))


def test_rows_without_a_day_stop_the_rebuild(old: Place) -> None:
    old.execute(
        "CREATE TABLE openrouter.copy AS SELECT * REPLACE (NULL::DATE AS as_of) FROM openrouter.macro_categories",
        "DROP TABLE openrouter.macro_categories",
        "ALTER TABLE openrouter.copy RENAME TO macro_categories",
    )
    with pytest.raises(OutdatedLayoutError, match=r"16 rows of the table macro_categories have no day"):
        old.rebuild()


def test_a_day_that_is_now_rejected_does_not_stop_the_rebuild_and_is_named(old: Place) -> None:
    """The contracts may have become stricter. The archive keeps the answer."""
    old.unarchive(FIRST)
    old.archive.put(
        sample_answer(FIRST, change=lambda data: data.update(window_days=30)),
        fetched_at=NOW,
        source="a test",
        origin="api",
    )
    old.execute(f"UPDATE openrouter.snapshots SET window_days = 30 {HALF_A_DAY}")
    done = old.command("rebuild")
    assert done.returncode == 1
    assert f"now rejected    1: {FIRST}" in done.stdout
    assert "its tables no longer have that day" in done.stderr
    old.assert_current(FIRST)


# Newer versions


def test_tables_of_a_newer_version_are_neither_read_nor_changed(current: Place) -> None:
    current.execute(f"UPDATE openrouter.orpipeline_layout SET version = {LAYOUT_VERSION + 1}")
    before = current.path.read_bytes()
    for act in (current.load, current.rebuild, current.rows):
        with pytest.raises(NewerLayoutError, match=f"layout {LAYOUT_VERSION + 1}, .*nothing was changed.*Upgrade"):
            act()
    done = current.command("rebuild")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert current.path.read_bytes() == before


# Damaged and missing files


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_a_flipped_byte(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[274_932] ^= 0xFF  # in the rows of a table, so the file can still be opened
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"as_of,share\n" * 5000,
    "truncated": truncated,
    "a header of zeros": lambda content: content[:4096] + bytes(8192) + content[12288:],
    "a flipped byte in a table": with_a_flipped_byte,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_kept_aside_and_a_complete_new_one_takes_its_place(
    old: Place, damage: Callable[[bytes], bytes]
) -> None:
    old.path.write_bytes(content := damage(old.path.read_bytes()))
    with pytest.raises(DamagedWarehouseError, match="Run `orpipeline rebuild`, which keeps it aside"):
        old.rows()
    assert old.path.read_bytes() == content
    done = old.command("rebuild", "--from", str(LAST))
    assert (done.returncode, done.stderr) == (0, "")
    (aside,) = old.folder.glob("warehouse.duckdb.damaged-*")
    assert f"Kept aside: {aside}" in done.stdout
    assert aside.read_bytes() == content
    old.assert_current()
    assert {path.name for path in old.folder.iterdir()} == {"raw", "reports", old.path.name, aside.name}


def test_a_missing_file_is_built_completely(old: Place) -> None:
    old.path.unlink()
    assert old.rebuild().days == DAYS
    old.assert_current()
    assert old.path.stat().st_nlink == 1


def test_a_damaged_log_is_kept_aside_with_its_file(old: Place) -> None:
    code = """
import duckdb, os, sys
connection = duckdb.connect(sys.argv[1])
for n in range(9):
    connection.execute(f"CREATE TABLE t{n} AS SELECT 1")
os._exit(0)
"""
    run_python(code, old.path)
    log = old.path.with_name("warehouse.duckdb.wal")
    content = bytearray(log.read_bytes())
    # Not in the last transaction: DuckDB would take that for an incomplete one.
    quarter = len(content) // 4
    content[quarter : 2 * quarter] = b"?" * quarter
    log.write_bytes(content)
    with pytest.raises(DamagedWarehouseError):
        old.rows()
    kept = old.rebuild().set_aside
    assert [path.read_bytes() for path in kept if path.suffix == ".wal"] == [bytes(content)]
    assert len(kept) == 2
    old.assert_current()


def test_a_log_without_its_file_is_not_applied_to_the_new_file(old: Place) -> None:
    old.path.unlink()
    log = old.path.with_name("warehouse.duckdb.wal")
    log.write_bytes(b"of a file that is gone")
    assert [path.read_bytes() for path in old.rebuild().set_aside] == [b"of a file that is gone"]
    assert not log.exists()
    old.assert_current()


def test_files_kept_aside_are_never_overwritten(old: Place) -> None:
    for number in range(3):
        old.path.write_text(f"damaged {number}")
        old.rebuild()
    assert {path.read_text() for path in old.folder.glob("*.damaged-*")} == {"damaged 0", "damaged 1", "damaged 2"}


def test_a_damaged_file_stays_if_the_archive_has_nothing_to_replace_it(old: Place) -> None:
    old.unarchive(*DAYS)
    old.path.write_text("damaged")
    done = old.command("rebuild")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "the archive has no days" in done.stderr
    assert old.path.read_text() == "damaged"


def _sqlite(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [_sqlite, _folder])
def test_what_is_certainly_not_a_damaged_warehouse_is_not_touched(old: Place, change: Callable[[Path], None]) -> None:
    change(old.path)
    done = old.command("rebuild")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert str(old.path) in done.stderr
    assert old.path.exists()
    assert {path.name for path in old.folder.iterdir()} == {"raw", old.path.name}


def test_a_locked_file_is_not_touched(old: Place) -> None:
    with held_open(old.path, read_only=True), pytest.raises(WarehouseBusyError):
        old.rebuild()
    assert not list(old.folder.glob("*.damaged-*"))


def test_a_file_that_cannot_be_written_is_an_error_and_unchanged() -> None:
    code = """
import os, sys
from pathlib import Path
from orpipeline.warehouse.errors import WarehouseError
from orpipeline_tests.test_upgrade import Place
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anything
try:
    Place(Path(sys.argv[1])).rebuild()
except WarehouseError as error:
    print(type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as folder:  # other users may not enter the folders of pytest
        place = Place.of_0_1(Path(folder, "data"))
        for path in (Path(folder), place.folder, *place.folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o444)
        before = place.path.read_bytes()
        assert run_python(code, place.folder).startswith(f"WarehouseError The warehouse {place.path}")
        assert place.path.read_bytes() == before
        assert {path.name for path in place.folder.iterdir()} == {"raw", place.path.name}


# At the same time, and interrupted

HOLD_FOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


def test_two_rebuilds_do_not_run_at_once(old: Place) -> None:
    old.path.write_text("damaged")
    with started(HOLD_FOLDER, old.folder):
        with pytest.raises(WarehouseBusyError, match="Another `orpipeline rebuild`"):
            old.rebuild()
        assert old.path.read_text() == "damaged"
    old.rebuild()
    old.assert_current()


def test_a_file_that_another_process_creates_meanwhile_is_kept_and_completed(old: Place) -> None:
    old.path.unlink()
    created: list[int] = []

    def create(done: int) -> None:
        if not created:
            load_days(old.archive, old.warehouse, [FIRST], now=NOW)
            old.execute("CREATE TABLE mine AS SELECT 1 AS x")
        created.append(done)

    rebuild(old.archive, old.warehouse, now=NOW, on_progress=create)
    assert old.query("FROM mine") == [(1,)]
    old.assert_current()
    assert not list(old.folder.glob(".*"))


def killed(place: Place, at: str) -> None:
    """Run `orpipeline rebuild`, and kill it at a step (see `orpipeline_tests.doomed`)."""
    done = subprocess.run(
        [sys.executable, "-m", "orpipeline_tests.doomed", "rebuild"],
        cwd=place.folder,
        env={**os.environ, "ORPIPELINE_DATA_DIR": str(place.folder), "DOOMED_AT": at, "DOOMED_BY": "SIGKILL"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


COMMIT = "duckdb:DuckDBPyConnection.commit"


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [
        "after orpipeline.warehouse.tables:Tables.recreate",
        "after orpipeline.warehouse.tables:Tables.replace_days",
        COMMIT,
    ],
)
def test_a_layout_rebuild_that_is_killed_leaves_the_old_tables(old: Place, at: str) -> None:
    killed(old, at)
    for name, frozen in frozen_rows().items():
        stored = old.query(f"SELECT count(*) FROM openrouter.{name}")
        assert stored == [(len(frozen),)]
    assert old.query("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'orpipeline_layout'") == [(0,)]
    old.load(LAST)
    old.assert_current()


@pytest.mark.slow
def test_a_layout_rebuild_that_is_killed_after_its_commit_is_complete(old: Place) -> None:
    killed(old, f"after {COMMIT}")
    old.assert_current()


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [
        f"after {COMMIT}",
        "orpipeline.warehouse.replacement:set_aside",
        "after orpipeline.warehouse.replacement:set_aside",
        "after pathlib:Path.hardlink_to",
    ],
)
def test_a_killed_replacement_of_a_damaged_file_loses_nothing_and_the_next_one_completes_it(
    old: Place, at: str
) -> None:
    old.path.write_text("damaged")
    killed(old, at)
    assert [path.read_text() for path in old.folder.glob("warehouse.duckdb*") if path.stat().st_size < 100] == [
        "damaged"
    ]
    old.rebuild()
    old.assert_current()
    assert not list(old.folder.glob(".*"))
    assert [path.read_text() for path in old.folder.glob("*.damaged-*")] == ["damaged"]
