"""The commands of every day: `run`, `fetch` and `report`, and `dev` for the UI."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.options import command_settings, day_option, demo_option, examples, from_first_day
from orpipeline.cli.output import out, print_line, print_rows
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import DagsterStateError, DayNotAvailableError, OrpipelineError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key, load_settings

if TYPE_CHECKING:
    from orpipeline.archive import Revision
    from orpipeline.openrouter.response import Dataset


@click.command(
    short_help="Run the job `daily_snapshot` for one day.",
    epilog=examples(
        "orpipeline run                      # the newest day, fetched if needed",
        "orpipeline run --date 2026-10-06    # a day that the archive has",
    ),
)
@day_option
@click.option(
    "--fetch",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="When to call the API. `auto` calls it only for the newest day, and only if the archive lacks that day.",
)
@click.option("--no-report", is_flag=True, help="Skip the report.")
def run(day: date | None, fetch: str, no_report: bool) -> None:
    """Run the job `daily_snapshot` for one day.

    It fetches and archives the response, validates it, writes the tables, and writes the report of the newest day. The
    command prints the files that it wrote. It suits cron and CI: the exit code is 0 only if all is done, and an error
    is one line.
    """
    settings, day = load_settings(), day or newest_completed_day(utc_now())
    try:
        reported = run_days(settings, [day], fetch, report=not no_report)
    except DagsterStateError as error:
        raise _fetch_in_spite_of(error, settings, day, fetch) from error
    from orpipeline.archive import Archive

    print_line(f"{day} is in the archive and in the tables.")
    newest = Archive(settings.archive).latest(day)
    tables = [("warehouse", settings.warehouse)]
    if isinstance(settings.warehouse, Path):  # readers of a lake open the lake
        tables.append(("published", settings.published))
    existing = [(name, place) for name, place in tables if isinstance(place, str) or place.is_file()]
    print_rows([*([("response", newest.path)] if newest else []), *existing, *reported.items()])


def run_days(settings: Settings, days: Sequence[date], fetch: str, *, report: bool = True) -> Mapping[str, str]:
    """Run `daily_snapshot` in this process for the days from the first to the last, with one line of progress.

    Returns the paths of the report's files by name (`page`, `picture`, ...); none without the report.
    """
    with out.status("Starting Dagster") as status:
        from orpipeline.capture import Fetch
        from orpipeline.cli.dagster_runs import run_report, run_snapshot
        from orpipeline.cli.dagster_state import prepare_dagster_home
        from orpipeline.defs.partitions import daily_partitions, known_days

        first, newest = known_days(daily_partitions(settings))
        for day in (days[0], days[-1]):
            if not first <= day <= newest:
                raise click.UsageError(f"{day} is outside the daily partitions, {first} to {newest}.")
        prepare_dagster_home(settings)
        status.update(f"Running daily_snapshot for {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else ""))
        written = run_snapshot(settings, days, Fetch[fetch], status.update, print_line, report=report)
        if report and len(days) > 1:  # the run of a range leaves it out
            status.update("Writing the report")
            written = run_report(settings)
    return written


@click.command(
    short_help="Fetch and archive the newest day, and do nothing else.",
    epilog=examples(
        "orpipeline fetch             # if the archive lacks the newest day",
        "orpipeline fetch --always    # to find out whether it was restated",
    ),
)
@click.option("--always", is_flag=True, help="Call the API even if the archive has the newest day.")
def fetch(always: bool) -> None:
    """Fetch and archive the newest day, and do nothing else.

    This needs neither Dagster nor the warehouse, and suits cron as a backup: without --always, it calls the API only if
    the archive lacks the day. It also fetches the day's model catalogue, if the archive lacks that. `orpipeline run`
    loads the tables later.
    """
    from orpipeline.catalogue import CATALOGUE
    from orpipeline.openrouter.response import CLASSIFICATIONS

    settings, day = load_settings(), newest_completed_day(utc_now())
    failure, fetched = None, None
    try:
        fetched = fetch_dataset(settings, day, "always" if always else "auto", CLASSIFICATIONS)
    except OrpipelineError as error:  # the catalogue is fetched whatever happened
        failure = error
    try:
        catalogue = fetch_dataset(settings, day, "auto", CATALOGUE)
        about = f"The model catalogue is archived: {catalogue.path}" if catalogue else ""
    except OrpipelineError as error:
        about = f"The model catalogue of {day} is missing. {error}"
    if failure is not None:
        raise failure
    if fetched is None:
        print_line(f"The archive has {day}; the API was not called.")
    elif fetched.as_of and fetched.as_of >= day:  # it is later if midnight has passed meanwhile
        print_line(f"{fetched.as_of} is archived: {fetched.path}")
    else:
        raise DayNotAvailableError(
            f"{day} is not published yet: the API still serves {fetched.as_of} (archived). Try again in a few minutes."
        )
    if about:
        print_line(about)


def fetch_dataset(settings: Settings, day: date, mode: str, dataset: Dataset) -> Revision | None:
    """Call the API if `mode` (`auto`, `always` or `never`) requires it, and archive the response.

    Returns its revision, or None if the API was not called. Raises as `orpipeline.capture.capture` does.
    """
    from orpipeline.archive import Archive
    from orpipeline.capture import Fetch, capture
    from orpipeline.openrouter.client import open_client

    spool = None if isinstance(settings.archive, Path) else Archive(settings.spool, dataset=dataset)
    client, archive = open_client(settings, api_key(), dataset), Archive(settings.archive, dataset=dataset)
    return capture(client, archive, [day], Fetch[mode], utc_now(), spool=spool)


def _fetch_in_spite_of(error: DagsterStateError, settings: Settings, day: date, mode: str) -> DagsterStateError:
    """Fetch a day after Dagster's state has failed, and return the error with what became of the response."""
    from orpipeline.archive import Archive
    from orpipeline.openrouter.response import CLASSIFICATIONS

    try:
        # If the run had started, it may have called the API already; then the archive has the response.
        mode = "auto" if error.during_run and mode == "always" else mode
        fetched = fetch_dataset(settings, day, mode, CLASSIFICATIONS)
        has_day = Archive(settings.archive).is_current(day)
    except OrpipelineError as not_fetched:
        return DagsterStateError(f"{error} {day} could not be fetched either: {not_fetched}")
    outcome = f"{day} was not fetched: the API serves only the newest day."
    if fetched is not None:
        outcome = f"The response for {fetched.as_of} was fetched and archived as {fetched.path}."
    elif has_day:
        outcome = f"The archive has {day}."
    return DagsterStateError(f"{outcome} {error}")


@click.command(
    short_help="Write a day's report.",
    epilog=examples(
        "orpipeline report                      # index.html, of the newest day",
        "orpipeline report --date 2026-10-06    # 2026-10-06/index.html",
    ),
)
@day_option
@demo_option
def report(day: date | None, demo: bool) -> None:
    """Write a day's report.

    The report is a page to open in a browser, and its picture. The newest day is `index.html`; every day has a folder
    at an address that lasts. The command prints where they are. It reads the published copy, so it waits for no run.
    """
    settings = command_settings(demo=demo)
    with out.status("Writing the report"):
        from orpipeline.report.files import write_report
        from orpipeline.warehouse.reading import readable_tables
        from orpipeline.warehouse.warehouse import open_warehouse

        with readable_tables(open_warehouse(settings)) as tables:
            written = write_report(settings.reports, tables, day=day, now=utc_now())
    print_rows([("page", written.page), ("dated", written.dated), ("picture", written.picture)])


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
    from orpipeline.cli.dagster_state import dagster_instance, packaged_file, prepare_dagster_home

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
    # Dagster lets the `.env` of its current folder override the environment, so it does not start in ours.
    with (
        _child_environment(settings, demo=demo) as environment,
        subprocess.Popen(command, env=environment, cwd=home) as process,  # noqa: S603 - our own interpreter
    ):
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
    if code == -signal.SIGINT:  # Ctrl-C before Dagster handled it
        raise KeyboardInterrupt
    if code:
        raise OrpipelineError(f"The Dagster UI ended with exit code {code}; its output above shows the reason.")


@contextmanager
def _child_environment(settings: Settings, *, demo: bool) -> Iterator[dict[str, str]]:
    """Yield the environment of the UI's processes; with `demo`, a local stand-in of the API runs until the end."""
    if not demo:
        yield {**os.environ, **_variables(settings)}
        return
    from orpipeline.testing.local_api import KEY, LocalApi

    foreign = (PREFIX, API_KEY)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with LocalApi() as api:
        shown = settings.model_copy(update={"base_url": api.base_url})
        yield {**inherited, **_variables(shown), API_KEY: KEY}


def _variables(settings: Settings) -> Mapping[str, str]:
    """Return the settings as environment variables, except for the secret, which a child process inherits.

    Where a lake keeps its files is left out, unless there is a lake.
    """
    unused = set() if settings.is_lake else {"lake_data"}
    values = settings.model_dump(mode="json", exclude={"alert_webhook", *unused}, exclude_none=True)
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}
