"""Warehouses with made-up days, and a parser for the tables in a report's HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl

from orpipeline.archive import Archive
from orpipeline.contracts.tables import TABLES
from orpipeline.load import load_days
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


def hostile_warehouse(folder: Path) -> Warehouse:
    """Return a warehouse with nine days whose models, task and macro-category have names that contain markup."""
    shares = {name: round(0.1 - 0.005 * place, 3) for place, name in enumerate(VALID)}
    tasks = [Task("code:debugging", display_name="<b>Bold</b></script>", models=shares)]

    def label(data: dict[str, Any]) -> None:
        data["macro_categories"][0]["label"] = "<i onclick=x>Code"

    responses = {day: sample_response(day, tasks, change=label) for day in days_before(9)}
    return warehouse_of(folder, responses, origin="import")


def long_warehouse(folder: Path, count: int) -> Warehouse:
    """Return a warehouse with the rows of one demo day repeated on each of `count` days."""
    one = demo_warehouse(folder / "one", [NEWEST])
    warehouse = Warehouse(folder / "long.duckdb")
    days = days_before(count)
    repeated = pl.DataFrame({"as_of": days})
    frames = {}
    for name in TABLES:
        rows = one.read(name)
        frames[name] = repeated.join(rows.drop("as_of"), how="cross").select(rows.columns)
    with warehouse.writing() as tables:
        tables.replace_days(days, frames)
    return warehouse


def rows_of(html: str) -> dict[str, dict[str, list[Any]]]:
    """Return the rows of a page's charts by name, as columns of plain values."""
    return {
        name: {
            column: values if isinstance(values, list) else [values["of"][place] for place in values["at"]]
            for column, values in columns.items()
        }
        for name, columns in _json_of(html, "rows").items()
    }


def series_of(html: str) -> dict[str, Any]:
    """Return the series of a page's history."""
    return _json_of(html, "series")


def _json_of(html: str, name: str) -> dict[str, Any]:
    (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    document: dict[str, Any] = json.loads(found)
    return document


@dataclass
class Table:
    """A table of a page: the text of its cells, and the exact figures of `data` elements."""

    attributes: Mapping[str, str | None]
    within: Mapping[str, str | None]
    rows: list[list[str]] = field(default_factory=list)
    figures: list[list[float]] = field(default_factory=list)

    @property
    def body(self) -> list[list[str]]:
        """The rows below the heading."""
        return self.rows[1:]


class Report(HTMLParser):
    """A parsed page: its tables, all tags with their attributes, and all text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._around: list[dict[str, str | None]] = []
        self._inside_script = self._inside_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "div":
            self._around.append(given)
        elif tag == "table":
            self.tables.append(Table(given, self._around[-1] if self._around else {}))
        elif tag == "tr":
            self.tables[-1].rows.append([])
            self.tables[-1].figures.append([])
        elif tag in ("th", "td"):
            self.tables[-1].rows[-1].append("")
            self._inside_cell = True
        elif tag == "data":
            self.tables[-1].figures[-1].append(float(given["value"] or ""))
        elif tag in ("script", "style"):
            self._inside_script = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "div":
            self._around.pop()
        elif tag in ("th", "td"):
            self._inside_cell = False
        elif tag in ("script", "style"):
            self._inside_script = False

    def handle_data(self, data: str) -> None:
        if not self._inside_script:
            self.text += data
        if self._inside_cell:
            self.tables[-1].rows[-1][-1] += data

    def table(self, kind: str, /, **within: Any) -> Table:
        """Return the one table with this id or class, inside an element with these `data-` attributes."""
        (found,) = (
            table
            for table in self.tables
            if kind in (table.attributes.get("id"), table.attributes.get("class"))
            and all(table.within.get(f"data-{name}") == value for name, value in within.items())
        )
        return found
