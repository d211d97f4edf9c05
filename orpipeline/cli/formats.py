"""The leaderboard in each format: a table for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from rich.bar import Bar
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orpipeline.cli.board import Board
from orpipeline.cli.terminal import print_line
from orpipeline.text import plain

if TYPE_CHECKING:  # it takes long to import, and `--help` does not need it
    import polars as pl

_DEMO = "DEMO: made-up data"
_WIDEST_TABLE = 110
_WIDTH_FOR_EXTRAS = 100
_NARROWEST_NAME = 8
_NARROWEST_BAR, _WIDEST_BAR = 6, 20
_FORMULA = re.compile(r"(?<![^,;])(?=[=+\-@\t\r\n\x1b\uff0b\uff0d\uff1d\uff20])")  # and full-width + - = @


def print_table(console: Console, board: Board) -> None:
    """Print a leaderboard as a table of at most 110 columns, with the whole citation below it.

    80 columns and more read well. A name that does not fit is shortened in the middle.
    """
    width = min(console.width, _WIDEST_TABLE)
    table = _table(board, is_wide=width >= _WIDTH_FOR_EXTRAS, bar=_NARROWEST_BAR)
    free = width - console.measure(table, options=console.options.update(max_width=1000)).maximum
    table = _table(board, is_wide=width >= _WIDTH_FOR_EXTRAS, bar=min(_WIDEST_BAR, _NARROWEST_BAR + max(0, free)))
    lines = [
        Text.assemble(*((segment.text, segment.style or "") for segment in line))
        for line in console.render_lines(table, console.options.update(max_width=width), pad=False)
    ]
    table_width = max(line.cell_len for line in lines)
    if board.is_demo:
        console.print(Text(_DEMO, style="yellow"))
    console.print(Text(board.title, style="bold"), Text(board.lead), sep="\n", width=width)
    console.print()
    for place, line in enumerate(lines, start=len(board.ranks) - len(lines)):  # below 0: the heading
        note = board.notes.get(place)
        if place == 0 or note:
            console.print(Text("─" * table_width, style="dim"))
        if note:
            console.print(Text(note, style="dim"), width=table_width)
        line.rstrip()
        console.print(line, no_wrap=True, overflow="crop")
    console.print()
    print_line(console, board.citation)


def _table(board: Board, *, is_wide: bool, bar: int) -> Table:
    """Return the leaderboard with a bar of this many characters for each share. A name can shrink to fit."""
    table, cells = (
        Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"),
        list[Sequence[RenderableType]](),
    )
    for column in board.columns:
        if column.is_extra and not is_wide:
            continue
        justify: Literal["left", "right"] = "left" if column.is_name else "right"
        table.add_column(column.heading, justify=justify, style=column.style, no_wrap=not column.is_name)
        cells.append([_Name(cell) for cell in column.cells] if column.is_name else column.cells)
        if column is board.share:
            table.add_column(width=bar)
            cells.append([Bar(max(board.shares), 0, share, color="cyan") for share in board.shares])
    # A rank stands out if it is certain.
    cells[0] = [Text(rank, "bold" if rank.isdigit() else "dim") for rank in board.ranks]
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


@dataclass(frozen=True)
class _Name:
    """A name that is shortened in the middle if its column is narrow: models of one family differ at the end."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_NARROWEST_NAME, cell_len(self.text)), cell_len(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(_fit(self.text, options.max_width), no_wrap=True)


def as_markdown(board: Board) -> str:
    """Return the leaderboard as a Markdown table, with its title above and the citation below."""
    title = f"{_DEMO}. {board.title}" if board.is_demo else board.title
    columns = board.columns
    lines = [
        f"**{_markdown(title)}**",
        "",
        _markdown(board.lead),
        "",
        _cells([column.heading.replace("\n", " ") for column in columns]),
        _cells(["---" if column.is_name else "---:" for column in columns]),
    ]
    for place in range(len(board.ranks)):
        if place in board.notes:
            lines.append(_cells([_markdown(board.notes[place]) if n == 1 else "" for n in range(len(columns))]))
        lines.append(_cells([_markdown(column.cells[place]) for column in columns]))
    return "\n".join([*lines, "", _markdown(board.citation), ""])


def as_csv(rows: pl.DataFrame, citation: str) -> str:
    """Return the rows as CSV with a header, the citation as the last column. Text is safe to open in a spreadsheet."""
    import polars as pl
    from polars import selectors

    text = selectors.string().map_elements(_csv_cell, return_dtype=pl.String)
    return rows.with_columns(citation=pl.lit(citation)).with_columns(text).write_csv()


def as_json(rows: pl.DataFrame, **about: Any) -> str:
    """Return one JSON object with what the rows are about, such as `as_of` and `citation`, and `rows`."""
    return json.dumps({**about, "rows": rows.to_dicts()}, indent=2, default=date.isoformat) + "\n"


def _fit(text: str, width: int) -> str:
    """Shorten a text in the middle to at most `width` characters."""
    if cell_len(text) <= width:
        return text
    shown = width - 1
    tail = text
    while cell_len(tail) > shown // 2:
        tail = tail[1:]
    return f"{set_cell_size(text, shown - cell_len(tail))}…{tail}"


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown(text: str) -> str:
    """Return text that Markdown shows literally, also in a cell of a table."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in r"\|`*_~[]!" else c for c in escaped)


def _csv_cell(text: str) -> str:
    """Return text that a spreadsheet shows literally: a `'` precedes what it would read as the start of a formula.

    OWASP's rule (CSV injection). A spreadsheet can also split a cell at `,` or `;`, so it holds after these, too.
    """
    return plain(_FORMULA.sub("'", text))
