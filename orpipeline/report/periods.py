"""The days that a chart of the history draws, and the periods whose leaders it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

_DAILY_POINTS = 400  # up to this many days, each day is a point
_MOST_POINTS = 550  # for a longer history, the maximum number of points
_WEEK = 7
_MOST_PERIODS = 12


@dataclass(frozen=True)
class DrawnDay:
    """A point on the axis of days; a gap if the tables do not have the day."""

    day: date
    is_known: bool


def drawn_days(days: Sequence[date], as_of: date) -> list[DrawnDay]:
    """Return the days to draw, oldest first.

    A history of up to 400 days is drawn day by day. A longer one has one point for each week (or for several weeks),
    counted back from `as_of`: the newest day that the tables have of it, or a gap if they have none.
    """
    span = (as_of - days[0]).days + 1
    step = drawn_step(days, as_of)
    known = sorted(days)
    drawn: list[DrawnDay] = []
    for back in range(-(-span // step)):
        end = as_of - timedelta(days=step * back)
        while known and known[-1] > end:
            known.pop()
        is_known = bool(known) and known[-1] > end - timedelta(days=step)
        drawn.append(DrawnDay(known[-1] if is_known else end, is_known))
    return drawn[::-1]


def drawn_step(days: Sequence[date], as_of: date) -> int:
    """Return how many days one point of the history covers."""
    span = (as_of - days[0]).days + 1
    return 1 if span <= _DAILY_POINTS else _WEEK * -(-span // (_WEEK * _MOST_POINTS))


def periods(count: int) -> list[range]:
    """Return the indices of `count` points in up to 12 periods of about equal length, at least a week's points each."""
    number = max(1, min(_MOST_PERIODS, count // _WEEK))
    return [range(count * n // number, count * (n + 1) // number) for n in range(number)]
