"""The commands of every day: `run`, `fetch`, `report` and `leaderboard`."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.terminal import command_settings, demo_option, examples, out, print_line, print_rows, the_day
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import DagsterStateError, DayNotAvailableError, OrpipelineError, StoreError
from orpipeline.settings import Settings, api_key, load_settings

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
@the_day
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
    _check_key(settings, day, fetch)
    try:
        with out.status("Starting Dagster") as status:
            from orpipeline.archive import Archive
            from orpipeline.capture import Fetch
            from orpipeline.cli.dagster_runs import run_days

            reported = run_days(settings, [day], Fetch[fetch], status.update, report=not no_report)
    except DagsterStateError as error:
        raise _fetch_in_spite_of(error, settings, day, fetch) from error
    print_line(f"{day} is in the archive and in the tables.")
    newest = Archive(settings.archive).latest(day)
    tables = [("warehouse", settings.warehouse)]
    if isinstance(settings.warehouse, Path):  # readers of a lake open the lake
        tables.append(("published", settings.published))
    existing = [(name, place) for name, place in tables if isinstance(place, str) or place.is_file()]
    print_rows([*([("response", newest.path)] if newest else []), *existing, *reported.items()])


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
    try:
        fetched = fetch_dataset(settings, day, "always" if always else "auto", CLASSIFICATIONS)
        if fetched and (fetched.as_of or date.min) < day:  # it is later if midnight has passed meanwhile
            raise DayNotAvailableError(
                f"{day} is not published yet: the API still serves {fetched.as_of} (archived). Try again in a few "
                "minutes."
            )
    finally:  # the catalogue is fetched whatever happened
        try:
            catalogue = fetch_dataset(settings, day, "auto", CATALOGUE)
            about = f"The model catalogue is archived: {catalogue.path}" if catalogue else ""
        except OrpipelineError as error:
            about = f"The model catalogue of {day} is missing. {error}"
    is_fetched = f"{fetched.as_of} is archived: {fetched.path}" if fetched else ""
    print_line(is_fetched or f"The archive has {day}; the API was not called.")
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


def _check_key(settings: Settings, day: date, mode: str) -> None:
    """Raise ApiKeyError before anything is started, if the run needs the API and cannot call it."""
    from orpipeline.archive import Archive
    from orpipeline.openrouter.client import open_client

    newest = newest_completed_day(utc_now())
    with suppress(StoreError):  # the run tries to fetch all the same, and reports it
        if mode == "always" or (mode == "auto" and day == newest and not Archive(settings.archive).is_current(day)):
            open_client(settings, api_key()).check()


def _fetch_in_spite_of(error: DagsterStateError, settings: Settings, day: date, mode: str) -> DagsterStateError:
    """Fetch a day that the archive lacks after Dagster's state has failed; return the error with what came of it."""
    from orpipeline.archive import Archive
    from orpipeline.openrouter.response import CLASSIFICATIONS

    try:
        fetch_dataset(settings, day, "never" if mode == "never" else "auto", CLASSIFICATIONS)
        is_archived = Archive(settings.archive).is_current(day)
    except OrpipelineError as not_fetched:
        return DagsterStateError(f"{error} {day} could not be fetched either: {not_fetched}")
    why = f"The archive has {day}." if is_archived else f"{day} is not archived: the API serves only the newest day."
    return DagsterStateError(f"{why} {error}")


@click.command(
    short_help="Write a day's report.",
    epilog=examples(
        "orpipeline report                      # index.html, of the newest day",
        "orpipeline report --date 2026-10-06    # 2026-10-06/index.html",
    ),
)
@the_day
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
    short_help="Show who leads, who leads each task, and who gained.",
    epilog=examples(
        "orpipeline leaderboard --by tokens --scope code",
        "orpipeline leaderboard --tasks",
        "orpipeline leaderboard --authors --format csv > authors.csv",
    ),
)
@the_day
@click.option("--scope", default="all", show_default=True, help="The tasks: `all`, or a macro-category such as `code`.")
@click.option(
    "--by", type=click.Choice(["requests", "tokens"]), default="requests", show_default=True, help="The measure."
)
@click.option("--authors", "show", flag_value="authors", help="Sum up each author's listed models.")
@click.option("--changes", "show", flag_value="changes", help="Who gained and who lost since 7 days before.")
@click.option("--tasks", "show", flag_value="tasks", help="Who leads each task.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="The number of rows.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md"]),
    default="table",
    show_default=True,
    help="A table for the terminal, CSV or JSON with all columns for programs, or Markdown.",
)
@demo_option
def leaderboard(day: date | None, scope: str, by: str, show: str | None, top: int, form: str, demo: bool) -> None:
    """Show a day's leaderboard of models, its authors, its changes, or the leader of each task.

    A share is what the published lists attribute, so the true one can be larger: `at most` is its bound. A rank or a
    change is a range where the lists and the rounding of the figures allow several.
    """
    from orpipeline.cli.leaderboard import show_leaderboard

    show_leaderboard(command_settings(demo=demo), day, scope=scope, by=by, show=show or "models", top=top, form=form)
