"""The report's page, picture and files, from made-up days in a real warehouse."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, product
from pathlib import Path
from typing import Any

import altair
import jsonschema
import polars as pl
import pytest
import vl_convert

from orpipeline.archive import Archive
from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.errors import MissingDaysError, NotPublishedError, StoreError
from orpipeline.report import page as report_page
from orpipeline.report import picture, wording
from orpipeline.report.certainty import unknown_group
from orpipeline.report.charts import movers
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import PAGE, author_slot, page_variables
from orpipeline.report.compiled import compile_page_charts, page_charts, page_specs
from orpipeline.report.data import ReportData, read_report_data
from orpipeline.report.files import write_report
from orpipeline.report.history import leaders
from orpipeline.report.page import render_page
from orpipeline.report.periods import DrawnDay, drawn_days, periods
from orpipeline.report.ranking import model_rows, task_rows
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.report_data import (
    NEWEST,
    Report,
    days_before,
    demo_warehouse,
    hostile_warehouse,
    long_warehouse,
    rows_of,
    series_of,
    warehouse_of,
)

MISSING = [date(2026, 9, 14), date(2026, 9, 20), date(2026, 9, 21)]
TWO_MEGABYTES = 2_000_000


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


def test_every_chart_matches_vega_lites_schema(month_data: ReportData) -> None:
    file = Path(altair.__file__).parent / "vegalite" / "v6" / "schema" / "vega-lite-schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    specs = [spec for forms in page_specs().values() for spec in forms.values()]
    specs += [picture.picture(month_data), picture.card(month_data)]
    for spec in specs:
        assert spec["layer"]
        assert [jsonschema.exceptions.best_match([error]).message for error in validator.iter_errors(spec)] == []
    assert not validator.is_valid(specs[0] | {"height": "tall"})


def test_the_stored_charts_are_the_compiled_ones() -> None:
    assert page_charts() == compile_page_charts(), "python -m orpipeline.report.compiled > .../vega/charts.json"


def test_the_pages_vega_is_the_one_that_the_charts_are_compiled_for() -> None:
    vega = (Path(report_page.__file__).parent / "vega" / "vega.min.js").read_text(encoding="utf-8")
    assert f't.version="{vl_convert.get_vega_version()}"' in vega


def test_every_column_of_percentages_has_one_number_of_decimals(month_page: str) -> None:
    page = Report(month_page)
    shown = [cell for table in page.tables for cells in table.body for cell in cells if cell.endswith(("%", "pp"))]
    assert len(shown) > 1000
    assert all(re.fullmatch(r"[+\N{MINUS SIGN}<]?\d+\.\d(%|\N{NO-BREAK SPACE}pp)", cell) for cell in shown)
    drawn = [
        text
        for rows in rows_of(month_page).values()
        for name in ("share_text", "upper_text", "usage_text")
        for text in rows.get(name, [])
        if text
    ]
    assert all(re.fullmatch(r"<?\d+\.\d%", text) for text in drawn)


def test_the_task_mix_and_each_tasks_models_match_the_warehouse(month: Warehouse, month_page: str) -> None:
    page = Report(month_page)
    tasks = month.read("task_classifications", since=NEWEST)
    mixed = {
        cells[0]: figures
        for cells, figures in zip(page.table("mix-table").body, page.table("mix-table").figures[1:], strict=True)
    }
    for row in tasks.iter_rows(named=True):
        assert mixed[row["display_name"]][:2] == [row["usage_share"], row["token_share"]]
        models = month.read("task_models", since=NEWEST).filter(tag=row["tag"]).sort("position")
        table = page.table("task", task=row["tag"])
        assert [cells[1] for cells in table.body[:-1]] == models["model_id"].to_list()
        figures = models.select("tag_usage_share", "tag_token_share")
        assert table.figures[1:-1] == [list(pair) for pair in figures.iter_rows()]
        assert table.figures[-1][0] == pytest.approx(max(0, 1 - models["tag_usage_share"].sum()), abs=1e-6)


def test_changes_newcomers_and_departures_match_the_views(month: Warehouse, month_page: str) -> None:
    page = Report(month_page)
    trends = month.read("model_trends", since=NEWEST).filter(scope="all")
    fresh = trends.filter(pl.col("first_seen") > NEWEST - timedelta(days=7))["model_id"].to_list()
    assert {cells[0] for cells in page.table("newcomers").body} == set(fresh)
    board = {cells[2]: cells[6] for cells in page.table("board", scope="all").body}
    assert "Since 29 Sep" in page.table("board", scope="all").rows[0]
    for row in trends.iter_rows(named=True):
        change = row["usage_share_change_7d"]
        assert board[row["model_id"]] == ("new" if change is None else wording.points(change))
    lately = month.read("model_leaderboard", since=NEWEST - timedelta(days=7)).filter(scope="all")
    gone = set(lately["model_id"]) - set(trends["model_id"])
    assert {cells[0] for cells in page.table("departed").body} == gone != set()


def test_a_newcomers_move_is_at_least_what_no_unlisted_model_could_have_had(tmp_path: Path) -> None:
    then = NEWEST - timedelta(days=7)
    # A week before, an unlisted model had at most 0.05; now it has at most 0.1.
    models = {then: {"a/x": 0.4, "b/gone": 0.5, "c/low": 0.05}, NEWEST: {"a/x": 0.42, "d/new": 0.3, "c/low": 0.1}}
    data = read_report_data(
        warehouse_of(
            tmp_path,
            {day: sample_response(day, [Task("code:debugging", models=listed)]) for day, listed in models.items()},
        )
    )
    moves = [(move.model_id, move.kind, round(move.change, 6)) for move in data.moves]
    assert moves == [
        ("b/gone", "gone", -0.4),
        ("d/new", "new", 0.25),
        ("c/low", "listed", 0.05),
        ("a/x", "listed", 0.02),
    ]
    table = Report(render_page(data)).table("movers-table")
    points = [wording.points(change) for change in (0.25, 0.05, 0.02, -0.4)]
    assert [cells[2] for cells in table.body] == points
    assert [cells[3] for cells in table.body] == ["new, at least", "", "", "gone, at least"]
    assert f"The largest change of an attributed share since 29 Sep is gone: gone, at least {points[-1]}" in " ".join(
        Report(render_page(data)).text.split(" ")
    ).replace("\n", " ")


def test_a_model_that_returns_is_back_and_not_new(tmp_path: Path) -> None:
    listed = {10: {"a/x": 0.4, "b/back": 0.3}, 7: {"a/x": 0.4}, 0: {"a/x": 0.4, "b/back": 0.3, "c/new": 0.2}}
    responses = {
        NEWEST - timedelta(days=n): sample_response(NEWEST - timedelta(days=n), [Task("code:debugging", models=m)])
        for n, m in listed.items()
    }
    data = read_report_data(warehouse_of(tmp_path, responses))
    page = Report(render_page(data))
    board = {cells[2]: cells[6] for cells in page.table("board", scope="all").body}
    assert (board["b/back"], board["c/new"]) == ("back", "new")
    assert [cells[0] for cells in page.table("newcomers").body] == ["c/new"]


def test_without_a_change_the_page_says_so(tmp_path: Path) -> None:
    week_before = NEWEST - timedelta(days=7)
    responses = {
        day: sample_response(day, [Task("code:debugging", models={"a/x": 0.5})]) for day in (week_before, NEWEST)
    }
    text = " ".join(Report(render_page(read_report_data(warehouse_of(tmp_path, responses)))).text.split())
    assert "share changed between 29 Sep 2026 and 6 Oct 2026" in text


def test_a_day_that_is_missing_is_a_gap_in_the_series_and_in_the_tables(month_page: str) -> None:
    for measure in ("usage", "token"):
        history = Report(month_page).table("history", measure=measure, kind="models")
        assert [cells for cells in history.body if cells[0] == "2026-09-14"] == [["2026-09-14", "missing"]]
    past = series_of(month_page)
    missing = [past["days"].index(day.isoformat()) for day in MISSING]
    assert [index for index, known in enumerate(past["known"]) if not known] == missing
    for kind in ("models", "authors", "macros"):
        for series in past[kind]["series"]:
            first, *shares = series["usage"]
            assert all(shares[index - first] is None for index in missing if 0 <= index - first < len(shares))


def test_the_history_shows_those_who_led_in_any_period() -> None:
    early, late, low = [0, *[9] * 100, *[0] * 100], [100, *[8] * 100], [0, *[2] * 200]
    others = [[0, *[0, 1] * 100] for _ in range(30)]
    assert [len(points) for points in periods(200)] == [16, 17, 17] * 4
    assert leaders([low, early, late, *others], 200)[:2] == [1, 2]
    assert len(leaders([low, early, late, *others], 200)) <= 12


def test_with_one_day_the_page_leaves_out_what_needs_a_second_one(one_day: ReportData) -> None:
    page = Report(render_page(one_day))
    text = " ".join(page.text.split())
    assert "This is the first recorded day. The history appears with the second day, and the changes appear" in text
    assert len(page.table("board", scope="all").rows[0]) == len(page.table("board", scope="all").body[0]) == 10
    charts = {given["data-chart"] for _, given in page.tags if "data-chart" in given}
    assert charts == {"models", "authors", "mix", "task_models", "task_authors"}
    assert "movers" not in {given.get("id") for _, given in page.tags}


def test_an_earlier_day_is_shown_as_it_was_then(month: Warehouse) -> None:
    day = date(2026, 9, 25)
    data = read_report_data(month, day)
    assert (data.as_of, max(data.days), max(data.history["as_of"])) == (day, day, day)
    board = Report(render_page(data)).table("board", scope="all")
    rows = month.read("model_leaderboard", since=day, until=day).filter(scope="all")
    assert {cells[2] for cells in board.body} == set(rows["model_id"])
    assert "19 to 25 Sep 2026" in Report(render_page(data)).text


def test_a_missing_day_and_an_empty_warehouse_raise_an_error(month: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(MissingDaysError, match=r"no rows of 2026-09-14.*2026-09-07 to 2026-10-06"):
        read_report_data(month, MISSING[0])
    with pytest.raises(NotPublishedError, match="no days yet"):
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
    assert "Window7 days, 30 Sep to 6 Oct 2026" in text
    assert page.table("warnings").body == [
        ["6 Oct 2026", "sorted (WARN)", "task_classifications.usage_share [math]", "0.1 <b>"]
    ]


def test_only_made_up_figures_are_marked_as_demo(month_page: str, tmp_path: Path) -> None:
    assert "<strong>DEMO</strong>" in month_page
    assert "<title>DEMO: " in month_page
    imported = warehouse_of(
        tmp_path, {NEWEST: sample_response(NEWEST, [Task("code:debugging", models={"a/x": 0.5})])}, origin="import"
    )
    page = render_page(read_report_data(imported))
    assert "demo" not in re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL).lower()
    assert "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0." in page


def test_an_unknown_fetch_time_is_not_shown_as_a_time(one_day: ReportData) -> None:
    assert "Fetched7 Oct 2026, 12:00:00 UTC" in Report(render_page(one_day)).text
    imported = replace(one_day, snapshot={**one_day.snapshot, "fetched_at": None})
    assert "Fetchedat an unknown time" in Report(render_page(imported)).text


def test_the_headline_names_its_share_and_window_a_tie_and_a_certain_lead(tmp_path: Path) -> None:
    tied = warehouse_of(
        tmp_path / "tied", {NEWEST: sample_response(NEWEST, [Task("code:debugging", models={"a/x": 0.3, "b/y": 0.3})])}
    )
    text = " ".join(Report(render_page(read_report_data(tied))).text.split())
    assert "2 models lead the lists with 30.0% of classified requests each, 30 Sep to 6 Oct 2026" in text
    assert (
        "They are x, y; their order is not known. By tokens, 2 models are first with 30.0% each; their order is" in text
    )
    sure = warehouse_of(
        tmp_path / "sure", {NEWEST: sample_response(NEWEST, [Task("code:debugging", models={"a/x": 0.5, "b/y": 0.3})])}
    )
    text = " ".join(Report(render_page(read_report_data(sure))).text.split(" ")).replace("\n", " ")
    assert "x leads with 50.0% of classified requests, 30 Sep to 6 Oct 2026" in text
    assert "first place is certain. Its attributed share is 20.0\N{NO-BREAK SPACE}pp larger than that of y" in text
    assert "attribute 80.0% of requests and 80.0% of tokens to 2 models" in text


def test_a_lead_is_not_certain_while_an_unlisted_model_can_have_more(tmp_path: Path) -> None:
    def tokens(data: dict[str, Any]) -> None:
        for model, share in zip(data["classifications"][0]["models"], (0.1, 0.3), strict=True):
            model["tag_token_share"] = share

    body = json.loads(sample_response(NEWEST, [Task("code:debugging", models={"a/one": 0.3, "b/two": 0.2})]))
    tokens(body["data"])
    text = Report(render_page(read_report_data(warehouse_of(tmp_path, {NEWEST: json.dumps(body).encode()})))).text
    text = " ".join(text.split())
    assert "By tokens, two is first with 30.0%, but a model on no list could have up to 60.0%." in text
    assert "No listed model is certainly above it, so an unlisted one can be ahead of any." in text


def test_a_lead_that_rounding_or_unlisted_requests_could_turn_is_not_called_certain(tmp_path: Path) -> None:
    near = {"a/x": 0.301, "b/y": 0.3, "c/z": 0.2}
    warehouse = warehouse_of(tmp_path, {NEWEST: sample_response(NEWEST, [Task("code:debugging", models=near)])})
    # Only x's own rounding and that of the tag's share are open, so the two intervals overlap.
    page = render_page(read_report_data(warehouse))
    text = " ".join(Report(page).text.split())
    best = warehouse.read("model_leaderboard").filter(scope="all", model_id="a/x")
    assert (best["usage_rank_worst"][0] > 1) == ("Its first place is not certain" in text)
    assert best["usage_rank_worst"][0] == 2


@pytest.mark.parametrize(
    ("ranks", "group"),
    [
        ([(1, 1), (2, 2), (3, 3)], range(0)),
        ([(1, 2), (1, 2), (3, 3), (4, 7), (4, 7), (4, 7), (4, 7)], range(3, 7)),
        ([(1, 3), (1, 3), (1, 3)], range(3)),
        ([(1, 1), (1, 1), (3, 3)], range(0)),  # a certain tie
        ([(1, 1), (2, 4), (2, 4), (2, 4), (5, 5)], range(1, 4)),  # the last rank is certain
        ([(1, 2), (1, 3), (2, 3)], range(3)),
        ([], range(0)),
    ],
)
def test_the_divider_is_before_the_largest_group_of_unknown_order(ranks: list[tuple[int, int]], group: range) -> None:
    assert unknown_group(ranks) == group
    assert all(best < worst for best, worst in (ranks[index] for index in group))


def test_the_chart_has_the_divider_and_possible_ranks_in_place_of_unknown_ones(month_data: ReportData) -> None:
    for scope, measure in product(("all", "code"), ("usage", "token")):
        rows = [row for row in model_rows(month_data, PAGE) if (row["scope"], row["measure"]) == (scope, measure)]
        board = month_data.leaderboard.filter(scope=scope).sort(
            f"{measure}_share", "model_id", descending=[True, False]
        )
        ranks = board.select(f"{measure}_rank_best", f"{measure}_rank_worst").rows()
        bars = [row for row in rows if row["kind"] == "bar"]
        assert [row["ranks"] for row in bars] == [wording.rank_range(*of) for of in ranks[:20]]
        dividers = {place: row["name"] for place, row in enumerate(rows) if row["kind"] == "divider"}
        group = unknown_group(ranks)
        assert dividers == {group.start: f"The order of the next {len(group)} models is not known"}
        assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))


def test_within_a_task_only_equal_shares_have_an_unknown_order_and_by_tokens_unlisted_models_can_lead(
    tmp_path: Path,
) -> None:
    warehouse = warehouse_of(
        tmp_path,
        {NEWEST: sample_response(NEWEST, [Task("code:debugging", models={"a/x": 0.4, "b/y": 0.2, "c/z": 0.2})])},
    )
    rows = task_rows(read_report_data(warehouse), PAGE)
    by_requests = [(row["kind"], row.get("ranks")) for row in rows if row["measure"] == "usage"]
    pair = "2\N{EN DASH}3"
    assert by_requests == [("bar", "1"), ("bar", pair), ("bar", pair), ("rest", "")]
    # The list leaves 20% of the tokens, which one unlisted model can have.
    by_tokens = [(row["kind"], row.get("ranks")) for row in rows if row["measure"] == "token"]
    assert by_tokens == [("bar", "1"), ("divider", None), ("bar", f"{pair}+"), ("bar", f"{pair}+"), ("rest", "")]


def test_the_files_are_named_after_the_day_and_the_clock_decides_which_days_are_lost(tmp_path: Path) -> None:
    days = [NEWEST - timedelta(days=2), NEWEST]
    warehouse, archive = demo_warehouse(tmp_path, days), Archive(tmp_path / "raw")
    noon, reports = datetime(2026, 10, 7, 12, tzinfo=UTC), tmp_path / "reports"
    newest = write_report(reports, archive, warehouse, day=None, now=noon)
    page = (reports / "leaderboard.html").read_text(encoding="utf-8")
    assert (newest.as_of, newest.page) == (NEWEST, reports / "leaderboard.html")
    assert newest.page_bytes == len(page.encode())
    assert (newest.picture, newest.card) == (reports / "leaderboard.png", reports / "leaderboard-card.png")
    for picture_file in (reports / "leaderboard.png", reports / "leaderboard-card.png"):
        assert picture_file.read_bytes().startswith(b"\x89PNG")
    assert newest.citation in page
    assert "Lost days5 Oct 2026." in Report(page).text
    later = write_report(reports, archive, warehouse, day=days[0], now=noon + timedelta(days=2))
    assert (later.as_of, later.page) == (days[0], reports / "leaderboard-2026-10-04.html")
    assert "Lost days5 Oct 2026, 7 Oct 2026." in Report(Path(later.page).read_text(encoding="utf-8")).text
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"Cannot write .*ORPIPELINE_REPORTS"):
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
    assert picture.render_picture(month_data) == picture.render_picture(month_data)


@pytest.mark.slow
def test_four_hundred_days_and_ten_years_stay_below_two_megabytes(tmp_path: Path) -> None:
    data = read_report_data(long_warehouse(tmp_path, 3650))
    page = render_page(data)
    assert len(page.encode()) < TWO_MEGABYTES
    assert "each point covers 7 days" in " ".join(page.split())
    drawn = drawn_days(data.days, data.as_of)
    assert len(drawn) == 522
    assert drawn[-1] == DrawnDay(NEWEST, True)
    for measure in ("usage", "token"):
        history = Report(page).table("history", measure=measure, kind="models")
        assert [cells[0] for cells in history.body] == [str(one.day) for one in reversed(drawn)]
    assert "Models by share of requests, one day of each 7;" in Report(page).text
    year = render_page(read_report_data(demo_warehouse(tmp_path / "year", days_before(400))))
    assert len(year.encode()) < TWO_MEGABYTES


def test_a_week_is_drawn_as_its_newest_day_and_a_missing_week_as_a_gap() -> None:
    days = [day for day in days_before(500) if not NEWEST - timedelta(days=20) < day <= NEWEST - timedelta(days=7)]
    assert drawn_days(days, NEWEST)[-4:] == [
        DrawnDay(NEWEST - timedelta(days=21), True),
        DrawnDay(NEWEST - timedelta(days=20), True),  # the newest of the week that ends 14 days before
        DrawnDay(NEWEST - timedelta(days=7), False),
        DrawnDay(NEWEST, True),
    ]


def test_the_pictures_are_pngs_of_a_sensible_size(month_data: ReportData, one_day: ReportData) -> None:
    for data in (month_data, one_day):
        for png, expected in ((picture.render_picture(data), 1216), (picture.render_card(data), 1200)):
            assert png.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", png[16:24])
            assert width == expected
            assert height == 675 if width == 1200 else 900 <= height <= 2000
            assert 20_000 < len(png) < 1_000_000


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.1087, "10.9%"), (0.0099, "1.0%"), (0.0, "0.0%"), (0.0004, "<0.1%"), (0.0005, "0.1%"), (1.0, "100.0%")],
)
def test_shares_have_one_decimal(share: float, text: str) -> None:
    assert wording.percent(share) == text


def test_changes_are_percentage_points_with_their_sign() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert wording.points(0.0123) == f"+1.2{space}pp"
    assert wording.points(-0.0042) == f"\N{MINUS SIGN}0.4{space}pp"
    assert wording.points(-0.0002) == wording.points(0.1 + 0.2 - 0.3) == f"0.0{space}pp"


@pytest.mark.parametrize(
    ("last", "days", "text"),
    [
        (date(2026, 11, 22), 7, "16 to 22 Nov 2026"),
        (date(2026, 10, 6), 7, "30 Sep to 6 Oct 2026"),
        (date(2027, 1, 4), 7, "29 Dec 2026 to 4 Jan 2027"),
        (date(2026, 10, 6), 1, "6 Oct 2026"),
    ],
)
def test_a_window_is_named_by_its_first_and_last_day(last: date, days: int, text: str) -> None:
    assert wording.window_text(last, days) == text


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
def test_an_authors_colour_is_never_a_macro_categorys(theme: str) -> None:
    colours = _page_colours(theme)
    authors, macros = (
        [c for name, c in colours.items() if name.startswith(f"--{kind}-")] for kind in ("author", "macro")
    )
    for author, macro in product(authors, macros):
        assert _difference(_lab(author, VISIONS["normal"]), _lab(macro, VISIONS["normal"])) >= 10, (author, macro)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_mark_contrasts_with_the_background(month_data: ReportData, theme: str) -> None:
    colours = _page_colours(theme)
    marks = {name: colour for name, colour in colours.items() if name.startswith(("--author-", "--macro-", "--muted"))}
    assert len(marks) == 17
    assert {name: colour for name, colour in marks.items() if _contrast(colour, colours["--paper"]) < 3} == {}
    rows = [*model_rows(month_data, PAGE), *task_rows(month_data, PAGE)]
    drawn = {row["colour"] for row in rows if row["kind"] != "divider"}
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
    layers: list[Spec] = movers.movers(PAGE, narrow=True)["layer"]
    (zero,) = (layer["mark"] for layer in layers if layer["mark"]["type"] == "tick")
    (bar,) = (layer["mark"] for layer in layers if layer["mark"]["type"] == "bar")
    texts = [layer["mark"] for layer in layers if layer["mark"]["type"] == "text"]
    assert zero["yOffset"] == bar["yOffset"]
    assert texts
    assert all(text["dy"] + text["fontSize"] / 2 < zero["yOffset"] - zero["size"] / 2 for text in texts)


def _page_colours(theme: str) -> dict[str, str]:
    """Return the page's CSS variables with their colour in a theme."""
    css = (Path(report_page.__file__).parent / "html" / "page.css").read_text(encoding="utf-8")
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
