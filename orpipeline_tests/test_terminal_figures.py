"""Every figure that `orpipeline leaderboard` prints, against an independent calculation from the response."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from orpipeline.archive import Archive
from orpipeline.cli import terminal
from orpipeline.load import load_days
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests import independent
from orpipeline_tests.commands import run_command
from orpipeline_tests.independent import REAL, needs_real, percent, ranks
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON

MEASURES = {"requests": "usage", "tokens": "token"}


@dataclass(frozen=True)
class Expected:
    """A data folder with one response in its tables, and that response's rows, calculated independently."""

    data: Path
    models: list[dict[str, Any]]
    authors: list[dict[str, Any]]
    coverage: list[dict[str, Any]]

    def rows(self, scope: str, by: str, *, authors: bool) -> list[dict[str, Any]]:
        """Return a scope's rows, the largest share of the measure first."""
        found = [row for row in (self.authors if authors else self.models) if row["scope"] == scope]
        key = "author" if authors else "model_id"
        return sorted(found, key=lambda row: (row[f"{MEASURES[by]}_rank"], row[key]))

    def covered(self, scope: str) -> dict[str, Any]:
        """Return a scope's coverage."""
        (row,) = [row for row in self.coverage if row["scope"] == scope]
        return row


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=needs_real)])
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    body = REAL.read_bytes() if request.param == "real" else sample_response(DAY)
    folder = tmp_path_factory.mktemp("figures")
    archive = Archive(folder / "raw")
    archive.put(body, fetched_at=NOON, source="a test", origin="import")
    load_days(archive, Warehouse(folder / "warehouse.duckdb"), [DAY], now=NOON)
    parsed = json.loads(body)
    calculated = (independent.leaderboard(parsed), independent.authors(parsed), independent.coverage(parsed))
    return Expected(folder, *calculated)


def short(model_id: str) -> str:
    """Return a model's name without author and date."""
    return re.sub(r"-20\d{6}(?=:|$)", "", model_id.split("/")[1])


@pytest.mark.parametrize("by", ["requests", "tokens"])
@pytest.mark.parametrize("authors", [False, True], ids=["models", "authors"])
@pytest.mark.parametrize("scope", ["all", "code"])
def test_every_printed_figure_is_the_calculated_one(
    expected: Expected, monkeypatch: pytest.MonkeyPatch, scope: str, authors: bool, by: str
) -> None:
    monkeypatch.setattr(terminal.out, "width", 150)

    def printed(form: str) -> str:
        arguments = ["--scope", scope, "--by", by, "--top", "99", "--format", form, *(["--authors"] * authors)]
        environment = {"ORPIPELINE_DATA_DIR": str(expected.data)}
        done = run_command("leaderboard", *arguments, folder=expected.data, environment=environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    measure, rows = MEASURES[by], expected.rows(scope, by, authors=authors)
    covered = expected.covered(scope)
    cells = [_cells(row, by, authors=authors) for row in rows]

    table = printed("table")
    bar = re.compile("[█▏▎▍▌▋▊▉]+")
    lines = [[cell for cell in re.split(r"  +", bar.sub("  ", line).strip()) if cell] for line in table.splitlines()]
    shown = [line for line in lines if re.fullmatch(r"\d+(\S\d+)?", line[0] if line else "")]
    assert [_without_names(line, authors=authors) for line in shown] == cells
    assert all(line[1] in _names(row, authors=authors) for line, row in zip(shown, rows, strict=True))

    text = html.unescape(printed("md"))
    markdown = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [_without_names(line, authors=authors) for line in markdown] == cells

    for said in (" ".join(table.split()), " ".join(text.split())):
        models = f"{covered['model_count']} models"
        assert f"The lists attribute {percent(covered[f'{measure}_attributed'])} of {by} to {models}." in said
        assert authors == (f"at most {percent(covered[f'unlisted_{measure}_upper'])} of {by}" not in said)

    document = json.loads(printed("json"))
    _assert_same([document["coverage"]], [covered])
    _assert_same(document["rows"], rows)
    _assert_same(list(csv.DictReader(io.StringIO(printed("csv")))), rows)


def _cells(row: Mapping[str, Any], by: str, *, authors: bool) -> list[str]:
    measure, other = MEASURES[by], MEASURES["tokens" if by == "requests" else "requests"]
    figures = [ranks(row, measure), percent(row[f"{measure}_share"]), percent(row[f"{measure}_share_upper"])]
    return [*figures, str(row["model_count"]) if authors else percent(row[f"{other}_share"])]


def _without_names(line: list[str], *, authors: bool) -> list[str]:
    """Return the figures of a line: the columns are rank, names, share, at most, and one more; then the top model."""
    return [line[0], *(line[2:5] if authors else line[3:6])]


def _names(row: Mapping[str, Any], *, authors: bool) -> set[str]:
    """Return the names that a row can have: two models of an author can differ in their date only."""
    if authors:
        return {row["author"]}
    return {row["model_id"], row["model_id"].split("/")[1], short(row["model_id"])}


def _assert_same(printed: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Compare each column that was calculated. In CSV, everything is text."""
    for found, row in zip(printed, rows, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert float(found[name]) == pytest.approx(value, abs=1e-12), (name, row)
            elif isinstance(value, date):
                assert found[name] == value.isoformat()
            else:
                assert str(found[name] or "") == str(value or ""), (name, row)
