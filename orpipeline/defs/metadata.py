"""The metadata of a materialization: the day at a glance, and plain numbers that the UI plots over days.

Upstream names appear in tables only, which the UI shows literally; markdown would turn them into links and pictures.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.contracts.rules import ALL
from orpipeline.leaderboard import DECIMALS

SPARKLINE_DAYS = 30
_WIDTH, _HEIGHT = 180, 32
_PLOTTED_KEY = re.compile(r"[a-z0-9_]{1,30}")  # Dagster rejects other metadata keys


def leaderboard_metadata(rows: pl.DataFrame, trends: pl.DataFrame) -> dict[str, Any]:
    """Return a day's top 10 of all traffic, the first model's recent shares, and numbers to plot.

    `rows` are the day's in `model_leaderboard`; `trends` those of `model_trends` of that day and the days before.
    """
    everything = rows.filter(scope=ALL).sort("usage_rank", "model_id")
    if everything.is_empty():
        return {"models": 0}
    top = everything.row(0, named=True)
    of_day = trends.filter(scope=ALL, as_of=top["as_of"])
    changes = dict(of_day.select("model_id", "usage_share_change_7d").iter_rows())
    return {
        "top_10": table(
            {
                # The page has room for four short columns.
                "rank": _rank(row),
                "model": row["model_id"],
                "requests": _between(f"{row['usage_share'] * 100:.1f}", f"{row['usage_share_upper'] * 100:.1f}") + "%",
                "7 days, pp": _points(changes.get(row["model_id"])),
            }
            for row in everything.head(10).iter_rows(named=True)
        ),
        f"top_model_last_{SPARKLINE_DAYS}_days": _sparkline(_shares_by_day(trends, top["model_id"], top["as_of"])),
        "models": len(everything),
        "top_model_usage_share": float(top["usage_share"]),
        "top_5_usage_share": round(float(everything.head(5)["usage_share"].sum()), DECIMALS),
    }


def trends_metadata(trends: pl.DataFrame, day: date) -> dict[str, Any]:
    """Return a day's largest changes over 7 days, and how many models are listed for the first time."""
    of_all = trends.filter(as_of=day, scope=ALL)
    moved = of_all.drop_nulls("usage_share_change_7d").sort(pl.col("usage_share_change_7d").abs(), descending=True)
    movers = [
        {
            "model": row["model_id"],
            "requests": f"{row['usage_share']:.1%}",
            "7 days, pp": _points(row["usage_share_change_7d"]),
            "rank": f"{row['usage_rank_7d']} → {row['usage_rank']}",
        }
        for row in moved.head(10).iter_rows(named=True)
    ]
    counts: dict[str, Any] = {"newly_listed_models": of_all.filter(first_seen=day).height}
    if movers:
        counts |= {
            "movers_of_7_days": table(movers),
            "largest_change_7d": float(moved["usage_share_change_7d"][0]),
        }
    return counts


def tasks_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's task mix: the ten largest tasks by requests, and how many there are."""
    ordered = rows.sort("usage_rank", "tag")
    return {
        "task_mix": table(
            {
                "task": row["display_name"],
                "group": row["macro_category"],
                "requests": f"{row['usage_share']:.1%}",
                "tokens": f"{row['token_share']:.1%}",
            }
            for row in ordered.head(10).iter_rows(named=True)
        ),
        "tags": len(rows),
        "largest_task_usage_share": float(ordered["usage_share"][0]),
    }


def macros_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's groups of tasks, and the share of each as a number to plot."""
    shares: dict[str, Any] = {}
    for row in rows.iter_rows(named=True):
        if _PLOTTED_KEY.fullmatch(row["key"]):
            shares |= {
                f"usage_share_{row['key']}": row["usage_share"],
                f"token_share_{row['key']}": row["token_share"],
            }
    groups = table(
        {
            "group": row["label"],
            "requests": f"{row['usage_share']:.1%}",
            "tokens": f"{row['token_share']:.1%}",
        }
        for row in rows.sort("usage_share", descending=True).head(20).iter_rows(named=True)
    )
    return {"groups": groups, **shares}


def task_models_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return how many models a day's lists name, and how much of a tag's requests they cover on average."""
    by_tag = rows.group_by("tag").agg(pl.col("tag_usage_share").sum())
    return {
        "models": rows["model_id"].n_unique(),
        "mean_listed_usage_share": round(float(by_tag["tag_usage_share"].mean() or 0.0), 4),  # type: ignore[arg-type] # of doubles
    }


def _rank(row: Mapping[str, Any]) -> str:
    """Return a rank, with the possible ones if the lists leave it open: `8 (7 to 12)`."""
    possible = _between(str(row["usage_rank_best"]), str(row["usage_rank_worst"]))
    return possible if row["usage_rank_best"] == row["usage_rank_worst"] else f"{row['usage_rank']} ({possible})"


def _between(low: str, high: str) -> str:
    """Return a range from `low` to `high`; one figure if they are the same."""
    return low if low == high else f"{low}\N{EN DASH}{high}"


def _points(change: float | None) -> str:
    """Return a change of a share in percentage points, or nothing if it is unknown."""
    return "" if change is None else f"{change * 100:+.1f}"


def findings_table(findings: pl.DataFrame, limit: int = 20) -> dg.TableMetadataValue:
    """Return the first findings as a table."""
    shown = findings.head(limit).select(
        "rule",
        column=pl.format("{}.{}", "table", "column"),
        row=pl.format("{} {}", "as_of", "row"),
        found="found",
    )
    return table(shown.iter_rows(named=True))


def table(records: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return records as a table for the UI, which shows upstream text literally there."""
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records])


def _shares_by_day(trends: pl.DataFrame, model_id: str, day: date) -> list[float | None]:
    """Return a model's share of all requests on each of the last days, None if it is unknown."""
    rows = trends.filter(pl.col("scope") == ALL, pl.col("model_id") == model_id)
    shares: Mapping[date, float] = dict(rows.select("as_of", "usage_share").iter_rows())
    return [shares.get(day - timedelta(days=n)) for n in range(SPARKLINE_DAYS - 1, -1, -1)]


def _sparkline(values: Sequence[float | None]) -> dg.MarkdownMetadataValue:
    """Return a line of values from 0 to the largest as a small picture, which the UI shows inline.

    Gaps stay gaps. The UI shows markdown of up to 1,000 characters inline; this has about 700.
    """
    largest = max((value for value in values if value is not None), default=0.0) or 1.0
    step = _WIDTH / max(len(values) - 1, 1)
    path, drawing = "", False
    for n, value in enumerate(values):
        if value is not None:
            x, y = round(n * step), round((_HEIGHT - 2) * (1 - value / largest)) + 1
            # A line of zero length shows a day between gaps as a dot.
            path += f"L{x} {y}" if drawing else f"M{x} {y}h0"
        drawing = value is not None
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<path d="{path}" fill="none" stroke="#3b82c4" stroke-width="2" stroke-linecap="round"/></svg>'
    )
    return dg.MetadataValue.md(f"![its share](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")
