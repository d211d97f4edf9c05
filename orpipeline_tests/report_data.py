"""Warehouses with made-up days, and a parser for the tables of a report's page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from orpipeline.archive import Archive
from orpipeline.load import load_days
from orpipeline.report.data import ReportData, read_report_data
from orpipeline.report.page import render_page
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.hostile import VALID

NEWEST = date(2026, 10, 6)
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def days_before(count: int, newest: date = NEWEST) -> list[date]:
    """Return `count` days up to `newest`, oldest first."""
    return [newest - timedelta(days=back) for back in reversed(range(count))]


def warehouse_of(folder: Path, responses: Mapping[date, bytes], origin: str = "demo") -> Warehouse:
    """Return a warehouse with these responses, loaded through the archive and the contracts."""
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    for day, body in responses.items():
        fetched_at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
        archive.put(body, fetched_at=fetched_at, source="a test", origin=origin)
    loaded = load_days(archive, warehouse, list(responses), now=NOW)
    assert not loaded.validated.errors
    return warehouse


def demo_warehouse(folder: Path, days: Iterable[date]) -> Warehouse:
    """Return a warehouse with the demo's responses for these days."""
    return warehouse_of(folder, {day: sample_response(day) for day in days})


def listing(folder: Path, days: Mapping[int, Mapping[str, float]], origin: str = "api") -> ReportData:
    """Return the report of days that list models under one task; a day is how many days it is before the newest."""
    responses = {
        NEWEST - timedelta(days=before): sample_response(
            NEWEST - timedelta(days=before), [Task("code:debugging", models=models)]
        )
        for before, models in days.items()
    }
    return report_of(warehouse_of(folder, responses, origin=origin))


def hostile_warehouse(folder: Path) -> Warehouse:
    """Return a warehouse with nine days whose models, task and macro-category have names that contain markup."""
    shares = {name: round(0.1 - 0.005 * place, 3) for place, name in enumerate(VALID)}
    tasks = [Task("code:debugging", display_name="<b>Bold</b></script>", models=shares)]

    def label(data: dict[str, Any]) -> None:
        data["macro_categories"][0]["label"] = "<i onclick=x>Code"

    responses = {day: sample_response(day, tasks, change=label) for day in days_before(9)}
    return warehouse_of(folder, responses, origin="import")


def report_of(warehouse: Warehouse, day: date | None = None) -> ReportData:
    """Return the data of a day's report."""
    with warehouse.reading() as tables:
        return read_report_data(tables, day)


def page_of(data: ReportData) -> str:
    """Return the newest page."""
    return render_page(data, days=[], written_at=NOW, is_dated=False)


@dataclass
class Table:
    """A table: its class, the view whose template it is in, its caption, and the cells of its rows.

    `bars` has the custom properties of each row's bars, and `items` the parts of each item of the lists in it.
    """

    kind: str
    view: str
    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)
    bars: list[dict[str, float]] = field(default_factory=list)
    items: list[list[str]] = field(default_factory=list)

    @property
    def body(self) -> list[list[str]]:
        """The rows below the heading."""
        return self.rows[1:]


class Page(HTMLParser):
    """A parsed page: its tables, its JSON, all its tags, and its text: `everything` includes the templates."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.everything = "", ""
        self._view, self._into = "0-usage", ""
        found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
        self.data: dict[str, Any] = json.loads(found[0]) if found else {}
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        style = re.findall(r"--(\w+):([\d.]+)", given.get("style") or "")
        if tag == "template":
            self._view = (given["id"] or "").removeprefix("view-")
        elif tag == "table":
            self.tables.append(Table(given.get("class") or "", self._view))
        elif tag == "tr":
            self.tables[-1].rows.append([])
            self.tables[-1].bars.append({})
        elif tag in ("th", "td"):
            self.tables[-1].rows[-1].append("")
        elif tag == "li" and self._into in ("td", "item"):
            self.tables[-1].items.append([""])
        if tag == "i":
            self.tables[-1].bars[-1] = {name: float(value) for name, value in style}
        if tag in ("th", "td", "caption", "script", "style"):
            self._into = tag
        elif tag == "ol":
            self._into = "item"
        elif tag == "span" and self._into == "item":
            self.tables[-1].items[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("table", "caption", "script", "style", "ol", "thead"):
            self._into = ""
        if tag == "template":
            self._view = "0-usage"

    def handle_data(self, data: str) -> None:
        if self._into in ("script", "style"):
            return
        self.everything += data
        if self._view == "0-usage":
            self.text += data
        if self._into == "caption":
            self.tables[-1].caption += data
        elif self._into in ("th", "td"):
            self.tables[-1].rows[-1][-1] += data
        elif self._into == "item":
            self.tables[-1].items[-1][-1] += data

    def table(self, kind: str, view: str = "0-usage") -> Table:
        """Return the one table of this class in a view."""
        (found,) = (table for table in self.tables if (table.kind, table.view) == (kind, view))
        return found
