"""The report's page and picture, from made-up days in a real warehouse."""

from __future__ import annotations

import json
import re
import struct
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orpipeline.contracts.validation import FINDINGS_SCHEMA
from orpipeline.report import charts, wording
from orpipeline.report.charts import render_picture
from orpipeline.report.colours import author_slot
from orpipeline.report.data import NoReportError, ReportData, read_report_data
from orpipeline.report.page import render_page
from orpipeline.report.rows import drawn_days, spread
from orpipeline.terminal import plain
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import one_tag_answer
from orpipeline_tests.report_data import (
    HOSTILE,
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


def test_every_part_of_the_charts_is_as_vega_lites_schema_says(
    month_data: ReportData, month_page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "VALIDATE", True)
    assert render_page(month_data) == month_page


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


def test_the_mix_and_each_tasks_models_are_the_warehouses(month: Warehouse, month_page: str) -> None:
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


def test_changes_movers_newcomers_and_who_left_are_the_views(month: Warehouse, month_page: str) -> None:
    page = Report(month_page)
    trends = month.read("model_trends", since=NEWEST).filter(scope="all")
    known = trends.filter(pl.col("usage_share_change_7d").is_not_null())
    largest = known.sort(pl.col("usage_share_change_7d").abs(), descending=True).head(10)
    movers = page.table("movers-table")
    assert {cells[0]: figures for cells, figures in zip(movers.body, movers.figures[1:], strict=True)} == {
        row["model_id"]: [row["usage_share_change_7d"]] for row in largest.iter_rows(named=True)
    }
    fresh = trends.filter(pl.col("first_seen") > NEWEST - timedelta(days=7))["model_id"].to_list()
    assert [cells[0] for cells in page.table("newcomers").body] == fresh
    board = {cells[2]: cells[6] for cells in page.table("board", scope="all").body}
    for row in trends.iter_rows(named=True):
        change = row["usage_share_change_7d"]
        assert board[row["model_id"]].startswith("new" if change is None else "▲" if change > 0 else "▼")
    lately = month.read("model_leaderboard", since=NEWEST - timedelta(days=7)).filter(scope="all")
    gone = set(lately["model_id"]) - set(trends["model_id"])
    assert {cells[0] for cells in page.table("departed").body} == gone != set()


def test_a_day_that_is_missing_is_a_gap_in_the_lines_and_in_the_table(month_page: str) -> None:
    history = Report(month_page).table("history", measure="usage")
    assert [cells for cells in history.body if cells[0] == "14 Sep 2026"] == [["14 Sep 2026", "not there"]]
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


def test_one_day_says_what_comes_with_more_days(one_day: ReportData) -> None:
    page = Report(render_page(one_day))
    assert "The history begins with this day, 6 Oct 2026" in page.text
    assert "Movers compare with 29 Sep 2026" in page.text
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


def test_a_day_without_rows_and_an_empty_warehouse_are_said(month: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(NoReportError, match=r"no rows of 2026-09-14.*2026-09-07 to 2026-10-06"):
        read_report_data(month, MISSING[0])
    with pytest.raises(NoReportError, match="no tables yet"):
        read_report_data(Warehouse(tmp_path / "none.duckdb"))


def test_where_the_figures_come_from_is_on_the_page(month: Warehouse) -> None:
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
    assert "Window7 days, 6 Oct 2026 being the last" in text
    assert page.table("warnings").body == [
        ["6 Oct 2026", "sorted (WARN)", "task_classifications.usage_share [math]", "0.1 <b>"]
    ]


def test_made_up_figures_say_demo_and_others_do_not(month_page: str, tmp_path: Path) -> None:
    assert "<strong>DEMO</strong>" in month_page
    assert "<title>DEMO: " in month_page
    imported = warehouse_of(tmp_path, {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5})}, origin="import")
    page = render_page(read_report_data(imported))
    assert "demo" not in re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL).lower()
    assert "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0." in page


def test_a_lead_that_is_not_certain_is_said(tmp_path: Path) -> None:
    tied = warehouse_of(tmp_path / "tied", {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.3, "b/y": 0.3})})
    assert "2 models share the lead with 30.0% of requests each" in Report(render_page(read_report_data(tied))).text
    sure = warehouse_of(tmp_path / "sure", {NEWEST: one_tag_answer(NEWEST, {"a/x": 0.5, "b/y": 0.3})})
    text = " ".join(Report(render_page(read_report_data(sure))).text.split())
    assert "x leads with 50.0% of requests" in text
    assert "20.0\N{NO-BREAK SPACE}pp" in Report(render_page(read_report_data(sure))).text
    assert "first place is certain" in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    html = render_page(read_report_data(hostile_warehouse(tmp_path)))
    page = Report(html)
    assert [cells[2] for cells in page.table("board", scope="all").body] == [plain(name) for name in HOSTILE]
    assert {"img", "b", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert sum(tag == "script" for tag, _ in page.tags) == 5
    assert html.count("</script") == 5
    assert "{{7*7}}/{% raw %}" in page.text
    assert "49" not in [cells[2] for cells in page.table("board", scope="all").body]
    assert _rows(html)["leaderboard"]["model_id"][0] == HOSTILE[0]


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
    assert "one point stands for 7 days" in " ".join(page.split())
    drawn = drawn_days(data.days, data.as_of)
    assert len(drawn) == 522
    assert drawn[-1] == (NEWEST, True)


def test_weeks_are_drawn_by_their_newest_day_and_a_week_without_any_is_a_gap() -> None:
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


def test_changes_are_percentage_points_with_their_sign() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert wording.change(0.0123) == f"+1.2{space}pp"
    assert wording.change(-0.0042) == f"\N{MINUS SIGN}0.42{space}pp"
    assert wording.change(0.0) == f"0.0{space}pp"
    assert wording.change(None) == "\N{EN DASH}"


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


def test_an_authors_colour_follows_from_the_name_alone() -> None:
    assert author_slot("deepseek") == 0
    demo = ["aurora", "basalt", "cinder", "dune", "estuary", "fjord", "glade", "harbor", "islet", "juniper"]
    assert sorted(author_slot(f"demo-{name}") for name in demo) == list(range(10))


def test_labels_at_the_lines_ends_do_not_overlap() -> None:
    places = spread([0.5, 0.49, 0.48, 0.0, 0.0], 0.1, 1.0)
    assert all(above - below >= 0.1 - 1e-9 for above, below in pairwise(places))
    assert places[0] == 0.5
    assert min(places) >= 0


@pytest.mark.skipif(
    not REAL.exists(), reason="the real answer lies beside the project, and is not here: ../shared/real"
)
def test_the_real_answer_becomes_a_page(tmp_path: Path) -> None:
    warehouse = warehouse_of(tmp_path, {NEWEST: REAL.read_bytes()}, origin="api")
    page = Report(render_page(read_report_data(warehouse)))
    rows = warehouse.read("model_leaderboard").filter(scope="all").sort("usage_rank", "model_id")
    table = page.table("board", scope="all")
    assert [cells[2] for cells in table.body] == rows["model_id"].to_list()
    assert [figures[0] for figures in table.figures[1:]] == rows["usage_share"].to_list()


def _rows(html: str) -> dict[str, dict[str, list[Any]]]:
    """Return the rows that the page gives its charts, by name, as columns; a column whose values recur, unfolded."""
    (found,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', html, re.DOTALL)
    return {
        name: {
            column: values if isinstance(values, list) else [values["of"][place] for place in values["at"]]
            for column, values in columns.items()
        }
        for name, columns in json.loads(found).items()
    }
