"""The options that several commands share, and the settings that they choose."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import date
from pathlib import Path

import click

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import OrpipelineError, StoreError
from orpipeline.settings import Settings, load_settings, project_dir


def examples(*lines: str) -> str:
    """Return a command's examples as the end of its help, one a line: click does not wrap a paragraph after `\\b`."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def iso_day(text: str) -> date:
    """Return the day that is written as YYYY-MM-DD. Raises click's BadParameter for any other text."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise click.BadParameter(f"{text!r} is not a date in the form YYYY-MM-DD.")


day_option = click.option(
    "--date", "day", type=iso_day, metavar="YYYY-MM-DD", help="The day, by its `as_of`.  [default: the newest]"
)
demo_option = click.option("--demo", is_flag=True, help="Use the demo's data folder instead of yours.")


def command_settings(*, demo: bool) -> Settings:
    """Return the environment's settings, or with `demo`, those of the demo.

    Raises OrpipelineError if `demo` is wanted and was never run.
    """
    settings = load_settings()
    if not demo:
        return settings
    own = demo_settings(settings)
    if not own.data_dir.is_dir():
        raise OrpipelineError(f"There is no demo in {own.data_dir} yet. Run `orpipeline demo` first.")
    return own


def dagster_home(settings: Settings) -> Path:
    """Return the folder with Dagster's state: DAGSTER_HOME or, without it, one for the settings' data folder.

    A clone with its own data folder uses `.dagster`, which `dagster dev` in that folder uses too. Any other data
    folder has its own, because runs must not appear beside another pipeline's tables.
    """
    configured = os.environ.get("DAGSTER_HOME")
    if configured:
        return Path(configured).expanduser()
    project = project_dir()
    is_own = project is not None and settings.data_dir == project / "data"
    return settings.data_dir.with_name(".dagster") if is_own else settings.data_dir / "dagster"


def from_first_day(settings: Settings) -> Settings:
    """Return the settings with the first archived day as start date, unless they have a start date already.

    While nothing is archived, it is the newest completed day: nobody can fetch an earlier one, so the UI must not show
    it as missing. If the archive cannot be read, the settings are returned unchanged; the runs report the reason.
    """
    from orpipeline.archive import Archive

    if "start_date" not in settings.model_fields_set:
        with suppress(StoreError):
            first = next(iter(Archive(settings.archive).days()), newest_completed_day(utc_now()))
            return settings.model_copy(update={"start_date": first})
    return settings


def demo_settings(settings: Settings, first: date | None = None) -> Settings:
    """Return the settings of the demo: its own folder inside the data folder, and none of the other settings.

    Its partitions start at the first archived day, or at `first` if that is earlier. This process no longer uses the
    DAGSTER_HOME of the environment, because the demo has its own.
    """
    os.environ.pop("DAGSTER_HOME", None)
    own = from_first_day(Settings(data_dir=settings.data_dir / "demo", lock_wait_seconds=settings.lock_wait_seconds))
    return own.model_copy(update={"start_date": min(first or own.start_date, own.start_date)})
