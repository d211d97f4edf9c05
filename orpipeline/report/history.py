"""The history: each model's share by day in each scope, as data for the page's script and as lines in SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

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


Shares = list[float | None]
"""A share for each drawn day; None where there is none."""


class History:
    """The series of a report: the shares of `models` in each view, and of the macro-categories by measure and label.

    A view is a scope and a measure. `models` has the ids in the order that the page's data refers to.
    """

    def __init__(self, data: ReportData) -> None:
        self._data = data
        place = {day: index for index, day in enumerate(data.drawn)}
        self.models = sorted(set(data.history["model_id"]))
        self._views: dict[tuple[str, str], dict[str, Shares]] = {}
        self._macros: dict[str, dict[str, Shares]] = {measure: {} for measure in MEASURES}
        labels = {key: plain(label) for key, label in data.macro_history.sort("as_of").select("key", "label").rows()}
        for measure in MEASURES:
            columns = ("as_of", f"{measure}_share")
            for scope, model, day, share in data.history.select("scope", "model_id", *columns).iter_rows():
                series = self._views.setdefault((scope, measure), {})
                series.setdefault(model, [None] * len(place))[place[day]] = share
            macros = {label: Shares([None] * len(place)) for _, label in sorted(labels.items(), key=_macro_place)}
            for key, day, share in data.macro_history.select("key", *columns).iter_rows():
                macros[labels[key]][place[day]] = share
            self._macros[measure] = macros

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
        views = {
            f"{place}-{measure}": {
                "leaders": [index[model] for model in self._leaders(scope, measure)],
                "lines": [[index[model], *_sparse(line)] for model, line in self._views[scope, measure].items()],
            }
            for place, scope in enumerate(scopes(data))
            for measure in MEASURES
        }
        return {
            "start": start.isoformat(),
            "days": [(day - start).days for day in data.drawn],
            "gaps": [place for place, day in enumerate(data.drawn) if day not in data.days],
            "unit": UNIT,
            "models": [[plain(one), data.name(one), author_name(authors[one])] for one in self.models],
            "views": views,
            "macros": {
                measure: [[label, *_sparse(line)] for label, line in lines.items()]
                for measure, lines in self._macros.items()
            },
        }

    def _leaders(self, scope: str, measure: str) -> list[str]:
        """Return the models whose lines a view draws first: the day's largest, and those that were first on any day."""
        share = f"{measure}_share"
        rows = self._data.history.filter(scope=scope).sort("as_of", share, "model_id", descending=[True, True, False])
        today = rows.filter(as_of=self._data.as_of)["model_id"].head(_LEADERS)
        firsts = rows.group_by("as_of", maintain_order=True).first()["model_id"].value_counts(sort=True)["model_id"]
        return list(dict.fromkeys([*today, *firsts]))[:MOST_LINES]

    def lines(self) -> dict[str, Shares]:
        """Return the lines that the page's default view draws first, by name."""
        return {self._data.name(model): self._views[ALL, "usage"][model] for model in self._leaders(ALL, "usage")}

    def macro_lines(self) -> dict[str, Shares]:
        """Return a line for each macro-category, by requests."""
        return dict(list(self._macros["usage"].items())[:MOST_LINES])


def _macro_place(macro: tuple[str, str]) -> tuple[int, str]:
    return macro_place(macro[0])


def _sparse(shares: Shares) -> tuple[int, str]:
    """Return the index of the first share, and the shares from there to the last one as text."""
    # Rounded down: rounding twice could change the digit that is shown.
    units = ["" if share is None else str(math.floor(share * UNIT + 1e-6)) for share in shares]
    first = next(index for index, text in enumerate(units) if text)
    return first, ",".join(units[first:]).rstrip(",")


def lines_svg(lines: Mapping[str, Shares], days: Sequence[date], *, height: int) -> Markup:
    """Return lines as an SVG element, each named where it ends. `page.js` draws the same with other choices.

    A gap in the shares is a gap in the line. A line that ends before the last day ends with a ring.
    """
    width, left, right, top, bottom = 960, 40, 300, 12, height - 24
    span = max(1, (days[-1] - days[0]).days)
    most = max((share for line in lines.values() for share in line if share is not None), default=0.0) or 0.001
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
    for part in range(5):
        index = min(range(len(days)), key=lambda n: abs(4 * (days[n] - days[0]).days - part * span))
        parts.append(
            f'<text x="{x(index)}" y="{bottom + 18}" text-anchor="middle">{short_day_text(days[index])}</text>'
        )
    ends = []
    for place, (name, shares) in enumerate(lines.items()):
        steps, last, is_on = "", 0, False
        for index, share in enumerate(shares):
            if share is not None:
                steps, last = f"{steps}{'L' if is_on else 'M'}{x(index)} {y(share)}{'' if is_on else 'h0'}", index
            is_on = share is not None
        parts.append(f'<path class="line c{place}" d="{steps}"/>')
        end = shares[last] or 0.0
        ends.append((y(end), place, x(last), f"{percent(end)} {name[:_LONGEST_LABEL]}"))
        if last < len(days) - 1:
            parts.append(f'<circle class="end c{place}" cx="{x(last)}" cy="{y(end)}" r="4"/>')
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
