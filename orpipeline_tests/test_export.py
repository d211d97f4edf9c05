"""The tables as Parquet, and the data dictionary."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive.folder import Archive
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.dictionary import data_dictionary
from orpipeline.export import ExportError, export_tables
from orpipeline.rebuild import rebuild_days
from orpipeline.testing.sample_answers import demo_answer
from orpipeline.warehouse.database import Warehouse

NOW = datetime(2026, 10, 20, tzinfo=UTC)
DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(4)]
NEW = DAYS[-1] + timedelta(days=1)
DOCS = Path(__file__).parents[1] / "docs" / "data-dictionary.md"


class History:
    """An archive and a warehouse to export from."""

    def __init__(self, folder: Path) -> None:
        self.archive, self.warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")

    def add(self, *answers: tuple[date, bytes], origin: str = "import") -> None:
        for _, body in answers:
            self.archive.put(body, fetched_at=NOW, source="a test", origin=origin)
        for loaded in rebuild_days(self.archive, self.warehouse, [day for day, _ in answers], now=NOW):
            assert not loaded.validated.errors

    def tables(self) -> dict[str, pl.DataFrame]:
        with self.warehouse.reading() as tables:
            return tables.read_all()


def restated(day: date) -> bytes:
    answer = json.loads(demo_answer(day))
    answer["data"]["classifications"][0]["display_name"] = "Restated"
    return json.dumps(answer).encode()


@pytest.fixture
def history(tmp_path: Path) -> History:
    filled = History(tmp_path / "data")
    filled.add(*((day, demo_answer(day)) for day in DAYS))
    return filled


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_polars_and_duckdb_read_each_tables_rows(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    _assert_same(history, to)
    for table, stored in history.tables().items():
        with duckdb.connect() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM read_parquet('{to}/{table}/*/*.parquet')").fetchall()
        assert count[0] == len(stored)
        assert sorted(p.name for p in (to / table).iterdir()) == [f"as_of={day}" for day in DAYS]


def test_files_describe_their_columns_and_have_their_citation(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "task_models" / f"as_of={DAYS[0]}" / "task_models.parquet")
    assert schema.metadata[b"description"].decode() == TABLES["task_models"].summary()
    assert b"openrouter.ai/rankings" in schema.metadata[b"citation"]
    for field in schema:
        assert field.metadata[b"description"].decode() == TABLES["task_models"].columns()[field.name].description
    citation = (tmp_path / "out" / "CITATION").read_text()
    assert citation == f"Source: OpenRouter (openrouter.ai/rankings), as of {DAYS[-1]}. Licensed under CC BY 4.0.\n"
    assert (tmp_path / "out" / "DATA_DICTIONARY.md").read_text() == data_dictionary(exported=True)


def test_demo_data_is_not_cited_as_openrouters(tmp_path: Path) -> None:
    history = History(tmp_path / "data")
    history.add((DAYS[0], demo_answer(DAYS[0])), origin="demo")
    export_tables(history.warehouse, tmp_path / "out")
    assert (tmp_path / "out" / "CITATION").read_text().startswith("Demo data, made up")


def test_a_second_export_writes_only_new_days(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    assert export_tables(history.warehouse, to).written == DAYS
    before = {name: found for name, found in _files(to).items() if name.endswith(".parquet")}
    history.add((NEW, demo_answer(NEW)))
    exported = export_tables(history.warehouse, to)
    assert (exported.written, exported.unchanged) == ([NEW], DAYS)
    assert before.items() <= _files(to).items()
    assert export_tables(history.warehouse, to, everything=True).unchanged == []


def test_a_restated_day_is_exported_again(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    history.add((DAYS[1], demo_answer(DAYS[1]) + b"\n"))
    assert export_tables(history.warehouse, tmp_path / "out").written == [DAYS[1]]
    snapshots = pl.scan_parquet(tmp_path / "out" / "snapshots").collect()
    assert snapshots.filter(pl.col("revision") == 2).height == 1


@pytest.mark.parametrize("files", [0, 4, 9])  # of five of the restated day and five of the new one
def test_a_failed_export_leaves_each_day_readable_and_the_next_one_completes_it(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    history.add((DAYS[1], restated(DAYS[1])))
    history.add((NEW, demo_answer(NEW)))
    replace = Path.replace

    def fail_after_some(self: Path, target: Path) -> Path:
        nonlocal files
        if files == 0:
            raise OSError(28, "No space left on device")
        files -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_after_some)
    with pytest.raises(ExportError, match="No space left"):
        export_tables(history.warehouse, to)
    whole = _whole_days(to)
    assert set(DAYS) <= set(whole)
    for table in TABLES:
        assert set(whole) <= {day for (day,) in pl.scan_parquet(to / table).select("as_of").unique().collect().rows()}
    assert not list(to.rglob(".*"))
    monkeypatch.undo()
    assert NEW in export_tables(history.warehouse, to).written
    _assert_same(history, to)


KILLED = """
import os, sys
from pathlib import Path
from orpipeline.files import replace_files
os.fsync = lambda _: os._exit(9)
to = Path(sys.argv[1])
replace_files({to / "snapshots" / "snapshots.parquet": b"half"}, aside=to)
"""


def test_incomplete_files_of_a_killed_export_are_ignored_and_removed_after_an_hour(
    history: History, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, to], check=False).returncode == 9
    recent, old = leftovers = list(to.glob(".*"))
    written_at = recent.stat().st_mtime
    os.utime(old, (written_at - 3700,) * 2)
    now = datetime.fromtimestamp(written_at, UTC)
    assert export_tables(history.warehouse, to, clock=lambda: now).written == []
    assert [path.exists() for path in leftovers] == [True, False]
    _assert_same(history, to)


def test_an_export_removes_no_file_that_it_did_not_write(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    foreign = [
        ".part-0.parquet.crc",
        ".notes.parquet.bak",
        ".0-mine.parquet.1",
        ".orpipeline-notes",
        ".DS_Store",
        "x.md",
    ]
    to.mkdir()
    for name in foreign:
        (to / name).write_bytes(b"mine")
        os.utime(to / name, (0, 0))
    export_tables(history.warehouse, to)
    assert all((to / name).read_bytes() == b"mine" for name in foreign)


def test_readers_see_every_day_while_all_days_are_exported_again(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    done = threading.Event()

    def read() -> set[int]:
        counts = set()
        while not done.is_set():
            for table in ("snapshots", "macro_categories"):
                counts.add(len(pl.scan_parquet(to / table).select("as_of").unique().collect()))
        return counts

    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read)
        for _ in range(4):
            export_tables(history.warehouse, to, everything=True)
        done.set()
        assert reading.result() == {len(DAYS)}


def test_a_days_files_have_one_version_if_it_is_restated_during_the_export(history: History, tmp_path: Path) -> None:
    """Another process may write after the export has compared the versions and before it reads the day."""
    to, body = tmp_path / "out", restated(DAYS[1])

    class RestatedAfterTheFirstRead(Warehouse):
        def read(self, name: str, *, since: date | None = None, until: date | None = None) -> pl.DataFrame:
            rows = super().read(name, since=since, until=until)
            history.add((DAYS[1], body))
            return rows

    export_tables(RestatedAfterTheFirstRead(history.warehouse.path), to)
    _assert_same(history, to)
    version = pq.read_schema(to / "task_models" / f"as_of={DAYS[1]}" / "task_models.parquet").metadata[b"version"]
    assert version.decode().startswith(hashlib.sha256(body).hexdigest())
    assert export_tables(history.warehouse, to).written == []


def _assert_same(history: History, to: Path) -> None:
    for table, stored in history.tables().items():
        exported = pl.scan_parquet(to / table, hive_partitioning=True).collect().select(stored.columns)
        assert_frame_equal(
            exported.cast(dict(stored.schema)).sort(TABLES[table].primary_key()),  # type: ignore[arg-type] # of columns
            stored,
            check_exact=True,
        )


def _whole_days(to: Path) -> list[date]:
    return [date.fromisoformat(path.parent.name[6:]) for path in sorted(to.glob("snapshots/*/snapshots.parquet"))]


def test_a_damaged_parquet_file_is_exported_again(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    (tmp_path / "out" / "snapshots" / f"as_of={DAYS[2]}" / "snapshots.parquet").write_bytes(b"cut off")
    assert export_tables(history.warehouse, tmp_path / "out").written == [DAYS[2]]


def test_an_empty_warehouse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing to export"):
        export_tables(Warehouse(tmp_path / "none.duckdb"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_data_dictionary_has_every_column_and_rule() -> None:
    text = data_dictionary()
    for name, model in RELATIONS.items():
        section = text.split(f"`{name}`\n", 1)[1].split("\n## ")[0]
        for column, details in model.columns().items():
            assert f"| `{column}` |" in section
            assert details.description in section
    assert all(f"| `{rule}` |" in text for rule in RULES)


@pytest.mark.skipif(not DOCS.parent.exists(), reason="these tests are installed without the documentation")
def test_the_data_dictionary_in_the_documentation_is_current() -> None:
    assert DOCS.read_text() == data_dictionary(), (
        'update it: python -c "from orpipeline.dictionary import data_dictionary; print(data_dictionary(), '
        "end='')\" > docs/data-dictionary.md"
    )
