"""The rows of the other charts: the task mix and the movers."""

from __future__ import annotations

from typing import Any

import polars as pl

from orpipeline.contracts.rules import ALL
from orpipeline.report.colours import Theme
from orpipeline.report.data import ReportData
from orpipeline.report.ranking import Row, author_of
from orpipeline.report.wording import author_name, move_text, percent, points
from orpipeline.text import plain

TOP_MOVERS = 10


def task_mix_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the macro-categories, those with most requests first, each followed by its tasks."""
    macros = {row["key"]: row for row in data.macros.iter_rows(named=True)}
    sums = data.tasks.group_by("macro_category").agg(pl.col("usage_share").sum()).sort("macro_category")
    rows: list[Row] = []
    for key in sums.sort("usage_share", descending=True, maintain_order=True)["macro_category"]:
        colour = theme.macro(key)
        if key in macros:
            rows.append(_mix_row("macro", macros[key]["label"], macros[key], colour))
        tasks = data.tasks.filter(macro_category=key).sort("usage_share", "tag", descending=[True, False])
        rows += [_mix_row("task", task["display_name"], task, colour) for task in tasks.iter_rows(named=True)]
    return [{"place": place, **row} for place, row in enumerate(rows, start=1)]


def _mix_row(kind: str, name: str, row: dict[str, Any], colour: str) -> Row:
    return {
        "kind": kind,
        "name": plain(name),
        "colour": colour,
        "usage": row["usage_share"],
        "token": row["token_share"],
        "usage_text": percent(row["usage_share"]),
        "token_text": percent(row["token_share"]),
        "gap_text": points(row["token_share"] - row["usage_share"]),
    }


def mover_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the models whose share of requests changed most over 7 days, the largest gain first."""
    ordered = sorted(data.moves[:TOP_MOVERS], key=lambda move: (-move.change, move.model_id))
    names = data.names
    shares = dict(data.leaderboard.filter(scope=ALL).select("model_id", "usage_share").rows())
    return [
        {
            "place": place,
            "kind": move.kind,
            "id": plain(move.model_id),
            "name": names[move.model_id],
            "about": author_name(author_of(move.model_id)),
            "colour": theme.author(author_of(move.model_id)),
            "change": move.change,
            "moved": move_text(move),
            "now": f"now {percent(shares[move.model_id])}" if move.model_id in shares else "no longer listed",
        }
        for place, move in enumerate(ordered, start=1)
    ]
