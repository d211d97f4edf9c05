"""The series of the history charts: the shares of each model, author and macro-category by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl

from orpipeline.report.colours import Theme
from orpipeline.report.data import ReportData
from orpipeline.report.periods import DrawnDay, periods
from orpipeline.report.ranking import macro_place
from orpipeline.report.wording import MEASURES, UNKNOWN, author_name, percent
from orpipeline.text import plain

MOST_LEADERS = 12
"""The maximum number of series that the stacked chart shows beside the others."""
MILLION = 1_000_000

Series = dict[str, Any]


def history(data: ReportData, theme: Theme) -> dict[str, Any]:
    """Return what the history charts draw, as JSON.

    `days` are the drawn days; `known` is 0 for a gap. Each of `models`, `authors` and `macros` has `series`: `id`,
    `name`, `about`, `colour`, and for each measure `usage` and `token`, the index of its first day followed by
    a share for each day up to its last one, in millionths, None where it is not listed. `leaders` has for each measure
    the indices of the series that the stacked chart shows, the largest first.
    """
    names = data.names
    authored = data.history.group_by("as_of", "author").agg(
        pl.col("usage_share").sum().round(12), pl.col("token_share").sum().round(12)
    )
    about = dict(data.history.select("model_id", "author").unique().rows())
    labels = {key: plain(label) for key, label in data.macro_history[["key", "label"]].rows()}
    models = _series(data.history, "model_id", data.drawn)
    authors = _series(authored.drop_nulls("author"), "author", data.drawn)
    macros = _series(data.macro_history, "key", data.drawn)
    return {
        "days": [one.day.isoformat() for one in data.drawn],
        "known": [int(one.is_known) for one in data.drawn],
        "models": _kind(
            [
                series
                | {
                    "id": plain(key),
                    "name": names[key],
                    "about": author_name(about[key]),
                    "colour": theme.author(about[key]),
                }
                for key, series in models.items()
            ],
            len(data.drawn),
        ),
        "authors": _kind(
            [
                series | {"id": plain(key), "name": plain(key), "about": "", "colour": theme.author(key)}
                for key, series in authors.items()
            ],
            len(data.drawn),
        ),
        "macros": {
            "series": [
                macros[key] | {"id": key, "name": labels[key], "about": "", "colour": theme.macro(key)}
                for key in sorted(macros, key=macro_place)
            ],
            "leaders": {measure: list(range(len(macros))) for measure in MEASURES},
        },
    }


def _series(rows: pl.DataFrame, key: str, drawn: Sequence[DrawnDay]) -> dict[str, Series]:
    """Return the shares of each key by drawn day, for each measure."""
    place = {one.day: index for index, one in enumerate(drawn)}
    found: dict[str, Series] = {}
    for (name,), of_key in rows.sort(key, "as_of").partition_by(key, as_dict=True, maintain_order=True).items():
        days = [place[day] for day in of_key["as_of"]]
        found[str(name)] = {
            measure: _sparse(days, [round(share * MILLION) for share in of_key[f"{measure}_share"]])
            for measure in MEASURES
        }
    return found


def _sparse(days: Sequence[int], shares: Sequence[int]) -> list[int | None]:
    dense: list[int | None] = [None] * (days[-1] - days[0] + 1)
    for day, share in zip(days, shares, strict=True):
        dense[day - days[0]] = share
    return [days[0], *dense]


def _kind(series: list[Series], count: int) -> dict[str, Any]:
    """Return the series, and the leaders of each measure."""
    return {
        "series": series,
        "leaders": {measure: leaders([one[measure] for one in series], count) for measure in MEASURES},
    }


def leaders(series: Sequence[Sequence[int | None]], count: int) -> list[int]:
    """Return the indices of the series that lead in any period, the largest on average first.

    Every period contributes the same number of leaders, as many as keep the whole set at `MOST_LEADERS` or fewer.
    """
    totals = [[_sum(one, points) for one in series] for points in periods(count)]
    ordered = [sorted((n for n in range(len(series)) if sums[n]), key=lambda n: (-sums[n], n)) for sums in totals]
    chosen: set[int] = set()
    for depth in range(1, MOST_LEADERS + 1):
        wider = {n for of_period in ordered for n in of_period[:depth]}
        if len(wider) > MOST_LEADERS:
            break
        chosen = wider
    return sorted(chosen, key=lambda n: (-sum(sums[n] for sums in totals), n))


def _sum(series: Sequence[int | None], points: range) -> int:
    first = series[0] or 0
    return sum(share or 0 for share in series[1 + max(0, points.start - first) : 1 + max(0, points.stop - first)])


def history_table(shown: Mapping[str, Any], kind: str, measure: str, drawn: Sequence[DrawnDay]) -> dict[str, Any]:
    """Return a history as a table: the `names` of its columns, and `rows`, the newest day first.

    A row is a day and the texts of the leaders' shares, then of the sum of the other series, if there are others; None
    for a gap.
    """
    series, chosen = shown[kind]["series"], shown[kind]["leaders"][measure]
    others = [n for n in range(len(series)) if n not in set(chosen)]
    shares = [_dense(one[measure], len(drawn)) for one in series]
    rows: list[tuple[date, list[str] | None]] = []
    for index in reversed(range(len(drawn))):
        values = [shares[n][index] for n in chosen]
        if others:
            values.append(sum(shares[n][index] or 0 for n in others))
        texts = [UNKNOWN if share is None else percent(share / MILLION) for share in values]
        rows.append((drawn[index].day, texts if drawn[index].is_known else None))
    names = [*(series[n]["name"] for n in chosen), *(["Others"] if others else [])]
    return {"names": names, "rows": rows}


def _dense(series: Sequence[int | None], count: int) -> list[int | None]:
    first = series[0] or 0
    return [None] * first + list(series[1:]) + [None] * (count - first - len(series) + 1)
