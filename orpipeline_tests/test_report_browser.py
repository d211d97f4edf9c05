"""The report's page in a real browser, opened from disk."""

from __future__ import annotations

import csv
import io
import os
import struct
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: these tests open the report in a browser")

from playwright.sync_api import Browser, Page, sync_playwright

from orpipeline.report.data import read_report_data
from orpipeline.report.page import render_page
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.hostile import VALID
from orpipeline_tests.independent import percent, ranks
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
        self.address = file.as_uri()
        self.go("")

    def go(self, fragment: str) -> None:
        """Open the page anew with this part after `#`."""
        self.page.goto("about:blank")
        self.page.goto(self.address + fragment)
        self.page.locator("html[data-ready=yes]").wait_for()

    def _note(self, url: str, own: str) -> None:
        # The page's icon is an empty `data:` URL; a saved file is a `blob:` URL.
        if url.partition("#")[0] != own and not url.startswith(("data:", "blob:", "about:")):
            self.complaints.append(f"request: {url}")

    @property
    def fragment(self) -> str:
        """The part of the address after `#`."""
        return self.page.url.partition("#")[2]

    def saved(self, chart: str, kind: str) -> bytes:
        """Click a chart's button, and return the file that the page saves."""
        with self.page.expect_download() as download:
            self.page.locator(f"[data-for={chart}] [data-do={kind}]").click()
        return Path(download.value.path()).read_bytes()

    def rows(self, chart: str) -> list[dict[str, str]]:
        """Return the rows of a chart's CSV file."""
        return list(csv.DictReader(io.StringIO(self.saved(chart, "csv").decode("utf-8-sig"))))

    def pick(self, text: str) -> None:
        """Type a model's or author's name, or a part of it, and press Enter."""
        self.page.locator("#pick").fill("")
        self.page.locator("#pick").press_sequentially(text)
        self.page.locator("#pick").press("Enter")

    def settled(self, chart: str) -> None:
        """Wait until the chart is drawn."""
        self.page.wait_for_timeout(150)
        self.page.locator(f"[data-chart={chart}] svg").wait_for()

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_switch_shows_the_warehouses_figures(
    month: Warehouse, month_file: Path, open_page: Open, width: str, scheme: str
) -> None:
    opened = open_page(month_file, width, scheme)
    opened.page.locator("#leaderboard summary").first.click()
    frames = {
        "models": month.read("model_leaderboard", since=NEWEST),
        "authors": month.read("author_leaderboard", since=NEWEST),
    }
    keys, most = {"models": "model_id", "authors": "author"}, {"models": 20, "authors": 14}
    for measure in ("token", "usage"):
        opened.choose("measure", measure)
        for scope in SCOPES:
            opened.choose("scope", scope)
            opened.settled("authors")
            for chart, frame in frames.items():
                order = frame.filter(scope=scope).sort(f"{measure}_share", keys[chart], descending=[True, False])
                texts = opened.shown(chart).splitlines()
                for row in order.head(most[chart]).iter_rows(named=True):
                    assert ranks(row, measure) in texts
                    assert percent(row[f"{measure}_share"]) in texts
            assert opened.page.locator("table.board:visible tbody tr").count() == len(
                frames["models"].filter(scope=scope)
            )
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
        title = opened.page.locator("#task_models-caption .title:visible")
        assert (
            title.inner_text()
            == f"{task['display_name']}: models by share of the task\N{RIGHT SINGLE QUOTATION MARK}s requests"
        )
        visible = opened.page.locator("table.task:visible")
        assert visible.count() == 1
        listed = models.filter(tag=task["tag"]).sort("position")
        assert visible.locator("tbody th").all_text_contents()[:-1] == listed["model_id"].to_list()
        opened.settled("task_models")
        shown = opened.shown("task_models").splitlines()
        assert all(percent(share) in shown for share in listed["tag_usage_share"])
        assert "Not listed" in shown
    assert opened.complaints == []


def test_the_readers_choices_are_in_the_address_and_survive_a_reload(
    month: Warehouse, month_file: Path, open_page: Open
) -> None:
    opened = open_page(month_file)
    page = opened.page
    assert opened.fragment == ""
    opened.choose("measure", "token")
    opened.choose("scope", "code")
    page.select_option("#task", "math")
    first, second = month.read("model_leaderboard", since=NEWEST).filter(scope="all")["model_id"].head(2)
    for model in (first, second):
        opened.pick(model)
    fragment = opened.fragment
    assert fragment.startswith("by=tokens&scope=code&task=math&models=")
    opened.go(f"#history&{fragment}")
    assert page.locator("input[name=measure][value=token]").is_checked()
    assert page.locator("input[name=scope][value=code]").is_checked()
    assert page.locator("#task").input_value() == "math"
    assert page.locator("#picks button").count() == 2
    assert {row["name"] for row in opened.rows("lines")} == {first, second}
    # The bar at the top covers the beginning of the page, so the section begins below it.
    top = page.locator("#history").evaluate("one => one.getBoundingClientRect().top")
    assert 0 <= top <= 120
    page.locator("nav a", has_text="Movers").click()
    assert opened.fragment == f"movers&{fragment}"
    opened.go("#by=constructor&scope=<b>&task=%ff&models=no/such,%3Cimg%3E&of=__proto__")
    assert page.locator("input[name=measure][value=usage]").is_checked()
    assert page.locator("input[name=scope][value=all]").is_checked()
    assert page.locator("#picks button").count() == 0
    opened.go(f"#models={first},{first},{first}&embed=none")
    assert page.locator("[data-chart]:visible").count() == 1
    opened.go(f"#history&models={first},{first}")
    assert page.locator("#picks button").count() == 1
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert opened.fragment == f"leaderboard&models={first.replace('/', '%2F')}"
    assert page.evaluate("document.activeElement.id") == "leaderboard-title"
    assert opened.complaints == []


def test_a_reader_picks_models_by_search_and_sees_every_value_of_a_day(
    month: Warehouse, month_file: Path, open_page: Open
) -> None:
    opened = open_page(month_file)
    page = opened.page
    rows = month.read("model_leaderboard").filter(scope="all")
    newest = rows.filter(as_of=NEWEST).sort("usage_rank")
    picked = newest["model_id"].head(3).to_list()
    opened.pick("no such name")
    assert page.locator("#pick-status").inner_text() == "No model has this name."
    for model in picked:
        opened.pick(model.split("/")[1][:-4])  # a part of the name
    assert page.locator("#picks button").count() == 3
    opened.settled("lines")
    lines = page.locator("[data-chart=lines]")
    lines.focus()
    lines.press("Home")
    lines.press("End")
    texts = page.locator("#tip td:last-child").all_text_contents()
    assert texts == ["", *(percent(share) for share in newest["usage_share"].head(3))]
    lines.press("ArrowLeft")
    assert page.locator("#tip td").first.text_content() == "5 Oct 2026"
    for _ in range(15):
        lines.press("ArrowLeft")
    assert page.locator("#tip td").all_text_contents() == ["20 Sep 2026", "missing"]
    box = page.locator("[data-chart=lines] svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 100)
    assert page.locator("#tip.visible td").first.text_content() in {"7 Sep 2026", "8 Sep 2026"}
    drawn = {(row["day"], row["name"]): float(row["share"]) for row in opened.rows("lines")}
    stored = rows.filter(rows["model_id"].is_in(picked)).select("as_of", "model_id", "usage_share").rows()
    assert drawn == {(str(day), model): share for day, model, share in stored}
    page.locator("#history summary").first.click()
    assert page.locator("table.history:visible").first.locator("thead th").count() == 4
    page.locator("#picks button").first.click()
    assert page.locator("#picks button").count() == 2
    assert picked[0] not in opened.fragment
    opened.choose("of", "authors")
    assert page.locator("#picks button").count() == 0
    opened.pick(newest["author"][0])
    assert "of=authors" in opened.fragment
    assert f"authors={newest['author'][0]}" in opened.fragment
    assert opened.complaints == []


def test_without_picks_the_history_adds_up_to_what_the_lists_attribute(
    month: Warehouse, month_file: Path, open_page: Open
) -> None:
    opened = open_page(month_file)
    coverage = month.read("leaderboard_coverage").filter(scope="all")
    for kind in ("models", "authors"):
        opened.choose("of", kind)
        sums: dict[str, float] = {}
        for row in opened.rows("lines"):
            sums[row["day"]] = sums.get(row["day"], 0) + float(row["share"])
        assert sums == {
            str(day): pytest.approx(share, abs=1e-6)
            for day, share in coverage.select("as_of", "usage_attributed").rows()
        }


def test_every_chart_is_saved_as_csv_and_png_and_linked(month: Warehouse, month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file, "wide", "dark", permissions=["clipboard-read", "clipboard-write"])
    page = opened.page
    opened.choose("scope", "code")
    board = month.read("model_leaderboard", since=NEWEST).filter(scope="code").sort("usage_rank", "model_id").head(20)
    rows = opened.rows("models")
    assert [(row["model"], float(row["attributed_share"])) for row in rows] == board.select(
        "model_id", "usage_share"
    ).rows()
    assert {(row["scope"], row["by"], row["as_of"]) for row in rows} == {("code", "requests", "2026-10-06")}
    assert all(row["source"].startswith("Demo data, made up by orpipeline") for row in rows)
    charts = [one.get_attribute("data-for") or "" for one in page.locator(".foot").all()]
    assert len(charts) == page.locator("[data-chart]").count() == 8
    assert all(opened.rows(chart) for chart in charts)
    opened.go("#scope=code")  # Chromium holds back a page's eleventh file
    for chart in charts:
        png = opened.saved(chart, "png")
        width, height = struct.unpack(">II", png[16:24])
        assert png.startswith(b"\x89PNG")
        assert width > 700
        assert height > 400
    page.locator("[data-for=lines] [data-do=link]").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"{opened.address}#history&scope=code"
    page.locator("[data-for=lines] [data-do=embed]").click()
    code = page.evaluate("navigator.clipboard.readText()")
    assert f'<iframe src="{opened.address}#history&amp;scope=code&amp;embed=lines"' in code
    opened.go("#leaderboard&embed=authors")
    assert page.locator("[data-chart]:visible").get_attribute("data-chart") == "authors"
    assert page.locator("section:visible").count() == 1
    assert page.locator("header:visible, h1:visible").count() == 0
    assert opened.complaints == []


def test_a_table_is_sorted_by_any_column(month: Warehouse, month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file)
    page = opened.page
    page.locator("#leaderboard summary").first.click()
    board = page.locator("[data-scope=all] table.board")
    models = board.locator("tbody th")
    rows = month.read("model_leaderboard", since=NEWEST).filter(scope="all")
    assert models.all_text_contents() == rows.sort("usage_rank", "model_id")["model_id"].to_list()
    board.locator("thead button", has_text="Tasks").click()
    shown = [int(text) for text in board.locator("tbody td:nth-child(10)").all_text_contents()]
    assert shown == sorted(rows["task_count"].to_list(), reverse=True)
    assert board.locator("thead th[aria-sort=descending]").inner_text().startswith("Tasks")
    button = board.locator("thead button", has_text="Model")
    button.focus()
    button.press("Enter")
    assert models.all_text_contents() == sorted(rows["model_id"].to_list())
    page.locator("#history summary").first.click()
    history = page.locator("table.history:visible").first
    history.locator("thead button", has_text="Day").click()
    days = history.locator("tbody th").all_text_contents()
    assert days == sorted(days)
    opened.choose("measure", "token")
    assert (
        models.all_text_contents()
        == rows.sort("token_share", "model_id", descending=[True, False])["model_id"].to_list()
    )


def test_tables_behind_the_charts_open_and_follow_the_switches(month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file)
    for summary in opened.page.locator("summary").all():
        summary.click()
    assert opened.page.locator("table.board:visible").count() == 1
    for measure, scope in (("usage", "all"), ("token", "code")):
        opened.choose("measure", measure)
        opened.choose("scope", scope)
        assert opened.page.locator("table.board:visible").count() == 1
        assert opened.page.locator(f"[data-scope={scope}] table.board").is_visible()
        assert opened.page.locator(f"[data-measure={measure}][data-kind=models] table.history").is_visible()
        assert opened.page.locator("table.history:visible").count() == 2  # models, and macro-categories
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
    page.locator("#leaderboard summary").first.click()
    assert page.locator("table.board:visible tbody th").all_text_contents()[:4] == VALID[:4]
    page.locator("[data-chart=models] svg").hover(position={"x": 60, "y": 50})
    page.locator("#tip.visible").wait_for()
    assert VALID[0] in (page.locator("#tip").text_content() or "")
    for name in VALID:
        opened.pick(name)
    assert page.locator("#picks button").count() == len(VALID)
    opened.go(f"#{opened.fragment}")
    assert page.locator("#picks button").count() == len(VALID)
    assert {row["name"].removeprefix("'") for row in opened.rows("lines")} == set(VALID)
    assert all(row["model"][0] not in "=+-@" for row in opened.rows("models"))
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, b, i, canvas").count() == 0
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
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(focused))
    summaries = {f"SUMMARY:{text}" for text in page.locator("summary").all_text_contents()}
    assert {"measure", "scope", "of", "theme", "task", "pick", *summaries} <= reached
    assert {f"BUTTON:{words}" for words in ("Copy link", "Embed", "PNG", "CSV")} <= reached
    page.locator("input[name=scope][value=all]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=scope][value=code]").is_checked()
    assert page.locator("[data-scope=code]").first.is_visible()
    page.locator("input[name=measure][value=usage]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#models-caption [data-measure=token]").first.is_visible()
    page.locator("#leaderboard summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("table.board:visible").count() == 1
    assert page.locator("[data-scope] table.board").locator("xpath=..").first.get_attribute("tabindex") == "0"
    assert opened.complaints == []


def test_every_chart_keeps_its_description_and_moves_the_focus(month_file: Path, open_page: Open) -> None:
    page = open_page(month_file).page
    for chart in page.locator("[data-chart]").all():
        assert chart.get_attribute("role") == "img"
        assert "The table" in (chart.get_attribute("aria-label") or "")
    page.locator("nav a", has_text="By task").press("Enter")
    assert page.evaluate("document.activeElement.id") == "tasks-title"


def test_the_theme_follows_the_system_until_it_is_chosen(month_file: Path, open_page: Open) -> None:
    opened = open_page(month_file, "wide", "dark")
    page = opened.page
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('[data-chart=models] svg text')).fill"
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
    assert one.page.locator("[data-chart] svg").count() == 5
    years = open_page(_written(long_warehouse(tmp_path / "years", 3650), tmp_path / "years"), width)
    assert years.page.locator("[data-chart] svg").count() == 7  # no share moved, so there are no movers
    assert one.complaints == years.complaints == []


def test_without_javascript_every_table_is_shown(browser: Browser, month_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(month_file.as_uri())
    assert page.locator("noscript").inner_text().startswith("The charts need JavaScript.")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("table:visible").count() == page.locator("table").count() == 2 * 5 + 1 + 3 * 2 + 3 + 29
    captions = page.locator("table:visible caption").all_inner_texts()
    assert len(captions) == len(set(captions)) == page.locator("table").count()
    assert page.locator("[data-chart]:visible, input:visible, select:visible, button:visible").count() == 0
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
    warehouse = warehouse_of(tmp_path, {NEWEST: sample_response(NEWEST, [Task("code:debugging", models=shares)])})
    opened = open_page(_written(warehouse, tmp_path), width)
    for chart in ("models", "task_models"):
        texts = opened.shown(chart).splitlines()
        for end in ("0423", "0731", ":free"):
            assert any(text.endswith(end) for text in texts), (chart, end)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_current_choice_is_visible_with_forced_colours(month_file: Path, open_page: Open, scheme: str) -> None:
    page = open_page(month_file, "wide", scheme, forced_colors="active").page
    page.locator("#leaderboard summary").first.click()
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
    page.wait_for_timeout(1000)
    for summary in page.locator("summary").all():
        summary.click()
    page.emulate_media(media="print")
    assert page.locator("select:visible, input:visible, button:not(.sort):visible, summary:visible").count() == 0
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
