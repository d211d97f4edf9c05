"""Every figure that `orpipeline leaderboard` prints, against an independent calculation from the response."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from orpipeline import Settings, read
from orpipeline.archive import Archive
from orpipeline.catalogue import CATALOGUE
from orpipeline.cli.terminal import out
from orpipeline.load import load_catalogues, load_days
from orpipeline.testing import sample_catalogue, sample_response
from orpipeline.warehouse.warehouse import open_warehouse
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
    load_days(archive, open_warehouse(Settings(data_dir=folder)), [DAY], now=NOON)
    parsed = json.loads(body)
    calculated = (independent.leaderboard(parsed), independent.authors(parsed), independent.coverage(parsed))
    return Expected(folder, *calculated)


@pytest.fixture(scope="module")
def two_weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of ten days of the demo's market, with its model catalogue."""
    folder = tmp_path_factory.mktemp("days")
    settings = Settings(data_dir=folder)
    archive, warehouse = Archive(settings.archive), open_warehouse(settings)
    days = [DAY - timedelta(days=n) for n in range(10)]
    for day in days:
        archive.put(sample_response(day), fetched_at=NOON - (DAY - day), source="a test", origin="demo")
    archive.of(CATALOGUE).put(sample_catalogue(DAY), fetched_at=NOON, source="a test", origin="demo")
    load_days(archive, warehouse, days, now=NOON)
    load_catalogues(archive, warehouse, [DAY], now=NOON)
    return folder


def show(folder: Path, *arguments: str, width: int = 150) -> str:
    """Return what the command prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out, "width", width)
        done = run_command("leaderboard", *arguments, folder=folder, environment={"ORPIPELINE_DATA_DIR": str(folder)})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def cells(printed: str) -> list[list[str]]:
    """Return the cells of a printed table's rows, or of a Markdown table's, without bars."""
    if "| --- " in printed or "| ---: " in printed:
        below = html.unescape(printed).split("---: |\n" if "---: |\n" in printed else "--- |\n", 1)[1]
        lines = below.split("\n\n")[0].splitlines()
        return [[cell.replace("\\", "") for cell in line.strip("| ").split(" | ")] for line in lines]
    rows = re.sub("[█▏▎▍▌▋▊▉]+", "  ", re.split("\n *─+ *\n", printed)[1]).splitlines()
    found = [re.split(r"  +", row.strip()) for row in rows]
    return [row for row in found if len(row) > 1]


@pytest.mark.parametrize("by", ["requests", "tokens"])
@pytest.mark.parametrize("authors", [False, True], ids=["models", "authors"])
@pytest.mark.parametrize("scope", ["all", "code"])
def test_every_printed_figure_is_the_calculated_one(expected: Expected, scope: str, authors: bool, by: str) -> None:
    def printed(form: str) -> str:
        arguments = ["--scope", scope, "--by", by, "--top", "99", "--format", form, *(["--authors"] * authors)]
        return show(expected.data, *arguments)

    measure, other = MEASURES[by], MEASURES["tokens" if by == "requests" else "requests"]
    rows, covered = expected.rows(scope, by, authors=authors), expected.covered(scope)
    shown = [
        [
            row["author"],
            str(row["model_count"]),
            percent(row[f"{measure}_share"]),
            percent(row[f"{measure}_share_upper"]),
            row["top_model"].split("/")[1],
        ]
        if authors
        else [
            ranks(row, measure),
            row["model_id"].split("/")[1],
            row["model_id"],
            percent(row[f"{measure}_share"]),
            percent(row[f"{measure}_share_upper"]),
            percent(row[f"{other}_share"]),
        ]
        for row in rows
    ]
    table, markdown = printed("table"), printed("md")
    assert cells(table) == shown
    assert cells(markdown) == shown
    unit = f"classified {by}" if scope == "all" else f"code {by}"
    for text in (table, html.unescape(markdown).replace("\\", "")):
        said = " ".join(text.split())
        assert f"Share of {unit} by {'author' if authors else 'model'}" in said
        if not authors:
            attributed = percent(covered[f"{measure}_attributed"])
            assert f"The lists attribute {attributed} of {unit} to {covered['model_count']} models." in said
            assert f"has at most {percent(covered[f'unlisted_{measure}_upper'])} of {unit}" in said
    document = json.loads(printed("json"))
    _assert_same([document["coverage"]], [covered])
    _assert_same(document["rows"], rows)
    _assert_same(list(csv.DictReader(io.StringIO(printed("csv")))), rows)


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


def test_changes_show_the_certain_ones_first_with_both_bounds(two_weeks: Path) -> None:
    document = json.loads(show(two_weeks, "--changes", "--top", "99", "--format", "json"))
    bounds = {one["model_id"]: (one["change_low"], one["change_high"]) for one in document["rows"]}
    trends = read("model_trends", since=DAY, scope="all", settings=Settings(data_dir=two_weeks))
    columns = "model_id", "usage_share_change_7d_low", "usage_share_change_7d_high"
    stored = {model: (low, high) for model, low, high in trends.select(columns).drop_nulls().iter_rows()}
    assert stored.items() <= bounds.items()
    certain = [one["is_certain"] for one in document["rows"]]
    assert certain == sorted(certain, reverse=True)
    assert certain == [low > 0 or high < 0 for low, high in bounds.values()]
    printed = show(two_weeks, "--changes", "--top", "99")
    assert sum(row[-2].startswith(("▲", "▼")) for row in cells(printed)) == sum(certain)
    assert f"{sum(certain)} certain. " in printed


def test_the_ranking_marks_certain_changes_by_their_direction(two_weeks: Path) -> None:
    changes = {
        one["model_id"]: (one["change_low"] > 0) - (one["change_high"] < 0)
        for one in json.loads(show(two_weeks, "--changes", "--top", "99", "--format", "json"))["rows"]
    }
    shown = {row[2]: row[-1][0] for row in cells(show(two_weeks, "--top", "99"))}
    marks = {model: {"\u25b2": 1, "\u25bc": -1}.get(mark, 0) for model, mark in shown.items()}
    assert marks == {model: changes[model] for model in shown}
    assert {-1, 0, 1} <= set(marks.values())


@pytest.mark.parametrize(("what", "columns"), [("--by=requests", 4), ("--authors", 4), ("--tasks", 3)])
def test_ids_that_no_catalogue_names_are_whole_at_60_columns(expected: Expected, what: str, columns: int) -> None:
    narrow, wide = (cells(show(expected.data, what, "--top", "12", width=width)) for width in (60, 150))
    assert {len(row) for row in narrow} == {columns}
    assert all(set(row) <= set(whole) for row, whole in zip(narrow, wide, strict=True))


def test_tasks_show_who_leads_each_one(two_weeks: Path) -> None:
    document = json.loads(show(two_weeks, "--tasks", "--by", "tokens", "--top", "99", "--format", "json"))
    models = read("task_models", since=DAY, settings=Settings(data_dir=two_weeks))
    leaders = models.sort("tag_token_share", descending=True).group_by("tag").first()
    assert len(document["rows"]) == 29
    assert {one["tag"]: one["leader_share"] for one in document["rows"]} == dict(
        leaders.select("tag", "tag_token_share").iter_rows()
    )
    only_code = show(two_weeks, "--tasks", "--scope", "code", "--top", "99")
    assert len(cells(only_code)) == 9
    assert "A leader's share is of the task's own requests." in " ".join(only_code.split())


def test_names_are_those_of_the_catalogue_with_the_id_beside_them_where_there_is_room(two_weeks: Path) -> None:
    wide = cells(show(two_weeks))[0]
    model_id = json.loads(show(two_weeks, "--format", "json"))["rows"][0]["model_id"]
    names = {one["canonical_slug"]: one["name"] for one in json.loads(sample_catalogue(DAY))["data"]}
    assert wide[1:3] == [names[model_id].partition(": ")[2], model_id]
    assert model_id not in show(two_weeks, width=80)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("what", [(), ("--authors",), ("--changes",), ("--tasks",)], ids=str)
def test_it_fits_the_terminal_and_breaks_no_word(two_weeks: Path, what: tuple[str], width: int) -> None:
    printed = show(two_weeks, *what, "--top", "6", width=width)
    text, _, citation = printed.rstrip().rpartition("\n")
    assert max(map(len, text.splitlines())) <= width
    assert re.search(r"6 of \d+ rows: --top \d+ shows all\.", printed)
    assert citation.startswith("Demo data, made up by orpipeline")
    assert printed.startswith("DEMO: made-up data")
    wide = {word for row in cells(show(two_weeks, *what, "--top", "6")) for cell in row for word in cell.split()}
    assert set(" ".join(map(" ".join, cells(printed))).split()) <= wide


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_it_prints_in_every_encoding_and_data_for_programs_is_in_utf_8(two_weeks: Path, encoding: str) -> None:
    def printed(*arguments: str) -> bytes:
        environment = {"ORPIPELINE_DATA_DIR": str(two_weeks)}
        done = run_command("leaderboard", *arguments, folder=two_weeks, environment=environment, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.encode(encoding, "surrogateescape")

    changes = printed("--changes").decode(encoding)
    gained, lost = ("\u25b2 +", "\u25bc \u2212") if encoding == "utf-8" else ("^ +", "v -")
    assert gained in changes
    assert lost in changes
    assert "?" not in changes
    markdown = printed("--changes", "--format", "md")
    assert markdown == show(two_weeks, "--changes", "--format", "md").encode()


def test_a_wrong_scope_names_a_similar_one_and_a_day_that_is_missing_is_named(two_weeks: Path) -> None:
    def failed(*arguments: str) -> tuple[int, str]:
        environment = {"ORPIPELINE_DATA_DIR": str(two_weeks)}
        done = run_command("leaderboard", *arguments, folder=two_weeks, environment=environment)
        return done.returncode, done.stderr

    code, error = failed("--scope", "coding")
    assert code == 2
    assert "no scope 'coding'. Did you mean 'code'? It has all, code, data, agent, general." in error
    code, error = failed("--date", "2026-01-01")
    assert code == 1
    assert "no rows of 2026-01-01" in error


def test_readers_do_not_wait_for_a_writer(two_weeks: Path) -> None:
    environment = {"ORPIPELINE_DATA_DIR": str(two_weeks)}
    with open_warehouse(Settings(data_dir=two_weeks)).writing():
        show(two_weeks, "--top", "1")
        for command in (["report"], ["export", "--to", str(two_weeks / "parquet")]):
            done = run_command(*command, folder=two_weeks, environment=environment)
            assert (done.returncode, done.stderr) == (0, "")
    assert (two_weeks / "parquet" / "models.parquet").is_file()
