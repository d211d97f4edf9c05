"""What the commands print: the leaderboard in each format, the outcome of a command, and progress."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rich import box, filesize
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orpipeline.days import day_spans
from orpipeline.report.wording import new_or_back
from orpipeline.text import plain

if TYPE_CHECKING:  # they import polars, which `--help` does not need
    import polars as pl

    from orpipeline.defs.imports import Watch
    from orpipeline.importing.importer import Imported
    from orpipeline.rebuild import Rebuilt

out = Console()
"""Standard output."""

_BAR_WIDTH = 8
_OTHER_COLUMNS = 56  # the width of all columns except `model`, with the space between them
_PARTIAL_BLOCKS = " ▏▎▍▌▋▊▉"
_FORMULA = re.compile(r"(?<![^,;])(?=[=+\-@\t\r\n\x1b\uff0b\uff0d\uff1d\uff20])")  # and full-width + - = @


def leaderboard_table(rows: pl.DataFrame, *, title: str, width: int) -> Table:
    """Return a leaderboard's rows as a table of at most `width` columns (80 and more read well).

    `rows` have the columns of `model_leaderboard`, and `moved`, the text of the column `7 days`. `usage` and its bar
    are the attributed share of requests, `at most` its upper bound, `range` the possible ranks.
    """
    table = Table(title=Text(plain(title)), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", style="bold", min_width=3, no_wrap=True)
    table.add_column("range", justify="right", style="dim", min_width=6, no_wrap=True)
    # The only column that shrinks in a narrow terminal.
    room = max(width - _OTHER_COLUMNS, 10)
    table.add_column("model", no_wrap=True, max_width=room)
    table.add_column("usage", justify="right", min_width=5, no_wrap=True)
    table.add_column("", min_width=_BAR_WIDTH, no_wrap=True, style="cyan")
    table.add_column("7 days", justify="right", min_width=6, no_wrap=True)
    table.add_column("at most", justify="right", style="dim", min_width=7, no_wrap=True)
    table.add_column("tokens", justify="right", min_width=6, no_wrap=True)
    largest = max(rows["usage_share"].to_list(), default=0.0)
    for row in rows.iter_rows(named=True):
        table.add_row(
            str(row["usage_rank"]),
            _range(row),
            Text(_fit(plain(row["model_id"]), room)),
            f"{row['usage_share']:.1%}",
            _bar(row["usage_share"], largest),
            row["moved"],
            f"{row['usage_share_upper']:.1%}",
            f"{row['token_share']:.1%}",
        )
    return table


def print_leaderboard(console: Console, rows: pl.DataFrame, *, title: str, citation: str) -> None:
    """Print the table, at most 110 columns wide, and the whole citation below it."""
    width = min(console.width, 110)
    console.print(leaderboard_table(rows, title=title, width=width), width=width)
    print_line(console, citation)


def as_csv(rows: pl.DataFrame, citation: str) -> str:
    """Return the rows as CSV with a header, the citation as the last column. Text is safe to open in a spreadsheet."""
    import polars as pl
    from polars import selectors

    text = selectors.string().map_elements(_csv_cell, return_dtype=pl.String)
    return rows.with_columns(citation=pl.lit(citation)).with_columns(text).write_csv()


def as_json(rows: pl.DataFrame, as_of: date, scope: str, citation: str) -> str:
    """Return the rows as one JSON object with `as_of`, `scope`, `citation` and `rows`."""
    document = {"as_of": as_of, "scope": scope, "citation": citation, "rows": rows.to_dicts()}
    return json.dumps(document, indent=2, default=date.isoformat) + "\n"


def as_markdown(rows: pl.DataFrame, *, title: str, citation: str) -> str:
    """Return the rows as a Markdown table, with its title above and the citation below."""
    lines = [
        f"**{_markdown(title)}**",
        "",
        "| # | range | model | usage | 7 days | at most | tokens |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.iter_rows(named=True):
        lines.append(
            f"| {row['usage_rank']} | {_range(row)} | "
            f"{_markdown(row['model_id'])} | {row['usage_share']:.1%} | {row['moved']} | "
            f"{row['usage_share_upper']:.1%} | {row['token_share']:.1%} |"
        )
    return "\n".join([*lines, "", _markdown(citation), ""])


def _fit(name: str, room: int) -> str:
    """Shorten a name in the middle: models of one family differ at the end."""
    shown = room - 1
    return name if len(name) <= room else f"{name[: shown - shown // 2]}…{name[-(shown // 2) :]}"


def _bar(share: float, largest: float) -> str:
    """Return a bar in steps of an eighth of a character; the largest share fills the column."""
    eighths = round(share / largest * _BAR_WIDTH * 8) if largest else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_PARTIAL_BLOCKS[rest] if rest else "")


def _range(row: Mapping[str, Any]) -> str:
    best, worst = row["usage_rank_best"], row["usage_rank_worst"]
    return str(best) if best == worst else f"{best}-{worst}"


def moved(row: Mapping[str, Any], since: date, *, known: bool) -> str:
    """Return a model's change since the day `since`, with its direction, in percentage points.

    For a model that `since` does not list: `new`, or `back` if an earlier day lists it; nothing if `since` is not
    `known`.
    """
    change = row["usage_share_change_7d"]
    if change is None:
        return new_or_back(row["first_seen"], since) if known else ""
    points = f"{abs(change) * 100:.1f}"
    return points if points == "0.0" else f"{'▲' if change > 0 else '▼'}{points}"


def _markdown(text: str) -> str:
    """Return text that Markdown shows literally, also in a cell of a table."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in r"\|`*_~[]!" else c for c in escaped)


def _csv_cell(text: str) -> str:
    """Return text that a spreadsheet shows literally: a `'` precedes what it would read as the start of a formula.

    OWASP's rule (CSV injection). A spreadsheet can also split a cell at `,` or `;`, so it holds after these, too.
    """
    return plain(_FORMULA.sub("'", text))


def print_line(console: Console, text: str) -> None:
    """Print text in one line, without interpreting it: it may come from the API or from a file name."""
    console.print(plain(text), soft_wrap=True, markup=False, highlight=False, emoji=False)


def print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair on each line."""
    for name, value in rows:
        print_line(console, f"{name:<16}{value}")


def print_imported(console: Console, imported: Imported, missing: Sequence[date], *, dry_run: bool) -> None:
    """Print what an import did, the days in between that are still missing, and why answers were rejected."""
    print_line(console, "This would be imported (nothing was changed):" if dry_run else "Imported:")
    print_rows(
        console,
        [
            ("new", _answers(imported.new)),
            ("same", _answers(imported.same)),
            ("restated", _answers(imported.restated)),
            ("rejected", str(len(imported.rejected))),
            ("still missing", all_days(missing)),
        ],
    )
    for rejected in imported.rejected:
        print_line(console, f"rejected: {rejected.source}: {rejected.reason}")


def print_rebuilt(console: Console, rebuilt: Rebuilt) -> None:
    """Print what a rebuild did and why, and which rows changed."""
    if rebuilt.reason is not None:
        print_line(console, f"{rebuilt.reason} All tables are rebuilt.")
    for path in rebuilt.set_aside:
        print_line(console, f"Kept aside: {path}")
    if rebuilt.set_aside:
        print_line(console, "Days and tables that only this file had could not be read; the new file lacks them.")
    rows = [
        ("rebuilt", span(rebuilt.days)),
        ("new", some_days(rebuilt.new)),
        ("only in tables", some_days(rebuilt.unarchived)),
    ]
    if rebuilt.left_out:
        rows.append(("now rejected", some_days(rebuilt.left_out)))
    print_rows(console, rows)
    for d in rebuilt.differences:
        counts = f"{d.changed} rows changed, {d.added} added, {d.removed} removed"
        print_line(console, f"{d.table}: {counts}; the first: {d.first}")
    if not rebuilt.differences:
        print_line(console, "All existing rows are unchanged.")


def span(days: Sequence[date]) -> str:
    """Return the number of days, and the first and last of them. The days must be sorted."""
    if not days:
        return "0 days"
    return f"{len(days)} days, {days[0]} to {days[-1]}" if len(days) > 1 else f"1 day, {days[0]}"


def all_days(days: Sequence[date]) -> str:
    """Return the number of days, and all of them as spans."""
    return f"{len(days)}: {', '.join(day_spans(days))}" if days else "none"


def _answers(days: Sequence[date]) -> str:
    """Return the span of the answers' days, with the number of answers if a day has several."""
    of_days = span(sorted(set(days)))
    return of_days if len(set(days)) == len(days) else f"{len(days)} answers of {of_days}"


def some_days(days: Sequence[date]) -> str:
    """Return the number of days, and the last ten of them."""
    shown = ", ".join(day.isoformat() for day in days[-10:])
    return f"{len(days)}: {'..., ' if len(days) > 10 else ''}{shown}" if days else "none"


class _Rate(ProgressColumn):
    """The amount of work done in a second, in the task's unit."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing until it is known."""
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        if speed is None:
            return Text()
        return Text(f"{filesize.decimal(int(speed))}/s" if unit == "bytes" else f"{speed:.0f} {unit}/s")


def progress_bars() -> Progress:
    """Return progress bars on standard error; they are hidden if that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def watcher(progress: Progress) -> Watch:
    """Return a function that adds a bar for a part of the work, and returns what to call with its progress."""

    def watch(part: str, size: int, unit: str) -> Callable[[int], None]:
        task = progress.add_task(part, total=size, unit=unit)
        return lambda done: progress.advance(task, done)

    return watch
