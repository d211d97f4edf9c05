"""The tables as Parquet, and the data dictionary."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import obstore
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from orpipeline.contracts.dictionary import data_dictionary
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import EXPORTED, RELATIONS, TABLES, ModelLeaderboard
from orpipeline.errors import StoreError
from orpipeline.warehouse.publishing import write_parquet
from orpipeline_tests.commands import run_command
from orpipeline_tests.publishing import DAYS, Place

NEW = DAYS[-1] + timedelta(days=1)
CITATION = f"Source: OpenRouter (openrouter.ai/rankings), as of {DAYS[-1]}. Licensed under CC BY 4.0.\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    filled = Place(tmp_path / "data")
    filled.load(*DAYS)
    return filled


def export(place: Place, to: Path) -> Sequence[date]:
    with place.warehouse.reading() as tables:
        return write_parquet(tables, to)


def assert_current(place: Place, to: Path) -> None:
    for name in EXPORTED:
        assert_frame_equal(pl.read_parquet(to / f"{name}.parquet"), place.read(name), check_exact=True)


def test_an_export_has_every_day_as_it_is_now_with_descriptions_and_citation(place: Place, tmp_path: Path) -> None:
    to = tmp_path / "out"
    assert export(place, to) == DAYS
    assert_current(place, to)
    for name in EXPORTED:
        about = pq.read_schema(to / f"{name}.parquet").metadata
        assert about[b"description"].decode() == RELATIONS[name].summary()
        assert about[b"citation"].decode() in CITATION
    assert (to / "CITATION").read_text() == CITATION
    dictionary = (to / "DATA_DICTIONARY.md").read_text()
    assert [name for name in RELATIONS if f"`{name}`\n" in dictionary] == list(RELATIONS)
    place.load(DAYS[1], label="Restated")
    place.load(NEW)
    assert export(place, to) == [*DAYS, NEW]
    assert_current(place, to)


def test_demo_data_is_not_cited_as_openrouters(place: Place, tmp_path: Path) -> None:
    place.load(NEW, origin="demo")
    export(place, tmp_path / "both")
    demo = f"Demo data, made up by orpipeline, as of {NEW}. Not from OpenRouter.\n"
    assert (tmp_path / "both" / "CITATION").read_text() == CITATION + demo


def test_a_failed_export_leaves_each_day_readable_and_the_next_one_completes_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, files = tmp_path / "out", 3  # of eight tables and views
    export(place, to)
    place.load(DAYS[1], label="Restated")
    place.load(NEW)
    put = obstore.put

    def fail_after_some(*arguments: object, **options: object) -> object:
        nonlocal files
        if files == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        files -= 1
        return put(*arguments, **options)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(obstore, "put", fail_after_some)
    with pytest.raises(StoreError, match="No space left"):
        export(place, to)
    whole = set(pl.read_parquet(to / "snapshots.parquet")["as_of"])
    assert set(DAYS) <= whole
    for table in TABLES:
        assert whole <= set(pl.read_parquet(to / f"{table}.parquet")["as_of"])
    monkeypatch.undo()
    export(place, to)
    assert_current(place, to)


def test_an_empty_warehouse_is_an_error_and_a_url_is_rejected(tmp_path: Path) -> None:
    assert export(Place(tmp_path / "none"), tmp_path / "out") == []
    done = run_command("export", "--to", str(tmp_path / "out"), folder=tmp_path)
    assert done.returncode == 1
    done = run_command("export", "--to", "s3://bucket/export", folder=tmp_path)
    assert done.returncode == 2
    assert "--to must be a folder on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_data_dictionary_has_every_column_and_rule() -> None:
    text = data_dictionary()
    for name, model in RELATIONS.items():
        section = text.split(f"`{name}`\n", 1)[1].split("\n## ")[0]
        inherited = ModelLeaderboard.columns() if "the columns of `model_leaderboard`" in section else {}
        for column, details in model.columns().items():
            if column not in {"as_of", "window_days", *inherited}:
                assert f"`{column}`" in section
                meaning = details.description
                both = re.sub("requests|tokens", "requests (or tokens)", meaning)
                assert meaning in text or both in text, meaning
    assert all(f"- `{rule}` (" in text for rule in RULES)
