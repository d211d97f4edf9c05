"""The facts of the page's headline and of its first paragraph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from orpipeline.contracts.rules import ALL
from orpipeline.report.certainty import Move
from orpipeline.report.data import ReportData
from orpipeline.report.ranking import Row


@dataclass(frozen=True)
class Story:
    """The first models and authors of scope `all`, its coverage, and the largest change.

    `leaders`, `token_leaders` and `authors` are the rows with rank 1: several if they tie. `second` is the model after
    the leaders. `coverage` is the row of `leaderboard_coverage`. `move` is the
    largest change, and `mover` the name of its model. `fewer` and
    `more` are the tasks whose share of tokens is most below and above their share of requests.
    """

    leaders: list[Row]
    second: Row | None
    token_leaders: list[Row]
    authors: list[Row]
    coverage: dict[str, Any]
    move: Move | None
    mover: str
    fewer: dict[str, Any]
    more: dict[str, Any]


def story(data: ReportData) -> Story:
    """Return the facts of a day's headline."""
    names = data.names
    board = [row | {"name": names[row["model_id"]]} for row in data.leaderboard.filter(scope=ALL).iter_rows(named=True)]
    gaps = data.tasks.with_columns(gap=pl.col("token_share") - pl.col("usage_share")).sort("gap", "tag")
    return Story(
        leaders=[row for row in board if row["usage_rank"] == 1],
        second=next((row for row in board if row["usage_rank"] > 1), None),
        token_leaders=[row for row in board if row["token_rank"] == 1],
        authors=data.authors.filter(scope=ALL, usage_rank=1).to_dicts(),
        coverage=data.coverage[ALL],
        move=data.moves[0] if data.moves else None,
        mover=names[data.moves[0].model_id] if data.moves else "",
        fewer=gaps.row(0, named=True),
        more=gaps.row(-1, named=True),
    )
