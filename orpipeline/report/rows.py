"""The rows behind the charts: figures with their wording and colour, in the order in which they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from orpipeline.leaderboard import ALL
from orpipeline.report.colours import Theme
from orpipeline.report.data import TOP_MODELS, ReportData
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
"""What is measured, by the prefix of its columns."""

_DAILY_POINTS = 400  # so many days are drawn one by one
_MOST_POINTS = 550  # beyond them so many points at most
_WEEK = 7
_DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3), (4, 2), (12, 4))
_LABEL_GAP = 0.052  # of the axis: what a line of text takes
_MACRO_ORDER = ("code", "data", "agent", "general")

Row = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """One model's history for one measure: its line's `key`, colour and dash, and a share (or None) for each day drawn.

    `label_at` is where its name stands on the axis of shares, so that names do not overlap.
    """

    key: str
    measure: str
    place: int
    model_id: str
    name: str
    colour: str
    dash: tuple[int, ...]
    shares: Sequence[float | None]
    label_at: float

    @property
    def latest(self) -> float:
        """The share of the report's day."""
        return self.shares[-1] or 0.0


def names(data: ReportData) -> dict[str, str]:
    """Return what each model of the day, or lately departed, is called in a chart."""
    listed = {*data.leaderboard["model_id"], *data.task_models["model_id"], *data.departed["model_id"]}
    return short_names(sorted(listed))


def scopes(data: ReportData) -> dict[str, str]:
    """Return the scopes of the day's leaderboard with their names for people, `all` first."""
    labels = dict(zip(data.macros["key"], data.macros["label"], strict=True))
    keys = set(data.leaderboard["scope"]) - {ALL}
    return {ALL: "All tasks"} | {key: plain(labels.get(key, key)) for key in sorted(keys, key=_macro_place)}


def author_name(author: str | None) -> str:
    """Return an author as text; one that the model's id does not name is said to be unknown."""
    return "author unknown" if author is None else plain(author)


def moved_text(row: Mapping[str, Any], data: ReportData) -> str:
    """Return a leaderboard row's change over 7 days with its arrow.

    Where that day did not list the model: `new` for one that no day up to it did, else `back`. A dash where that day is
    not there.
    """
    difference = row["usage_share_change_7d"]
    if data.compared_day not in data.days:
        return UNKNOWN
    if difference is None:
        return new_or_back(row["first_seen"], data.compared_day)
    return f"{arrow(difference)} {points(difference)}".strip()


def leaderboard_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the top rows of every scope by requests and by tokens."""
    found: list[Row] = []
    called = names(data)
    task_names = dict(zip(data.tasks["tag"], data.tasks["display_name"], strict=True))
    for scope in scopes(data):
        of_scope = data.leaderboard.filter(scope=scope)
        for measure in MEASURES:
            top = of_scope.sort(f"{measure}_share", "model_id", descending=[True, False]).head(TOP_ROWS)
            for place, row in enumerate(top.iter_rows(named=True), start=1):
                words = _leaderboard_words(row, measure, data)
                found.append(
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
                        "top_task": plain(task_names.get(row["top_task"], row["top_task"])),
                        **words,
                    }
                )
    return found


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
    """Return the macro-categories, largest first, each with its tasks below it."""
    found: list[Row] = []
    macros = {row["key"]: row for row in data.macros.iter_rows(named=True)}
    sums = data.tasks.group_by("macro_category").agg(pl.col("usage_share").sum()).sort("macro_category")
    order = sums.sort("usage_share", descending=True, maintain_order=True)["macro_category"]
    for key in order:
        if key in macros:
            macro = macros[key]
            found.append({"kind": "macro", **_mix_row(macro["label"], macro, theme.macro(key))})
        tasks = data.tasks.filter(macro_category=key).sort("usage_share", "tag", descending=[True, False])
        found += [
            {"kind": "task", **_mix_row(task["display_name"], task, theme.macro(key))}
            for task in tasks.iter_rows(named=True)
        ]
    return [{"place": place, **row} for place, row in enumerate(found)]


def _mix_row(name: str, row: Mapping[str, Any], colour: str) -> Row:
    return {
        "name": plain(name),
        "colour": colour,
        "usage": row["usage_share"],
        "token": row["token_share"],
        "usage_text": published_percent(row["usage_share"]),
        "token_text": published_percent(row["token_share"]),
        "gap_text": published_change(row["token_share"] - row["usage_share"]),
    }


def drawn_days(days: Sequence[date], as_of: date) -> list[tuple[date, bool]]:
    """Return the days that a history is drawn with, oldest first, each with whether the tables have it.

    Up to 400 days one by one. Beyond, one for each week (or for as many weeks as needed), counted back from `as_of`:
    the newest day there is; a week without any is a gap.
    """
    span = (as_of - days[0]).days + 1
    step = drawn_step(days, as_of)
    known = sorted(days)
    slots: list[tuple[date, bool]] = []
    for back in range(-(-span // step)):
        end = as_of - timedelta(days=step * back)
        while known and known[-1] > end:
            known.pop()
        there = bool(known) and known[-1] > end - timedelta(days=step)
        slots.append((known[-1] if there else end, there))
    return slots[::-1]


def drawn_step(days: Sequence[date], as_of: date) -> int:
    """Return of how many days one is drawn."""
    span = (as_of - days[0]).days + 1
    return 1 if span <= _DAILY_POINTS else _WEEK * -(-span // (_WEEK * _MOST_POINTS))


def series(data: ReportData, theme: Theme) -> list[Series]:
    """Return the lines of the top models by requests, and of those by tokens."""
    days = [day for day, _ in drawn_days(data.days, data.as_of)]
    called = names(data)
    shares = {(row["as_of"], row["model_id"]): row for row in data.model_history.iter_rows(named=True)}
    found: list[Series] = []
    for measure in MEASURES:
        column, used = f"{measure}_share", Counter[str]()
        of_all = data.leaderboard.filter(scope=ALL)
        top = of_all.sort(column, "model_id", descending=[True, False]).head(TOP_MODELS)
        lines = []
        for place, row in enumerate(top.iter_rows(named=True), start=1):
            model, colour = row["model_id"], theme.author(row["author"])
            values = [shares[day, model][column] if (day, model) in shares else None for day in days]
            dash = _DASHES[used[colour] % len(_DASHES)]
            used[colour] += 1
            lines.append(Series(f"{measure}{place}", measure, place, model, called[model], colour, dash, values, 0.0))
        top_of_axis = axis_top(lines, measure)
        places = spread([line.latest for line in lines], _LABEL_GAP * top_of_axis, top_of_axis)
        found += [Series(**{**vars(line), "label_at": at}) for line, at in zip(lines, places, strict=True)]
    return found


def axis_top(lines: Iterable[Series], measure: str) -> float:
    """Return where a measure's axis ends: a little above its largest share."""
    found = [share for line in lines if line.measure == measure for share in line.shares if share is not None]
    return round(1.06 * max(found, default=1.0), 6) or 1.0


def model_history_rows(data: ReportData, lines: Sequence[Series]) -> list[Row]:
    """Return each line's points: a share of None breaks it; `alone` is a point that has no neighbour to draw to."""
    days = [day for day, _ in drawn_days(data.days, data.as_of)]
    return [
        {"key": line.key, "measure": line.measure, "day": day.isoformat(), "share": share, "alone": alone}
        for line in lines
        for day, share, alone in zip(days, line.shares, _alone([s is not None for s in line.shares]), strict=True)
    ]


def model_labels(lines: Sequence[Series]) -> list[Row]:
    """Return the names at the lines' ends."""
    return [
        {
            "key": line.key,
            "measure": line.measure,
            "place": str(line.place),
            "name": line.name,
            "colour": line.colour,
            "label": f"{percent(line.latest)} {line.name}",
            "label_at": line.label_at,
        }
        for line in lines
    ]


def macro_history_rows(data: ReportData, theme: Theme) -> tuple[list[Row], list[Row]]:
    """Return the areas' rows (from `low` to `high`; a new `segment` after each gap), and the names at their ends."""
    slots = drawn_days(data.days, data.as_of)
    there = [present for _, present in slots]
    labels = {row["key"]: plain(row["label"]) for row in data.macro_history.iter_rows(named=True)}
    shares = {(row["as_of"], row["key"]): row for row in data.macro_history.iter_rows(named=True)}
    keys = sorted(labels, key=_macro_place, reverse=True)
    areas: list[Row] = []
    ends: list[Row] = []
    for measure in MEASURES:
        segment, heights = 0, [0.0] * len(keys)
        for (day, present), alone in zip(slots, _alone(there), strict=True):
            segment += not present
            low = 0.0
            for key in keys if present else ():
                share = shares[day, key][f"{measure}_share"] if (day, key) in shares else 0.0
                areas.append(
                    {
                        "key": key,
                        "name": labels[key],
                        "measure": measure,
                        "day": day.isoformat(),
                        "low": round(low, 6),
                        "high": round(low + share, 6),
                        "share": share,
                        "segment": segment,
                        "alone": alone,
                        "colour": theme.macro(key),
                    }
                )
                if day == data.as_of:
                    heights[keys.index(key)] = low + share / 2
                low += share
        today = [shares.get((data.as_of, key)) for key in keys]
        at = spread(heights, _LABEL_GAP, 1.0)
        ends += [
            {
                "measure": measure,
                "label": f"{published_percent(row[f'{measure}_share'])} {labels[key]}",
                "label_at": place,
                "colour": theme.macro(key),
            }
            for key, row, place in zip(keys, today, at, strict=True)
            if row is not None
        ]
    return areas, ends


def mover_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the models of scope `all` whose share moved most over 7 days, the largest gain first."""
    known = data.leaderboard.filter(pl.col("scope") == ALL, pl.col("usage_share_change_7d") != 0)
    largest = known.sort(pl.col("usage_share_change_7d").abs(), "model_id", descending=[True, False]).head(TOP_MOVERS)
    ordered = largest.sort("usage_share_change_7d", "model_id", descending=[True, False])
    called = names(data)
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
    """Return each task's listed models by requests and by tokens, and below them what the list leaves out."""
    called = names(data)
    found: list[Row] = []
    for tag, rows in data.task_models.partition_by("tag", as_dict=True, maintain_order=True).items():
        for measure in MEASURES:
            column = f"tag_{measure}_share"
            ordered = rows.sort(column, "position", descending=[True, False])
            task = {"task": tag[0], "measure": measure}
            found += [
                {
                    **task,
                    "place": place,
                    "position": str(place),
                    "model_id": plain(row["model_id"]),
                    "name": called[row["model_id"]],
                    "author": author_name(author_of(row["model_id"])),
                    "colour": theme.author(author_of(row["model_id"])),
                    "share": row[column],
                    "share_text": published_percent(row[column]),
                }
                for place, row in enumerate(ordered.iter_rows(named=True), start=1)
            ]
            found.append(task | _unlisted(len(ordered) + 1, float(ordered[column].sum()), theme))
    return found


def _unlisted(place: int, listed: float, theme: Theme) -> Row:
    rest = max(0.0, round(1 - listed, 6))
    return {
        "place": place,
        "position": "",
        "model_id": "all others",
        "name": "Not listed",
        "author": "every model below the list's end",
        "colour": theme.muted,
        "share": rest,
        "share_text": published_percent(rest),
    }


def author_of(model_id: str) -> str | None:
    """Return the part of a model's id before the `/`; None without one."""
    author, slash, _ = model_id.partition("/")
    return author if slash else None


def spread(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Return places near the wanted ones (from 0 to `top`), in the same order and at least `gap` apart."""
    order = sorted(range(len(wanted)), key=lambda index: (-wanted[index], index))
    places = [0.0] * len(wanted)
    ceiling = top
    for index in order:
        places[index] = min(wanted[index], ceiling)
        ceiling = places[index] - gap
    floor = 0.0
    for index in reversed(order):
        places[index] = max(places[index], floor)
        floor = places[index] + gap
    return [round(place, 6) for place in places]


def _alone(there: Sequence[bool]) -> list[bool]:
    padded = [False, *there, False]
    return [padded[i] and not padded[i - 1] and not padded[i + 1] for i in range(1, len(padded) - 1)]


def _macro_place(key: str) -> tuple[int, str]:
    return (_MACRO_ORDER.index(key) if key in _MACRO_ORDER else len(_MACRO_ORDER), key)
