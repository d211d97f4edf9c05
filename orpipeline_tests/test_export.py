"""The tables as Parquet, and the data dictionary."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from orpipeline.archive.archive import Archive
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import EXPORTED, RELATIONS, TABLES
from orpipeline.dictionary import data_dictionary
from orpipeline.export import ExportError, export_tables
from orpipeline.rebuild import rebuild_days
from orpipeline.testing import sample_answer
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.commands import run_command

NOW = datetime(2026, 10, 20, tzinfo=UTC)
DAYS = [date(2026, 9, 29) + timedelta(days=n) for n in range(4)]
SEPTEMBER, OCTOBER = DAYS[:2], DAYS[2:]
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


def restated(day: date) -> bytes:
    return sample_answer(day, change=lambda data: data["classifications"][0].update(display_name="Restated"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    filled = History(tmp_path / "data")
    filled.add(*((day, sample_answer(day)) for day in DAYS))
    return filled


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_files_describe_their_columns_and_have_their_citation(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "task_models" / "2026-09.parquet")
    assert schema.metadata[b"description"].decode() == TABLES["task_models"].summary()
    assert b"openrouter.ai/rankings" in schema.metadata[b"citation"]
    for field in schema:
        assert field.metadata[b"description"].decode() == TABLES["task_models"].columns()[field.name].description
    citation = (tmp_path / "out" / "CITATION").read_text()
    assert citation == f"Source: OpenRouter (openrouter.ai/rankings), as of {DAYS[-1]}. Licensed under CC BY 4.0.\n"
    dictionary = (tmp_path / "out" / "DATA_DICTIONARY.md").read_text()
    assert [name for name in RELATIONS if f"`{name}`\n" in dictionary] == list(EXPORTED)


def test_demo_data_is_not_cited_as_openrouters(tmp_path: Path) -> None:
    history = History(tmp_path / "data")
    history.add((DAYS[0], sample_answer(DAYS[0])), origin="demo")
    export_tables(history.warehouse, tmp_path / "out")
    assert (tmp_path / "out" / "CITATION").read_text().startswith("Demo data, made up")


def test_a_second_export_writes_only_months_with_new_days(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    assert export_tables(history.warehouse, to).written == DAYS
    before = {name: found for name, found in _files(to).items() if name.endswith("2026-09.parquet")}
    assert export_tables(history.warehouse, to).written == []
    history.add((NEW, sample_answer(NEW)))
    exported = export_tables(history.warehouse, to)
    assert (exported.written, exported.unchanged) == ([*OCTOBER, NEW], SEPTEMBER)
    assert before.items() <= _files(to).items()
    _assert_same(history, to)
    assert export_tables(history.warehouse, to, everything=True).unchanged == []


def test_a_restated_day_is_exported_again_with_all_later_months(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    history.add((DAYS[1], sample_answer(DAYS[1]) + b"\n"))
    assert export_tables(history.warehouse, tmp_path / "out").written == DAYS  # the trends compare with earlier days
    history.add((DAYS[2], sample_answer(DAYS[2]) + b"\n"))
    assert export_tables(history.warehouse, tmp_path / "out").written == OCTOBER
    snapshots = pl.read_parquet(tmp_path / "out" / "snapshots")
    assert snapshots.filter(pl.col("revision") == 2).height == 2


def test_days_that_only_the_export_has_stay(history: History, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    other = History(tmp_path / "other")
    other.add((DAYS[-1], restated(DAYS[-1])))
    export_tables(other.warehouse, to)
    for name in EXPORTED:
        assert pl.read_parquet(to / name)["as_of"].unique().sort().to_list() == DAYS
    tasks = pl.read_parquet(to / "task_classifications").filter(display_name="Restated")
    assert tasks["as_of"].to_list() == [DAYS[-1]]


def test_an_export_of_version_0_1_is_not_mixed_with_this_layout(history: History, tmp_path: Path) -> None:
    older = tmp_path / "out" / "task_models" / "as_of=2026-09-29"
    older.mkdir(parents=True)
    with pytest.raises(ExportError, match=f"{older} is from orpipeline 0.1"):
        export_tables(history.warehouse, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.parquet")) == []


@pytest.mark.parametrize("files", [0, 4, 12])  # of eight of each month
def test_a_failed_export_leaves_each_day_readable_and_the_next_one_completes_it(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    to = tmp_path / "out"
    export_tables(history.warehouse, to)
    history.add((DAYS[1], restated(DAYS[1])))
    history.add((NEW, sample_answer(NEW)))
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
    whole = set(pl.read_parquet(to / "snapshots")["as_of"])
    assert set(DAYS) <= whole
    for table in TABLES:
        assert whole <= set(pl.read_parquet(to / table)["as_of"])
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


def _assert_same(history: History, to: Path) -> None:
    with history.warehouse.reading() as tables:
        for name in EXPORTED:
            assert_frame_equal(
                pl.read_parquet(to / name).sort(RELATIONS[name].primary_key()), tables.read(name), check_exact=True
            )


def test_a_damaged_parquet_file_is_exported_again(history: History, tmp_path: Path) -> None:
    export_tables(history.warehouse, tmp_path / "out")
    (tmp_path / "out" / "snapshots" / "2026-10.parquet").write_bytes(b"cut off")
    assert export_tables(history.warehouse, tmp_path / "out").written == OCTOBER


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


def test_an_export_to_a_url_is_rejected_and_writes_nothing(tmp_path: Path) -> None:
    done = run_command("export", "--to", "s3://bucket/export", folder=tmp_path)
    assert done.returncode == 2
    assert "--to must be a folder on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []
