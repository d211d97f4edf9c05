"""The report's page and files, from made-up days in a real warehouse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orpipeline.errors import MissingDaysError, NotPublishedError
from orpipeline.report.certainty import floor_points
from orpipeline.report.data import ReportData, drawn_days
from orpipeline.report.files import Written, write_report
from orpipeline.report.history import History, spread
from orpipeline.report.page import render_embeds
from orpipeline.report.wording import possible_points
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.report_data import (
    NEWEST,
    Page,
    days_before,
    demo_warehouse,
    listing,
    page_of,
    report_of,
    warehouse_of,
)

MISSING = [date(2026, 9, 14), date(2026, 9, 20), date(2026, 9, 21)]


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """30 demo days, three of which are missing."""
    return demo_warehouse(tmp_path_factory.mktemp("month"), [day for day in days_before(30) if day not in MISSING])


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return report_of(demo_warehouse(tmp_path_factory.mktemp("day"), [NEWEST]))


@pytest.mark.parametrize(
    ("models", "sentences"),
    [
        (
            {"a/x": 0.5, "b/y": 0.3},
            "On OpenRouter, x (a) handled at least 50.0% of classified requests, 30 Sep to 6 Oct 2026. "
            "First place is certain. The lists attribute 80.0% of classified requests to 2 models. "
            "A model on no list has at most 20.0%.",
        ),
        (
            {"a/x": 0.3, "b/y": 0.3},
            "On OpenRouter, x (a) and y (b) each handled at least 30.0% of classified requests, 30 Sep to 6 Oct 2026. "
            "First place is not certain: it could be y, or a model on no list.",
        ),
        (
            {"a/x": 0.3},
            "First place is certain among the listed models only. The lists attribute 30.0%",
        ),
    ],
)
def test_the_headline_says_what_is_certain(tmp_path: Path, models: dict[str, float], sentences: str) -> None:
    assert sentences in Page(page_of(listing(tmp_path, {0: models}))).text


def test_a_change_that_may_be_noise_is_not_named_and_a_departure_is_at_least_what_it_must_be(tmp_path: Path) -> None:
    week_before = {"a/x": 0.4, "b/gone": 0.5, "c/low": 0.05}
    page = Page(page_of(listing(tmp_path, {7: week_before, 0: {"a/x": 0.401, "d/new": 0.3, "c/low": 0.1}})))
    assert [cells[:2] for cells in page.table("changes").body] == [
        ["gone b", "lost at least 39.8 points"],  # 0.9995 x 0.4995 - 1.0005 x 0.1005
        ["new d", "gained at least 24.8 points"],  # 0.9995 x 0.2995 - 1.0005 x 0.0505
        ["low c", "gained at least 4.8 points"],
    ]
    assert "1 more change may be noise" in page.text
    assert "On the lists now, but not on 29 Sep: new." in page.text
    assert "On the lists on 29 Sep, but not now: gone." in page.text


def test_points_are_rounded_so_that_at_least_and_possible_hold() -> None:
    assert [floor_points(change) for change in (0.0129, 0.001, 0.00099, 0.0000423)] == [1.2, 0.1, 0.09, 0.004]
    assert possible_points(-0.0004, 0.0004) == "\N{MINUS SIGN}0.1 to +0.1"
    assert possible_points(0.0004, 0.0129) == "+0.04 to +1.3"  # no bound of a certain change is shown as 0


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ([0], "Changes compare with the day 7 days before, 29 Sep, which is before the first recorded day."),
        ([9, 0], "Changes compare with the day 7 days before, 29 Sep, which is missing."),
        ([7, 0], "No share has certainly changed since 29 Sep: each of 1 change may be noise."),
    ],
)
def test_without_a_certain_change_the_page_says_why(tmp_path: Path, days: Sequence[int], text: str) -> None:
    assert text in Page(page_of(listing(tmp_path, {day: {"a/x": 0.5} for day in days}))).text


def test_a_model_has_the_same_name_on_all_days_or_a_readable_one(tmp_path: Path) -> None:
    data = listing(tmp_path, {1: {"a/x-20260301": 0.5}, 0: {"a/x-20260301": 0.4, "a/x-20260901:free": 0.3}})
    assert [cells[1] for cells in Page(page_of(data)).table("ranking").body if len(cells) > 1] == [
        "x-20260301 a",
        "x-20260901:free a",
    ]
    named = replace(data, names={"a/x-20260301": "X"})
    assert "On OpenRouter, X (a) handled at least 40.0%" in Page(page_of(named)).text


def test_the_history_has_a_point_a_week_before_the_last_120_days_and_gaps_for_missing_ones() -> None:
    days = [day for day in days_before(400) if not 129 <= (NEWEST - day).days <= 135]
    drawn = drawn_days(days, NEWEST)
    assert drawn[-120:] == days_before(120)
    assert drawn[-121] == NEWEST - timedelta(days=120)
    assert {(after - before).days for before, after in pairwise(drawn[:-120])} <= {5, 6, 7, 8, 9}
    assert len(drawn) == 120 + 40
    assert len([day for day in drawn if day not in set(days)]) == 0
    assert drawn_days([NEWEST - timedelta(days=2), NEWEST], NEWEST) == days_before(3)


def test_a_line_ends_where_its_model_leaves_the_lists_and_breaks_at_a_missing_day(tmp_path: Path) -> None:
    listed = {6: {"a/x": 0.4, "b/y": 0.3}, 5: {"a/x": 0.4, "b/y": 0.6}, 3: {"a/x": 0.4, "b/y": 0.3}, 0: {"a/x": 0.4}}
    data = listing(tmp_path, listed)
    assert History(data).lines() == {
        "x": [0.4, 0.4, None, 0.4, None, None, 0.4],
        "y": [0.3, 0.6, None, 0.3, None, None, None],
    }
    circles = [given for tag, given in Page(page_of(data)).tags if tag == "circle"]
    assert [given["class"] for given in circles] == ["end c1"]
    assert spread([10, 12, 100], 0, 104) == [10, 26, 100]
    assert spread([98, 99, 100], 0, 104) == [72, 88, 104]


def test_with_one_day_the_page_says_when_the_history_appears(one_day: ReportData) -> None:
    page = Page(page_of(one_day))
    assert "The history appears with the second day, and the changes with the eighth." in page.text
    assert len(page.table("ranking").rows[0]) == 5
    assert page.data["history"] is None


def test_the_page_shows_the_source_of_its_figures(month: Warehouse) -> None:
    data = report_of(month)
    page = Page(page_of(data))
    for shown in (data.snapshot["citation"], data.snapshot["sha256"], "revision 1, fetched 7 Oct 2026, 12:00:00 UTC"):
        assert shown in page.text
    assert "missing: 2026-09-14, 2026-09-20 to 2026-09-21" in page.text
    assert "on 1 Nov 2026, 00:00:00 UTC" in page.text
    unknown = replace(data, snapshot={**data.snapshot, "fetched_at": None})
    assert "fetched at an unknown time" in Page(page_of(unknown)).text


def test_only_made_up_figures_are_marked_as_demo(one_day: ReportData, tmp_path: Path) -> None:
    assert "DEMO: OpenRouter task shares" in page_of(one_day)
    assert all("DEMO: made-up data" in page for page in render_embeds(one_day).values())
    real = listing(tmp_path, {0: {"a/x": 0.5}})
    assert "demo" not in Page(page_of(real)).everything.lower()
    links = {given.get("href") for tag, given in Page(page_of(real)).tags if tag == "a"}
    assert {"https://openrouter.ai/rankings", "https://creativecommons.org/licenses/by/4.0/"} <= links
    for page in render_embeds(real).values():
        assert "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0." in page


def test_other_programs_learn_what_the_page_is(one_day: ReportData) -> None:
    html = page_of(one_day)
    linked = json.loads(html.split('<script type="application/ld+json">')[1].split("</script>")[0])
    assert (linked["@type"], linked["temporalCoverage"]) == ("Dataset", "2026-09-30/2026-10-06")
    described = {given.get("property"): given.get("content") for tag, given in Page(html).tags if tag == "meta"}
    assert described["og:image"] == "2026-10-06/card.png"
    assert str(described["og:description"]).startswith("In the demo")


def test_pages_are_small(one_day: ReportData, month: Warehouse) -> None:
    assert len(page_of(one_day).encode()) < 150_000
    assert len(page_of(report_of(month)).encode()) < 350_000
    assert all(len(page.encode()) < 40_000 for page in render_embeds(report_of(month)).values())
    days = days_before(400)
    drawn = pl.DataFrame({"as_of": drawn_days(days, NEWEST)})
    frames: dict[str, Any] = {
        name: drawn.join(getattr(one_day, name).drop("as_of"), how="cross") for name in ("history", "macro_history")
    }
    year = replace(one_day, days=days, drawn=drawn["as_of"].to_list(), **frames)
    assert len(page_of(year).encode()) < 600_000


def test_a_missing_day_and_an_empty_warehouse_raise_an_error(month: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(MissingDaysError, match=r"no rows of 2026-09-14.*2026-09-07 to 2026-10-06"):
        report_of(month, MISSING[0])
    with pytest.raises(NotPublishedError, match="no days yet"):
        report_of(Warehouse(tmp_path / "none.duckdb"))


# The files


def _write(folder: Path, warehouse: Warehouse, day: date | None = None, hour: int = 0) -> Written:
    with warehouse.reading() as tables:
        return write_report(folder, tables, day=day, now=datetime(2026, 11, 1, hour, tzinfo=UTC))


def test_a_days_page_is_written_once_and_the_newest_one_links_to_all(tmp_path: Path, month: Warehouse) -> None:
    for day in (date(2026, 10, 3), date(2026, 10, 5)):
        assert _write(tmp_path, month, day).page == tmp_path / str(day) / "index.html"
    assert {path.name for path in tmp_path.iterdir()} == {"2026-10-03", "2026-10-05"}
    written = _write(tmp_path, month)
    assert (written.page, written.as_of) == (tmp_path / "index.html", NEWEST)
    names = {str(path.relative_to(tmp_path / "2026-10-06")) for path in (tmp_path / "2026-10-06").rglob("*.*")}
    embeds = {f"embed/{name}.html" for name in ("ranking", "tasks", "changes", "history")}
    assert names == embeds | {"index.html", "card.png", "leaderboard.csv", "tasks.csv", "report.json"}
    assert (tmp_path / "2026-10-06" / "card.png").read_bytes()[16:24] == bytes.fromhex("000004b0000002a3")
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert (latest["as_of"], latest["page"]) == ("2026-10-06", "2026-10-06/index.html")

    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert _write(tmp_path, month, hour=9).page == written.page
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert {path.name for path in after if after[path] != before[path]} <= {"index.html"}
    assert after[tmp_path / "2026-10-06" / "index.html"] == before[tmp_path / "2026-10-06" / "index.html"]
    links = [given.get("href") for tag, given in Page(after[tmp_path / "index.html"].decode()).tags if tag == "a"]
    assert {f"2026-10-0{n}/index.html" for n in (3, 5, 6)} <= set(links)
    dated = Page((tmp_path / "2026-10-06" / "index.html").read_text()).tags
    assert [given["href"] for tag, given in dated if given.get("rel") == "prev"] == ["../2026-10-05/index.html"]


def test_another_revision_or_an_imported_day_before_it_writes_a_days_page_again(tmp_path: Path) -> None:
    def written(name: str, *days: date, change: Any = None) -> str:
        bodies = {day: sample_response(day, change=change) for day in days}
        _write(tmp_path / "reports", warehouse_of(tmp_path / name, bodies), hour=int(name))
        return str(json.loads((tmp_path / "reports" / str(NEWEST) / "report.json").read_text())["written_at"])

    first = written("1", NEWEST)
    assert written("2", NEWEST) == first
    assert written("3", NEWEST - timedelta(days=7), NEWEST) == "2026-11-01T03:00:00+00:00"
    assert written("4", NEWEST) == "2026-11-01T03:00:00+00:00"

    def restated(data: dict[str, Any]) -> None:
        data["classifications"][0]["display_name"] = "Another"

    assert written("5", NEWEST, change=restated) == "2026-11-01T05:00:00+00:00"
