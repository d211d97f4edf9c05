"""The command `doctor`: settings, missing days and the request budget. It creates nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli import terminal
from orpipeline.cli.options import command_settings, demo_option, open_warehouse
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import OrpipelineError
from orpipeline.settings import API_KEY, Settings, api_key

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

    A lost day is one that you missed and that the API no longer serves. This command changes nothing.
    """
    from orpipeline.archive.folder import Archive

    settings, now = command_settings(demo=demo), utc_now()
    archive = Archive(settings.archive)
    rows = [*_setting_rows(settings, env_file), *_day_rows(settings, archive, now), *_budget_rows(settings)]
    damaged: list[ArchiveError] = []
    if deep:
        answers, damaged = _read_all(archive)
        rows.append(("sha256", f"{answers - len(damaged)} of {answers} archived answers match their sha256"))
    terminal.print_rows(terminal.out, rows)
    for error in damaged:
        terminal.print_line(terminal.out, str(error))
    if damaged:
        raise OrpipelineError(f"{len(damaged)} archived answers are damaged; they are named above.")


def _setting_rows(settings: Settings, env_file: Path | None) -> Rows:
    return [
        ("settings file", str(env_file) if env_file else "none (no `.env` in the current folder)"),
        ("key", "set" if api_key() else f"{API_KEY} is not set: nothing can be fetched"),
        ("API", settings.base_url),
    ]


def _day_rows(settings: Settings, archive: Archive, now: datetime) -> Rows:
    from orpipeline.history import lost_days

    warehouse, newest = open_warehouse(settings), newest_completed_day(now)
    archived, stored = archive.days(), warehouse.days()
    fetched = "archived" if newest in archived else "not fetched yet; the API serves it until 24:00 UTC"
    return [
        ("archive", f"{settings.archive}: {terminal.span(archived)}"),
        ("warehouse", f"{settings.warehouse}: {terminal.span(stored)}"),
        ("newest day", f"{newest}: {fetched}"),
        ("not in tables", terminal.some_days(sorted(set(archived) - set(stored)))),
        ("lost days", terminal.some_days(lost_days(archive, stored, newest))),
    ]


def _budget_rows(settings: Settings) -> Rows:
    from orpipeline.openrouter.budget import shared_budget

    budget = shared_budget(settings.state, settings.requests_per_minute, settings.requests_per_day)
    if not budget.path.exists():  # no request was ever counted, and opening the file would create it
        return [("requests", _requests(0, budget.per_minute, 0, budget.per_day))]
    state = budget.state()
    rows = [("requests", _requests(state.used_last_minute, state.per_minute, state.used_last_day, state.per_day))]
    if state.next_request_at is not None:
        rows.append(("next request", f"{state.next_request_at:%Y-%m-%d %H:%M:%S} UTC"))
    return rows


def _requests(last_minute: int, per_minute: int, last_day: int, per_day: int) -> str:
    return f"{last_minute} of {per_minute} in the last minute, {last_day} of {per_day} in the last 24 hours"


def _read_all(archive: Archive) -> tuple[int, list[ArchiveError]]:
    """Read every archived answer; return how many there are, and the errors of the damaged ones."""
    from orpipeline.rebuild import damaged_answers

    total = len(archive.folders())
    with terminal.progress_bars() as progress:
        return total, damaged_answers(archive, terminal.watcher(progress)("Reading the archive", total, "answers"))
