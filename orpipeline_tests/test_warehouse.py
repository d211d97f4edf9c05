from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive import Archive
from orpipeline.contracts.table import DUCKDB_TYPES
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS
from orpipeline.errors import OrpipelineError, WarehouseBusyError, WarehouseError
from orpipeline.load import load_days
from orpipeline.testing import sample_response, sample_tables
from orpipeline.warehouse.schema import REGISTER
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.engines import ON_BOTH_ENGINES, EnginePlace
from orpipeline_tests.processes import (
    assert_another_process_can_write,
    held_open,
    let_go_at_the_first_warning,
    run_python,
    started,
)
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import days_of, local, publish

Frames = Mapping[str, pl.DataFrame]

NEXT = DAY + timedelta(days=1)
FIVE_DAYS = [DAY + timedelta(days=n) for n in range(5)]
FETCHED_AT = datetime(2026, 10, 7, 0, 20, tzinfo=UTC)


def frames_of(*days: date) -> dict[str, pl.DataFrame]:
    """Return the rows of all tables for some of the five days, from made-up responses."""
    frames = sample_tables(len(FIVE_DAYS), until=FIVE_DAYS[-1])
    return {name: frames[name].filter(pl.col("as_of").is_in(days)) for name in TABLES}


def macros(*keys: str, day: date = DAY) -> pl.DataFrame:
    """Return rows of `macro_categories` with these keys and labels."""
    rows = [(day, 7, key, key, 0.5, 0.5) for key in keys]
    return pl.DataFrame(rows, schema=TABLES["macro_categories"].polars_schema(), orient="row")


def replace(warehouse: Warehouse, frames: Frames, *days: date) -> None:
    """Replace the rows of days in one transaction; a table without a frame has no rows for them."""
    with warehouse.writing() as tables:
        tables.replace_days(days, {**frames_of(), **frames})


def assert_has(warehouse: Warehouse, expected: Frames) -> None:
    """Compare every row of every table, in the order of the primary key."""
    with warehouse.reading() as tables:
        for name, frame in {name: tables.read(name) for name in TABLES}.items():
            assert_frame_equal(frame, expected[name].sort(TABLES[name].primary_key()), check_exact=True)


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
    if isinstance(warehouse.place, Path):
        local(warehouse.place).parent.mkdir()
        shutil.copyfile(one_day, local(warehouse.place))
    else:
        replace(warehouse, frames_of(DAY), DAY)
    return warehouse


# New tables


def test_tables_and_views_have_the_types_keys_and_comments_that_their_contracts_declare(warehouse: Warehouse) -> None:
    replace(warehouse, {})
    with warehouse.connect(read_only=True) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() "
            "WHERE schema_name = 'openrouter' AND table_name <> ? ORDER BY table_name, column_index",
            [REGISTER],
        ).fetchall()
        summaries = connection.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE table_name <> ? "
            "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE NOT internal",
            [REGISTER],
        ).fetchall()
        keys = connection.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        ).fetchall()
    assert columns == [
        (name, column, DUCKDB_TYPES[details.dtype.type], details.nullable or name in VIEWS, details.description)
        for name, model in sorted(RELATIONS.items())
        for column, details in model.columns().items()
    ]
    assert dict(summaries) == {name: model.summary() for name, model in RELATIONS.items()}
    of_days = {"snapshots": "", "task_classifications": "tag", "macro_categories": "key", "task_models": "tag model_id"}
    of_scopes = {"model_leaderboard": "model_id", "author_leaderboard": "author", "leaderboard_coverage": ""}
    expected = of_days | {name: f"scope {column}" for name, column in of_scopes.items()}
    keys_of_days = {name: ["as_of", "window_days", *columns.split()] for name, columns in expected.items()}
    assert dict(keys) == keys_of_days | {"models": ["as_of", "model_id"]}
    assert local(warehouse.place).parent.stat().st_mode & 0o777 == 0o700  # private to its user


# Replacing days


@ON_BOTH_ENGINES
def test_rows_are_read_as_they_were_written_in_the_order_of_their_key(warehouse: Warehouse) -> None:
    frames, shuffle = frames_of(DAY), random.Random(1).sample
    for _ in range(2):  # the second time replaces the first
        shuffled = {name: frame.select(shuffle(frame.columns, frame.width)).reverse() for name, frame in frames.items()}
        replace(warehouse, shuffled, DAY)
        assert_has(warehouse, frames)


@ON_BOTH_ENGINES
def test_replaced_days_lose_their_old_rows_and_other_days_between_them_keep_theirs(warehouse: Warehouse) -> None:
    before = frames_of(*FIVE_DAYS)
    replace(warehouse, before, *FIVE_DAYS)
    first = {name: frame.head(1) for name, frame in frames_of(DAY).items()}
    replace(warehouse, first, FIVE_DAYS[4], DAY, DAY)
    expected = {
        name: pl.concat([first[name], frame.filter(pl.col("as_of").is_in(FIVE_DAYS[1:4]))])
        for name, frame in before.items()
    }
    assert_has(warehouse, expected)


@pytest.mark.slow
def test_times_are_in_utc_in_any_time_zone(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys, pathlib
from orpipeline.warehouse.warehouse import Warehouse
warehouse = Warehouse(pathlib.Path(sys.argv[1]))
with warehouse.connect(read_only=True) as connection:
    print(connection.execute("SELECT fetched_at::VARCHAR FROM openrouter.snapshots").fetchall()[0][0])
print(warehouse.read("snapshots")["fetched_at"][0])
"""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    shown = run_python(code, local(filled.place)).splitlines()
    assert shown == ["2026-10-07 00:20:00+00", "2026-10-07 00:20:00+00:00"]


def test_two_schemas_in_one_file_do_not_disturb_each_other(filled: Warehouse) -> None:
    second = Warehouse(local(filled.place), schema="second")
    assert days_of(second) == []
    replace(second, frames_of(DAY, NEXT), DAY, NEXT)
    assert_has(filled, frames_of(DAY))
    assert_has(second, frames_of(DAY, NEXT))
    # Each view reads the tables of its own schema.
    for warehouse in (filled, second):
        assert len(warehouse.read("model_trends")) == len(warehouse.read("model_leaderboard"))
        assert set(warehouse.read("latest_leaderboard")["as_of"]) == {max(warehouse.read("snapshots")["as_of"])}


# Errors change nothing


def _change(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Frames], Frames]:
    return lambda frames: {**frames, name: change(frames[name])}


# The wrong frame is never the first one that is written.
WRONG: dict[str, Callable[[Frames], Frames]] = {
    "NOT NULL constraint.*position": _change("task_models", lambda frame: frame.drop("position")),
    "column.*note": _change("task_models", lambda frame: frame.with_columns(note=pl.lit("x"))),
    "NOT NULL constraint.*task_models": _change(
        "task_models", lambda frame: frame.with_columns(tag=pl.lit(None, pl.String))
    ),
    "table model_leaderboard .*usage_share.*NaN": _change(
        "model_leaderboard", lambda frame: frame.with_columns(usage_share=pl.lit(float("nan")))
    ),
    "table model_leaderboard break keys_are_unique": _change(
        "model_leaderboard", lambda frame: pl.concat([frame, frame.head(1)])
    ),
}


@pytest.mark.parametrize(("reason", "wrong"), WRONG.items())
def test_a_wrong_frame_is_an_error_and_all_tables_are_unchanged(
    filled: Warehouse, reason: str, wrong: Callable[[Frames], Frames]
) -> None:
    smaller = {name: frame.head(2) for name, frame in frames_of(DAY).items()}
    with pytest.raises(OrpipelineError, match=reason) as error:
        replace(filled, wrong(smaller), DAY)
    assert "Nothing was written" in str(error.value) or "its tables are unchanged" in str(error.value)
    assert_has(filled, frames_of(DAY))


def test_an_error_of_duckdb_in_the_last_table_rolls_back_all_tables(filled: Warehouse) -> None:
    before, last = frames_of(DAY), list(TABLES)[-1]
    with filled.connect() as connection:  # an index of your own can reject rows
        connection.execute(f"DELETE FROM openrouter.{last}")
        connection.execute(f"CREATE UNIQUE INDEX one_a_day ON openrouter.{last} (as_of)")
    with pytest.raises(WarehouseError, match="duplicate key") as raised:
        replace(filled, {name: frame.head(2) for name, frame in before.items()}, DAY)
    assert str(local(filled.place)) in str(raised.value)
    assert isinstance(raised.value.__cause__, duckdb.Error)
    assert_has(filled, {**before, last: before[last].clear()})
    # The error keeps its frames alive, but not the connection.
    assert_another_process_can_write(local(filled.place))


@ON_BOTH_ENGINES
def test_an_interrupted_transaction_is_rolled_back(filled: Warehouse) -> None:
    def interrupted() -> None:
        with filled.writing() as tables:
            tables.replace_days([DAY, NEXT], frames_of(NEXT))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_has(filled, frames_of(DAY))
    if isinstance(filled.place, Path):
        assert_another_process_can_write(filled.place)
    publish(filled)  # the lock is released


# Files and folders


@pytest.mark.parametrize("content", [b"", b"as_of,share\n" * 5000, b"SQLite format 3\0" + bytes(8000)])
def test_a_file_that_is_not_a_duckdb_file_is_named_and_unchanged(warehouse: Warehouse, content: bytes) -> None:
    local(warehouse.place).parent.mkdir()
    local(warehouse.place).write_bytes(content)
    for action in (lambda: warehouse.read("snapshots"), lambda: replace(warehouse, frames_of(DAY), DAY)):
        with pytest.raises(WarehouseError, match=str(local(warehouse.place))):
            action()
    assert local(warehouse.place).read_bytes() == content
    assert list(local(warehouse.place).parent.iterdir()) == [local(warehouse.place)]


# Other processes and threads


def test_writers_and_readers_wait_for_another_process(filled: Warehouse) -> None:
    with held_open(local(filled.place)) as holder, let_go_at_the_first_warning(holder):
        assert days_of(filled) == [DAY]
    with held_open(local(filled.place)) as holder, let_go_at_the_first_warning(holder):
        replace(filled, frames_of(NEXT), NEXT)
    assert_has(filled, frames_of(DAY, NEXT))


@pytest.mark.parametrize("holder_only_reads", [False, True])
def test_a_file_that_stays_locked_is_an_error_that_names_the_process(
    filled: Warehouse, holder_only_reads: bool
) -> None:
    impatient = Warehouse(local(filled.place), lock_wait_seconds=0.2)
    with held_open(local(filled.place), read_only=holder_only_reads) as holder:
        with pytest.raises(WarehouseBusyError, match=rf"{local(filled.place)} is locked by \S+ \(PID {holder.pid}\)"):
            replace(impatient, frames_of(NEXT), NEXT)
        if holder_only_reads:  # readers do not wait for each other
            assert days_of(impatient) == [DAY]
    assert_has(filled, frames_of(DAY))


@pytest.mark.slow
def test_a_writer_that_waits_sees_what_the_other_process_archived_and_wrote(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "raw")
    older = archive.put(sample_response(DAY), fetched_at=FETCHED_AT, source="a test", origin="api").revision
    (tmp_path / "newer.json").write_bytes(sample_response(DAY) + b"\n")
    code = """
import sys
from datetime import datetime
from pathlib import Path
from orpipeline.archive import Archive
from orpipeline.load import load_days
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.world import days_of, local, publish
archive, later = Archive(Path(sys.argv[1])), datetime.fromisoformat(sys.argv[4])
warehouse = Warehouse(Path(sys.argv[2]))
with warehouse.locked():
    print("open", flush=True)
    sys.stdin.read()
    archive.put(Path(sys.argv[3]).read_bytes(), fetched_at=later, source="a test", origin="api")
    load_days(archive, warehouse, archive.days(), now=later)
"""
    later = FETCHED_AT + timedelta(hours=1)
    with (
        started(code, tmp_path / "raw", local(warehouse.place), tmp_path / "newer.json", later) as other,
        let_go_at_the_first_warning(other),
    ):
        loaded = load_days(archive, warehouse, [DAY], now=FETCHED_AT)
    assert other.returncode == 0
    newest = archive.latest(DAY)
    assert newest is not None
    assert newest.digest != older.digest
    assert loaded.validated.chosen == {DAY: newest}
    (stored,) = warehouse.read("snapshots")["sha256"]
    assert stored.startswith(newest.digest)


# Reading


@ON_BOTH_ENGINES
def test_reading_without_a_warehouse_or_tables_gives_empty_tables_and_creates_nothing(warehouse: Warehouse) -> None:
    with warehouse.reading() as tables:
        assert tables.days() == []
        assert tables.novelties([DAY]).is_empty()
        for name, model in RELATIONS.items():
            assert_frame_equal(tables.read(name), pl.DataFrame(schema=model.polars_schema()))
    assert not warehouse.exists
    if isinstance(warehouse.place, Path):
        assert not warehouse.place.parent.exists()
    with warehouse.connect() as connection:
        connection.execute("CREATE SCHEMA mine")
    assert warehouse.read("task_models").is_empty()


@ON_BOTH_ENGINES
def test_a_range_of_days_includes_both_ends(warehouse: Warehouse) -> None:
    days = FIVE_DAYS
    replace(warehouse, frames_of(*days), *days)
    with warehouse.reading() as tables:
        for since, until, expected in (
            (None, None, days),
            (days[1], None, days[1:]),
            (None, days[3], days[:4]),
            (days[2], days[2], [days[2]]),
            (days[3], days[1], []),
        ):
            assert tables.read("snapshots", since=since, until=until)["as_of"].to_list() == expected


@ON_BOTH_ENGINES
def test_names_that_are_new_or_gone_are_warnings_but_not_on_the_first_day(warehouse: Warehouse) -> None:
    first, second, third, _, fifth = FIVE_DAYS
    for day, names in ((first, ["old"]), (second, ["old", "new"]), (third, ["old"]), (fifth, ["old", "later"])):
        tags = frames_of(day)["task_classifications"].head(len(names)).with_columns(tag=pl.Series(names))
        replace(warehouse, {"macro_categories": macros(*names, day=day), "task_classifications": tags}, day)
    new, gone = "new: no earlier day has it", "gone: the day before has it"
    with warehouse.reading() as tables:
        found = tables.novelties([first, second, third, fifth])
        assert set(found.select("as_of", "rule", "row", "found").rows()) == {
            (second, "tags_match_day_before", "new", new),
            (third, "tags_match_day_before", "new", gone),
            (fifth, "tags_match_day_before", "later", new),
            (second, "macro_categories_are_known", "new", new),
            (fifth, "macro_categories_are_known", "later", new),
        }
        assert set(found["severity"]) == {"WARN"}
        assert set(tables.novelties([third])["row"]) == {"new"}


HOSTILE = [
    *("'", '"; DELETE FROM openrouter.macro_categories; --', "$1 ? :name %s {0}", "NULL", "\\x00 \\' \\\\", " ", ""),
    *("nul \0 inside", "nul at the end\0", "nul at the end", "é", "e\N{COMBINING ACUTE ACCENT}", "\uffff\U0010ffff"),
    "tab\tnewline\nreturn\rescape\x1b[31mbell\x07delete\x7f\x85\u2028",
    "\N{FIRE} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} \u202eright to left",
    "x" * 100_000,
]


@ON_BOTH_ENGINES
def test_hostile_text_is_read_back_unchanged(warehouse: Warehouse) -> None:
    for _ in range(2):
        replace(warehouse, {"macro_categories": macros(*HOSTILE)}, DAY)
    assert_has(warehouse, {**frames_of(), "macro_categories": macros(*HOSTILE)})
