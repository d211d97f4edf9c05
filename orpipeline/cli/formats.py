"""The leaderboard in each format: a table for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from orpipeline.cli.board import Board, Column
from orpipeline.cli.terminal import print_line
from orpipeline.text import plain

if TYPE_CHECKING:  # it takes long to import, and `--help` does not need it
    import polars as pl

_DEMO = "DEMO: made-up data"
_WIDEST_TABLE = 110
_WIDTH_FOR_EXTRAS = 100
_NARROWEST_NAME = 8
_NARROWEST_BAR, _WIDEST_BAR = 6, 20
_GAP = "  "
_PARTIAL_BLOCKS = " ▏▎▍▌▋▊▉"
_FORMULA = re.compile(r"(?<![^,;])(?=[=+\-@\t\r\n\x1b\uff0b\uff0d\uff1d\uff20])")  # and full-width + - = @


def print_table(console: Console, board: Board) -> None:
    """Print a leaderboard as a table of at most 110 columns, with the whole citation below it.

    80 columns and more read well. A name that does not fit is shortened in the middle.
    """
    width = min(console.width, _WIDEST_TABLE)
    table = _Table(board, width)
    rule = Text("─" * min(table.width, width), style="dim")
    if board.is_demo:
        console.print(Text(_DEMO, style="yellow"))
    console.print(Text(board.title, style="bold"), Text(board.lead), sep="\n", width=width)
    console.print()
    for line in table.heading():
        console.print(line, no_wrap=True, overflow="crop")
    for place in range(len(board.ranks)):
        note = board.notes.get(place)
        if place == 0 or note:
            console.print(rule)
        if note:
            console.print(Text(note, style="dim"), width=min(table.width, width))
        console.print(table.row(place), no_wrap=True, overflow="crop")
    console.print()
    print_line(console, board.citation)


class _Table:
    """The columns of a table with their widths in characters, and its lines."""

    def __init__(self, board: Board, width: int) -> None:
        self._board = board
        self._columns = [column for column in board.columns if width >= _WIDTH_FOR_EXTRAS or not column.is_extra]
        self._widths = {id(column): _natural_width(column) for column in self._columns}
        free = width - len(_GAP) * len(self._columns) - sum(self._widths.values())
        while free < _NARROWEST_BAR and (widest := self._widest_name()) is not None:
            self._widths[id(widest)] -= 1
            free += 1
        self._bar = max(_NARROWEST_BAR, min(_WIDEST_BAR, free))
        self.width = sum(self._widths.values()) + self._bar + len(_GAP) * len(self._columns)

    def _widest_name(self) -> Column | None:
        """Return the name column that can shrink most, or None if all are as narrow as possible."""
        names = [column for column in self._columns if column.is_name and self._widths[id(column)] > _NARROWEST_NAME]
        return max(names, key=lambda column: self._widths[id(column)], default=None)

    def heading(self) -> list[Text]:
        """Return the lines of the heading."""
        words = [column.heading.split("\n") for column in self._columns]
        height = max(map(len, words))
        lines = [[""] * (height - len(parts)) + parts for parts in words]  # at the bottom
        return [self._line([parts[n] for parts in lines], "", "bold") for n in range(height)]

    def row(self, place: int) -> Text:
        """Return a row's line."""
        largest = max(self._board.shares)
        return self._line([column.cells[place] for column in self._columns], self._filled(place, largest))

    def _filled(self, place: int, largest: float) -> str:
        """Return a bar in steps of an eighth of a character; the largest share fills the column."""
        eighths = round(self._board.shares[place] / largest * self._bar * 8) if largest else 0
        whole, rest = divmod(eighths, 8)
        return "█" * whole + (_PARTIAL_BLOCKS[rest] if rest else "")

    def _line(self, cells: Sequence[str], bar: str, style: str = "") -> Text:
        parts: list[tuple[str, str]] = []
        for place, (column, cell) in enumerate(zip(self._columns, cells, strict=True)):
            width = self._widths[id(column)]
            text = _fit(cell, width)
            # A rank stands out if it is certain.
            own = column.style if place else "bold" if cell.isdigit() else "dim"
            space = " " * (width - cell_len(text))
            parts += [(text + space if column.is_name else space + text, style or own), (_GAP, "")]
            if column is self._board.share:
                parts += [(bar.ljust(self._bar), "cyan"), (_GAP, "")]
        line = Text.assemble(*parts)
        line.rstrip()
        return line


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


def _natural_width(column: Column) -> int:
    return max(cell_len(text) for text in [*column.heading.split("\n"), *column.cells])


def _fit(text: str, width: int) -> str:
    """Shorten a text in the middle to at most `width` characters: models of one family differ at the end."""
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
