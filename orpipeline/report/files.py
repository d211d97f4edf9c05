"""The report's files, in a folder or in an object store.

    index.html, latest.json      the newest day
    2026-10-06/index.html        a day, at an address that lasts
    2026-10-06/embed/*.html      its parts for other pages
    2026-10-06/card.png, *.csv   its picture and figures
    2026-10-06/report.json       what it is; written last

A day's folder is written once: again only if the tables have another revision of the day, or more days before it. Each
file is replaced in one step: readers see no partial file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from orpipeline.report.data import ReportData, read_report_data
from orpipeline.report.page import page_facts, render_embeds, render_page
from orpipeline.report.picture import render_card
from orpipeline.stores import Store
from orpipeline.text import plain
from orpipeline.warehouse.publishing import SETTING
from orpipeline.warehouse.tables import Tables

_DAY_PAGE = re.compile(r"(\d{4}-\d\d-\d\d)/report\.json")
# A spreadsheet computes a cell that begins so, also after the separators of other countries.
_FORMULA = re.compile(r"(?<![^,;])(?=[=+\-@\t\r\n\x1b\uff0b\uff0d\uff1d\uff20])")


@dataclass(frozen=True)
class Written:
    """A written report: its day, the citation of its data, and the paths or URLs of its files.

    `page` is `index.html` for the newest day, otherwise the day's own page. `sha256` is of the page.
    """

    page: Path | str
    dated: Path | str
    picture: Path | str
    as_of: date
    citation: str
    sha256: str


def write_report(
    reports: Path | str,
    tables: Tables,
    *,
    day: date | None = None,
    now: datetime,
) -> Written:
    """Write the report of the newest day in the tables, or of `day`, into `reports`, a folder or a store's URL.

    For a day that is not the newest one, only its own folder is written.

    Raises WarehouseError if the tables do not have the day, StoreError if a file cannot be written.
    """
    data, store = read_report_data(tables, day), Store(reports, setting=SETTING)
    facts, folder = page_facts(data), data.as_of.isoformat()
    days = sorted(date.fromisoformat(found[1]) for name in store.entries() if (found := _DAY_PAGE.fullmatch(name)))
    kept = json.loads(store.read(f"{folder}/report.json") or b"{}")
    is_written = kept.get("sha256") == facts["sha256"] and kept.get("days", 0) >= facts["days"]
    written_at = datetime.fromisoformat(kept["written_at"]) if is_written else now
    facts["written_at"] = written_at.isoformat()
    if not is_written:
        store.replace(_day_files(data, days, facts, written_at))
    dated = f"{folder}/index.html"
    is_newest = data.as_of == max(tables.days())
    if is_newest:
        page = render_page(data, days=days, written_at=written_at, is_dated=False).encode()
        store.replace({"index.html": page, "latest.json": _json({"page": dated, **facts})})
    else:
        page = store.read(dated) or b""
    return Written(
        page=store.address("index.html" if is_newest else dated),
        dated=store.address(dated),
        picture=store.address(f"{folder}/card.png"),
        as_of=data.as_of,
        citation=str(data.snapshot["citation"]),
        sha256=hashlib.sha256(page).hexdigest(),
    )


def _day_files(
    data: ReportData, days: Sequence[date], facts: Mapping[str, Any], written_at: datetime
) -> dict[str, bytes]:
    """Return the files of a day's folder by name; the last one names them complete."""
    citation = facts["citation"]
    files = {
        "card.png": render_card(data),
        "leaderboard.csv": csv_of(data.models.sort("scope", "usage_rank", "model_id"), citation),
        "tasks.csv": csv_of(data.task_models.join(data.tasks.select("tag", "display_name"), on="tag"), citation),
        **{f"embed/{name}.html": page.encode() for name, page in render_embeds(data).items()},
        "index.html": render_page(data, days=days, written_at=written_at, is_dated=True).encode(),
        "report.json": _json(facts),
    }
    return {f"{data.as_of}/{name}": content for name, content in files.items()}


def _json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def csv_of(rows: pl.DataFrame, citation: str) -> bytes:
    """Return rows as CSV with the source in each row; no spreadsheet computes one of the names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*rows.columns, "source"])
    writer.writerows(_cells([*row, citation]) for row in rows.iter_rows())
    return text.getvalue().encode("utf-8-sig")


def _cells(row: Iterable[Any]) -> list[Any]:
    return [_FORMULA.sub("'", plain(cell)) if isinstance(cell, str) else cell for cell in row]
