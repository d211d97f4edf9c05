"""The report as files: written beside each other, each of them whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from orpipeline.archive.folder import Archive
from orpipeline.clock import utc_now
from orpipeline.errors import OrpipelineError
from orpipeline.files import replace_file
from orpipeline.history import lost_days
from orpipeline.report.charts import render_picture
from orpipeline.report.data import NoReportError, read_report_data
from orpipeline.report.page import render_page
from orpipeline.snapshot import validate_days
from orpipeline.warehouse.database import Warehouse


@dataclass(frozen=True)
class Written:
    """Where a report is, what day it shows, how that is cited, and the sha256 of its page."""

    page: Path
    picture: Path
    as_of: date
    citation: str
    sha256: str


class ReportError(OrpipelineError):
    """The report's files cannot be written."""


def write_report(folder: Path, archive: Archive, warehouse: Warehouse, *, day: date | None, newest: date) -> Written:
    """Write `leaderboard.html` and `leaderboard.png` of the newest day; of another `day`, with the day in their names.

    `newest` is the newest day that there could be: days before it that nobody kept are shown as lost. Raises
    NoReportError where the tables lack the day, and ReportError where the folder cannot be written.
    """
    as_of = day or max(warehouse.days(), default=None)
    if as_of is None:
        raise NoReportError("The tables have no day yet, so there is nothing to report. Run or import a day first.")
    with warehouse.reading() as tables:
        findings = validate_days(archive, [as_of], tables, now=utc_now()).findings
    data = read_report_data(
        warehouse, as_of, lost_days=lost_days(archive, warehouse, newest), warnings=findings.filter(severity="WARN")
    )
    page, name = render_page(data).encode(), f"leaderboard-{day}" if day else "leaderboard"
    written = Written(
        page=folder / f"{name}.html",
        picture=folder / f"{name}.png",
        as_of=as_of,
        citation=str(data.snapshot["citation"]),
        sha256=hashlib.sha256(page).hexdigest(),
    )
    _write(written.page, page)
    _write(written.picture, render_picture(data))
    return written


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise ReportError(f"The report {path} cannot be written: {error.strerror}. The tables are whole.") from error
