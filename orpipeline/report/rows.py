"""The rows of the charts of one day: figures, their text and their colour, in the order of the chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from orpipeline.contracts.rules import ALL
from orpipeline.report.colours import Theme
from orpipeline.report.data import ReportData
from orpipeline.report.wording import (
    UNKNOWN,
    arrow,
    change,
    count_text,
    new_or_back,
    percent,
    points,
    published_change,
    published_percent,
    rank_range,
    short_names,
)
from orpipeline.text import plain

TOP_ROWS = 20
TOP_MOVERS = 10
MEASURES = {"usage": "requests", "token": "tokens"}
"""The two measures: the prefix of their columns, and their name on the page."""

_MACRO_ORDER = ("code", "data", "agent", "general")

Row = dict[str, Any]


def chart_names(data: ReportData) -> dict[str, str]:
    """Return the short name for charts of each model that the day, or one of the days before, lists."""
    listed = {*data.leaderboard["model_id"], *data.task_models["model_id"], *data.departed["model_id"]}
    return short_names(sorted(listed))


def scopes(data: ReportData) -> dict[str, str]:
    """Return the scopes of the day's leaderboard and their labels, `all` first."""
    labels = dict(zip(data.macros["key"], data.macros["label"], strict=True))
    keys = set(data.leaderboard["scope"]) - {ALL}
    return {ALL: "All tasks"} | {key: plain(labels.get(key, key)) for key in sorted(keys, key=macro_place)}


def author_name(author: str | None) -> str:
    """Return an author as text; None, for a model id without author, is `author unknown`."""
    return "author unknown" if author is None else plain(author)


def moved_text(row: Mapping[str, Any], data: ReportData) -> str:
    """Return a leaderboard row's change over 7 days, with an arrow.

    If the day 7 days before did not list the model: `new`, or `back` if an earlier day did. If that day is missing:
    `UNKNOWN`.
    """
    difference = row["usage_share_change_7d"]
    if data.compared_day not in data.days:
        return UNKNOWN
    if difference is None:
        return new_or_back(row["first_seen"], data.compared_day)
    return f"{arrow(difference)} {points(difference)}".strip()


def leaderboard_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the top `TOP_ROWS` models of every scope, by requests and by tokens."""
    called = chart_names(data)
    task_names = dict(zip(data.tasks["tag"], data.tasks["display_name"], strict=True))
    return [
        {
            "scope": scope,
            "measure": measure,
            "place": place,
            "rank": row[f"{measure}_rank"],
            "model_id": plain(row["model_id"]),
            "name": called[row["model_id"]],
            "colour": theme.author(row["author"]),
            "share": row[f"{measure}_share"],
            "upper": row[f"{measure}_share_upper"],
            "top_task": plain(task_names.get(row["top_task"]) or row["top_task"]),
            **_leaderboard_words(row, measure, data),
        }
        for scope in scopes(data)
        for measure in MEASURES
        for place, row in enumerate(_top(data.leaderboard.filter(scope=scope), measure), start=1)
    ]


def _top(leaderboard: pl.DataFrame, measure: str) -> list[Row]:
    ordered = leaderboard.sort(f"{measure}_share", "model_id", descending=[True, False])
    return ordered.head(TOP_ROWS).to_dicts()


def _leaderboard_words(row: Mapping[str, Any], measure: str, data: ReportData) -> Row:
    by_requests = measure == "usage"
    author = author_name(row["author"])
    possible = rank_range(row["usage_rank_best"], row["usage_rank_worst"]) if by_requests else ""
    return {
        "author": author,
        "range_and_author": f"rank {possible}  ·  {author}" if possible else author,
        "range_text": possible,
        "share_text": percent(row[f"{measure}_share"]),
        "upper_text": percent(row[f"{measure}_share_upper"]),
        "up_to": f"up to {percent(row[f'{measure}_share_upper'])}",
        "moved": moved_text(row, data) if by_requests else "",
        "change_text": change(row["usage_share_change_7d"]) if by_requests else UNKNOWN,
        "tasks_text": count_text(row["task_count"], "task"),
    }


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
    return [{"place": place, **row} for place, row in enumerate(rows)]


def _mix_row(kind: str, name: str, row: Mapping[str, Any], colour: str) -> Row:
    return {
        "kind": kind,
        "name": plain(name),
        "colour": colour,
        "usage": row["usage_share"],
        "token": row["token_share"],
        "usage_text": published_percent(row["usage_share"]),
        "token_text": published_percent(row["token_share"]),
        "gap_text": published_change(row["token_share"] - row["usage_share"]),
    }


def mover_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the models of scope `all` whose share of requests changed most over 7 days, the largest gain first."""
    known = data.leaderboard.filter(pl.col("scope") == ALL, pl.col("usage_share_change_7d") != 0)
    largest = known.sort(pl.col("usage_share_change_7d").abs(), "model_id", descending=[True, False]).head(TOP_MOVERS)
    ordered = largest.sort("usage_share_change_7d", "model_id", descending=[True, False])
    called = chart_names(data)
    return [
        {
            "place": place,
            "model_id": plain(row["model_id"]),
            "name": called[row["model_id"]],
            "author": author_name(row["author"]),
            "colour": theme.author(row["author"]),
            "change": row["usage_share_change_7d"],
            "change_text": change(row["usage_share_change_7d"]),
            "moved": moved_text(row, data),
            "now": f"now {percent(row['usage_share'])}",
        }
        for place, row in enumerate(ordered.iter_rows(named=True), start=1)
    ]


def task_model_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return each task's models by requests and by tokens, then the share of all models that it does not list."""
    called, rows = chart_names(data), list[Row]()
    for (tag,), listed in data.task_models.partition_by("tag", as_dict=True, maintain_order=True).items():
        for measure in MEASURES:
            column, choice = f"tag_{measure}_share", {"task": tag, "measure": measure}
            ordered = listed.sort(column, "position", descending=[True, False])
            for place, (model_id, share) in enumerate(ordered[["model_id", column]].rows(), start=1):
                rows.append(choice | _task_model(place, model_id, called[model_id], share, theme))
            rows.append(choice | _unlisted(len(ordered) + 1, float(ordered[column].sum()), theme))
    return rows


def _task_model(place: int, model_id: str, name: str, share: float, theme: Theme) -> Row:
    author = author_of(model_id)
    return {
        "place": place,
        "position": str(place),
        "model_id": plain(model_id),
        "name": name,
        "author": author_name(author),
        "colour": theme.author(author),
        "share": share,
        "share_text": published_percent(share),
    }


def _unlisted(place: int, listed: float, theme: Theme) -> Row:
    rest = max(0.0, round(1 - listed, 6))
    return {
        "place": place,
        "position": "",
        "model_id": "all others",
        "name": "Not listed",
        "author": "all models that the list omits",
        "colour": theme.muted,
        "share": rest,
        "share_text": published_percent(rest),
    }


def author_of(model_id: str) -> str | None:
    """Return the part of a model id before the `/`; None if there is no `/`."""
    author, slash, _ = model_id.partition("/")
    return author if slash else None


def macro_place(key: str) -> tuple[int, str]:
    """Return the sort key of a macro-category: the documented ones first, then new ones by key."""
    return (_MACRO_ORDER.index(key) if key in _MACRO_ORDER else len(_MACRO_ORDER), key)
