"""The history: each model's share by day in each scope, as data for the page's script and as lines in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import polars as pl
from markupsafe import Markup

from orpipeline.contracts.rules import ALL
from orpipeline.report.data import ReportData
from orpipeline.report.views import macro_place, scopes
from orpipeline.report.wording import MEASURES, author_name, percent, short_day_text
from orpipeline.text import plain

UNIT = 100_000
"""The page's data has shares as whole numbers of this part of 1."""
MOST_LINES = 8
"""How many lines the page draws at once: each has its own colour."""
_LEADERS = 5
_LABEL_HEIGHT = 16
_LONGEST_LABEL = 44
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Line:
    """A series: its name, and a share for each drawn day, None where it has none."""

    name: str
    shares: Sequence[float | None]

    @property
    def last(self) -> int:
        """The index of the last drawn day that has a share."""
        return max(index for index, share in enumerate(self.shares) if share is not None)


class History:
    """The series of a report. `models` has their ids, in the order that the page's data refers to."""

    def __init__(self, data: ReportData) -> None:
        self._data = data
        self._place = {day: index for index, day in enumerate(data.drawn)}
        self.models = sorted(set(data.history["model_id"]))
        self._scopes = list(scopes(data))
        parts = data.history.sort("as_of").partition_by(["scope", "model_id"], as_dict=True)
        self._of_model: dict[tuple[str, str], pl.DataFrame] = {(str(s), str(m)): rows for (s, m), rows in parts.items()}

    def page_data(self) -> dict[str, Any]:
        """Return what the page's script draws, as JSON.

        `days` are the drawn days as numbers of days after `start`, and `gaps` the indices of missing ones. `models`
        has each model's id, name and author. `views` has for each view the `leaders` and `lines`; a line is a model's
        index, the index of its first day, and its shares from there on, as text, with nothing where it has none.
        `macros` has the lines of the macro-categories, with their names, for each measure.
        """
        data, start = self._data, self._data.drawn[0]
        authors = dict(data.history.select("model_id", "author").unique().rows())
        index = {model: place for place, model in enumerate(self.models)}
        views = {}
        for place, scope in enumerate(self._scopes):
            for measure in MEASURES:
                lines = [
                    [index[model], *self._sparse(rows, measure)]
                    for (of_scope, model), rows in self._of_model.items()
                    if of_scope == scope
                ]
                leading = [index[model] for model in self.leaders(scope, measure)]
                views[f"{place}-{measure}"] = {"leaders": leading, "lines": lines}
        return {
            "start": start.isoformat(),
            "days": [(day - start).days for day in data.drawn],
            "gaps": [place for place, day in enumerate(data.drawn) if day not in set(data.days)],
            "unit": UNIT,
            "models": [[plain(one), data.name(one), author_name(authors[one])] for one in self.models],
            "views": views,
            "macros": {
                measure: [[label, *self._sparse(rows, measure)] for label, rows in self._macros()]
                for measure in MEASURES
            },
        }

    def _sparse(self, rows: pl.DataFrame, measure: str) -> tuple[int, str]:
        shares = self._dense(rows, measure)
        first = next(index for index, share in enumerate(shares) if share is not None)
        last = Line("", shares).last
        return first, ",".join("" if one is None else str(_units(one)) for one in shares[first : last + 1])

    def _dense(self, rows: pl.DataFrame, measure: str) -> list[float | None]:
        shares: list[float | None] = [None] * len(self._place)
        for day, share in rows.select("as_of", f"{measure}_share").iter_rows():
            shares[self._place[day]] = share
        return shares

    def _macros(self) -> list[tuple[str, pl.DataFrame]]:
        """Return the label and the rows of each macro-category."""
        parts = self._data.macro_history.sort("as_of").partition_by("key", as_dict=True)
        ordered = sorted(parts.items(), key=lambda part: macro_place(str(part[0][0])))
        return [(plain(rows["label"][-1]), rows) for _, rows in ordered]

    def leaders(self, scope: str, measure: str) -> list[str]:
        """Return the models whose lines a view draws first: the day's largest, and those that were first on any day."""
        share = f"{measure}_share"
        rows = self._data.history.filter(scope=scope).sort("as_of", share, "model_id", descending=[True, True, False])
        today = rows.filter(as_of=self._data.as_of)["model_id"].to_list()
        firsts = rows.group_by("as_of", maintain_order=True).first()["model_id"].value_counts(sort=True)["model_id"]
        chosen = dict.fromkeys([*today[:_LEADERS], *firsts])
        return list(chosen)[:MOST_LINES]

    def lines(self, measure: str = "usage", scope: str = ALL) -> list[Line]:
        """Return the lines that a view draws first."""
        return [
            Line(self._data.name(model), self._dense(self._of_model[scope, model], measure))
            for model in self.leaders(scope, measure)
        ]

    def macro_lines(self, measure: str = "usage") -> list[Line]:
        """Return a line for each macro-category."""
        return [Line(label, self._dense(rows, measure)) for label, rows in self._macros()][:MOST_LINES]


def _units(share: float) -> int:
    return math.floor(share * UNIT + 1e-6)  # rounded down: rounding twice could change the shown digit


def lines_svg(lines: Sequence[Line], days: Sequence[date], *, height: int) -> Markup:
    """Return lines as an SVG element, each named where it ends. `page.js` draws the same with other choices.

    A gap in the shares is a gap in the line. A line that ends before the last day ends with a ring.
    """
    width, left, right, top, bottom = 960, 40, 300, 12, height - 24
    span = max(1, (days[-1] - days[0]).days)
    most = max((share for line in lines for share in line.shares if share is not None), default=0.0) or 0.001
    step = next((one for one in _STEPS if most / one <= 6), 0.2)
    ceiling = step * math.ceil(round(most / step, 6))

    def x(index: int) -> float:
        return round(left + (width - left - right) * (days[index] - days[0]).days / span, 1)

    def y(share: float) -> float:
        return round(bottom - (bottom - top) * share / ceiling, 1)

    parts = []
    for tick in range(round(ceiling / step) + 1):
        at = y(tick * step)
        parts.append(f'<path class="grid" d="M{left} {at}H{width - right}"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4}" text-anchor="end">{tick * step * 100:g}%</text>')
    for index in sorted({round((len(days) - 1) * part / 4) for part in range(5)}):
        parts.append(
            f'<text x="{x(index)}" y="{bottom + 18}" text-anchor="middle">{short_day_text(days[index])}</text>'
        )
    ends = []
    for place, line in enumerate(lines):
        steps, is_on = [], False
        for index, share in enumerate(line.shares):
            if share is not None:
                steps.append(f"{'L' if is_on else 'M'}{x(index)} {y(share)}{'' if is_on else 'h0'}")
            is_on = share is not None
        parts.append(f'<path class="line c{place}" d="{"".join(steps)}"/>')
        last = line.shares[line.last]
        ends.append((y(last or 0.0), place, x(line.last), f"{percent(last or 0.0)} {line.name[:_LONGEST_LABEL]}"))
        if line.last < len(days) - 1:
            parts.append(f'<circle class="end c{place}" cx="{x(line.last)}" cy="{y(last or 0.0)}" r="4"/>')
    placed = spread([end[0] for end in ends], top, bottom)
    texts = [
        Markup('<text class="name c{}" x="{}" y="{}">{}</text>').format(
            place, round(at + 8, 1), round(down + 4, 1), text
        )
        for (_, place, at, text), down in zip(ends, placed, strict=True)
    ]
    drawn = Markup("".join(parts))  # noqa: S704 - numbers and our own words
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        width, height, "; ".join(end[3] for end in ends), drawn, Markup("").join(texts)
    )


def spread(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return places that are as near as possible to the given ones, and at least a label's height apart."""
    order, found = sorted(range(len(places)), key=lambda n: places[n]), list(places)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + _LABEL_HEIGHT)
    limit = bottom
    for place in reversed(order):
        found[place] = max(top, min(found[place], limit))
        limit = found[place] - _LABEL_HEIGHT
    return found
