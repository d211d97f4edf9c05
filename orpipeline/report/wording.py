"""Figures and names as text: the same digits, signs and units in charts, tables and sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date

from orpipeline.days import day_ranges
from orpipeline.text import plain

UNKNOWN = "\N{EN DASH}"
"""Shown in place of an unknown figure."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RELEASE_DATE = re.compile(r"-20\d{6}(?=:|$)")
_NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """Return a fraction of 1 in percent, with 1 decimal; 2 decimals below 1%."""
    value = 100 * share
    if value == 0:
        return "0%"
    if round(value, 2) < 0.01:
        return "<0.01%"
    return f"{value:.1f}%" if round(value, 2) >= 1 else f"{value:.2f}%"


def published_percent(share: float) -> str:
    """Return a published share in percent, with 1 decimal: OpenRouter publishes fractions with 3 decimals."""
    value = 100 * share
    if value == 0:
        return "0%"
    return "<0.1%" if round(value, 1) < 0.1 else f"{value:.1f}%"


def points(change: float) -> str:
    """Return the difference of two shares (fractions of 1) in percentage points, without its sign."""
    value = abs(100 * change)
    if 0 < round(value, 4) < 0.01:
        return f"<0.01{_NO_BREAK}pp"
    digits = 1 if value == 0 or round(value, 2) >= 1 else 2
    return f"{value:.{digits}f}{_NO_BREAK}pp"


def change(difference: float | None) -> str:
    """Return a change in percentage points, with its sign; `UNKNOWN` for None."""
    return UNKNOWN if difference is None else _sign(difference) + points(difference)


def published_change(difference: float) -> str:
    """Return the difference of two published shares in percentage points, with its sign and 1 decimal."""
    rounded = round(100 * difference, 1)
    return f"{_sign(rounded)}{abs(rounded):.1f}{_NO_BREAK}pp"


def _sign(difference: float) -> str:
    return "" if difference == 0 else "+" if difference > 0 else "\N{MINUS SIGN}"


def arrow(difference: float | None) -> str:
    """Return an arrow up or down for a change; an empty string if it is zero or unknown."""
    if not difference:
        return ""
    return "▲" if difference > 0 else "▼"


def rank_range(best: int, worst: int) -> str:
    """Return the possible ranks as text: a range, or one number if both are the same."""
    return str(best) if best == worst else f"{best}\N{EN DASH}{worst}"


def day_text(day: date) -> str:
    """Return a day as `6 Oct 2026`, in any locale."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def size_text(count: int) -> str:
    """Return a number of bytes as text, in kB from 10,000 bytes on."""
    return f"{count:,} bytes" if count < 10_000 else f"{count / 1000:,.1f} kB ({count:,} bytes)"


def count_text(count: int, noun: str) -> str:
    """Return `1 day`, `2 days`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def new_or_back(first_seen: date, since: date) -> str:
    """Return the word for a model that the day `since` did not list: `back` if an earlier day listed it, else `new`."""
    return "new" if first_seen > since else "back"


def range_texts(days: Iterable[date]) -> list[str]:
    """Return each range of consecutive days as text: `1 Oct 2026 to 3 Oct 2026 (3 days)`, or `1 Oct 2026`."""
    return [
        f"{day_text(first)} to {day_text(last)} ({(last - first).days + 1} days)" if first < last else day_text(first)
        for first, last in day_ranges(days)
    ]


def short_names(model_ids: Sequence[str]) -> dict[str, str]:
    """Return a short name for each model id.

    The id without author and release date, if no other of `model_ids` has the same name; otherwise without author, if
    that is unique; otherwise the whole id.
    """
    undated = {model_id: _RELEASE_DATE.sub("", _without_author(model_id)) for model_id in model_ids}
    dated = {model_id: _without_author(model_id) for model_id in model_ids}
    uses, dated_uses = Counter(undated.values()), Counter(dated.values())
    return {
        model_id: plain(
            undated[model_id]
            if undated[model_id] and uses[undated[model_id]] == 1
            else dated[model_id]
            if dated[model_id] and dated_uses[dated[model_id]] == 1
            else model_id
        )
        for model_id in model_ids
    }


def _without_author(model_id: str) -> str:
    return model_id.split("/", 1)[-1]
