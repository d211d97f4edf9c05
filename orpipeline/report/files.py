"""The report's files. Each one is replaced in one step, so a reader never sees a partial file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from orpipeline.archive.folder import Archive
from orpipeline.clock import newest_completed_day
from orpipeline.errors import OrpipelineError
from orpipeline.files import replace_file
from orpipeline.history import lost_days
from orpipeline.report.data import NoReportError, nothing_of, read_report_data
from orpipeline.report.page import render_page
from orpipeline.report.picture import render_card, render_picture
from orpipeline.snapshot import validate_days
from orpipeline.warehouse.database import Warehouse


@dataclass(frozen=True)
class Written:
    """A written report: the paths of its files, its day, the citation of its data, and the sha256 of its page."""

    page: Path
    picture: Path
    card: Path
    as_of: date
    citation: str
    sha256: str


class ReportError(OrpipelineError):
    """A file of the report cannot be written."""


def write_report(folder: Path, archive: Archive, warehouse: Warehouse, *, day: date | None, now: datetime) -> Written:
    """Write the page and the pictures of the newest day in the tables, or of `day`, into `folder`.

    The files are `leaderboard.html`, `leaderboard.png` and the landscape `leaderboard-card.png`; with a `day`,
    `leaderboard-<day>.html` and so on. The page shows as lost every missing day that the API no longer serves at `now`.
    Raises NoReportError if the tables do not have the day, ReportError if a file cannot be written.
    """
    with warehouse.reading() as tables:
        days = tables.days()
        as_of = day or max(days, default=None)
        if as_of is None:
            raise NoReportError(nothing_of(None, days))
        loaded = tables.read("snapshots", since=as_of, until=as_of)["revision"].to_list()
        # The warnings must be those of the revision in the tables, which may not be the newest one.
        validated = validate_days(archive, [as_of], tables, now=now, revision=loaded[0] if loaded else None)
    lost = lost_days(archive, days, newest_completed_day(now))
    data = read_report_data(warehouse, as_of, lost_days=lost, warnings=validated.warnings)
    page, name = render_page(data).encode(), f"leaderboard-{day}" if day else "leaderboard"
    written = Written(
        page=folder / f"{name}.html",
        picture=folder / f"{name}.png",
        card=folder / f"{name}-card.png",
        as_of=as_of,
        citation=str(data.snapshot["citation"]),
        sha256=hashlib.sha256(page).hexdigest(),
    )
    _write(written.page, page)
    _write(written.picture, render_picture(data))
    _write(written.card, render_card(data))
    return written


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise ReportError(
            f"Cannot write the report {path}: {error.strerror}. Free disk space or fix the folder's permissions."
        ) from error
