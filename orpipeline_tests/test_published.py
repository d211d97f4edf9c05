"""The published copy: it is whole, current, and blocks nobody."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from polars.testing import assert_frame_equal

import orpipeline
from orpipeline import NotPublishedError, Settings, SettingsError, WarehouseBusyError, WarehouseError
from orpipeline.contracts.tables import EXPORTED, RELATIONS, TABLES
from orpipeline.warehouse.description import description
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.processes import held_open
from orpipeline_tests.publishing import DAYS, DESCRIPTION, FIRST, Place
from orpipeline_tests.world import days_of, local, publish

pytestmark = pytest.mark.promise


@pytest.fixture(scope="module")
def six_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `place`, to copy."""
    folder = tmp_path_factory.mktemp("six-days") / "data"
    six = Place(folder)
    six.load(*DAYS)
    six.load_catalogues(*DAYS)
    return folder


@pytest.fixture
def place(tmp_path: Path, six_days: Path) -> Place:
    shutil.copytree(six_days, tmp_path / "data")
    return Place(tmp_path / "data")


def test_every_table_and_view_is_read_with_the_columns_of_its_contract(place: Place) -> None:
    with place.warehouse.reading() as tables:
        for name, model in RELATIONS.items():
            rows = place.read(name)
            assert rows.schema == model.polars_schema()
            assert_frame_equal(rows, tables.read(name))
            assert len(rows)


def test_days_and_a_scope_can_be_chosen(place: Place) -> None:
    rows = place.read("model_leaderboard", since=DAYS[1], until=str(DAYS[2]), scope="code")
    assert rows["as_of"].unique().sort().to_list() == DAYS[1:3]
    assert set(rows["scope"]) == {"code"}
    assert place.read("task_models", since=DAYS[-1] + timedelta(days=1)).is_empty()


def test_your_own_tables_are_in_the_copy_too(place: Place) -> None:
    place.execute(
        "CREATE TABLE authors AS SELECT DATE '2026-10-01' AS as_of, 'a' AS author",
        "CREATE SCHEMA market",
        "CREATE TABLE market.prices (price DOUBLE)",
        "CREATE VIEW market.dear AS FROM market.prices",
        "CREATE SCHEMA other; CREATE TABLE other.prices (price DOUBLE)",
        "CREATE TABLE other.model_leaderboard (price DOUBLE)",
    )
    assert place.read("authors").to_dicts() == place.read("main.Authors").to_dicts()
    assert place.read("authors", until="2026-09-30").is_empty()
    assert place.read("market.dear").columns == ["price"]
    with pytest.raises(WarehouseError, match=r"no table or view prices. These exist: .*market.prices, .*other.prices"):
        place.read("prices")
    assert "usage_rank" in place.read("model_leaderboard").columns  # the pipeline's own takes precedence
    with pytest.raises(WarehouseError, match="as_of"):
        place.read("market.prices", since=FIRST)


def test_a_wrong_name_is_an_error_that_helps(place: Place) -> None:
    for name in ("model_leader_board", "settings", "no.settings"):  # also if `read` has a variable of that name
        with pytest.raises(WarehouseError, match=rf"no table or view {name}. These exist: .*openrouter.task_models"):
            place.read(name)
    with pytest.raises(WarehouseError, match=r"no scope coding. Its scopes are: agent, all, code, data, general"):
        place.read("model_leaderboard", scope="coding")
    with pytest.raises(SettingsError, match="since: 'yesterday' is not a day"):
        place.read("model_leaderboard", since="yesterday")


def test_without_a_copy_the_error_states_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotPublishedError, match=r"no published copy at .*orpipeline run"):
        orpipeline.read("task_models", settings=Settings(data_dir=tmp_path))
    broken = tmp_path / "reports" / "published" / "warehouse.duckdb"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"cut off")
    with pytest.raises(WarehouseError, match=r"published copy .* cannot be read"):
        orpipeline.read("task_models", settings=Settings(data_dir=tmp_path))


def test_a_process_that_has_an_older_copy_open_reads_the_newest_one(place: Place) -> None:
    with duckdb.connect(place.file, read_only=True) as notebook:
        count = "SELECT count(DISTINCT as_of) FROM openrouter.task_models"
        place.load(DAYS[-1] + timedelta(days=1))
        assert notebook.execute(count).fetchall() == [(len(DAYS),)]
        assert len(place.read("snapshots")) == len(DAYS) + 1


def test_a_locked_warehouse_is_an_error_that_points_to_the_copy(place: Place) -> None:
    patient = Warehouse(local(place.warehouse.place), lock_wait_seconds=0.1, published=place.published)
    with (
        held_open(local(place.warehouse.place)) as holder,
        pytest.raises(WarehouseBusyError) as error,
        patient.writing(),
    ):
        pass
    assert f"PID {holder.pid}" in str(error.value)
    assert f"can open {place.published} instead" in str(error.value)
    assert "read-only" not in str(error.value)


# Parquet


def test_polars_pandas_pyarrow_and_duckdb_read_the_parquet_files_with_the_same_types(place: Place) -> None:
    assert set(place.parquet.entries()) == {f"{name}.parquet" for name in EXPORTED}
    for name in EXPORTED:
        file, stored = place.parquet.address(f"{name}.parquet"), place.read(name)
        frames = {
            "polars": pl.read_parquet(file),
            "a polars scan": pl.scan_parquet(file).collect(),
            "pyarrow": pl.DataFrame(pl.from_arrow(ds.dataset(file).to_table())),
            "duckdb": _duckdb(f"FROM '{file}'"),
        }
        for reader, frame in frames.items():
            assert frame.columns == stored.columns, reader
            same = frame.cast(dict(stored.schema)) if reader == "duckdb" else frame  # type: ignore[arg-type] # of columns
            assert_frame_equal(same, stored, check_exact=True)  # in the order of the key
        loaded = pd.read_parquet(file)
        assert list(loaded.columns) == stored.columns
        assert set(loaded["as_of"]) == set(DAYS[1:] if name == "model_prices" else DAYS)
        assert "category" not in set(map(str, loaded.dtypes))


def test_the_published_folder_explains_itself(place: Place) -> None:
    assert set(place.described.entries()) > {*DESCRIPTION, "warehouse.duckdb"}
    package = json.loads(place.described.read("datapackage.json") or b"")
    assert {one["name"] for one in package["resources"]} == EXPORTED.keys()
    for one in package["resources"]:
        content = place.described.read(one["path"]) or b""
        rows = place.read_parquet(one["name"])
        assert (one["bytes"], one["hash"]) == (len(content), f"sha256:{sha256(content).hexdigest()}")
        assert one["rows"] == len(rows)
        assert [field["name"] for field in one["schema"]["fields"]] == rows.columns
        assert rows.select(one["schema"]["primaryKey"]).is_unique().all()
    readme, licence = ((place.described.read(name) or b"").decode() for name in ("README.md", "LICENSE"))
    assert "2026-09-28 to 2026-10-03" in readme
    assert "lower bounds" in readme
    assert package["licenses"][0]["path"] in licence
    snapshots = place.read("snapshots")
    mixed = snapshots.with_columns(origin=pl.when(as_of=DAYS[1]).then(pl.lit("demo")).otherwise("origin"))
    assert f"The figures of {DAYS[1]} are made up" in description([], mixed)["README.md"].decode()
    demo = snapshots.with_columns(origin=pl.lit("demo"))
    for name in ("README.md", "LICENSE"):
        assert "made up" in description([], demo)[name].decode()
    assert json.loads(description([], demo)["datapackage.json"])["licenses"] == []


def _duckdb(query: str) -> pl.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return pl.DataFrame(pl.from_arrow(connection.sql(query).to_arrow_table()))


def test_a_restated_or_removed_older_day_is_current_in_every_file(place: Place) -> None:
    (place.file.parent / "parquet" / "model_trends.parquet").unlink()
    place.load(FIRST - timedelta(days=40))  # changes first_seen and days_listed of all later days
    place.load(DAYS[1], label="Restated")
    place.load(DAYS[-1] + timedelta(days=1))
    _assert_current(place)
    place.execute(*(f"DELETE FROM openrouter.{name} WHERE as_of < DATE '{DAYS[2]}'" for name in TABLES))
    place.load(DAYS[-1])
    _assert_current(place)
    assert place.read_parquet("snapshots")["as_of"].min() == DAYS[2]


def _assert_current(place: Place) -> None:
    for name in EXPORTED:
        assert_frame_equal(place.read_parquet(name), place.read(name))


def test_a_transaction_that_writes_nothing_copies_nothing(place: Place) -> None:
    before = place.file.stat().st_ino
    place.execute("FROM openrouter.snapshots")
    assert place.file.stat().st_ino == before


# Failures


def test_a_copy_that_cannot_be_published_is_a_warning_and_the_next_write_publishes_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    folder, aside = place.file.parent, place.file.parent.with_name("aside")
    folder.rename(aside)
    folder.write_text("not a folder")
    new = DAYS[-1] + timedelta(days=1)
    with caplog.at_level(logging.WARNING, "orpipeline"):
        place.load(new)
    assert "The tables are written, but not the published copy" in caplog.text
    assert days_of(place.warehouse) == [*DAYS, new]
    folder.unlink()
    aside.rename(folder)
    assert len(place.read("snapshots")) == len(DAYS)
    killed, others = (".warehouse.duckdb.publishing-1-a", "parquet/task_models.parquet#1"), ("parquet/note #1",)
    for left in killed + others:
        (folder / left).write_bytes(b"what a killed process, or another program, left")
        os.utime(folder / left, (0, 0))
    publish(place.warehouse)
    assert place.read("snapshots")["as_of"].to_list() == [*DAYS, new]
    assert place.read_parquet("snapshots")["as_of"].to_list() == [*DAYS, new]
    assert [(folder / left).exists() for left in killed + others] == [False, False, True]


def test_a_transaction_that_is_rolled_back_publishes_nothing(place: Place) -> None:
    before = place.file.stat()
    with pytest.raises(WarehouseError, match="no_such_column"):
        place.execute("DELETE FROM openrouter.snapshots", "SELECT no_such_column")
    assert place.file.stat() == before


def test_the_copy_is_read_only_and_what_a_writer_does_to_it_is_undone_by_the_next_write(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    assert place.file.stat().st_mode & 0o222 == 0
    log, mine = place.file.with_name("warehouse.duckdb.wal"), place.file.with_name("mine.duckdb")
    shutil.copyfile(place.file, mine)  # root and owners can write in spite of the permissions
    with duckdb.connect(mine) as writer:
        writer.execute("PRAGMA disable_checkpoint_on_shutdown")
        writer.execute("DELETE FROM openrouter.snapshots")
    mine.with_name("mine.duckdb.wal").rename(log)
    assert place.read("snapshots").is_empty()
    with caplog.at_level(logging.WARNING, "orpipeline"):
        place.load(DAYS[-1])
    assert f"Removed {log}" in caplog.text
    assert not log.exists()
    assert place.read("snapshots")["as_of"].to_list() == DAYS
    place.file.unlink()
    shutil.copyfile(mine, place.file)  # a writer that left no log, and other content
    place.load(DAYS[-1])
    assert place.file.stat().st_mode & 0o222 == 0


# Others at work


READER = """
import json, sys
from datetime import date
from pathlib import Path
import duckdb
import orpipeline
published, stop, ready = map(Path, sys.argv[1:])
settings = orpipeline.Settings(data_dir=published.parents[2])
seen = set()
ready.touch()
while not stop.exists():
    with duckdb.connect(published, read_only=True) as connection:
        whole = connection.execute('''
            SELECT (SELECT list(DISTINCT as_of ORDER BY as_of) FROM openrouter.task_models)
                 = (SELECT list(as_of ORDER BY as_of) FROM openrouter.snapshots)
               AND (SELECT count(DISTINCT display_name) FROM openrouter.task_classifications
                    WHERE display_name LIKE 'Write %' AND as_of <= DATE '2026-09-29') <= 1
               AND (SELECT list(DISTINCT as_of ORDER BY as_of) FROM openrouter.model_trends)
                 = (SELECT list(as_of ORDER BY as_of) FROM openrouter.snapshots)
        ''').fetchall()
    assert whole == [(True,)], whole
    seen.add(len(orpipeline.read("snapshots", settings=settings)))
print(json.dumps(sorted(seen)))
"""


@pytest.mark.slow
def test_four_readers_during_eight_writes_see_whole_days_and_block_nobody(place: Place, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    program = [sys.executable, "-c", READER, str(place.file), str(stop)]
    ready = [tmp_path / f"ready{n}" for n in range(4)]
    with ExitStack() as stack:
        readers = [
            stack.enter_context(
                subprocess.Popen([*program, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            for file in ready
        ]
        try:
            _wait_for(ready)
            for n in range(8):
                # The same two days get another label in each write, and a new day joins.
                place.load(*DAYS[:2], DAYS[-1] + timedelta(days=n // 2 + 1), label=f"Write {n}")
        finally:
            stop.touch()
            results = [reader.communicate(timeout=60) for reader in readers]
    assert [(reader.returncode, error) for reader, (_, error) in zip(readers, results, strict=True)] == [(0, "")] * 4
    counts = {count for output, _ in results for count in json.loads(output)}
    assert len(counts) > 2
    assert max(counts) <= len(DAYS) + 4


def _wait_for(files: Sequence[Path]) -> None:
    for _ in range(600):
        if all(file.exists() for file in files):
            return
        threading.Event().wait(0.05)
    raise AssertionError("a reader did not start")
