"""The report's files, in a folder or in an object store. Each is replaced in one step: readers see no partial file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from orpipeline.archive import Archive
from orpipeline.clock import newest_completed_day
from orpipeline.load import lost_days, validate_days, with_novelties
from orpipeline.report.data import nothing_of, read_report_data
from orpipeline.report.page import render_page
from orpipeline.report.picture import render_card, render_picture
from orpipeline.stores import Store
from orpipeline.warehouse.publishing import SETTING
from orpipeline.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Written:
    """A written report: the paths or URLs of its files, its day, the citation of its data.

    `page_bytes` and `sha256` are of the page.
    """

    page: Path | str
    picture: Path | str
    card: Path | str
    as_of: date
    citation: str
    page_bytes: int
    sha256: str


def write_report(
    reports: Path | str, archive: Archive, warehouse: Warehouse, *, day: date | None, now: datetime
) -> Written:
    """Write the page and the pictures of the newest day in the tables, or of `day`, into `reports`.

    `reports` is a folder or the URL of an object store. The files are `leaderboard.html`, `leaderboard.png` and the
    landscape `leaderboard-card.png`; with a `day`, `leaderboard-<day>.html` and so on. The page shows as lost every
    missing day that the API no longer serves at `now`.

    Raises WarehouseError if the tables do not have the day, StoreError if a file cannot be written.
    """
    with warehouse.reading() as tables:
        days = tables.days()
        as_of = day or max(days, default=None)
        if as_of is None:
            raise nothing_of(None, days)
        loaded = tables.read("snapshots", since=as_of, until=as_of)["revision"].to_list()
        # The warnings must be those of the revision in the tables, which may not be the newest one.
        validated = validate_days(archive, [as_of], now=now, revision=loaded[0] if loaded else None)
        validated = with_novelties(validated, tables)
    lost = lost_days(archive, days, newest_completed_day(now))
    data = read_report_data(warehouse, as_of, lost_days=lost, warnings=validated.warnings)
    page, name = render_page(data).encode(), f"leaderboard-{day}" if day else "leaderboard"
    files = {f"{name}.html": page, f"{name}.png": render_picture(data), f"{name}-card.png": render_card(data)}
    store = Store(reports, setting=SETTING)
    store.replace(files)
    page_at, picture_at, card_at = map(store.address, files)
    return Written(
        page=page_at,
        picture=picture_at,
        card=card_at,
        as_of=as_of,
        citation=str(data.snapshot["citation"]),
        page_bytes=len(page),
        sha256=hashlib.sha256(page).hexdigest(),
    )
