"""The report's page, picture and files, from made-up days in a real warehouse."""

from __future__ import annotations

import json
import math
import re
import struct
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orpipeline.archive.folder import Archive
from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.report import page as report_page
from orpipeline.report import wording
from orpipeline.report.charts.drawing import named_rows
from orpipeline.report.charts.history import macro_history, model_history
from orpipeline.report.charts.leaderboard import leaderboard
from orpipeline.report.charts.movers import movers
from orpipeline.report.charts.tasks import task_mix, task_models
from orpipeline.report.colours import PAGE, author_slot, page_variables
from orpipeline.report.data import NoReportError, ReportData, read_report_data
from orpipeline.report.files import ReportError, write_report
from orpipeline.report.history_rows import drawn_days, spread, top_series
from orpipeline.report.page import render_page
from orpipeline.report.picture import render_picture
from orpipeline.report.rows import leaderboard_rows, task_model_rows
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import one_tag_answer
from orpipeline_tests.report_data import (
    NEWEST,
    Report,
    days_before,
    demo_warehouse,
    hostile_warehouse,
    long_warehouse,
    warehouse_of,
)

MISSING = [date(2026, 9, 14), date(2026, 9, 20), date(2026, 9, 21)]
TWO_MEGABYTES = 2_000_000
REAL = Path(__file__).parents[2] / "shared" / "real" / "task_classifications_2026-10-06.json"


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """30 demo days, three of which are missing."""
    return demo_warehouse(tmp_path_factory.mktemp("month"), [day for day in days_before(30) if day not in MISSING])


@pytest.fixture(scope="module")
def month_data(month: Warehouse) -> ReportData:
    return read_report_data(month, lost_days=MISSING)


@pytest.fixture(scope="module")
def month_page(month_data: ReportData) -> str:
    return render_page(month_data)


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return read_report_data(demo_warehouse(tmp_path_factory.mktemp("day"), [NEWEST]))


@pytest.mark.parametrize("narrow", [False, True])
def test_every_part_of_every_chart_matches_vega_lites_schema(month_data: ReportData, narrow: bool) -> None:
    rows, labels = named_rows("rows"), named_rows("labels")
    for chart in (
        leaderboard(PAGE, rows, narrow=narrow),
        task_mix(PAGE, rows, narrow=narrow),
        model_history(PAGE, rows, labels, top_series(month_data, PAGE), narrow=narrow),
        macro_history(PAGE, rows, labels, narrow=narrow),
        movers(PAGE, rows, narrow=narrow),
        task_models(PAGE, rows, "code:debugging", narrow=narrow),
    ):
        assert chart.to_dict()["layer"]  # Altair validates here, and raises


@pytest.mark.parametrize("scope", ["all", "code", "data", "agent", "general"])
def test_the_leaderboards_table_has_the_warehouses_figures(month: Warehouse, month_page: str, scope: str) -> None:
    rows = month.read("model_leaderboard", since=NEWEST).filter(scope=scope).sort("usage_rank", "model_id")
    table = Report(month_page).table("board", scope=scope)
    assert [cells[2] for cells in table.body] == rows["model_id"].to_list()
    shares = rows.select("usage_share", "usage_share_upper", "token_share", "token_share_upper")
    assert table.figures[1:] == [list(row) for row in shares.iter_rows()]
    for cells, row in zip(table.body, rows.iter_rows(named=True), strict=True):
        best, worst = row["usage_rank_best"], row["usage_rank_worst"]
        assert cells[0] == str(row["usage_rank"])
        assert cells[1] == (str(best) if best == worst else f"{best}\N{EN DASH}{worst}")
        assert (cells[3], cells[7], cells[10]) == (row["author"], str(row["token_rank"]), str(row["task_count"]))
        digits = 1 if row["usage_share"] >= 0.01 else 2
        assert cells[4] == f"{row['usage_share']:.{digits}%}"


def test_published_shares_have_the_digits_that_are_published(month_page: str) -> None:
    page = Report(month_page)
    published = [page.table("mix-table"), *(table for table in page.tables if table.attributes.get("class") == "task")]
    shown = [cell for table in published for cells in table.body for cell in cells if cell.endswith(("%", "pp"))]
    assert all(re.fullmatch(r"0%|[+\N{MINUS SIGN}]?\d+\.\d(%|\N{NO-BREAK SPACE}pp)", cell) for cell in shown)
    rows = _rows(month_page)
    drawn = [*rows["mix"]["usage_text"], *rows["mix"]["token_text"], *rows["task_models"]["share_text"]]
    assert all(re.fullmatch(r"0%|\d+\.\d%", text) for text in drawn)


def test_the_task_mix_and_each_tasks_models_match_the_warehouse(month: Warehouse, month_page: str) -> None:
    page = Report(month_page)
    tasks = month.read("task_classifications", since=NEWEST)
    mix = {
        cells[0]: figures
        for cells, figures in zip(page.table("mix-table").body, page.table("mix-table").figures[1:], strict=True)
    }
    for row in tasks.iter_rows(named=True):
        assert mix[row["display_name"]] == [row["usage_share"], row["token_share"]]
        models = month.read("task_models", since=NEWEST).filter(tag=row["tag"]).sort("position")
        table = page.table("task", task=row["tag"])
        assert [cells[1] for cells in table.body[:-1]] == models["model_id"].to_list()
        figures = models.select("tag_usage_share", "tag_token_share")
        assert table.figures[1:-1] == [list(pair) for pair in figures.iter_rows()]
        assert table.figures[-1][0] == pytest.approx(max(0, 1 - models["tag_usage_share"].sum()), abs=1e-6)


def test_changes_movers_newcomers_and_departures_match_the_views(month: Warehouse, month_page: str) -> None:
    page = Report(month_page)
    trends = month.read("model_trends", since=NEWEST).filter(scope="all")
    known = trends.filter(pl.col("usage_share_change_7d").is_not_null())
    largest = known.sort(pl.col("usage_share_change_7d").abs(), descending=True).head(10)
    shown = page.table("movers-table")
    assert {cells[0]: figures for cells, figures in zip(shown.body, shown.figures[1:], strict=True)} == {
        row["model_id"]: [row["usage_share_change_7d"]] for row in largest.iter_rows(named=True)
    }
    fresh = trends.filter(pl.col("first_seen") > NEWEST - timedelta(days=7))["model_id"].to_list()
    assert [cells[0] for cells in page.table("newcomers").body] == fresh
    board = {cells[2]: cells[6] for cells in page.table("board", scope="all").body}
    for row in trends.iter_rows(named=True):
        change = row["usage_share_change_7d"]
        assert board[row["model_id"]].startswith("new" if change is None else "▲" if change > 0 else "▼")
    assert all(board[model] == "new" for model in fresh)
    lately = month.read("model_leaderboard", since=NEWEST - timedelta(days=7)).filter(scope="all")
    gone = set(lately["model_id"]) - set(trends["model_id"])
    assert {cells[0] for cells in page.table("departed").body} == gone != set()


def test_a_model_that_returns_is_back_and_not_new(tmp_path: Path) -> None:
    listed = {10: {"a/x": 0.4, "b/back": 0.3}, 7: {"a/x": 0.4}, 0: {"a/x": 0.4, "b/back": 0.3, "c/new": 0.2}}
    answers = {NEWEST - timedelta(days=n): one_tag_answer(NEWEST - timedelta(days=n), m) for n, m in listed.items()}
    data = read_report_data(warehouse_of(tmp_path, answers))
    page = Report(render_page(data))
    board = {cells[2]: cells[6] for cells in page.table("board", scope="all").body}
    assert (board["b/back"], board["c/new"]) == ("back", "new")
    assert [cells[0] for cells in page.table("newcomers").body] == ["c/new"]


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ({"b/y": 0.5}, "No model is listed on both 29 Sep 2026 and 6 Oct 2026"),
        ({"a/x": 0.5}, "No model's share changed between 29 Sep 2026 and 6 Oct 2026"),
    ],
)
def test_no_change_and_no_model_to_compare_have_their_own_messages(
    tmp_path: Path, then: dict[str, float], message: str
) -> None:
    week_before = NEWEST - timedelta(days=7)
    answers = {week_before: one_tag_answer(week_before, then), NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5})}
    text = " ".join(Report(render_page(read_report_data(warehouse_of(tmp_path, answers)))).text.split())
    assert message in text
    tile = text.partition("Largest change in 7 days")[2].partition("Models listed")[0]
    assert ("no model is listed on both days" in tile) == ("a/x" not in then)


def test_a_day_that_is_missing_is_a_gap_in_the_lines_and_in_the_table(month_page: str) -> None:
    history = Report(month_page).table("history", measure="usage")
    assert [cells for cells in history.body if cells[0] == "14 Sep 2026"] == [["14 Sep 2026", "missing"]]
    lines = _rows(month_page)["lines"]
    by_day = {day: [s for d, s in zip(lines["day"], lines["share"], strict=True) if d == day] for day in lines["day"]}
    assert len(by_day) == 30
    assert all(set(by_day[day.isoformat()]) == {None} for day in MISSING)
    areas = _rows(month_page)["areas"]
    assert not {day.isoformat() for day in MISSING} & set(areas["day"])
    assert len(set(areas["segment"])) == 3  # before, between and after the gaps


def test_a_day_between_two_gaps_is_drawn_as_a_point(tmp_path: Path) -> None:
    data = read_report_data(demo_warehouse(tmp_path, [NEWEST - timedelta(days=4), NEWEST - timedelta(days=2), NEWEST]))
    lines = _rows(render_page(data))["lines"]
    assert {alone for alone, share in zip(lines["alone"], lines["share"], strict=True) if share is not None} == {True}


def test_with_one_day_the_page_explains_what_more_days_add(one_day: ReportData) -> None:
    page = Report(render_page(one_day))
    assert "The history starts with this day, 6 Oct 2026" in page.text
    assert "This section compares with 29 Sep 2026" in page.text
    assert {cells[6] for cells in page.table("board", scope="all").body} == {"\N{EN DASH}"}
    charts = {given["data-chart"] for _, given in page.tags if "data-chart" in given}
    assert charts == {"leaderboard", "mix", "task_models"}


def test_an_earlier_day_is_shown_as_it_was_then(month: Warehouse) -> None:
    day = date(2026, 9, 25)
    data = read_report_data(month, day)
    assert (data.as_of, max(data.days), max(data.model_history["as_of"])) == (day, day, day)
    board = Report(render_page(data)).table("board", scope="all")
    rows = month.read("model_leaderboard", since=day, until=day).filter(scope="all")
    assert {cells[2] for cells in board.body} == set(rows["model_id"])
    assert "by day: the top 8 models of 25 Sep 2026" in Report(render_page(data)).text


def test_a_missing_day_and_an_empty_warehouse_raise_an_error(month: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(NoReportError, match=r"no rows of 2026-09-14.*2026-09-07 to 2026-10-06"):
        read_report_data(month, MISSING[0])
    with pytest.raises(NoReportError, match="no tables yet"):
        read_report_data(Warehouse(tmp_path / "none.duckdb"))


def test_the_page_shows_the_source_of_its_figures(month: Warehouse) -> None:
    found = pl.DataFrame(
        [(NEWEST, "WARN", "sorted", "task_classifications", "usage_share", "math", "0.1 <b>")],
        schema=FINDINGS_SCHEMA,
        orient="row",
    )
    page = Report(render_page(read_report_data(month, lost_days=MISSING, warnings=found)))
    (snapshot,) = month.read("snapshots", since=NEWEST).to_dicts()
    text = " ".join(page.text.split())
    assert snapshot["citation"] in text
    assert snapshot["sha256"] in text
    assert "Revision1 Fetched" in text
    assert "14 Sep 2026, 20 Sep 2026 to 21 Sep 2026 (2 days)" in text
    assert "Window7 days, up to and including 6 Oct 2026" in text
    assert page.table("warnings").body == [
        ["6 Oct 2026", "sorted (WARN)", "task_classifications.usage_share [math]", "0.1 <b>"]
    ]


def test_only_made_up_figures_are_marked_as_demo(month_page: str, tmp_path: Path) -> None:
    assert "<strong>DEMO</strong>" in month_page
    assert "<title>DEMO: " in month_page
    imported = warehouse_of(tmp_path, {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5})}, origin="import")
    page = render_page(read_report_data(imported))
    assert "demo" not in re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL).lower()
    assert "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0." in page


@pytest.mark.parametrize(("origin", "word"), [("api", "Fetched"), ("import", "Fetched or imported")])
def test_the_time_of_an_import_is_not_labelled_as_its_fetch_time(tmp_path: Path, origin: str, word: str) -> None:
    warehouse = warehouse_of(tmp_path, {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5})}, origin=origin)
    assert f"<dt>{word}</dt>" in render_page(read_report_data(warehouse))


def test_the_headline_shows_a_tie_and_a_certain_lead(tmp_path: Path) -> None:
    tied = warehouse_of(tmp_path / "tied", {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.3, "b/y": 0.3})})
    text = " ".join(Report(render_page(read_report_data(tied))).text.split())
    assert "2 models tie for first place with 30.0% of requests each" in text
    assert "By tokens, 2 models tie for first place with 30.0% each." in text
    assert "First by requests 30.0%2 models tie First by tokens 30.0%2 models tie" in text
    sure = warehouse_of(tmp_path / "sure", {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5, "b/y": 0.3})})
    text = " ".join(Report(render_page(read_report_data(sure))).text.split())
    assert "x leads with 50.0% of requests" in text
    assert "20.0\N{NO-BREAK SPACE}pp" in Report(render_page(read_report_data(sure))).text
    assert "first place among the listed models is certain" in text


def test_the_files_are_named_after_the_day_and_the_clock_decides_which_days_are_lost(tmp_path: Path) -> None:
    days = [NEWEST - timedelta(days=2), NEWEST]
    warehouse, archive = demo_warehouse(tmp_path, days), Archive(tmp_path / "raw")
    noon = datetime(2026, 10, 7, 12, tzinfo=UTC)
    newest = write_report(tmp_path / "reports", archive, warehouse, day=None, now=noon)
    assert (newest.as_of, newest.page.name, newest.picture.name) == (NEWEST, "leaderboard.html", "leaderboard.png")
    assert newest.picture.read_bytes().startswith(b"\x89PNG")
    assert newest.citation in newest.page.read_text(encoding="utf-8")
    assert "Lost days5 Oct 2026." in Report(newest.page.read_text(encoding="utf-8")).text
    later = write_report(tmp_path / "reports", archive, warehouse, day=days[0], now=noon + timedelta(days=2))
    assert (later.as_of, later.page.name) == (days[0], "leaderboard-2026-10-04.html")
    assert "Lost days5 Oct 2026, 7 Oct 2026." in Report(later.page.read_text(encoding="utf-8")).text
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match="Cannot write the report"):
        write_report(tmp_path / "file", archive, warehouse, day=None, now=noon)


@pytest.mark.parametrize("origin", ["month", "hostile"])
def test_the_page_loads_nothing(month_page: str, tmp_path: Path, origin: str) -> None:
    html = month_page if origin == "month" else render_page(read_report_data(hostile_warehouse(tmp_path)))
    page = Report(html)
    loading = ("src", "srcset", "poster", "action", "background", "ping")
    assert not [given for tag, given in page.tags for name in given if name in loading]
    links = [(tag, given["href"] or "") for tag, given in page.tags if "href" in given]
    assert all(link.startswith(("#", "data:,")) for tag, link in links if tag != "a")
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "img", "video", "audio", "base"})
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (given["content"] for tag, given in page.tags if given.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_the_same_data_gives_the_same_bytes(month_data: ReportData, month_page: str) -> None:
    assert render_page(month_data) == month_page
    assert render_picture(month_data) == render_picture(month_data)


def test_ten_years_of_days_stay_below_two_megabytes(tmp_path: Path, month_page: str) -> None:
    data = read_report_data(long_warehouse(tmp_path, 3650))
    page = render_page(data)
    assert len(page.encode()) < TWO_MEGABYTES
    assert len(month_page.encode()) < TWO_MEGABYTES
    assert "each point covers 7 days" in " ".join(page.split())
    drawn = drawn_days(data.days, data.as_of)
    assert len(drawn) == 522
    assert drawn[-1] == (NEWEST, True)
    for measure in ("usage", "token"):
        history = Report(page).table("history", measure=measure)
        assert [cells[0] for cells in history.body] == [wording.day_text(day) for day, _ in reversed(drawn)]
    assert "Shares of requests by day, one day of each 7;" in Report(page).text


def test_a_week_is_drawn_as_its_newest_day_and_a_missing_week_as_a_gap() -> None:
    days = [day for day in days_before(500) if not NEWEST - timedelta(days=20) < day <= NEWEST - timedelta(days=7)]
    assert drawn_days(days, NEWEST)[-4:] == [
        (NEWEST - timedelta(days=21), True),
        (NEWEST - timedelta(days=20), True),  # the newest of the week that ends 14 days before
        (NEWEST - timedelta(days=7), False),
        (NEWEST, True),
    ]


def test_the_picture_is_a_png_of_a_sensible_size(month_data: ReportData, one_day: ReportData) -> None:
    for data in (month_data, one_day):
        picture = render_picture(data)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", picture[16:24])
        assert 1200 <= width <= 1600
        assert 1000 <= height <= 2600
        assert 20_000 < len(picture) < 1_000_000


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.1087, "10.9%"), (0.01, "1.0%"), (0.0099, "0.99%"), (0.0, "0%"), (0.00001, "<0.01%"), (1.0, "100.0%")],
)
def test_shares_have_one_decimal_and_below_one_percent_two(share: float, text: str) -> None:
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.109, "10.9%"), (0.007, "0.7%"), (0.0, "0%"), (0.0004, "<0.1%"), (1.0, "100.0%")]
)
def test_published_shares_have_one_decimal(share: float, text: str) -> None:
    assert wording.published_percent(share) == text


def test_changes_are_percentage_points_with_their_sign() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert wording.change(0.0123) == f"+1.2{space}pp"
    assert wording.change(-0.0042) == f"\N{MINUS SIGN}0.42{space}pp"
    assert wording.change(0.0) == f"0.0{space}pp"
    assert wording.change(None) == "\N{EN DASH}"
    assert wording.published_change(0.012 - 0.005) == f"+0.7{space}pp"
    assert wording.published_change(0.1 + 0.2 - 0.3) == f"0.0{space}pp"


def test_short_names_drop_author_and_date_only_where_one_model_has_the_name() -> None:
    ids = ["a/m-20260101", "a/n-20260101", "b/n-20260202", "c/o:free", "d/o:free", "plain"]
    assert list(wording.short_names(ids).values()) == [
        "m",
        "n-20260101",
        "n-20260202",
        "c/o:free",
        "d/o:free",
        "plain",
    ]


def test_an_authors_colour_depends_on_its_name_alone() -> None:
    assert author_slot("deepseek") == 0
    demo = ["aurora", "basalt", "cinder", "dune", "estuary", "fjord", "glade", "harbor", "islet", "juniper"]
    assert sorted(author_slot(f"demo-{name}") for name in demo) == list(range(10))


@pytest.mark.parametrize("kind", ["author", "macro"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_any_two_colours_differ_for_people_with_any_colour_vision(kind: str, theme: str) -> None:
    colours = [colour for name, colour in _page_colours(theme).items() if name.startswith(f"--{kind}-")]
    for vision, cones in VISIONS.items():
        seen = {colour: _lab(colour, cones) for colour in colours}
        for one, other in combinations(colours, 2):
            assert _difference(seen[one], seen[other]) >= 10, (vision, one, other)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_mark_contrasts_with_the_background(month_data: ReportData, theme: str) -> None:
    colours = _page_colours(theme)
    marks = {name: colour for name, colour in colours.items() if name.startswith(("--author-", "--macro-", "--muted"))}
    assert len(marks) == 17
    assert {name: colour for name, colour in marks.items() if _contrast(colour, colours["--paper"]) < 3} == {}
    drawn = {row["colour"] for row in [*leaderboard_rows(month_data, PAGE), *task_model_rows(month_data, PAGE)]}
    assert {colour.removeprefix("var(").removesuffix(")") for colour in drawn} <= set(marks)


def test_the_distance_of_colours_is_ciede2000() -> None:
    # From Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula", 2005, table 1: pairs 1, 7, 17 and 25.
    for one, other, known in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ):
        assert _difference(one, other) == pytest.approx(known, abs=1e-4)


def test_on_a_narrow_page_the_zero_line_does_not_cross_the_names() -> None:
    layers = movers(PAGE, named_rows("movers"), narrow=True).to_dict()["layer"]
    (zero,) = (layer["mark"] for layer in layers if layer["mark"]["type"] == "tick")
    (bar,) = (layer["mark"] for layer in layers if layer["mark"]["type"] == "bar")
    texts = [layer["mark"] for layer in layers if layer["mark"]["type"] == "text"]
    assert zero["yOffset"] == bar["yOffset"]
    assert texts
    assert all(text["dy"] + text["fontSize"] / 2 < zero["yOffset"] - zero["size"] / 2 for text in texts)


def test_labels_at_the_ends_of_lines_do_not_overlap() -> None:
    places = spread([0.5, 0.49, 0.48, 0.0, 0.0], 0.1, 1.0)
    assert all(above - below >= 0.1 - 1e-9 for above, below in pairwise(places))
    assert places[0] == 0.5
    assert min(places) >= 0


@pytest.mark.skipif(
    not REAL.exists(), reason="the real answer is not part of the project, and ../shared/real does not have it"
)
def test_the_real_answer_becomes_a_page(tmp_path: Path) -> None:
    warehouse = warehouse_of(tmp_path, {NEWEST: REAL.read_bytes()}, origin="api")
    page = Report(render_page(read_report_data(warehouse)))
    rows = warehouse.read("model_leaderboard").filter(scope="all").sort("usage_rank", "model_id")
    table = page.table("board", scope="all")
    assert [cells[2] for cells in table.body] == rows["model_id"].to_list()
    assert [figures[0] for figures in table.figures[1:]] == rows["usage_share"].to_list()


def _rows(html: str) -> dict[str, dict[str, list[Any]]]:
    """Return the rows of the page's charts by name, as columns of plain values."""
    (found,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', html, re.DOTALL)
    return {
        name: {
            column: values if isinstance(values, list) else [values["of"][place] for place in values["at"]]
            for column, values in columns.items()
        }
        for name, columns in json.loads(found).items()
    }


def _page_colours(theme: str) -> dict[str, str]:
    """Return the page's CSS variables with their colour in a theme."""
    css = (Path(report_page.__file__).parent / "page.css").read_text(encoding="utf-8")
    grounds = dict(re.findall(r"(--\w+): (light-dark\(.+?\));", css))
    place = ("light", "dark").index(theme)
    return {name: re.findall("#[0-9a-f]{6}", pair)[place] for name, pair in (grounds | {**page_variables()}).items()}


Triple = tuple[float, float, float]
# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009: for linear sRGB, severity 1.0.
VISIONS: dict[str, tuple[Triple, Triple, Triple]] = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
_SRGB_TO_XYZ: tuple[Triple, Triple, Triple] = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def _times(matrix: tuple[Triple, Triple, Triple], values: Triple) -> Triple:
    first, second, third = (sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix)
    return first, second, third


def _linear(colour: str) -> Triple:
    parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return red, green, blue


def _contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""
    darker, lighter = sorted(_times(_SRGB_TO_XYZ, _linear(colour))[1] + 0.05 for colour in (one, other))
    return lighter / darker


def _lab(colour: str, cones: tuple[Triple, Triple, Triple]) -> Triple:
    """Return a colour in CIELAB (D65) as seen with one kind of colour vision."""
    red, green, blue = (min(1.0, max(0.0, part)) for part in _times(cones, _linear(colour)))
    relative = (part / white for part, white in zip(_times(_SRGB_TO_XYZ, (red, green, blue)), _WHITE, strict=True))
    x, y, z = (math.cbrt(part) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116 for part in relative)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _difference(one: Triple, other: Triple) -> float:
    """Return the CIEDE2000 distance of two colours in CIELAB."""
    mean = (math.hypot(*one[1:]) + math.hypot(*other[1:])) / 2
    stretch = 1.5 - math.sqrt(mean**7 / (mean**7 + 25**7)) / 2
    chroma = [math.hypot(stretch * a, b) for _, a, b in (one, other)]
    hue = [math.degrees(math.atan2(b, stretch * a)) for _, a, b in (one, other)]
    turn = (hue[1] - hue[0] + 180) % 360 - 180 if chroma[0] * chroma[1] else 0.0
    light, colourful = (one[0] + other[0]) / 2, sum(chroma) / 2
    middle = hue[0] + turn / 2 if chroma[0] * chroma[1] else sum(hue)

    def wave(times: int, shift: float) -> float:
        return math.cos(math.radians(times * middle + shift))

    hues = 1 - 0.17 * wave(1, -30) + 0.24 * wave(2, 0) + 0.32 * wave(3, 6) - 0.2 * wave(4, -63)
    by_light = (other[0] - one[0]) / (1 + 0.015 * (light - 50) ** 2 / math.sqrt(20 + (light - 50) ** 2))
    by_chroma = (chroma[1] - chroma[0]) / (1 + 0.045 * colourful)
    by_hue = 2 * math.sqrt(chroma[0] * chroma[1]) * math.sin(math.radians(turn / 2)) / (1 + 0.015 * colourful * hues)
    blue = 60 * math.exp(-((((middle % 360) - 275) / 25) ** 2))
    rotation = -2 * math.sqrt(colourful**7 / (colourful**7 + 25**7)) * math.sin(math.radians(blue))
    return math.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue)
