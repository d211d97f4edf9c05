"""The command `leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from orpipeline.cli import formats, terminal
from orpipeline.cli.board import MEASURES, Ranking, board_of
from orpipeline.cli.options import command_settings, day_option, demo_option, examples
from orpipeline.errors import OrpipelineError
from orpipeline.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from orpipeline.warehouse.tables import Tables


@click.command(
    short_help="Show the leaderboard of models or authors.",
    epilog=examples(
        "orpipeline leaderboard --by tokens --scope code",
        "orpipeline leaderboard --authors --format csv > authors.csv",
    ),
)
@day_option
@click.option("--scope", default="all", show_default=True, help="The tasks: `all`, or a macro-category such as `code`.")
@click.option(
    "--by",
    type=click.Choice(list(MEASURES)),
    default="requests",
    show_default=True,
    help="The measure whose shares and ranks are shown.",
)
@click.option("--authors", is_flag=True, help="Rank authors by all their listed models, instead of models.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="The number of rows.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md"]),
    default="table",
    show_default=True,
    help="A table for the terminal, CSV or JSON with all columns for programs, or Markdown.",
)
@demo_option
def leaderboard(day: date | None, scope: str, by: str, authors: bool, top: int, form: str, demo: bool) -> None:
    """Show the leaderboard of a day: of models, or of their authors.

    A share is what the published lists attribute, so the true one can be larger: `at most` is its bound. The rank is a
    range where the lists and the rounding of the figures allow several.
    """
    settings = command_settings(demo=demo)
    show_leaderboard(settings, day, scope=scope, by=by, authors=authors, top=top, form=form, demo=demo)


def show_leaderboard(
    settings: Settings,
    day: date | None = None,
    *,
    scope: str = "all",
    by: str = "requests",
    authors: bool = False,
    top: int = 20,
    form: str = "table",
    demo: bool,
) -> None:
    """Print the leaderboard of `day`, or of the newest day in the tables, in one of the command's formats."""
    from orpipeline.warehouse.warehouse import open_warehouse

    with open_warehouse(settings).reading() as tables:
        snapshot = _snapshot(tables, day, settings, demo=demo)
        ranking = (_author_ranking if authors else _model_ranking)(tables, snapshot, scope, by)
    rows = ranking.rows.head(min(top, len(ranking.rows)))  # polars takes no number above 64 bits
    if form == "table":
        formats.print_table(terminal.out, board_of(ranking, top))
    elif form == "md":
        sys.stdout.write(formats.as_markdown(board_of(ranking, top)))
    elif form == "csv":
        sys.stdout.write(formats.as_csv(rows, snapshot["citation"]))
    else:
        about = {"as_of": ranking.as_of, "scope": scope, "by": by, "citation": snapshot["citation"]}
        sys.stdout.write(formats.as_json(rows, **about, coverage=ranking.coverage))


def _snapshot(tables: Tables, day: date | None, settings: Settings, *, demo: bool) -> dict[str, Any]:
    """Return the row of `snapshots` for a day, or for the newest one."""
    snapshots = tables.read("snapshots", since=day, until=day)
    if not snapshots.is_empty():
        return snapshots.row(-1, named=True)
    if day is None:
        first = "orpipeline demo" if demo else "orpipeline run"
        raise OrpipelineError(f"The warehouse {settings.warehouse} is empty. Run `{first}` first.")
    raise OrpipelineError(
        f"The tables have no rows for {day}: they have {terminal.span(tables.days())}. If the archive has that "
        f"day or the API still serves it, run `orpipeline run --date {day}`; otherwise import it."
    )


def _model_ranking(tables: Tables, snapshot: Mapping[str, Any], scope: str, by: str) -> Ranking:
    """Return the rows of `model_leaderboard`, with their changes."""
    from orpipeline.contracts.rules import COMPARED_DAYS

    as_of, measure = snapshot["as_of"], MEASURES[by]
    rows, coverage = _of_scope(tables, "model_leaderboard", as_of, scope)
    key = ["as_of", "window_days", "scope", "model_id"]
    changes = tables.read("model_trends", since=as_of, until=as_of).select(
        *key, "usage_rank_7d", "usage_share_change_7d", "first_seen"
    )
    ordered = rows.filter(scope=scope).join(changes, on=key, how="left").sort(f"{measure}_rank", "model_id")
    # The order of shares can differ from that of lows, which also depends on the number of lists.
    is_above = ordered[f"{measure}_share_low"] > coverage[f"unlisted_{measure}_up"]
    above = len(ordered) if is_above.all() else int(is_above.arg_min() or 0)
    week_before = as_of - timedelta(days=COMPARED_DAYS)
    return Ranking(
        snapshot=snapshot,
        scope=scope,
        by=by,
        rows=ordered,
        coverage=coverage,
        all_models=rows["model_id"].unique().sort().to_list(),
        above=above,
        since=week_before if week_before in tables.days() else None,
    )


def _author_ranking(tables: Tables, snapshot: Mapping[str, Any], scope: str, by: str) -> Ranking:
    """Return the rows of `author_leaderboard`."""
    as_of = snapshot["as_of"]
    rows, coverage = _of_scope(tables, "author_leaderboard", as_of, scope)
    listed = tables.read("model_leaderboard", since=as_of, until=as_of)
    return Ranking(
        snapshot=snapshot,
        scope=scope,
        by=by,
        rows=rows.filter(scope=scope).sort(f"{MEASURES[by]}_rank", "author"),
        coverage=coverage,
        all_models=listed["model_id"].unique().sort().to_list(),
        above=None,
        since=None,
    )


def _of_scope(tables: Tables, name: str, as_of: date, scope: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return a day's rows of a table or view in every scope, and the scope's row of `leaderboard_coverage`."""
    coverage = tables.read("leaderboard_coverage", since=as_of, until=as_of)
    of_scope = coverage.filter(scope=scope)
    if of_scope.is_empty():
        scopes = ", ".join(coverage["scope"].sort())
        raise OrpipelineError(f"{as_of} has no scope {scope!r}; it has {scopes}.")
    return tables.read(name, since=as_of, until=as_of), of_scope.row(0, named=True)
