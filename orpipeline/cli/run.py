"""The commands that run Dagster: `run` for one day, and `dev` for the UI."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

import click

from orpipeline.cli.fetch import fetch_in_spite_of
from orpipeline.cli.options import command_settings, day_option, demo_option, examples, from_first_day
from orpipeline.cli.terminal import out, print_line, print_rows
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import DagsterStateError, OrpipelineError
from orpipeline.settings import API_KEY, PREFIX, Settings, api_key, load_settings


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
        raise fetch_in_spite_of(error, settings, day, fetch) from error
    print_line(out, f"{day} is in the archive and in the tables.")
    from orpipeline.archive import Archive

    newest = Archive(settings.archive).latest(day)
    archived = [("response", str(newest.path))] if newest else []
    tables = [("warehouse", settings.warehouse)]
    if isinstance(settings.warehouse, Path):  # readers of another engine open that engine
        tables.append(("published", settings.published))
    existing = [(name, str(place)) for name, place in tables if isinstance(place, str) or place.is_file()]
    print_rows(out, [*archived, *existing, *reported.items()])


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
        warn = partial(print_line, out)
        written = run_snapshot(settings, days, Fetch[fetch], status.update, warn, report=report)
        if report and len(days) > 1:  # the run of a range leaves it out
            status.update("Writing the report")
            written = run_report(settings)
    return written


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
    out.print(f"Dagster's state: {home}\nData: {settings.data_dir}", soft_wrap=True)
    if not demo and api_key() is None:
        out.print(f"{API_KEY} is not set: schedules and sensors skip, and days that you miss are gone.", soft_wrap=True)
    url = f"http://{host}:{port}/asset-groups"
    out.print(f"Open {url} when the server is ready. Press Ctrl-C to stop it.\n", soft_wrap=True)
    # Dagster suggests `dg dev` instead, which does the same and needs another package.
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
    command = [*python, "-m", "dagster", "dev", "-w", str(packaged_file("workspace.yaml")), "-h", host, "-p", str(port)]
    with _child_environment(settings, demo=demo) as environment:
        # Dagster lets the `.env` of its current folder override the environment, so it does not start in ours.
        code = _call(command, environment, home)
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


def _call(command: list[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a program until it ends, and return its exit code. It gets the terminal's Ctrl-C, too, and ends in order."""
    with subprocess.Popen(command, env=environment, cwd=folder) as process:  # noqa: S603 - our own interpreter
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()
