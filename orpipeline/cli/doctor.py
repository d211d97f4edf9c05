"""The command `doctor`: settings, missing days, the request budget, and a verdict. It changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli import terminal
from orpipeline.cli.options import command_settings, dagster_home, demo_option, examples
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import NotPublishedError, OrpipelineError, StoreError, WarehouseBusyError, WarehouseError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key

if TYPE_CHECKING:
    import polars as pl

    from orpipeline.archive import Archive
    from orpipeline.cli.survival import Part

Rows = list[tuple[str, str]]
_RECENT_DAYS = 7


@click.command(
    short_help="Show settings, lost days, and whether all is ready.",
    epilog=examples(
        "orpipeline doctor",
        "orpipeline doctor --deep || echo 'look at orpipeline'    # for a monitor",
    ),
)
@click.option("--deep", is_flag=True, help="Also read every archived response and compare its sha256.")
@demo_option
@click.pass_obj
def doctor(env_file: Path | None, deep: bool, demo: bool) -> None:
    """Show settings, lost days and API usage, and end with a verdict.

    "Ready." and "Works, with ... warnings" exit with 0; "Not ready", which names what prevents daily recording, exits
    with 1. A lost day is one that you missed and that the API no longer serves. The table shows where each part is, and
    whether it survives the loss of this machine.

    This command changes nothing and makes no API calls. It also works on a read-only disk, and with a locked or damaged
    warehouse: it shows what can be read, and why the rest cannot. It reads object stores and databases but does not
    test whether they can be written.
    """
    from orpipeline.archive import Archive
    from orpipeline.cli import survival

    settings, now = command_settings(demo=demo), utc_now()
    archive = Archive(settings.archive)
    report = _Report(demo=demo)
    report.rows += _setting_rows(settings, env_file, demo=demo)
    if not demo:  # its API is a stand-in, with its own key
        _check_api(settings, report)
    parts = survival.parts(settings)
    _check_places(settings, report)
    if report.try_to_add("archive", lambda: _archive_rows(archive, now, report)) or isinstance(archive.place, Path):
        report.try_to_add("days", lambda: _day_rows(settings, archive, now, report))
    else:  # the store would only fail once more
        report.rows.append(("warehouse", _snapshots(settings, report)[1]))
    _check_stores(settings, report)
    _add_budget(settings, next(part for part in parts if part.name == "budget"), report)
    report.try_to_add("spool", lambda: _waiting_rows(settings, report))
    contradiction = survival.contradiction(parts)
    if contradiction:
        report.warnings.append(contradiction)
    damaged: list[StoreError] = []
    if deep:
        report.try_to_add("sha256", lambda: _sha256_rows(archive, damaged, report))
    terminal.print_rows(terminal.out, report.rows)
    for error in damaged:
        terminal.print_line(terminal.out, str(error))
    terminal.out.print()
    terminal.print_rows(terminal.out, survival.rows(parts))
    terminal.out.print()
    if report.problems:
        raise OrpipelineError(f"Not ready: {'; '.join(report.problems)}.")
    terminal.print_line(terminal.out, report.verdict())


@dataclass
class _Report:
    """The rows to print, the problems that prevent daily recording, and the warnings."""

    demo: bool
    rows: Rows = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        """The command that records the newest day."""
        return "`orpipeline demo`" if self.demo else "`orpipeline run`"

    def try_to_add(self, part: str, rows: Callable[[], Rows]) -> bool:
        """Add the rows that a function returns, or a row with its error and a problem. Return whether there is none."""
        try:
            self.rows += rows()
        except OrpipelineError as error:
            self.rows.append((part, str(error)))
            self.problems.append(f"the {part} cannot be read (the reason is above)")
            return False
        return True

    def verdict(self) -> str:
        """Return the last line, if there is no problem."""
        if not self.warnings:
            return "Ready."
        count = "1 warning" if len(self.warnings) == 1 else f"{len(self.warnings)} warnings"
        return f"Works, with {count}: {'; '.join(self.warnings)}."


def _setting_rows(settings: Settings, env_file: Path | None, *, demo: bool) -> Rows:
    key = "set" if api_key() else f"{API_KEY} is not set: nothing can be fetched"
    return [
        ("settings file", str(env_file) if env_file else "none (no `.env` in the current folder)"),
        ("key", "not needed: the demo's API is made up" if demo else key),
        ("API", "the demo's own, on this machine" if demo else settings.base_url),
    ]


def _check_api(settings: Settings, report: _Report) -> None:
    """Add what makes every request fail before it is sent."""
    from orpipeline.openrouter.client import open_client

    if api_key() is None:
        report.problems.append(f"{API_KEY} is not set: set it to a key from openrouter.ai/settings/keys")
        return
    try:
        open_client(settings, api_key()).check()
    except OrpipelineError as error:
        report.problems.append(str(error).rstrip("."))


def _check_places(settings: Settings, report: _Report) -> None:
    """Add the files and folders on this machine that a run writes and that this process cannot write."""
    places = {
        "archive": settings.archive,
        "warehouse": settings.warehouse,
        "reports": settings.reports,
        "Dagster's state": dagster_home(settings),
    }
    if settings.is_lake:
        places["lake's files"] = settings.lake_data
    if isinstance(settings.warehouse, Path):
        places["warehouse's folder"] = settings.warehouse.parent
    if isinstance(settings.state, Path):
        places |= {"request budget": settings.state / "budget.sqlite", "request budget's folder": settings.state}
    if isinstance(settings.archive, str):
        places["spool"] = settings.spool
    locked: dict[Path, list[str]] = {}
    for name, path in places.items():
        if not isinstance(path, Path):
            continue
        existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
        is_wrong_kind = existing != path and not existing.is_dir()
        if is_wrong_kind or not os.access(existing, os.W_OK | (os.X_OK if existing.is_dir() else 0)):
            locked.setdefault(existing, []).append(name)
    report.problems += [f"cannot write to {path} ({', '.join(names)})" for path, names in locked.items()]


def _archive_rows(archive: Archive, now: datetime, report: _Report) -> Rows:
    archived, newest = archive.days(), newest_completed_day(now)
    fetched = "archived"
    if newest not in archived:
        fetched = "not fetched yet; the API serves it until 24:00 UTC"
        report.warnings.append(f"{newest} is not archived yet: use {report.run} before 24:00 UTC")
    elif not archive.is_current(newest):
        fetched = "archived, but damaged: fetch it again before 24:00 UTC"
        report.warnings.append(f"{newest} is damaged in the archive: use {report.run} before 24:00 UTC")
    return [("archive", f"{archive.place}: {terminal.span(archived)}"), ("newest day", f"{newest}: {fetched}")]


def _day_rows(settings: Settings, archive: Archive, now: datetime, report: _Report) -> Rows:
    from orpipeline.load import lost_days

    snapshots, warehouse = _snapshots(settings, report)
    stored = [] if snapshots is None else snapshots["as_of"].to_list()
    newest = newest_completed_day(now)
    lost = lost_days(archive, stored, newest)
    if snapshots is None:
        unless = " (unless the tables have them)" if lost else ""
        return [("warehouse", warehouse), ("lost days", f"{terminal.some_days(lost)}{unless}")]
    unloaded = sorted(set(archive.days()) - set(stored))
    if unloaded:
        report.warnings.append(f"{_count(unloaded, 'archived day')} not in the tables: use `orpipeline rebuild`")
    recent = [day for day in lost if day > newest - timedelta(days=_RECENT_DAYS)]
    if recent:
        report.warnings.append(f"{_count(recent, f'of the last {_RECENT_DAYS} days')} lost (is the schedule running?)")
    return [
        ("warehouse", warehouse),
        ("published", _published(settings, snapshots, report)),
        ("not in tables", terminal.some_days(unloaded)),
        ("lost days", terminal.some_days(lost)),
    ]


def _snapshots(settings: Settings, report: _Report) -> tuple[pl.DataFrame | None, str]:
    """Return the rows of `snapshots`, None if they cannot be read now, and what to show about the warehouse."""
    from orpipeline.warehouse.warehouse import open_warehouse

    try:
        snapshots = open_warehouse(settings.model_copy(update={"lock_wait_seconds": 0})).read("snapshots")
    except WarehouseBusyError as error:
        holder = re.search(r"PID \d+", str(error))
        named = f" ({holder[0]})" if holder else ""
        report.warnings.append(f"the warehouse is locked by another process{named}, so its days are not shown")
        return None, str(error)
    except WarehouseError as error:
        report.problems.append("the warehouse cannot be read (the reason is above)")
        return None, str(error)
    return snapshots, f"{settings.warehouse}: {terminal.span(snapshots['as_of'].to_list())}"


def _published(settings: Settings, snapshots: pl.DataFrame, report: _Report) -> str:
    """Return what to show about the published copy. It is current if it has the rows of the warehouse's `snapshots`."""
    from orpipeline.warehouse.reading import read

    if isinstance(settings.warehouse, str):
        return "none: readers open the warehouse itself"
    try:
        published = read("openrouter.snapshots", settings=settings)
    except NotPublishedError:
        return f"{settings.published}: none yet; each run publishes it"
    except StoreError as error:
        report.problems.append("the place of the published copy cannot be used (the reason is above)")
        return str(error)
    except OrpipelineError as error:
        report.warnings.append("the published copy cannot be read: use `orpipeline rebuild`")
        return str(error)
    if not published.equals(snapshots):
        report.warnings.append("the published copy is older than the warehouse: use `orpipeline rebuild`")
    return f"{settings.published}: {terminal.span(published['as_of'].to_list())}"


def _check_stores(settings: Settings, report: _Report) -> None:
    """Add the object stores that cannot be used and that nothing else has read: those of a lake, and of its reports."""
    places = {"lake's files": (settings.lake_data, "LAKE_DATA")} if settings.is_lake else {}
    if isinstance(settings.warehouse, str):
        places["reports"] = (settings.reports, "REPORTS")
    for name, (place, setting) in places.items():
        if isinstance(place, str):
            from orpipeline.stores import Store

            try:
                Store(place, setting=PREFIX + setting).entries("-")
            except OrpipelineError as error:
                report.rows.append((name, str(error)))
                report.problems.append(f"the place of the {name} cannot be used (the reason is above)")


def _waiting_rows(settings: Settings, report: _Report) -> Rows:
    """Return a row for responses that wait until the archive can take them."""
    from orpipeline.archive import Archive

    rows = []
    for spool in sorted(folder for folder in settings.spool.parent.glob("*") if folder.is_dir()):
        waiting = Archive(spool).all()
        if not waiting:
            continue
        responses = "1 response waits" if len(waiting) == 1 else f"{len(waiting)} responses wait"
        archive, then = ("the archive", "the next run archives what it can")
        if spool != settings.spool:
            archive, then = (
                "an archive of other settings",
                f"set that archive again, or use `orpipeline import {spool}`",
            )
        report.warnings.append(f"{responses} on this machine for {archive}: {then}")
        days = terminal.some_days(sorted({one.as_of for one in waiting if one.as_of}))
        rows.append(("spool", f"{spool}: {responses} for {archive}, of days {days}"))
    return rows


def _add_budget(settings: Settings, part: Part, report: _Report) -> None:
    from orpipeline.openrouter.budget import open_budget

    budget = open_budget(settings)
    if isinstance(budget.place, Path) and not budget.place.exists():  # this command creates nothing
        budget = replace(budget, place=Path(":memory:"))
    try:
        state = budget.state()
    except StoreError as error:
        report.rows.append(("requests", str(error)))
        report.problems.append("the request budget cannot be used (the reason is above)")
        return
    used = (
        f"{state.used_last_minute} of {budget.per_minute} in the last minute, "
        f"{state.used_last_day} of {budget.per_day} in the last 24 hours"
    )
    folders = f"if other data folders use the same key, set {PREFIX}STATE to it in all of them"
    shared = f"{part.place}: {folders if isinstance(settings.state, Path) else 'one for all who use this database'}"
    report.rows += [("requests", used), ("budget", shared)]
    if state.next_request_at is not None:
        at = f"{state.next_request_at:%Y-%m-%d %H:%M:%S} UTC"
        report.rows.append(("next request", at))
        report.warnings.append(f"the API cannot be called before {at}")


def _sha256_rows(archive: Archive, damaged: list[StoreError], report: _Report) -> Rows:
    """Read every archived response, and add the errors of those that are damaged to `damaged`."""
    archived = archive.all()
    total = len(archived)
    with terminal.progress_bars() as progress:
        done = terminal.watcher(progress)("Reading the archive", total, "responses")
        for content in archive.read_all(archived):
            damaged += [content] if isinstance(content, StoreError) else []
            done(1)
    if damaged:
        are = "archived response is" if len(damaged) == 1 else "archived responses are"
        report.problems.append(f"{len(damaged)} {are} damaged (named above)")
    return [("sha256", f"{total - len(damaged)} of {total} archived responses match their sha256")]


def _count(days: Sequence[date], noun: str) -> str:
    """Return `1 archived day is` or `3 archived days are`; a noun that ends with `days` stays as it is."""
    plural = noun if len(days) == 1 or noun.endswith("days") else f"{noun}s"
    return f"{len(days)} {plural} {'is' if len(days) == 1 else 'are'}"
