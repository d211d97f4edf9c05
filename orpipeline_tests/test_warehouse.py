from __future__ import annotations

import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive.folder import Record
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import rank
from orpipeline.openrouter.frames import parse
from orpipeline.snapshot import daily_tables
from orpipeline.warehouse.database import OutdatedRowsError, Warehouse, WarehouseBusyError, WarehouseError
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.processes import assert_another_process_can_write, held_open, let_go, run_python, started

Tables = Mapping[str, pl.DataFrame]

NEXT = DAY + timedelta(days=1)
FETCHED_AT = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)


@cache
def tables_of(*days: date) -> Tables:
    """All five tables' rows of made-up answers."""
    bodies = [(day, answer(day)) for day in days]
    records = [
        Record(day, 1, "0" * 64, len(body), FETCHED_AT, "demo", "made up", Path("unused")) for day, body in bodies
    ]
    tables = daily_tables(parse(bodies), records)
    return {**tables, "model_leaderboard": rank(tables["task_classifications"], tables["task_models"])}


def contents(warehouse: Warehouse) -> Tables:
    return {name: warehouse.read(name) for name in TABLES}


def assert_holds(warehouse: Warehouse, expected: Tables) -> None:
    for name, frame in contents(warehouse).items():
        assert_frame_equal(frame, expected[name], check_row_order=False, check_column_order=False, check_exact=True)


def macros(*names: str, day: date = DAY) -> pl.DataFrame:
    """Rows of `macro_categories` with these keys and labels."""
    rows = [(day, 7, name, name, 0.5, 0.5) for name in names]
    return pl.DataFrame(rows, schema=TABLES["macro_categories"].polars_schema(), orient="row")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "data" / "warehouse.duckdb", lock_wait_seconds=10)


# Tables as they are made


def test_tables_have_the_declared_types_and_not_null(warehouse: Warehouse) -> None:
    warehouse.replace_days([], {})
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
            "WHERE schema_name = 'openrouter' ORDER BY table_name, column_index"
        ).fetchall()
    rows = [row for row in rows if row[0] in TABLES]
    made = {name: [row[1:] for row in rows if row[0] == name] for name, *_ in rows}
    assert set(made) == set(TABLES)
    assert made["task_models"] == [
        ("as_of", "DATE", False),
        ("window_days", "INTEGER", False),
        ("tag", "VARCHAR", False),
        ("model_id", "VARCHAR", False),
        ("position", "INTEGER", False),
        ("tag_usage_share", "DOUBLE", False),
        ("tag_token_share", "DOUBLE", False),
    ]
    assert ("fetched_at", "TIMESTAMP WITH TIME ZONE", False) in made["snapshots"]
    assert ("bytes", "BIGINT", False) in made["snapshots"]
    nullable = {(table, column) for table, columns in made.items() for column, _, may in columns if may}
    assert nullable == {("model_leaderboard", "author"), ("model_leaderboard", "variant")}


def test_tables_have_primary_keys(warehouse: Warehouse) -> None:
    warehouse.replace_days([], {})
    with warehouse.connect(read_only=True) as connection:
        keys = connection.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
            "WHERE schema_name = 'openrouter' AND constraint_type = 'PRIMARY KEY'"
        ).fetchall()
    assert dict(keys) == {
        "snapshots": ["as_of", "window_days"],
        "task_classifications": ["as_of", "window_days", "tag"],
        "macro_categories": ["as_of", "window_days", "key"],
        "task_models": ["as_of", "window_days", "tag", "model_id"],
        "model_leaderboard": ["as_of", "window_days", "scope", "model_id"],
    }


def test_tables_and_columns_have_their_descriptions_as_comments(warehouse: Warehouse) -> None:
    warehouse.replace_days([], {})
    with warehouse.connect(read_only=True) as connection:
        tables = connection.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall()
        tables += connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'openrouter'"
        ).fetchall()
    assert dict(tables) == {name: model.summary() for name, model in RELATIONS.items()}
    assert all(comment for *_, comment in columns)
    assert {(table, column): comment for table, column, comment in columns} == {
        (name, column): details.description
        for name, model in RELATIONS.items()
        for column, details in model.columns().items()
    }


def test_the_folder_is_made_for_its_user_alone(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    assert warehouse.path.parent.stat().st_mode & 0o777 == 0o700


# Replacing days


def test_what_is_written_is_what_is_read(warehouse: Warehouse) -> None:
    tables = tables_of(DAY)
    counts = warehouse.replace_days([DAY], tables)
    assert_holds(warehouse, tables)
    assert counts == {name: len(frame) for name, frame in tables.items()}


def test_a_time_is_in_utc_whatever_the_machines_time_zone_is(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    assert warehouse.read("snapshots")["fetched_at"].to_list() == [FETCHED_AT]
    code = """
import sys, pathlib
from orpipeline.warehouse.database import Warehouse
warehouse = Warehouse(pathlib.Path(sys.argv[1]))
with warehouse.connect(read_only=True) as connection:
    print(connection.execute("SELECT fetched_at::VARCHAR FROM openrouter.snapshots").fetchall()[0][0])
print(warehouse.read("snapshots")["fetched_at"][0])
"""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    shown = run_python(code, warehouse.path).splitlines()
    assert shown == ["2026-10-07 00:20:03.123456+00", "2026-10-07 00:20:03.123456+00:00"]


def test_replacing_a_day_twice_leaves_one_set_of_rows(warehouse: Warehouse) -> None:
    tables = tables_of(DAY)
    counts = warehouse.replace_days([DAY], tables)
    assert warehouse.replace_days([DAY], tables) == counts
    assert_holds(warehouse, tables)


def test_replacing_a_day_leaves_no_row_that_the_new_frame_lacks(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], {"macro_categories": macros("code", "gone")})
    warehouse.replace_days([DAY], {"macro_categories": macros("code", "new")})
    assert warehouse.read("macro_categories")["key"].to_list() == ["code", "new"]


def test_replacing_a_day_leaves_the_others(warehouse: Warehouse) -> None:
    both = tables_of(DAY, NEXT)
    warehouse.replace_days([DAY, NEXT], both)
    smaller = {name: frame.head(1) for name, frame in tables_of(DAY).items()}
    counts = warehouse.replace_days([DAY], smaller)
    expected = {name: pl.concat([frame, tables_of(NEXT)[name]]) for name, frame in smaller.items()}
    assert_holds(warehouse, expected)
    assert counts == {name: len(frame) for name, frame in expected.items()}


def test_days_between_the_replaced_ones_stay(warehouse: Warehouse) -> None:
    days = [DAY + timedelta(days=n) for n in range(5)]
    before = tables_of(*days)
    warehouse.replace_days(days, before)
    # The first and the last go; DuckDB's DELETE is told their range too.
    warehouse.replace_days([days[4], days[0]], {name: frame.clear() for name, frame in before.items()})
    assert_holds(warehouse, {name: frame.filter(pl.col("as_of").is_in(days[1:4])) for name, frame in before.items()})


def test_many_days_are_one_call(warehouse: Warehouse) -> None:
    days = [DAY + timedelta(days=n) for n in range(60)]
    tables = tables_of(*days)
    warehouse.replace_days(days, tables)
    warehouse.replace_days(days, tables)
    assert_holds(warehouse, tables)


def test_a_day_that_is_named_twice_is_one_day(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY, DAY], tables_of(DAY))
    assert_holds(warehouse, tables_of(DAY))


def test_empty_frames_empty_their_days(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY, NEXT], tables_of(DAY, NEXT))
    counts = warehouse.replace_days([DAY], {name: frame.clear() for name, frame in tables_of(DAY).items()})
    assert_holds(warehouse, tables_of(NEXT))
    assert counts["snapshots"] == 1


def test_tables_that_are_not_named_are_left_alone(warehouse: Warehouse) -> None:
    before = tables_of(DAY)
    warehouse.replace_days([DAY], before)
    warehouse.replace_days([DAY], {"macro_categories": macros("code")})
    assert_holds(warehouse, {**before, "macro_categories": macros("code")})


def test_columns_go_where_their_names_say(warehouse: Warehouse) -> None:
    tables = tables_of(DAY)
    shuffle = random.Random(1).sample
    warehouse.replace_days(
        [DAY], {name: frame.select(shuffle(frame.columns, frame.width)) for name, frame in tables.items()}
    )
    assert_holds(warehouse, tables)


# What is refused, and that it changes nothing


def _change(table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Tables], Tables]:
    return lambda tables: {**tables, table: change(tables[table])}


# The frame that is wrong is not the first that is written.
WRONG: dict[str, Callable[[Tables], Tables]] = {
    "a column too few": _change("task_models", lambda frame: frame.drop("position")),
    "a column too many": _change("task_models", lambda frame: frame.with_columns(note=pl.lit("x"))),
    "a column in place of another": _change("task_models", lambda frame: frame.rename({"position": "place"})),
    "a wrong type": _change("task_models", lambda frame: frame.with_columns(pl.col("position").cast(pl.String))),
    "a wider type": _change("task_models", lambda frame: frame.with_columns(pl.col("position").cast(pl.Int64))),
    "times for days": _change("task_models", lambda frame: frame.with_columns(pl.col("as_of").cast(pl.Datetime))),
    "a share that is NaN": _change(
        "task_models", lambda frame: frame.with_columns(tag_usage_share=pl.lit(float("nan")))
    ),
    "a share above 1": _change("macro_categories", lambda frame: frame.with_columns(usage_share=pl.lit(1.5))),
    "a NULL": _change("task_models", lambda frame: frame.with_columns(tag=pl.lit(None, pl.String))),
    "a NULL day": _change("task_models", lambda frame: frame.with_columns(as_of=pl.lit(None, pl.Date))),
    "a key twice": _change("task_models", lambda frame: pl.concat([frame, frame.head(1)])),
    "a key twice in the last table": _change("model_leaderboard", lambda frame: pl.concat([frame, frame.head(1)])),
    "a row of a day that stays": _change(
        "model_leaderboard", lambda frame: pl.concat([frame, frame.head(1).with_columns(as_of=pl.lit(NEXT))])
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_frame_is_an_error_and_every_table_keeps_what_it_had(
    warehouse: Warehouse, wrong: Callable[[Tables], Tables]
) -> None:
    before = {name: frame.head(2) for name, frame in tables_of(DAY).items()}
    warehouse.replace_days([DAY], before)
    with pytest.raises(OrpipelineError) as refused:
        warehouse.replace_days([DAY], wrong(tables_of(DAY)))
    assert_holds(warehouse, before)
    # The error and its frames are still there; the connection must not be.
    assert refused.value.__traceback__ is not None
    assert_another_process_can_write(warehouse.path)


def test_the_error_names_table_and_columns(warehouse: Warehouse) -> None:
    frame = macros("code").rename({"label": "title"}).with_columns(pl.col("window_days").cast(pl.Int64))
    with pytest.raises(WarehouseError, match=r"table macro_categories .*\['label'\].*window_days is Int64.*title"):
        warehouse.replace_days([DAY], {"macro_categories": frame})
    assert not warehouse.exists


def test_an_error_in_the_last_table_rolls_back_the_ones_before(warehouse: Warehouse) -> None:
    before = tables_of(DAY)
    warehouse.replace_days([DAY], before)
    with warehouse.connect() as connection:
        # Only the database can know of this one: four tables are written by the time it says so.
        connection.execute("ALTER TABLE openrouter.model_leaderboard DROP COLUMN top_task")
    new = {name: frame.head(2) for name, frame in before.items()}
    with pytest.raises(WarehouseError, match="top_task"):
        warehouse.replace_days([DAY], new)
    for name in list(TABLES)[:-1]:
        assert_frame_equal(
            warehouse.read(name), before[name].sort(TABLES[name].primary_key()), check_column_order=False
        )
    assert_another_process_can_write(warehouse.path)


def test_rows_that_are_not_right_any_more_are_not_written(warehouse: Warehouse) -> None:
    before = tables_of(DAY)
    warehouse.replace_days([DAY], before)
    with pytest.raises(OutdatedRowsError, match="Nothing was written"):
        warehouse.replace_days([DAY], {"macro_categories": macros("code")}, still_right=lambda: False)
    assert_holds(warehouse, before)


def test_whether_rows_are_still_right_is_asked_once_nobody_else_can_write(warehouse: Warehouse) -> None:
    code = """
import sys, duckdb
try:
    duckdb.connect(sys.argv[1])
except duckdb.IOException:
    print("held")
"""
    said: list[str] = []

    def still_right() -> bool:
        said.append(run_python(code, warehouse.path).strip())
        return True

    warehouse.replace_days([DAY], tables_of(DAY), still_right=still_right)
    assert said == ["held"]
    assert_holds(warehouse, tables_of(DAY))


def test_an_error_in_the_first_write_leaves_no_tables(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError):
        warehouse.replace_days([DAY], WRONG["a key twice in the last table"](tables_of(DAY)))
    assert all(frame.is_empty() for frame in contents(warehouse).values())
    warehouse.replace_days([DAY], tables_of(DAY))
    assert_holds(warehouse, tables_of(DAY))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_transaction_is_rolled_back(warehouse: Warehouse, interruption: type[BaseException]) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    with pytest.raises(interruption), warehouse.transaction() as connection:  # noqa: PT012 - it is what is tested
        connection.execute("DELETE FROM openrouter.snapshots")
        raise interruption
    assert_holds(warehouse, tables_of(DAY))
    assert_another_process_can_write(warehouse.path)


def test_an_error_of_duckdb_is_told_in_our_words(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="no_such_table") as told, warehouse.connect() as connection:
        connection.execute("SELECT * FROM no_such_table")
    assert isinstance(told.value.__cause__, duckdb.Error)
    assert str(warehouse.path) in str(told.value)
    assert_another_process_can_write(warehouse.path)


def test_a_killed_process_leaves_what_was_there(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    code = """
import sys, pathlib
from orpipeline.warehouse.database import Warehouse
with Warehouse(pathlib.Path(sys.argv[1])).transaction() as connection:
    connection.execute("DELETE FROM openrouter.task_models")
    connection.execute("DROP TABLE openrouter.snapshots")
    print("open", flush=True)
    sys.stdin.read()
"""
    with started(code, warehouse.path) as process:
        process.kill()
        process.wait()
    assert_holds(warehouse, tables_of(DAY))


def test_a_full_disk_is_an_error_and_the_old_rows_stand(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    # No file of this process may grow beyond some KB: what a write meets on a full disk, but for the error's number.
    code = """
import resource, signal, sys
from datetime import timedelta
from pathlib import Path
from orpipeline.warehouse.database import Warehouse, WarehouseError
from orpipeline_tests.test_warehouse import DAY, tables_of
days = [DAY + timedelta(days=n) for n in range(30)]
tables = tables_of(*days)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    Warehouse(Path(sys.argv[1])).replace_days(days, tables)
except WarehouseError as error:
    print("refused:", error)
"""
    said = run_python(code, warehouse.path)
    assert "refused:" in said
    assert "keep what they had" in said
    assert_holds(warehouse, tables_of(DAY))
    warehouse.replace_days([NEXT], tables_of(NEXT))
    assert_holds(warehouse, tables_of(DAY, NEXT))


# Files and folders


@pytest.mark.parametrize("content", [b"", b"x", b"as_of,share\n2026-10-06,0.5\n" * 5000])
def test_a_file_that_is_no_duckdb_file_is_named_and_not_touched(warehouse: Warehouse, content: bytes) -> None:
    warehouse.path.parent.mkdir()
    warehouse.path.write_bytes(content)
    for attempt in (
        lambda: warehouse.read("snapshots"),
        lambda: warehouse.seen([DAY]),
        lambda: warehouse.replace_days([DAY], tables_of(DAY)),
    ):
        with pytest.raises(WarehouseError, match=str(warehouse.path)):
            attempt()
    assert warehouse.path.read_bytes() == content
    assert list(warehouse.path.parent.iterdir()) == [warehouse.path]


def test_a_folder_in_place_of_the_file_is_an_error(warehouse: Warehouse) -> None:
    warehouse.path.mkdir(parents=True)
    with pytest.raises(WarehouseError, match=str(warehouse.path)):
        warehouse.replace_days([DAY], tables_of(DAY))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    warehouse = Warehouse(tmp_path / "file" / "folder" / "warehouse.duckdb")
    with pytest.raises(WarehouseError, match=r"file/folder cannot be made.*ORPIPELINE_WAREHOUSE"):
        warehouse.replace_days([DAY], tables_of(DAY))
    assert (tmp_path / "file").read_text() == "a file"


# DuckDB names the catalog after the file.
@pytest.mark.parametrize("name", ["openrouter.duckdb", "temp.duckdb", 'o\'brien "q" ü.db', "a.b.c", "warehouse"])
def test_the_file_can_have_any_name(tmp_path: Path, name: str) -> None:
    warehouse = Warehouse(tmp_path / name)
    warehouse.replace_days([DAY], tables_of(DAY))
    warehouse.replace_days([DAY], tables_of(DAY))
    assert_holds(warehouse, tables_of(DAY))
    assert len(warehouse.seen([DAY]).macro_categories) == 4


def test_a_table_that_is_missing_is_made_again(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "openrouter.duckdb")
    warehouse.replace_days([DAY], tables_of(DAY))
    with warehouse.connect() as connection:
        connection.execute("DROP TABLE openrouter.openrouter.snapshots")
    assert warehouse.read("snapshots").is_empty()
    warehouse.replace_days([DAY], tables_of(DAY))
    assert_holds(warehouse, tables_of(DAY))


# Other processes


def test_a_write_waits_for_another_process(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    with held_open(warehouse.path) as holder:
        letting_go = threading.Timer(1, let_go, [holder])
        letting_go.start()
        began = time.monotonic()
        warehouse.replace_days([NEXT], tables_of(NEXT))
        assert time.monotonic() - began >= 0.5
        letting_go.join()
    assert_holds(warehouse, tables_of(DAY, NEXT))


def test_a_read_waits_for_another_process(warehouse: Warehouse) -> None:
    warehouse.replace_days([DAY], tables_of(DAY))
    with held_open(warehouse.path) as holder:
        letting_go = threading.Timer(1, let_go, [holder])
        letting_go.start()
        assert len(warehouse.read("snapshots")) == 1
        letting_go.join()


@pytest.mark.parametrize("holder_only_reads", [False, True])
def test_a_file_that_stays_held_is_an_error_that_names_the_process(tmp_path: Path, holder_only_reads: bool) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb", lock_wait_seconds=0.5)
    warehouse.replace_days([DAY], tables_of(DAY))
    with held_open(warehouse.path, read_only=holder_only_reads) as holder:
        began = time.monotonic()
        with pytest.raises(WarehouseBusyError, match=rf"{warehouse.path}.*\(PID {holder.pid}\)"):
            warehouse.replace_days([NEXT], tables_of(NEXT))
        # Waiting ends before the time is up rather than after.
        assert 0.1 < time.monotonic() - began < 5
    assert_holds(warehouse, tables_of(DAY))


def test_readers_in_two_processes_do_not_wait(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb", lock_wait_seconds=0)
    warehouse.replace_days([DAY], tables_of(DAY))
    with held_open(warehouse.path, read_only=True):
        assert_holds(warehouse, tables_of(DAY))
        assert len(warehouse.seen([DAY]).macro_categories) == 4


def test_two_processes_write_one_after_the_other(warehouse: Warehouse) -> None:
    days = [DAY + timedelta(days=n) for n in range(4)]
    code = """
import sys
from datetime import date
from pathlib import Path
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.test_warehouse import tables_of
for text in sys.argv[2:]:
    day = date.fromisoformat(text)
    Warehouse(Path(sys.argv[1])).replace_days([day], tables_of(day))
"""
    with ThreadPoolExecutor() as pool:
        # The second day is written by both.
        writers = [pool.submit(run_python, code, warehouse.path, *some) for some in (days[:2], days[1:])]
    assert [writer.result() for writer in writers] == ["", ""]
    assert_holds(warehouse, tables_of(*days))


# Reading


@pytest.mark.parametrize("table", TABLES)
def test_reading_what_was_never_written_gives_an_empty_frame(warehouse: Warehouse, table: str) -> None:
    empty = pl.DataFrame(schema=TABLES[table].polars_schema())
    assert_frame_equal(warehouse.read(table), empty)
    assert not warehouse.path.parent.exists()
    with warehouse.connect():
        pass  # a file without tables, as a user's own first asset leaves it
    assert_frame_equal(warehouse.read(table), empty)
    warehouse.replace_days([], {})
    assert_frame_equal(warehouse.read(table), empty)


def test_rows_are_read_by_range_of_days_both_ends_included(warehouse: Warehouse) -> None:
    days = [DAY + timedelta(days=n) for n in range(5)]
    warehouse.replace_days(days, tables_of(*days))

    def read(since: date | None = None, until: date | None = None) -> list[date]:
        return warehouse.read("snapshots", since=since, until=until)["as_of"].to_list()

    assert read() == days
    assert read(since=days[1]) == days[1:]
    assert read(until=days[3]) == days[:4]
    assert read(days[1], days[3]) == days[1:4]
    assert read(days[2], days[2]) == [days[2]]
    assert read(days[3], days[1]) == []
    assert warehouse.read("snapshots", since=days[3], until=days[1]).schema == warehouse.read("snapshots").schema


def test_rows_are_read_in_the_order_of_the_primary_key(warehouse: Warehouse) -> None:
    for day in (NEXT, DAY):
        backwards = {name: frame.reverse() for name, frame in tables_of(day).items()}
        warehouse.replace_days([day], backwards)
    for name, frame in contents(warehouse).items():
        assert_frame_equal(frame, frame.sort(TABLES[name].primary_key()))
        assert frame["as_of"][0] == DAY


def test_seen_knows_the_first_day_of_each_name_and_the_names_around_the_days(warehouse: Warehouse) -> None:
    first, second, third, fourth, fifth = (DAY + timedelta(days=n) for n in range(5))
    for day, names in ((first, ["old"]), (second, ["old", "new"]), (third, ["old"]), (fifth, ["old", "later"])):
        warehouse.replace_days([day], {"macro_categories": macros(*names, day=day)})
    assert set(warehouse.seen([fourth]).macro_categories.rows()) == {
        (first, "old"),  # the first days, whenever they were
        (second, "new"),
        (fifth, "later"),
        (third, "old"),  # the day before
    }
    assert (fifth, "old") in warehouse.seen([fourth, fifth]).macro_categories.rows()
    assert warehouse.seen([fourth]).tags.is_empty()


def test_seen_is_empty_where_nothing_was_written_or_asked(warehouse: Warehouse) -> None:
    assert warehouse.seen([DAY]).tags.schema == {"as_of": pl.Date, "tag": pl.String}
    assert not warehouse.exists
    warehouse.replace_days([DAY], tables_of(DAY))
    assert warehouse.seen([]).macro_categories.schema == {"as_of": pl.Date, "key": pl.String}
    assert len(warehouse.seen([DAY]).tags) == 29


# Text from upstream

HOSTILE = [
    "'",
    '"',
    "'; DROP TABLE openrouter.macro_categories; --",
    '"; DELETE FROM openrouter.macro_categories; --',
    "$1 ? :name %s {0}",
    "NULL",
    "nul \0 inside",
    "nul at the end\0",
    "nul at the end",
    "\0",
    "tab\tnewline\nreturn\rescape\x1b[31mbell\x07delete\x7f\x85\u2028",
    "\N{FIRE} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} e\N{COMBINING ACUTE ACCENT} \u202eright to left",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\uffff\U0010ffff",
    "<script>alert(1)</script>&amp;",
    "=HYPERLINK(1)",
    "\\x00 \\' \\\\",
    "x" * 100_000,
    " ",
    "",
]


def test_hostile_text_comes_back_as_it_went_in(warehouse: Warehouse) -> None:
    frame = macros(*HOSTILE)
    warehouse.replace_days([DAY], {"macro_categories": frame})
    warehouse.replace_days([DAY], {"macro_categories": frame})
    assert_frame_equal(warehouse.read("macro_categories"), frame, check_row_order=False)
    assert set(warehouse.seen([DAY]).macro_categories["key"]) == set(HOSTILE)


def test_a_database_of_another_kind_is_refused_without_asking_the_network(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(WarehouseError, match=re.escape(str(path))):
        Warehouse(path, lock_wait_seconds=1).read("snapshots")
