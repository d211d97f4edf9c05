from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import Record
from orpipeline.contracts.findings import InvalidSnapshotError
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import rank
from orpipeline.openrouter.frames import parse
from orpipeline.snapshot import daily_tables, load_days
from orpipeline.testing import sample_answer
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import WarehouseBusyError, WarehouseError
from orpipeline.warehouse.tables import TableError
from orpipeline_tests.answers import DAY
from orpipeline_tests.engines import ON_BOTH_ENGINES, EnginePlace
from orpipeline_tests.processes import (
    assert_another_process_can_write,
    held_open,
    let_go,
    let_go_at_the_first_warning,
    run_python,
    started,
)

Frames = Mapping[str, pl.DataFrame]

NEXT = DAY + timedelta(days=1)
FIVE_DAYS = [DAY + timedelta(days=n) for n in range(5)]
FETCHED_AT = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)


@cache
def frames_of(*days: date) -> Frames:
    """Return the rows of all five tables, from made-up answers."""
    bodies = [(day, sample_answer(day)) for day in days]
    records = [
        Record(day, 1, "0" * 64, len(body), FETCHED_AT, "demo", "made up", Path("unused")) for day, body in bodies
    ]
    frames = daily_tables(parse(bodies), records)
    return {**frames, "model_leaderboard": rank(frames["task_classifications"], frames["task_models"])}


def macros(*keys: str, day: date = DAY) -> pl.DataFrame:
    """Return rows of `macro_categories` with these keys and labels."""
    rows = [(day, 7, key, key, 0.5, 0.5) for key in keys]
    return pl.DataFrame(rows, schema=TABLES["macro_categories"].polars_schema(), orient="row")


def replace(warehouse: Warehouse, frames: Frames, *days: date) -> dict[str, int]:
    """Replace the rows of days in one transaction."""
    with warehouse.writing() as tables:
        return tables.replace_days(days, frames)


def assert_has(warehouse: Warehouse, expected: Frames) -> None:
    """Compare every row of every table."""
    with warehouse.reading() as tables:
        stored = tables.read_all()
    for name, frame in stored.items():
        assert_frame_equal(frame, expected[name], check_row_order=False, check_column_order=False, check_exact=True)


@pytest.fixture
def warehouse(engine: EnginePlace) -> Warehouse:
    return engine.open()


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a warehouse with one day, to copy."""
    path = tmp_path_factory.mktemp("one-day") / "warehouse.duckdb"
    replace(Warehouse(path), frames_of(DAY), DAY)
    return path


@pytest.fixture
def filled(warehouse: Warehouse, one_day: Path) -> Warehouse:
    """A warehouse with one day."""
    if not warehouse.is_file:
        replace(warehouse, frames_of(DAY), DAY)
        return warehouse
    warehouse.path.parent.mkdir()
    shutil.copyfile(one_day, warehouse.path)
    return warehouse


# New tables


def test_tables_have_declared_types_not_null_and_primary_keys(warehouse: Warehouse) -> None:
    replace(warehouse, {})
    with warehouse.connect(read_only=True) as connection:
        columns = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'task_models' ORDER BY column_index"
        ).fetchall()
        nullable = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() JOIN duckdb_tables() USING (table_name) "
            "WHERE is_nullable ORDER BY ALL"
        ).fetchall()
        times = connection.execute(
            "SELECT data_type FROM duckdb_columns() WHERE table_name = 'snapshots' AND column_name = 'fetched_at'"
        ).fetchall()
        keys = connection.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        ).fetchall()
    assert columns == [
        ("as_of", "DATE"),
        ("window_days", "INTEGER"),
        ("tag", "VARCHAR"),
        ("model_id", "VARCHAR"),
        ("position", "INTEGER"),
        ("tag_usage_share", "DOUBLE"),
        ("tag_token_share", "DOUBLE"),
    ]
    assert times == [("TIMESTAMP WITH TIME ZONE",)]
    assert nullable == [("model_leaderboard", "author"), ("model_leaderboard", "variant")]
    assert dict(keys) == {
        "snapshots": ["as_of", "window_days"],
        "task_classifications": ["as_of", "window_days", "tag"],
        "macro_categories": ["as_of", "window_days", "key"],
        "task_models": ["as_of", "window_days", "tag", "model_id"],
        "model_leaderboard": ["as_of", "window_days", "scope", "model_id"],
    }


def test_tables_views_and_columns_have_their_descriptions_as_comments(warehouse: Warehouse) -> None:
    replace(warehouse, {})
    with warehouse.connect(read_only=True) as connection:
        relations = connection.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE table_name <> 'orpipeline_layout' "
            "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() "
            "WHERE schema_name = 'openrouter' AND table_name <> 'orpipeline_layout'"
        ).fetchall()
    assert dict(relations) == {name: model.summary() for name, model in RELATIONS.items()}
    assert {(relation, column): comment for relation, column, comment in columns} == {
        (name, column): details.description
        for name, model in RELATIONS.items()
        for column, details in model.columns().items()
    }


def test_the_folder_is_private_to_its_user(warehouse: Warehouse) -> None:
    replace(warehouse, {})
    assert warehouse.path.parent.stat().st_mode & 0o777 == 0o700


# Replacing days


@ON_BOTH_ENGINES
def test_rows_are_read_as_they_were_written(warehouse: Warehouse) -> None:
    frames = frames_of(DAY)
    for _ in range(2):  # the second time replaces the first
        assert replace(warehouse, frames, DAY) == {name: len(frame) for name, frame in frames.items()}
        assert_has(warehouse, frames)


def test_times_are_in_utc_in_any_time_zone(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys, pathlib
from orpipeline.warehouse.database import Warehouse
warehouse = Warehouse(pathlib.Path(sys.argv[1]))
with warehouse.connect(read_only=True) as connection:
    print(connection.execute("SELECT fetched_at::VARCHAR FROM openrouter.snapshots").fetchall()[0][0])
print(warehouse.read("snapshots")["fetched_at"][0])
"""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    shown = run_python(code, filled.path).splitlines()
    assert shown == ["2026-10-07 00:20:03.123456+00", "2026-10-07 00:20:03.123456+00:00"]


@ON_BOTH_ENGINES
def test_old_rows_that_the_new_frame_does_not_have_are_gone(warehouse: Warehouse) -> None:
    replace(warehouse, {"macro_categories": macros("code", "old")}, DAY)
    replace(warehouse, {"macro_categories": macros("code", "new")}, DAY)
    assert warehouse.read("macro_categories")["key"].to_list() == ["code", "new"]


@ON_BOTH_ENGINES
def test_other_days_keep_their_rows_even_between_the_replaced_ones(warehouse: Warehouse) -> None:
    before = frames_of(*FIVE_DAYS)
    replace(warehouse, before, *FIVE_DAYS)
    first = {name: frame.head(1) for name, frame in frames_of(DAY).items()}
    counts = replace(warehouse, first, FIVE_DAYS[4], DAY, DAY)
    expected = {
        name: pl.concat([first[name], frame.filter(pl.col("as_of").is_in(FIVE_DAYS[1:4]))])
        for name, frame in before.items()
    }
    assert_has(warehouse, expected)
    assert counts == {name: len(frame) for name, frame in expected.items()}


@ON_BOTH_ENGINES
def test_empty_frames_empty_their_days(warehouse: Warehouse) -> None:
    replace(warehouse, frames_of(DAY, NEXT), DAY, NEXT)
    counts = replace(warehouse, {name: frame.clear() for name, frame in frames_of(DAY).items()}, DAY)
    assert_has(warehouse, frames_of(NEXT))
    assert counts["snapshots"] == 1


@ON_BOTH_ENGINES
def test_tables_without_a_frame_are_unchanged(filled: Warehouse) -> None:
    replace(filled, {"macro_categories": macros("code")}, DAY)
    assert_has(filled, {**frames_of(DAY), "macro_categories": macros("code")})


def test_columns_are_matched_by_name(warehouse: Warehouse) -> None:
    shuffle = random.Random(1).sample
    replace(
        warehouse,
        {name: frame.select(shuffle(frame.columns, frame.width)) for name, frame in frames_of(DAY).items()},
        DAY,
    )
    assert_has(warehouse, frames_of(DAY))


def test_two_schemas_in_one_file_do_not_disturb_each_other(filled: Warehouse) -> None:
    second = Warehouse(filled.path, schema="second")
    assert second.days() == []
    replace(second, frames_of(DAY, NEXT), DAY, NEXT)
    replace(second, {"macro_categories": macros("code")}, DAY)
    assert_has(filled, frames_of(DAY))
    assert (filled.days(), second.days()) == ([DAY], [DAY, NEXT])
    # Each view reads the tables of its own schema.
    for warehouse in (filled, second):
        assert len(warehouse.read("model_trends")) == len(warehouse.read("model_leaderboard"))
        assert set(warehouse.read("latest_leaderboard")["as_of"]) == {max(warehouse.days())}


# Errors change nothing


def _change(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Frames], Frames]:
    return lambda frames: {**frames, name: change(frames[name])}


# The wrong frame is never the first one that is written.
WRONG: dict[str, Callable[[Frames], Frames]] = {
    "a missing column": _change("task_models", lambda frame: frame.drop("position")),
    "an extra column": _change("task_models", lambda frame: frame.with_columns(note=pl.lit("x"))),
    "a wider type": _change("task_models", lambda frame: frame.with_columns(pl.col("position").cast(pl.Int64))),
    "a share that is NaN": _change(
        "task_models", lambda frame: frame.with_columns(tag_usage_share=pl.lit(float("nan")))
    ),
    "a NULL": _change("task_models", lambda frame: frame.with_columns(tag=pl.lit(None, pl.String))),
    "a duplicate key": _change("model_leaderboard", lambda frame: pl.concat([frame, frame.head(1)])),
    "a row of another day": _change(
        "model_leaderboard", lambda frame: pl.concat([frame, frame.head(1).with_columns(as_of=pl.lit(NEXT))])
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_frame_is_an_error_and_all_tables_are_unchanged(
    filled: Warehouse, wrong: Callable[[Frames], Frames]
) -> None:
    smaller = {name: frame.head(2) for name, frame in frames_of(DAY).items()}
    with pytest.raises(OrpipelineError, match="Nothing was written"):
        replace(filled, wrong(smaller), DAY)
    assert_has(filled, frames_of(DAY))


def test_the_error_names_table_and_columns(warehouse: Warehouse) -> None:
    frame = macros("code").rename({"label": "title"}).with_columns(pl.col("window_days").cast(pl.Int64))
    with pytest.raises(TableError, match=r"table macro_categories .*\['label'\].*window_days Int64.*title"):
        replace(warehouse, {"macro_categories": frame}, DAY)
    assert warehouse.days() == []


def test_a_leaderboard_that_counts_models_twice_is_not_written(warehouse: Warehouse) -> None:
    board = frames_of(DAY)["model_leaderboard"]
    twice = board.filter(scope="code").with_columns(pl.col("model_id") + "-again")
    with pytest.raises(InvalidSnapshotError, match="row 2026-10-06 / code: summed=1") as raised:
        replace(warehouse, {**frames_of(DAY), "model_leaderboard": pl.concat([board, twice])}, DAY)
    assert set(raised.value.findings["rule"]) == {"scope_shares_fit_under_one"}
    assert set(raised.value.findings["column"]) == {"usage_share", "token_share"}
    assert warehouse.days() == []


def test_an_error_of_duckdb_in_the_last_table_rolls_back_all_tables(filled: Warehouse) -> None:
    before = frames_of(DAY)
    with filled.connect() as connection:  # an index of your own can reject rows
        connection.execute("DELETE FROM openrouter.model_leaderboard")
        connection.execute("CREATE UNIQUE INDEX one_scope ON openrouter.model_leaderboard (scope)")
    with pytest.raises(WarehouseError, match="duplicate key") as raised:
        replace(filled, {name: frame.head(2) for name, frame in before.items()}, DAY)
    assert str(filled.path) in str(raised.value)
    assert isinstance(raised.value.__cause__, duckdb.Error)
    for name in list(TABLES)[:-1]:
        assert_frame_equal(filled.read(name), before[name], check_row_order=False, check_column_order=False)
    # The error keeps its frames alive, but not the connection.
    assert_another_process_can_write(filled.path)


@ON_BOTH_ENGINES
def test_an_interrupted_transaction_is_rolled_back(filled: Warehouse) -> None:
    def interrupted() -> None:
        with filled.writing() as tables:
            tables.replace_days([DAY, NEXT], frames_of(NEXT))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_has(filled, frames_of(DAY))
    if filled.is_file:
        assert_another_process_can_write(filled.path)
    filled.publish()  # the lock is released


def test_a_full_disk_is_an_error_and_changes_nothing(filled: Warehouse) -> None:
    # No file of this process may exceed some KB: like a full disk, except for the error's number.
    code = """
import resource, signal, sys
from datetime import timedelta
from pathlib import Path
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import WarehouseError
from orpipeline_tests.test_warehouse import FIVE_DAYS, frames_of, replace
frames = frames_of(*FIVE_DAYS)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    replace(Warehouse(Path(sys.argv[1])), frames, *FIVE_DAYS)
except WarehouseError as error:
    print("rejected:", error)
"""
    output = run_python(code, filled.path)
    assert "rejected:" in output
    assert "tables are unchanged" in output
    assert_has(filled, frames_of(DAY))
    replace(filled, frames_of(NEXT), NEXT)
    assert_has(filled, frames_of(DAY, NEXT))


# Files and folders


def _sqlite_file(folder: Path) -> bytes:
    with sqlite3.connect(folder / "other.sqlite") as other:
        other.execute("CREATE TABLE t (x)")
    return (folder / "other.sqlite").read_bytes()


@pytest.mark.parametrize("content", [lambda _: b"", lambda _: b"as_of,share\n" * 5000, _sqlite_file])
def test_a_file_that_is_not_a_duckdb_file_is_named_and_unchanged(
    warehouse: Warehouse, tmp_path: Path, content: Callable[[Path], bytes]
) -> None:
    warehouse.path.parent.mkdir()
    warehouse.path.write_bytes(before := content(tmp_path))
    with pytest.raises(WarehouseError, match=str(warehouse.path)):
        warehouse.read("snapshots")
    with pytest.raises(WarehouseError, match=str(warehouse.path)):
        replace(warehouse, frames_of(DAY), DAY)
    assert warehouse.path.read_bytes() == before
    assert list(warehouse.path.parent.iterdir()) == [warehouse.path]


def test_a_folder_in_place_of_the_file_is_an_error(warehouse: Warehouse) -> None:
    warehouse.path.mkdir(parents=True)
    with pytest.raises(WarehouseError, match=str(warehouse.path)):
        replace(warehouse, frames_of(DAY), DAY)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(WarehouseError, match=r"Cannot create .*file/folder.*ORPIPELINE_WAREHOUSE"):
        replace(Warehouse(tmp_path / "file" / "folder" / "warehouse.duckdb"), frames_of(DAY), DAY)


# DuckDB names the catalog after the file.
@pytest.mark.parametrize("name", ["openrouter.duckdb", "temp.duckdb", 'o\'brien "q" ü.a.b'])
def test_the_file_can_have_any_name(tmp_path: Path, name: str) -> None:
    warehouse = Warehouse(tmp_path / name)
    replace(warehouse, frames_of(DAY), DAY)
    replace(warehouse, frames_of(DAY), DAY)
    assert_has(warehouse, frames_of(DAY))
    assert len(warehouse.read("model_trends")) == len(frames_of(DAY)["model_leaderboard"])


# Other processes and threads


def test_writers_and_readers_wait_for_another_process(filled: Warehouse) -> None:
    with held_open(filled.path) as holder, let_go_at_the_first_warning(holder):
        assert filled.days() == [DAY]
    with held_open(filled.path) as holder, let_go_at_the_first_warning(holder):
        replace(filled, frames_of(NEXT), NEXT)
    assert_has(filled, frames_of(DAY, NEXT))


@pytest.mark.parametrize("holder_only_reads", [False, True])
def test_a_file_that_stays_locked_is_an_error_that_names_the_process(
    filled: Warehouse, holder_only_reads: bool
) -> None:
    impatient = Warehouse(filled.path, lock_wait_seconds=0.2)
    with held_open(filled.path, read_only=holder_only_reads) as holder:
        with pytest.raises(WarehouseBusyError, match=rf"{filled.path} is locked by \S+ \(PID {holder.pid}\)"):
            replace(impatient, frames_of(NEXT), NEXT)
        if holder_only_reads:  # readers do not wait for each other
            assert impatient.days() == [DAY]
    assert_has(filled, frames_of(DAY))


def test_a_reader_waits_for_a_writer_in_another_thread(filled: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def at_the_warning(_: logging.LogRecord) -> bool:
        release.set()
        return True

    caplog.handler.addFilter(at_the_warning)
    with ThreadPoolExecutor() as pool:
        with filled.writing() as tables:
            tables.replace_days([NEXT], frames_of(NEXT))
            reader = pool.submit(filled.days)
            assert release.wait(10)
        assert reader.result() == [DAY, NEXT]


def test_two_processes_write_one_after_the_other(warehouse: Warehouse) -> None:
    code = """
import sys
from datetime import date
from pathlib import Path
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.test_warehouse import frames_of, replace
days = [date.fromisoformat(day) for day in sys.argv[2:]]
frames = {day: frames_of(day) for day in days}
print("open", flush=True)
sys.stdin.read()
for day in days:
    replace(Warehouse(Path(sys.argv[1])), frames[day], day)
"""
    with started(code, warehouse.path, *FIVE_DAYS[:3]) as other:
        let_go(other)
        for day in FIVE_DAYS[2:]:  # both write the third day
            replace(warehouse, frames_of(day), day)
    assert other.returncode == 0
    assert_has(warehouse, frames_of(*FIVE_DAYS))


def test_a_writer_that_waits_sees_what_the_other_process_archived_and_wrote(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "raw")
    older = archive.put(sample_answer(DAY), fetched_at=FETCHED_AT, source="a test", origin="api").record
    (tmp_path / "newer.json").write_bytes(sample_answer(DAY) + b"\n")
    code = """
import sys
from datetime import date, datetime
from pathlib import Path
from orpipeline.archive.archive import Archive
from orpipeline.snapshot import validate_days, write_days
from orpipeline.warehouse.database import Warehouse
archive, later = Archive(Path(sys.argv[1])), datetime.fromisoformat(sys.argv[4])
with Warehouse(Path(sys.argv[2])).writing() as tables:
    print("open", flush=True)
    sys.stdin.read()
    archive.put(Path(sys.argv[3]).read_bytes(), fetched_at=later, source="a test", origin="api")
    write_days(tables, validate_days(archive, archive.days(), tables, now=later))
"""
    later = FETCHED_AT + timedelta(hours=1)
    with (
        started(code, archive.root, warehouse.path, tmp_path / "newer.json", later) as other,
        let_go_at_the_first_warning(other),
    ):
        loaded = load_days(archive, warehouse, [DAY], now=FETCHED_AT)
    assert other.returncode == 0
    newest = archive.latest(DAY)
    assert newest is not None
    assert newest.sha256 != older.sha256
    assert loaded.validated.chosen == {DAY: newest}
    assert warehouse.read("snapshots")["sha256"].to_list() == [newest.sha256]


# Reading


@ON_BOTH_ENGINES
def test_reading_without_a_warehouse_gives_empty_tables_and_creates_nothing(warehouse: Warehouse) -> None:
    with warehouse.reading() as tables:
        assert tables.days() == []
        assert tables.seen([DAY]).tags.schema == {"as_of": pl.Date, "tag": pl.String}
        for name, model in RELATIONS.items():
            assert_frame_equal(tables.read(name), pl.DataFrame(schema=model.polars_schema()))
    assert not warehouse.exists
    if warehouse.is_file:
        assert not warehouse.path.parent.exists()


@ON_BOTH_ENGINES
def test_tables_that_do_not_exist_yet_are_empty(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        connection.execute("CREATE SCHEMA mine")
    assert warehouse.read("task_models").is_empty()
    replace(warehouse, {})
    assert warehouse.read("task_models").is_empty()


@ON_BOTH_ENGINES
def test_a_range_of_days_includes_both_ends(warehouse: Warehouse) -> None:
    days = FIVE_DAYS
    replace(warehouse, frames_of(*days), *days)
    with warehouse.reading() as tables:

        def read(since: date | None = None, until: date | None = None) -> list[date]:
            return tables.read("snapshots", since=since, until=until)["as_of"].to_list()

        assert read() == days
        assert read(since=days[1]) == days[1:]
        assert read(until=days[3]) == days[:4]
        assert read(days[2], days[2]) == [days[2]]
        assert read(days[3], days[1]) == []


@ON_BOTH_ENGINES
def test_rows_are_in_the_order_of_the_primary_key(warehouse: Warehouse) -> None:
    for day in (NEXT, DAY):
        replace(warehouse, {name: frame.reverse() for name, frame in frames_of(day).items()}, day)
    with warehouse.reading() as tables:
        for name, frame in tables.read_all().items():
            assert_frame_equal(frame, frame.sort(TABLES[name].primary_key()))


@ON_BOTH_ENGINES
def test_seen_has_the_first_day_of_each_name_and_the_names_from_the_day_before(warehouse: Warehouse) -> None:
    first, second, third, fourth, fifth = FIVE_DAYS
    for day, names in ((first, ["old"]), (second, ["old", "new"]), (third, ["old"]), (fifth, ["old", "later"])):
        replace(warehouse, {"macro_categories": macros(*names, day=day)}, day)
    with warehouse.reading() as tables:
        assert set(tables.seen([fourth]).macro_categories.rows()) == {
            (first, "old"),  # the first days, whenever they were
            (second, "new"),
            (fifth, "later"),
            (third, "old"),  # the day before
        }
        assert (fifth, "old") in tables.seen([fourth, fifth]).macro_categories.rows()
        assert tables.seen([]).macro_categories.is_empty()
        assert tables.seen([fourth]).tags.is_empty()


HOSTILE = [
    "'",
    '"; DELETE FROM openrouter.macro_categories; --',
    "$1 ? :name %s {0}",
    "NULL",
    "nul \0 inside",
    "nul at the end\0",
    "nul at the end",
    "tab\tnewline\nreturn\rescape\x1b[31mbell\x07delete\x7f\x85\u2028",
    "\N{FIRE} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} \u202eright to left",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\uffff\U0010ffff",
    "\\x00 \\' \\\\",
    "x" * 100_000,
    " ",
    "",
]


@ON_BOTH_ENGINES
def test_hostile_text_is_unchanged(warehouse: Warehouse) -> None:
    # In a column that the contracts do not restrict: names have no invisible characters.
    days = [DAY + timedelta(days=n) for n in range(len(HOSTILE))]
    frame = pl.concat(frames_of(day)["snapshots"] for day in days).with_columns(source=pl.Series(HOSTILE))
    replace(warehouse, {"snapshots": frame}, *days)
    replace(warehouse, {"snapshots": frame}, *days)
    assert_frame_equal(warehouse.read("snapshots"), frame, check_row_order=False, check_column_order=False)


@ON_BOTH_ENGINES
def test_hostile_names_are_read_back_unchanged(warehouse: Warehouse) -> None:
    names = ["'", '"; DELETE FROM openrouter.macro_categories; --', "$1 ? :name %s {0}", "NULL", "\\x00 \\' \\\\"]
    replace(warehouse, {"macro_categories": macros(*names)}, DAY)
    assert_frame_equal(warehouse.read("macro_categories"), macros(*names), check_row_order=False)
    with warehouse.reading() as tables:
        assert set(tables.seen([DAY]).macro_categories["key"]) == set(names)
