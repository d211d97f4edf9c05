"""Shares by day: lines for the top models, areas for the macro-categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from orpipeline.report.charts.drawing import chosen, colour_of_row, finished, fitted, layer, params
from orpipeline.report.colours import Theme
from orpipeline.report.history_rows import Series, axis_top
from orpipeline.report.rows import MEASURES

_DAY_TEXT = "utcFormat(datum.day, '%-d %b %Y')"
# The opacity of a mark that shows only the points without a neighbour, which no line or area can show.
_WHERE_ALONE = alt.condition("datum.alone", alt.value(1), alt.value(0))


def model_history(
    theme: Theme, data: Any, labels: Any, series: Sequence[Series], *, narrow: bool, width: Any = "container"
) -> Any:
    """Return the top models' attributed shares by day. A line breaks at a missing day."""
    room = 34 if narrow else 230
    label = "datum.place" if narrow else fitted("label", room - 16, 12, theme)
    keys = [one.key for one in series]
    colours = alt.Scale(domain=keys, range=[one.colour for one in series])
    dashes = alt.Scale(domain=keys, range=[list(one.dash) for one in series])
    colour = alt.Color("key:N", scale=colours, legend=None)
    dash = alt.StrokeDash("key:N", scale=dashes, legend=None)
    x, y = _day(room, narrow), _share(series)
    lines = (
        layer()
        .mark_line(strokeWidth=2.25, strokeJoin="round", invalid="break-paths-show-domains")
        .encode(x=x, y=y, color=colour, strokeDash=dash)
    )
    alone = layer().mark_circle(size=36).encode(x=x, y=y, color=colour, opacity=_WHERE_ALONE)
    touch = (
        layer()
        .transform_lookup("key", from_=alt.LookupData(data=labels, key="key", fields=["name"]))
        .transform_calculate(day_text=_DAY_TEXT)
        .mark_circle(size=140, opacity=0)
        .encode(x=x, y=y, tooltip=_tooltips("Model", ".2%"))
    )
    return finished(
        [lines, alone, *_end_labels(labels, label, theme, room), touch],
        theme,
        data,
        params=params(measure="usage"),
        only=chosen("measure"),
        width=width,
        height=300 if narrow else 380,
    )


def macro_history(theme: Theme, data: Any, labels: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return the macro-categories' shares by day as stacked areas. The areas break at a missing day."""
    room = 116 if narrow else 230
    x, colour = _day(room, narrow), colour_of_row()
    low = alt.Y("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=_share_axis())
    areas = (
        layer()
        .mark_area(opacity=1, line={"strokeWidth": 0.75, "color": theme.paper})
        .encode(x=x, y=low, y2="high:Q", color=colour, detail=["key:N", "segment:N"])
    )
    alone = layer().mark_rule(strokeWidth=3).encode(x=x, y=low, y2="high:Q", color=colour, opacity=_WHERE_ALONE)
    touch = (
        layer()
        .transform_calculate(day_text=_DAY_TEXT)
        .mark_rule(strokeWidth=7, opacity=0)
        .encode(x=x, y=low, y2="high:Q", tooltip=_tooltips("Macro-category", ".1%"))
    )
    return finished(
        [areas, alone, *_end_labels(labels, "datum.label", theme, room), touch],
        theme,
        data,
        params=params(measure="usage"),
        only=chosen("measure"),
        width=width,
        height=260 if narrow else 320,
    )


def _day(room: int, narrow: bool) -> Any:
    """Return the axis of days, which leaves `room` pixels at its right for the labels."""
    scale = alt.Scale(type="utc", range=[0, alt.expr(f"width - {room + 4}")])
    words = "utcFormat(datum.value, domain('x')[1] - domain('x')[0] > 2e10 ? '%b %Y' : '%-d %b')"
    axis = alt.Axis(grid=False, tickCount=3 if narrow else 7, labelExpr=words, labelOverlap=True, labelFlush=True)
    return alt.X("day:T", title=None, scale=scale, axis=axis)


def _share(series: Sequence[Series]) -> Any:
    """Return the axis of shares, which ends above the largest share of the chosen measure."""
    top = {measure: axis_top(series, measure) for measure in MEASURES}
    highest = alt.expr(f"measure === 'usage' ? {top['usage']} : {top['token']}")
    scale = alt.Scale(domainMin=0, domainMax=highest, nice=False)
    return alt.Y("share:Q", title=None, scale=scale, axis=_share_axis())


def _share_axis() -> Any:
    # Both charts have the same extent, which aligns their days.
    return alt.Axis(format="%", tickCount=5, minExtent=38, maxExtent=38)


def _tooltips(title: str, digits: str) -> list[Any]:
    return [
        alt.Tooltip("name:N", title=title),
        alt.Tooltip("day_text:N", title="Day"),
        alt.Tooltip("share:Q", title="Share", format=digits),
    ]


def _end_labels(labels: Any, words: str, theme: Theme, room: int) -> list[Any]:
    """Return the labels at the right: a dot in each line's colour, then `words` (an expression) in readable ink."""
    shown = alt.Chart(labels).transform_filter(chosen("measure"))
    at = alt.Y("label_at:Q", title=None)
    dots = shown.mark_circle(size=50, opacity=1).encode(
        x=alt.value(alt.expr(f"width - {room - 8}")), y=at, color=colour_of_row()
    )
    texts = (
        shown.transform_calculate(words=words)
        .mark_text(align="left", baseline="middle", fontSize=12, fontWeight=500, limit=room - 16)
        .encode(x=alt.value(alt.expr(f"width - {room - 16}")), y=at, text="words:N", color=alt.value(theme.ink))
    )
    return [dots, texts]
