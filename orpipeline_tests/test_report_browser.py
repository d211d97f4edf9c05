"""The report's page in a real browser, opened from disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: these tests open the report in a browser")

from playwright.sync_api import Browser, Page, sync_playwright

from orpipeline.report.data import read_report_data
from orpipeline.report.page import render_page
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import one_tag_answer
from orpipeline_tests.hostile import VALID
from orpipeline_tests.report_data import (
    NEWEST,
    days_before,
    demo_warehouse,
    hostile_warehouse,
    long_warehouse,
    warehouse_of,
)

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"Chromium is not installed at {CHROMIUM}"),
]

WIDTHS = {"wide": 1440, "narrow": 390}
SMALLEST = 320
SCOPES = ["all", "code", "data", "agent", "general"]
Open = Callable[..., "Opened"]


class Opened:
    """A page in the browser, and its complaints: console messages, errors, and requests beyond its own file."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self._note(request.url, file.as_uri()))
        page.goto(file.as_uri())
        page.locator("html[data-ready=yes]").wait_for()

    def _note(self, url: str, own: str) -> None:
        # The page's icon is an empty `data:` URL.
        if url != own and not url.startswith("data:"):
            self.complaints.append(f"request: {url}")

    def choose(self, name: str, value: str) -> None:
        """Click a switch's label, as a person does."""
        self.page.locator(f"label:has(input[name={name}][value={value}])").click()

    def shown(self, chart: str) -> str:
        """Return the text that a chart shows."""
        texts = self.page.locator(f"[data-chart={chart}] svg text").all_text_contents()
        return "\n".join(texts)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=os.fspath(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    contexts = []

    def opened(file: Path, width: str | int = "wide", scheme: str = "light", **options: Any) -> Opened:
        size = {"width": width if isinstance(width, int) else WIDTHS[width], "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **options)  # type: ignore[arg-type]
        contexts.append(context)
        return Opened(context.new_page(), file)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    days = [day for day in days_before(30) if day not in (date(2026, 9, 14), date(2026, 9, 20))]
    return demo_warehouse(tmp_path_factory.mktemp("month"), days)


@pytest.fixture(scope="module")
def month_file(month: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(month, tmp_path_factory.mktemp("page"))


def _written(warehouse: Warehouse, folder: Path) -> Path:
    file = folder / "report.html"
    file.write_text(render_page(read_report_data(warehouse)), encoding="utf-8")
    return file


def _percent(share: float) -> str:
    return f"{share:.{1 if round(100 * share, 2) >= 1 else 2}%}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_switch_shows_the_warehouses_figures(
    month: Warehouse, month_file: Path, open_page: Open, width: str, scheme: str
) -> None:
    opened = open_page(month_file, width, scheme)
    opened.page.locator("#leaderboard summary").click()
    leaderboard = month.read("model_leaderboard", since=NEWEST)
    for measure in ("token", "usage"):
        opened.choose("measure", measure)
        for scope in SCOPES:
            opened.choose("scope", scope)
            top = (
                leaderboard.filter(scope=scope).sort(f"{measure}_share", "model_id", descending=[True, False]).head(20)
            )
            texts = opened.shown("leaderboard").splitlines()
            for row in top.iter_rows(named=True):
                assert str(row[f"{measure}_rank"]) in texts
                assert _percent(row[f"{measure}_share"]) in texts
            visible = opened.page.locator("table.board:visible tbody tr td:nth-child(5) data")
            shares = leaderboard.filter(scope=scope).sort("usage_rank", "model_id")["usage_share"].to_list()
            assert visible.evaluate_all("all => all.map((one) => Number(one.value))") == shares
    assert opened.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_each_task_shows_its_models(month: Warehouse, month_file: Path, open_page: Open, width: str) -> None:
    opened = open_page(month_file, width)
    opened.page.locator("#tasks summary").click()
    models = month.read("task_models", since=NEWEST)
    tasks = month.read("task_classifications", since=NEWEST)
    assert opened.page.locator("#task option").count() == len(tasks)
    for task in tasks.iter_rows(named=True):
        opened.page.select_option("#task", task["tag"])
        listed = models.filter(tag=task["tag"]).sort("position")
        shown = opened.shown("task_models").splitlines()
        for share in listed["tag_usage_share"]:
            assert f"{share:.1%}" in shown
        assert "Not listed" in shown
        visible = opened.page.locator("table.task:visible")
        assert visible.count() == 1
        assert visible.locator("tbody th").all_text_contents()[:-1] == listed["model_id"].to_list()
        assert opened.page.locator("#tasks-caption .title:visible").text_content() == (
            f"{task['display_name']}: models by share of the task's requeststokens"
        )
    assert opened.complaints == []


def test_tables_behind_the_charts_open_and_follow_the_switches(month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file)
    for summary in opened.page.locator("summary").all():
        summary.click()
    for measure, scope in (("usage", "all"), ("token", "code")):
        opened.choose("measure", measure)
        opened.choose("scope", scope)
        assert opened.page.locator("table.board:visible").count() == 1
        assert opened.page.locator(f"[data-scope={scope}] table.board").is_visible()
        assert opened.page.locator(f"[data-measure={measure}] table.history").is_visible()
        assert opened.page.locator("table.history:visible").count() == 1
    assert opened.page.locator("table:visible:not(:has(caption))").count() == 0
    assert opened.page.locator("thead th:not([scope])").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(month_file: Path, open_page: Open, tmp_path: Path, width: str) -> None:
    for file in (month_file, _written(hostile_warehouse(tmp_path), tmp_path)):
        opened = open_page(file, width)
        for summary in opened.page.locator("summary").all():
            summary.click()
        opened.choose("measure", "token")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
        for chart in opened.page.locator("[data-chart]").all():
            outer, inner = chart.bounding_box(), chart.locator("svg").bounding_box()
            assert outer is not None
            assert inner is not None
            assert inner["width"] <= outer["width"] + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_names_stay_text(tmp_path: Path, open_page: Open, width: str) -> None:
    opened = open_page(_written(hostile_warehouse(tmp_path), tmp_path), width)
    page = opened.page
    page.locator("#leaderboard summary").click()
    assert page.locator("table.board:visible tbody th").all_text_contents()[:4] == VALID[:4]
    page.locator("[data-chart=leaderboard] svg").hover(position={"x": 60, "y": 50})
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert VALID[0] in (page.locator("#vg-tooltip-element").text_content() or "")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, b, i").count() == 0
    assert opened.complaints == []


def test_the_policy_runs_no_other_script_and_loads_nothing(month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file)
    opened.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = new Image();
            image.src = "http://127.0.0.1:9/x.png";
            document.body.append(image);
        }"""
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.hacked") is None
    assert len([text for text in opened.complaints if "Content Security Policy" in text]) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_every_control_is_reached_and_moved_by_keyboard(month_file: Path, open_page: Open, width: str) -> None:
    opened = open_page(month_file, width)
    page = opened.page
    reached: set[str] = set()
    focused = (
        "(e => e.name && e.type === 'radio' ? e.name : e.id || e.tagName + ':' + e.textContent)(document.activeElement)"
    )
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(focused))
    summaries = {f"SUMMARY:{text}" for text in page.locator("summary").all_text_contents()}
    assert {"measure", "scope", "theme", "task", *summaries} <= reached
    page.locator("input[name=scope][value=all]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=scope][value=code]").is_checked()
    assert page.locator("[data-scope=code]").first.is_visible()
    page.locator("input[name=measure][value=usage]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#leaderboard-caption [data-measure=token]").first.is_visible()
    page.locator("#leaderboard summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("table.board:visible").count() == 1
    assert page.locator("[data-scope] table.board").locator("xpath=..").first.get_attribute("tabindex") == "0"
    assert opened.complaints == []


def test_the_theme_follows_the_system_until_it_is_chosen(month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file, "wide", "dark")
    page = opened.page
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('[data-chart=leaderboard] svg text')).fill"
    dark = (page.evaluate(ground), page.evaluate(ink))
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"
    light = (page.evaluate(ground), page.evaluate(ink))
    assert all(one != other for one, other in zip(dark, light, strict=True))
    assert sum(map(int, light[0].removeprefix("rgb(").removesuffix(")").split(","))) > 700
    assert opened.complaints == []


def test_a_chart_is_redrawn_when_the_window_becomes_narrow(month_file: Path, open_page: Open) -> None:
    page = open_page(month_file).page
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("[data-chart=task_models][data-drawn=narrow]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", WIDTHS)
def test_one_day_and_ten_years_open_without_complaint(tmp_path: Path, open_page: Open, width: str) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "years").mkdir()
    one = open_page(_written(demo_warehouse(tmp_path / "day", [NEWEST]), tmp_path / "day"), width)
    assert one.page.locator("[data-chart] svg").count() == 3
    years = open_page(_written(long_warehouse(tmp_path / "years", 3650), tmp_path / "years"), width)
    assert years.page.locator("[data-chart] svg").count() == 5  # no share moved, so there are no movers
    assert one.complaints == years.complaints == []


def test_without_javascript_every_table_is_shown(browser: Browser, month_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(month_file.as_uri())
    assert page.locator("noscript").inner_text().startswith("The charts need JavaScript.")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("table:visible").count() == page.locator("table").count() == 5 + 1 + 2 + 3 + 29
    captions = page.locator("table:visible caption").all_inner_texts()
    assert len(captions) == len(set(captions)) == page.locator("table").count()
    assert page.locator("figure:visible, [data-chart]:visible, input:visible, select:visible").count() == 0
    context.close()


@pytest.mark.parametrize("width", [SMALLEST, *WIDTHS.values()])
def test_names_that_differ_only_at_their_end_differ_on_the_page(tmp_path: Path, open_page: Open, width: int) -> None:
    shares = {
        "deepseek/deepseek-v4-flash-20260423": 0.3,
        "deepseek/deepseek-v4-flash-20260731": 0.2,
        "nvidia/nemotron-3-ultra-550b-a55b:free": 0.1,
        "an-author-of-a-long-name/z": 0.1,
    }
    shares |= {f"a/n{number}": 0.02 for number in range(10)}
    warehouse = warehouse_of(tmp_path, {NEWEST: one_tag_answer(NEWEST, shares)})
    opened = open_page(_written(warehouse, tmp_path), width)
    for chart in ("leaderboard", "task_models"):
        texts = opened.shown(chart).splitlines()
        for end in ("0423", "0731", ":free"):
            assert any(text.endswith(end) for text in texts), (chart, end)
    if width == WIDTHS["wide"]:
        assert "nemotron-3-ultra-550b-a55b:free" in texts
    else:
        ranks = [text for text in opened.shown("leaderboard").splitlines() if text.startswith("rank ")]
        assert len(ranks) == len(shares)
        assert all(re.match(r"rank \d+(\N{EN DASH}\d+)? +· +\w", text) for text in ranks)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_current_choice_is_visible_with_forced_colours(month_file: Path, open_page: Open, scheme: str) -> None:
    page = open_page(month_file, "wide", scheme, forced_colors="active").page
    page.locator("#leaderboard summary").click()
    ground = "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    chosen = set(page.locator("input:checked + span").evaluate_all(ground))
    others = set(page.locator("input:not(:checked) + span").evaluate_all(ground))
    assert len(chosen) == 1
    assert chosen.isdisjoint(others)
    dots = set(page.locator("table.board:visible .dot").evaluate_all(ground))
    assert len(dots) > 3
    assert dots.isdisjoint(page.locator("body").evaluate_all(ground))


def test_in_print_nothing_is_cut_off_and_each_page_shows_demo(month_file: Path, open_page: Open) -> None:
    page = open_page(month_file).page
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 less margins of 1 cm
    page.locator("[data-chart=task_models][data-drawn=narrow]").wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    page.emulate_media(media="print")
    assert page.locator("select:visible, input:visible, button:visible, summary:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    for table in page.locator("table:visible").all():
        box = table.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 718
    style = "(all, [name, part]) => all.map((one) => getComputedStyle(one, part)[name])"
    assert set(page.locator(".scroll").evaluate_all(style, ["overflowX", None])) == {"visible"}
    breaks = page.locator("h2, h3, section > .intro, figcaption").evaluate_all(style, ["breakAfter", None])
    assert set(breaks) == {"avoid"}
    # Browsers print a fixed element on every page.
    demo = page.locator(".demo strong")
    assert demo.evaluate_all(style, ["position", "::after"]) == ["fixed"]
    assert demo.evaluate_all(style, ["content", "::after"]) == ['"DEMO"']
