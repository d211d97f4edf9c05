"""What the commands print: lines, rows, the outcome of a command, and progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from orpipeline.clock import day_spans
from orpipeline.text import plain

if TYPE_CHECKING:  # they import polars, which `--help` does not need
    from orpipeline.defs.imports import Watch
    from orpipeline.importing.importer import Imported
    from orpipeline.load import Rebuilt

out = Console()
"""Standard output."""


def print_line(console: Console, text: str) -> None:
    """Print text in one line, without interpreting it: it may come from the API or from a file name."""
    console.print(plain(text), soft_wrap=True, markup=False, highlight=False, emoji=False)


def print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair on each line."""
    for name, value in rows:
        print_line(console, f"{name:<16}{value}")


def print_imported(console: Console, imported: Imported, missing: Sequence[date], *, dry_run: bool) -> None:
    """Print what an import did, the days in between that are still missing, and why responses were rejected."""
    print_line(console, "This would be imported (nothing was changed):" if dry_run else "Imported:")
    print_rows(
        console,
        [
            ("new", _responses(imported.new)),
            ("same", _responses(imported.same)),
            ("restated", _responses(imported.restated)),
            ("rejected", str(len(imported.rejected))),
            ("still missing", all_days(missing)),
        ],
    )
    for rejected in imported.rejected:
        print_line(console, f"rejected: {rejected.source}: {rejected.reason}")


def print_rebuilt(console: Console, rebuilt: Rebuilt) -> None:
    """Print what a rebuild did."""
    if rebuilt.set_aside is not None:
        print_line(console, f"The damaged warehouse is kept aside: {rebuilt.set_aside}")
        print_line(console, "Tables of yours that it had are not in the new one.")
    rows = [
        ("rebuilt", span(rebuilt.days)),
        ("no longer there", some_days(rebuilt.gone)),
    ]
    print_rows(console, rows)


def span(days: Sequence[date]) -> str:
    """Return the number of days, and the first and last of them. The days must be sorted."""
    if not days:
        return "0 days"
    return f"{len(days)} days, {days[0]} to {days[-1]}" if len(days) > 1 else f"1 day, {days[0]}"


def all_days(days: Sequence[date]) -> str:
    """Return the number of days, and all of them as spans."""
    return f"{len(days)}: {', '.join(day_spans(days))}" if days else "none"


def _responses(days: Sequence[date]) -> str:
    """Return the span of the responses' days, with the number of responses if a day has several."""
    of_days = span(sorted(set(days)))
    return of_days if len(set(days)) == len(days) else f"{len(days)} responses of {of_days}"


def some_days(days: Sequence[date]) -> str:
    """Return the number of days, and the last ten of them."""
    shown = ", ".join(day.isoformat() for day in days[-10:])
    return f"{len(days)}: {'..., ' if len(days) > 10 else ''}{shown}" if days else "none"


def progress_bars() -> Progress:
    """Return progress bars on standard error; they are hidden if that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def watcher(progress: Progress) -> Watch:
    """Return a function that adds a bar for a part of the work, and returns what to call with its progress."""

    def watch(part: str, size: int, unit: str) -> Callable[[int], None]:
        task = progress.add_task(f"{part} ({unit})", total=size)
        return lambda done: progress.advance(task, done)

    return watch
