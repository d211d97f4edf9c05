"""Figures and names as text: the same digits, signs and units in charts, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, timedelta

from orpipeline.text import plain

MEASURES = {"usage": "requests", "token": "tokens"}
"""The two measures: the prefix of their columns, and their name."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """Return a fraction of 1 in percent, with 1 decimal: OpenRouter publishes fractions with 3 decimals."""
    value = 100 * share
    return "<0.1%" if 0 < round(value, 9) < 0.05 else f"{value:.1f}%"


def points(difference: float) -> str:
    """Return the difference of two shares (fractions of 1) in percentage points, with its sign and 1 decimal."""
    rounded = round(100 * difference, 1)
    sign = "" if rounded == 0 else "+" if rounded > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(rounded):.1f}{_NO_BREAK}pp"


def shown_name(model_id: str, names: Mapping[str, str]) -> str:
    """Return how the report shows a model: its readable name in `names`, or its id without the author.

    The name depends on nothing else, so that it is the same on all days.
    """
    return plain(names.get(model_id) or _without_author(model_id) or model_id)


def author_name(author: str | None) -> str:
    """Return an author as text; None, for a model id without author, is `author unknown`."""
    return "author unknown" if author is None else plain(author)


def rank_range(best: int, worst: int) -> str:
    """Return the possible ranks as text: a range, or one number if both are the same."""
    return str(best) if best == worst else f"{best}\N{EN DASH}{worst}"


def day_text(day: date) -> str:
    """Return a day as `6 Oct 2026`, in any locale."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def short_day_text(day: date) -> str:
    """Return a day as `6 Oct`, in any locale."""
    return f"{day.day} {_MONTHS[day.month - 1]}"


def window_text(last: date, days: int) -> str:
    """Return the window of `days` days that ends with `last`: `30 Sep to 6 Oct 2026`, `16 to 22 Nov 2026`."""
    first = last - timedelta(days=days - 1)
    if first == last:
        return day_text(last)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {day_text(last)}"
    return f"{short_day_text(first) if first.year == last.year else day_text(first)} to {day_text(last)}"


def count_text(count: int, noun: str) -> str:
    """Return `1 day`, `2 days`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def new_or_back(first_seen: date, since: date) -> str:
    """Return the word for a model that the day `since` did not list: `back` if an earlier day listed it, else `new`."""
    return "new" if first_seen > since else "back"


def _without_author(model_id: str) -> str:
    return model_id.split("/", 1)[-1]


def possible_points(low: float, high: float) -> str:
    """Return a possible change as text, rounded outwards to 0.1 percentage points: `+0.2 to +0.9`.

    A bound that is not 0 and would be rounded to it has the decimals that it needs: a certain change excludes 0.
    """
    return f"{_bound(low, math.floor)} to {_bound(high, math.ceil)}"


def _bound(change: float, outwards: Callable[[float], int]) -> str:
    decimals = 1
    while not (units := outwards(round(100 * change * 10**decimals, 6))) and round(100 * change, 6):
        decimals += 1
    sign = "+" if units > 0 else "\N{MINUS SIGN}" if units < 0 else ""
    return f"{sign}{abs(units) / 10**decimals:.{decimals}f}"
