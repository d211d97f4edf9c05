"""The command `demo`: the whole pipeline on made-up data."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import timedelta

import click

from orpipeline.cli.daily import run_days
from orpipeline.cli.leaderboard import show_leaderboard
from orpipeline.cli.options import demo_settings, examples
from orpipeline.cli.output import out
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.settings import API_KEY, load_settings


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
    from orpipeline.archive import Archive
    from orpipeline.catalogue import CATALOGUE
    from orpipeline.testing.local_api import KEY, LocalApi
    from orpipeline.testing.sample_catalogue import sample_catalogue
    from orpipeline.testing.sample_responses import sample_response
    from orpipeline.testing.tables import archive_samples

    newest = newest_completed_day(utc_now())
    wanted = [newest - timedelta(days=n) for n in reversed(range(days))]
    settings = demo_settings(load_settings(), first=wanted[0])
    out.print(f"A demo with made-up data: {days} days up to {newest}, in {settings.data_dir}")
    with LocalApi() as api:
        os.environ[API_KEY] = KEY  # of this process only: the key is read when the API is called
        archive = Archive(settings.archive)
        for one, sample in ((archive, sample_response), (archive.of(CATALOGUE), sample_catalogue)):
            archive_samples(one, sample, wanted[:-1], source="orpipeline demo (made up)")
        reported = run_days(settings.model_copy(update={"base_url": api.base_url}), wanted, "auto")
    show_leaderboard(settings, top=10)
    me = "orpipeline" if shutil.which("orpipeline") else sys.argv[0]
    out.print(
        f"\nNext steps:\n  {reported['page']}  (open it in a browser)\n"
        f"  {me} dev --demo  (the same data in the Dagster UI)\n"
        f"  {me} leaderboard --demo --scope code  (the leaderboard of code tasks)\n"
        f"  export {API_KEY}=...; {me} run  (real data, for yesterday)"
    )
