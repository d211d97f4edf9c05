"""Shares by day: stacked areas, or lines of the models that the reader picks.

The page computes the rows from the history's series, because the reader chooses the series: `rows` has a point for each
series and day, `labels` the text at the right end, `places` the names inside the areas, and `at` the day under the
pointer. The parameter `top` is the end of the axis of shares.
"""

from __future__ import annotations

from typing import Any

from orpipeline.report.charts import parts
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import Theme

# A row's `dash` is an index.
_DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3), (4, 2), (12, 4))
# The opacity of a mark that shows only the points without a neighbour, which no line or area can show.
_WHERE_ALONE = {"condition": {"test": "datum.alone", "value": 1}, "value": 0}


def stack(theme: Theme, *, narrow: bool) -> Spec:
    """Return stacked areas from `low` to `high`. Each `segment` is drawn apart, so a missing day is a gap."""
    room = 164 if narrow else 230
    x, low, high = _day(room, narrow), _share("low"), {"field": "high"}
    areas = {"type": "area", "opacity": 1, "stroke": theme.paper, "strokeWidth": 0.75}
    apart = [{"field": "key", "type": "nominal"}, {"field": "segment", "type": "nominal"}]
    where = {"x": x, "y": low, "y2": high, "color": parts.OF_ROW}
    return _chart(
        [
            parts.layer(areas, where | {"detail": apart}),
            parts.layer({"type": "rule", "strokeWidth": 3}, where | {"opacity": _WHERE_ALONE}),
            *_names(theme, x),
            *_labels(theme, room),
            _crosshair(theme, x),
        ],
        theme,
        narrow,
    )


def lines(theme: Theme, *, narrow: bool) -> Spec:
    """Return a line for each series, broken at missing days and at days that do not list it."""
    room = 164 if narrow else 230
    x, y = _day(room, narrow), _share("share")
    dashes = {"domain": list(range(len(_DASHES))), "range": [list(dash) for dash in _DASHES]}
    dash = {"field": "dash", "type": "ordinal", "scale": dashes, "legend": None}
    line = {"type": "line", "strokeWidth": 2.25, "strokeJoin": "round", "invalid": "break-paths-show-domains"}
    detail = {"field": "key", "type": "nominal"}
    return _chart(
        [
            parts.layer(line, {"x": x, "y": y, "color": parts.OF_ROW, "strokeDash": dash, "detail": detail}),
            parts.layer(
                {"type": "circle", "size": 36}, {"x": x, "y": y, "color": parts.OF_ROW, "opacity": _WHERE_ALONE}
            ),
            *_labels(theme, room),
            _crosshair(theme, x),
        ],
        theme,
        narrow,
    )


def _chart(layers: list[Spec], theme: Theme, narrow: bool) -> Spec:
    chart = parts.chart(layers, theme, height=300 if narrow else 400)
    return chart | {"params": [{"name": "top", "value": 1}]}


def _day(room: int, narrow: bool) -> Spec:
    """Return the axis of days, which leaves `room` pixels at its right for the labels."""
    words = "utcFormat(datum.value, domain('x')[1] - domain('x')[0] > 2e10 ? '%b %Y' : '%-d %b')"
    axis = {
        "grid": False,
        "tickCount": 3 if narrow else 7,
        "labelExpr": words,
        "labelOverlap": True,
        "labelFlush": True,
    }
    scale = {"type": "utc", "range": [0, {"expr": f"width - {room + 4}"}]}
    return {"field": "day", "type": "temporal", "title": None, "scale": scale, "axis": axis}


def _share(field: str) -> Spec:
    """Return the axis of shares. All charts give its labels the same extent, which aligns their days."""
    scale = {"domainMin": 0, "domainMax": {"expr": "top"}, "nice": False}
    axis = {"format": "%", "tickCount": 5, "minExtent": 38, "maxExtent": 38}
    return {"field": field, "type": "quantitative", "title": None, "scale": scale, "axis": axis}


def _names(theme: Theme, x: Spec) -> list[Spec]:
    """Return the names inside the areas, with a border in the colour of the page."""
    mark: dict[str, Any] = {"type": "text", "fontSize": 11, "fontWeight": 600, "baseline": "middle"}
    where = {"x": x, "y": {"field": "share", "type": "quantitative"}, "text": {"field": "name", "type": "nominal"}}
    border = mark | {"strokeWidth": 3, "strokeJoin": "round", "stroke": theme.paper, "opacity": 0.75}
    return [
        {"data": {"name": "places"}, **parts.layer(border, where | {"color": {"value": theme.paper}})},
        {"data": {"name": "places"}, **parts.layer(mark, where | {"color": {"value": theme.ink}})},
    ]


def _labels(theme: Theme, room: int) -> list[Spec]:
    """Return the labels at the right: a dot in the series' colour, then its share and name in readable ink."""
    y = {"field": "label_at", "type": "quantitative", "title": None}
    words = parts.fitted("label", str(room - 16), 11, theme)
    dots = {"x": parts.pixels(f"width - {room - 8}"), "y": y, "color": parts.OF_ROW}
    texts = {
        "x": parts.pixels(f"width - {room - 16}"),
        "y": y,
        "text": {"field": "words", "type": "nominal"},
        "color": {"value": theme.ink},
    }
    mark = {
        "type": "text",
        "align": "left",
        "baseline": "middle",
        "fontSize": 12,
        "fontWeight": 500,
        "limit": room - 16,
    }
    return [
        {"data": {"name": "labels"}, **parts.layer({"type": "circle", "size": 50, "opacity": 1}, dots)},
        {
            "data": {"name": "labels"},
            **parts.layer(mark, texts),
            "transform": [{"calculate": words, "as": "words"}],
        },
    ]


def _crosshair(theme: Theme, x: Spec) -> Spec:
    mark = {"type": "rule", "strokeWidth": 1, "strokeDash": [3, 3]}
    return {"data": {"name": "at"}, **parts.layer(mark, {"x": x, "color": {"value": theme.ink}})}
