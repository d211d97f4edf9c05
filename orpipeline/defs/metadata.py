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

from orpipeline.contracts.rules import ALL, COMPARED_DAYS
from orpipeline.leaderboard import DECIMALS
from orpipeline.report.certainty import Move, smallest_moves, unknown_group
from orpipeline.report.wording import (
    MEASURES,
    UNKNOWN,
    count_text,
    move_text,
    new_or_back,
    percent,
    points,
    rank_range,
    short_day_text,
    short_names,
)
from orpipeline.text import plain

SPARKLINE_DAYS = 30
_WIDTH, _HEIGHT = 180, 32
_PLOTTED_KEY = re.compile(r"[a-z0-9_]{1,30}")  # Dagster rejects other metadata keys


Views = Mapping[str, pl.DataFrame]
"""The rows of `orpipeline.load.RECENT` by name: of a day, and of the `SPARKLINE_DAYS` days before."""


def leaderboard_metadata(rows: pl.DataFrame, views: Views) -> dict[str, Any]:
    """Return a day's top 10 of models and of authors of all traffic, what the lists cover, and numbers to plot.

    `rows` are the day's in `model_leaderboard`. Ranks are the possible ones: a single one only if it is certain.
    """
    everything = rows.filter(scope=ALL).sort("usage_rank", "model_id")
    if everything.is_empty():
        return {"models": 0}
    top = everything.row(0, named=True)
    day: date = top["as_of"]
    trends = views["model_trends"]
    coverage = views["leaderboard_coverage"].filter(scope=ALL, as_of=day).row(0, named=True)
    return {
        "top_10": _top_models(everything, trends.filter(scope=ALL)),
        "top_10_authors": top_authors(views["author_leaderboard"].filter(as_of=day)),
        "coverage": _coverage(coverage),
        f"top_model_{SPARKLINE_DAYS}_days": _sparkline(_shares_by_day(trends, top["model_id"], day)),
        "models": len(everything),
        "top_model_usage_share": float(top["usage_share"]),
        "top_5_usage_share": round(float(everything.head(5)["usage_share"].sum()), DECIMALS),
        **{f"{measure}_attributed": coverage[f"{measure}_attributed"] for measure in MEASURES},
        **{f"unlisted_{measure}_upper": coverage[f"unlisted_{measure}_upper"] for measure in MEASURES},
    }


def _top_models(everything: pl.DataFrame, trends: pl.DataFrame) -> dg.TableMetadataValue:
    """Return the first ten models of a day. A row is before the largest group of unknown order."""
    day = everything["as_of"][0]
    week_before = day - timedelta(days=COMPARED_DAYS)
    names = short_names(everything["model_id"].to_list())
    trend_of = {row["model_id"]: row for row in trends.filter(as_of=day).iter_rows(named=True)}
    has_week_before = not trends.filter(as_of=week_before).is_empty()
    records = [
        {
            "rank": _possible_ranks(row),
            "model": names[row["model_id"]],
            "requests": _bounds(row),
            # The page has room for four short columns.
            **({_since(week_before): _moved(trend_of[row["model_id"]], week_before)} if has_week_before else {}),
        }
        for row in everything.head(10).iter_rows(named=True)
    ]
    return table(_with_divider(records, everything))


def authors_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's top 10 of authors of all traffic, and how many there are."""
    return {"top_10_authors": top_authors(rows), "authors": rows["author"].n_unique()}


def coverage_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return how much of all traffic a day's lists attribute."""
    return {"coverage": _coverage(rows.row(by_predicate=pl.col("scope") == ALL, named=True))}


def top_authors(authors: pl.DataFrame) -> dg.TableMetadataValue:
    """Return the first ten authors of a day. A row is before the largest group of unknown order."""
    ordered = authors.filter(scope=ALL).sort("usage_rank", "author")
    records = [
        {
            "rank": _possible_ranks(row),
            "author": plain(row["author"]),
            "requests": _bounds(row),
            "models": row["model_count"],
        }
        for row in ordered.head(10).iter_rows(named=True)
    ]
    return table(_with_divider(records, ordered))


def _coverage(coverage: Mapping[str, Any]) -> dg.TableMetadataValue:
    """Return how much the lists attribute, the most that an unlisted model can have, and how many models have more."""
    return table(
        {
            # Headings do not wrap, so they are short.
            "of": name,
            "attributed": percent(coverage[f"{measure}_attributed"]),
            "unlisted": f"at most {percent(coverage[f'unlisted_{measure}_upper'])}",
            "above it": count_text(coverage[f"{measure}_models_above_unlisted"], "model"),
        }
        for measure, name in MEASURES.items()
    )


def _with_divider(records: list[dict[str, Any]], rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the records of the first rows, with one more before the largest group whose order is not known."""
    group = unknown_group(rows.select("usage_rank_best", "usage_rank_worst").rows())
    if not group or group.start >= len(records):
        return records
    rank, name, *others = records[0]
    divider = {rank: UNKNOWN, name: f"order of next {len(group)} unknown", **dict.fromkeys(others, UNKNOWN)}
    return [*records[: group.start], divider, *records[group.start :]]


def trends_metadata(views: Views, day: date) -> dict[str, Any]:
    """Return a day's largest changes over 7 days, and how many models are listed for the first time."""
    trends = views["model_trends"].filter(scope=ALL)
    of_day = trends.filter(as_of=day)
    counts: dict[str, Any] = {"newly_listed_models": of_day.filter(first_seen=day).height}
    week_before = day - timedelta(days=COMPARED_DAYS)
    moves = _moves(views, trends, day, week_before)
    if not moves:
        return counts
    names = short_names([move.model_id for move in moves])
    shares = dict(of_day.select("model_id", "usage_share").iter_rows())
    movers = [
        {
            "model": names[move.model_id],
            "requests": percent(shares[move.model_id]) if move.model_id in shares else UNKNOWN,
            _since(week_before): move_text(move),
        }
        for move in moves[:10]
        if round(100 * move.change, 1)  # a change of 0.0 pp tells nothing
    ]
    return counts | ({"movers_of_7_days": table(movers)} if movers else {}) | {"largest_change_7d": moves[0].change}


def _moves(views: Views, trends: pl.DataFrame, day: date, before: date) -> list[Move]:
    """Return the changes since the day `before`, the largest first; none if that day is missing."""
    of_day, of_before = trends.filter(as_of=day), trends.filter(as_of=before)
    if of_before.is_empty():
        return []
    bounds = dict(views["leaderboard_coverage"].filter(scope=ALL).select("as_of", "unlisted_usage_upper").iter_rows())
    gone = of_before.join(of_day, on="model_id", how="anti")
    return smallest_moves(of_day, gone, before=before, unlisted=bounds[day], unlisted_before=bounds[before])


def tasks_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's task mix: the ten largest tasks by requests, and how many there are."""
    ordered = rows.sort("usage_rank", "tag")
    return {
        "task_mix": table(
            {
                "task": row["display_name"],
                "group": row["macro_category"],
                "requests": percent(row["usage_share"]),
                "tokens": percent(row["token_share"]),
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
            "requests": percent(row["usage_share"]),
            "tokens": percent(row["token_share"]),
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


def _possible_ranks(row: Mapping[str, Any]) -> str:
    """Return the possible ranks by requests: one number if it is certain, otherwise a range."""
    return _unbroken(rank_range(row["usage_rank_best"], row["usage_rank_worst"]))


def _bounds(row: Mapping[str, Any]) -> str:
    """Return the share of requests that the lists attribute, and the largest possible one: `7.5-8.2%`, with a dash."""
    low, high = percent(row["usage_share"]), percent(row["usage_share_upper"])
    return low if low == high else _unbroken(f"{low.removesuffix('%')}\N{EN DASH}{high}")


def _unbroken(text: str) -> str:
    """Return a range that the UI does not break into two lines in a narrow column."""
    return text.replace("\N{EN DASH}", "\N{WORD JOINER}\N{EN DASH}\N{WORD JOINER}")


def _since(day: date) -> str:
    """Return the heading of a column of changes."""
    return f"since {short_day_text(day)}"


def _moved(row: Mapping[str, Any], since: date) -> str:
    """Return the change since a day, or the word for a model that this day did not list."""
    change = row["usage_share_change_7d"]
    return new_or_back(row["first_seen"], since) if change is None else points(change)


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
