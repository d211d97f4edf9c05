"""What the commands share: options, the settings that they choose, and text in whatever the terminal can show."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from orpipeline.clock import as_day, newest_completed_day, utc_now
from orpipeline.errors import OrpipelineError, StoreError
from orpipeline.settings import Settings, load_settings, project_dir
from orpipeline.text import plain

if TYPE_CHECKING:
    from orpipeline.defs.imports import Watch

out = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
"""Standard output. Text is never interpreted: it may come from the API or from a file's name."""

# For terminals that are not in UTF-8. Each takes one place, so columns stay in line.
_INSTEAD = dict(zip("–−─█▉▊▋▌▍▎▏▲▼✓✗", "---#####   ^v+x", strict=True))  # noqa: RUF001 - the point


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_INSTEAD.get(char, "?") for char in error.object[error.start : error.end]), error.end


def survive_any_encoding() -> None:
    """Let a terminal that is not in UTF-8 show `-` for a line and `#` for a bar, instead of an error."""
    codecs.register_error("orpipeline", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="orpipeline")


def examples(*lines: str) -> str:
    """Return a command's examples as the end of its help, one a line: click does not wrap a paragraph after `\\b`."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _iso_day(text: str) -> date:
    try:
        return as_day(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def day_option(*names: str, about: str) -> Callable[[Any], Any]:
    """Return an option whose value is a day."""
    return click.option(*names, type=_iso_day, metavar="YYYY-MM-DD", help=about)


the_day = day_option("--date", "day", about="The day, by its `as_of`.  [default: the newest]")
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


def demo_settings(settings: Settings, first: date | None = None) -> Settings:
    """Return the settings of the demo: its own folder inside the data folder, and none of the other settings.

    Its partitions start at the first archived day, or at `first` if that is earlier. This process no longer uses the
    DAGSTER_HOME of the environment, because the demo has its own.
    """
    os.environ.pop("DAGSTER_HOME", None)
    own = from_first_day(Settings(data_dir=settings.data_dir / "demo", lock_wait_seconds=settings.lock_wait_seconds))
    return own.model_copy(update={"start_date": min(first or own.start_date, own.start_date)})


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


def print_line(text: str) -> None:
    """Print text in one line, without control characters."""
    out.print(plain(text))


def print_rows(rows: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair on each line."""
    for name, value in rows:
        print_line(f"{name:<16}{value}")


def span(days: Sequence[date]) -> str:
    """Return the number of days, and the first and last of them. The days must be sorted."""
    if not days:
        return "0 days"
    return f"{len(days)} days, {days[0]} to {days[-1]}" if len(days) > 1 else f"1 day, {days[0]}"


def some_days(days: Sequence[date]) -> str:
    """Return the number of days, and the last ten of them."""
    shown = ", ".join(day.isoformat() for day in days[-10:])
    return f"{len(days)}: {'..., ' if len(days) > 10 else ''}{shown}" if days else "none"


def progress_bars() -> Progress:
    """Return progress bars on standard error; they are hidden if that is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def watcher(progress: Progress) -> Watch:
    """Return a function that adds a bar for a part of the work, and returns what to call with its progress."""

    def watch(part: str, size: int, unit: str) -> Callable[[int], None]:
        task = progress.add_task(f"{part} ({unit})", total=size)
        return lambda done: progress.advance(task, done)

    return watch
