"""What the commands print: text in whatever the terminal can show, rows, days, and progress."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Sequence
from datetime import date
from io import TextIOWrapper
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from orpipeline.text import plain

if TYPE_CHECKING:
    from orpipeline.defs.imports import Watch

# For terminals that are not in UTF-8. Each takes one place, so columns stay in line.
_INSTEAD = dict(
    zip(
        "\u2013\u2212\u2500\u2588\u2589\u258a\u258b\u258c\u258d\u258e\u258f\u25b2\u25bc\u2713\u2717",
        "---#####   +-+x",
        strict=True,
    )
)

out = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
"""Standard output. Text is never interpreted: it may come from the API or from a file's name."""


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


def write_data(text: str) -> None:
    """Write data for programs in UTF-8, whatever the terminal's encoding is."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)


def print_line(text: str, console: Console = out) -> None:
    """Print text in one line, without control characters."""
    console.print(plain(text), soft_wrap=True, markup=False, highlight=False, emoji=False)


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
