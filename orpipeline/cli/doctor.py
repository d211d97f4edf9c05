"""The command `doctor`: settings, missing days and the request budget. It changes nothing, and works on bad days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli import terminal
from orpipeline.cli.options import command_settings, demo_option
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import OrpipelineError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key

if TYPE_CHECKING:
    from orpipeline.archive.folder import Archive
    from orpipeline.archive.records import ArchiveError

Rows = list[tuple[str, str]]


@click.command()
@click.option("--deep", is_flag=True, help="Also read every archived answer and compare its sha256.")
@demo_option
@click.pass_obj
def doctor(env_file: Path | None, deep: bool, demo: bool) -> None:
    """Show settings, missing days and API usage.

    A lost day is one that you missed and that the API no longer serves. This command changes nothing. It also works on
    a read-only disk, and with a locked or damaged warehouse: it shows what can be read, and why the rest cannot.
    """
    from orpipeline.archive.folder import Archive

    settings, now = command_settings(demo=demo), utc_now()
    archive = Archive(settings.archive)
    report = _Report()
    report.add(_setting_rows(settings, env_file))
    report.try_to_add("archive", lambda: _archive_rows(archive, now))
    report.try_to_add("days", lambda: _day_rows(settings, archive, now, report))
    report.try_to_add("budget", lambda: _budget_rows(settings))
    damaged: list[ArchiveError] = []
    if deep:
        report.try_to_add("sha256", lambda: _sha256_rows(archive, damaged))
    terminal.print_rows(terminal.out, report.rows)
    for error in damaged:
        terminal.print_line(terminal.out, str(error))
    if damaged:
        raise OrpipelineError(f"{len(damaged)} archived answers are damaged; they are named above.")
    if report.failed:
        raise OrpipelineError(f"Cannot be read: {', '.join(report.failed)}; the reason is above.")


class _Report:
    """The rows to print, and the names of the parts that cannot be read."""

    def __init__(self) -> None:
        self.rows: Rows = []
        self.failed: list[str] = []

    def add(self, rows: Rows) -> None:
        """Add rows."""
        self.rows += rows

    def try_to_add(self, part: str, rows: Callable[[], Rows]) -> None:
        """Add the rows that a function returns, or a row with its error."""
        try:
            self.rows += rows()
        except OrpipelineError as error:
            self.rows.append((part, str(error)))
            self.failed.append(part)


def _setting_rows(settings: Settings, env_file: Path | None) -> Rows:
    return [
        ("settings file", str(env_file) if env_file else "none (no `.env` in the current folder)"),
        ("key", "set" if api_key() else f"{API_KEY} is not set: nothing can be fetched"),
        ("API", settings.base_url),
    ]


def _archive_rows(archive: Archive, now: datetime) -> Rows:
    archived, newest = archive.days(), newest_completed_day(now)
    fetched = "archived" if newest in archived else "not fetched yet; the API serves it until 24:00 UTC"
    if newest in archived and not archive.is_current(newest):
        fetched = "archived, but damaged: fetch it again before 24:00 UTC"
    rows = [("archive", f"{archive.root}: {terminal.span(archived)}"), ("newest day", f"{newest}: {fetched}")]
    unfinished = [str(folder) for folder in archive.leftovers()]
    misdated = [str(record.path.parent) for record in archive.misdated()]
    if unfinished:
        rows.append(("unfinished", f"{', '.join(unfinished)}: complete answers that the next run archives"))
    if misdated:
        rows.append(("belong to no day", f"{', '.join(misdated)}: the API could not have had that day then"))
    return rows


def _day_rows(settings: Settings, archive: Archive, now: datetime, report: _Report) -> Rows:
    from orpipeline.history import lost_days

    stored, warehouse = _table_days(settings, report)
    lost = lost_days(archive, stored or [], newest_completed_day(now))
    if stored is None:
        unless = " (unless the tables have them)" if lost else ""
        return [("warehouse", warehouse), ("lost days", f"{terminal.some_days(lost)}{unless}")]
    return [
        ("warehouse", warehouse),
        ("not in tables", terminal.some_days(sorted(set(archive.days()) - set(stored)))),
        ("lost days", terminal.some_days(lost)),
    ]


def _table_days(settings: Settings, report: _Report) -> tuple[Sequence[date] | None, str]:
    """Return the days in the tables, None if they cannot be read now, and what to show about the warehouse."""
    from orpipeline.warehouse.database import Warehouse
    from orpipeline.warehouse.errors import WarehouseBusyError, WarehouseError

    try:
        stored = Warehouse(settings.warehouse, lock_wait_seconds=0).days()
    except WarehouseBusyError as error:
        return None, str(error)
    except WarehouseError as error:
        report.failed.append("warehouse")
        return None, str(error)
    return stored, f"{settings.warehouse}: {terminal.span(stored)}"


def _budget_rows(settings: Settings) -> Rows:
    from orpipeline.openrouter.budget import open_budget

    state = open_budget(settings).peek()
    used = (
        f"{state.used_last_minute} of {state.per_minute} in the last minute, "
        f"{state.used_last_day} of {state.per_day} in the last 24 hours"
    )
    rows = [
        ("requests", used),
        ("budget", f"{settings.state}: if other data folders use the same key, set {PREFIX}STATE to it in all of them"),
    ]
    if state.next_request_at is not None:
        rows.append(("next request", f"{state.next_request_at:%Y-%m-%d %H:%M:%S} UTC"))
    return rows


def _sha256_rows(archive: Archive, damaged: list[ArchiveError]) -> Rows:
    """Read every archived answer, and add the errors of those that are damaged to `damaged`."""
    from orpipeline.rebuild import damaged_answers

    total = len(archive.folders())
    with terminal.progress_bars() as progress:
        damaged += damaged_answers(archive, terminal.watcher(progress)("Reading the archive", total, "answers"))
    return [("sha256", f"{total - len(damaged)} of {total} archived answers match their sha256")]
