"""The command `doctor`: a verdict, and what it rests on. It changes nothing and makes no API calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.options import command_settings, dagster_home, demo_option, examples
from orpipeline.cli.output import print_line, progress_bars, some_days, span, watcher
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import NotPublishedError, OrpipelineError, StoreError, WarehouseBusyError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key

if TYPE_CHECKING:
    import polars as pl

    from orpipeline.archive import Archive

_RECENT_DAYS = 7
_OK, _WARNING, _PROBLEM = "✓", "!", "✗"


@click.command(
    short_help="Show whether all is ready, and which days are lost.",
    epilog=examples(
        "orpipeline doctor",
        "orpipeline doctor --deep || echo 'look at orpipeline'    # for a monitor",
    ),
)
@click.option("--deep", is_flag=True, help="Also read every archived response and compare its sha256.")
@demo_option
@click.pass_context
def doctor(context: click.Context, deep: bool, demo: bool) -> None:
    """Show whether days can be recorded, which are lost, and how much of the API's budget is used.

    "Ready" and "Works, with ... warnings" exit with 0; "Not ready", which names what prevents daily recording, exits
    with 1. A lost day is one that you missed and that the API no longer serves.

    This command changes nothing and makes no API calls. It also works on a read-only disk, and with a locked or damaged
    warehouse: it shows what can be read, and why the rest cannot.
    """
    found = _Findings(command_settings(demo=demo), demo=demo)
    found.key_and_api(context.obj)
    found.folders()
    for part in (found.archived, found.tables, found.requests, found.spool, found.stores):
        found.attempt(part)
    if deep:
        found.attempt(found.sha256)
    verdict = found.verdict()
    print_line(verdict)
    for mark, name, text in found.lines:
        print_line(f"{mark} {name:<15}{text}")
    if verdict.startswith("Not ready"):
        context.exit(1)


@dataclass
class _Findings:
    """What was found: a mark, a name and a text for each line."""

    settings: Settings
    demo: bool
    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, text: object, mark: str = _OK) -> None:
        """Add a line."""
        self.lines.append((mark, name, str(text)))

    def attempt(self, part: Callable[[], None]) -> None:
        """Look at a part; an error that it raises is a problem."""
        try:
            part()
        except OrpipelineError as error:
            self.add(part.__name__.replace("_", " "), error, _PROBLEM)

    def verdict(self) -> str:
        """Return the first line of the output."""
        problems, warnings = ([name for mark, name, _ in self.lines if mark == one] for one in (_PROBLEM, _WARNING))
        if problems:
            return f"Not ready: see {', '.join(dict.fromkeys(problems))}."
        if warnings:
            count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
            return f"Works, with {count}: see {', '.join(dict.fromkeys(warnings))}."
        return "Ready."

    @property
    def _newest(self) -> date:
        return newest_completed_day(utc_now())

    @cached_property
    def _archive(self) -> Archive:
        from orpipeline.archive import Archive

        return Archive(self.settings.archive)

    def key_and_api(self, env_file: Path | None) -> None:
        """Look at what makes every request fail before it is sent."""
        self.add("settings file", env_file or "none (no `.env` in the current folder)")
        if self.demo:
            self.add("key", "not needed: the demo's API is made up")
            return
        from orpipeline.openrouter.client import open_client

        if api_key() is None:
            self.add("key", f"{API_KEY} is not set: set it to a key from openrouter.ai/settings/keys", _PROBLEM)
        else:
            self.add("key", "set")
        try:
            open_client(self.settings, api_key() or "none").check()
            self.add("API", self.settings.base_url)
        except OrpipelineError as error:
            self.add("API", error, _PROBLEM)

    def folders(self) -> None:
        """Look for files and folders on this machine that a run writes and that this process cannot write."""
        state, warehouse = self.settings.state, self.settings.warehouse
        places = {
            "archive": self.settings.archive,
            "warehouse": warehouse,
            "reports": self.settings.reports,
            "Dagster's state": dagster_home(self.settings),
            "lake's files": self.settings.lake_data if self.settings.is_lake else None,
            "warehouse's folder": warehouse.parent if isinstance(warehouse, Path) else None,
            "request budget": state / "budget.sqlite" if isinstance(state, Path) else None,
            "request budget's folder": state,
            "spool": None if isinstance(self.settings.archive, Path) else self.settings.spool,
        }
        locked: dict[Path, list[str]] = {}
        for name, path in places.items():
            if not isinstance(path, Path):
                continue
            existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
            is_wrong_kind = existing != path and not existing.is_dir()
            if is_wrong_kind or not os.access(existing, os.W_OK | (os.X_OK if existing.is_dir() else 0)):
                locked.setdefault(existing, []).append(name)
        for path, names in locked.items():
            self.add("disk", f"cannot write to {path} ({', '.join(names)})", _PROBLEM)

    def archived(self) -> None:
        """Look at the archive, and at the newest day in it."""
        archive, newest = self._archive, self._newest
        days, use = archive.days(), f"use `orpipeline {'demo' if self.demo else 'run'}` before 24:00 UTC"
        self.add("archive", f"{archive.place}: {span(days)}")
        if newest not in days:
            self.add("newest day", f"{newest} is not archived yet: {use}", _WARNING)
        elif not archive.is_current(newest):
            self.add("newest day", f"{newest} is damaged in the archive: {use}", _WARNING)
        else:
            self.add("newest day", f"{newest}: archived")

    def tables(self) -> None:
        """Look at the tables, the published copy, and the days that are missing from either."""
        from orpipeline.load import lost_days
        from orpipeline.warehouse.warehouse import open_warehouse

        archived, newest = self._archive.days(), self._newest
        try:
            snapshots = open_warehouse(self.settings.model_copy(update={"lock_wait_seconds": 0})).read("snapshots")
        except WarehouseBusyError as error:
            self.add("warehouse", error, _WARNING)
            self._lost(lost_days(self._archive, [], newest), " (unless the tables have them)")
            return
        stored = snapshots["as_of"].to_list()
        self.add("warehouse", f"{self.settings.warehouse}: {span(stored)}")
        self._published(snapshots)
        unloaded = sorted(set(archived) - set(stored))
        if unloaded:
            self.add("not in tables", f"{some_days(unloaded)}: use `orpipeline rebuild`", _WARNING)
        self._lost(lost_days(self._archive, stored, newest))

    def _lost(self, lost: Sequence[date], unless: str = "") -> None:
        recent = any(day > self._newest - timedelta(days=_RECENT_DAYS) for day in lost)
        why = unless if lost and unless else " (is the schedule running?)" if recent else ""
        self.add("lost days", f"{some_days(lost)}{why}", _WARNING if recent else _OK)

    def _published(self, snapshots: pl.DataFrame) -> None:
        """Look at the published copy: it is current if it has the rows of the warehouse's `snapshots`."""
        from orpipeline.warehouse.reading import read

        if isinstance(self.settings.warehouse, str):
            return  # readers open the lake itself
        try:
            published = read("openrouter.snapshots", settings=self.settings)
        except NotPublishedError:
            self.add("published", f"{self.settings.published}: none yet; each run publishes it")
        except StoreError as error:
            self.add("published", error, _PROBLEM)
        except OrpipelineError as error:
            self.add("published", f"{error} Use `orpipeline rebuild`.", _WARNING)
        else:
            is_current, days = published.equals(snapshots), span(published["as_of"].to_list())
            old = "" if is_current else ", older than the warehouse: use `orpipeline rebuild`"
            self.add("published", f"{self.settings.published}: {days}{old}", _OK if is_current else _WARNING)

    def requests(self) -> None:
        """Look at the request budget."""
        from orpipeline.openrouter.budget import open_budget

        budget = open_budget(self.settings)
        if isinstance(budget.place, Path) and not budget.place.exists():  # this command creates nothing
            budget = replace(budget, place=Path(":memory:"))
        state = budget.state()
        self.add(
            "requests",
            f"{state.used_last_minute} of {budget.per_minute} in the last minute, {state.used_last_day} of "
            f"{budget.per_day} in the last 24 hours",
        )
        if isinstance(self.settings.state, Path):
            self.add("budget", f"{self.settings.state} (use one {PREFIX}STATE for all that use the same key)")
        if state.next_request_at is not None:
            self.add("next request", f"{state.next_request_at:%Y-%m-%d %H:%M:%S} UTC at the earliest", _WARNING)

    def spool(self) -> None:
        """Look for responses that wait until the archive can take them."""
        from orpipeline.archive import Archive

        for folder in sorted(one for one in self.settings.spool.parent.glob("*") if one.is_dir()):
            waiting = Archive(folder).all()
            if waiting:
                then = "the next run archives what it can"
                if folder != self.settings.spool:
                    then = f"they are of other settings: set that archive again, or use `orpipeline import {folder}`"
                days = some_days(sorted({one.as_of for one in waiting if one.as_of}))
                self.add("spool", f"{folder} has responses that wait for the archive, of days {days}: {then}", _WARNING)

    def stores(self) -> None:
        """Look at the object stores that nothing else has read: those of a lake, and of its reports."""
        from orpipeline.stores import Store

        places = {"LAKE_DATA": self.settings.lake_data} if self.settings.is_lake else {}
        if isinstance(self.settings.warehouse, str):
            places["REPORTS"] = self.settings.reports
        for setting, place in places.items():
            if isinstance(place, str):
                Store(place, setting=PREFIX + setting).entries("-")

    def sha256(self) -> None:
        """Read every archived response."""
        archived = self._archive.all()
        with progress_bars() as progress:
            done = watcher(progress)("Reading the archive", len(archived), "responses")
            damaged = []
            for content in self._archive.read_all(archived):
                damaged += [content] if isinstance(content, StoreError) else []
                done(1)
        self.add("sha256", f"{len(archived) - len(damaged)} of {len(archived)} archived responses match their sha256")
        for error in damaged:
            self.add("sha256", error, _PROBLEM)
