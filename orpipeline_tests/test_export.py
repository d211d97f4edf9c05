"""The tables as Parquet, and the data dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from orpipeline import export as module
from orpipeline.archive import Archive
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import RELATIONS, TABLES
from orpipeline.demo.snapshots import demo_answer
from orpipeline.dictionary import data_dictionary
from orpipeline.export import ExportError, export_tables
from orpipeline.files import replace_file
from orpipeline.history import make_tables
from orpipeline.warehouse.database import Warehouse

NOW = datetime(2026, 10, 20, tzinfo=UTC)
DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(4)]
DOCS = Path(__file__).parents[1] / "docs" / "data-dictionary.md"


class History:
    """An archive and a warehouse to export from."""

    def __init__(self, folder: Path) -> None:
        self.archive, self.warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")

    def add(self, day: date, body: bytes | None = None, origin: str = "import") -> None:
        self.archive.put(body or demo_answer(day), fetched_at=NOW, source="a test", origin=origin)
        for judged, *_ in make_tables(self.archive, self.warehouse, [day], now=NOW):
            assert not judged.errors


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "data")
    for day in DAYS:
        made.add(day)
    return made


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("table", TABLES)
def test_an_export_has_a_tables_rows_whatever_reads_it(history: History, tmp_path: Path, table: str) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    stored = history.warehouse.read(table)
    scanned = pl.scan_parquet(to / table, hive_partitioning=True).collect().select(stored.columns)
    assert scanned.cast(dict(stored.schema)).sort(TABLES[table].primary_key()).equals(stored)  # type: ignore[arg-type]
    with duckdb.connect() as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM read_parquet('{to}/{table}/*/*.parquet')").fetchall()
    assert count[0] == len(stored)
    assert sorted(p.name for p in (to / table).iterdir()) == [f"as_of={day}" for day in DAYS]


def test_files_say_what_their_columns_are_and_how_they_are_cited(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "task_models" / f"as_of={DAYS[0]}" / "task_models.parquet")
    assert schema.metadata[b"description"].decode() == TABLES["task_models"].summary()
    assert b"openrouter.ai/rankings" in schema.metadata[b"citation"]
    for field in schema:
        assert field.metadata[b"description"].decode() == TABLES["task_models"].columns()[field.name].description
    citation = (tmp_path / "out" / "CITATION").read_text()
    assert citation == f"Source: OpenRouter (openrouter.ai/rankings), as of {DAYS[-1]}. Licensed under CC BY 4.0.\n"
    assert (tmp_path / "out" / "DATA_DICTIONARY.md").read_text() == data_dictionary()


def test_made_up_days_are_not_cited_as_openrouters(tmp_path: Path) -> None:
    history = History(tmp_path / "data")
    history.add(DAYS[0], origin="demo")
    export_tables(history.warehouse, tmp_path / "out")
    assert (tmp_path / "out" / "CITATION").read_text().startswith("Demo data, made up")


def test_an_export_that_is_run_again_leaves_days_alone_that_are_there(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    assert export_tables(history.warehouse, to).written == DAYS
    before = {name: found for name, found in _files(to).items() if name.endswith(".parquet")}
    history.add(DAYS[-1] + timedelta(days=1))
    exported = export_tables(history.warehouse, to)
    assert (exported.written, exported.unchanged) == ([DAYS[-1] + timedelta(days=1)], DAYS)
    assert before.items() <= _files(to).items()
    assert export_tables(history.warehouse, to, everything=True).unchanged == []


def test_a_restated_day_is_written_again(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    history.add(DAYS[1], demo_answer(DAYS[1]) + b"\n")
    assert export_tables(history.warehouse, tmp_path / "out").written == [DAYS[1]]
    snapshots = pl.scan_parquet(tmp_path / "out" / "snapshots").collect()
    assert snapshots.filter(pl.col("revision") == 2).height == 1


@pytest.mark.parametrize("files", range(6))
def test_a_day_that_snapshots_has_is_whole_wherever_an_export_ends(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    to = tmp_path / "out"
    written = replace_file

    def then_ends(path: Path, content: bytes) -> None:
        nonlocal files
        if files == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.1").write_bytes(content[:10])  # as a kill leaves it
            raise OSError(28, "No space left on device")
        files -= 1
        written(path, content)

    monkeypatch.setattr(module, "replace_file", then_ends)
    with pytest.raises(ExportError, match="No space left"):
        export_tables(history.warehouse, to)
    for day in _whole_days(to):
        assert all((to / table / f"as_of={day}" / f"{table}.parquet").exists() for table in TABLES)
    monkeypatch.undo()
    export_tables(history.warehouse, to)
    assert list(_whole_days(to)) == [str(day) for day in DAYS]
    for table in TABLES:
        assert len(pl.scan_parquet(to / table / "*" / "*.parquet").collect()) == len(history.warehouse.read(table))


def _whole_days(to: Path) -> Iterator[str]:
    for path in sorted(to.glob("snapshots/*/snapshots.parquet")):
        yield path.parent.name.removeprefix("as_of=")


def test_a_file_that_is_no_parquet_is_written_again(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    (tmp_path / "out" / "snapshots" / f"as_of={DAYS[2]}" / "snapshots.parquet").write_bytes(b"cut off")
    assert export_tables(history.warehouse, tmp_path / "out").written == [DAYS[2]]


def test_an_empty_warehouse_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing to export"):
        export_tables(Warehouse(tmp_path / "none.duckdb"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_data_dictionary_names_every_column_and_rule() -> None:
    text = data_dictionary()
    for name, model in RELATIONS.items():
        section = text.split(f"`{name}`\n", 1)[1].split("\n## ")[0]
        for column, details in model.columns().items():
            assert f"| `{column}` |" in section
            assert details.description in section
    assert all(f"| `{rule}` |" in text for rule in RULES)


@pytest.mark.skipif(not DOCS.parent.exists(), reason="the documentation is not beside these tests")
def test_the_data_dictionary_of_the_documentation_is_current() -> None:
    assert DOCS.read_text() == data_dictionary(), (
        'write it again: python -c "from orpipeline.dictionary import data_dictionary; print(data_dictionary(), '
        "end='')\" > docs/data-dictionary.md"
    )
