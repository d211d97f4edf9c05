"""The command `leaderboard`: the ranking, the certain changes, and who leads each task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

import click

from orpipeline.cli.options import command_settings, day_option, demo_option, examples
from orpipeline.cli.output import out, print_line, write_data
from orpipeline.errors import OrpipelineError
from orpipeline.settings import Settings
from orpipeline.text import plain

if TYPE_CHECKING:  # they take long to import, and `--help` does not need them
    import polars as pl
    from rich.bar import Bar

    from orpipeline.report.data import ReportData
    from orpipeline.report.views import View

    Cell = str | Bar

_MEASURES = {"requests": "usage", "tokens": "token"}
_OTHER = {"requests": "tokens", "tokens": "requests"}
_DEMO = "DEMO: made-up data"
_WIDEST_TABLE, _WIDTH_FOR_EXTRAS = 150, 130


@dataclass(frozen=True)
class Column:
    """A column of a board. Only a wide terminal shows one that `is_extra`."""

    heading: str
    cells: Sequence[Cell]
    justify: Literal["left", "right"] = "right"
    style: str = ""
    is_extra: bool = False


@dataclass(frozen=True)
class Board:
    """What the command shows: columns of text, the sentences above and below them, and all columns as `records`.

    A line separates the first `above` rows from the others.
    """

    title: str
    lead: str
    columns: Sequence[Column]
    records: pl.DataFrame
    above: int = 0
    notes: Sequence[str] = field(default_factory=list)


@click.command(
    short_help="Show who leads, who leads each task, and who gained.",
    epilog=examples(
        "orpipeline leaderboard --by tokens --scope code",
        "orpipeline leaderboard --tasks",
        "orpipeline leaderboard --authors --format csv > authors.csv",
    ),
)
@day_option
@click.option("--scope", default="all", show_default=True, help="The tasks: `all`, or a macro-category such as `code`.")
@click.option("--by", type=click.Choice(list(_MEASURES)), default="requests", show_default=True, help="The measure.")
@click.option("--authors", "show", flag_value="authors", help="Sum up each author's listed models.")
@click.option("--changes", "show", flag_value="changes", help="Who gained and who lost since 7 days before.")
@click.option("--tasks", "show", flag_value="tasks", help="Who leads each task.")
@click.option("--top", type=click.IntRange(1, 10**9), default=20, show_default=True, help="The number of rows.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md"]),
    default="table",
    show_default=True,
    help="A table for the terminal, CSV or JSON with all columns for programs, or Markdown.",
)
@demo_option
def leaderboard(day: date | None, scope: str, by: str, show: str | None, top: int, form: str, demo: bool) -> None:
    """Show a day's leaderboard of models, its authors, its changes, or the leader of each task.

    A share is what the published lists attribute, so the true one can be larger: `at most` is its bound. A rank or a
    change is a range where the lists and the rounding of the figures allow several.
    """
    show_leaderboard(command_settings(demo=demo), day, scope=scope, by=by, show=show or "models", top=top, form=form)


def show_leaderboard(
    settings: Settings,
    day: date | None = None,
    *,
    scope: str = "all",
    by: str = "requests",
    show: str = "models",
    top: int = 20,
    form: str = "table",
) -> None:
    """Print what `show` names of `day`, or of the newest day, from the published copy: it waits for no writer."""
    from orpipeline.report.data import read_report_data
    from orpipeline.report.views import View, scopes
    from orpipeline.warehouse.reading import readable_tables
    from orpipeline.warehouse.warehouse import open_warehouse

    with readable_tables(open_warehouse(settings)) as tables:
        data = read_report_data(tables, day, with_history=False)
    labels = scopes(data)
    if scope not in labels:
        similar = get_close_matches(scope, labels, n=1, cutoff=0.4)
        meant = f" Did you mean {similar[0]!r}?" if similar else ""
        raise OrpipelineError(f"{data.as_of} has no scope {scope!r}.{meant} It has {', '.join(labels)}.")
    view = View(data, scope, labels[scope], _MEASURES[by])
    boards: dict[str, Callable[[View, str, int], Board]]
    boards = {"models": models_board, "authors": _authors, "changes": _changes, "tasks": _tasks}
    board, citation = boards[show](view, by, top), data.snapshot["citation"]
    records = board.records.head(top)
    if form == "table":
        print_board(board, data, citation, top)
    elif form == "md":
        write_data(markdown_table(board, data, citation))
    elif form == "csv":
        from orpipeline.report.files import csv_of

        write_data(csv_of(records, citation).decode("utf-8-sig"))
    else:
        about = {"as_of": data.as_of, "scope": scope, "by": by, "show": show, "citation": citation}
        rows = {**about, "coverage": dict(view.coverage), "rows": records.to_dicts()}
        write_data(json.dumps(rows, indent=2, default=str) + "\n")


def models_board(view: View, by: str, top: int) -> Board:
    """Return the models of a scope, those with the largest share first."""
    from orpipeline.report.wording import count_text, percent, short_day_text

    rows, other = view.rows[:top], _OTHER[by]
    share = f"{view.measure}_share"
    listed = view.data.models.filter(scope=view.scope).sort(share, "model_id", descending=[True, False])
    attributed = view.coverage[f"{view.measure}_attributed"]
    columns = [
        Column("rank", [row["ranks"] for row in rows]),
        Column("model", [row["name"] for row in rows], "left", "bold"),
        Column("id", [plain(row["id"]) for row in rows], "left", "dim", is_extra=True),
        Column(by, [percent(row["share"]) for row in rows]),
        Column("", _bars([row["share"] for row in rows]), "left"),
        Column("at most", [percent(row["upper"]) for row in rows], style="dim"),
        Column(
            other, [percent(one) for one in listed[f"{_MEASURES[other]}_share"].head(top)], style="dim", is_extra=True
        ),
    ]
    if view.data.has_changes:
        heading = f"since {short_day_text(view.data.compared_day)}"
        columns.append(Column(heading, [_change(row["change"], row["least"], row["moved"]) for row in rows]))
    cap = f"a model on no list has at most {percent(view.unlisted)} of {view.unit}"
    below = f"{cap[0].upper()}{cap[1:]}, so all ranks are among listed models only."
    return Board(
        title=_title(view, "by model"),
        lead=f"The lists attribute {percent(attributed)} of {view.unit} to "
        f"{count_text(view.coverage['model_count'], 'model')}. {_text(view.first_place)}",
        columns=columns,
        records=listed,
        above=view.above,
        notes=[f"Below the line, ranks are among listed models only: {cap}."] if view.above else [below],
    )


def _authors(view: View, by: str, top: int) -> Board:
    import polars as pl

    from orpipeline.report.wording import author_name, percent

    share, rows = f"{view.measure}_share", view.authors[:top]
    return Board(
        title=_title(view, "by author"),
        lead="Sums over each author's listed models. What the lists leave open can belong to any author.",
        columns=[
            Column("author", [author_name(row["author"]) for row in rows], "left", "bold"),
            Column("models", [f"{row['model_count']:,}" for row in rows], style="dim"),
            Column(by, [percent(row[share]) for row in rows]),
            Column("", _bars([row[share] for row in rows]), "left"),
            Column("at most", [percent(row[f"{share}_upper"]) for row in rows], style="dim"),
            Column("top model", [view.data.name(row["top_model"]) for row in rows], "left", is_extra=True),
        ],
        records=pl.DataFrame(view.authors, schema=view.data.authors.schema),
    )


def _changes(view: View, _: str, top: int) -> Board:
    import polars as pl

    from orpipeline.report.wording import percent, possible_points, short_day_text

    changes = view.changes[:top]
    return Board(
        title=f"Possible change of the share of {view.unit} since {short_day_text(view.data.compared_day)}, in points",
        lead=f"{len(view.certain)} certain. {view.changes_text}" if view.data.has_changes else view.changes_text,
        columns=[
            Column("model", [view.data.name(one.model_id) for one in changes], "left", "bold"),
            Column("id", [plain(one.model_id) for one in changes], "left", "dim", is_extra=True),
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
    import polars as pl

    from orpipeline.contracts.rules import ALL
    from orpipeline.report.views import task_leaders, tasks
    from orpipeline.report.wording import count_text, percent

    macro = None if view.scope == ALL else view.label
    found = [task for task in tasks(view.data) if macro in (None, task["macro"])]
    leaders = "; ".join(
        f"{name}, {count_text(led, 'task')} ({sure} for certain)"
        for name, led, sure in task_leaders(found, view.measure)[:3]
    )
    records = []
    for task in found:
        lead = task["leads"][view.measure]
        first, second = [*lead["models"], None, None][:2]
        records.append(
            {
                "tag": task["tag"],
                "display_name": task["label"],
                "usage_share": task["usage"],
                "token_share": task["token"],
                "leader": first and first["id"],
                "leader_share": first and first[view.measure],
                "runner_up": second and second["id"],
                "runner_up_share": second and second[view.measure],
                "is_certain": lead["is_certain"],
            }
        )
    shown = [task["leads"][view.measure] for task in found[:top]]

    def of(place: int, what: str) -> list[str]:
        models = [lead["models"][place] if len(lead["models"]) > place else None for lead in shown]
        return ["" if one is None else one["name"] if what == "name" else percent(one[view.measure]) for one in models]

    return Board(
        title=f"Who leads each task, by {by}",
        lead=f"Most lead: {leaders}. A leader's share is of the task's own {by}.",
        columns=[
            Column("task", [task["label"] for task in found[:top]], "left", "bold"),
            Column(by, [percent(task[view.measure]) for task in found[:top]]),
            Column("leader", of(0, "name"), "left"),
            Column("share", of(0, "share")),
            Column("runner-up", of(1, "name"), "left", "dim"),
            Column("share", of(1, "share"), style="dim"),
            Column("first place", [lead["first"] for lead in shown], "left", is_extra=True),
        ],
        records=pl.DataFrame(records),
    )


def _title(view: View, what: str) -> str:
    from orpipeline.report.wording import window_text

    return f"Share of {view.unit} {what}, {window_text(view.data.as_of, view.data.snapshot['window_days'])}"


def _text(markup: str) -> str:
    """Return the text of one of the report's sentences."""
    from markupsafe import Markup

    return plain(Markup(markup).striptags())  # noqa: S704 - it becomes text


def _change(possible: str, least: float, moved: str) -> str:
    """Return a possible change: with an arrow if it is certain, and with `new` or `back` for a model of today only."""
    arrow = "▲ " if least > 0 else "▼ " if least < 0 else ""
    return f"{arrow}{possible}{f' ({moved})' if moved else ''}"


def _bars(shares: Sequence[float]) -> list[Cell]:
    from rich.bar import Bar

    return [
        Bar(max(shares), 0, share, width=16 if out.width >= _WIDTH_FOR_EXTRAS else 8, color="cyan") for share in shares
    ]


def print_board(board: Board, data: ReportData, citation: str, top: int) -> None:
    """Print a board that fits the terminal, with the citation below it."""
    from rich import box
    from rich.table import Table

    width = min(out.width, _WIDEST_TABLE)
    shown = [one for one in board.columns if width >= _WIDTH_FOR_EXTRAS or not one.is_extra]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", safe_box=False)
    for column in shown:
        is_fixed = column.justify == "right"
        table.add_column(column.heading, justify=column.justify, style=column.style, overflow="fold", no_wrap=is_fixed)
    for place, row in enumerate(zip(*(column.cells for column in shown), strict=True), start=1):
        table.add_row(*row, end_section=place == board.above)
    if data.is_demo:
        out.print(_DEMO, style="yellow")
    out.print(board.title, style="bold", soft_wrap=False, width=width)
    out.print(board.lead, soft_wrap=False, width=width)
    if table.row_count:
        out.print(table, soft_wrap=False, width=width)
    notes = list(board.notes)
    if len(board.records) > top:
        notes.append(f"{top} of {len(board.records)} rows: --top {len(board.records)} shows all.")
    for note in notes:
        out.print(note, style="dim", soft_wrap=False, width=width)
    out.print()
    print_line(citation)


def markdown_table(board: Board, data: ReportData, citation: str) -> str:
    """Return a Markdown table, with its title above and the citation below."""
    columns = [column for column in board.columns if column.heading]
    title = f"{_DEMO}. {board.title}" if data.is_demo else board.title
    rows = [" | ".join(_markdown(str(cell)) for cell in row) for row in zip(*(c.cells for c in columns), strict=True)]
    lines = [f"**{_markdown(title)}**", "", _markdown(board.lead), ""]
    lines.append(f"| {' | '.join(column.heading for column in columns)} |")
    lines.append(f"| {' | '.join('---' if column.justify == 'left' else '---:' for column in columns)} |")
    lines += [f"| {row} |" for row in rows]
    return "\n".join([*lines, "", *(_markdown(note) for note in board.notes), "", _markdown(citation), ""])


def _markdown(text: str) -> str:
    """Return text that Markdown shows literally, also in a cell of a table."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in r"\|`*_~[]!" else c for c in escaped)
