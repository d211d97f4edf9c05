"""What `orpipeline leaderboard` shows: the ranking, authors, the changes, and who leads each task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Literal

import click
import polars as pl
from rich import box
from rich.bar import Bar
from rich.measure import Measurement
from rich.table import Table

from orpipeline.cli.terminal import out, print_line
from orpipeline.contracts.rules import ALL
from orpipeline.report.data import ReportData, read_report_data
from orpipeline.report.files import csv_of
from orpipeline.report.views import View, scopes, task_leaders, tasks
from orpipeline.report.wording import (
    author_name,
    count_text,
    percent,
    possible_points,
    short_day_text,
    window_text,
)
from orpipeline.settings import Settings
from orpipeline.text import plain
from orpipeline.warehouse.reading import readable_tables
from orpipeline.warehouse.warehouse import open_warehouse

MEASURES = {"requests": "usage", "tokens": "token"}
_OTHER = {"requests": "tokens", "tokens": "requests"}
_DEMO = "DEMO: made-up data"
_WIDEST_TABLE, _BAR = 150, 10


@dataclass(frozen=True)
class Column:
    """A column of a board. If the table is too wide, columns with the highest `extra` are left out first; 0 stays."""

    heading: str
    cells: Sequence[str | Bar]
    justify: Literal["left", "right"] = "right"
    style: str = ""
    extra: int = 0


@dataclass(frozen=True)
class Board:
    """What the command shows: columns, the sentences above and below them, and all rows as `records` for programs.

    A line separates the first `above` rows from the others.
    """

    title: str
    lead: str
    columns: Sequence[Column]
    records: pl.DataFrame
    above: int = 0
    note: str = ""


def show_leaderboard(
    settings: Settings,
    day: date | None = None,
    *,
    scope: str = ALL,
    by: str = "requests",
    show: str = "models",
    top: int = 20,
    form: str = "table",
) -> None:
    """Print what `show` names of `day`, or of the newest day, from the published copy: it waits for no writer."""
    with readable_tables(open_warehouse(settings)) as tables:
        data = read_report_data(tables, day, with_history=False)
    labels = scopes(data)
    if scope not in labels:
        similar = get_close_matches(scope, labels, n=1, cutoff=0.4)
        meant = f" Did you mean {similar[0]!r}?" if similar else ""
        raise click.UsageError(f"{data.as_of} has no scope {scope!r}.{meant} It has {', '.join(labels)}.")
    view = View(data, scope, labels[scope], MEASURES[by])
    boards: dict[str, Callable[[View, str, int], Board]]
    boards = {"models": models_board, "authors": _authors, "changes": _changes, "tasks": _tasks}
    board, citation = boards[show](view, by, top), data.snapshot["citation"]
    if form == "table":
        print_board(board, data, citation, top)
        return
    if form == "md":
        written = markdown_table(board, data, citation).encode()
    elif form == "csv":
        written = csv_of(board.records[:top], citation).removeprefix(b"\xef\xbb\xbf")
    else:
        about = {"as_of": data.as_of, "scope": scope, "by": by, "show": show, "citation": citation}
        rows = {**about, "coverage": dict(view.coverage), "rows": board.records[:top].to_dicts()}
        written = (json.dumps(rows, indent=2, default=str) + "\n").encode()
    click.echo(written, nl=False)  # in UTF-8, whatever the terminal's encoding is


def models_board(view: View, by: str, top: int) -> Board:
    """Return the models of a scope, those with the largest share first."""
    rows, other = view.rows[:top], _OTHER[by]
    share = f"{view.measure}_share"
    listed = view.data.models.filter(scope=view.scope).sort(share, "model_id", descending=[True, False])
    columns = [
        Column("rank", [row["ranks"] for row in rows]),
        Column("model", [row["name"] for row in rows], "left", "bold"),
        Column("id", [plain(row["id"]) for row in rows], "left", "dim", extra=4),
        *_shares(by, [(row["share"], row["upper"]) for row in rows]),
        Column(other, [percent(one) for one in listed[f"{MEASURES[other]}_share"][:top]], style="dim", extra=3),
    ]
    if view.data.has_changes:
        changes = [_change(row["change"], row["least"], row["moved"]) for row in rows]
        columns.append(Column(f"since {short_day_text(view.data.compared_day)}", changes, extra=1))
    attributed = f"{percent(view.coverage[f'{view.measure}_attributed'])} of {view.unit}"
    cap = f"a model on no list has at most {percent(view.unlisted)} of {view.unit}"
    return Board(
        title=_title(view, "by model"),
        lead=f"The lists attribute {attributed} to {count_text(view.coverage['model_count'], 'model')}. "
        + plain(view.first_place.striptags()),
        columns=columns,
        records=listed,
        above=view.above,
        note=f"Below the line, ranks are among listed models only: {cap}."
        if view.above
        else f"All ranks are among listed models only: {cap}.",
    )


def _authors(view: View, by: str, top: int) -> Board:
    share, rows = f"{view.measure}_share", view.authors[:top]
    return Board(
        title=_title(view, "by author"),
        lead="Sums over each author's listed models. What the lists leave open can belong to any author.",
        columns=[
            Column("author", [author_name(row["author"]) for row in rows], "left", "bold"),
            Column("models", [f"{row['model_count']:,}" for row in rows], style="dim"),
            *_shares(by, [(row[share], row[f"{share}_upper"]) for row in rows]),
            Column("top model", [view.data.name(row["top_model"]) for row in rows], "left", extra=3),
        ],
        records=pl.DataFrame(view.authors, schema=view.data.authors.schema),
    )


def _changes(view: View, _: str, top: int) -> Board:
    changes = view.changes[:top]
    return Board(
        title=f"Possible change of the share of {view.unit} since {short_day_text(view.data.compared_day)}, in points",
        lead=f"{len(view.certain)} certain. {view.changes_text}" if view.data.has_changes else view.changes_text,
        columns=[
            Column("model", [view.data.name(one.model_id) for one in changes], "left", "bold"),
            Column("id", [plain(one.model_id) for one in changes], "left", "dim", extra=1),
            Column("change", [_change(possible_points(one.low, one.high), one.least, "") for one in changes]),
            Column("now", ["not listed" if one.share is None else percent(one.share) for one in changes]),
        ],
        records=pl.DataFrame(
            [(one.model_id, one.author, one.low, one.high, one.least != 0, one.share) for one in view.changes],
            schema={"model_id": pl.String, "author": pl.String, "change_low": pl.Float64, "change_high": pl.Float64}
            | {"is_certain": pl.Boolean, "share": pl.Float64},
            orient="row",
        ),
        above=len(view.certain),
    )


def _tasks(view: View, by: str, top: int) -> Board:
    macro = None if view.scope == ALL else view.label
    found = [task for task in tasks(view.data) if macro in (None, task["macro"])]
    shown, leads = found[:top], [task["leads"][view.measure] for task in found]
    most = "; ".join(
        f"{name}, {count_text(led, 'task')} ({sure} for certain)"
        for name, led, sure in task_leaders(found, view.measure)[:3]
    )

    def of(place: int, key: str) -> list[str | float | None]:
        return [lead["models"][place][key] if len(lead["models"]) > place else None for lead in leads]

    def column(place: int, heading: str, extra: int) -> list[Column]:
        names = [str(name or "") for name in of(place, "name")[:top]]
        shares = ["" if share is None else percent(float(share)) for share in of(place, view.measure)[:top]]
        style = "dim" if place else ""
        return [Column(heading, names, "left", style, extra), Column("share", shares, "right", style, extra)]

    return Board(
        title=f"Who leads each task, by {by}",
        lead=f"Most lead: {most}. A leader's share is of the task's own {by}.",
        columns=[
            Column("task", [task["label"] for task in shown], "left", "bold"),
            Column(by, [percent(task[view.measure]) for task in shown], extra=1),
            *column(0, "leader", 0),
            *column(1, "runner-up", 2),
            Column("first place", [lead["first"] for lead in leads[:top]], "left", extra=3),
        ],
        records=pl.DataFrame(
            {
                "tag": [task["tag"] for task in found],
                "display_name": [task["label"] for task in found],
                "usage_share": [task["usage"] for task in found],
                "token_share": [task["token"] for task in found],
                "leader": of(0, "id"),
                "leader_share": of(0, view.measure),
                "runner_up": of(1, "id"),
                "runner_up_share": of(1, view.measure),
                "is_certain": [lead["is_certain"] for lead in leads],
            }
        ),
    )


def _title(view: View, what: str) -> str:
    return f"Share of {view.unit} {what}, {window_text(view.data.as_of, view.data.snapshot['window_days'])}"


def _change(possible: str, least: float, moved: str) -> str:
    """Return a possible change: with an arrow if it is certain, and with `new` or `back` for a model of today only."""
    arrow = "▲ " if least > 0 else "▼ " if least < 0 else ""
    return f"{arrow}{possible}{f' ({moved})' if moved else ''}"


def _shares(by: str, shares: Sequence[tuple[float, float]]) -> list[Column]:
    """Return the columns of shares and their upper bounds, with bars where there is room."""
    largest = max((share for share, _ in shares), default=0.0)
    return [
        Column(by, [percent(share) for share, _ in shares]),
        Column("", [Bar(largest, 0, share, width=_BAR, color="cyan") for share, _ in shares], "left", extra=2),
        Column("at most", [percent(upper) for _, upper in shares], style="dim"),
    ]


def print_board(board: Board, data: ReportData, citation: str, top: int) -> None:
    """Print a board that fits the terminal, with the citation below it."""
    width = min(out.width, _WIDEST_TABLE)
    table = _fitting(board, width)
    if data.is_demo:
        out.print(_DEMO, style="yellow")
    out.print(board.title, style="bold", soft_wrap=False, width=width)
    out.print(board.lead, soft_wrap=False, width=width)
    if table.row_count:
        out.print(table, soft_wrap=False, width=width)
    count = len(board.records)
    for note in (board.note, f"{top} of {count} rows: --top {count} shows all." if count > top else ""):
        if note:
            out.print(note, style="dim", soft_wrap=False, width=width)
    out.print()
    print_line(citation)


def _fitting(board: Board, width: int) -> Table:
    """Return the board as a table with the columns for which there is room."""
    for extra in sorted({column.extra for column in board.columns}, reverse=True):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", safe_box=False)
        shown = [column for column in board.columns if column.extra <= extra]
        for column in shown:
            is_fixed = column.justify == "right"
            table.add_column(
                column.heading, justify=column.justify, style=column.style, overflow="fold", no_wrap=is_fixed
            )
        for place, row in enumerate(zip(*(column.cells for column in shown), strict=True), start=1):
            table.add_row(*row, end_section=place == board.above)
        if Measurement.get(out, out.options.update(width=10 * _WIDEST_TABLE), table).maximum <= width:
            break
    return table


def markdown_table(board: Board, data: ReportData, citation: str) -> str:
    """Return a Markdown table, with its title above and the citation below."""
    columns = [column for column in board.columns if column.heading]
    title = f"{_DEMO}. {board.title}" if data.is_demo else board.title
    rows = [[column.heading for column in columns]]
    rows += ([_markdown(str(cell)) for cell in row] for row in zip(*(one.cells for one in columns), strict=True))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"| {' | '.join('---' if column.justify == 'left' else '---:' for column in columns)} |")
    above = [f"**{_markdown(title)}**", "", _markdown(board.lead), ""]
    return "\n".join([*above, *lines, "", _markdown(board.note), "", _markdown(citation), ""])


def _markdown(text: str) -> str:
    """Return text that Markdown shows literally, also in a cell of a table."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in r"\|`*_~[]!" else c for c in escaped)
