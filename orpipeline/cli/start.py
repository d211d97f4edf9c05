"""The commands to start with: `demo`, `dev` and `doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.terminal import (
    command_settings,
    dagster_home,
    demo_option,
    demo_settings,
    examples,
    from_first_day,
    out,
    print_line,
    progress_bars,
    some_days,
    span,
    watcher,
)
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import NotPublishedError, OrpipelineError, StoreError, WarehouseBusyError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key, load_settings

if TYPE_CHECKING:
    import polars as pl

_OK, _WARNING, _PROBLEM = "✓", "!", "✗"
_RECENT_DAYS = 7
Line = tuple[str, str, object]
"""A mark, a name and a text."""


@click.command(
    short_help="Run the whole pipeline on made-up data.",
    epilog=examples(
        "orpipeline demo               # 30 days",
        "orpipeline demo --days 400    # more than a year",
    ),
)
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Make up this many days.")
def demo(days: int) -> None:
    """Run the whole pipeline on made-up data.

    The demo needs no API key and no network, and has its own data folder. At the end, it prints the leaderboard and
    what to open next.
    """
    newest = newest_completed_day(utc_now())
    wanted = [newest - timedelta(days=n) for n in reversed(range(days))]
    settings = demo_settings(load_settings(), first=wanted[0])
    out.print(f"A demo with made-up data: {days} days up to {newest}, in {settings.data_dir}")
    with out.status("Starting Dagster") as status:
        from orpipeline.archive import Archive
        from orpipeline.capture import Fetch
        from orpipeline.catalogue import CATALOGUE
        from orpipeline.cli.dagster_runs import run_days
        from orpipeline.cli.leaderboard import show_leaderboard
        from orpipeline.testing.local_api import KEY, LocalApi
        from orpipeline.testing.sample_catalogue import sample_catalogue
        from orpipeline.testing.sample_responses import sample_response
        from orpipeline.testing.tables import archive_samples

        with LocalApi() as api:
            os.environ[API_KEY] = KEY  # of this process only: the key is read when the API is called
            archive = Archive(settings.archive)
            for one, sample in ((archive, sample_response), (archive.of(CATALOGUE), sample_catalogue)):
                archive_samples(one, sample, wanted[:-1], source="orpipeline demo (made up)")
            local = settings.model_copy(update={"base_url": api.base_url})
            reported = run_days(local, wanted, Fetch.auto, status.update)
    show_leaderboard(settings, top=10)
    me = "orpipeline" if shutil.which("orpipeline") else sys.argv[0]
    out.print(
        f"\nNext steps:\n  {reported['page']}  (open it in a browser)\n"
        f"  {me} dev --demo  (the same data in the Dagster UI)\n"
        f"  {me} leaderboard --demo --scope code  (the leaderboard of code tasks)\n"
        f"  export {API_KEY}=...; {me} run  (real data, for yesterday)"
    )


@click.command(
    short_help="Start the Dagster UI.",
    epilog=examples(
        "orpipeline dev                       # http://127.0.0.1:3000/asset-groups",
        "orpipeline dev --demo --port 3001    # the demo's data",
    ),
)
@demo_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that the UI listens on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="The UI's port.")
def dev(demo: bool, host: str, port: int) -> None:
    """Start the Dagster UI.

    The schedules and sensors run until the UI stops. Dagster's state is stored on disk and survives restarts. The daily
    partitions begin with the first archived day, unless you set ORPIPELINE_START_DATE.
    """
    if importlib.util.find_spec("dagster_webserver") is None:
        raise OrpipelineError("The Dagster UI is not installed. Install it with: pip install 'orpipeline[ui]'")
    settings = from_first_day(command_settings(demo=demo))
    from orpipeline.cli.dagster_runs import dagster_instance, packaged_file, prepare_dagster_home

    home = prepare_dagster_home(settings)
    with dagster_instance():
        pass  # Dagster's processes must not create the databases at once
    out.print(f"Dagster's state: {home}\nData: {settings.data_dir}")
    if not demo and api_key() is None:
        out.print(f"{API_KEY} is not set: schedules and sensors skip, and days that you miss are gone.")
    out.print(f"Open http://{host}:{port}/asset-groups when the server is ready. Press Ctrl-C to stop it.\n")
    # Dagster suggests `dg dev` instead, which does the same and needs another package.
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
    command = [*python, "-m", "dagster", "dev", "-w", str(packaged_file("workspace.yaml")), "-h", host, "-p", str(port)]
    # It gets the terminal's Ctrl-C, too, and ends in order. The handler is set first: a background job of a shell
    # ignores SIGINT, its children would too, and Dagster treats SIGTERM as it treats SIGINT.
    signal.signal(signal.SIGINT, lambda *_: None)
    with ExitStack() as stack:
        environment = dict(os.environ)
        if demo:
            from orpipeline.testing.local_api import KEY, LocalApi

            api = stack.enter_context(LocalApi())
            settings = settings.model_copy(update={"base_url": api.base_url})
            foreign = (PREFIX, API_KEY)
            environment = {name: value for name, value in environment.items() if not name.startswith(foreign)}
            environment[API_KEY] = KEY
        environment |= variables(settings)
        # Dagster lets the `.env` of its current folder override the environment, so it does not start in ours.
        process = stack.enter_context(subprocess.Popen(command, env=environment, cwd=home))  # noqa: S603 - our own Python
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
    if code == -signal.SIGINT:  # Ctrl-C before Dagster handled it
        raise KeyboardInterrupt
    if code:
        raise OrpipelineError(f"The Dagster UI ended with exit code {code}; its output above shows the reason.")


def variables(settings: Settings) -> Mapping[str, str]:
    """Return the settings as environment variables, except for the secret, which a child process inherits.

    Where a lake keeps its files is left out, unless there is a lake.
    """
    unused = set() if settings.is_lake else {"lake_data"}
    values = settings.model_dump(mode="json", exclude={"alert_webhook", *unused}, exclude_none=True)
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}


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
    settings = command_settings(demo=demo)
    lines: list[Line] = [(_OK, "settings file", context.obj or "none (no `.env` in the current folder)")]
    parts = {
        "API": _api(settings, demo=demo),
        "disk": _disk(settings),
        "archive": _archived(settings, use=f"use `orpipeline {'demo' if demo else 'run'}` before 24:00 UTC"),
        "tables": _tables(settings),
        "requests": _requests(settings),
        "spool": _spool(settings),
        **({"sha256": _sha256(settings)} if deep else {}),
    }
    for name, found in parts.items():
        try:
            for line in found:
                lines.append(line)
        except OrpipelineError as error:
            lines.append((_PROBLEM, name, error))
    problems, warnings = ([name for mark, name, _ in lines if mark == one] for one in (_PROBLEM, _WARNING))
    named = ", ".join(dict.fromkeys(problems or warnings))
    count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    works = f"Works, with {count}: see {named}." if warnings else "Ready."
    print_line(f"Not ready: see {named}." if problems else works)
    for mark, name, text in lines:
        print_line(f"{mark} {name:<15}{text}")
    context.exit(1 if problems else 0)


def _api(settings: Settings, *, demo: bool) -> Iterator[Line]:
    """Look for what makes every request fail before it is sent."""
    if demo:
        yield _OK, "key", "not needed: the demo's API is made up"
        return
    from orpipeline.openrouter.client import open_client

    if api_key() is None:
        yield _PROBLEM, "key", f"{API_KEY} is not set: set it to a key from openrouter.ai/settings/keys"
    else:
        yield _OK, "key", "set"
    open_client(settings, api_key() or "none").check()
    yield _OK, "API", settings.base_url


def _disk(settings: Settings) -> Iterator[Line]:
    """Look for places on this machine that a run writes and that this process cannot write."""
    archive = settings.archive if isinstance(settings.archive, Path) else settings.spool
    places = {archive, settings.state, settings.reports, dagster_home(settings)}
    places |= {settings.lake_data} if settings.is_lake else {settings.warehouse, Path(settings.warehouse).parent}
    locked = set()
    for place in (one for one in places if isinstance(one, Path)):
        existing = next(path for path in (place, *place.parents) if os.path.lexists(path))
        is_folder = existing.is_dir()
        if not os.access(existing, os.W_OK | (os.X_OK if is_folder else 0)) or not (is_folder or existing == place):
            locked.add(existing)
    for path in sorted(locked):
        yield _PROBLEM, "disk", f"cannot write to {path}"


def _archived(settings: Settings, use: str) -> Iterator[Line]:
    """Look at the archive, and at the newest day in it."""
    from orpipeline.archive import Archive

    archive, newest = Archive(settings.archive), newest_completed_day(utc_now())
    days = archive.days()
    yield _OK, "archive", f"{archive.place}: {span(days)}"
    if archive.is_current(newest):
        yield _OK, "newest day", f"{newest}: archived"
    else:
        state = "is damaged in the archive" if newest in days else "is not archived yet"
        yield _WARNING, "newest day", f"{newest} {state}: {use}"


def _tables(settings: Settings) -> Iterator[Line]:
    """Look at the tables, the published copy, and the days that are missing from either."""
    from orpipeline.archive import Archive
    from orpipeline.load import lost_days
    from orpipeline.warehouse.warehouse import open_warehouse

    archive, newest = Archive(settings.archive), newest_completed_day(utc_now())

    def lost(stored: list[date], unless: str = "") -> Line:
        days = lost_days(archive, stored, newest)
        recent = any(day > newest - timedelta(days=_RECENT_DAYS) for day in days)
        why = unless if days and unless else " (is the schedule running?)" if recent else ""
        return _WARNING if recent else _OK, "lost days", f"{some_days(days)}{why}"

    try:
        snapshots = open_warehouse(settings.model_copy(update={"lock_wait_seconds": 0})).read("snapshots")
    except WarehouseBusyError as error:
        yield _WARNING, "warehouse", error
        yield lost([], " (unless the tables have them)")
        return
    stored = snapshots["as_of"].to_list()
    yield _OK, "warehouse", f"{settings.warehouse}: {span(stored)}"
    if isinstance(settings.warehouse, Path):  # readers open a lake itself
        yield _published(settings, snapshots)
    unloaded = sorted({*archive.days()} - {*stored})
    if unloaded:
        yield _WARNING, "not in tables", f"{some_days(unloaded)}: use `orpipeline rebuild`"
    yield lost(stored)


def _published(settings: Settings, snapshots: pl.DataFrame) -> Line:
    """Look at the published copy: it is current if it has the rows of the warehouse's `snapshots`."""
    from orpipeline.warehouse.reading import read

    try:
        published = read("openrouter.snapshots", settings=settings)
    except NotPublishedError:
        return _OK, "published", f"{settings.published}: none yet; each run publishes it"
    except OrpipelineError as error:
        return _WARNING, "published", f"{error} The next run publishes again."
    days = f"{settings.published}: {span(published['as_of'].to_list())}"
    if published.equals(snapshots):
        return _OK, "published", days
    return _WARNING, "published", f"{days}, older than the warehouse: use `orpipeline rebuild`"


def _requests(settings: Settings) -> Iterator[Line]:
    """Look at the request budget."""
    from orpipeline.openrouter.budget import open_budget

    budget = open_budget(settings)
    if isinstance(budget.place, Path) and not budget.place.exists():  # this command creates nothing
        budget = replace(budget, place=Path(":memory:"))
    state = budget.state()
    minute = f"{state.used_last_minute} of {budget.per_minute} in the last minute"
    yield _OK, "requests", f"{minute}, {state.used_last_day} of {budget.per_day} in the last 24 hours"
    if isinstance(settings.state, Path):
        yield _OK, "budget", f"{settings.state} (use one {PREFIX}STATE for all that use the same key)"
    if state.next_request_at is not None:
        yield _WARNING, "next request", f"{state.next_request_at:%Y-%m-%d %H:%M:%S} UTC at the earliest"


def _spool(settings: Settings) -> Iterator[Line]:
    """Look for responses that wait until the archive can take them."""
    from orpipeline.archive import Archive

    for folder in sorted(one for one in settings.spool.parent.glob("*") if one.is_dir()):
        waiting = sorted({one.as_of for one in Archive(folder).all() if one.as_of})
        if waiting:
            is_ours = folder == settings.spool
            then = "the next run archives them" if is_ours else f"use `orpipeline import {folder}`: of another archive"
            yield _WARNING, "spool", f"{folder} has responses that wait for the archive, {some_days(waiting)}: {then}"


def _sha256(settings: Settings) -> Iterator[Line]:
    """Read every archived response."""
    from orpipeline.archive import Archive

    archive = Archive(settings.archive)
    archived, damaged = archive.all(), []
    with progress_bars() as progress:
        done = watcher(progress)("Reading the archive", len(archived), "responses")
        for content in archive.read_all(archived):
            damaged += [content] if isinstance(content, StoreError) else []
            done(1)
    yield _OK, "sha256", f"{len(archived) - len(damaged)} of {len(archived)} archived responses match their sha256"
    for error in damaged:
        yield _PROBLEM, "sha256", error
