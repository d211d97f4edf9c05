"""The command `fetch`, and fetching without Dagster for `run`. Imports neither Dagster nor polars."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.options import examples
from orpipeline.cli.terminal import out, print_line
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import DagsterStateError, DayNotAvailableError, OrpipelineError
from orpipeline.settings import Settings, api_key, load_settings

if TYPE_CHECKING:
    from orpipeline.archive import Revision


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
    the archive lacks the day. `orpipeline run` loads the tables later.
    """
    day = newest_completed_day(utc_now())
    fetched = fetch_day(load_settings(), day, "always" if always else "auto")
    if fetched is None:
        print_line(out, f"The archive has {day}; the API was not called.")
    elif fetched.as_of and fetched.as_of >= day:  # it is later if midnight has passed meanwhile
        print_line(out, f"{fetched.as_of} is archived: {fetched.path}")
    else:
        raise DayNotAvailableError(
            f"{day} is not published yet: the API still serves {fetched.as_of} (archived). Try again in a few minutes."
        )


def fetch_day(settings: Settings, day: date, mode: str) -> Revision | None:
    """Call the API if `mode` (`auto`, `always` or `never`) requires it, and archive the response.

    Returns its revision, or None if the API was not called. Raises as `orpipeline.capture.capture` does.
    """
    from orpipeline.archive import Archive
    from orpipeline.capture import Fetch, capture
    from orpipeline.openrouter.client import open_client

    spool = None if isinstance(settings.archive, Path) else Archive(settings.spool)
    client, archive = open_client(settings, api_key()), Archive(settings.archive)
    return capture(client, archive, [day], Fetch[mode], utc_now(), spool=spool)


def fetch_in_spite_of(error: DagsterStateError, settings: Settings, day: date, mode: str) -> DagsterStateError:
    """Fetch a day after Dagster's state has failed, and return the error with what became of the response."""
    from orpipeline.archive import Archive

    try:
        # If the run had started, it may have called the API already; then the archive has the response.
        fetched = fetch_day(settings, day, "auto" if error.during_run and mode == "always" else mode)
        has_day = Archive(settings.archive).is_current(day)
    except OrpipelineError as not_fetched:
        return DagsterStateError(f"{error} {day} could not be fetched either: {not_fetched}")
    if fetched is not None:
        outcome = f"The response for {fetched.as_of} was fetched and archived as {fetched.path}."
    elif has_day:
        outcome = f"The archive has {day}."
    else:
        outcome = f"{day} was not fetched: the API serves only the newest day."
    return DagsterStateError(f"{outcome} {error}")
