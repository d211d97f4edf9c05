"""The rows of the rankings: the models and authors of each scope, and the models of each task, by requests and tokens.

A rank is certain if the bounds allow no other; every other row has its possible ranks in place of a rank. A divider is
before the largest group of three or more rows whose order is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from orpipeline.contracts.rules import ALL, HALF_STEP
from orpipeline.report.certainty import unknown_group
from orpipeline.report.colours import Theme
from orpipeline.report.data import ReportData
from orpipeline.report.wording import (
    MEASURES,
    UNKNOWN,
    author_name,
    count_text,
    new_or_back,
    percent,
    points,
    rank_range,
    short_day_text,
)
from orpipeline.text import plain

TOP_ROWS = 20
TOP_AUTHORS = 14

_UNLISTED_AHEAD = "From here on, models on no list can be ahead"
_MACRO_ORDER = ("code", "data", "agent", "general")

Row = dict[str, Any]


def scopes(data: ReportData) -> dict[str, str]:
    """Return the scopes of the day's leaderboard and their labels, `all` first."""
    labels = dict(zip(data.macros["key"], data.macros["label"], strict=True))
    keys = set(data.leaderboard["scope"]) - {ALL}
    return {ALL: "All tasks"} | {key: plain(labels.get(key, key)) for key in sorted(keys, key=macro_place)}


def macro_place(key: str) -> tuple[int, str]:
    """Return the sort key of a macro-category: the documented ones first, then new ones by key."""
    return (_MACRO_ORDER.index(key) if key in _MACRO_ORDER else len(_MACRO_ORDER), key)


def author_of(model_id: str) -> str | None:
    """Return the part of a model id before the `/`; None if there is no `/`."""
    author, slash, _ = model_id.partition("/")
    return author if slash else None


def ranked(rows: pl.DataFrame, measure: str, key: str) -> list[Row]:
    """Return rows by a measure, the largest share first, with `ranks`: the possible ranks as text."""
    ordered = rows.sort(f"{measure}_share", key, descending=[True, False])
    return [row | {"ranks": rank_range(*_ranks(row, measure))} for row in ordered.iter_rows(named=True)]


def _ranks(row: Mapping[str, Any], measure: str) -> tuple[int, int]:
    """Return the best and the worst possible rank of a row."""
    return row[f"{measure}_rank_best"], row[f"{measure}_rank_worst"]


def since_text(data: ReportData) -> str:
    """Return the heading of the column of changes; an empty text if the day to compare with is missing."""
    return f"since {short_day_text(data.compared_day)}" if data.compared_day in data.days else ""


def moved_text(row: Mapping[str, Any], data: ReportData) -> str:
    """Return a leaderboard row's change over 7 days in percentage points.

    If the day 7 days before did not list the model: `new`, or `back` if an earlier day did. If that day is missing:
    `UNKNOWN`.
    """
    difference = row["usage_share_change_7d"]
    if data.compared_day not in data.days:
        return UNKNOWN
    if difference is None:
        return new_or_back(row["first_seen"], data.compared_day)
    return points(difference)


def model_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the top models of every scope, by requests and by tokens, with a divider before an unknown order."""
    return [row for scope in scopes(data) for measure in MEASURES for row in top_models(data, theme, scope, measure)]


def top_models(data: ReportData, theme: Theme, scope: str, measure: str) -> list[Row]:
    """Return the top models of one scope by one measure, with a divider before an unknown order."""
    tasks = dict(data.tasks.select("tag", "display_name").rows())
    listed = ranked(data.leaderboard.filter(scope=scope), measure, "model_id")
    cap = {"cap": data.coverage[scope][f"unlisted_{measure}_upper"]}
    words = [cap | _model(row, measure, data, data.names, tasks, theme) for row in listed[:TOP_ROWS]]
    dividers = _divider(unknown_group([_ranks(row, measure) for row in listed]), "model")
    return _placed(words, dividers, scope=scope, measure=measure)


def _model(
    row: Row, measure: str, data: ReportData, names: Mapping[str, str], tasks: Mapping[str, str], theme: Theme
) -> Row:
    return {
        "id": plain(row["model_id"]),
        "name": names[row["model_id"]],
        "about": author_name(row["author"]),
        "colour": theme.author(row["author"]),
        "change": row["usage_share_change_7d"] if measure == "usage" else None,
        "moved": moved_text(row, data) if measure == "usage" else "",
        "listed": count_text(row["task_count"], "task"),
        "top": plain(tasks.get(row["top_task"]) or row["top_task"]),
        **_figures(row, measure),
    }


def author_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the top authors of every scope, by requests and by tokens, with a divider before an unknown order."""
    names = data.names
    rows: list[Row] = []
    for scope in scopes(data):
        of_scope = data.authors.filter(scope=scope)
        for measure in MEASURES:
            listed = ranked(of_scope, measure, "author")
            words = [_author(row, measure, names, theme) for row in listed[:TOP_AUTHORS]]
            dividers = _divider(unknown_group([_ranks(row, measure) for row in listed]), "author")
            rows += _placed(words, dividers, scope=scope, measure=measure)
    return rows


def _author(row: Row, measure: str, names: Mapping[str, str], theme: Theme) -> Row:
    return {
        "id": author_name(row["author"]),
        "name": author_name(row["author"]),
        "about": count_text(row["model_count"], "model"),
        "colour": theme.author(row["author"]),
        "moved": "",
        "top": names[row["top_model"]],
        **_figures(row, measure),
    }


def _figures(row: Row, measure: str) -> Row:
    share, upper = row[f"{measure}_share"], row[f"{measure}_share_upper"]
    return {
        "ranks": row["ranks"],
        "share": share,
        "upper": upper,
        "share_text": percent(share),
        "upper_text": percent(upper),
        "up_to": f"up to {percent(upper)}" if percent(upper) != percent(share) else "",
    }


def _divider(group: range, noun: str) -> dict[int, str]:
    """Return the words of the divider before a group of unknown order, by its place; none without a group."""
    return {group.start: f"The order of the next {count_text(len(group), noun)} is not known"} if group else {}


def _placed(rows: Sequence[Row], dividers: Mapping[int, str], **choice: str) -> list[Row]:
    """Return rows with their place in the chart, and dividers before the rows at these indices."""
    kinds: list[Row] = []
    for index, row in enumerate(rows):
        if index in dividers:
            kinds.append({"kind": "divider", "name": dividers[index]})
        kinds.append({"kind": "bar", **row})
    return [{**choice, "place": place, **row} for place, row in enumerate(kinds, start=1)]


@dataclass(frozen=True)
class TaskRanking:
    """A task's listed models by a measure, and the shares that the list leaves open.

    `rows`: `model_id`, `share` and `ranks`, the best and the worst possible rank among the listed models. `rest`: the
    share of all unlisted models. `unlisted`: the most that one unlisted model can have. `above`: how many of the first
    rows no unlisted model can reach.
    """

    rows: Sequence[Row]
    rest: float
    unlisted: float
    above: int


def task_ranking(data: ReportData, tag: str, measure: str) -> TaskRanking:
    """Rank the models that a task lists.

    The list has the top models by requests, so no unlisted one has more requests than the last listed one. It can have
    all tokens that the listed ones leave.
    """
    task = data.tasks.row(by_predicate=pl.col("tag") == tag, named=True)
    ordered = data.task_lists[tag].sort(f"tag_{measure}_share", "position", descending=[True, False])
    rows = [
        {"model_id": row["model_id"], "share": row[f"tag_{measure}_share"], "ranks": _ranks(row, measure)}
        for row in ordered.iter_rows(named=True)
    ]
    lows = [max(0.0, row["share"] - HALF_STEP) for row in rows]
    above = len(rows) if measure == "usage" else sum(round(low + sum(lows) - 1, 9) > 0 for low in lows)
    rest = max(0.0, round(1 - task[f"{measure}_listed"], 6))
    return TaskRanking(rows, rest, task[f"unlisted_{measure}_upper"], above)


def task_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return each task's models by requests and by tokens, then the share of all models that it does not list."""
    names, rows = data.names, list[Row]()
    for tag in data.task_lists:
        for measure in MEASURES:
            ranking = task_ranking(data, tag, measure)
            words = [
                _task_model(row, names, theme, holds=index < ranking.above) for index, row in enumerate(ranking.rows)
            ]
            dividers = _divider(unknown_group([row["ranks"] for row in ranking.rows]), "model")
            if ranking.above < len(words):
                dividers[ranking.above] = _UNLISTED_AHEAD
            placed = _placed(words, dividers, task=tag, measure=measure)
            rows += placed
            rows.append({"task": tag, "measure": measure, "place": len(placed) + 1, **_unlisted(ranking.rest, theme)})
    return rows


def _task_model(row: Row, names: Mapping[str, str], theme: Theme, *, holds: bool) -> Row:
    # A plus: unlisted models can be ahead.
    author = author_of(row["model_id"])
    return {
        "id": plain(row["model_id"]),
        "name": names[row["model_id"]],
        "about": author_name(author),
        "colour": theme.author(author),
        "ranks": rank_range(*row["ranks"]) + ("" if holds else "+"),
        "share": row["share"],
        "share_text": percent(row["share"]),
    }


def _unlisted(rest: float, theme: Theme) -> Row:
    return {
        "kind": "rest",
        "id": "all others",
        "name": "Not listed",
        "about": "all models that the list omits",
        "colour": theme.muted,
        "ranks": "",
        "share": rest,
        "share_text": percent(rest),
    }


def task_author_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return each task's authors by requests and by tokens: the sums over their listed models.

    The models that a list omits can belong to any author, so an author can have all that the other authors' listed
    models leave.
    """
    rows: list[Row] = []
    for tag, listed in data.task_lists.items():
        authored = listed.filter(pl.col("author") != "")
        for measure in MEASURES:
            column = pl.col(f"tag_{measure}_share")
            lowest = (column - HALF_STEP).clip(lower_bound=0.0).sum()
            left = 1 - listed.select(lowest).item()
            sums = authored.group_by("author").agg(share=column.sum().round(6), low=lowest, model_count=pl.len())
            ordered = sums.sort("share", "author", descending=[True, False]).to_dicts()
            ranks = [_author_ranks(row, left, ordered) for row in ordered]
            words = [
                _task_author(row, of_row, theme, holds=row["low"] > left)
                for row, of_row in zip(ordered, ranks, strict=True)
            ]
            rows += _placed(words, _divider(unknown_group(ranks), "author"), task=tag, measure=measure)
    return rows


def _author_ranks(row: Row, left: float, authors: Sequence[Row]) -> tuple[int, int]:
    lead = [round(other["low"] - row["low"], 9) for other in authors]
    # The author itself counts once in `worst`, as it can have more than its own lowest share.
    return 1 + sum(ahead > left for ahead in lead), sum(ahead > -left for ahead in lead) + (left <= 0)


def _task_author(row: Row, ranks: tuple[int, int], theme: Theme, *, holds: bool) -> Row:
    return {
        "id": plain(row["author"]),
        "name": plain(row["author"]),
        "about": count_text(row["model_count"], "listed model"),
        "colour": theme.author(row["author"]),
        "ranks": rank_range(*ranks) + ("" if holds else "+"),
        "share": row["share"],
        "share_text": percent(row["share"]),
    }
