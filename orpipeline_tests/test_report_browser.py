"""The report's page in a real browser, opened from disk and from a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: these tests open the report in a browser")

from playwright.sync_api import Browser, Page, sync_playwright

from orpipeline.report.files import write_report
from orpipeline_tests.hostile import VALID
from orpipeline_tests.report_data import NOW, days_before, demo_warehouse, hostile_warehouse, page_of, report_of

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"Chromium is not installed at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=os.fspath(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, address: str, width: int = 1440, **options: Any) -> Iterator[Page]:
    """Open an address; fail on any message in the console and on any request beyond the page."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url != address else None)
    page.goto(address)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    context.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    with demo_warehouse(folder, [day for day in days_before(30) if day.day != 14]).reading() as tables:
        write_report(folder / "reports", tables, now=NOW)
    return folder / "reports"


@pytest.mark.parametrize("width", [1440, 390])
def test_choices_search_and_lines_work_and_the_address_keeps_them(browser: Browser, reports: Path, width: int) -> None:
    address = (reports / "index.html").as_uri()
    with opened(browser, address, width, color_scheme="dark") as page:
        assert "days ago" in page.locator("#stale").inner_text()
        page.get_by_label("Code").focus()
        page.keyboard.press("Space")
        page.get_by_text("Tokens", exact=True).first.click()
        assert page.locator("h1:visible").inner_text().count("of code tokens") == 1
        assert "of code tokens" in page.locator("#quote").inner_text()
        page.locator("#find").fill("heron")
        names = page.locator("#board tbody tr:visible th").all_inner_texts()
        assert names
        assert all("heron" in name for name in names)
        before = page.locator("[data-chart=models] .line").count()
        page.locator("#board tbody tr:visible button").last.press("Enter")
        assert page.locator("[data-chart=models] .line").count() != before
        texts = page.locator("[data-chart=models] .keys li").all_inner_texts()
        slider = page.locator("[data-chart=models] input")
        slider.press("Home")
        assert page.locator("[data-chart=models] .keys li").all_inner_texts() != texts
        assert "7 Sep 2026" in str(slider.get_attribute("aria-valuetext"))
        page.locator("[data-chart=models] svg").hover(position={"x": 300, "y": 60})
        assert "7 Sep 2026" not in str(slider.get_attribute("aria-valuetext"))
        page.get_by_role("button", name="Debugging").click()
        assert page.locator(".own:visible").count() == 1
        page.reload()
        assert "of code tokens" in page.locator("h1:visible").inner_text()
        assert page.locator("[data-chart=models] .keys li").count() == len(texts)
        page.get_by_role("button", name="Task", exact=True).click() if width == 1440 else None
        assert page.locator("#embed").is_hidden()


def test_without_javascript_everything_is_there_and_it_prints_on_four_sheets(browser: Browser, reports: Path) -> None:
    address = (reports / "2026-10-06" / "index.html").as_uri()
    with opened(browser, address, java_script_enabled=False) as page:
        assert page.locator(".own li:visible").count() > 29 * 5
        assert page.locator(".ranking:visible").count() == 1
        assert page.locator("form:visible, button:visible, input:visible").count() == 0
        boxes = page.locator("[data-chart=models] svg text.name").all()
        assert all(box.is_visible() for box in boxes)
        tops = sorted(box.bounding_box()["y"] for box in boxes)  # type: ignore[index]  # it is visible
        assert all(after - before > 12 for before, after in pairwise(tops))
        assert page.pdf(format="A4", print_background=True).count(b"/Type /Page\n") <= 4


def test_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page_of(report_of(hostile_warehouse(tmp_path))))
    with opened(browser, (tmp_path / "page.html").as_uri(), 390) as page:
        shown = page.locator("#board tbody th").all_text_contents()
        assert [name.split(" ")[0] for name in shown] == [(one.split("/", 1)[-1]).split(" ")[0] for one in VALID]
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main script, main b b").count() == 0


def test_an_embedded_part_shows_its_source_and_fits_its_height(browser: Browser, reports: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(reports))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with opened(browser, f"{address}/index.html") as page:
            page.locator("#embed summary").click()
            code = page.locator("#code").inner_text()
        (reports / "article.html").write_text(f"<!doctype html>{code}")
        context = browser.new_context(viewport={"width": 390, "height": 800})
        page = context.new_page()
        page.goto(f"{address}/article.html")
        frame = page.frame_locator("iframe")
        assert "Demo data" in frame.locator("footer").inner_text()
        page.wait_for_function("document.querySelector('iframe').height !== '900'")
        needed = frame.locator("html").evaluate("html => html.scrollHeight")
        assert int(str(page.locator("iframe").get_attribute("height"))) >= needed
        context.close()
        server.shutdown()
