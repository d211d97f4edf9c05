"""The rows of the history charts: the days to draw, and the points of each line and area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from orpipeline.contracts.rules import ALL
from orpipeline.report.colours import Theme
from orpipeline.report.data import TOP_MODELS, ReportData
from orpipeline.report.rows import MEASURES, Row, chart_names, macro_place
from orpipeline.report.wording import percent, published_percent
from orpipeline.text import plain

_DAILY_POINTS = 400  # up to this many days, each day is a point
_MOST_POINTS = 550  # for a longer history, the maximum number of points
_WEEK = 7
_DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3), (4, 2), (12, 4))
_LABEL_GAP = 0.052  # the height of a line of text, as a fraction of the axis


@dataclass(frozen=True)
class Series:
    """The history of one model for one measure, drawn as a line.

    `shares`: one value for each drawn day, None if the day did not list the model. `label_at`: where the label is on
    the axis of shares, moved if it would overlap another one.
    """

    key: str
    measure: str
    place: int
    model_id: str
    name: str
    colour: str
    dash: tuple[int, ...]
    shares: tuple[float | None, ...]
    label_at: float

    @property
    def latest(self) -> float:
        """The share on the day of the report."""
        return self.shares[-1] or 0.0


def drawn_days(days: Sequence[date], as_of: date) -> list[tuple[date, bool]]:
    """Return the days to draw, oldest first, each with True, or with False if it is a gap.

    A history of up to 400 days is drawn day by day. A longer one has one point for each week (or for several weeks),
    counted back from `as_of`: the newest day that the tables have of it, or a gap if they have none.
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
    """Return how many days one point of the history covers."""
    span = (as_of - days[0]).days + 1
    return 1 if span <= _DAILY_POINTS else _WEEK * -(-span // (_WEEK * _MOST_POINTS))


def top_series(data: ReportData, theme: Theme) -> list[Series]:
    """Return the lines of the top models by requests, then those of the top models by tokens."""
    return [line for measure in MEASURES for line in _with_labels(_top_lines(data, theme, measure), measure)]


def _top_lines(data: ReportData, theme: Theme, measure: str) -> list[Series]:
    column, called = f"{measure}_share", chart_names(data)
    days = [day for day, _ in drawn_days(data.days, data.as_of)]
    history = {(day, model): share for day, model, share in data.model_history[["as_of", "model_id", column]].rows()}
    top = data.leaderboard.filter(scope=ALL).sort(column, "model_id", descending=[True, False]).head(TOP_MODELS)
    lines, uses = [], Counter[str]()
    for place, (model, author) in enumerate(top[["model_id", "author"]].rows(), start=1):
        colour, shares = theme.author(author), tuple(history.get((day, model)) for day in days)
        dash = _DASHES[uses[colour] % len(_DASHES)]
        uses[colour] += 1
        lines.append(Series(f"{measure}{place}", measure, place, model, called[model], colour, dash, shares, 0.0))
    return lines


def _with_labels(lines: Sequence[Series], measure: str) -> list[Series]:
    top = axis_top(lines, measure)
    places = spread([line.latest for line in lines], _LABEL_GAP * top, top)
    return [replace(line, label_at=place) for line, place in zip(lines, places, strict=True)]


def axis_top(lines: Iterable[Series], measure: str) -> float:
    """Return the end of a measure's axis: slightly above its largest share."""
    shares = [share for line in lines if line.measure == measure for share in line.shares if share is not None]
    return round(1.06 * max(shares, default=1.0), 6) or 1.0


def model_history_rows(data: ReportData, lines: Sequence[Series]) -> list[Row]:
    """Return each line's points. A share of None breaks the line; `alone` marks a point without neighbours."""
    days = [day for day, _ in drawn_days(data.days, data.as_of)]
    return [
        {"key": line.key, "measure": line.measure, "day": day.isoformat(), "share": share, "alone": alone}
        for line in lines
        for day, share, alone in zip(days, line.shares, _alone([s is not None for s in line.shares]), strict=True)
    ]


def model_labels(lines: Sequence[Series]) -> list[Row]:
    """Return the labels at the ends of the lines."""
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


def macro_history_rows(data: ReportData, theme: Theme) -> list[Row]:
    """Return the points of the areas, stacked from `low` to `high`. Each gap starts a new `segment`."""
    slots = drawn_days(data.days, data.as_of)
    alone = _alone([present for _, present in slots])
    history = {(row["as_of"], row["key"]): row for row in data.macro_history.iter_rows(named=True)}
    labels = _labels_of_macros(data)
    points: list[Row] = []
    for measure in MEASURES:
        segment = 0
        for (day, present), is_alone in zip(slots, alone, strict=True):
            segment += not present
            of_day = {"measure": measure, "day": day.isoformat(), "segment": segment, "alone": is_alone}
            high = 0.0
            for key, label in labels.items() if present else ():
                share = history[day, key][f"{measure}_share"] if (day, key) in history else 0.0
                low, high = high, high + share
                figures = {"low": round(low, 6), "high": round(high, 6), "share": share}
                points.append({"key": key, "name": label, "colour": theme.macro(key), **of_day, **figures})
    return points


def macro_labels(data: ReportData, points: Sequence[Row]) -> list[Row]:
    """Return the labels at the ends of the areas, from the points that `macro_history_rows` returns."""
    known = set(data.macros["key"])
    labels: list[Row] = []
    for measure in MEASURES:
        ends = [row for row in points if row["measure"] == measure and row["day"] == data.as_of.isoformat()]
        places = spread([(row["low"] + row["high"]) / 2 for row in ends], _LABEL_GAP, 1.0)
        labels += [
            {
                "measure": measure,
                "label": f"{published_percent(row['share'])} {row['name']}",
                "label_at": place,
                "colour": row["colour"],
            }
            for row, place in zip(ends, places, strict=True)
            if row["key"] in known
        ]
    return labels


def _labels_of_macros(data: ReportData) -> dict[str, str]:
    """Return the label of each macro-category that any day has, by key, from the bottom area to the top one."""
    labels = {key: plain(label) for key, label in data.macro_history[["key", "label"]].rows()}
    return {key: labels[key] for key in sorted(labels, key=macro_place, reverse=True)}


def spread(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Return positions close to the wanted ones (0 to `top`), in the same order, at least `gap` apart."""
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
    """Return for each point whether it exists and both of its neighbours do not."""
    padded = [False, *there, False]
    return [padded[i] and not padded[i - 1] and not padded[i + 1] for i in range(1, len(padded) - 1)]
