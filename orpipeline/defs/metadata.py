"""The metadata of a materialization: the day at a glance, and the few numbers whose plot over days means something.

Upstream names appear in tables only, which the UI shows literally; markdown would turn them into links and pictures.
Tables come first, and keys are short: a long key makes the column of values narrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.contracts.rules import ALL, COMPARED_DAYS
from orpipeline.leaderboard import DECIMALS
from orpipeline.report.wording import (
    MEASURES,
    count_text,
    percent,
    points,
    rank_range,
    short_day_text,
    shown_name,
)
from orpipeline.text import plain

_PLOTTED_KEY = re.compile(r"[a-z0-9_]{1,30}")  # Dagster rejects other metadata keys


def leaderboard_metadata(rows: pl.DataFrame, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a day's top 10 models of all traffic, how many are listed, and the share of the first five.

    `rows` are the day's in `model_leaderboard`, `names` those of the catalogue by model id. Ranks are the possible
    ones: a single one only if it is certain.
    """
    board = rows.filter(scope=ALL).sort("usage_rank", "model_id")
    # With a fourth column, names would wrap, and the page would end before the tenth row.
    records = [
        {
            "rank": _unbroken(rank_range(row["usage_rank_best"], row["usage_rank_worst"])),
            "model": shown_name(row["model_id"], names),
            "requests": _bounds(row),
        }
        for row in board.head(10).iter_rows(named=True)
    ]
    return {
        "top_10": table(records),
        "models": len(board),
        "top_5": round(float(board.head(5)["usage_share"].sum()), DECIMALS),
    }


def trends_metadata(rows: pl.DataFrame, week_before: pl.DataFrame, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the ten largest changes of all traffic among the models that both days list, if there are any.

    `rows` are the day's in `model_leaderboard`, and `week_before` those of 7 days before, which may be missing.
    """
    shares, before = (
        dict(board.filter(scope=ALL).select("model_id", "usage_share").iter_rows()) for board in (rows, week_before)
    )
    changes = {
        model_id: round(shares[model_id] - before[model_id], DECIMALS) for model_id in shares.keys() & before.keys()
    }
    if not changes:
        return {}
    largest = sorted(changes, key=lambda model_id: (-abs(changes[model_id]), model_id))[:10]
    since = rows["as_of"][0] - timedelta(days=COMPARED_DAYS)
    records = (
        {
            "model": shown_name(model_id, names),
            "requests": percent(shares[model_id]),
            f"since {short_day_text(since)}": points(changes[model_id]),
        }
        for model_id in largest
    )
    return {"largest_changes": table(records)}


def authors_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's top 10 authors of all traffic, and how many there are. Their possible ranks are too wide."""
    ordered = rows.filter(scope=ALL).sort("usage_rank", "author")
    records = (
        {"author": plain(row["author"]), "requests": _bounds(row), "models": row["model_count"]}
        for row in ordered.head(10).iter_rows(named=True)
    )
    return {"top_10": table(records), "authors": len(ordered)}


def coverage_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return how much of all traffic a day's lists attribute, and the most that an unlisted model can have."""
    of_all = rows.row(by_predicate=pl.col("scope") == ALL, named=True)
    coverage = table(
        {
            # Headings do not wrap, so they are short.
            "of": name,
            "attributed": percent(of_all[f"{measure}_attributed"]),
            "unlisted": f"at most {percent(of_all[f'unlisted_{measure}_upper'])}",
            "above it": count_text(of_all[f"{measure}_models_above_unlisted"], "model"),
        }
        for measure, name in MEASURES.items()
    )
    return {"coverage": coverage, **{f"{measure}_attributed": of_all[f"{measure}_attributed"] for measure in MEASURES}}


def tasks_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's task mix: the ten largest tasks by requests, and how many there are."""
    task_mix = table(
        {
            "task": row["display_name"],
            "group": row["macro_category"],
            "requests": percent(row["usage_share"]),
            "tokens": percent(row["token_share"]),
        }
        for row in rows.sort("usage_rank", "tag").head(10).iter_rows(named=True)
    )
    return {"task_mix": task_mix, "tags": len(rows)}


def macros_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a day's groups of tasks, and each one's share of requests as a number to plot."""
    ordered = rows.sort("usage_share", descending=True)
    groups = table(
        {"group": row["label"], "requests": percent(row["usage_share"]), "tokens": percent(row["token_share"])}
        for row in ordered.head(20).iter_rows(named=True)
    )
    shares = ordered.select("key", "usage_share").iter_rows()
    return {"groups": groups, **{f"usage_share_{key}": share for key, share in shares if _PLOTTED_KEY.fullmatch(key)}}


def _bounds(row: Mapping[str, Any]) -> str:
    """Return the share of requests that the lists attribute, and the largest possible one: `7.5-8.2%`, with a dash."""
    low, high = percent(row["usage_share"]), percent(row["usage_share_upper"])
    return low if low == high else _unbroken(f"{low.removesuffix('%')}\N{EN DASH}{high}")


def _unbroken(text: str) -> str:
    """Return a range that the UI does not break into two lines in a narrow column."""
    return text.replace("\N{EN DASH}", "\N{WORD JOINER}\N{EN DASH}\N{WORD JOINER}")


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
