"""Names, days and sizes that an attacker could choose: they are stored as data, never executed, and limited in size."""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from orpipeline.archive.folder import Archive
from orpipeline.cli.terminal import as_markdown, print_leaderboard
from orpipeline.leaderboard import rank
from orpipeline.openrouter.frames import parse
from orpipeline.snapshot import Loaded, load_days
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import DAY, Bend, answer, tag

NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
HOSTILE = [
    "a/'; DROP TABLE openrouter.snapshots; --",
    'a/"quoted"',
    "a/<img src=x onerror=alert(1)>",
    "a/![](http://evil.invalid/x.png)",
    "a/../../../etc/passwd",
    "a/%s {0} $(id)",
    "a/[bold]markup[/bold]",
    "a/| cell | cell",
    "a/\U0001f600",
]
INVISIBLE = ["a/\x1b[31mred\x07", "a/\u202egnirts", "a/\u3164"]


def _named(*names: str) -> Bend:
    """Return a bend that gives the first models under `math` these names."""

    def bend(data: dict[str, Any]) -> None:
        task = tag(data, "math")
        task["display_name"] = HOSTILE[0]
        for model, name in zip(task["models"], names, strict=False):
            model["id"] = name

    return bend


def _load(folder: Path, body: bytes) -> tuple[Loaded, Warehouse]:
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    record = archive.put(body, fetched_at=NOON, source="a test", origin="import").record
    assert record.as_of == DAY
    return load_days(archive, warehouse, [DAY], now=NOON), warehouse


def test_hostile_names_are_stored_unchanged_and_never_executed(tmp_path: Path) -> None:
    loaded, warehouse = _load(tmp_path, answer(bend=_named(*HOSTILE)))
    assert not loaded.validated.errors
    assert set(HOSTILE) <= set(warehouse.read("task_models").filter(tag="math")["model_id"])
    assert HOSTILE[0] in set(warehouse.read("task_classifications")["display_name"])
    assert len(warehouse.read("snapshots")) == 1


def test_hostile_names_do_not_control_the_terminal_or_break_a_markdown_table() -> None:
    # The contracts reject control and invisible characters; a warehouse of another program may have them.
    frames = parse([(DAY, answer(bend=_named("a/[bold]markup[/bold]", "a/| cell", "a/<img src=x>", *INVISIBLE)))])
    board = rank(frames.task_classifications, frames.task_models).filter(scope="general")
    board = board.with_columns(moved=pl.lit(""))
    text = io.StringIO()
    print_leaderboard(Console(file=text, width=110), board, title="t", citation="c")
    markdown = as_markdown(board, title="t", citation="c")
    for printed in (text.getvalue(), markdown):
        assert not {"\x1b", "\x07", "\u202e", "\u3164"} & set(printed)
    assert "[bold]markup[/bold]" in text.getvalue()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}
    assert "<img" not in markdown


@pytest.mark.parametrize("as_of", ["../../x", "/etc/passwd", "2026-10-06/../..", "2026-10-06\x00", "C:\\x"])
def test_a_path_in_place_of_a_day_is_archived_as_undated(tmp_path: Path, as_of: str) -> None:
    body = answer(bend=lambda data: data.update(as_of=as_of))
    record = Archive(tmp_path / "data" / "raw").put(body, fetched_at=NOON, source="a test", origin="api").record
    assert record.as_of is None
    (file,) = tmp_path.rglob("*.json.gz")
    assert (tmp_path / "data" / "raw" / "undated") in file.parents


def _with_models(count: int) -> bytes:
    return answer(
        bend=lambda data: tag(data, "math")["models"].extend(
            {"id": f"m/{n}", "tag_usage_share": 0.0, "tag_token_share": 0.0} for n in range(count)
        )
    )


def _nested(depth: int) -> bytes:
    classifications = json.dumps(DAY.isoformat()) + ', "classifications": ' + "[" * depth + "]" * depth
    return ('{"data": {"as_of": ' + classifications + "}}").encode()


@pytest.mark.parametrize("body", [_nested(500), _with_models(100_000)], ids=["nested", "100,000 models"])
def test_an_absurd_answer_is_rejected_quickly(tmp_path: Path, body: bytes) -> None:
    start = time.perf_counter()
    loaded, warehouse = _load(tmp_path, body)
    assert time.perf_counter() - start < 10
    assert DAY in loaded.validated.errors
    assert warehouse.read("task_models").is_empty()


def test_an_answer_nested_too_deep_for_the_parser_is_archived_and_not_read(tmp_path: Path) -> None:
    record = Archive(tmp_path).put(_nested(200_000), fetched_at=NOON, source="a test", origin="api").record
    assert record.as_of is None
    found = parse([(DAY, _nested(200_000))])
    assert found.task_classifications.is_empty()
    assert found.defects
