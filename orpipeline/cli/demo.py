"""The command `demo`: the whole pipeline on made-up data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import date, timedelta

import click

from orpipeline.cli.daily import run_days
from orpipeline.cli.leaderboard import show_leaderboard
from orpipeline.cli.options import demo_settings, examples
from orpipeline.cli.output import out
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.settings import API_KEY, Settings, load_settings


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
    from orpipeline.testing.local_api import KEY, LocalApi

    newest = newest_completed_day(utc_now())
    wanted = [newest - timedelta(days=n) for n in reversed(range(days))]
    settings = demo_settings(load_settings(), first=wanted[0])
    out.print(f"A demo with made-up data: {days} days up to {newest}, in {settings.data_dir}")
    with LocalApi() as api:
        os.environ[API_KEY] = KEY  # of this process only: the key is read when the API is called
        _archive_history(settings, wanted[:-1], newest)
        reported = run_days(settings.model_copy(update={"base_url": api.base_url}), wanted, "auto")
    show_leaderboard(settings, top=10)
    me = "orpipeline" if shutil.which("orpipeline") else sys.argv[0]
    out.print(
        f"\nNext steps:\n  {reported['page']}  (open it in a browser)\n"
        f"  {me} dev --demo  (the same data in the Dagster UI)\n"
        f"  {me} leaderboard --demo --scope code  (the leaderboard of code tasks)\n"
        f"  export {API_KEY}=...; {me} run  (real data, for yesterday)"
    )


def _archive_history(settings: Settings, days: Sequence[date], newest: date) -> None:
    """Archive the days before the newest, as if the pipeline had fetched each of them in time."""
    from orpipeline.archive import Archive
    from orpipeline.catalogue import CATALOGUE
    from orpipeline.testing.sample_catalogue import sample_catalogue
    from orpipeline.testing.sample_responses import sample_response

    archive = Archive(settings.archive)
    for day in days:
        fetched_at = utc_now().replace(hour=0, minute=20, second=0, microsecond=0) - timedelta(days=(newest - day).days)
        for one, body in ((archive, sample_response(day)), (archive.of(CATALOGUE), sample_catalogue(day))):
            one.put(body, fetched_at=fetched_at, source="orpipeline demo (made up)", origin="demo")
