"""The command `leaderboard`."""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orpipeline.cli import terminal
from orpipeline.cli.options import command_settings, day_option, demo_option, open_warehouse
from orpipeline.errors import OrpipelineError
from orpipeline.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from orpipeline.warehouse.tables import Tables


@click.command()
@day_option
@click.option("--scope", default="all", show_default=True, help="`all`, or a macro-category such as `code`.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="The number of models.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md"]),
    default="table",
    show_default=True,
    help="A table for the terminal, CSV or JSON for programs, or Markdown.",
)
@demo_option
def leaderboard(at: datetime | None, scope: str, top: int, form: str, demo: bool) -> None:
    """Show the model leaderboard of a day."""
    show_leaderboard(command_settings(demo=demo), at.date() if at else None, scope, top, form)


def show_leaderboard(settings: Settings, day: date | None, scope: str, top: int, form: str) -> None:
    """Print the leaderboard of `day`, or of the newest day in the tables, in one of the command's formats."""
    with open_warehouse(settings).reading() as tables:
        snapshot = _snapshot(tables, day, settings.warehouse)
        as_of, citation = snapshot["as_of"], snapshot["citation"]
        ranked = _ranked(tables, as_of, scope)
        rows = ranked.head(min(top, len(ranked)))  # polars takes no number above 64 bits
        week_before = as_of - timedelta(days=7)
        known = week_before in tables.days()
    if form == "csv":
        sys.stdout.write(terminal.as_csv(rows, citation))
        return
    if form == "json":
        sys.stdout.write(terminal.as_json(rows, as_of, scope, citation))
        return
    shown = _with_moves(rows, week_before, known=known)
    title = f"{'DEMO, made-up data: ' if snapshot['origin'] == 'demo' else ''}Model leaderboard, "
    title += f"scope {scope}, {rows['window_days'][0]} days up to {as_of}"
    if form == "table":
        terminal.print_leaderboard(terminal.out, shown, title=title, citation=citation)
    else:
        sys.stdout.write(terminal.as_markdown(shown, title=title, citation=citation))


def _snapshot(tables: Tables, day: date | None, warehouse: Path) -> dict[str, Any]:
    """Return the row of `snapshots` for a day, or for the newest one."""
    snapshots = tables.read("snapshots", since=day, until=day)
    if not snapshots.is_empty():
        return snapshots.row(-1, named=True)
    if day is None:
        raise OrpipelineError(f"The warehouse {warehouse} is empty. Run `orpipeline run` first.")
    raise OrpipelineError(
        f"The tables have no rows for {day}: they have {terminal.span(tables.days())}. If the archive has that "
        f"day or the API still serves it, run `orpipeline run --date {day}`; otherwise import it."
    )


def _ranked(tables: Tables, as_of: date, scope: str) -> pl.DataFrame:
    """Return a scope's rows of `model_leaderboard` by rank, with their changes."""
    rows = tables.read("model_leaderboard", since=as_of, until=as_of)
    trends = tables.read("model_trends", since=as_of, until=as_of)
    changes = trends.select("window_days", "scope", "model_id", "usage_rank_7d", "usage_share_change_7d", "first_seen")
    ranked = (
        rows.filter(scope=scope)
        .join(changes, on=["window_days", "scope", "model_id"], how="left")
        .sort("usage_rank", "model_id")
    )
    if ranked.is_empty():
        scopes = ", ".join(rows["scope"].unique().sort())
        raise OrpipelineError(f"{as_of} has no scope {scope!r}; it has {scopes}.")
    return ranked


def _with_moves(rows: pl.DataFrame, week_before: date, *, known: bool) -> pl.DataFrame:
    """Add the column `moved`: the text of each row's change since `week_before`."""
    import polars as pl

    moved = [terminal.moved(row, week_before, known=known) for row in rows.iter_rows(named=True)]
    return rows.with_columns(pl.Series("moved", moved, dtype=pl.String))
